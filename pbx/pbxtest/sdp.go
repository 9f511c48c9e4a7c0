package pbxtest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var errNoAudio = errors.New("no audio in the SDP")

// Codec is one of the two laws of G.711 by its static RTP payload type
// (RFC 3551 §6).
type Codec uint8

const (
	PCMU Codec = 0
	PCMA Codec = 8
)

func (c Codec) String() string {
	if c == PCMU {
		return "PCMU"
	}
	return "PCMA"
}

// eventType is the payload type that we offer for telephone-event.
const eventType = 101

// Direction is one of the four media directions, seen from the party whose SDP
// names it.
type Direction string

const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

func (d Direction) sends() bool    { return d == SendRecv || d == SendOnly }
func (d Direction) receives() bool { return d == SendRecv || d == RecvOnly }

func direction(sends, receives bool) Direction {
	switch {
	case sends && receives:
		return SendRecv
	case sends:
		return SendOnly
	case receives:
		return RecvOnly
	}
	return Inactive
}

// answer is the direction of an answer to offer by a party that wants want
// (RFC 3264 §6.1).
func (d Direction) answer(want Direction) Direction {
	return direction(d.receives() && want.sends(), d.sends() && want.receives())
}

// SDP is what a peer reads out of a session description: its first audio
// stream, and enough of the rest to check it.
type SDP struct {
	Session   string // o= line without the version
	Version   uint64 // of the o= line
	Audio     netip.AddrPort
	Payloads  []uint8 // of the audio m-line, in order
	Codecs    []Codec // those of the payloads that are G.711
	Event     uint8   // payload type of telephone-event, 0 if none
	Ptime     int     // milliseconds, 0 if not said
	Direction Direction
	Profile   string   // of the audio m-line: "RTP/AVP", "RTP/SAVP"
	Crypto    []Crypto // of the audio m-line, as far as we know the suites
	Media     []string // kind and profile of every m-line: "audio RTP/AVP"; port 0 adds " refused"
}

