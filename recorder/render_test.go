package recorder

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"centralka/media"

	"github.com/go-audio/wav"
	"github.com/zaf/g711"
)

var (
	low  = beeps{hz: 500, period: second, phase: 300 * millisecond}
	high = beeps{hz: 1200, period: second, phase: 800 * millisecond}
)

func phoneA() *sender {
	return &sender{voice: low.sample, kind: media.KindPCMA, ptime: 20 * millisecond, ssrc: 0xA, seq: 65500, stamp: 0xffff_f000}
}

func phoneB() *sender {
	return &sender{voice: high.sample, kind: media.KindPCMU, ptime: 20 * millisecond, ssrc: 0xB, seq: 100, stamp: 5}
}

// hearsAll listens for every beep of both sides in [from, to).
func (p *played) hearsAll(t *testing.T, side int, from, to int64) {
	t.Helper()
	v := low
	if side == office {
		v = high
	}
	for at := v.phase; at < to-150*millisecond; at += v.period {
		if at >= from && at > 100*millisecond {
			p.hears(t, side, v, at)
		}
	}
}

// Every impairment: both sides are heard where they spoke, the file is as long
// as the conversation and the counts are exact.
func TestBySideAndTime(t *testing.T) {
	const length = 20 * second
	type call struct {
		a, b   []packetAt
		holds  []span
		quiet  []span // of lane a: nothing is expected there
		counts func(t *testing.T, p *played)
	}
	drop := func(in []packetAt, when func(i int) bool) (out []packetAt, n uint64) {
		for i, p := range in {
			if when(i) {
				n++
			} else {
				out = append(out, p)
			}
		}
		return out, n
	}
	tests := map[string]func(rng *rand.Rand) call{
		"clean": func(*rand.Rand) call {
			return call{a: phoneA().talk(0, length), b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Packets != [2]uint64{1000, 1000} || p.counts.Lost != [2]uint64{} {
					t.Errorf("counts %+v", p.counts)
				}
			}}
		},
		"jitter of 80 ms": func(rng *rand.Rand) call {
			return call{a: jitter(phoneA().talk(0, length), 80*millisecond, rng), b: jitter(phoneB().talk(0, length), 30*millisecond, rng)}
		},
		"15 percent lost": func(rng *rand.Rand) call {
			a := phoneA().talk(0, length)
			kept, n := drop(a, func(i int) bool { return i > 0 && i < len(a)-1 && i%50 > 5 && rng.IntN(100) < 15 })
			// Beeps at 300 ms of each second lose packets too: those are packets 15 to 19.
			kept2, n2 := drop(kept, func(i int) bool { return false })
			return call{a: kept2, b: phoneB().talk(0, length), quiet: []span{{0, length}}, counts: func(t *testing.T, p *played) {
				if p.counts.Lost != [2]uint64{n + n2, 0} {
					t.Errorf("lost %v, want %d", p.counts.Lost, n)
				}
			}}
		},
		"duplicates": func(rng *rand.Rand) call {
			var a []packetAt
			for i, p := range phoneA().talk(0, length) {
				a = append(a, p)
				if i%7 == 0 {
					a = append(a, p)
				}
			}
			return call{a: a, b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Duplicate != [2]uint64{143, 0} || p.counts.Packets[citizen] != 1000 || p.counts.Lost[citizen] != 0 {
					t.Errorf("counts %+v", p.counts)
				}
			}}
		},
		"neighbours change places": func(rng *rand.Rand) call {
			a := phoneA().talk(0, length)
			for i := 10; i+1 < len(a); i += 10 {
				a[i].Packet, a[i+1].Packet = a[i+1].Packet, a[i].Packet
			}
			return call{a: a, b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Reordered != [2]uint64{99, 0} || p.counts.Lost[citizen] != 0 || p.counts.Duplicate[citizen] != 0 {
					t.Errorf("counts %+v", p.counts)
				}
			}}
		},
		"lane begins late and ends early": func(rng *rand.Rand) call {
			return call{a: phoneA().talk(7*second, 15*second), b: phoneB().talk(0, length), quiet: []span{{0, 7 * second}, {15 * second, length}}}
		},
		"DTX with honest timestamps under jitter": func(rng *rand.Rand) call {
			s := phoneA()
			var a []packetAt
			for at := int64(0); at < length; at += second {
				a = append(a, s.talk(at+200*millisecond, at+500*millisecond)...)
				a = append(a, packetAt{at + 500*millisecond, media.Packet{Kind: media.KindComfortNoise, Sequence: s.seq, Timestamp: s.stamp, SSRC: s.ssrc}})
				s.seq++
				s.wait(700 * millisecond)
			}
			return call{a: jitter(a, 60*millisecond, rng), b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Lost[citizen] != 0 {
					t.Errorf("silence was counted as loss: %d", p.counts.Lost[citizen])
				}
			}}
		},
		"SSRC changes": func(rng *rand.Rand) call {
			s := phoneA()
			a := s.talk(0, 9*second+10*millisecond)
			s.ssrc, s.seq, s.stamp = 77, 9000, 12345678
			a = append(a, s.talk(9*second+20*millisecond, length)...)
			return call{a: jitter(a, 30*millisecond, rng), b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Lost[citizen] != 0 {
					t.Errorf("lost %d", p.counts.Lost[citizen])
				}
			}}
		},
		"codec and ptime change": func(rng *rand.Rand) call {
			s := phoneA()
			a := s.talk(0, 5*second)
			s.kind, s.ptime = media.KindPCMU, 60*millisecond
			a = append(a, s.talk(5*second, 11*second)...)
			s.kind, s.ptime = media.KindPCMA, 10*millisecond
			a = append(a, s.talk(11*second, length)...)
			return call{a: a, b: phoneB().talk(0, length)}
		},
		"timestamp jumps at random": func(rng *rand.Rand) call {
			s := phoneA()
			var a []packetAt
			for at := int64(0); at < length; at += 4 * second {
				a = append(a, s.talk(at, at+4*second)...)
				s.stamp = rng.Uint32()
			}
			return call{a: a, b: phoneB().talk(0, length)}
		},
		"phone holds and its timestamp stands still": func(rng *rand.Rand) call {
			s := phoneA()
			a := append(s.talk(0, 6*second), s.talk(11*second, length)...)
			return call{a: a, b: phoneB().talk(0, length), holds: []span{{6 * second, 11 * second}}, quiet: []span{{6 * second, 11 * second}}}
		},
		"timestamp stands still without hold": func(rng *rand.Rand) call {
			s := phoneA()
			a := append(s.talk(0, 6*second), s.talk(8*second, length)...)
			return call{a: a, b: phoneB().talk(0, length), quiet: []span{{6 * second, 8 * second}}, counts: func(t *testing.T, p *played) {
				if p.counts.Lost[citizen] != 0 {
					t.Errorf("lost %d", p.counts.Lost[citizen])
				}
			}}
		},
		"network stalls for two seconds": func(rng *rand.Rand) call {
			a := phoneA().talk(0, length)
			for i := range a {
				if a[i].at > 8*second && a[i].at < 10*second {
					a[i].at = 10*second + int64(i)
				}
			}
			return call{a: a, b: phoneB().talk(0, length)}
		},
		"network stalls at the beginning": func(rng *rand.Rand) call {
			a := phoneA().talk(0, length)
			for i := range a {
				a[i].at = max(a[i].at, 600*millisecond+int64(i))
			}
			return call{a: a, b: phoneB().talk(0, length)}
		},
		"telephone events": func(rng *rand.Rand) call {
			s := phoneA()
			var a []packetAt
			for at := int64(0); at < length; at += second {
				a = append(a, s.talk(at, at+600*millisecond)...)
				for i := range int64(8) { // 160 ms, one timestamp, the end told three times
					a = append(a, packetAt{at + 600*millisecond + i*20*millisecond, media.Packet{Kind: media.KindEvent, Marker: i == 0, Sequence: s.seq, Timestamp: s.stamp, SSRC: s.ssrc}})
					s.seq++
				}
				s.wait(160 * millisecond)
				a = append(a, s.talk(at+760*millisecond, at+second)...)
			}
			return call{a: a, b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Lost[citizen] != 0 {
					t.Errorf("lost %d", p.counts.Lost[citizen])
				}
			}}
		},
		"clocks part by 400 ppm": func(rng *rand.Rand) call {
			a, b := phoneA(), phoneB()
			a.ppm, b.ppm = 200, -200
			return call{a: jitter(a.talk(0, length), 20*millisecond, rng), b: jitter(b.talk(0, length), 20*millisecond, rng)}
		},
		"a call is transferred and comes back": func(rng *rand.Rand) call {
			s, other := phoneA(), phoneA()
			other.ssrc, other.kind, other.seq, other.stamp = 5, media.KindPCMU, 3, 3
			a := s.talk(0, 6*second)
			s.wait(6 * second)
			s.seq += 300 // it went on to speak elsewhere
			a = append(a, other.talk(6*second, 12*second)...)
			a = append(a, s.talk(12*second, length)...)
			return call{a: a, b: phoneB().talk(0, length), counts: func(t *testing.T, p *played) {
				if p.counts.Lost[citizen] != 0 {
					t.Errorf("what was not meant for us counts as lost: %d", p.counts.Lost[citizen])
				}
			}}
		},
		"the agent consults while the citizen is on hold": func(rng *rand.Rand) call {
			s := phoneB()
			b, _ := drop(s.talk(0, length), func(i int) bool { return i > 300 && i < 550 })
			return call{a: phoneA().talk(0, length), b: b, holds: []span{{6 * second, 11 * second}}, quiet: []span{{6 * second, 11 * second}}, counts: func(t *testing.T, p *played) {
				if p.counts.Lost[office] != 0 {
					t.Errorf("the consultation counts as lost: %d", p.counts.Lost[office])
				}
			}}
		},
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(1) {
				c := make(rand.New(rand.NewPCG(seed, 7)))
				p := play(t, recordTape([2][]packetAt{c.a, c.b}, c.holds, length))
				if p.duration != 20*time.Second || len(p.lanes[0]) != 20*media.SampleRate {
					t.Fatalf("file lasts %v, %d samples", p.duration, len(p.lanes[0]))
				}
				from := int64(0)
				for _, q := range append(c.quiet, span{length, length}) {
					p.hearsAll(t, citizen, from, q.from)
					from = q.to
					for i := q.from/sampleMicros + 400; i < q.to/sampleMicros && len(c.holds)+len(c.quiet) > 0 && c.counts == nil; i++ {
						if p.lanes[citizen][i] > 50 || p.lanes[citizen][i] < -50 {
							t.Fatalf("sound at sample %d, where nothing was said", i)
						}
					}
				}
				from = 0
				for _, q := range append(c.holds, span{length, length}) {
					p.hearsAll(t, office, from, q.from)
					from = q.to
					for side := range p.lanes {
						for i := q.from / sampleMicros; i < q.to/sampleMicros; i++ {
							if p.lanes[side][i] != 0 {
								t.Fatalf("lane %d has sound on hold at sample %d", side, i)
							}
						}
					}
				}
				if c.counts != nil {
					c.counts(t, &p)
				}
			}
		})
	}
}

