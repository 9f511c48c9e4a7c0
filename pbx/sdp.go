package pbx

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"centralka/media"
)

// Limits of a session description; what real phones send is far below.
const (
	sdpMaxBytes = 64 << 10
	sdpMaxLines = 1024
	sdpMaxMedia = 32
	sdpMaxCodes = 128 // payload types of one m-line
)

// errSDP is wrapped by every error of parseSDP: the body is no session
// description that could be answered (400 or 488).
var errSDP = errors.New("not a session description")

// sdpSession is one session description (RFC 8866), read as tolerantly as the
// phones and gateways of the field require: lines in any order after v=, with
// lines missing, lines unknown, LF alone at line ends, the last end missing. It
// keeps what a telephone call needs; the rest (i=, u=, e=, p=, b=, z=, k=, r= and
// whatever else) is dropped.
//
// A value is owned by whoever parsed it and is not shared.
type sdpSession struct {
	Origin sdpOrigin
	Name   string     // s=, "-" if absent
	Conn   sdpConn    // session level c=, zero if absent
	Time   string     // the first t=, "0 0" if absent
	Attrs  []sdpAttr  // session level a=
	Media  []sdpMedia // in the order of the m-lines, which RFC 3264 §6 gives meaning
}

// sdpOrigin is o=. ID and Version stay text: peers exceed 64 bits.
type sdpOrigin struct {
	User, ID, Version string
	Conn              sdpConn
}

// sdpConn is an address as c= and o= write it.
type sdpConn struct {
	Host string     // as written, without a multicast "/ttl"
	Addr netip.Addr // zero if Host is a name
}

// sdpAttr is one a= line; Value is empty for a flag.
type sdpAttr struct{ Name, Value string }

// sdpMedia is one m= line with what belongs to it.
type sdpMedia struct {
	Kind    string // "audio", "video", "image", ...
	Port    uint16 // 0: refused or ended
	Proto   string // "RTP/AVP", "udptl", ..., as written
	Formats []string
	Conn    sdpConn // zero if only the session has one
	Attrs   []sdpAttr
}

// sdpFormat is one payload type of an m-line with its meaning.
type sdpFormat struct {
	Payload uint8
	Name    string // upper case, "PCMA"
	Rate    int
	Fmtp    string
}

// parseSDP reads a session description. It never keeps a reference to b. Every
// error wraps errSDP.
func parseSDP(b []byte) (*sdpSession, error) {
	if len(b) > sdpMaxBytes {
		return nil, fmt.Errorf("%w: %d bytes", errSDP, len(b))
	}
	s := &sdpSession{Name: "-", Time: "0 0"}
	lines, sawVersion, sawTime := 0, false, false
	for len(b) > 0 {
		var raw []byte
		raw, b, _ = bytes.Cut(b, []byte{'\n'})
		line := strings.TrimSpace(strings.Map(sdpPrintable, string(raw)))
		if line == "" {
			continue
		}
		if lines++; lines > sdpMaxLines {
			return nil, fmt.Errorf("%w: more than %d lines", errSDP, sdpMaxLines)
		}
		// "m =video" is in RFC 4475 §3.1.1.8: space before the sign is forgiven.
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || len(key) != 1 {
			if !sawVersion {
				return nil, fmt.Errorf("%w: begins with no v=", errSDP)
			}
			continue
		}
		if !sawVersion && key != "v" {
			return nil, fmt.Errorf("%w: begins with %s=", errSDP, key)
		}
		switch key {
		case "v":
			if sawVersion {
				continue
			}
			if value != "0" {
				return nil, fmt.Errorf("%w: version %.20q", errSDP, value)
			}
			sawVersion = true
		case "o":
			s.Origin = parseSDPOrigin(value)
		case "s":
			if value != "" {
				s.Name = value
			}
		case "t":
			if !sawTime && value != "" {
				s.Time, sawTime = value, true
			}
		case "c":
			c, err := parseSDPConn(value)
			if err != nil {
				return nil, err
			}
			if n := len(s.Media); n > 0 {
				s.Media[n-1].Conn = c
			} else {
				s.Conn = c
			}
		case "a":
			name, v, _ := strings.Cut(value, ":")
			a := sdpAttr{strings.TrimSpace(name), strings.TrimSpace(v)}
			if a.Name == "" {
				continue
			}
			if n := len(s.Media); n > 0 {
				s.Media[n-1].Attrs = append(s.Media[n-1].Attrs, a)
			} else {
				s.Attrs = append(s.Attrs, a)
			}
		case "m":
			m, err := parseSDPMedia(value)
			if err != nil {
				return nil, err
			}
			if len(s.Media) == sdpMaxMedia {
				return nil, fmt.Errorf("%w: more than %d m-lines", errSDP, sdpMaxMedia)
			}
			s.Media = append(s.Media, m)
		}
	}
	if !sawVersion {
		return nil, fmt.Errorf("%w: empty", errSDP)
	}
	return s, nil
}

