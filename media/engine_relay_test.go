package media

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/zaf/g711"
)

func testRelayBothWays(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	var last [2]rtp.Packet
	for i := range 20 {
		for side, way := range [][2]*leg{{a, b}, {b, a}} {
			from, to := way[0], way[1]
			voice := frames(80+40*(i%5), byte(i)) // 10 to 30 ms: the peer's ptime is passed on
			from.say(8, voice...)
			got := to.hear()
			if !bytes.Equal(got.Payload, voice) || got.PayloadType != 8 {
				t.Fatalf("packet %d: payload type %d, %d bytes", i, got.PayloadType, len(got.Payload))
			}
			if got.Marker != (i == 0) {
				t.Errorf("packet %d: marker %v", i, got.Marker)
			}
			if i > 0 {
				before := last[side]
				if got.SSRC != before.SSRC || got.SequenceNumber != before.SequenceNumber+1 || got.Timestamp != before.Timestamp+FrameSamples {
					t.Fatalf("packet %d: %v after %v", i, got, before)
				}
			}
			last[side] = got
		}
	}
	if s := a.Stats(); s.Received != 20 || s.Sent != 20 || s.Relayed != 20 || s.Lost+s.Foreign+s.Malformed+s.Unsent != 0 {
		t.Errorf("stats %+v", s)
	}
	if s := r.engine.Stats(); s.Received != 40 || s.Sent != 40 || s.Streams != 2 || s.Ports != 50 {
		t.Errorf("engine stats %+v", s)
	}
}

func testRelayKeepsLossAndOrder(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	b.Relay(a.Stream)
	seq, ts := a.seq, a.ts
	send := func(n int) rtp.Packet {
		a.seq, a.ts = seq+uint16(n), ts+uint32(n)*FrameSamples
		a.say(8, frames(160, byte(n))...)
		return b.hear()
	}
	first := send(0)
	for _, n := range []int{1, 4, 3, 5, 5, 9, 8} { // lost 2, 6, 7; late 3, 8; twice 5
		got := send(n)
		if got.SequenceNumber-first.SequenceNumber != uint16(n) || got.Timestamp-first.Timestamp != uint32(n)*FrameSamples {
			t.Errorf("packet %d came as +%d, timestamp +%d", n, got.SequenceNumber-first.SequenceNumber, got.Timestamp-first.Timestamp)
		}
	}
	if s := a.Stats(); s.Lost != 3 || s.Late != 2 || s.Duplicate != 1 || s.Gaps != 2 || s.Received != 8 { // 2 6 7; 3 8; 5; before 4 and 9
		t.Errorf("stats %+v", s)
	}
	// Another SSRC with other numbers goes on in line.
	a.ssrc, seq, ts = 77, 31000, 123456789
	got := send(0)
	if got.SSRC != first.SSRC || got.SequenceNumber-first.SequenceNumber != 10 || !got.Marker {
		t.Errorf("after SSRC change: %v", got)
	}
	if d := got.Timestamp - first.Timestamp; d < 10*FrameSamples || d > 10*FrameSamples+2*SampleRate {
		t.Errorf("after SSRC change: timestamp +%d", d)
	}
	// So does a jump under the same SSRC.
	seq += 20000
	if got := send(0); got.SequenceNumber-first.SequenceNumber != 11 || !got.Marker {
		t.Errorf("after jump: %v", got)
	}
}

func testTranscoding(t *testing.T, r *rig) {
	a, b := r.leg(10), r.open(11)
	b.params.Codec, b.params.PayloadType = PCMU, 97 // a dynamic number for µ-law
	b.Configure(b.params)
	Bridge(a.Stream, b.Stream)
	every := frames(256, 0)
	a.say(8, every...)
	if got := b.hear(); got.PayloadType != 97 || !bytes.Equal(got.Payload, g711.Alaw2Ulaw(every)) {
		t.Errorf("A-law to µ-law: type %d, % x", got.PayloadType, got.Payload)
	}
	b.say(97, every...)
	if got := a.hear(); got.PayloadType != 8 || !bytes.Equal(got.Payload, g711.Ulaw2Alaw(every)) {
		t.Errorf("µ-law to A-law: type %d, % x", got.PayloadType, got.Payload)
	}
	// Either law is accepted, whatever was settled.
	a.say(0, every...)
	if got := b.hear(); got.PayloadType != 97 || !bytes.Equal(got.Payload, every) {
		t.Errorf("µ-law to µ-law: type %d, % x", got.PayloadType, got.Payload)
	}
	// A prompt is sent in the peer's law.
	p := promptOf(1)
	b.Play(p, false)
	if got := b.hear(); got.PayloadType != 97 || !bytes.Equal(got.Payload, p.ulaw) {
		t.Errorf("prompt: type %d", got.PayloadType)
	}
}

