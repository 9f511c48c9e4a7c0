package media

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/zaf/g711"
)

func TestPortable(t *testing.T) {
	testEngine(t, NewPortable)
}

// contract is what every engine must do. Cases with clock run only in the
// bubble, where minutes cost nothing.
var contract = []struct {
	name  string
	clock bool
	cfg   PortableConfig
	test  func(t *testing.T, r *rig)
}{
	{name: "RelayBothWays", test: testRelayBothWays},
	{name: "RelayKeepsLossAndOrder", test: testRelayKeepsLossAndOrder},
	{name: "NumbersGoOnAcrossOrigins", test: testNumbersGoOn},
	{name: "Transcoding", test: testTranscoding},
	{name: "ForeignPacketChangesNothing", test: testForeign},
	{name: "MalformedIsCounted", test: testMalformed},
	{name: "KeysAreReportedOnceAndRelayed", test: testKeys},
	{name: "ComfortNoiseIsTappedNotSent", test: testComfortNoise},
	{name: "TapHandover", test: testTapHandover},
	{name: "PlayedComplete", test: testPlayedComplete},
	{name: "PlayedIncomplete", test: testPlayedIncomplete},
	{name: "RelayToOneOnly", test: testRelayToOneOnly},
	{name: "EchoToItself", test: testEcho},
	{name: "DirectionLimitsBothWays", test: testDirection},
	{name: "NoPorts", cfg: PortableConfig{PortMin: firstPort + 1, PortMax: firstPort + 6}, test: testNoPorts},
	{name: "PortOfOthersIsSkipped", cfg: PortableConfig{PortMin: firstPort, PortMax: firstPort + 3}, test: testPortSkipped},
	{name: "CloseRaces", test: testCloseRaces},
	{name: "RunEndsEverything", test: testRunEndsEverything},
	{name: "SymmetricRTP", test: testSymmetric},
	{name: "UnsentFrameBreaksPrompt", clock: true, test: testUnsentFrame},
	{name: "PaceWithoutDrift", clock: true, test: testPace},
	{name: "Timeout", clock: true, cfg: PortableConfig{Timeout: time.Minute}, test: testTimeout},
	{name: "TimeoutOff", clock: true, test: testTimeoutOff},
	{name: "PortsDrain", clock: true, cfg: PortableConfig{PortMin: firstPort, PortMax: firstPort + 3, Drain: 7 * time.Second}, test: testDrain},
	{name: "Reports", clock: true, cfg: PortableConfig{CNAME: "cim@example"}, test: testReports},
}

