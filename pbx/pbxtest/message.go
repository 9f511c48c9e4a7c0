package pbxtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxMessage is the longest SIP message that is read, in bytes.
const maxMessage = 65535

var errNotSIP = errors.New("not a SIP message")

// Message is a SIP message as it stands on the wire: header fields in their
// order with their values as text, so that a test can send and see anything.
// Method is set in requests, Status in responses.
type Message struct {
	Method string
	URI    string
	Status int
	Reason string
	Fields []Field
	Body   []byte
}

// Field is one header field. Parsing splits a comma-separated Via, Route or
// Record-Route into several.
type Field struct{ Name, Value string }

// compactNames are the short forms of RFC 3261 §7.3.3 and of later RFCs.
var compactNames = map[string]string{
	"v": "Via", "f": "From", "t": "To", "i": "Call-ID", "m": "Contact", "l": "Content-Length",
	"c": "Content-Type", "e": "Content-Encoding", "s": "Subject", "k": "Supported", "r": "Refer-To",
	"b": "Referred-By", "x": "Session-Expires", "o": "Event", "u": "Allow-Events", "d": "Request-Disposition",
}

// ParseMessage reads one datagram. It takes folded lines, compact names and
// bare LF; it does not judge whether the message makes sense.
func ParseMessage(b []byte) (*Message, error) {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		if head, body, ok = bytes.Cut(b, []byte("\n\n")); !ok {
			return nil, fmt.Errorf("parse: no empty line after the header: %w", errNotSIP)
		}
	}
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	m := &Message{Body: slices.Clone(body)}
	if err := m.parseStartLine(lines[0]); err != nil {
		return nil, err
	}
	for _, line := range lines[1:] {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(m.Fields) > 0 {
			m.Fields[len(m.Fields)-1].Value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("parse header line %q: %w", line, errNotSIP)
		}
		if long, ok := compactNames[strings.ToLower(name)]; ok {
			name = long
		}
		value = strings.TrimSpace(value)
		if eq(name, "Via") || eq(name, "Route") || eq(name, "Record-Route") {
			for _, v := range splitOutside(value, ',') {
				m.Fields = append(m.Fields, Field{name, v})
			}
			continue
		}
		m.Fields = append(m.Fields, Field{name, value})
	}
	return m, nil
}

func (m *Message) parseStartLine(line string) error {
	first, rest, ok := strings.Cut(line, " ")
	second, third, _ := strings.Cut(rest, " ")
	if !ok || second == "" {
		return fmt.Errorf("parse start line %q: %w", line, errNotSIP)
	}
	if first != "SIP/2.0" {
		if third != "SIP/2.0" {
			return fmt.Errorf("parse request line %q: %w", line, errNotSIP)
		}
		m.Method, m.URI = first, second
		return nil
	}
	status, err := strconv.Atoi(second)
	if err != nil || status < 100 || status > 699 {
		return fmt.Errorf("parse status line %q: %w", line, errNotSIP)
	}
	m.Status, m.Reason = status, third
	return nil
}

