package pbx

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"centralka/ordinance"
)

// divertedFrom is the number that a forwarded call was meant for at first: the
// last Diversion (RFC 5806 §4: the latest stands on top), else the first entry
// of History-Info (RFC 7044 §5). It is empty if there is none, or if it or the
// caller asks for privacy. Who calls is not decided by it: a forwarded call
// keeps its caller.
func divertedFrom(req *sip.Request) ordinance.Number {
	if privacyAsked(req) {
		return ""
	}
	for _, h := range req.GetHeaders("Privacy") {
		if strings.Contains(strings.ToLower(h.Value()), "history") { // RFC 7044 §10.1.1
			return ""
		}
	}
	diversions := entries(req, "Diversion")
	if n := len(diversions); n > 0 {
		return entryNumber(diversions[n-1])
	}
	// The last entry is whom we were called as; alone it tells of no forwarding.
	if history := entries(req, "History-Info"); len(history) > 1 {
		return entryNumber(history[0])
	}
	return ""
}

// entries lists the values of a field over all its lines.
func entries(m sip.Message, name string) (all []string) {
	for _, h := range m.GetHeaders(name) {
		all = append(all, splitList(h.Value())...)
	}
	return all
}

// entryNumber reads the number of one entry, unless the entry wants privacy:
// RFC 5806 §4 has a parameter for it, RFC 7044 §10.1.1 a header in the URI.
func entryNumber(entry string) ordinance.Number {
	lower := strings.ToLower(entry)
	for _, private := range []string{"privacy=full", "privacy=\"full", "privacy=name", "privacy=uri", "privacy=history", "privacy=id"} {
		if strings.Contains(lower, private) {
			return ""
		}
	}
	var uri sip.Uri
	params := sip.NewParams()
	if _, err := sip.ParseAddressValue(entry, &uri, &params); err != nil {
		return ""
	}
	n, ok := usableNumber(newIdentityClaim("", "", &uri).number)
	if !ok {
		return ""
	}
	return n
}
