package media

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/zaf/g711"
)

// peerSRTP is the peer's half of SRTP.
type peerSRTP struct {
	mine, theirs Key
	out, in      *srtp.Context
}

// allSuites are the suites there are.
var allSuites = []Suite{AES128GCM, AES256GCM, AES128CM80, AES128CM32, AES256CM80, AES256CM32}

func contextFor(t testing.TB, k Key) *srtp.Context {
	t.Helper()
	b, s := k.Bytes(), suites[k.Suite()]
	c, err := srtp.CreateContext(b[:s.key], b[s.key:], s.profile)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newPeerSRTP(t testing.TB, s Suite) *peerSRTP {
	p := &peerSRTP{mine: NewKey(s), theirs: NewKey(s)}
	p.out, p.in = contextFor(t, p.mine), contextFor(t, p.theirs)
	return p
}

func (p *peerSRTP) seal(t testing.TB, b []byte) []byte {
	t.Helper()
	out, err := p.out.EncryptRTP(nil, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p *peerSRTP) open(t testing.TB, b []byte) []byte {
	t.Helper()
	out, err := p.in.DecryptRTP(nil, b, nil)
	if err != nil {
		t.Fatalf("what came was not made with our key: %v", err)
	}
	return out
}

// secured opens a stream and a peer that speak SRTP with each other.
func (r *rig) secured(host byte, s Suite) *leg {
	r.t.Helper()
	l := r.open(host)
	l.secure = newPeerSRTP(r.t, s)
	l.params.ReceiveKey, l.params.SendKey = l.secure.mine, l.secure.theirs
	l.Configure(l.params)
	return l
}

// send puts raw bytes on the wire.
func (l *leg) send(c Conn, b []byte) {
	l.t.Helper()
	if _, err := c.WriteToUDPAddrPort(b, l.to); err != nil {
		l.t.Fatal(err)
	}
}

// packet is the peer's next packet as it goes over the wire.
func (l *leg) packet(payload ...byte) []byte {
	l.t.Helper()
	h := rtp.Header{Version: 2, PayloadType: 8, SSRC: l.ssrc, SequenceNumber: l.seq, Timestamp: l.ts}
	b, err := h.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	l.seq++
	l.ts += FrameSamples
	b = append(b, payload...)
	if l.secure != nil {
		b = l.secure.seal(l.t, b)
	}
	return b
}

// testSRTPLegs: each suite against each other way to speak, with a prompt and a
// tap, which gets what was said.
func testSRTPLegs(t *testing.T, r *rig) {
	host := byte(10)
	for _, s := range allSuites {
		for _, other := range []Suite{NoSuite, AES128GCM, s} {
			a := r.secured(host, s)
			var b *leg
			if other == NoSuite {
				b = r.open(host + 1)
			} else {
				b = r.secured(host+1, other)
			}
			host += 2
			b.params.Codec, b.params.PayloadType = PCMU, 0
			b.Configure(b.params)
			tap := NewTap(1<<14, time.Now())
			a.SetTap(tap)
			Bridge(a.Stream, b.Stream)
			for i := range 5 {
				voice := frames(160, byte(i))
				a.say(8, voice...)
				if got := b.hear(); !bytes.Equal(got.Payload, g711.Alaw2Ulaw(voice)) {
					t.Fatalf("%v to %v: heard % x", s, other, got.Payload)
				}
				b.say(0, voice...)
				if got := a.hear(); !bytes.Equal(got.Payload, g711.Ulaw2Alaw(voice)) {
					t.Fatalf("%v to %v: heard % x", other, s, got.Payload)
				}
				var p Packet
				if !tap.Next(&p) || !bytes.Equal(p.Payload, voice) {
					t.Fatalf("%v: tapped % x", s, p.Payload)
				}
			}
			// A key, which is relayed as it came, and the longest payload.
			a.sayFrom(a.rtp, rtp.Header{PayloadType: 101}, []byte{5, 0, 0, 160})
			a.seq++
			if got := b.hear(); got.PayloadType != 101 || len(got.Payload) != 4 {
				t.Errorf("%v to %v: key as %v", s, other, got)
			}
			a.say(8, frames(MaxPayload, 1)...)
			if got := b.hear(); len(got.Payload) != MaxPayload {
				t.Errorf("%v to %v: %d bytes of %d", s, other, len(got.Payload), MaxPayload)
			}
			prompt := promptOf(1)
			a.Play(prompt, false)
			if got := a.hear(); !bytes.Equal(got.Payload, prompt.alaw) {
				t.Errorf("%v: prompt % x", s, got.Payload)
			}
			if st := a.Stats(); st.Received != 7 || st.Sent != 6 || st.Forged+st.Replayed+st.Malformed+st.Unsent != 0 {
				t.Errorf("%v: stats %+v", s, st)
			}
			a.Close()
			b.Close()
		}
	}
}

// testSRTPNotGenuine: what was tampered with, made with another key, repeated, or
// sent in the clear is not heard, not tapped, not answered, and takes no source.
func testSRTPNotGenuine(t *testing.T, r *rig) {
	for i, s := range allSuites {
		a, b := r.secured(byte(10+2*i), s), r.leg(byte(11+2*i))
		a.params.Signalling = r.world.addr(200)
		a.Configure(a.params)
		tap := NewTap(1<<14, time.Now())
		a.SetTap(tap)
		Bridge(a.Stream, b.Stream)
		attacker := r.dial(netip.AddrPortFrom(r.world.addr(200), uint16(7000+i)))
		heard := ear(attacker)

		a.say(8, frames(160, 1)...)
		if got := b.hear(); !bytes.Equal(got.Payload, frames(160, 1)) {
			t.Fatalf("%v: heard % x", s, got.Payload)
		}
		good := a.packet(frames(160, 2)...)
		other := newPeerSRTP(t, s)
		var forgeries [][]byte
		for at := range good { // every byte counts
			bad := slices.Clone(good)
			bad[at] ^= 0x10
			if at == 0 || at == 1 {
				bad[at] = good[at] ^ 1 // still RTP: another CSRC count, another type
			}
			forgeries = append(forgeries, bad)
		}
		key := a.secure
		a.secure = other
		forgeries = append(forgeries, a.packet(frames(160, 3)...)) // another key
		a.secure = nil
		forgeries = append(forgeries, a.packet(frames(160, 4)...)) // none
		a.secure = key
		a.seq -= 2
		forgeries = append(forgeries, good[:len(good)-1], good[:rtpHeader], good[:rtpHeader+3])
		for _, bad := range forgeries {
			a.send(a.rtp, bad) // from the true address, as who is on the way can
		}
		a.send(a.rtp, good)
		a.send(a.rtp, good) // again
		a.send(attacker, good)
		a.say(8, frames(160, 5)...)
		for _, want := range []byte{2, 5} {
			if got := b.hear(); !bytes.Equal(got.Payload, frames(160, want)) {
				t.Fatalf("%v: heard % x, want %d", s, got.Payload, want)
			}
		}
		b.say(8, frames(160, 6)...)
		if got := a.hear(); !bytes.Equal(got.Payload, frames(160, 6)) {
			t.Fatalf("%v: a hears % x", s, got.Payload)
		}
		st := a.Stats()
		// One of the altered sequence numbers is too old to tell from a repeated one.
		if st.Received != 3 || st.Forged != uint64(len(forgeries)-1) || st.Replayed != 2 || st.Foreign != 1 || st.Malformed != 0 || st.Source != a.params.Remote {
			t.Errorf("%v: %d forgeries, stats %+v", s, len(forgeries), st)
		}
		var p Packet
		for _, want := range []byte{1, 2, 5} {
			if !tap.Next(&p) || !bytes.Equal(p.Payload, frames(160, want)) {
				t.Errorf("%v: tapped % x, want %d", s, p.Payload, want)
			}
		}
		if tap.Next(&p) {
			t.Errorf("%v: tapped %v too", s, p)
		}
		select {
		case d := <-heard:
			t.Errorf("%v: the attacker was answered with %d bytes", s, len(d.b))
		default:
		}
		a.Close()
		b.Close()
	}
	// Before anything genuine has come, a forgery from the signalling address
	// does not become the source either.
	a := r.open(40)
	a.secure = newPeerSRTP(t, AES128GCM)
	a.params.ReceiveKey, a.params.SendKey, a.params.Signalling = a.secure.mine, a.secure.theirs, r.world.addr(201)
	a.Configure(a.params)
	attacker := r.dial(netip.AddrPortFrom(r.world.addr(201), 7100))
	a.send(attacker, voicePacket(1, 2, 3))
	until(t, "the forgery", func() bool { return a.Stats().Forged == 1 })
	if st := a.Stats(); st.Source.IsValid() || st.Received != 0 {
		t.Errorf("stats %+v", st)
	}
}

// testSRTPSameKey: the peer's numbers pass 2^16, and Configure with the same key
// leaves the rollover counter alone.
func testSRTPSameKey(t *testing.T, r *rig) {
	for i, s := range []Suite{AES128GCM, AES128CM80} {
		a, b := r.secured(byte(10+2*i), s), r.leg(byte(11+2*i))
		Bridge(a.Stream, b.Stream)
		for n := range byte(20) { // from 65530 on
			a.say(8, frames(160, n)...)
			if got := b.hear(); !bytes.Equal(got.Payload, frames(160, n)) {
				t.Fatalf("%v: packet %d: % x", s, n, got.Payload)
			}
			switch n {
			case 3, 8, 12: // hold, resume, refresh
				p := a.params
				if n == 3 {
					p.Direction = Inactive
				}
				// The same key as another description brings it.
				key, err := ParseKey(s, p.ReceiveKey.Bytes())
				if err != nil {
					t.Fatal(err)
				}
				p.ReceiveKey = key
				a.Configure(p)
				if n == 3 {
					a.Configure(a.params)
				}
			}
		}
		// A new SSRC under the same key begins at zero.
		a.ssrc, a.seq = 4711, 65535
		for n := range byte(4) {
			a.say(8, frames(160, 100+n)...)
			if got := b.hear(); !bytes.Equal(got.Payload, frames(160, 100+n)) {
				t.Fatalf("%v: new SSRC, packet %d: % x", s, n, got.Payload)
			}
		}
		if st := a.Stats(); st.Received != 24 || st.Forged+st.Replayed != 0 {
			t.Errorf("%v: stats %+v", s, st)
		}
	}
}

// testSRTPNewKey: a new key of the peer's is a new beginning for what it sends,
// and for nothing else.
func testSRTPNewKey(t *testing.T, r *rig) {
	a, b := r.secured(10, AES128GCM), r.leg(11)
	Bridge(a.Stream, b.Stream)
	both := func(n byte) {
		t.Helper()
		a.say(8, frames(160, n)...)
		if got := b.hear(); !bytes.Equal(got.Payload, frames(160, n)) {
			t.Fatalf("b hears % x", got.Payload)
		}
		b.say(8, frames(160, n)...)
		if got := a.hear(); !bytes.Equal(got.Payload, frames(160, n)) {
			t.Fatalf("a hears % x", got.Payload)
		}
	}
	for n := range byte(10) { // past the wrap
		both(n)
	}
	// The peer begins anew with another key; what we send goes on.
	old := *a.secure
	a.secure.mine = NewKey(AES128CM80)
	a.secure.out = contextFor(t, a.secure.mine)
	a.params.ReceiveKey = a.secure.mine
	a.Configure(a.params)
	both(20)
	a.secure.out, old.out = old.out, a.secure.out
	a.say(8, frames(160, 21)...) // with the old key
	until(t, "the old key's packet", func() bool { return a.Stats().Forged == 1 })
	a.secure.out = old.out
	both(22)
	// And in the clear, if both agree.
	a.params.ReceiveKey, a.params.SendKey, a.secure = Key{}, Key{}, nil
	a.Configure(a.params)
	both(23)
}

// testSRTPNumberOnce: who is relayed repeats a number with other words; under
// our key it goes out once.
func testSRTPNumberOnce(t *testing.T, r *rig) {
	a, b := r.leg(10), r.secured(11, AES128GCM)
	Bridge(a.Stream, b.Stream)
	say := func(seq uint16, n byte) {
		a.seq, a.ts = seq, uint32(seq)*FrameSamples
		a.say(8, frames(160, n)...)
	}
	say(100, 1)
	say(102, 2)
	say(102, 3)
	say(101, 4) // late, but new
	say(101, 5)
	say(103, 6)
	for _, want := range []byte{1, 2, 4, 6} {
		if got := b.hear(); !bytes.Equal(got.Payload, frames(160, want)) {
			t.Fatalf("heard % x, want %d", got.Payload, want)
		}
	}
	if st := b.Stats(); st.Sent != 4 || st.Unsent != 2 {
		t.Errorf("stats %+v", st)
	}
}

// testSRTCP: reports are sealed; those of the peer are read only if they are
// genuine, and count as a sign of life only then.
func testSRTCP(t *testing.T, r *rig) {
	for i, s := range allSuites {
		a := r.secured(byte(10+i), s)
		a.Play(promptOf(400), true)
		d := wait(t, "report", a.told)
		if _, err := rtcp.Unmarshal(d.b); err == nil && s == AES128GCM {
			t.Error("the report can be read without the key")
		}
		plain, err := a.secure.in.DecryptRTCP(nil, d.b, nil)
		if err != nil {
			t.Fatalf("%v: report: %v", s, err)
		}
		packets, err := rtcp.Unmarshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		sr := packets[0].(*rtcp.SenderReport)
		answer, err := rtcp.Marshal([]rtcp.Packet{
			&rtcp.ReceiverReport{SSRC: a.ssrc, Reports: []rtcp.ReceptionReport{{SSRC: sr.SSRC, FractionLost: 64}}},
			rtcp.NewCNAMESourceDescription(a.ssrc, "x"),
		})
		if err != nil {
			t.Fatal(err)
		}
		tell := func(b []byte) {
			t.Helper()
			if _, err := a.rtcp.WriteToUDPAddrPort(b, a.toRTCP); err != nil {
				t.Fatal(err)
			}
		}
		sealed, err := a.secure.out.EncryptRTCP(nil, answer, nil)
		if err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(sealed)
		bad[len(bad)/2] ^= 1
		tell(answer)
		tell(bad)
		tell(sealed[:10])
		until(t, "forged reports", func() bool { return a.Stats().Forged == 3 })
		if st := a.Stats(); st.RemoteLoss != 0 {
			t.Errorf("%v: a forged report was read: %+v", s, st)
		}
		tell(sealed)
		tell(sealed)
		until(t, "repeated report", func() bool { return a.Stats().Replayed == 1 })
		if st := a.Stats(); st.RemoteLoss != 0.25 {
			t.Errorf("%v: stats %+v", s, st)
		}
		a.Close()
		for {
			plain, err := a.secure.in.DecryptRTCP(nil, wait(t, "BYE", a.told).b, nil)
			if err != nil {
				t.Fatal(err)
			}
			packets, err := rtcp.Unmarshal(plain)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := packets[len(packets)-1].(*rtcp.Goodbye); ok {
				break
			}
		}
	}
}
