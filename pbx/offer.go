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

// Why an exchange of offer and answer does not come about. All but errGlare are
// answered with 488 (RFC 3261 §21.4.26) and leave the session as it was.
var (
	errNoAudio   = errors.New("no audio stream offered that we could take")
	errNoCodec   = errors.New("no common codec")
	errNoAddress = errors.New("no usable address for the audio")
	errRefused   = errors.New("the peer refused the audio")
	// errGlare: an offer while ours waits for its answer (491, RFC 3261 §14.2).
	errGlare = errors.New("an offer of ours is outstanding")
	// errNoOffer: an answer that nobody asked for.
	errNoOffer = errors.New("no offer is outstanding")
)

// eventPayload is our number for telephone-event until a peer names its own.
const eventPayload = 101

// negotiation is the session description state of one dialog leg (RFC 3264,
// RFC 6337): what was agreed, what is offered now, and the versions of what we
// sent. It is owned by the goroutine of the call; it does no I/O and keeps no
// reference to the bodies given to it.
//
// One offer/answer exchange runs at a time. We offer: offer, then accept with
// the answer, or withdraw if the request failed. The peer offers: answer. A late
// offer is offer in the 200 and accept with the ACK's body.
//
// The o= session id stays for the dialog's life; the version grows by one
// whenever our text changes, and while nothing changes the very same bytes are
// sent again (RFC 3264 §8), which is what tells a peer that a re-INVITE was only
// a refresh.
type negotiation struct {
	local   netip.Addr
	port    uint16
	id      uint64
	version uint64
	sent    []byte          // our last description, nil before the first
	sentDir media.Direction // the direction in it

	// slots are the m-lines of the session in their order, which no later
	// description may change (RFC 3264 §8). audio is the index of ours, -1
	// before the first exchange.
	slots []sdpSlot
	audio int

	offered    bool            // our offer waits for its answer
	offerDir   media.Direction // the direction in it
	heardEarly bool            // a provisional response had an answer to it
	before     negotiationTurn // to go back to if it fails

	// security is what is done about SRTP; keys are those we send with. said are
	// the a=crypto lines of our last description, profile that of its audio.
	security voiceSecurity
	keys     ownKeys
	said     []sdesLine
	profile  string
	// conceded: SRTP was refused, and the next offer is in the clear.
	conceded bool

	agreed media.Params
	peer   media.Direction // last said by the peer, as the peer means it
	talked bool            // peer and agreed are set
}

// negotiationTurn is what an offer changes before it is answered.
type negotiationTurn struct {
	slots []sdpSlot
	audio int
}

// sdpSlot is one m-line of the session as we write it when it is refused.
type sdpSlot struct {
	kind, proto string
	formats     []string
}

// newNegotiation starts a leg's state. local and port are where we receive RTP,
// as the peer must reach it (the advertised address); id is the session id of
// o=, best random or from the clock.
func newNegotiation(local netip.Addr, port uint16, id uint64) *negotiation {
	return &negotiation{local: local.Unmap(), port: port, id: id, audio: -1, keys: ownKeys{}}
}

// offer writes our offer: PCMA first, PCMU, telephone-event, 20 ms, dir being
// what we want to do; with SRTP or without as voiceSecurity says. It stays outstanding until accept or withdraw; called
// again before that, it replaces the outstanding offer (which was not sent).
func (n *negotiation) offer(dir media.Direction) []byte {
	if !n.offered {
		n.before = negotiationTurn{n.slots, n.audio}
	}
	if n.audio < 0 {
		n.slots, n.audio = append(n.slots[:len(n.slots):len(n.slots)], sdpSlot{}), len(n.slots)
	}
	event := uint8(eventPayload)
	if n.agreed.EventType != 0 {
		event = n.agreed.EventType // a number keeps its meaning (RFC 3264 §8.3.2)
	}
	n.offered, n.offerDir = true, dir
	a := sdpAudio{port: n.port, profile: profilePlain, dir: dir, event: event, codecs: []sdpFormat{
		{Payload: uint8(media.PCMA), Name: "PCMA"}, {Payload: uint8(media.PCMU), Name: "PCMU"},
	}}
	if n.wantsSRTP() {
		a.profile, a.crypto = profileSecure, n.keys.lines(n.agreed.SendKey.Suite())
		if n.talked {
			a.profile = n.profile // a peer that had keys in RTP/AVP knows no other
		}
	}
	return n.write(a)
}

