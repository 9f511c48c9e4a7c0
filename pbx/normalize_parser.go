package pbx

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// isToken checks the token of RFC 3261 §25.1.
func isToken[T []byte | string](s T) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-.!%*_+`'~", c) >= 0:
		default:
			return false
		}
	}
	return len(s) > 0
}

// readableURI tells whether sipgo's parser takes a Request-URI, and takes it for
// what it is.
func readableURI(uri []byte) bool {
	colon := bytes.IndexByte(uri, ':')
	if colon < 1 || bytes.ContainsAny(uri, " \t<>\"\r\x00") {
		return false
	}
	for _, c := range uri[:colon] {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false // a scheme like soap.beep is a 416 of malformedResponse
		}
	}
	rest := uri[colon+1:]
	if scheme := uri[:colon]; !bytes.EqualFold(scheme, []byte("sip")) && !bytes.EqualFold(scheme, []byte("sips")) {
		return len(rest) > 0
	}
	rest = bytes.TrimPrefix(rest, []byte("//"))
	if at := bytes.IndexByte(rest, '@'); at >= 0 {
		if bytes.IndexByte(rest[:at], '[') >= 0 {
			return false
		}
		rest = rest[at+1:]
	}
	if end := bytes.IndexAny(rest, ";?"); end >= 0 {
		rest = rest[:end]
	}
	host, port := rest, []byte(nil)
	if len(rest) > 0 && rest[0] == '[' {
		end := bytes.IndexByte(rest[:min(len(rest), 42)], ']')
		if end < 0 {
			return false
		}
		host, port = rest[:end+1], rest[end+1:]
		if len(port) > 0 && port[0] != ':' {
			return false
		}
		port = bytes.TrimPrefix(port, []byte{':'})
		if len(rest) > end+1 && len(port) == 0 {
			return false
		}
	} else if before, after, ok := bytes.Cut(rest, []byte{':'}); ok {
		host, port = before, after
		if len(port) == 0 {
			return false
		}
	}
	if len(port) > 0 {
		if n, ok := parseLength(port); !ok || n == 0 || n > 65535 {
			return false
		}
	}
	return validHost(host)
}

// validHost accepts a host name, an IPv4 address, or an IPv6 reference in
// brackets (RFC 3261 §25.1). Three colons, which that grammar allowed by
// mistake, are read as two (RFC 5118 §4.10).
func validHost[T []byte | string](host T) bool {
	if len(host) > 0 && host[0] == '[' {
		text := strings.Replace(strings.Trim(string(host), "[]"), ":::", "::", 1)
		a, err := netip.ParseAddr(text)
		return err == nil && a.Is6() && a.Zone() == ""
	}
	for i := range len(host) {
		switch c := host[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return len(host) > 0 && len(host) <= 255
}

// validURI checks a parsed URI of a header field.
func validURI(u *sip.Uri) bool {
	if u.Scheme != "sip" && u.Scheme != "sips" {
		return u.Scheme != "" && u.Raw() != ""
	}
	return validHost(u.Host) && u.Port >= 0 && u.Port <= 65535 && !strings.ContainsAny(u.User, " \t<>\"")
}

// newSIPParser makes the parser to give to sipgo. Its header parsers are sipgo's
// own, but a field that is broken does not lose the whole message: it is kept as
// text, under its full name, and validate finds that it is not of its type.
func newSIPParser() *sip.Parser {
	names := map[string]string{
		"c": "Content-Type", "content-type": "Content-Type", "f": "From", "from": "From", "t": "To", "to": "To",
		"m": "Contact", "contact": "Contact", "i": "Call-ID", "call-id": "Call-ID", "cseq": "CSeq",
		"v": "Via", "via": "Via", "max-forwards": "Max-Forwards", "l": "Content-Length", "content-length": "Content-Length",
		"route": "Route", "record-route": "Record-Route", "refer-to": "Refer-To", "referred-by": "Referred-By",
	}
	parsers := make(map[string]sip.HeaderParser, len(names))
	for key, parse := range sip.DefaultHeadersParser() {
		name, ok := names[key]
		if !ok {
			continue // a field that a newer sipgo parses stays text
		}
		parsers[key] = func(lower []byte, text string) (sip.Header, error) {
			h, err := parse(lower, text)
			if err == nil && soundHeader(h, text) {
				return h, nil
			}
			if err != nil && err.Error() == "comma detected" {
				// sipgo's way to say that a list goes on. Normalised text has
				// none, but text that came another way is not to lose it.
				return h, err
			}
			return sip.NewHeader(name, text), nil
		}
	}
	return sip.NewParser(sip.WithHeadersParsers(parsers))
}

// soundHeader makes up for what sipgo's header parsers let through.
func soundHeader(h sip.Header, text string) bool {
	switch h := h.(type) {
	case *sip.FromHeader:
		return soundAddress(text) && validURI(&h.Address) && soundTag(h.Params)
	case *sip.ToHeader:
		return soundAddress(text) && validURI(&h.Address) && soundTag(h.Params)
	case *sip.ContactHeader:
		if h.Address.Wildcard {
			return text == "*"
		}
		return soundAddress(text) && validURI(&h.Address)
	case *sip.RouteHeader:
		return soundAddress(text) && validURI(&h.Address)
	case *sip.RecordRouteHeader:
		return soundAddress(text) && validURI(&h.Address)
	case *sip.ReferToHeader:
		return soundAddress(text) && validURI(&h.Address)
	case *sip.ReferredByHeader:
		return soundAddress(text) && validURI(&h.Address)
	case *sip.ViaHeader:
		host := h.Host
		if strings.Contains(host, ":") {
			host = "[" + host + "]" // sipgo takes the brackets off
		}
		branch, _ := h.Params.Get("branch")
		return validHost(host) && h.Port >= 0 && h.Port <= 65535 && isToken(h.ProtocolName) &&
			isToken(h.ProtocolVersion) && isToken(h.Transport) && !strings.ContainsAny(branch, " \t,")
	case *sip.CSeqHeader:
		return isToken(string(h.MethodName))
	case *sip.CallIDHeader:
		return !strings.ContainsAny(string(*h), " \t")
	}
	return true
}

// soundAddress checks the shape of a name-addr or addr-spec value.
func soundAddress(text string) bool {
	v := []byte(text)
	open := indexUnquoted(v, '<')
	if open < 0 {
		spec, _ := cutParams(v)
		// Without brackets a question mark or comma would belong to nobody
		// (RFC 3261 §20, RFC 4475 §3.1.2.13).
		return !bytes.ContainsAny(spec, "?, \t\"<>")
	}
	length := bytes.IndexByte(v[open:], '>')
	if length < 0 {
		return false
	}
	rest := v[open+length+1:]
	if len(rest) > 0 && rest[0] != ';' && rest[0] != ' ' {
		return false
	}
	return !bytes.ContainsAny(v[open+1:open+length], " \t<\"")
}

func soundTag(p sip.HeaderParams) bool {
	tag, _ := p.Get("tag")
	return !strings.ContainsAny(tag, " \t\",<>")
}