func testEngine(t *testing.T, build newEngine) {
	for _, w := range []world{bubble, sockets} {
		for _, c := range contract {
			if w.real && c.clock {
				continue
			}
			t.Run(w.name+"/"+c.name, func(t *testing.T) {
				w.run(t, func(t *testing.T) { c.test(t, newRig(t, w, build, c.cfg)) })
			})
		}
	}
}

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
	if s := a.Stats(); s.Lost != 2 || s.Received != 8 { // 2 6 7 lost, one twice
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

func testNumbersGoOn(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	started := time.Now()
	var all []rtp.Packet
	var when []time.Duration
	next := func() rtp.Packet {
		p := a.hear()
		all, when = append(all, p), append(when, time.Since(started))
		return p
	}
	marked := map[int]bool{}
	mark := func() { marked[len(all)] = true }

	mark()
	id := a.Play(promptOf(5), false) // announcement
	for range 5 {
		next()
	}
	if e := event[Played](a); e.Play != id || !e.Complete {
		t.Fatalf("announcement: %+v", e)
	}
	mark()
	a.Play(promptOf(3), true) // music, more than once round
	for range 5 {
		next()
	}
	bridge := func() {
		a.Relay(b.Stream)
		mark()
		// What the music sent in between was not yet marked as read.
		for n := 0; n < 4; {
			b.say(8, frames(160, 0x77)...)
			p := next()
			for p.Payload[0] != 0x77 {
				delete(marked, len(all)-1)
				mark()
				p = next()
			}
			n++
		}
	}
	bridge()
	if !r.world.real {
		time.Sleep(3 * time.Second) // talk that is silent
		b.ts += 3 * SampleRate
		b.say(8, frames(160, 0x77)...)
		next()
	}
	mark()
	a.Play(promptOf(3), true) // hold
	for range 3 {
		next()
	}
	a.Configure(a.params)
	bridge()

	for i, p := range all {
		if p.Marker != marked[i] {
			t.Errorf("packet %d: marker %v", i, p.Marker)
		}
		if i == 0 {
			continue
		}
		before := all[i-1]
		if p.SSRC != before.SSRC || p.SequenceNumber != before.SequenceNumber+1 {
			t.Fatalf("packet %d: %v after %v", i, p, before)
		}
		step := p.Timestamp - before.Timestamp
		if step < FrameSamples || step > 5*SampleRate {
			t.Fatalf("packet %d: timestamp steps by %d", i, int32(step))
		}
	}
	// Over the whole, the timestamp went as the clock: the bursts of this test
	// can only put it ahead.
	last := len(all) - 1
	clock := uint32((when[last] - when[0]) / sampleTime)
	if got := all[last].Timestamp - all[0].Timestamp; !r.world.real && (got < clock || got > clock+20*FrameSamples) {
		t.Errorf("timestamp advanced by %d in %d ticks", got, clock)
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
			for {
				select {
				case <-stop:
					return
				default:
					l.say(8, byte(i))
					// A packet that was taken, not a rate, is what paces the sender.
					for s := l.Stats(); s.Received+200 < uint64(l.seq-65530); s = l.Stats() {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
						}
					}
				}
			}
		})
	}
	tap, spare := NewTap(1<<16, time.Now()), NewTap(1<<12, time.Now())
	var p Packet
	for i := range 50 {
		on := legs[i%2]
		on.SetTap(tap)
		for !tap.Next(&p) {
			time.Sleep(50 * time.Microsecond)
		}
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

func testPlayedComplete(t *testing.T, r *rig) {
	a := r.leg(10)
	samples := make([]int16, 2*FrameSamples+50)
	for i := range samples {
		samples[i] = 8000
	}
	p := NewPrompt(samples)
	started := time.Now()
	id := a.Play(p, false)
	for i := range 3 {
		got := a.hear()
		want := make([]byte, FrameSamples)
		p.frame(want, i*FrameSamples, PCMA, false)
		if !bytes.Equal(got.Payload, want) {
			t.Errorf("frame %d differs", i)
		}
		if i == 2 && (got.Payload[49] != p.alaw[0] || got.Payload[50] != 0xD5 || got.Payload[159] != 0xD5) {
			t.Errorf("last frame is not padded with silence: % x", got.Payload[48:])
		}
	}
	e := event[Played](a)
	if took := e.At.Sub(started); e.Play != id || !e.Complete || took < 3*FrameTime || !r.world.real && took != 3*FrameTime {
		t.Errorf("played %+v after %v", e, took)
	}
	if s := a.Stats(); s.Sent != 3 || s.Unsent != 0 {
		t.Errorf("stats %+v", s)
	}
	second := a.Play(p, false)
	if second == id {
		t.Error("two plays have one id")
	}
	if e := event[Played](a); e.Play != second || !e.Complete {
		t.Errorf("second play: %+v", e)
	}
}

func testPlayedIncomplete(t *testing.T, r *rig) {
	a, b := r.open(10), r.leg(11)
	long := promptOf(1000)
	wantBroken := func(what string, id PlayID) {
		t.Helper()
		if e := event[Played](a); e.Play != id || e.Complete {
			t.Errorf("%s: %+v, want play %d, not complete", what, e, id)
		}
	}
	wantBroken("before Configure", a.Play(long, false))
	a.Configure(a.params)

	id := a.Play(long, false)
	a.hear()
	other := a.Play(long, false)
	wantBroken("replaced by a prompt", id)
	a.hear()
	a.Silence()
	wantBroken("replaced by silence", other)
	id = a.Play(long, false)
	a.hear()
	a.Relay(b.Stream)
	wantBroken("replaced by a relay", id)
	id = a.Play(long, true)
	a.hear()
	a.Silence()
	wantBroken("a loop that ends", id)

	hold := a.params
	hold.Direction = RecvOnly
	id = a.Play(long, false)
	a.hear()
	a.Configure(hold)
	wantBroken("forbidden in between", id)
	wantBroken("forbidden", a.Play(long, false))

	music := a.Play(promptOf(2), true) // waits for permission
	a.Configure(a.params)
	for range 3 {
		a.hear()
	}
	a.Configure(a.params) // changes nothing
	a.hear()
	nowhere := a.params
	nowhere.Remote = netip.MustParseAddrPort("0.0.0.0:4000")
	id = a.Play(long, false)
	wantBroken("music", music)
	a.Configure(nowhere)
	wantBroken("an address of zeros", id)
	a.Configure(a.params)

	wantBroken("an empty prompt", a.Play(NewPrompt(nil), false))
	wantBroken("no prompt", a.Play(nil, false))
	id = a.Play(long, false)
	a.hear()
	a.Close()
	wantBroken("closed", id)
	if id := a.Play(long, false); id != 0 {
		t.Errorf("a closed stream played %d", id)
	}
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
	for a.Stats().Received < 6 {
		time.Sleep(time.Millisecond)
	}
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
	for b.Stats().Unsent == 0 {
		time.Sleep(time.Millisecond)
	}
	b.params.Direction = SendRecv
	b.Configure(b.params)
	a.say(8, 6)
	if got := b.hear(); got.Payload[0] != 6 || got.SequenceNumber-first.SequenceNumber != 2 || !got.Marker {
		t.Errorf("after a pause of sending: %v", got)
	}
}

func testNoPorts(t *testing.T, r *rig) {
	// 20001-20006 holds the pairs 20002 and 20004.
	var open []Stream
	for range 2 {
		s, err := r.engine.Open(StreamConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if s.LocalPort()%2 != 0 || s.LocalPort() < firstPort+1 || s.LocalPort()+1 > firstPort+6 {
			t.Errorf("port %d", s.LocalPort())
		}
		open = append(open, s)
	}
	if _, err := r.engine.Open(StreamConfig{Label: "third"}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("third stream: %v", err)
	}
	open[0].Close()
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("port that must rest was given out: %v", err)
	}
	if s := r.engine.Stats(); s.Streams != 1 || s.Draining != 1 || s.Ports != 2 {
		t.Errorf("stats %+v", s)
	}
}

func testPortSkipped(t *testing.T, r *rig) {
	r.dial(netip.AddrPortFrom(r.world.addr(1), firstPort+1)) // RTCP of the first pair
	s, err := r.engine.Open(StreamConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if s.LocalPort() != firstPort+2 {
		t.Errorf("port %d", s.LocalPort())
	}
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("second stream: %v", err)
	}
	// The half that was free was not kept.
	r.dial(netip.AddrPortFrom(r.world.addr(1), firstPort))
}

// testCloseRaces calls everything from several goroutines while packets flow and
// streams close; the race detector and a deadlock are what it looks for.
func testCloseRaces(t *testing.T, r *rig) {
	for round := range 4 {
		a, b := r.leg(byte(20+2*round)), r.leg(byte(21+2*round))
		var all sync.WaitGroup
		for i, way := range [][2]*leg{{a, b}, {b, a}} {
			x, y := way[0], way[1]
			all.Go(func() {
				for range 100 {
					x.say(8, byte(i))
				}
			})
			all.Go(func() {
				tap := NewTap(4096, time.Now())
				for n := range 50 {
					x.Relay(y.Stream)
					x.SetTap(tap)
					x.Configure(x.params)
					if n%5 == 0 {
						x.Play(promptOf(2), n%2 == 0)
					}
					x.Stats()
					r.engine.Stats()
					if n%7 == 0 {
						x.Silence()
					}
					Bridge(y.Stream, x.Stream)
				}
				x.Close()
				x.Close()
			})
		}
		all.Wait()
		received := a.Stats().Received
		a.Configure(a.params)
		a.Relay(b.Stream)
		a.SetTap(nil)
		a.Silence()
		if a.Stats().Received != received {
			t.Error("a closed stream receives")
		}
	}
	r.stop()
	if s := r.engine.Stats(); s.Streams != 0 || s.Draining != 8 {
		t.Errorf("stats %+v", s)
	}
}

func testRunEndsEverything(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	b.Play(promptOf(10), true)
	b.hear()
	r.stop()
	if e := event[Played](b); e.Complete {
		t.Errorf("%+v", e)
	}
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("open after the end: %v", err)
	}
	// Every socket is closed.
	r.dial(a.to)
	r.dial(a.toRTCP)
	if s := r.engine.Stats(); s.Streams != 0 || s.Sent != b.Stats().Sent {
		t.Errorf("stats %+v", s)
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

func testUnsentFrame(t *testing.T, r *rig) {
	a := r.leg(10)
	id := a.Play(promptOf(20), false)
	a.hear()
	a.hear()
	r.ether.fail.Store(&a.params.Remote)
	if e := event[Played](a); e.Play != id || e.Complete {
		t.Errorf("%+v", e)
	}
	if s := a.Stats(); s.Sent != 2 || s.Unsent != 1 {
		t.Errorf("stats %+v", s)
	}
	music := a.Play(promptOf(3), true)
	time.Sleep(5*FrameTime + FrameTime/2)
	r.ether.fail.Store(nil)
	a.hear()
	a.Silence()
	if e := event[Played](a); e.Play != music {
		t.Errorf("%+v", e)
	}
	if s := a.Stats(); s.Unsent != 7 {
		t.Errorf("stats %+v", s)
	}
}

func testPace(t *testing.T, r *rig) {
	a := r.leg(10)
	p := HoldMusic()
	started := time.Now()
	a.Play(p, true)
	first := a.hear()
	for i := 1; i <= 30*60*50; i++ { // half an hour
		got := a.hear()
		if d := time.Since(started); d != time.Duration(i)*FrameTime {
			t.Fatalf("frame %d at %v", i, d)
		}
		if got.Timestamp-first.Timestamp != uint32(i)*FrameSamples || got.SequenceNumber-first.SequenceNumber != uint16(i) || got.Marker {
			t.Fatalf("frame %d: %v", i, got)
		}
		if i%997 == 0 {
			want := make([]byte, FrameSamples)
			p.frame(want, i*FrameSamples%p.samples(), PCMA, true)
			if !bytes.Equal(got.Payload, want) {
				t.Fatalf("frame %d has other samples", i)
			}
		}
	}
}

func testTimeout(t *testing.T, r *rig) {
	a := r.open(10)
	time.Sleep(5 * time.Minute) // counts from Configure
	started := time.Now()
	a.Configure(a.params)
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != time.Minute {
		t.Errorf("%+v after %v", e, time.Since(started))
	}
	time.Sleep(10 * time.Minute)
	if len(a.events) > 0 {
		t.Errorf("timed out twice: %v", <-a.events)
	}
	a.say(8, 1)
	event[Heard](a)
	time.Sleep(50 * time.Second)
	rr, err := (&rtcp.ReceiverReport{SSRC: a.ssrc}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.rtcp.WriteToUDPAddrPort(rr, a.toRTCP); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	stranger := r.dial(netip.AddrPortFrom(r.world.addr(66), 4000))
	time.Sleep(30 * time.Second)
	a.sayFrom(stranger, rtp.Header{PayloadType: 8}, []byte{1})
	if _, err := stranger.WriteToUDPAddrPort(rr, a.toRTCP); err != nil {
		t.Fatal(err)
	}
	started = time.Now()
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != 30*time.Second {
		t.Errorf("%+v after %v: RTCP is a sign of life, a stranger is none", e, time.Since(started))
	}
	// Held, the peer may be silent for as long as it likes.
	a.say(8, 1)
	hold := a.params
	hold.Direction = SendOnly
	a.Configure(hold)
	time.Sleep(time.Hour)
	if len(a.events) > 0 {
		t.Errorf("while held: %v", <-a.events)
	}
	started = time.Now()
	a.Configure(a.params)
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != time.Minute {
		t.Errorf("%+v after %v", e, time.Since(started))
	}
}

func testTimeoutOff(t *testing.T, r *rig) {
	a := r.leg(10)
	time.Sleep(24 * time.Hour)
	if len(a.events) > 0 {
		t.Errorf("%v", <-a.events)
	}
}

func testDrain(t *testing.T, r *rig) {
	old := r.open(10)
	r.open(11)
	old.Close()
	synctest.Wait()
	closed := time.Now()
	for {
		s, err := r.engine.Open(StreamConfig{})
		if err == nil {
			if d := time.Since(closed); d != 7*time.Second || s.LocalPort() != old.LocalPort() {
				t.Errorf("port %d after %v", s.LocalPort(), d)
			}
			break
		}
		if !errors.Is(err, ErrNoPorts) {
			t.Fatal(err)
		}
		// The caller of old goes on talking into the void.
		old.say(8, 1)
		time.Sleep(time.Second)
	}
	synctest.Wait()
	if s := r.engine.Stats(); s.Received+s.Foreign+s.Malformed != 0 || s.Draining != 0 {
		t.Errorf("stats %+v", s)
	}
}

func testReports(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	// Speak for a minute and lose every tenth packet; a's peer answers each
	// report after 40 ms with a report of its own.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 * 50 {
			if i%10 == 3 {
				a.seq++
				a.ts += FrameSamples
			} else {
				a.say(8, frames(160, 0)...)
			}
			b.say(8, frames(160, 0)...)
			time.Sleep(FrameTime)
		}
	}()
	last := time.Now()
	var blocks int
	for speaking := true; speaking; {
		select {
		case <-done:
			speaking = false
		case d := <-a.told:
			if gap := time.Since(last); gap < 2500*time.Millisecond || gap > 7500*time.Millisecond {
				t.Errorf("a report after %v", gap)
			}
			last = time.Now()
			if d.from != a.toRTCP {
				t.Errorf("report from %v", d.from)
			}
			packets, err := rtcp.Unmarshal(d.b)
			if err != nil {
				t.Fatal(err)
			}
			sr := packets[0].(*rtcp.SenderReport)
			if cname, err := rtcp.CompoundPacket(packets).CNAME(); err != nil || cname != "cim@example" {
				t.Errorf("CNAME %q, %v", cname, err)
			}
			if len(sr.Reports) != 1 || sr.Reports[0].SSRC != a.ssrc {
				t.Fatalf("report blocks %+v", sr.Reports)
			}
			blocks++
			if f := sr.Reports[0].FractionLost; f < 22 || f > 29 { // 25.6 is a tenth
				t.Errorf("fraction lost %d/256", f)
			}
			time.Sleep(40 * time.Millisecond)
			answer := &rtcp.ReceiverReport{SSRC: a.ssrc, Reports: []rtcp.ReceptionReport{{
				SSRC: sr.SSRC, FractionLost: 64, Jitter: 16,
				LastSenderReport: uint32(sr.NTPTime >> 16), Delay: 65536 / 50, // 20 ms
			}}}
			raw, err := rtcp.Marshal([]rtcp.Packet{answer, rtcp.NewCNAMESourceDescription(a.ssrc, "x")})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.rtcp.WriteToUDPAddrPort(raw, a.toRTCP); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := a.Stats()
	if blocks < 8 || s.Lost != 300 || s.Jitter != 0 {
		t.Errorf("%d reports, stats %+v", blocks, s)
	}
	if rtt := s.RTT; rtt < 19900*time.Microsecond || rtt > 20100*time.Microsecond {
		t.Errorf("round trip %v, want 40 ms less the 20 ms that the peer held it", rtt)
	}
	if s.RemoteLoss != 0.25 || s.RemoteJitter != 2*time.Millisecond {
		t.Errorf("remote loss %v, jitter %v", s.RemoteLoss, s.RemoteJitter)
	}
	a.Close()
	for {
		packets, err := rtcp.Unmarshal(wait(t, "BYE", a.told).b)
		if err != nil {
			t.Fatal(err)
		}
		if bye, ok := packets[len(packets)-1].(*rtcp.Goodbye); ok {
			if len(packets) != 3 || len(bye.Sources) != 1 {
				t.Errorf("goodbye %v", packets)
			}
			return
		}
	}
}

func TestNewPortableRefuses(t *testing.T) {
	ok := PortableConfig{PortMin: 20000, PortMax: 20001}
	if _, err := NewPortable(ok); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*PortableConfig){
		"no pair":          func(c *PortableConfig) { c.PortMin = 20001; c.PortMax = 20002 },
		"no range":         func(c *PortableConfig) { c.PortMin, c.PortMax = 0, 0 },
		"reversed":         func(c *PortableConfig) { c.PortMax = 10000 },
		"negative drain":   func(c *PortableConfig) { c.Drain = -1 },
		"negative timeout": func(c *PortableConfig) { c.Timeout = -1 },
		"DSCP":             func(c *PortableConfig) { c.DSCP = 64 },
		"CNAME":            func(c *PortableConfig) { c.CNAME = string(make([]byte, 256)) },
	} {
		c := ok
		change(&c)
		if _, err := NewPortable(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestListenError: what is not a port in use is the caller's to know.
func TestListenError(t *testing.T) {
	tries := 0
	e, err := NewPortable(PortableConfig{PortMin: 20000, PortMax: 20099, Listen: func(a netip.AddrPort) (Conn, error) {
		tries++
		return nil, fmt.Errorf("listen %v: %w", a, syscall.EMFILE)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(StreamConfig{Label: "a"}); !errors.Is(err, syscall.EMFILE) || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

func TestDSCP(t *testing.T) {
	for _, addr := range []netip.Addr{loopback(1), netip.IPv6Loopback()} {
		c, err := ListenUDP(netip.AddrPortFrom(addr, 0))
		if err != nil {
			if addr.Is6() {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		if err := mark(c, 46); err != nil {
			t.Errorf("%v: %v", addr, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
