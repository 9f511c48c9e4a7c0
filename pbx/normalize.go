package pbx

import "bytes"

// What comes from the network is looked at here before sipgo's parser sees it.
// That parser loses tags and parameters around white space, cannot read lists
// in Via, splits quoted parameters, refuses whole messages for one bad header,
// and has nobody to tell. So:
//
//	guard.admit -> normalizeDatagram -> sipgo with the parser of newSIPParser -> validate
//
// The invariant that holds it together, and which is fuzzed: what
// normalizeDatagram or streamText.next calls textRequest or textResponse, the
// parser of newSIPParser reads without an error. So nothing is ever lost in a
// log line of sipgo: a message is parsed, or answered by malformedResponse, or
// dropped on purpose and counted.
//
// Wiring, with the names of sipgo v1.7.2:
//
//	sipgo.NewUA(
//		sipgo.WithUserAgentParser(newSIPParser()),
//		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerReadFilter(filter)),
//	)
//
// filter is a sip.TransportReadFilter, func(sip.TransportReadProps, []byte)
// ([]byte, error). It runs on the reading goroutine of the listener, for UDP
// before sipgo remembers the source. Returning nil, nil drops the datagram; an
// error ends the listener, so it never returns one. The slice that it gets is
// sipgo's read buffer, and what it returns is parsed before the next read. For
// UDP it calls normalizeDatagram and
//
//	textRequest, textResponse  returns out
//	textMalformed              sends malformedResponse(b, source) from the same socket, returns nil
//	textKeepAlive              sends out if it is not empty, returns nil
//	textStun, textGarbage      returns nil
//
// For TCP and TLS the filter sees pieces of a stream, not messages. There the
// connection is wrapped (which limits and idle timeouts need anyway): its Read
// gives what it read to the feed of a streamText of its own, writes the reply to
// the peer, and returns the rest to sipgo.

// textKind says what a datagram, or the next piece of a stream, is.
type textKind uint8

const (
	textGarbage   textKind = iota // nothing that deserves an answer
	textRequest                   // for the parser
	textResponse                  // for the parser
	textKeepAlive                 // CRLF or other white space between messages (RFC 5626 §4.4.1)
	textStun                      // STUN (RFC 5389), a phone's keep-alive that we do not answer
	textMalformed                 // a request that cannot be parsed: malformedResponse may answer it
	textPartial                   // streams only: more bytes are needed
	textLost                      // streams only: no boundary is left; answer if possible and close
)

const (
	textMaxBytes   = 65535 // of one message; sipgo's own limit
	textMaxHeaders = 256   // header lines of one message
)

// normalizeDatagram looks at one UDP datagram and brings it into the form that
// sipgo reads right: header fields on one line, no white space around the
// separators of Via, From, To, Contact, Route and their like, lists split into
// one line each, parameter names in lower case, compact names that sipgo does
// not know written out, superfluous bytes after the body cut off, more
// Content-Length than bytes refused (RFC 3261 §18.3).
//
// A message that needs nothing of it is returned as a part of b, without a copy
// or an allocation. For textKeepAlive out is the pong to send, if any. It never
// keeps b.
func normalizeDatagram(b []byte) (out []byte, kind textKind) {
	if kind := notSIP(b); kind != textPartial {
		if bytes.Equal(b, []byte("\r\n\r\n")) {
			return []byte("\r\n"), kind
		}
		return nil, kind
	}
	b = bytes.TrimLeft(b, "\r\n") // RFC 3261 §7.5
	if len(b) > textMaxBytes {
		return nil, textGarbage
	}
	s := scanText(b)
	if s.kind != textRequest && s.kind != textResponse {
		return nil, s.kind
	}
	body := b[s.end:]
	switch {
	case s.length > len(body):
		return nil, s.refuse()
	case s.length >= 0:
		body = body[:s.length]
	}
	if s.ready {
		return b[:s.end+len(body)], s.kind
	}
	out = append(rewriteHead(b[:s.end]), body...)
	if len(out) > textMaxBytes {
		return nil, s.refuse()
	}
	return out, s.kind
}

// notSIP recognises what is no SIP message at all; textPartial means that it may
// be one.
func notSIP(b []byte) textKind {
	if len(bytes.Trim(b, "\r\n \t\x00")) == 0 {
		if len(b) > 64 {
			return textGarbage
		}
		return textKeepAlive
	}
	// RFC 5389 §6: two zero bits, a length that is a multiple of four, the
	// magic cookie; without it RFC 3489, told by its length.
	if len(b) >= 20 && b[0]&0xc0 == 0 && b[3]&3 == 0 {
		length := int(b[2])<<8 | int(b[3])
		if bytes.Equal(b[4:8], []byte{0x21, 0x12, 0xa4, 0x42}) || (b[0] <= 1 && length == len(b)-20) {
			return textStun
		}
	}
	return textPartial
}