// wantsSRTP tells whether an offer of ours has keys: what was agreed stays.
func (n *negotiation) wantsSRTP() bool {
	if n.talked {
		return n.encrypted()
	}
	return n.security.allowsSRTP() && !n.conceded
}

// encrypted tells whether the voice that was agreed is SRTP.
func (n *negotiation) encrypted() bool { return n.agreed.SendKey.Suite() != media.NoSuite }

// concede withdraws an offer of SRTP that was refused, if it may be made in the
// clear then; the next one is.
func (n *negotiation) concede() bool {
	if !n.offered || n.talked || len(n.said) == 0 || !n.security.allowsPlain() {
		return false
	}
	n.withdraw()
	n.conceded = true
	return true
}

// withdraw forgets an outstanding offer that was refused or never answered: the
// session stays as it was agreed before.
func (n *negotiation) withdraw() {
	if n.offered {
		n.slots, n.audio = n.before.slots, n.before.audio
		n.offered, n.heardEarly = false, false
	}
}

// answer reads the peer's offer and writes our answer; want is what we would do
// if the peer lets us. Every error but errGlare means 488 and changes nothing.
// The caller fills in Params.Signalling.
func (n *negotiation) answer(offer []byte, want media.Direction) ([]byte, media.Params, error) {
	if n.offered {
		return nil, media.Params{}, errGlare
	}
	s, err := parseSDP(offer)
	if err != nil {
		return nil, media.Params{}, fmt.Errorf("read offer: %w", err)
	}
	first := errNoAudio
	for _, secure := range []bool{true, false} { // SRTP first, wherever it stands
		for i := range s.Media {
			m := &s.Media[i]
			if m.Kind != "audio" || m.Port == 0 || m.profile() == "" {
				continue
			}
			lines, err := n.admit(m, secure)
			if err == errOtherPass {
				continue
			}
			var t sdpTerms
			if err == nil {
				t, err = n.read(s, m)
			}
			if err != nil {
				if first == errNoAudio {
					first = err
				}
				continue
			}
			t.params.Direction &= want
			n.slots, n.audio = slotsOf(s), i
			a := sdpAudio{port: n.port, profile: m.profile(), dir: t.params.Direction, event: t.params.EventType, codecs: []sdpFormat{t.codec}}
			if secure {
				// The first that we speak in the offerer's order, under its tag
				// (RFC 4568 §5.1.2).
				own := n.keys.of(lines[0].key.Suite())
				t.params.ReceiveKey, t.params.SendKey = lines[0].key, own
				a.crypto = []sdesLine{{lines[0].tag, own}}
			}
			n.settle(t)
			return n.write(a), n.agreed, nil
		}
	}
	return nil, media.Params{}, fmt.Errorf("answer offer: %w", first)
}

// errOtherPass: the m-line is looked at in the other pass of answer.
var errOtherPass = errors.New("not in this pass")

// admit judges an m-line of an offer by what is done about SRTP: with its usable
// keys if it is to be secure, else in the clear.
func (n *negotiation) admit(m *sdpMedia, secure bool) ([]sdesLine, error) {
	plain := m.profile() == profilePlain
	lines := m.sdes()
	switch {
	case n.security == voiceNoSecret:
		return nil, errNoSRTP
	case secure && len(lines) > 0 && n.security.allowsSRTP():
		return lines, nil
	case secure && !plain && !n.security.allowsSRTP():
		return nil, errNoSRTP
	case secure && !plain:
		return nil, errNoSuite
	case secure || !plain:
		return nil, errOtherPass
	case !n.security.allowsPlain() || n.encrypted():
		return nil, errPlain
	}
	return nil, nil
}

// early reads an answer in a provisional response. The offer stays outstanding:
// the same answer comes in the 2xx (RFC 3261 §13.2.1), or another one if the call
// forked. On an error nothing changes.
func (n *negotiation) early(answer []byte) (media.Params, error) {
	if !n.offered {
		return media.Params{}, errNoOffer
	}
	t, err := n.readAnswer(answer)
	if err != nil {
		return media.Params{}, fmt.Errorf("read early answer: %w", err)
	}
	t.params.Direction &= n.offerDir
	n.settle(t)
	n.heardEarly = true
	return n.agreed, nil
}

