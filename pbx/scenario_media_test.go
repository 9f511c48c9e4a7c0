package pbx_test

import (
	"bytes"
	"math"
	"net/netip"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// conversation places a call in which the parties speak with these voices, lets
// them talk for d and returns the record and the lanes.
func (r *rig) conversation(caller, agent pbxtest.Voice, d time.Duration, during func(caller, agent *pbxtest.Call)) (store.CallRecord, []int16, []int16) {
	r.t.Helper()
	if caller.Say == nil {
		caller.Say = pbxtest.Tone(callerHz)
	}
	if agent.Say == nil {
		agent.Say = pbxtest.Tone(phoneHz)
	}
	b := pbxtest.AnswerAfter(time.Second)
	b.Voice = &agent
	r.behave("101", b)
	call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Voice: &caller})
	r.must(err)
	phone := r.answeredBy("101")
	if during != nil {
		during(call, phone)
	}
	time.Sleep(d)
	call.Hangup()
	rec := r.only()
	if rec.Recording.Outcome != store.OutcomeOK {
		r.t.Errorf("recording %+v", rec.Recording)
	}
	left, right := r.lanes(rec)
	sameLength(r.t, rec, left)
	return rec, left, right
}

// TestTranscoding: A-law on one leg and µ-law on the other; both hear, and both
// lanes are right.
func TestTranscoding(t *testing.T) {
	t.Parallel()
	for _, laws := range [][2]pbxtest.Codec{{pbxtest.PCMA, pbxtest.PCMU}, {pbxtest.PCMU, pbxtest.PCMA}, {pbxtest.PCMU, pbxtest.PCMU}} {
		t.Run(laws[0].String()+" to "+laws[1].String(), func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				var caller, agent *pbxtest.Call
				_, left, right := r.conversation(pbxtest.Voice{Codecs: laws[:1]}, pbxtest.Voice{Codecs: laws[1:]}, 5*time.Second, func(a, b *pbxtest.Call) { caller, agent = a, b })
				if got := caller.Heard().Laws; len(got) != 1 || got[0] != laws[0] {
					t.Errorf("the caller was sent %v", got)
				}
				if got := agent.Heard().Laws; len(got) != 1 || got[0] != laws[1] {
					t.Errorf("the agent was sent %v", got)
				}
				hears(t, "caller", caller.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz, callerHz)
				hears(t, "agent", agent.Heard().PCM, callerHz, phoneHz)
				hears(t, "left lane", left, callerHz, phoneHz)
				hears(t, "right lane", right, phoneHz, callerHz)
			})
		})
	}
}

// TestBadNetwork: loss, reordering, jitter and duplicates on both legs do not
// shorten the file.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		im := pbxtest.Impairment{Loss: 0.05, Duplicate: 0.03, Reorder: 0.03, Delay: 20 * time.Millisecond, Jitter: 15 * time.Millisecond, Match: pbxtest.IsRTP}
		rec, left, right := r.conversation(pbxtest.Voice{}, pbxtest.Voice{}, 30*time.Second, func(a, b *pbxtest.Call) {
			for _, peer := range []netip.AddrPort{carrierAddr, phoneAddr(0)} {
				r.net.Impair(pbxtest.Host(peer.Addr()), pbxtest.Any, im)
			}
		})
		for lane, hz := range map[*[]int16]float64{&left: callerHz, &right: phoneHz} {
			bad := 0
			for from := time.Second; from < 29*time.Second; from += 500 * time.Millisecond {
				if !pbxtest.ToneAt(*lane, hz, from, from+500*time.Millisecond) || pbxtest.ToneAt(*lane, callerHz+phoneHz-hz, from, from+500*time.Millisecond) {
					bad++
				}
			}
			if bad > 0 {
				t.Errorf("%.0f Hz is not heard in %d half seconds", hz, bad)
			}
		}
		for lane := range 2 {
			n := rec.Recording.Counts
			if n.Lost[lane] < 30 || n.Duplicate[lane] < 10 || n.Reordered[lane] < 10 || n.Dropped[lane] != 0 {
				t.Errorf("lane %d: %+v", lane, n)
			}
		}
	})
}

