package pbx

import (
	"net/url"
	"strings"

	"centralka/ordinance"
	"centralka/store"

	"github.com/emiago/sipgo/sip"
)

// Presentations of a store.Party.
const (
	presentAllowed     = "allowed"
	presentWithheld    = "withheld"
	presentUnavailable = "unavailable"
)

// callerIdentity tells who calls. From a trunk (trusted) that is
// P-Asserted-Identity, then P-Preferred-Identity, then From (RFC 3325 §9.1);
// from anybody else only From, for anybody can write the other two. Diversion
// and History-Info name whom the call was meant for and change nothing.
//
// A caller who asked for privacy, by any of the ways there are, is withheld:
// Number and Raw stay empty even though the network may have passed the number
// on (S4.7-a). A caller without a number (a name, "unavailable", nothing) is
// unavailable. Both are not identifiable (Zarz. 284/17 §4 ust. 7).
func callerIdentity(req *sip.Request, trusted bool) store.Party {
	from := identityFrom(req)
	asked := privacyAsked(req) || from.anonymous()
	var found []identityClaim
	if trusted {
		found = append(identityClaims(req, "P-Asserted-Identity"), identityClaims(req, "P-Preferred-Identity")...)
		for _, c := range found {
			asked = asked || c.anonymous()
		}
	}
	found = append(found, from)
	if asked {
		return store.Party{Source: found[0].source, Presentation: presentWithheld}
	}
	for _, c := range found {
		if n, ok := usableNumber(c.number); ok {
			return store.Party{Number: n, Raw: c.raw, Source: c.source, Presentation: presentAllowed}
		}
	}
	return store.Party{Raw: found[0].raw, Source: found[0].source, Presentation: presentUnavailable}
}

// identityClaim is one address that says who calls.
type identityClaim struct {
	source  string // header name
	display string
	host    string
	raw     string // user part as received, without its parameters
	number  string // raw without escapes, made global by phone-context
}

func identityFrom(req *sip.Request) identityClaim {
	if f := req.From(); f != nil {
		return newIdentityClaim("From", f.DisplayName, &f.Address)
	}
	return identityClaim{source: "From"}
}

// identityClaims reads a field that sipgo keeps as text; a value that cannot be
// read says nothing.
func identityClaims(req *sip.Request, source string) (claims []identityClaim) {
	for _, h := range req.GetHeaders(source) {
		rest := []byte(h.Value())
		for range 8 {
			one := rest
			comma := indexListComma(rest)
			if comma >= 0 {
				one, rest = rest[:comma], rest[comma+1:]
			}
			var uri sip.Uri
			display, err := sip.ParseAddressValue(string(trimBlank(one)), &uri, nil)
			if err == nil {
				claims = append(claims, newIdentityClaim(source, display, &uri))
			}
			if comma < 0 {
				break
			}
		}
	}
	return claims
}

// newIdentityClaim takes the user part of a sip: URI or the number of a tel: URI
// apart: "+48914245000;phone-context=…" (RFC 3966 §5.1.5, RFC 3261 §19.1.6).
func newIdentityClaim(source, display string, uri *sip.Uri) identityClaim {
	c := identityClaim{source: source, display: display, host: uri.Host}
	user := uri.User
	if uri.Scheme != "sip" && uri.Scheme != "sips" {
		if uri.Scheme != "tel" {
			return c
		}
		user = uri.Raw()
	}
	raw, params, _ := strings.Cut(user, ";")
	c.raw = strings.TrimSpace(raw)
	c.number = c.raw
	if plain, err := url.PathUnescape(c.number); err == nil {
		c.number = plain
	}
	if strings.HasPrefix(c.number, "+") {
		return c
	}
	for p := range strings.SplitSeq(params, ";") {
		name, context, _ := strings.Cut(p, "=")
		if plain, err := url.PathUnescape(context); err == nil {
			context = plain
		}
		if strings.EqualFold(strings.TrimSpace(name), "phone-context") && strings.HasPrefix(context, "+") {
			c.number = context + c.number // the context is what is missing in front
		}
	}
	return c
}

// identityWords are user parts and display names that say that the caller does
// not want to be known (RFC 3323 §4.1.1.3, and what networks write instead).
var identityWords = []string{"anonymous", "restricted", "private", "withheld", "clir", "numer zastrzeżony", "zastrzeżony", "anonim"}

// anonymous tells whether the address hides the caller.
func (c identityClaim) anonymous() bool {
	host := strings.ToLower(c.host)
	if host == "anonymous.invalid" || strings.HasSuffix(host, ".anonymous.invalid") {
		return true
	}
	display := strings.Trim(strings.TrimSpace(c.display), `"`)
	for _, w := range identityWords {
		if strings.EqualFold(strings.TrimSpace(display), w) || strings.EqualFold(c.number, w) {
			return true
		}
	}
	return false
}

// privacyAsked reads Privacy (RFC 3323 §4.2, RFC 3325 §9.3) in any case, list
// and number, and the older Remote-Party-ID. "none" alone asks for nothing.
func privacyAsked(req *sip.Request) bool {
	for _, h := range req.GetHeaders("Privacy") {
		for _, v := range strings.FieldsFunc(h.Value(), func(r rune) bool { return r == ';' || r == ',' || r == ' ' || r == '\t' }) {
			switch strings.ToLower(v) {
			case "id", "user", "header":
				return true
			}
		}
	}
	for _, h := range req.GetHeaders("Remote-Party-ID") {
		for p := range strings.SplitSeq(strings.ToLower(h.Value()), ";") {
			name, value, _ := strings.Cut(p, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			if strings.TrimSpace(name) == "privacy" && value != "" && value != "off" && value != "none" {
				return true
			}
		}
	}
	return false
}

// usableNumber reads a number that somebody can be called by. One or two digits
// and zeroes are none: gateways send them for "unknown".
func usableNumber(s string) (ordinance.Number, bool) {
	n, ok := ordinance.ParseNumber(s)
	if !ok || len(n) < 3 || strings.Trim(n.E164(), "+0") == "" {
		return "", false
	}
	return n, true
}