// textScan is what one look at the head of a message found.
type textScan struct {
	kind   textKind // textRequest, textResponse, textMalformed or textGarbage
	end    int      // of the head: index of the body
	length int      // Content-Length, -1 if absent
	ready  bool     // the head can stay as it is
}

// refuse is what becomes of a message that cannot be parsed: a request is
// malformed, a response is dropped.
func (s textScan) refuse() textKind {
	if s.kind == textRequest {
		return textMalformed
	}
	return textGarbage
}

// scanText looks at start line and header lines once, without allocating.
func scanText(b []byte) textScan {
	s := textScan{length: -1, ready: true}
	line, next, ok := cutLine(b, 0)
	var readable bool
	s.kind, readable, s.ready = scanStartLine(line.text)
	if s.kind == textGarbage {
		return s
	}
	if !ok || !readable || bytes.IndexByte(line.text, '\r') >= 0 {
		s.kind = s.refuse()
		return s
	}
	s.ready = s.ready && line.crlf
	for count := 0; ; count++ {
		start := next
		line, s.end, ok = cutLine(b, next)
		if !ok || count > textMaxHeaders || bytes.IndexByte(line.text, '\r') >= 0 {
			s.kind = s.refuse() // no empty line ends the head, or a lone CR
			return s
		}
		s.ready = s.ready && line.crlf
		if len(line.text) == 0 {
			return s
		}
		next = s.end
		if line.text[0] == ' ' || line.text[0] == '\t' {
			if count == 0 {
				s.kind = s.refuse() // continues what?
				return s
			}
			s.ready = false
			// A folded Content-Length is read when the lines are joined.
			continue
		}
		colon := bytes.IndexByte(line.text, ':')
		if colon <= 0 {
			s.kind = s.refuse()
			return s
		}
		name := line.text[:colon]
		if last := name[colon-1]; last == ' ' || last == '\t' {
			s.ready = false
			if name = bytes.TrimRight(name, " \t"); len(name) == 0 {
				s.kind = s.refuse()
				return s
			}
		}
		class, long := headerClassOf(name)
		if long != "" {
			s.ready = false
		}
		value := line.text[colon+1:]
		if class == headerLength {
			// The value may stand on the next line.
			if next < len(b) && (b[next] == ' ' || b[next] == '\t') {
				value = unfold(nil, b[start+colon+1:])
			}
			n, ok := parseLength(value)
			if !ok || (s.length >= 0 && s.length != n) {
				s.kind = s.refuse()
				return s
			}
			s.length = n
		} else if s.ready && !headerReady(class, trimBlank(value)) {
			s.ready = false
		}
	}
}

// textLine is one line without its end.
type textLine struct {
	text []byte
	crlf bool // ended by CRLF, not by a lone LF
}

// cutLine takes the line at from; ok is false if it has no end.
func cutLine(b []byte, from int) (line textLine, next int, ok bool) {
	n := bytes.IndexByte(b[from:], '\n')
	if n < 0 {
		return textLine{text: b[from:]}, len(b), false
	}
	text := b[from : from+n]
	if n > 0 && text[n-1] == '\r' {
		return textLine{text[:n-1], true}, from + n + 1, true
	}
	return textLine{text, false}, from + n + 1, true
}