// TestSilenceSuppression: what is not sent is silence of the right length.
func TestSilenceSuppression(t *testing.T) {
	t.Parallel()
	for _, comfort := range []bool{false, true} {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			talk := pbxtest.Bursts(pbxtest.Tone(callerHz), time.Second, 2*time.Second)
			_, left, right := r.conversation(pbxtest.Voice{Say: talk, DTX: true, ComfortNoise: comfort}, pbxtest.Voice{}, 15*time.Second, nil)
			spans := pbxtest.Spans(left, callerHz)
			if len(spans) < 5 {
				t.Fatalf("comfort noise %v: spans %v", comfort, spans)
			}
			for i := 1; i < len(spans)-1; i++ {
				if on, off := spans[i].To-spans[i].From, spans[i].From-spans[i-1].To; (on-time.Second).Abs() > 40*time.Millisecond || (off-2*time.Second).Abs() > 40*time.Millisecond {
					t.Errorf("comfort noise %v: %v of voice after %v of silence", comfort, on, off)
				}
			}
			hears(t, "right lane", right, phoneHz, callerHz)
		})
	}
}

// TestSourceChanges: another SSRC in the middle, on both legs.
func TestSourceChanges(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		_, left, right := r.conversation(pbxtest.Voice{}, pbxtest.Voice{}, 5*time.Second, func(a, b *pbxtest.Call) {
			time.Sleep(3 * time.Second)
			a.ChangeSSRC()
			time.Sleep(3 * time.Second)
			b.ChangeSSRC()
		})
		for lane, hz := range map[*[]int16]float64{&left: callerHz, &right: phoneHz} {
			if spans := pbxtest.Spans(*lane, hz); len(spans) != 1 || spans[0].To-spans[0].From < 10500*time.Millisecond {
				t.Errorf("%.0f Hz in %v", hz, spans)
			}
		}
	})
}

// TestClocksDrift: ten minutes with one clock fast and the other slow by
// 200 ppm, which makes 120 ms each.
func TestClocksDrift(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		const d = 10 * time.Minute
		// Bells; one side sends its silence in between, the other does not.
		bell := func(hz int) pbxtest.Source { return pbxtest.Bursts(pbxtest.Tone(hz), time.Second, 19*time.Second) }
		_, left, right := r.conversation(pbxtest.Voice{Say: bell(callerHz), SkewPPM: 200, Deaf: true, DTX: true}, pbxtest.Voice{Say: bell(phoneHz), SkewPPM: -200, Deaf: true}, d, nil)
		for lane, hz := range map[*[]int16]float64{&left: callerHz, &right: phoneHz} {
			// The first bell, and the last one that is over before the call.
			const edge = 45 * time.Second
			end := pbxtest.Spans((*lane)[len(*lane)-at(edge):], hz)
			first, last := pbxtest.Spans((*lane)[:at(edge)], hz)[0].From, d-edge+end[0].From
			skew := 1 - 200e-6
			if hz == phoneHz {
				skew = 1 + 200e-6
			}
			want := time.Duration(float64(20*time.Second) * skew * math.Round(float64(last-first)/float64(20*time.Second)))
			if got := last - first; got < 8*time.Minute || (got-want).Abs() > 10*time.Millisecond {
				t.Errorf("%.0f Hz: a late bell is %v after the first, rang after %v", hz, got, want)
			}
		}
	})
}

// TestMediaTimeout: a party that has gone silent is hung up, with its cause; what
// was said before is kept. The citizen of an agent who is silent is given back to
// the queue, where it gives up here.
func TestMediaTimeout(t *testing.T) {
	t.Parallel()
	for _, silent := range []string{"caller", "agent"} {
		t.Run(silent, func(t *testing.T) {
			cfg := briefCity(t, "101")
			cfg.RTP.Timeout = 10 * time.Second
			scenario(t, cfg, func(t *testing.T, r *rig) {
				caller, agent := r.talk()
				time.Sleep(3 * time.Second)
				if silent == "caller" {
					caller.Say(nil)
				} else {
					agent.Say(nil)
				}
				began := time.Now()
				r.must(agent.WaitEnded(2 * time.Minute))
				if d := time.Since(began); d < 9900*time.Millisecond || d > 11*time.Second {
					t.Errorf("ended after %v", d)
				}
				want := store.CauseMediaTimeout
				if silent == "agent" {
					want = store.CauseAbandoned
					caller.Hangup()
				}
				r.must(caller.WaitEnded(time.Second))
				rec := r.only()
				ended(t, rec, want, store.OutcomeOK)
				left, _ := r.lanes(rec)
				sameLength(t, rec, left)
			})
		})
	}
}

