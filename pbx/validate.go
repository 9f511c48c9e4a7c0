package pbx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// maxBody bounds the body of a request, bytes (413).
const maxBody = 48 << 10

// requestRules is what validate must know of us.
type requestRules struct {
	// Extensions are the option tags that a request may require.
	Extensions []string
	// Own are the sent-by of our own Via ("192.0.2.10:5060"), by which a request
	// of ours that came back is known.
	Own []string
}

// validate is the one place that decides whether a request may be looked at at
// all: nothing reads a header before it. It returns status 0 if the request is
// fine, else the final response to send, with headers to put into it. An ACK is
// never answered: a status for it means to drop it. The request must come from
// the parser of newSIPParser.
//
// What the method means, and whether it is known (405, 501), whether the dialog
// exists (481), and merged requests (482, RFC 3261 §8.2.2.2) are the caller's.
func validate(req *sip.Request, rules requestRules) (status int, reason string, headers []sip.Header) {
	bad := func(reason string) (int, string, []sip.Header) { return 400, reason, nil }
	if !strings.EqualFold(req.SipVersion, "SIP/2.0") {
		return 505, "Version Not Supported", nil
	}
	if reason := checkFields(req.Headers()); reason != "" {
		return bad(reason)
	}
	from, to, cseq := req.From(), req.To(), req.CSeq()
	if tag, _ := from.Params.Get("tag"); tag == "" {
		return bad("Missing From tag") // RFC 3261 §8.1.1.3
	}
	if !strings.EqualFold(string(cseq.MethodName), string(req.Method)) {
		return bad("CSeq method mismatch")
	}
	for _, h := range req.GetHeaders("Via") {
		via := h.(*sip.ViaHeader)
		if !strings.EqualFold(via.ProtocolName, "SIP") || via.ProtocolVersion != "2.0" {
			return bad("Bad Via protocol")
		}
	}
	switch uri := &req.Recipient; uri.Scheme {
	case "sip", "sips":
		if !validURI(uri) {
			return bad("Bad Request-URI")
		}
		if len(uri.Headers) > 0 {
			return bad("Headers in Request-URI") // RFC 3261 §19.1.1, RFC 4475 §3.1.2.11
		}
	case "tel":
	default:
		return 416, "Unsupported URI Scheme", nil
	}
	if looped(req, rules.Own) {
		return 482, "Loop Detected", nil
	}
	_, inDialog := to.Params.Get("tag")
	opens := req.Method == sip.INVITE && !inDialog
	// We are where every request ends; but an INVITE makes us send another one,
	// so for it the count of hops goes on (RFC 3261 §16.3, RFC 4475 §3.3.11).
	if mf := req.MaxForwards(); opens && mf != nil && mf.Val() == 0 {
		return 483, "Too Many Hops", nil
	}
	if req.Method != sip.ACK && req.Method != sip.CANCEL {
		if unknown := unsupported(req, rules.Extensions); len(unknown) > 0 {
			return 420, "Bad Extension", []sip.Header{sip.NewHeader("Unsupported", strings.Join(unknown, ", "))}
		}
	}
	if opens {
		contacts := req.GetHeaders("Contact")
		if len(contacts) != 1 {
			return bad("Need exactly one Contact") // RFC 3261 §8.1.1.8
		}
		if c := contacts[0].(*sip.ContactHeader); c.Address.Scheme != "sip" && c.Address.Scheme != "sips" {
			return bad("Bad Contact")
		}
	}
	if len(req.Body()) > maxBody {
		return 413, "Request Entity Too Large", nil
	}
	if req.Method == sip.INVITE {
		if !acceptsSDP(req) {
			return 406, "Not Acceptable", nil
		}
		if _, status, reason := sdpBody(req); status != 0 {
			return status, reason, []sip.Header{
				sip.NewHeader("Accept", "application/sdp"), sip.NewHeader("Accept-Encoding", "identity")}
		}
	}
	return 0, "", nil
}

// checkFields finds fields that are broken, missing, or there twice; the answer
// is the reason phrase, empty if all is well.
func checkFields(fields []sip.Header) string {
	var from, to, callID, cseq, via, hops int
	for _, h := range fields {
		if brokenHeader(h) {
			return "Bad " + sip.HeaderToLower(h.Name())
		}
		switch h := h.(type) {
		case *sip.FromHeader:
			from++
		case *sip.ToHeader:
			to++
		case *sip.CallIDHeader:
			callID++
		case *sip.CSeqHeader:
			cseq++
		case *sip.ViaHeader:
			via++
		case *sip.MaxForwardsHeader:
			if hops++; h.Val() > 255 {
				return "Bad max-forwards"
			}
		}
	}
	for _, f := range []struct {
		name      string
		n, lo, hi int
	}{
		{"Via", via, 1, textMaxHeaders}, {"From", from, 1, 1}, {"To", to, 1, 1}, {"Call-ID", callID, 1, 1}, {"CSeq", cseq, 1, 1},
		// Its absence is forgiven (RFC 3261 §16.3).
		{"Max-Forwards", hops, 0, 1},
	} {
		if f.n < f.lo {
			return "Missing " + f.name
		}
		if f.n > f.hi {
			return "Multiple " + f.name
		}
	}
	return ""
}