func testForeign(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	tap := NewTap(1<<16, time.Now())
	a.SetTap(tap)
	a.say(8, 1)
	b.hear()
	before := a.Stats()
	stranger := r.dial(netip.AddrPortFrom(r.world.addr(66), 4000))
	neighbour := r.dial(netip.AddrPortFrom(a.params.Remote.Addr(), 4444))
	for _, c := range []Conn{stranger, neighbour} {
		a.sayFrom(c, rtp.Header{PayloadType: 8}, []byte{66})
		a.sayFrom(c, rtp.Header{PayloadType: 101}, []byte{5, 0x80, 0, 80})
	}
	a.say(8, 2)
	if got := b.hear(); !bytes.Equal(got.Payload, []byte{2}) {
		t.Errorf("relayed % x", got.Payload)
	}
	var p Packet
	for _, want := range []byte{1, 2} {
		if !tap.Next(&p) || !bytes.Equal(p.Payload, []byte{want}) {
			t.Errorf("tapped %+v, want payload %d", p, want)
		}
	}
	if tap.Next(&p) {
		t.Errorf("tapped %+v too", p)
	}
	after := a.Stats()
	if after.Foreign != 4 || after.Received != 2 || after.Lost != before.Lost || after.Source != a.params.Remote {
		t.Errorf("stats %+v", after)
	}
	b.say(8, 3) // goes to the peer, not to the stranger
	a.hear()
	if e := event[Heard](a); e.From != a.params.Remote {
		t.Errorf("heard %v", e)
	}
	a.Silence()
	a.Play(promptOf(1), false)
	event[Played](a)
	if len(a.events) > 0 {
		t.Errorf("a stranger's key was reported: %v", <-a.events)
	}
}

