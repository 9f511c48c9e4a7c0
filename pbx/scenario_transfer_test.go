package pbx_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

func told(t *testing.T, c *pbxtest.Call, want ...string) {
	t.Helper()
	if got := c.News(); !slices.Equal(got, want) {
		t.Errorf("the phone was told %q, want %q", got, want)
	}
}

// refer passes the other side of c on to a number and asserts the answer.
func (r *rig) refer(c *pbxtest.Call, number string, want int) {
	r.t.Helper()
	res, err := c.Refer(r.t.Context(), "sip:"+number+"@centralka.test")
	r.must(err)
	if res.Status != want {
		r.t.Fatalf("REFER to %s answered %s, want %d", number, res, want)
	}
}

// segments asserts who talked, in order, and that the stretches do not overlap.
func segments(t *testing.T, rec store.CallRecord, want ...string) {
	t.Helper()
	var got []string
	for i, s := range rec.Segments {
		who := s.Extension
		if who == "" {
			who = string(s.Number)
		}
		got = append(got, who)
		if s.To.Before(s.From) || i > 0 && s.From.Before(rec.Segments[i-1].To) {
			t.Errorf("segments overlap or are open: %+v", rec.Segments)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("segments with %q, want %q", got, want)
	}
}

// TestBlindTransfer: the citizen hears music while the target rings, then the
// target; the phone is told each step and released; one record, one WAV, two
// segments, no second announcement (S1.3-g, S1.4-g, RFC 5589 §6.1).
func TestBlindTransfer(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(5 * time.Second)
		r.refer(agent, "102", 202)
		referred := time.Now()
		target := r.answeredBy("102")
		answered := time.Now()
		r.must(agent.WaitEnded(2 * time.Second))
		time.Sleep(5 * time.Second)
		caller.Hangup()
		r.must(target.WaitEnded(2 * time.Second))

		told(t, agent, "100 active", "180 active", "200 terminated")
		if end := agent.End(); end.Method != "BYE" || end.ByUs {
			t.Errorf("the phone that passed the call on ended by %+v", end)
		}
		if by := target.Invite().Get("Referred-By"); by != "<sip:101@centralka.test>" {
			t.Errorf("Referred-By %q", by)
		}
		if from := target.Invite().Get("From"); !strings.Contains(from, "+48600100200") {
			t.Errorf("the target sees %q", from)
		}
		if !musicHeard(caller.Heard().Between(referred.Add(200*time.Millisecond), answered.Add(-200*time.Millisecond))) {
			t.Error("the citizen hears no music while the target rings")
		}
		hears(t, "caller", caller.Heard().Since(answered.Add(200*time.Millisecond)), phoneHz+30, phoneHz, callerHz)
		hears(t, "target", target.Heard().PCM, callerHz, phoneHz)
		if pbxtest.Find(caller.Heard().Since(agent.At(pbxtest.Answered)), briefWords()).Whole() {
			t.Error("the announcement was played again")
		}
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101", "102")
		if len(rec.Holds) != 1 || rec.Holds[0].By != "office" || rec.Holds[0].From.Sub(referred).Abs() > 50*time.Millisecond || rec.Holds[0].To.Sub(answered).Abs() > 50*time.Millisecond {
			t.Errorf("holds %+v", rec.Holds)
		}
		citizen, office := r.lanes(rec)
		sameLength(t, rec, citizen)
		cut, on := referred.Sub(rec.Answered), answered.Sub(rec.Answered)
		hears(t, "office lane before", office[:at(cut-60*time.Millisecond)], phoneHz, phoneHz+30)
		hears(t, "office lane after", office[at(on+100*time.Millisecond):], phoneHz+30, phoneHz)
		for _, lane := range [][]int16{citizen, office} {
			if level := pbxtest.Level(lane[at(cut+60*time.Millisecond):at(on-60*time.Millisecond)]); level > -80 {
				t.Errorf("a lane has %.0f dBFS while the target rings", level)
			}
		}
	})
}

