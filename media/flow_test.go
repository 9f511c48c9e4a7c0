package media

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestSourceRule(t *testing.T) {
	const (
		sdp     = "198.51.100.1:4000"
		sdpPort = "198.51.100.1:4444"
		sig     = "203.0.113.7:5000"
		sigPort = "203.0.113.7:5555"
		other   = "192.0.2.66:4000"
	)
	type step struct {
		after time.Duration
		from  string
		taken bool
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for name, steps := range map[string][]step{
		"the SDP's address": {
			{0, sdp, true}, {ms(20), sdp, true}, {ms(20), other, false}, {ms(20), sdp, true}},
		"a stranger is never taken": {
			{0, other, false}, {ms(5000), other, false}, {0, sdp, true}, {ms(60000), other, false}},
		"signalling's address before the first packet, on any port": {
			{ms(20), sig, true}, {ms(20), sig, true}, {ms(20), sigPort, false}, {ms(20), other, false}},
		"the SDP's address wins over signalling's": {
			{0, sig, true}, {ms(20), sdp, true}, {ms(20), sig, false}, {ms(9000), sig, false}},
		"not signalling's address after the first packet": {
			{0, sdp, true}, {ms(20), sig, false}, {ms(60000), sig, false}},
		"another port after two seconds of silence": {
			{0, sdp, true}, {ms(1999), sdpPort, false}, {ms(1), sdpPort, true}, {ms(20), sdpPort, true}},
		"not while the source speaks": {
			{0, sdp, true}, {ms(1500), sdp, true}, {ms(1500), sdpPort, false}, {ms(500), sdpPort, true}},
		"a refused packet does not break the silence, nor end it": {
			{0, sdp, true}, {ms(1000), sdpPort, false}, {ms(500), other, false}, {ms(500), sdpPort, true}},
		"the SDP's address wins after a rebind too": {
			{0, sdp, true}, {ms(2000), sdpPort, true}, {ms(20), sdp, true}, {ms(20), sdpPort, false}},
		"signalling's address rebinds": {
			{0, sig, true}, {ms(2000), sigPort, true}, {ms(20), sig, false}, {ms(20), sigPort, true}},
		"a gateway that sends from another port": {
			{ms(20), sdpPort, false}, {ms(1980), sdpPort, true}, {ms(20), sig, false}},
		"an IPv4 address in IPv6 form is the same": {
			{0, "[::ffff:198.51.100.1]:4000", true}, {ms(20), sdp, true}, {ms(20), "[::ffff:203.0.113.7]:5000", false}},
	} {
		t.Run(name, func(t *testing.T) {
			at := time.Hour
			f := newFlow(time.Now(), at, 0, "")
			f.configure(Params{
				Remote: netip.MustParseAddrPort(sdp), Signalling: netip.MustParseAddr("203.0.113.7"),
				Codec: PCMA, PayloadType: 8, Direction: SendRecv,
			}, at)
			var in inbound
			seq := uint16(0)
			for i, s := range steps {
				at += s.after
				before := f
				from := netip.MustParseAddrPort(s.from)
				if taken := f.receive(voicePacket(seq, uint32(seq)*160, 7), from, at, &in); taken != s.taken {
					t.Fatalf("step %d: %s taken: %v", i, s.from, taken)
				}
				if s.taken {
					seq++
					if to, ok := f.rtp.target(); !ok || to != unmap(from) {
						t.Errorf("step %d: sends to %v", i, to)
					}
					continue
				}
				// A foreign packet changes its own count and nothing else.
				if f.count.Foreign != before.count.Foreign+1 {
					t.Errorf("step %d: not counted", i)
				}
				if f.rtp != before.rtp || f.in != before.in || f.heardAt != before.heardAt || len(f.events) != len(before.events) {
					t.Errorf("step %d: state changed", i)
				}
			}
		})
	}
}

// TestSourceAfterReinvite: what was learned is forgotten only if the SDP names
// another address.
func TestSourceAfterReinvite(t *testing.T) {
	f := newFlow(time.Now(), 0, 0, "")
	p := Params{Remote: netip.MustParseAddrPort("198.51.100.1:4000"), Signalling: netip.MustParseAddr("203.0.113.7"), Codec: PCMA, PayloadType: 8, Direction: SendRecv}
	f.configure(p, 0)
	var in inbound
	nat := netip.MustParseAddrPort("203.0.113.7:5000")
	if !f.receive(voicePacket(1, 160, 7), nat, 1, &in) {
		t.Fatal("not taken")
	}
	f.configure(p, 2)
	if to, _ := f.rtp.target(); to != nat || len(f.events) != 1 {
		t.Errorf("after the same SDP: sends to %v, events %v", to, f.events)
	}
	p.Remote = netip.MustParseAddrPort("198.51.100.1:4002")
	f.configure(p, 3)
	if to, _ := f.rtp.target(); to != p.Remote {
		t.Errorf("after another SDP: sends to %v", to)
	}
	if !f.receive(voicePacket(2, 320, 7), nat, 4, &in) || len(f.events) != 2 {
		t.Errorf("the phone behind NAT is not heard again: %v", f.events)
	}
}

// voicePacket is an A-law packet of 20 ms.
func voicePacket(seq uint16, ts, ssrc uint32) []byte {
	b := make([]byte, rtpHeader+FrameSamples)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

// speaking returns a flow that may send, and the relay's input for packet n of
// a stream at 20 ms.
func speaking(mode flowMode) *flow {
	f := newFlow(time.Now(), 0, 0, "")
	f.configure(Params{Remote: netip.MustParseAddrPort("192.0.2.1:4000"), Codec: PCMA, PayloadType: 8, Direction: SendRecv}, 0)
	f.mode = mode
	return &f
}

// TestRelayUnderDisorder runs random loss, delay, duplication and comfort noise
// through a relay and holds the outcome against the plain rule: the outgoing
// number is the count of packets that were meant to be sent before.
func TestRelayUnderDisorder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := speaking(relaying)
		const n = 400
		noise := make([]bool, n)
		for i := 1; i < n; i++ {
			noise[i] = rng.IntN(10) == 0 || noise[i-1] && rng.IntN(3) > 0
		}
		// Comfort noise is in line here: noise that is lost or late is loss.
		want := make(map[int]uint16)
		type arrival struct{ i, at int }
		var line []arrival
		for i := range n {
			if i > 0 && !noise[i] && rng.IntN(12) == 0 {
				continue // lost
			}
			at := i * 10
			near := noise[i] || i == 0
			for d := max(0, i-4); d < min(n, i+4); d++ {
				near = near || noise[d]
			}
			if !near && rng.IntN(8) == 0 {
				at += 10 + rng.IntN(25)
			}
			line = append(line, arrival{i, at})
			if !noise[i] && rng.IntN(20) == 0 {
				line = append(line, arrival{i, at + 1})
			}
		}
		left := uint16(0)
		for i := range n {
			want[i] = uint16(i) - left
			if noise[i] {
				left++
			}
		}
		for i := 1; i < len(line); i++ { // insertion sort by arrival, stable
			for j := i; j > 0 && line[j].at < line[j-1].at; j-- {
				line[j], line[j-1] = line[j-1], line[j]
			}
		}
		first := uint16(rng.Uint32())
		var in inbound
		buf := make([]byte, maxPacket)
		var base uint16
		for k, a := range line {
			in.Packet = Packet{Kind: KindPCMA, Sequence: first + uint16(a.i), Timestamp: uint32(a.i) * 160, SSRC: 9, Payload: []byte{byte(a.i)}}
			if noise[a.i] {
				in.Kind, in.Payload = KindComfortNoise, nil
			}
			got := f.forward(&in, time.Duration(a.at)*2*time.Millisecond, buf)
			if noise[a.i] {
				if got != 0 {
					t.Fatalf("seed %d: comfort noise was sent", seed)
				}
				continue
			}
			if got != rtpHeader+1 {
				t.Fatalf("seed %d: packet %d was not sent", seed, a.i)
			}
			seq := binary.BigEndian.Uint16(buf[2:])
			if k == 0 {
				base = seq
			}
			if seq-base != want[a.i] {
				t.Fatalf("seed %d: packet %d went out as +%d, want +%d", seed, a.i, seq-base, want[a.i])
			}
		}
	}
}

