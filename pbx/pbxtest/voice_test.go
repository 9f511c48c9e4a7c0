package pbxtest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// talk has the carrier speak as v says and returns what the phone heard.
func (tn *town) talk(v Voice, d time.Duration, during func(out *Call)) Heard {
	tn.Helper()
	tn.phone.SetBehaviour(Always(AnswerAfter(0)))
	out, in := tn.call(CallOptions{Voice: &v})
	tn.must(out.WaitAnswered(time.Second))
	time.Sleep(d / 2)
	if during != nil {
		during(out)
	}
	time.Sleep(d / 2)
	out.Hangup()
	tn.must(in.WaitEnded(time.Second))
	return in.Heard()
}

func TestSpeechIsHeardInFull(t *testing.T) {
	line, err := VoiceOf("caller-id")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []Voice{
		{Say: Once(line)},
		{Say: Once(line), Codecs: []Codec{PCMU}, Ptime: 30 * time.Millisecond},
		{Say: Once(line), Reorder: 0.1, Duplicate: 0.1},
	} {
		inTown(t, func(tn *town) {
			h := tn.talk(v, 6*time.Second, nil)
			m := Find(h.PCM, line)
			if !m.Whole() || m.Similarity < 0.99 || m.From != 0 {
				tn.Errorf("heard %+v", m)
			}
			if v.Reorder > 0 && (h.Late == 0 || h.Duplicates == 0) {
				tn.Errorf("late %d, doubled %d", h.Late, h.Duplicates)
			}
			if h.Lost != 0 {
				tn.Errorf("lost %d", h.Lost)
			}
		})
	}
}

func TestLossMakesGapsAndDoesNotShorten(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.net.Impair(Any, Any, Impairment{Loss: 0.1, Reorder: 0.05, Duplicate: 0.05, Delay: 30 * time.Millisecond, Jitter: 15 * time.Millisecond, Match: IsRTP})
		h := tn.talk(Voice{Say: Tone(425)}, 20*time.Second, nil)
		if h.Lost < 50 || h.Lost > 150 || h.Late == 0 || h.Duplicates == 0 {
			tn.Errorf("lost %d, late %d, doubled %d of %d", h.Lost, h.Late, h.Duplicates, h.Packets)
		}
		if d := timeOf(len(h.PCM)); d < 19900*time.Millisecond || d > 20*time.Second {
			tn.Errorf("heard %v of 20 s", d)
		}
		if !HasTone(h.PCM, 425) {
			tn.Error("the tone did not come through")
		}
	})
}

func TestDTXSkipsSilenceOnTheTimeline(t *testing.T) {
	inTown(t, func(tn *town) {
		h := tn.talk(Voice{Say: Bursts(Tone(425), time.Second, time.Second), DTX: true, ComfortNoise: true}, 10*time.Second, nil)
		s := Spans(h.PCM, 425)
		if len(s) != 5 || h.Comfort != 5 || h.Packets > 260 {
			tn.Fatalf("%d packets, %d of comfort noise: %v", h.Packets, h.Comfort, s)
		}
		for i, span := range s {
			if off := span.From - time.Duration(2*i)*time.Second; off.Abs() > 5*time.Millisecond {
				tn.Errorf("burst %d begins at %v", i, span.From)
			}
		}
	})
}

func TestLimitSilencesALongCall(t *testing.T) {
	inTown(t, func(tn *town) {
		h := tn.talk(Voice{Say: Tone(425), Limit: 3 * time.Second}, time.Minute, func(out *Call) { out.SayFor(Tone(800), 2*time.Second) })
		if h.Packets != 250 {
			tn.Errorf("heard %d packets", h.Packets)
		}
		if s := Spans(h.PCM, 800); len(s) != 1 || (s[0].From-30*time.Second).Abs() > 25*time.Millisecond {
			tn.Errorf("the second time was heard at %v", s)
		}
	})
}