// TestNoMediaTimeoutWhileHeld: whoever holds may be silent, in every form of
// hold, and so may who is held; afterwards the watch goes on.
func TestNoMediaTimeoutWhileHeld(t *testing.T) {
	t.Parallel()
	for _, form := range holdForms {
		t.Run(form.name, func(t *testing.T) {
			cfg := briefCity(t, "101")
			cfg.RTP.Timeout = 10 * time.Second
			scenario(t, cfg, func(t *testing.T, r *rig) {
				caller, agent := r.talk()
				time.Sleep(time.Second)
				agent.Say(nil)
				caller.Say(nil)
				r.must(agent.HoldAs(t.Context(), form.dir, form.zero))
				time.Sleep(25 * time.Second)
				if agent.State() != pbxtest.Answered || caller.State() != pbxtest.Answered {
					t.Fatalf("ended while held: %+v", agent.End())
				}
				r.must(agent.Resume(t.Context()))
				resumed := time.Now()
				r.must(agent.WaitEnded(2 * time.Minute))
				if d := time.Since(resumed); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("ended %v after the hold", d)
				}
				ended(t, r.only(), store.CauseMediaTimeout, store.OutcomeOK)
			})
		})
	}
}

// TestInjection: voice from an address that is nobody's is neither heard nor
// recorded (sip-profile: one rule for sources).
func TestInjection(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		foreign, err := r.net.ListenPacket(foreignAddr)
		r.must(err)
		defer func() { r.must(foreign.Close()) }()
		caller, agent := r.talk()
		time.Sleep(time.Second)
		since := time.Now()
		target := caller.RemoteSDP().Audio
		packet := append([]byte{0x80, 8, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, bytes.Repeat([]byte{0x2a, 0xaa}, 80)...) // loud
		for i := range 100 {
			packet[2], packet[3] = byte(i>>8), byte(i)
			packet[5], packet[6], packet[7] = byte(160*i>>16), byte(160*i>>8), byte(160*i)
			_, err := foreign.WriteToUDPAddrPort(packet, target)
			r.must(err)
			time.Sleep(20 * time.Millisecond)
		}
		hears(t, "agent", agent.Heard().Since(since), callerHz)
		if spans := pbxtest.Spans(agent.Heard().Since(since), callerHz); len(spans) != 1 {
			t.Errorf("the agent hears the caller in %v", spans)
		}
		if n := r.sw.Status().Engine.Foreign; n < 100 {
			t.Errorf("%d foreign packets counted", n)
		}
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		left, _ := r.lanes(rec)
		hears(t, "left lane", left, callerHz, phoneHz, 4000)
	})
}

// TestCallerBehindNAT: voice comes from another port, and another address, than
// the SDP says, and goes back the same way.
func TestCallerBehindNAT(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		// The peer says an address that nothing comes from; its packets come from
		// where its SIP does.
		call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Edit: func(m *pbxtest.Message) {
			m.Body = bytes.ReplaceAll(m.Body, []byte("c=IN IP4 198.51.100.1"), []byte("c=IN IP4 10.0.0.7"))
		}})
		r.must(err)
		agent := r.answeredBy("101")
		time.Sleep(3 * time.Second)
		hears(t, "caller", call.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz)
		hears(t, "agent", agent.Heard().PCM, callerHz)
		call.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestRingingPhoneOwesNoVoice: a phone that describes its voice while it rings, and
// says nothing, rings on: the caller is not lost for it.
func TestRingingPhoneOwesNoVoice(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.RTP.Timeout = 3 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.Behaviour{Early: true, Status: 200, After: 6 * time.Second, Voice: &pbxtest.Voice{}})
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111", Say: pbxtest.Tone(1300)})
		r.must(err)
		r.answeredBy("101")
		time.Sleep(time.Second)
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}