// TestRelayLateFromBefore: what is older than the relay has no number left.
func TestRelayLateFromBefore(t *testing.T) {
	f := speaking(relaying)
	buf := make([]byte, maxPacket)
	for _, c := range []struct {
		seq  uint16
		sent bool
	}{{100, true}, {99, false}, {102, true}, {101, true}, {100, true}, {50, false}} {
		in := inbound{Packet: Packet{Kind: KindPCMA, Sequence: c.seq, Timestamp: uint32(c.seq) * 160, Payload: []byte{1}}}
		if n := f.forward(&in, time.Duration(c.seq)*FrameTime, buf); n > 0 != c.sent {
			t.Errorf("packet %d: sent %v", c.seq, n > 0)
		}
	}
	if f.count.Sent != 4 || f.count.Overtaken != 2 || f.count.Unsent != 0 {
		t.Errorf("%+v", f.count)
	}
}

// TestRelayTimestampThatStoodStill: a phone that did not count while it was
// silent does not make our timestamps late.
func TestRelayTimestampThatStoodStill(t *testing.T) {
	f := speaking(relaying)
	buf := make([]byte, maxPacket)
	send := func(seq uint16, ts uint32, at time.Duration) uint32 {
		in := inbound{Packet: Packet{Kind: KindPCMA, Sequence: seq, Timestamp: ts, Payload: make([]byte, 160)}}
		if f.forward(&in, at, buf) == 0 {
			t.Fatal("not sent")
		}
		return binary.BigEndian.Uint32(buf[4:])
	}
	first := send(1, 160, 0)
	if d := send(2, 320, time.Minute) - first; d != 60*SampleRate {
		t.Errorf("timestamp +%d after a minute", d)
	}
	if buf[1]&0x80 == 0 || binary.BigEndian.Uint16(buf[2:]) != f.out.seq {
		t.Error("no marker")
	}
	// Honest silence is left as it is, and is not marked by us.
	if d := send(3, 320+30*SampleRate, time.Minute+30*time.Second) - first; d != 90*SampleRate || buf[1]&0x80 != 0 {
		t.Errorf("timestamp +%d after silence, %x", d, buf[1])
	}
}