// Bytes is the message for the wire; Content-Length is always that of Body.
func (m *Message) Bytes() []byte {
	var b bytes.Buffer
	if m.Status != 0 {
		fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", m.Status, m.Reason)
	} else {
		fmt.Fprintf(&b, "%s %s SIP/2.0\r\n", m.Method, m.URI)
	}
	for _, f := range m.Fields {
		if !eq(f.Name, "Content-Length") {
			fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(m.Body))
	b.Write(m.Body)
	return b.Bytes()
}

// String is a short name for logs and ladders: "INVITE" or "200 OK (INVITE)".
// It holds no number.
func (m *Message) String() string {
	if m.Status == 0 {
		return m.Method
	}
	_, method := m.CSeq()
	return fmt.Sprintf("%d %s (%s)", m.Status, m.Reason, method)
}

// Get is the value of the first field of that name, or "".
func (m *Message) Get(name string) string {
	for _, f := range m.Fields {
		if eq(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// All is the values of every field of that name.
func (m *Message) All(name string) []string {
	var all []string
	for _, f := range m.Fields {
		if eq(f.Name, name) {
			all = append(all, f.Value)
		}
	}
	return all
}

// Set replaces the fields of that name by one, in the first one's place; an
// empty value removes them.
func (m *Message) Set(name, value string) {
	i := slices.IndexFunc(m.Fields, func(f Field) bool { return eq(f.Name, name) })
	m.Fields = slices.DeleteFunc(m.Fields, func(f Field) bool { return eq(f.Name, name) })
	if value == "" {
		return
	}
	if i < 0 {
		i = len(m.Fields)
	}
	m.Fields = slices.Insert(m.Fields, i, Field{name, value})
}

// Add puts a field at the end.
func (m *Message) Add(name, value string) { m.Fields = append(m.Fields, Field{name, value}) }

// CSeq is the sequence number and method; 0 and "" if there is none.
func (m *Message) CSeq() (uint32, string) {
	num, method, _ := strings.Cut(strings.TrimSpace(m.Get("CSeq")), " ")
	n, err := strconv.ParseUint(num, 10, 32)
	if err != nil {
		return 0, ""
	}
	return uint32(n), strings.TrimSpace(method)
}

// CallID is the value of Call-ID.
func (m *Message) CallID() string { return m.Get("Call-ID") }

// FromTag and ToTag are the dialog's tags, "" if absent.
func (m *Message) FromTag() string { return param(m.Get("From"), "tag") }

// ToTag is the tag of the To field.
func (m *Message) ToTag() string { return param(m.Get("To"), "tag") }

// Branch is the branch of the topmost Via.
func (m *Message) Branch() string { return param(m.Get("Via"), "branch") }

// Number is the user part of the URI in a field such as From or
// P-Asserted-Identity, or of the Request-URI for the name "".
func (m *Message) Number(name string) string {
	v := m.URI
	if name != "" {
		v = m.Get(name)
	}
	return userOf(uriOf(v))
}

// clone copies the message deeply enough to change fields.
func (m *Message) clone() *Message {
	c := *m
	c.Fields = slices.Clone(m.Fields)
	return &c
}

func eq(a, b string) bool { return strings.EqualFold(a, b) }

// splitOutside splits at sep where it stands neither in quotes nor in <>.
func splitOutside(s string, sep byte) []string {
	var parts []string
	quoted, angle, start := false, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == sep && !angle:
			parts = append(parts, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(parts, strings.TrimSpace(s[start:]))
}

// param is a parameter of a header field (not of the URI in its <>); ok form
// without a value gives "".
func param(value, name string) string {
	v, _ := lookupParam(value, name)
	return v
}

func lookupParam(value, name string) (string, bool) {
	for _, p := range splitOutside(value, ';')[1:] {
		k, v, _ := strings.Cut(p, "=")
		if eq(strings.TrimSpace(k), name) {
			return strings.Trim(strings.TrimSpace(v), `"`), true
		}
	}
	return "", false
}

// uriOf takes the URI out of a name-addr or addr-spec field value.
func uriOf(value string) string {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			uri, _, _ := strings.Cut(value[i+1:], ">")
			return uri
		}
	}
	uri, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(uri)
}

// userOf is the user part of a sip: or tel: URI.
func userOf(uri string) string {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return ""
	}
	if eq(scheme, "tel") {
		user, _, _ := strings.Cut(rest, ";")
		return user
	}
	user, _, ok := strings.Cut(rest, "@")
	if !ok {
		return ""
	}
	user, _, _ = strings.Cut(user, ";")
	user, _, _ = strings.Cut(user, ":")
	return user
}

// addrOf is the address that a sip: URI points to; a host name or a missing
// address gives the zero value. The port defaults to 5060.
func addrOf(uri string) netip.AddrPort {
	_, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return netip.AddrPort{}
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, ";")
	return hostPort(rest)
}

func hostPort(s string) netip.AddrPort {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 5060)
	}
	return netip.AddrPort{}
}