// TestBlindTransferAfterHold: most phones hold first; the hold is one label.
func TestBlindTransferAfterHold(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.must(agent.Hold(t.Context()))
		time.Sleep(2 * time.Second)
		r.refer(agent, "102", 202)
		target := r.answeredBy("102")
		time.Sleep(2 * time.Second)
		target.Hangup()
		r.must(caller.WaitEnded(2 * time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		segments(t, rec, "101", "102")
		if len(rec.Holds) != 1 || rec.Holds[0].To.IsZero() || !rec.Holds[0].To.Before(rec.Ended) {
			t.Errorf("holds %+v", rec.Holds)
		}
		hears(t, "target", target.Heard().PCM, callerHz)
	})
}

// TestTransferTwice: the target passes the call on in its turn, back to the first.
func TestTransferTwice(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.refer(agent, "102", 202)
		target := r.answeredBy("102")
		time.Sleep(2 * time.Second)
		r.refer(target, "101", 202)
		again := r.answeredBy("101")
		time.Sleep(2 * time.Second)
		hears(t, "first agent", again.Heard().PCM, callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101", "102", "101")
	})
}

// TestTransferMissed: a target that does not answer, is busy, declines, is not
// registered or does not exist costs the citizen nothing: the phone has the call
// again (siphon-sip#220, OpenSIPS#196).
func TestTransferMissed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		target string
		after  time.Duration
		behave pbxtest.Behaviour
		told   []string
	}{
		{"busy", "102", time.Second, pbxtest.Reject(486), []string{"100 active", "486 terminated"}},
		{"declined", "102", time.Second, pbxtest.Reject(603), []string{"100 active", "603 terminated"}},
		{"no answer", "102", 46 * time.Second, pbxtest.RingForEver(), []string{"100 active", "180 active", "480 terminated"}},
		{"unknown", "777", time.Second, pbxtest.Reject(486), []string{"100 active", "404 terminated"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
				r.behave("102", row.behave)
				caller, agent := r.talk()
				time.Sleep(2 * time.Second)
				r.refer(agent, row.target, 202)
				time.Sleep(row.after)
				told(t, agent, row.told...)
				back := time.Now()
				time.Sleep(3 * time.Second)
				hears(t, "caller", caller.Heard().Since(back), phoneHz)
				hears(t, "agent", agent.Heard().Since(back), callerHz)
				agent.Hangup()
				r.must(caller.WaitEnded(2 * time.Second))
				rec := r.only()
				ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
				segments(t, rec, "101", "101")
				citizen, office := r.lanes(rec)
				sameLength(t, rec, citizen)
				hears(t, "office lane at the end", office[len(office)-at(2*time.Second):], phoneHz)
			})
		})
	}
}

// TestReferrerLeavesEarly: the phone hangs up before the target answers; the
// call goes on.
func TestReferrerLeavesEarly(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.refer(agent, "102", 202)
		time.Sleep(time.Second)
		agent.Hangup()
		target := r.answeredBy("102")
		time.Sleep(2 * time.Second)
		hears(t, "target", target.Heard().PCM, callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101", "102")
	})
}

// TestPassedOnInVain: the phone has left and the target is busy: the citizen
// returns to the front of the queue, and the next agent has the call.
func TestPassedOnInVain(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		busy := pbxtest.Reject(486)
		busy.After = 2 * time.Second
		r.behave("102", busy)
		r.refer(agent, "102", 202)
		time.Sleep(time.Second)
		agent.Hangup()
		again := r.answeredBy("101")
		time.Sleep(2 * time.Second)
		hears(t, "agent", again.Heard().PCM, callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101", "101")
		if pbxtest.Find(caller.Heard().Since(agent.At(pbxtest.Answered)), briefWords()).Whole() {
			t.Error("the announcement was played again")
		}
		citizen, _ := r.lanes(rec)
		sameLength(t, rec, citizen)
	})
}

// TestPassedOnInVainWithoutQueue: a call to an extension of its own comes back
// to that extension; if nobody is there either, a message ends it.
func TestPassedOnInVainWithoutQueue(t *testing.T) {
	t.Parallel()
	for _, answers := range []bool{true, false} {
		scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
			caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
			r.must(err)
			agent := r.answeredBy("101")
			time.Sleep(2 * time.Second)
			busy := pbxtest.Reject(486)
			busy.After = 2 * time.Second
			r.behave("102", busy)
			if !answers {
				r.behave("101", pbxtest.Reject(486))
			}
			r.refer(agent, "102", 202)
			time.Sleep(time.Second)
			agent.Hangup()
			if answers {
				r.answeredBy("101")
				time.Sleep(2 * time.Second)
				caller.Hangup()
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				segments(t, rec, "101", "101")
				return
			}
			r.must(caller.WaitEnded(time.Minute))
			rec := r.only()
			ended(t, rec, store.CauseBusy, store.OutcomeOK)
			if !pbxtest.Find(caller.Heard().PCM, prompt(t, "busy")).Whole() {
				t.Error("the citizen does not hear the closing message")
			}
		})
	}
}