func TestStalledPrompt(t *testing.T) {
	for _, c := range []struct {
		stall    time.Duration
		burst    int // frames that go out at once after it
		gap      time.Duration
		complete bool
	}{
		{0, 1, 0, true},
		{100 * time.Millisecond, 6, 0, true},
		{catchUp, 11, 0, true},
		{500 * time.Millisecond, 1, 500 * time.Millisecond, true},
		{standstill, 1, standstill, true},
		{standstill + time.Millisecond, 0, 0, false},
	} {
		t.Run(fmt.Sprint(c.stall), func(t *testing.T) {
			f := speaking(silent)
			buf := make([]byte, maxPacket)
			f.playPrompt(promptOf(50), false, 0)
			at, frames := time.Duration(0), 0
			var first, before uint32
			for ; frames < 10; at += FrameTime {
				if n := f.frame(at, buf); n != rtpHeader+FrameSamples {
					t.Fatalf("frame %d: %d bytes", frames, n)
				}
				before = binary.BigEndian.Uint32(buf[4:])
				if frames == 0 {
					first = before
				}
				if f.frame(at, buf) != 0 {
					t.Fatal("a frame before its time")
				}
				frames++
			}
			at += c.stall
			burst := 0
			for f.frame(at, buf) > 0 {
				ts := binary.BigEndian.Uint32(buf[4:])
				if burst++; burst == 1 {
					if want := before + FrameSamples + uint32(c.gap/sampleTime); ts != want {
						t.Errorf("timestamp +%d after the stall, want +%d", ts-first, want-first)
					}
					if marked := buf[1]&0x80 != 0; marked != (c.gap > 0) {
						t.Errorf("marker %v", marked)
					}
				}
			}
			if burst != c.burst {
				t.Errorf("%d frames at once, want %d", burst, c.burst)
			}
			for frames += burst; f.mode == playing; frames++ {
				at, _ = f.play.due(), true
				f.frame(at, buf)
			}
			e := f.events[0].(Played)
			if e.Complete != c.complete || len(f.events) != 1 {
				t.Errorf("%+v", f.events)
			}
			if c.complete && (f.count.Sent != 50 || e.At != f.epoch.Add(50*FrameTime+c.gap)) {
				t.Errorf("%d frames, end at %v", f.count.Sent, e.At.Sub(f.epoch))
			}
		})
	}
}