// After three hours with clocks 400 ppm apart both sides are within 10 ms of
// where they spoke, and so within 20 ms of each other, all the way. The lanes
// alone are looked at, at each packet that they place; the file of ten minutes
// shows the same below.
func TestLanesStayTogetherForThreeHours(t *testing.T) {
	const length = 3 * 3600 * second
	for name, quiet := range map[string]int64{"speech without a pause": 0, "DTX": 8} {
		for _, ppm := range []int64{200, -200} {
			rng := rand.New(rand.NewPCG(3, 3))
			l := lane{out: newMixer(io.Discard, &outline{end: 0})}
			worst, last := int64(0), int64(-1)
			for _, p := range clicks(30*second, length, ppm, quiet, rng) {
				l.packet(&p.Packet, p.at)
				n := &l.runs[0].line
				if !n.placed || n.stamp == last {
					continue
				}
				last = n.stamp
				said := n.stamp * sampleMicros * 1_000_000 / (1_000_000 + ppm)
				if d := (n.stamp+n.offset)*sampleMicros - said; max(d, -d) > max(worst, -worst) {
					worst = d
				}
			}
			if last < (length-12*second)/sampleMicros {
				t.Fatalf("%s: the last packet placed is %d", name, last)
			}
			if max(worst, -worst) > 10*millisecond {
				t.Errorf("%s, %d ppm: %d µs off", name, ppm, worst)
			}
		}
	}
}