// sdpPrintable makes control characters, the CR of the line's end among them,
// white space.
func sdpPrintable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// parseSDPOrigin reads o=; it decides nothing for us, so it is never an error.
func parseSDPOrigin(value string) sdpOrigin {
	f := strings.Fields(value)
	for len(f) < 6 {
		f = append(f, "")
	}
	o := sdpOrigin{User: f[0], ID: f[1], Version: f[2]}
	o.Conn.Host = f[5]
	if a, err := netip.ParseAddr(f[5]); err == nil {
		o.Conn.Addr = a
	}
	return o
}

func parseSDPConn(value string) (sdpConn, error) {
	f := strings.Fields(value)
	if len(f) < 3 || !strings.EqualFold(f[0], "IN") {
		return sdpConn{}, fmt.Errorf("%w: c=%.60q", errSDP, value)
	}
	host, _, _ := strings.Cut(f[2], "/")
	c := sdpConn{Host: host}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && a.Zone() == "" {
		c.Addr, c.Host = a.Unmap(), a.Unmap().String()
	}
	return c, nil
}

func parseSDPMedia(value string) (sdpMedia, error) {
	f := strings.Fields(value)
	if len(f) < 3 {
		return sdpMedia{}, fmt.Errorf("%w: m=%.60q", errSDP, value)
	}
	if len(f) > 3+sdpMaxCodes {
		return sdpMedia{}, fmt.Errorf("%w: %d formats", errSDP, len(f)-3)
	}
	port, _, _ := strings.Cut(f[1], "/") // "49170/2": a range of layered ports
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return sdpMedia{}, fmt.Errorf("%w: m= port %.20q", errSDP, f[1])
	}
	return sdpMedia{Kind: strings.ToLower(f[0]), Port: uint16(n), Proto: f[2], Formats: f[3:]}, nil
}

// marshal writes the description, each line ended by CRLF, in the order of
// RFC 8866 §5.
func (s *sdpSession) marshal() []byte {
	var b bytes.Buffer
	orDash := func(v string) string {
		if v == "" {
			return "-"
		}
		return v
	}
	orZero := func(v string) string {
		if v == "" {
			return "0"
		}
		return v
	}
	origin := s.Origin.Conn
	if origin.Host == "" {
		origin = sdpConn{Host: "0.0.0.0", Addr: netip.IPv4Unspecified()}
	}
	fmt.Fprintf(&b, "v=0\r\no=%s %s %s %s\r\n", orDash(s.Origin.User), orZero(s.Origin.ID), orZero(s.Origin.Version), origin)
	fmt.Fprintf(&b, "s=%s\r\n", orDash(s.Name))
	if s.Conn.Host != "" {
		fmt.Fprintf(&b, "c=%s\r\n", s.Conn)
	}
	fmt.Fprintf(&b, "t=%s\r\n", s.Time)
	writeSDPAttrs(&b, s.Attrs)
	for _, m := range s.Media {
		fmt.Fprintf(&b, "m=%s %d %s", m.Kind, m.Port, m.Proto)
		for _, f := range m.Formats {
			b.WriteString(" " + f)
		}
		b.WriteString("\r\n")
		if m.Conn.Host != "" {
			fmt.Fprintf(&b, "c=%s\r\n", m.Conn)
		}
		writeSDPAttrs(&b, m.Attrs)
	}
	return b.Bytes()
}