// accept reads the answer to our outstanding offer; it may be missing if there
// was an early one, which some peers do not repeat. On an error the offer is
// withdrawn and the session stays as it was.
func (n *negotiation) accept(answer []byte) (media.Params, error) {
	if !n.offered {
		return media.Params{}, errNoOffer
	}
	if n.heardEarly && len(answer) == 0 {
		n.offered, n.heardEarly = false, false
		return n.agreed, nil
	}
	t, err := n.readAnswer(answer)
	if err != nil {
		n.withdraw()
		return media.Params{}, fmt.Errorf("read answer: %w", err)
	}
	t.params.Direction &= n.offerDir
	n.offered, n.heardEarly = false, false
	n.settle(t)
	return n.agreed, nil
}

func (n *negotiation) readAnswer(answer []byte) (sdpTerms, error) {
	s, err := parseSDP(answer)
	if err != nil {
		return sdpTerms{}, err
	}
	// An answer has the m-lines of the offer (RFC 3264 §6). Some gateways leave
	// out the refused ones at the end, which is forgiven.
	if len(s.Media) <= n.audio || s.Media[n.audio].Kind != "audio" {
		return sdpTerms{}, errNoAudio
	}
	m := &s.Media[n.audio]
	if m.Port == 0 {
		return sdpTerms{}, errRefused
	}
	if m.profile() != n.profile {
		return sdpTerms{}, errPlain // or SRTP without having been asked
	}
	t, err := n.read(s, m)
	if err != nil || len(n.said) == 0 {
		return t, err
	}
	var ok bool
	if t.params.SendKey, t.params.ReceiveKey, ok = answered(n.said, m.sdes()); !ok {
		return sdpTerms{}, errPlain
	}
	return t, nil
}

// reopen lets another answer to the same offer follow: the one that accept has
// read came in a provisional response, and the final one may be of another fork
// (RFC 3261 §13.2.2.4, RFC 6337 §3.1.1).
func (n *negotiation) reopen() { n.offered = true }

// conclude says that the answer read before reopen was the last one.
func (n *negotiation) conclude() { n.offered = false }

// params is what was last agreed; zero before the first exchange.
func (n *negotiation) params() media.Params { return n.agreed }

// held tells whether the peer has us on hold: its last description lets it not
// hear us (sendonly, inactive, or the old c=0.0.0.0).
func (n *negotiation) held() bool { return n.talked && n.peer&media.RecvOnly == 0 }

// settled tells whether an exchange has been completed.
func (n *negotiation) settled() bool { return n.talked }

// sdpTerms is what one description of the peer says about the audio.
type sdpTerms struct {
	params media.Params // Direction: what it lets us do
	codec  sdpFormat    // the one we shall send
	peer   media.Direction
}

// read takes one audio m-line of the peer apart: the codec by our preference,
// numbers as the peer wrote them (RFC 3264 §6.1), addresses, direction.
func (n *negotiation) read(s *sdpSession, m *sdpMedia) (sdpTerms, error) {
	var t sdpTerms
	found := false
	for _, f := range m.formats() {
		if f.Rate != media.SampleRate {
			continue
		}
		switch {
		case f.Name == "PCMA" && (!found || t.codec.Name != "PCMA"):
			t.codec, t.params.Codec, found = f, media.PCMA, true
		case f.Name == "PCMU" && !found:
			t.codec, t.params.Codec, found = f, media.PCMU, true
		case f.Name == "TELEPHONE-EVENT" && t.params.EventType == 0:
			t.params.EventType = f.Payload
		}
	}
	if !found {
		return t, errNoCodec
	}
	t.params.PayloadType = t.codec.Payload
	t.peer = s.directionOf(m)
	conn := s.connOf(m)
	switch {
	case conn.Addr.IsMulticast() || conn.Addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return t, errNoAddress // nobody makes us a loudspeaker
	case conn.Addr.IsValid() && !conn.Addr.IsUnspecified():
		if conn.Addr.Is4() != n.local.Is4() {
			return t, errNoAddress
		}
		t.params.Remote = netip.AddrPortFrom(conn.Addr, m.Port)
		t.params.RemoteRTCP = readRTCP(m, conn.Addr)
	case conn.Addr.IsValid():
		// c=0.0.0.0 is hold as of RFC 2543 (RFC 3264 §8.4): nothing may be sent
		// to the peer, whatever the attributes say. The address known before
		// stays, so that what the peer still sends keeps its source.
		t.peer &^= media.RecvOnly
		t.params.Remote, t.params.RemoteRTCP = n.agreed.Remote, n.agreed.RemoteRTCP
	default:
		return t, errNoAddress // missing, or a name: we do not look it up in a call
	}
	t.params.Direction = mirrored(t.peer)
	return t, nil
}