// In the file, too, clocks that differ do not part the lanes.
func TestFileStaysTogetherUnderDrift(t *testing.T) {
	const length, period = 600 * second, 30 * second
	rng := rand.New(rand.NewPCG(3, 3))
	p := play(t, recordTape([2][]packetAt{clicks(period, length, 200, 0, rng), clicks(period, length, -200, 0, rng)}, nil, length))
	for side, ppm := range [2]int64{200, -200} {
		var got []int64
		for i, s := range p.lanes[side] {
			if s > 15000 {
				got = append(got, int64(i)*sampleMicros)
			}
		}
		if len(got) < int(length/period) {
			t.Fatalf("lane %d clicks %d times", side, len(got))
		}
		for i, at := range got {
			said := int64(i) * period * 1_000_000 / (1_000_000 + ppm)
			if d := at - said; max(d, -d) > 10*millisecond {
				t.Errorf("lane %d: click %d is %d µs off", side, i, d)
			}
		}
	}
}

// noise is audio that no two places have in common.
func noise(n int, rng *rand.Rand) []packetAt {
	out := make([]packetAt, n)
	for i := range out {
		p := media.Packet{Kind: media.PacketKind(i / 7 % 2), Sequence: uint16(65000 + i), Timestamp: uint32(i*160) - 8000, SSRC: 9, Payload: make([]byte, 160)}
		for j := range p.Payload {
			p.Payload[j] = byte(rng.Uint32())
		}
		out[i] = packetAt{int64(i) * 20 * millisecond, p}
	}
	return out
}

