package recorder

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"centralka/media"
	"centralka/store"

	"github.com/zaf/g711"
)

const (
	millisecond = int64(1000) // of the journal's microseconds
	second      = 1000 * millisecond
)

// packetAt is a packet and its arrival.
type packetAt struct {
	at int64
	media.Packet
}

// beeps is what a side says: a tone of 100 ms at the beginning of every period.
type beeps struct {
	hz     float64
	period int64 // microseconds
	phase  int64
}

func (v beeps) sample(at int64) int16 {
	in := (at - v.phase) % v.period
	if at < v.phase || in >= 100*millisecond {
		return 0
	}
	return int16(12000 * math.Cos(2*math.Pi*v.hz*float64(in)/1e6))
}

// sender is a phone: it says what voice says in packets of ptime, by a clock
// that is ppm fast.
type sender struct {
	voice func(at int64) int16
	kind  media.PacketKind
	ptime int64 // microseconds
	ppm   int64
	ssrc  uint32
	seq   uint16
	stamp uint32
}

// talk sends what is said in [from, to) of our clock, each packet at the
// instant of its first sample.
func (s *sender) talk(from, to int64) []packetAt {
	var out []packetAt
	samples := s.ptime / sampleMicros
	for n := int64(0); ; n++ {
		at := from + n*s.ptime*1_000_000/(1_000_000+s.ppm)
		if at >= to {
			return out
		}
		p := media.Packet{Kind: s.kind, Sequence: s.seq, Timestamp: s.stamp, SSRC: s.ssrc, Payload: make([]byte, samples)}
		for i := range p.Payload {
			v := s.voice(at + int64(i)*sampleMicros)
			if s.kind == media.KindPCMA {
				p.Payload[i] = g711.EncodeAlawFrame(v)
			} else {
				p.Payload[i] = g711.EncodeUlawFrame(v)
			}
		}
		out = append(out, packetAt{at, p})
		s.seq++
		s.stamp += uint32(samples)
	}
}

// wait lets the timestamp run on while nothing is sent (DTX).
func (s *sender) wait(d int64) { s.stamp += uint32(d / sampleMicros) }

// clicks is silence but for one packet that begins with a click in every
// period, from a clock that is ppm fast, in packets of 60 ms; between is what
// part of each ten seconds is not sent at all (DTX), in seconds.
func clicks(period, length, ppm, quiet int64, rng *rand.Rand) []packetAt {
	const samples = 480
	still, click := bytes.Repeat([]byte{0xd5}, samples), bytes.Repeat([]byte{0xd5}, samples)
	click[0] = g711.EncodeAlawFrame(20000)
	out := make([]packetAt, 0, length/(60*millisecond))
	seq := uint16(0)
	for n := int64(0); ; n++ {
		said := n * 60 * millisecond // by its own clock
		at := said * 1_000_000 / (1_000_000 + ppm)
		if at >= length {
			return out
		}
		first := said/period != (said-60*millisecond)/period || n == 0
		if !first && at%(10*second) >= (10-quiet)*second {
			continue
		}
		p := media.Packet{Kind: media.KindPCMA, Sequence: seq, Timestamp: uint32(n * samples), SSRC: uint32(ppm), Payload: still}
		if first {
			p.Payload = click
		}
		seq++
		out = append(out, packetAt{at + rng.Int64N(15*millisecond), p})
	}
}

// jitter delays each packet by up to d, a quarter of them not at all, and
// brings them in the order of arrival.
func jitter(in []packetAt, d int64, rng *rand.Rand) []packetAt {
	out := slices.Clone(in)
	for i := range out {
		if rng.IntN(4) > 0 {
			out[i].at += rng.Int64N(d + 1)
		}
	}
	slices.SortStableFunc(out, func(a, b packetAt) int { return cmp.Compare(a.at, b.at) })
	return out
}

// tape is a journal in memory.
type tape struct {
	blocks [][]byte
	w      blockWriter
}

var testWall = time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC)