func TestReceptionLossAndJitter(t *testing.T) {
	var r reception
	// 1000 packets over a wrap; each tenth is lost, each hundredth comes twice.
	for i := range 1000 {
		if i%10 == 5 {
			continue
		}
		at := time.Duration(i) * FrameTime
		r.note(uint16(65000+i), uint32(i)*160, 1, at, true)
		if i%100 == 7 {
			r.note(uint16(65000+i), uint32(i)*160, 1, at, true)
		}
	}
	if r.lost() != 100 || r.missing() != 90 || r.twice != 10 || r.gaps != 100 || r.high-r.base != 999 || uint16(r.high) != uint16(65000+999-65536) {
		t.Errorf("lost %d, high %d", r.lost(), r.high)
	}
	if f := r.fraction(); f != 90*256/1000 {
		t.Errorf("fraction %d", f)
	}
	if f := r.fraction(); f != 0 {
		t.Errorf("fraction of nothing %d", f)
	}
	if r.jitterTime() != 0 {
		t.Errorf("jitter %v of an even stream", r.jitterTime())
	}
	// Packets that come 4 ms early and late in turn differ by 8 ms each time,
	// which is what the estimate converges to (RFC 3550 §A.8).
	r = reception{}
	for i := range 500 {
		at := time.Duration(i)*FrameTime + time.Duration(4+4*(i%2*2-1))*time.Millisecond
		r.note(uint16(i), uint32(i)*160, 1, at, true)
	}
	if j := r.jitterTime(); j < 7800*time.Microsecond || j > 8*time.Millisecond {
		t.Errorf("jitter %v, want 8 ms", j)
	}
	// A timestamp that jumps is not jitter, an event's is not looked at, and a
	// restart keeps the loss of before.
	before := r.jitter
	r.note(500, 99999999, 1, 500*FrameTime, true)
	r.note(501, 0, 1, 501*FrameTime, false)
	r.note(503, 0, 1, 502*FrameTime, false)
	r.note(40000, 0, 1, 503*FrameTime, false)
	r.note(9, 0, 2, 504*FrameTime, false)
	if r.jitter != before || r.lost() != 1 || r.missing() != 0 {
		t.Errorf("jitter %d then %d, lost %d", before, r.jitter, r.lost())
	}
}