// TestCitizenLeavesDuringTransfer: everything that rings stops.
func TestCitizenLeavesDuringTransfer(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.refer(agent, "102", 202)
		time.Sleep(2 * time.Second)
		caller.Hangup()
		r.must(agent.WaitEnded(2 * time.Second))
		time.Sleep(100 * time.Millisecond) // for 102's answer
		r.says("carrier > switch BYE", "switch > 102 CANCEL", "102 > switch 487")
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101")
		citizen, _ := r.lanes(rec)
		sameLength(t, rec, citizen)
	})
}

// TestTransferOutside: a number outside within the dial rules, by the trunk; a
// blocked one, or one too many, is refused; an emergency number never.
func TestTransferOutside(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Dial.MaxOutgoingPerExtension = 1
	scenario(t, cfg, func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Status: 200, After: 2 * time.Second, Say: pbxtest.Tone(1000)}))
		time.Sleep(2 * time.Second)
		r.refer(agent, "0700123456", 403)
		r.refer(agent, "00441632960961", 403)
		r.refer(agent, "0501502503", 202)
		third, err := r.carrier.WaitCall(10 * time.Second)
		r.must(err)
		r.must(third.WaitAnswered(10 * time.Second))
		answered := time.Now()
		r.must(agent.WaitEnded(2 * time.Second))
		time.Sleep(2 * time.Second)
		told(t, agent, "100 active", "180 active", "200 terminated")
		hears(t, "caller", caller.Heard().Since(answered.Add(200*time.Millisecond)), 1000)
		hears(t, "third", third.Heard().PCM, callerHz)

		// The call that 101 has passed on is 101's: a second one is one too many.
		second, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
		r.must(err)
		next := r.answeredBy("101")
		time.Sleep(time.Second)
		r.refer(next, "0501502503", 403)
		r.refer(next, "112", 202)
		emergency, err := r.carrier.WaitCall(10 * time.Second)
		r.must(err)
		r.must(emergency.WaitAnswered(10 * time.Second))
		time.Sleep(time.Second)
		second.Hangup()
		third.Hangup()
		r.must(caller.WaitEnded(2 * time.Second))
		recs := r.records()
		for _, rec := range recs {
			switch {
			case rec.Cause == store.CauseHangupCalled:
				segments(t, rec, "101", "+48501502503")
				_, office := r.lanes(rec)
				hears(t, "office lane at the end", office[len(office)-at(time.Second):], 1000)
			default:
				segments(t, rec, "101", "112")
			}
		}
	})
}

// TestReferRefused: what nobody may ask for.
func TestReferRefused(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.refer(caller, "102", 403)
		for _, fields := range [][]pbxtest.Field{nil, {{Name: "Refer-To", Value: "<sip:102@a>"}, {Name: "Refer-To", Value: "<sip:101@a>"}}} {
			res, err := agent.Request(t.Context(), "REFER", nil, fields...)
			r.must(err)
			if res.Status != 400 {
				t.Errorf("REFER with %v answered %s", fields, res)
			}
		}
		out := r.phones["102"].NewRequest("REFER", "sip:101@"+switchAddr.String())
		out.Add("Refer-To", "<sip:102@a>")
		res, err := r.phones["102"].Request(t.Context(), out)
		r.must(err)
		if res.Status != 403 {
			t.Errorf("REFER outside of a dialog answered %s", res)
		}
		time.Sleep(time.Second)
		hears(t, "caller", caller.Heard().Since(time.Now().Add(-time.Second)), phoneHz)
		caller.Hangup()
		rec := r.only()
		segments(t, rec, "101")
	})
}

// consult holds the citizen and calls a colleague.
func (r *rig) consult(agent *pbxtest.Call, number string) *pbxtest.Call {
	r.t.Helper()
	r.must(agent.Hold(r.t.Context()))
	c, err := r.phones["101"].Dial(number)
	r.must(err)
	return c
}