func testMalformed(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	b.Relay(a.Stream)
	bad := [][]byte{
		{},
		{0x80},
		[]byte("INVITE sip:101@example SIP/2.0"),
		{0x40, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5},             // version 1
		{0x80, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0},                   // cut short
		{0x82, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5},             // CSRCs missing
		{0x90, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 5}, // extension missing
		{0xA0, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 9},          // padding longer than payload
		{0xA0, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 0},          // padding of none
		{0xA0, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1},                // padding without a byte
		{0x80, 18, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5},            // G.729
		{0x80, 101, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5, 0, 0},     // event cut short
		append([]byte{0x80, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, make([]byte, MaxPayload+1)...),
		make([]byte, 3000),
	}
	for _, p := range bad {
		if _, err := a.rtp.WriteToUDPAddrPort(p, a.to); err != nil {
			t.Fatal(err)
		}
	}
	// CSRCs, an extension and padding are no reason to refuse.
	good := []byte{0xB1, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 0x12, 0x34, 0, 1, 7, 7, 7, 7, 42, 43, 0, 0, 3}
	if _, err := a.rtp.WriteToUDPAddrPort(good, a.to); err != nil {
		t.Fatal(err)
	}
	if got := b.hear(); !bytes.Equal(got.Payload, []byte{42, 43}) {
		t.Errorf("relayed % x", got.Payload)
	}
	if s := a.Stats(); s.Malformed != uint64(len(bad)) || s.Received != 1 || s.Lost != 0 {
		t.Errorf("stats %+v", s)
	}
}

// press sends the packets of one key press; those listed in lost are not sent.
func press(l *leg, payloadType uint8, code byte, lost ...int) {
	start := l.ts
	for i := range 8 { // five that go on, three that end
		skip := false
		for _, n := range lost {
			skip = skip || n == i
		}
		duration, flags := uint16(i+1)*FrameSamples, byte(10)
		if i >= 5 {
			duration, flags = 6*FrameSamples, 0x8A
		}
		if !skip {
			l.ts = start
			l.sayFrom(l.rtp, rtp.Header{PayloadType: payloadType, Marker: i == 0},
				[]byte{code, flags, byte(duration >> 8), byte(duration)})
		}
		l.seq++
	}
	l.ts = start + 6*FrameSamples
}

func testKeys(t *testing.T, r *rig) {
	a, b, c := r.leg(10), r.open(11), r.open(12)
	b.params.EventType = 96
	b.Configure(b.params)
	c.params.EventType = 0
	c.Configure(c.params)
	tap := NewTap(1<<16, time.Now())
	a.SetTap(tap)
	b.Relay(a.Stream)
	a.say(8, frames(160, 1)...)
	voice := b.hear()
	press(a, 101, 5)
	press(a, 101, 5, 0, 5, 6, 7) // its beginning and its end are lost
	press(a, 101, 11)
	press(a, 101, 16) // a flash is no key
	a.say(8, frames(160, 2)...)
	for _, want := range "55#" {
		if e := event[DigitPressed](a); e.Digit != byte(want) {
			t.Errorf("digit %q, want %q", e.Digit, want)
		}
	}
	for key, n := range []int{8, 4, 8, 8} {
		for i := range n {
			got := b.hear()
			if got.PayloadType != 96 || len(got.Payload) != 4 {
				t.Fatalf("key %d packet %d: %v", key, i, got)
			}
			if want := voice.Timestamp + FrameSamples + uint32(key)*6*FrameSamples; got.Timestamp != want {
				t.Errorf("key %d packet %d: timestamp %d, want %d", key, i, got.Timestamp, want)
			}
			if got.Marker != (i == 0 && key != 1) {
				t.Errorf("key %d packet %d: marker %v", key, i, got.Marker)
			}
		}
	}
	if got := b.hear(); got.PayloadType != 8 || got.SequenceNumber-voice.SequenceNumber != 33 || got.Timestamp-voice.Timestamp != 25*FrameSamples {
		t.Errorf("voice after keys: %v after %v", got, voice)
	}
	if len(a.events) > 0 {
		t.Errorf("one more event: %v", <-a.events)
	}
	// A tap is told of events, but not what they are.
	var p Packet
	events := 0
	for tap.Next(&p) {
		if p.Kind == KindEvent {
			events++
			if len(p.Payload) != 0 {
				t.Fatalf("event with payload % x was tapped", p.Payload)
			}
		}
	}
	if events != 28 {
		t.Errorf("%d event packets tapped", events)
	}
	// A leg without events gets the voice only, and sees no loss.
	c.Relay(a.Stream)
	a.say(8, frames(160, 3)...)
	voice = c.hear()
	press(a, 101, 1)
	a.say(8, frames(160, 4)...)
	if got := c.hear(); got.PayloadType != 8 || got.SequenceNumber-voice.SequenceNumber != 1 || got.Timestamp-voice.Timestamp != 7*FrameSamples {
		t.Errorf("voice after keys left out: %v after %v", got, voice)
	}
}

func testComfortNoise(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	tap := NewTap(1<<16, time.Now())
	a.SetTap(tap)
	b.Relay(a.Stream)
	a.say(13, 60) // before any voice
	a.say(8, frames(160, 1)...)
	first := b.hear()
	a.say(13, 60)
	a.ts += 10 * FrameSamples
	a.say(13, 60)
	a.say(8, frames(160, 2)...)
	got := b.hear()
	if got.Payload[0] != 2 || !got.Marker || got.SequenceNumber-first.SequenceNumber != 1 || got.Timestamp-first.Timestamp != 13*FrameSamples {
		t.Errorf("voice after silence: %v after %v", got, first)
	}
	var p Packet
	for i, want := range []PacketKind{KindComfortNoise, KindPCMA, KindComfortNoise, KindComfortNoise, KindPCMA} {
		if !tap.Next(&p) || p.Kind != want || (want == KindComfortNoise) != (len(p.Payload) == 0) {
			t.Errorf("tapped %d: %+v, want kind %d", i, p, want)
		}
	}
	if s := a.Stats(); s.Relayed != 2 || s.Received != 5 {
		t.Errorf("stats %+v", s)
	}
}

// testTapHandover moves a tap to and fro between streams whose packet loops are
// busy. Under the race detector it fails if two of them may Put at once.
func testTapHandover(t *testing.T, r *rig) {
	legs := []*leg{r.leg(10), r.leg(11)}
	var senders sync.WaitGroup
	stop := make(chan struct{})
	for i, l := range legs {
		senders.Go(func() {
			for n := uint64(0); ; n++ {
				l.say(8, byte(i))
				// What was taken paces the sender.
				for l.Stats().Received+50 < n {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	tap, spare := NewTap(1<<16, time.Now()), NewTap(1<<12, time.Now())
	var p Packet
	for i := range 50 {
		on := legs[i%2]
		on.SetTap(tap)
		until(t, "a tapped packet", func() bool { return tap.Next(&p) })
		for ok := true; ok; ok = tap.Next(&p) {
			if p.Payload[0] != byte(i%2) {
				t.Fatalf("round %d: packet of the other stream", i)
			}
		}
		if i%4 < 2 {
			on.SetTap(nil)
		} else {
			on.SetTap(spare)
		}
		for tap.Next(&p) {
			if p.Payload[0] != byte(i%2) {
				t.Fatalf("round %d: packet of the other stream", i)
			}
		}
		on.SetTap(nil)
	}
	close(stop)
	senders.Wait()
}

func testRelayToOneOnly(t *testing.T, r *rig) {
	a, b, c := r.leg(10), r.leg(11), r.leg(12)
	b.Relay(a.Stream)
	a.say(8, 1)
	b.hear()
	c.Relay(a.Stream)
	a.say(8, 2)
	c.hear()
	b.Play(promptOf(1), false)
	if got := b.hear(); len(got.Payload) != FrameSamples {
		t.Errorf("the stream that lost its source got % x", got.Payload)
	}
	c.Silence()
	a.say(8, 3)
	b.Relay(a.Stream)
	a.say(8, 4)
	for got := b.hear(); got.Payload[0] != 4; got = b.hear() {
		if got.Payload[0] == 2 {
			t.Error("a stream was relayed to two others")
		}
	}
	if len(c.heard) > 0 {
		t.Error("a stream that was silenced is sent to")
	}
	b.Relay(nil) // nothing, like Silence
	a.Close()
	c.Relay(a.Stream)
	c.Play(promptOf(1), false)
	if e := event[Played](c); !e.Complete {
		t.Errorf("after relaying from a closed stream: %+v", e)
	}
}

func testEcho(t *testing.T, r *rig) {
	a := r.leg(10)
	a.Relay(a.Stream)
	for i := range 3 {
		a.say(8, byte(i))
		if got := a.hear(); got.Payload[0] != byte(i) {
			t.Errorf("echo of %d: % x", i, got.Payload)
		}
	}
}

func testDirection(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	tap := NewTap(1<<16, time.Now())
	a.SetTap(tap)
	a.say(8, 1)
	first := b.hear()
	hold := a.params
	hold.Direction = SendOnly
	a.Configure(hold)
	for range 5 {
		a.say(8, 2)
	}
	b.say(8, 3) // the other way goes on
	a.hear()
	until(t, "what came while held", func() bool { return a.Stats().Received == 6 })
	a.Configure(a.params)
	a.say(8, 4)
	if got := b.hear(); got.Payload[0] != 4 || got.SequenceNumber-first.SequenceNumber != 1 || !got.Marker {
		t.Errorf("after hold: %v, before %v", got, first)
	}
	var p Packet
	for _, want := range []byte{1, 4} {
		if !tap.Next(&p) || p.Payload[0] != want {
			t.Errorf("tapped %+v, want %d", p, want)
		}
	}
	b.params.Direction = RecvOnly
	b.Configure(b.params)
	a.say(8, 5)
	until(t, "what was not sent", func() bool { return b.Stats().Unsent == 1 })
	b.params.Direction = SendRecv
	b.Configure(b.params)
	a.say(8, 6)
	if got := b.hear(); got.Payload[0] != 6 || got.SequenceNumber-first.SequenceNumber != 2 || !got.Marker {
		t.Errorf("after a pause of sending: %v", got)
	}
}

func testSymmetric(t *testing.T, r *rig) {
	a, b := r.open(10), r.leg(11)
	a.params.Remote = netip.MustParseAddrPort("10.9.8.7:4000") // behind NAT
	if r.world.real {
		a.params.Remote = netip.AddrPortFrom(r.world.addr(99), 4000)
	}
	a.Configure(a.params)
	Bridge(a.Stream, b.Stream)
	a.say(8, 1)
	b.hear()
	if e := event[Heard](a); e.From.Addr() != a.params.Signalling {
		t.Errorf("heard %v", e)
	}
	b.say(8, 2)
	if got := a.hear(); got.Payload[0] != 2 {
		t.Errorf("the phone behind NAT got % x", got.Payload)
	}
}
