package media

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
)

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
		// On a machine that is busy a late frame may be marked as well.
		if p.Marker != marked[i] && !(r.world.real && p.Marker) {
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
	time.Sleep(6*FrameTime + FrameTime/2) // it begins when the frame before is over
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