// A clean lane decodes sample for sample as zaf/g711 does.
func TestDecodesAsG711(t *testing.T) {
	in := noise(600, rand.New(rand.NewPCG(1, 1)))
	p := play(t, recordTape([2][]packetAt{nil, in}, nil, 12*second))
	for i, e := range in {
		want := g711.DecodeAlaw(e.Payload)
		if e.Kind == media.KindPCMU {
			want = g711.DecodeUlaw(e.Payload)
		}
		for j := range e.Payload {
			if got := p.lanes[office][i*160+j]; got != int16(uint16(want[2*j])|uint16(want[2*j+1])<<8) {
				t.Fatalf("packet %d sample %d is %d", i, j, got)
			}
		}
	}
	if slices.ContainsFunc(p.lanes[citizen], func(s int16) bool { return s != 0 }) {
		t.Error("the other lane is not silent")
	}
}

// Whatever the order within 200 ms, the file is the same to the byte: packets
// that change the instants of their arrival, packets of which each has a delay
// of its own, and a journal that tells them in another order.
func TestAnyOrderWithinWindowGivesSameFile(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	in := noise(500, rng)
	in = slices.Delete(in, 200, 203) // lost
	in[250].Kind, in[250].Payload = media.KindEvent, nil
	in[251].Kind, in[251].Payload = media.KindComfortNoise, nil
	want := play(t, recordTape([2][]packetAt{in, in}, nil, 10*second+500*millisecond)).wav
	for round := range 30 {
		out := slices.Clone(in)
		switch round % 3 {
		case 0: // they change places
			for from := 0; from < len(out); from += 10 {
				block := out[from:min(from+10, len(out))]
				rng.Shuffle(len(block), func(i, j int) { block[i].Packet, block[j].Packet = block[j].Packet, block[i].Packet })
			}
		case 1: // each is late for itself
			out = jitter(in, 200*millisecond, rng)
		case 2: // the same arrivals, told in disorder
			for from := 0; from < len(out); from += 10 {
				block := out[from:min(from+10, len(out))]
				rng.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
			}
		}
		if got := play(t, recordTape([2][]packetAt{in, out}, nil, 10*second+500*millisecond)).wav; !bytes.Equal(got, want) {
			t.Fatalf("round %d: the file differs", round)
		}
	}
}