// parseLength reads a Content-Length value: digits, at most nine.
func parseLength(v []byte) (int, bool) {
	v = trimBlank(v)
	if len(v) == 0 || len(v) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// scanStartLine tells requests, responses and neither apart. readable: the
// parser will take it (in its rewritten form unless ready).
func scanStartLine(line []byte) (kind textKind, readable, ready bool) {
	if len(line) >= 4 && bytes.EqualFold(line[:4], []byte("SIP/")) {
		_, readable := splitStatusLine(line)
		// "SIP/2.0 180" without the space that begins an empty phrase is
		// common, and not read by sipgo.
		ready := readable && bytes.HasPrefix(line, []byte("SIP/2.0 ")) && len(line) > 11 && line[11] == ' ' && !posesAsVersion(line[12:])
		return textResponse, readable, ready
	}
	r, ok := splitRequestLine(line)
	if !ok {
		return textGarbage, false, false
	}
	return textRequest, r.readable(), r.ready
}

// posesAsVersion: sipgo takes "SIP/2.0 503 SIP-Error" for a request, with the
// reason phrase as its version. A space behind the phrase helps.
func posesAsVersion(phrase []byte) bool {
	return len(phrase) >= 3 && bytes.EqualFold(phrase[:3], []byte("sip")) && bytes.IndexByte(phrase, ' ') < 0
}

// requestLine is METHOD SP Request-URI SP SIP-Version.
type requestLine struct {
	method, uri, version []byte
	ready                bool // single spaces, nothing behind
}

// splitRequestLine cuts a request line; ok is false if it does not end in a SIP
// version or has no method, so is not SIP. Several spaces between the parts and
// behind them are forgiven (RFC 4475 §3.1.2.9, §3.1.2.10), spaces inside the URI
// are left in it for readable to refuse.
func splitRequestLine(line []byte) (r requestLine, ok bool) {
	text := bytes.TrimRight(line, " \t")
	last := bytes.LastIndexAny(text, " \t")
	first := bytes.IndexAny(text, " \t")
	if first <= 0 || last <= first {
		return r, false
	}
	r = requestLine{method: text[:first], uri: bytes.Trim(text[first:last], " \t"), version: text[last+1:]}
	if len(r.version) < 5 || !bytes.EqualFold(r.version[:4], []byte("SIP/")) || len(r.uri) == 0 || !isToken(r.method) {
		return r, false
	}
	r.ready = len(text) == len(line) && len(r.method)+len(r.uri)+len(r.version)+2 == len(line) &&
		text[first] == ' ' && text[last] == ' ' && string(r.version) == "SIP/2.0"
	return r, true
}

func (r requestLine) readable() bool {
	return bytes.EqualFold(r.version, []byte("SIP/2.0")) && readableURI(r.uri)
}

// splitStatusLine reads the code of "SIP/2.0 200 OK".
func splitStatusLine(line []byte) (code int, ok bool) {
	f := bytes.Fields(line[:min(len(line), 32)])
	if len(f) < 2 || !bytes.EqualFold(f[0], []byte("SIP/2.0")) || len(f[1]) != 3 {
		return 0, false
	}
	code, ok = parseLength(f[1])
	return code, ok && code >= 100 && code <= 699
}

// rewriteHead writes start line and header lines, the empty line included, in
// canonical form. head was found readable by scanText.
func rewriteHead(head []byte) []byte {
	out := make([]byte, 0, len(head)+64)
	line, next, _ := cutLine(head, 0)
	if r, ok := splitRequestLine(line.text); ok && r.readable() {
		out = append(append(append(append(out, r.method...), ' '), r.uri...), " SIP/2.0\r\n"...)
	} else {
		f := bytes.Fields(line.text[:min(len(line.text), 32)])
		phrase := trimBlank(line.text[bytes.Index(line.text, f[1])+3:])
		out = append(append(append(append(out, "SIP/2.0 "...), f[1]...), ' '), phrase...)
		if posesAsVersion(phrase) {
			out = append(out, ' ')
		}
		out = append(out, "\r\n"...)
	}
	var joined []byte
	for {
		line, end, _ := cutLine(head, next)
		if len(line.text) == 0 {
			return append(out, "\r\n"...)
		}
		text := line.text
		next = end
		if next < len(head) && (head[next] == ' ' || head[next] == '\t') {
			start := end
			for next < len(head) && (head[next] == ' ' || head[next] == '\t') {
				_, next, _ = cutLine(head, next)
			}
			joined = append(append(joined[:0], text...), ' ')
			joined = unfold(joined, head[start:next])
			text = joined
		}
		name, value, _ := bytes.Cut(text, []byte{':'})
		out = appendHeader(out, bytes.TrimRight(name, " \t"), trimBlank(value))
	}
}

// unfold appends the value that stands on the lines of b, up to the first line
// that does not continue it, joined by single spaces.
func unfold(dst, b []byte) []byte {
	for first := true; len(b) > 0; first = false {
		if !first && b[0] != ' ' && b[0] != '\t' {
			return dst
		}
		line, next, _ := cutLine(b, 0)
		text := trimBlank(line.text)
		if len(text) > 0 && len(dst) > 0 && dst[len(dst)-1] != ' ' {
			dst = append(dst, ' ')
		}
		dst = append(dst, text...)
		b = b[next:]
	}
	return dst
}

func trimBlank(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}