// record writes both lanes and the marks in blocks of 200 ms, as a recorder
// does. It ends at end unless that is negative.
func recordTape(lanes [2][]packetAt, holds []span, end int64) *tape {
	t := &tape{}
	t.w.reset()
	t.w.start(store.ID{1}, testWall)
	t.cut()
	last := end
	for _, l := range lanes {
		for _, p := range l {
			if end < 0 {
				last = max(last, p.at+1)
			}
		}
	}
	for now := 200 * millisecond; ; now += 200 * millisecond {
		if end >= 0 {
			now = min(now, end)
		}
		for side := range lanes {
			for len(lanes[side]) > 0 && lanes[side][0].at < now {
				p := lanes[side][0]
				if t.w.full(p.at) {
					t.cut()
				}
				t.w.packet(side, &p.Packet, p.at)
				lanes[side] = lanes[side][1:]
			}
		}
		for _, h := range holds {
			if h.from >= now-200*millisecond && h.from < now {
				t.w.mark(itemHold, h.from)
			}
			if h.to >= now-200*millisecond && h.to < now {
				t.w.mark(itemResume, h.to)
			}
		}
		t.w.mark(itemTick, now)
		t.cut()
		if now >= last {
			break
		}
	}
	if end >= 0 {
		t.w.mark(itemEnd, end)
		t.cut()
	}
	return t
}

func (t *tape) cut() {
	if !t.w.empty() {
		t.blocks = append(t.blocks, bytes.Clone(t.w.buf))
	}
	t.w.reset()
}

func (t *tape) all() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, b := range t.blocks {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// played is a rendered file, taken apart.
type played struct {
	rendered
	wav   []byte
	lanes [2][]int16
}

func play(t testing.TB, tp *tape) played {
	t.Helper()
	o, err := outlineOf(tp.all())
	if err != nil {
		t.Fatalf("outline: %v", err)
	}
	var buf bytes.Buffer
	r, err := render(&buf, tp.all(), &o)
	if err != nil {
		t.Fatalf("render: %v", err)
	}
	p := played{rendered: r, wav: buf.Bytes()}
	for b := p.wav[wavHeader:]; len(b) > 0; b = b[wavFrame:] {
		p.lanes[citizen] = append(p.lanes[citizen], int16(binary.LittleEndian.Uint16(b)))
		p.lanes[office] = append(p.lanes[office], int16(binary.LittleEndian.Uint16(b[2:])))
	}
	return p
}

// goertzel returns the amplitude of a tone in samples.
func goertzel(samples []int16, hz float64) float64 {
	k := 2 * math.Cos(2*math.Pi*hz/media.SampleRate)
	var a, b float64
	for _, s := range samples {
		a, b = float64(s)+k*a-b, a
	}
	return 2 * math.Sqrt(max(0, a*a+b*b-k*a*b)) / float64(len(samples))
}

// hears asserts that the beep said at the given instant begins within 20 ms of
// it in its lane, and is not in the other lane at its pitch.
func (p *played) hears(t testing.TB, side int, v beeps, at int64) {
	t.Helper()
	lane, pos := p.lanes[side], at/sampleMicros
	const slack = 160
	if pos < 4*slack || pos+1000 > int64(len(lane)) {
		t.Fatalf("beep at %d ms is not inside of the file", at/millisecond)
	}
	for _, s := range lane[pos-4*slack : pos-slack] {
		if s > 2000 || s < -2000 {
			t.Errorf("lane %d: the beep of %v is early", side, time.Duration(at)*time.Microsecond)
			break
		}
	}
	if a := goertzel(lane[pos+slack:pos+slack+480], v.hz); a < 8000 {
		t.Errorf("lane %d: the beep of %v is not heard: amplitude %.0f", side, time.Duration(at)*time.Microsecond, a)
	}
	for _, s := range lane[pos+800+slack : min(pos+800+4*slack, int64(len(lane)))] {
		if s > 2000 || s < -2000 {
			t.Errorf("lane %d: the beep of %v is late", side, time.Duration(at)*time.Microsecond)
			break
		}
	}
	if a := goertzel(p.lanes[1-side][pos+slack:pos+slack+480], v.hz); a > 800 {
		t.Errorf("lane %d hears the tone of the other side: amplitude %.0f", 1-side, a)
	}
}