// attend passes the other side of c on to that of other.
func (r *rig) attend(c, other *pbxtest.Call, want int) {
	r.t.Helper()
	res, err := c.Refer(r.t.Context(), "sip:102@centralka.test?Replaces="+url.QueryEscape(other.Replaces()))
	r.must(err)
	if res.Status != want {
		r.t.Fatalf("REFER answered %s, want %d", res, want)
	}
}

// TestAttendedTransfer: the agent asks a colleague first, in words that are not
// recorded, and then joins the two, by a REFER in either of its calls (S1.3-g,
// RFC 5589 §7.1, siphon-sip#281).
func TestAttendedTransfer(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
			caller, agent := r.talk()
			time.Sleep(3 * time.Second)
			consultation := r.consult(agent, "102")
			colleague := r.answeredBy("102")
			asked := time.Now()
			time.Sleep(4 * time.Second)
			if !musicHeard(caller.Heard().Between(asked.Add(200*time.Millisecond), time.Now())) {
				t.Error("the citizen hears no music meanwhile")
			}
			hears(t, "colleague", colleague.Heard().PCM, phoneHz, callerHz)
			from := agent
			if back {
				from = consultation
				r.attend(consultation, agent, 202)
			} else {
				r.attend(agent, consultation, 202)
			}
			joined := time.Now()
			r.must(agent.WaitEnded(2 * time.Second))
			r.must(consultation.WaitEnded(2 * time.Second))
			time.Sleep(4 * time.Second)
			told(t, from, "100 active", "200 terminated")
			hears(t, "caller", caller.Heard().Since(joined.Add(200*time.Millisecond)), phoneHz+30, phoneHz)
			hears(t, "colleague", colleague.Heard().Since(joined.Add(200*time.Millisecond)), callerHz, phoneHz)
			colleague.Hangup()
			r.must(caller.WaitEnded(2 * time.Second))
			for _, rec := range r.records() {
				if rec.Direction == store.Internal {
					ended(t, rec, store.CauseHangupCaller, store.OutcomeNone)
					continue
				}
				ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
				segments(t, rec, "101", "102")
				citizen, office := r.lanes(rec)
				sameLength(t, rec, citizen)
				if level := pbxtest.Level(office[at(asked.Sub(rec.Answered)):at(joined.Sub(rec.Answered)-60*time.Millisecond)]); level > -80 {
					t.Errorf("the consultation is in the recording with %.0f dBFS", level)
				}
				hears(t, "office lane at the end", office[len(office)-at(2*time.Second):], phoneHz+30, phoneHz)
			}
		})
	}
}

// TestSemiAttendedTransfer: the phone passes the call on while the colleague's
// phone still rings.
func TestSemiAttendedTransfer(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		consultation := r.consult(agent, "102")
		r.must(consultation.WaitRinging(2 * time.Second))
		time.Sleep(time.Second)
		r.attend(agent, consultation, 202)
		_, err := r.phones["102"].WaitCall(time.Second) // the consultation
		r.must(err)
		colleague := r.answeredBy("102")
		time.Sleep(2 * time.Second)
		hears(t, "colleague", colleague.Heard().PCM, callerHz)
		told(t, agent, "100 active", "180 active", "200 terminated")
		caller.Hangup()
		for _, rec := range r.records() {
			if rec.Direction == store.Incoming {
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				segments(t, rec, "101", "102")
			}
		}
	})
}

// TestAttendedTransferOfWhatIsGone: no such dialog, or another phone's: the call
// stays with the phone.
func TestAttendedTransferOfWhatIsGone(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		foreign, err := r.phones["102"].Dial("103")
		r.must(err)
		r.must(foreign.WaitAnswered(10 * time.Second))
		r.attend(agent, foreign, 202)
		time.Sleep(time.Second)
		told(t, agent, "100 active", "481 terminated")
		foreign.Hangup()
		time.Sleep(time.Second)
		r.attend(agent, foreign, 202)
		time.Sleep(2 * time.Second)
		hears(t, "caller", caller.Heard().Since(time.Now().Add(-time.Second)), phoneHz)
		caller.Hangup()
		r.records()
	})
}
