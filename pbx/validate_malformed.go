package pbx

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
)

// malformedResponse answers a request that cannot be parsed, as far as one can
// be made of what is left of it: 505 for another version, 416 for a scheme that
// the parser cannot read, 513 for too many header lines, else 400 (RFC 3261
// §8.2, RFC 4475). It is nil if there is no answer: no request, an ACK, no Via.
// source is where the request came from and where the answer must go; it fills
// received and rport (RFC 3581 §4). The same request gets the same answer, so
// nothing need be remembered for retransmissions.
func malformedResponse(raw []byte, source netip.AddrPort) []byte {
	raw = bytes.TrimLeft(raw[:min(len(raw), textMaxBytes)], "\r\n")
	line, next, ok := cutLine(raw, 0)
	r, isRequest := splitRequestLine(line.text)
	if !ok || !isRequest || bytes.EqualFold(r.method, []byte("ACK")) {
		return nil
	}
	fields, count := salvage(raw[next:])
	if fields["via"] == nil {
		return nil
	}
	status := "400 Bad Request"
	scheme, _, _ := bytes.Cut(r.uri, []byte{':'})
	switch known := string(bytes.ToLower(scheme)); {
	case !bytes.EqualFold(r.version, []byte("SIP/2.0")):
		status = "505 Version Not Supported"
	case count > textMaxHeaders:
		status = "513 Message Too Large"
	case known != "sip" && known != "sips" && known != "tel" && isToken(known) && len(scheme) < len(r.uri):
		status = "416 Unsupported URI Scheme"
	}
	out := append([]byte("SIP/2.0 "+status), "\r\n"...)
	out = append(out, viaWithSource(fields["via"], source)...)
	out = append(out, fields["from"]...)
	to := fields["to"]
	if len(to) > 0 && !bytes.Contains(to, []byte(";tag=")) {
		h := fnv.New64a()
		for _, name := range []string{"via", "from", "call-id", "cseq"} {
			h.Write(fields[name])
		}
		to = fmt.Appendf(to[:len(to)-2:len(to)-2], ";tag=%016x\r\n", h.Sum64())
	}
	out = append(append(append(out, to...), fields["call-id"]...), fields["cseq"]...)
	out = append(out, "Content-Length: 0\r\n\r\n"...)
	if len(out) > 8<<10 {
		return nil
	}
	return out
}

// salvage collects, in canonical form, the fields that a response repeats: all
// Via, the first of the others. count is the number of header lines.
func salvage(head []byte) (fields map[string][]byte, count int) {
	fields = make(map[string][]byte)
	for len(head) > 0 {
		line, next, ok := cutLine(head, 0)
		if len(line.text) == 0 || !ok {
			break
		}
		count++
		if count > textMaxHeaders {
			break
		}
		name, _, found := bytes.Cut(line.text, []byte{':'})
		name = bytes.TrimRight(name, " \t")
		key, full := "", ""
		switch strings.ToLower(string(name[:min(len(name), 8)])) {
		case "v", "via":
			key, full = "via", "Via"
		case "f", "from":
			key, full = "from", "From"
		case "t", "to":
			key, full = "to", "To"
		case "i", "call-id":
			key, full = "call-id", "Call-ID"
		case "cseq":
			key, full = "cseq", "CSeq"
		}
		if found && key != "" && (key == "via" || fields[key] == nil) {
			value := unfold(nil, head[bytes.IndexByte(head, ':')+1:])
			value = bytes.Map(func(r rune) rune {
				if r < ' ' {
					return ' '
				}
				return r
			}, value)
			fields[key] = appendHeader(fields[key], []byte(full), trimBlank(value))
		}
		head = head[next:]
	}
	return fields, count
}

// viaWithSource adds received, and the value of an empty rport, to the first of
// the Via lines.
func viaWithSource(lines []byte, source netip.AddrPort) []byte {
	first, rest, _ := bytes.Cut(lines, []byte("\r\n"))
	if !source.IsValid() {
		return lines
	}
	var out []byte
	for i, p := range bytes.Split(first, []byte{';'}) {
		name, value, _ := bytes.Cut(p, []byte{'='})
		switch {
		case i > 0 && string(name) == "received":
			continue
		case i > 0 && string(name) == "rport" && len(value) == 0:
			p = fmt.Appendf(nil, "rport=%d", source.Port())
		}
		if i > 0 {
			out = append(out, ';')
		}
		out = append(out, p...)
	}
	out = fmt.Appendf(out, ";received=%s\r\n", source.Addr().Unmap().WithZone(""))
	return append(out, rest...)
}