// ParseSDP reads a session description. A hold in the old form, c=0.0.0.0,
// keeps its direction; Audio's address is unspecified then.
func ParseSDP(body []byte) (*SDP, error) {
	s := &SDP{Direction: SendRecv}
	var session, addr, port string
	audio, section := -1, -1
	maps := map[string]string{}
	for line := range strings.SplitSeq(strings.ReplaceAll(string(body), "\r\n", "\n"), "\n") {
		kind, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		switch kind {
		case "o":
			f := strings.Fields(value)
			if len(f) != 6 {
				return nil, fmt.Errorf("parse o= line: %d fields instead of 6", len(f))
			}
			v, err := strconv.ParseUint(f[2], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("parse version of the o= line: %w", err)
			}
			s.Session, s.Version = f[0]+" "+f[1], v
		case "c":
			if f := strings.Fields(value); len(f) == 3 {
				if section < 0 {
					session = f[2]
				} else if section == audio {
					addr = f[2]
				}
			}
		case "m":
			section++
			f := strings.Fields(value)
			if len(f) < 4 {
				return nil, fmt.Errorf("parse m= line %q: too short", value)
			}
			kind := f[0] + " " + f[2]
			if f[1] == "0" {
				kind += " refused"
			}
			s.Media = append(s.Media, kind)
			if f[0] == "audio" && audio < 0 {
				audio, port = section, f[1]
				s.Profile = f[2]
				for _, pt := range f[3:] {
					n, err := strconv.ParseUint(pt, 10, 7)
					if err != nil {
						return nil, fmt.Errorf("parse payload type %q: %w", pt, err)
					}
					s.Payloads = append(s.Payloads, uint8(n))
				}
			}
		case "a":
			if section != audio && section >= 0 {
				continue
			}
			name, arg, _ := strings.Cut(value, ":")
			switch name {
			case "sendrecv", "sendonly", "recvonly", "inactive":
				s.Direction = Direction(name)
			case "ptime":
				s.Ptime, _ = strconv.Atoi(arg) // nonsense counts as not said
			case "crypto":
				if line, ok := parseCrypto(arg); ok {
					s.Crypto = append(s.Crypto, line)
				}
			case "rtpmap":
				pt, enc, _ := strings.Cut(arg, " ")
				maps[pt] = strings.ToLower(enc)
			}
		}
	}
	if audio < 0 {
		return nil, errNoAudio
	}
	if addr == "" {
		addr = session
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, fmt.Errorf("parse c= line: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("parse port of the audio: %w", err)
	}
	s.Audio = netip.AddrPortFrom(ip, uint16(n))
	for _, pt := range s.Payloads {
		switch enc := maps[strconv.Itoa(int(pt))]; {
		case pt == 0 || pt == 8:
			s.Codecs = append(s.Codecs, Codec(pt))
		case strings.HasPrefix(enc, "telephone-event/8000"):
			s.Event = pt
		}
	}
	return s, nil
}

// description is what a call says of its own media.
type description struct {
	session   uint64
	version   uint64
	addr      netip.AddrPort
	codecs    []Codec
	event     uint8
	ptime     int
	direction Direction
	zeroHold  bool // c=0.0.0.0, the old form of hold (RFC 3264 §8.4)
	profile   string
	crypto    []Crypto
}

func family(a netip.Addr) string {
	if a.Is6() {
		return "IP6"
	}
	return "IP4"
}

func (d description) bytes() []byte {
	host := d.addr.Addr()
	if d.zeroHold {
		host = netip.IPv4Unspecified()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\n", d.session, d.version, family(d.addr.Addr()), d.addr.Addr(), family(host), host)
	fmt.Fprintf(&b, "m=audio %d %s", d.addr.Port(), d.profile)
	for _, c := range d.codecs {
		fmt.Fprintf(&b, " %d", c)
	}
	if d.event != 0 {
		fmt.Fprintf(&b, " %d", d.event)
	}
	b.WriteString("\r\n")
	for _, c := range d.codecs {
		fmt.Fprintf(&b, "a=rtpmap:%d %s/8000\r\n", c, c)
	}
	if d.event != 0 {
		fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", d.event, d.event)
	}
	for _, line := range d.crypto {
		b.WriteString(line.line())
	}
	fmt.Fprintf(&b, "a=ptime:%d\r\na=%s\r\n", d.ptime, d.direction)
	return []byte(b.String())
}

// checkAnswer says what is wrong with an answer to offer (RFC 3264 §6).
func checkAnswer(offer, answer *SDP) []string {
	var wrong []string
	if len(answer.Media) != len(offer.Media) {
		wrong = append(wrong, fmt.Sprintf("answer has %d m-lines, the offer %d", len(answer.Media), len(offer.Media)))
	}
	for i := range min(len(answer.Media), len(offer.Media)) {
		a, _ := strings.CutSuffix(answer.Media[i], " refused")
		if o, _ := strings.CutSuffix(offer.Media[i], " refused"); a != o {
			wrong = append(wrong, fmt.Sprintf("m-line %d of the answer is %q, of the offer %q", i, a, o))
		}
	}
	if answer.Audio.Port() == 0 {
		return wrong
	}
	if !slices.ContainsFunc(answer.Payloads, func(pt uint8) bool { return slices.Contains(offer.Payloads, pt) }) {
		wrong = append(wrong, fmt.Sprintf("payload types %v of the answer are none of the offer's %v", answer.Payloads, offer.Payloads))
	}
	if len(offer.Crypto) > 0 && offer.Profile == "RTP/SAVP" {
		if _, _, ok := pair(offer.Crypto, answer.Crypto); !ok {
			wrong = append(wrong, "the answer to an offer of SRTP has no key for it")
		}
	}
	if answer.Direction.sends() && !offer.Direction.receives() || answer.Direction.receives() && !offer.Direction.sends() {
		wrong = append(wrong, fmt.Sprintf("answer is %s to an offer that is %s", answer.Direction, offer.Direction))
	}
	return wrong
}