// readRTCP reads a=rtcp (RFC 3605); the zero value leaves the port next to RTP.
func readRTCP(m *sdpMedia, rtp netip.Addr) netip.AddrPort {
	value, ok := m.attr("rtcp")
	if !ok {
		return netip.AddrPort{}
	}
	f := strings.Fields(value)
	if len(f) == 0 {
		return netip.AddrPort{}
	}
	port, err := strconv.ParseUint(f[0], 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}
	}
	addr := rtp
	if len(f) >= 4 {
		a, err := netip.ParseAddr(f[3])
		if err != nil || a.IsUnspecified() {
			return netip.AddrPort{}
		}
		addr = a.Unmap()
	}
	return netip.AddrPortFrom(addr, uint16(port))
}

// mirrored turns the peer's view of a direction into ours.
func mirrored(d media.Direction) media.Direction {
	return (d&media.SendOnly)<<1 | (d&media.RecvOnly)>>1
}

func (n *negotiation) settle(t sdpTerms) {
	n.keys.settle(n.agreed.SendKey, t.params.SendKey)
	n.agreed, n.peer, n.talked = t.params, t.peer, true
}

// slotsOf remembers the m-lines of an offer, so that answers and later offers
// have them in the same order.
func slotsOf(s *sdpSession) []sdpSlot {
	slots := make([]sdpSlot, len(s.Media))
	for i, m := range s.Media {
		slots[i] = sdpSlot{m.Kind, m.Proto, m.Formats}
	}
	return slots
}

// sdpAudio is what we say about our audio.
type sdpAudio struct {
	port    uint16
	profile string
	dir     media.Direction
	codecs  []sdpFormat
	event   uint8      // 0: none
	crypto  []sdesLine // none: no SRTP
}

// write puts our description together: our audio in its slot, every other m-line
// refused with port 0 (RFC 3264 §6). The version moves only if the text does.
func (n *negotiation) write(a sdpAudio) []byte {
	s := sdpSession{
		Origin: sdpOrigin{User: "-", ID: strconv.FormatUint(n.id, 10), Conn: sdpConn{n.local.String(), n.local}},
		Name:   "-",
		Conn:   sdpConn{n.local.String(), n.local},
		Time:   "0 0",
	}
	for i, slot := range n.slots {
		if i == n.audio {
			s.Media = append(s.Media, a.line())
			continue
		}
		formats := slot.formats
		if len(formats) == 0 {
			formats = []string{"0"} // the grammar wants one
		}
		s.Media = append(s.Media, sdpMedia{Kind: slot.kind, Proto: slot.proto, Formats: formats})
	}
	s.Origin.Version = strconv.FormatUint(n.id+n.version, 10)
	body := s.marshal()
	if n.sent != nil && !bytes.Equal(body, n.sent) {
		n.version++
		s.Origin.Version = strconv.FormatUint(n.id+n.version, 10)
		body = s.marshal()
	}
	n.sent, n.sentDir = body, a.dir
	n.said, n.profile = a.crypto, a.profile
	return bytes.Clone(body)
}

func (a sdpAudio) line() sdpMedia {
	m := sdpMedia{Kind: "audio", Port: a.port, Proto: a.profile}
	for _, c := range a.codecs {
		number := strconv.Itoa(int(c.Payload))
		m.Formats = append(m.Formats, number)
		m.Attrs = append(m.Attrs, sdpAttr{"rtpmap", number + " " + c.Name + "/8000"})
	}
	if a.event != 0 {
		number := strconv.Itoa(int(a.event))
		m.Formats = append(m.Formats, number)
		m.Attrs = append(m.Attrs,
			sdpAttr{"rtpmap", number + " telephone-event/8000"}, sdpAttr{"fmtp", number + " 0-15"})
	}
	for _, l := range a.crypto {
		m.Attrs = append(m.Attrs, l.attr())
	}
	m.Attrs = append(m.Attrs, sdpAttr{"ptime", "20"}, sdpAttr{sdpDirection(a.dir), ""})
	return m
}
