package media

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// step is the largest step from one sample to the next.
func step(samples []int16) (most int) {
	for i := 1; i < len(samples); i++ {
		most = max(most, max(int(samples[i])-int(samples[i-1]), int(samples[i-1])-int(samples[i])))
	}
	return most
}

// TestMusicFades: what loops begins and ends without a step, in either law; a
// message between is sent to the sample as it is, and Played counts its own end.
func TestMusicFades(t *testing.T) {
	for _, law := range []Codec{PCMA, PCMU} {
		t.Run(fmt.Sprint(law), func(t *testing.T) {
			loud := make([]int16, 10*FrameSamples)
			for i := range loud {
				loud[i] = 8000
			}
			music := NewPrompt(loud)
			message := NewPrompt(make([]int16, 3*FrameSamples))
			f := speaking(silent)
			f.params.Codec = law
			buf, at := make([]byte, maxPacket), time.Duration(0)
			var heard []int16
			next := func() []byte {
				t.Helper()
				if n := f.frame(at, buf); n != rtpHeader+FrameSamples {
					t.Fatalf("%d bytes at %v", n, at)
				}
				at += FrameTime
				for _, b := range buf[rtpHeader : rtpHeader+FrameSamples] {
					if law == PCMA {
						heard = append(heard, DecodePCMA(b))
					} else {
						heard = append(heard, DecodePCMU(b))
					}
				}
				return buf[rtpHeader : rtpHeader+FrameSamples]
			}
			f.playPrompt(music, true, at)
			for range 13 {
				next()
			}
			f.playPrompt(message, false, at)
			next() // the music's last
			for range 3 {
				for _, b := range next() {
					if b != encodedZero(law) {
						t.Fatalf("the message has %#x", b)
					}
				}
			}
			f.frame(at, buf)
			if e := f.events[len(f.events)-1].(Played); !e.Complete || e.At.Sub(f.epoch) != 17*FrameTime {
				t.Errorf("%+v", e)
			}
			f.playPrompt(music, true, at)
			next()
			if most := step(append([]int16{0}, heard...)); most > 400 {
				t.Errorf("a step of %d", most)
			}
			// After a pause it rises again, and what a pause cut does not come back.
			p := f.params
			p.Direction = RecvOnly
			f.configure(p, at)
			p.Direction = SendRecv
			f.configure(p, at)
			heard = heard[:0]
			next()
			next()
			if most := step(append([]int16{0}, heard...)); most > 400 || heard[len(heard)-1] < 7500 {
				t.Errorf("after a pause a step of %d, then %d", most, heard[len(heard)-1])
			}
		})
	}
}

func TestJoinPrompts(t *testing.T) {
	a := []int16{8, 2000, -30000}
	alaw := []byte{EncodePCMA(-8), EncodePCMA(100)}
	got := JoinPrompts(NewPrompt(a), nil, NewPromptPCMA(alaw), Silent(2*sampleTime))
	want := NewPrompt(append(append(a, DecodePCMA(alaw[0]), DecodePCMA(alaw[1])), 0, 0))
	if !bytes.Equal(got.alaw, want.alaw) || !bytes.Equal(got.ulaw, want.ulaw) {
		t.Errorf("% x and % x, want % x and % x", got.alaw, got.ulaw, want.alaw, want.ulaw)
	}
	alaw[0] = 0
	if got.alaw[3] == 0 {
		t.Error("the prompt kept a reference")
	}
	if JoinPrompts().Duration() != 0 {
		t.Error("nothing joined lasts")
	}
}