func writeSDPAttrs(b *bytes.Buffer, attrs []sdpAttr) {
	for _, a := range attrs {
		b.WriteString("a=" + a.Name)
		if a.Value != "" {
			b.WriteString(":" + a.Value)
		}
		b.WriteString("\r\n")
	}
}

// String writes the address as c= does: "IN IP4 192.0.2.1".
func (c sdpConn) String() string {
	if c.Addr.Is6() || (!c.Addr.IsValid() && strings.Contains(c.Host, ":")) {
		return "IN IP6 " + c.Host
	}
	return "IN IP4 " + c.Host
}

// connOf is the address of one m-line: its own c=, else the session's.
func (s *sdpSession) connOf(m *sdpMedia) sdpConn {
	if m.Conn.Host != "" {
		return m.Conn
	}
	return s.Conn
}

// directionOf is the direction of one m-line as its sender means it: of the
// line, else of the session, else sendrecv (RFC 8866 §6.7). The last of several
// wins.
func (s *sdpSession) directionOf(m *sdpMedia) media.Direction {
	d := media.SendRecv
	for _, attrs := range [][]sdpAttr{s.Attrs, m.Attrs} {
		for _, a := range attrs {
			if v, ok := parseSDPDirection(a.Name); ok {
				d = v
			}
		}
	}
	return d
}

func parseSDPDirection(name string) (media.Direction, bool) {
	switch strings.ToLower(name) {
	case "sendrecv":
		return media.SendRecv, true
	case "sendonly":
		return media.SendOnly, true
	case "recvonly":
		return media.RecvOnly, true
	case "inactive":
		return media.Inactive, true
	}
	return 0, false
}

// sdpDirection is the attribute's name for a direction.
func sdpDirection(d media.Direction) string {
	switch d {
	case media.SendRecv:
		return "sendrecv"
	case media.SendOnly:
		return "sendonly"
	case media.RecvOnly:
		return "recvonly"
	}
	return "inactive"
}

// attr returns the value of the line's first attribute of that name.
func (m *sdpMedia) attr(name string) (string, bool) {
	for _, a := range m.Attrs {
		if strings.EqualFold(a.Name, name) {
			return a.Value, true
		}
	}
	return "", false
}

// formats tells what the payload types of an RTP m-line mean, in the sender's
// order: by rtpmap, else by the static table for the two that we speak (RFC
// 3551 §6). Others come without a name.
func (m *sdpMedia) formats() []sdpFormat {
	var known [128]sdpFormat
	known[media.PCMU] = sdpFormat{Name: "PCMU", Rate: media.SampleRate}
	known[media.PCMA] = sdpFormat{Name: "PCMA", Rate: media.SampleRate}
	for _, a := range m.Attrs {
		number, rest, ok := strings.Cut(a.Value, " ")
		p, err := strconv.ParseUint(number, 10, 7)
		if !ok || err != nil {
			continue
		}
		switch strings.ToLower(a.Name) {
		case "rtpmap":
			known[p].Name, known[p].Rate = parseSDPEncoding(rest)
		case "fmtp":
			known[p].Fmtp = strings.TrimSpace(rest)
		}
	}
	out := make([]sdpFormat, 0, len(m.Formats))
	for _, text := range m.Formats {
		p, err := strconv.ParseUint(text, 10, 7)
		if err != nil {
			continue
		}
		f := known[p]
		f.Payload = uint8(p)
		if f.Name == "" && p >= 96 && strings.HasPrefix(f.Fmtp, "0-1") {
			// Gateways that name the keys ("0-15") but forget the rtpmap.
			f.Name, f.Rate = "TELEPHONE-EVENT", media.SampleRate
		}
		out = append(out, f)
	}
	return out
}

// parseSDPEncoding reads "PCMA/8000/1". More than one channel gives no name:
// we do not speak it.
func parseSDPEncoding(s string) (name string, rate int) {
	f := strings.Split(strings.TrimSpace(s), "/")
	if len(f) < 2 || (len(f) > 2 && strings.TrimSpace(f[2]) != "1") {
		return "", 0
	}
	rate, err := strconv.Atoi(strings.TrimSpace(f[1]))
	if err != nil || rate < 0 {
		return "", 0
	}
	return strings.ToUpper(strings.TrimSpace(f[0])), rate
}