// A packet that comes seconds late still fills the silence that waits for it,
// and only that.
func TestVeryLatePacketFillsItsGap(t *testing.T) {
	in := noise(500, rand.New(rand.NewPCG(5, 5)))
	want := play(t, recordTape([2][]packetAt{in, nil}, nil, 10*second))
	late := in[200]
	late.at += 3 * second
	again := in[210] // a copy
	again.at += 3 * second
	out := slices.Insert(slices.Delete(slices.Clone(in), 200, 201), 350, late, again)
	got := play(t, recordTape([2][]packetAt{out, nil}, nil, 10*second))
	if !bytes.Equal(got.wav, want.wav) {
		t.Error("the file differs")
	}
	if n := got.counts; n.Reordered[0] != 1 || n.Duplicate[0] != 1 || n.Lost[0] != 0 || n.Packets[0] != 500 {
		t.Errorf("counts %+v", n)
	}
}

// go-audio/wav reads the file as we meant it.
func TestFileReadByGoAudio(t *testing.T) {
	in := phoneA().talk(0, 3*second)
	p := play(t, recordTape([2][]packetAt{in, nil}, nil, 3*second+125))
	d := wav.NewDecoder(bytes.NewReader(p.wav))
	buf, err := d.FullPCMBuffer()
	if err != nil {
		t.Fatal(err)
	}
	if d.SampleRate != 8000 || d.NumChans != 2 || d.BitDepth != 16 || d.WavAudioFormat != 1 {
		t.Errorf("format %v", d)
	}
	if len(buf.Data) != 2*24001 {
		t.Fatalf("%d samples", len(buf.Data))
	}
	for i, s := range buf.Data {
		if s != int(p.lanes[i%2][i/2]) {
			t.Fatalf("sample %d is %d, want %d", i/2, s, p.lanes[i%2][i/2])
		}
	}
}

// A drawing needs the loudest of each column, and every column.
func TestPeaks(t *testing.T) {
	for _, length := range []int64{0, 125, 100 * sampleMicros, 1200 * sampleMicros, 1201 * sampleMicros, 7*second + 125} {
		p := play(t, recordTape([2][]packetAt{phoneA().talk(0, length), nil}, nil, length))
		n := int(min(length/sampleMicros, 1200))
		if len(p.peaks[citizen]) != n || len(p.peaks[office]) != n {
			t.Fatalf("%d µs: %d columns, want %d", length, len(p.peaks[citizen]), n)
		}
		total := len(p.lanes[citizen])
		want := make([]byte, n)
		for i, s := range p.lanes[citizen] {
			// Column c begins at the first sample not before c*total/n.
			c := i * n / total
			want[c] = max(want[c], byte(max(s, -s)>>7))
		}
		if !bytes.Equal(p.peaks[citizen], want) {
			t.Errorf("%d µs: peaks differ", length)
		}
	}
}