// brokenHeader tells whether a field that sipgo has a type for was kept as text
// because it could not be read.
func brokenHeader(h sip.Header) bool {
	ok := true
	switch sip.HeaderToLower(h.Name()) {
	case "from":
		_, ok = h.(*sip.FromHeader)
	case "to":
		_, ok = h.(*sip.ToHeader)
	case "contact":
		_, ok = h.(*sip.ContactHeader)
	case "call-id":
		_, ok = h.(*sip.CallIDHeader)
	case "cseq":
		_, ok = h.(*sip.CSeqHeader)
	case "via":
		_, ok = h.(*sip.ViaHeader)
	case "max-forwards":
		_, ok = h.(*sip.MaxForwardsHeader)
	case "content-length":
		_, ok = h.(*sip.ContentLengthHeader)
	case "content-type":
		_, ok = h.(*sip.ContentTypeHeader)
	case "route":
		_, ok = h.(*sip.RouteHeader)
	case "record-route":
		_, ok = h.(*sip.RecordRouteHeader)
	case "refer-to":
		_, ok = h.(*sip.ReferToHeader)
	case "referred-by":
		_, ok = h.(*sip.ReferredByHeader)
	}
	return !ok
}

// looped finds our own Via: the request was ours and came back (RFC 3261
// §16.3). The same Via twice is a loop between others.
func looped(req *sip.Request, own []string) bool {
	seen := make(map[string]bool)
	for _, h := range req.GetHeaders("Via") {
		via := h.(*sip.ViaHeader)
		port := via.Port
		if port == 0 {
			port = sip.DefaultPort(via.Transport)
		}
		sentBy := net.JoinHostPort(strings.ToLower(via.Host), strconv.Itoa(port))
		if slices.Contains(own, sentBy) {
			return true
		}
		branch, _ := via.Params.Get("branch")
		if strings.HasPrefix(branch, sip.RFC3261BranchMagicCookie) {
			key := sentBy + " " + branch
			if seen[key] {
				return true
			}
			seen[key] = true
		}
	}
	return false
}

// unsupported lists the option tags of Require that we do not have (RFC 3261
// §8.2.2.3). Proxy-Require is not for us.
func unsupported(req *sip.Request, known []string) (unknown []string) {
	for _, h := range req.GetHeaders("Require") {
		for tag := range strings.SplitSeq(h.Value(), ",") {
			tag = strings.TrimSpace(tag)
			if tag == "" || slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, tag) }) {
				continue
			}
			if isToken(tag) && len(unknown) < 32 {
				unknown = append(unknown, tag)
			}
		}
	}
	return unknown
}

// acceptsSDP reads Accept: absent, or something that takes in application/sdp.
func acceptsSDP(req *sip.Request) bool {
	fields := req.GetHeaders("Accept")
	for _, h := range fields {
		for one := range strings.SplitSeq(h.Value(), ",") {
			kind, _, _ := strings.Cut(one, ";")
			switch strings.ToLower(strings.ReplaceAll(strings.TrimSpace(kind), " ", "")) {
			case "application/sdp", "application/*", "*/*":
				return true
			}
		}
	}
	return len(fields) == 0
}

// sdpBody finds the session description of a message: the body, or the first
// part of that type in a multipart body. No body, or one that may be ignored
// (handling=optional, RFC 3204), is nil and 0; a body that we cannot read is
// status 415 with its reason phrase.
func sdpBody(msg interface {
	Body() []byte
	GetHeader(name string) sip.Header
}) (body []byte, status int, reason string) {
	body = msg.Body()
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, 0, ""
	}
	if h := msg.GetHeader("Content-Encoding"); h != nil && !strings.EqualFold(strings.TrimSpace(h.Value()), "identity") && h.Value() != "" {
		return nil, 415, "Unsupported Media Type"
	}
	kind := ""
	if h := msg.GetHeader("Content-Type"); h != nil {
		kind = h.Value()
	} else if bytes.HasPrefix(body, []byte("v=0")) {
		kind = "application/sdp" // forgiven: there is nothing else that it could be
	}
	optional := false
	if h := msg.GetHeader("Content-Disposition"); h != nil {
		_, params, err := mime.ParseMediaType(h.Value())
		optional = err == nil && strings.EqualFold(params["handling"], "optional")
	}
	body, ok := sdpPart(kind, body)
	if !ok && !optional {
		return nil, 415, "Unsupported Media Type"
	}
	return body, 0, ""
}

func sdpPart(kind string, body []byte) ([]byte, bool) {
	name, params, err := mime.ParseMediaType(kind)
	if name == "application/sdp" {
		return body, true // whatever its parameters are
	}
	if err != nil || !strings.HasPrefix(name, "multipart/") || params["boundary"] == "" {
		return nil, false
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for range 16 {
		part, err := parts.NextRawPart()
		if err != nil {
			return nil, false
		}
		name, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil || name != "application/sdp" {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(part, sdpMaxBytes))
		return b, err == nil
	}
	return nil, false
}

// validateResponse tells why a response must be dropped, nil if it is fine.
// sipgo has matched it to a request by its top Via and CSeq.
func validateResponse(res *sip.Response) error {
	if res.StatusCode < 100 || res.StatusCode > 699 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	if reason := checkFields(res.Headers()); reason != "" {
		return errors.New(reason)
	}
	// More than one Via: it was meant for somebody behind us, and we are no
	// proxy (RFC 3261 §8.1.3.3).
	if n := len(res.GetHeaders("Via")); n != 1 {
		return fmt.Errorf("%d Via fields", n)
	}
	return nil
}