func TestKeypad(t *testing.T) {
	type packet struct {
		code, flags byte
		duration    uint16
		ts, ssrc    uint32
	}
	for name, c := range map[string]struct {
		packets []packet
		want    string
	}{
		"once":                     {[]packet{{1, 10, 160, 100, 1}, {1, 10, 320, 100, 1}, {1, 0x8A, 480, 100, 1}, {1, 0x8A, 480, 100, 1}, {1, 0x8A, 480, 100, 1}}, "1"},
		"only the end came":        {[]packet{{1, 0x8A, 480, 100, 1}, {1, 0x8A, 480, 100, 1}}, "1"},
		"lost end":                 {[]packet{{1, 10, 160, 100, 1}, {2, 10, 160, 2000, 1}}, "12"},
		"lost end, same key":       {[]packet{{1, 10, 160, 100, 1}, {1, 10, 160, 2000, 1}}, "11"},
		"a stray old one":          {[]packet{{1, 0x8A, 480, 100, 1}, {2, 10, 160, 2000, 1}, {1, 0x8A, 480, 100, 1}, {2, 10, 320, 2000, 1}}, "12"},
		"timestamp wraps":          {[]packet{{1, 0x8A, 480, 0xFFFFFF00, 1}, {2, 10, 160, 300, 1}}, "12"},
		"another source":           {[]packet{{1, 0x8A, 480, 5000, 1}, {1, 10, 160, 100, 2}}, "11"},
		"held for over 8 s":        {[]packet{{7, 10, 0xFFFF, 100, 1}, {7, 10, 160, 100 + 0xFFFF, 1}, {7, 0x8A, 480, 100 + 0xFFFF, 1}}, "7"},
		"again 8 s after it ended": {[]packet{{7, 0x8A, 0xFFFF, 100, 1}, {7, 10, 160, 100 + 0xFFFF, 1}}, "77"},
		"all keys":                 {[]packet{{0, 0, 1, 1, 1}, {9, 0, 1, 2, 1}, {10, 0, 1, 3, 1}, {11, 0, 1, 4, 1}, {12, 0, 1, 5, 1}, {15, 0, 1, 6, 1}, {16, 0, 1, 7, 1}, {255, 0, 1, 8, 1}}, "09*#AD"},
	} {
		var k keypad
		got := ""
		for _, p := range c.packets {
			if digit, ok := k.press([]byte{p.code, p.flags, byte(p.duration >> 8), byte(p.duration)}, p.ts, p.ssrc); ok {
				got += string(digit)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPortsAreUsedInTurn(t *testing.T) {
	p, err := newPorts(20001, 20008, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	take := func(at time.Duration, want uint16) {
		t.Helper()
		if got, ok := p.take(at); ok != (want != 0) || got != want {
			t.Errorf("at %v: %d, want %d", at, got, want)
		}
	}
	take(0, 20002)
	p.release(20002, 0)
	take(0, 20004)
	take(0, 20006)
	take(0, 0)
	p.release(20006, 1)
	p.release(20004, 2)
	if n := p.draining(3); n != 3 {
		t.Errorf("%d drain", n)
	}
	take(time.Second-1, 0)
	take(time.Second, 20002)
	take(time.Second+1, 20006)
	p.skip(20006)
	take(time.Second+2, 20006)
	take(time.Second+2, 20004)
	if top, err := newPorts(65534, 65535, 0); err != nil || len(top.free) != 1 {
		t.Errorf("the last pair: %v %v", top.free, err)
	}
}

// TestChangesDoNotRunAhead: each change of origin within a frame begins after that
// frame; prompts wait for the clock, so that a call with many changes is where the
// clock is.
func TestChangesDoNotRunAhead(t *testing.T) {
	out := newTransmission(0)
	first := out.ts
	at := time.Duration(0)
	for range 50 {
		_, ts := out.resume(at) // a relay: its packet comes when it comes
		out.audio(ts, at, FrameSamples)
		at += FrameTime / 2
		_, ts = out.resume(at) // a prompt
		start := at + out.wait()
		out.audio(ts, start, FrameSamples)
		at = start + FrameTime/2
		if ahead := time.Duration(ts-first)*sampleTime - start; ahead != 0 {
			t.Fatalf("a prompt is %v ahead", ahead)
		}
	}
}