func TestAClockThatIsOffDrifts(t *testing.T) {
	inTown(t, func(tn *town) {
		h := tn.talk(Voice{Say: Tone(425), SkewPPM: 1000}, 2*time.Minute, nil)
		// 1000 ppm of 120 s is 120 ms: six frames more than a true clock sends
		if h.Packets < 6005 || h.Packets > 6008 {
			tn.Errorf("heard %d packets", h.Packets)
		}
	})
}

func TestStreamStartWraps(t *testing.T) {
	inTown(t, func(tn *town) {
		h := tn.talk(Voice{Say: Tone(425), Start: &StreamStart{SSRC: 7, Sequence: 65530, Timestamp: 1<<32 - 1000}}, 4*time.Second, nil)
		if s := Spans(h.PCM, 425); h.Lost != 0 || !slices.Equal(h.SSRCs, []uint32{7}) || len(s) != 1 || s[0].To < 3980*time.Millisecond {
			tn.Errorf("lost %d, sources %v, heard at %v", h.Lost, h.SSRCs, s)
		}
	})
}

func TestTheEarComplains(t *testing.T) {
	for _, c := range []struct {
		what  string
		wants string
		do    func(out *Call)
	}{
		{"SSRC", "SSRC changed", (*Call).ChangeSSRC},
		{"sequence back", "sequence jumped by -499", func(c *Call) { c.voice.seq -= 500 }},
		{"timestamp ahead", "timestamp moved by 1.02s in 20ms", func(c *Call) { c.voice.stamp += 8000 }},
		{"timestamp back", "timestamp moved by -980ms in 20ms", func(c *Call) { c.voice.stamp -= 8000 }},
		{"clock of 10 % more", "RTP timestamp moved by", func(c *Call) {
			c.voice.source = func(int, []int16) bool { c.voice.stamp += 16; return true }
		}},
		{"stranger", "the SDP says", func(c *Call) {
			c.voice.rtcp.WriteToUDPAddrPort(append(c.voice.header(nil, 8, false, c.voice.stamp), make([]byte, 160)...), c.voice.media.remote)
		}},
		{"payload type", "payload type 18", func(c *Call) {
			c.voice.sock.WriteToUDPAddrPort(append(c.voice.header(nil, 18, false, c.voice.stamp+uint32(160*c.voice.frame)), 1), c.voice.media.remote)
		}},
		{"short", "not RTP", func(c *Call) { c.voice.sock.WriteToUDPAddrPort([]byte{0x80}, c.voice.media.remote) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			inTown(t, func(tn *town) {
				tn.lenient = true
				h := tn.talk(Voice{Say: Tone(425)}, 4*time.Second, func(out *Call) {
					out.voice.mu.Lock()
					defer out.voice.mu.Unlock()
					if c.what == "SSRC" {
						out.voice.mu.Unlock()
						defer out.voice.mu.Lock()
					}
					c.do(out)
				})
				v := tn.phone.Violations()
				if len(v) == 0 || !strings.Contains(v[0], c.wants) {
					tn.Errorf("violations %q", v)
				}
				if d := timeOf(len(h.PCM)); d < 3900*time.Millisecond || d > 5100*time.Millisecond {
					tn.Errorf("heard %v of 4 s", d)
				}
			})
		})
	}
}

func TestTheEarComplainsOfAVoiceThatHoldForbids(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.lenient = true
		tn.talk(Voice{Say: Tone(425)}, 6*time.Second, func(out *Call) {
			m := out.voice.media
			out.peer.mu.Lock()
			defer out.peer.mu.Unlock()
			for _, in := range tn.phone.calls {
				in.voice.configure(media{remote: in.voice.media.remote, event: m.event})
			}
		})
		if v := tn.phone.Violations(); len(v) != 1 || !strings.Contains(v[0], "does not let them send") {
			tn.Errorf("violations %q", v)
		}
	})
}
