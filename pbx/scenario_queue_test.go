package pbx_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/media"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// musicHeard reports whether hold music fills these samples: it is audible and
// nobody's voice.
func musicHeard(samples []int16) bool {
	if len(samples) < pbxtest.Rate/2 || pbxtest.Level(samples) < -40 {
		return false
	}
	for _, hz := range []float64{callerHz, phoneHz, phoneHz + 30, phoneHz + 60} {
		if pbxtest.HasTone(samples, hz) {
			return false
		}
	}
	return media.HoldMusic() != nil
}

// dials returns which phones were sent an INVITE, in order.
func (r *rig) dials() []string {
	var out []string
	for _, l := range r.ladder.Lines() {
		if who, ok := strings.CutSuffix(l, " INVITE"); ok && strings.HasPrefix(who, "switch > ") {
			out = append(out, strings.TrimPrefix(who, "switch > "))
		}
	}
	return out
}

// TestLongestIdleFirst: who has waited longest gets the call.
func TestLongestIdleFirst(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
		for range 4 {
			call := r.call()
			time.Sleep(8 * time.Second)
			call.Hangup()
			time.Sleep(2 * time.Second)
		}
		if got, want := r.dials(), []string{"101", "102", "103", "101"}; !slices.Equal(got, want) {
			t.Errorf("rang %v, want %v", got, want)
		}
		r.records()
	})
}

// TestNextAgent: whoever does not take a call is passed over for the next one,
// who gets it.
func TestNextAgent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		first  pbxtest.Behaviour
		result string
	}{
		{"timeout", pbxtest.RingForEver(), "timeout"},
		{"busy", pbxtest.Reject(486), "busy"},
		{"declined", pbxtest.Reject(603), "declined"},
		{"do not disturb", pbxtest.Reject(480), "unreachable"},
		{"broken", pbxtest.Reject(500), "unreachable"},
		{"moved", pbxtest.Reject(302), "declined"},
		{"dead", pbxtest.Behaviour{Ignore: true}, "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := briefCity(t, "101", "102")
			cfg.Queues[0].RingTimeout = 6 * time.Second
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.behave("101", c.first)
				call := r.call()
				agent := r.answeredBy("102")
				time.Sleep(2 * time.Second)
				agent.Hangup()
				r.must(call.WaitEnded(time.Second))
				rec := r.only()
				ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
				if len(rec.Rings) != 2 || rec.Rings[0].Extension != "101" || rec.Rings[0].Result != c.result || rec.Rings[1].Result != "answered" {
					t.Errorf("rings %+v", rec.Rings)
				}
				if rec.Segments[0].Extension != "102" {
					t.Errorf("segments %+v", rec.Segments)
				}
			})
		})
	}
}

// TestBusyAgentIsNotOffered: an agent who has placed a call is on the phone.
func TestBusyAgentIsNotOffered(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(5 * time.Second))
		call := r.call()
		r.answeredBy("102")
		r.quiet("101")
		call.Hangup()
		out.Hangup()
		r.records()
	})
}

// TestMusicUntilSomebodyIsFree: callers wait with music and are served in the
// order of their coming.
func TestMusicUntilSomebodyIsFree(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		first := r.call()
		agent := r.answeredBy("101")
		var waiting []*pbxtest.Call
		for range 4 {
			waiting = append(waiting, r.call())
			time.Sleep(3 * time.Second)
		}
		if q := r.sw.Status().Queues[0]; q.Waiting != 4 {
			t.Errorf("queue %+v", q)
		}
		time.Sleep(20 * time.Second)
		agent.Hangup()
		r.must(first.WaitEnded(time.Second))
		for i, call := range waiting {
			agent := r.answeredBy("101")
			if heard := call.Heard(); !musicHeard(heard.Between(agent.At(pbxtest.Answered).Add(-10*time.Second), agent.At(pbxtest.Answered).Add(-time.Second))) {
				t.Errorf("caller %d heard no music", i)
			}
			time.Sleep(2 * time.Second)
			if !pbxtest.HasTone(call.Heard().Since(agent.At(pbxtest.Answered).Add(200*time.Millisecond)), phoneHz) {
				t.Fatalf("caller %d is not the one who talks", i)
			}
			call.Hangup()
		}
		// Three of them waited already while the one before was answered: a pace is known.
		if q := r.sw.Status().Queues[0]; q.Expected <= 0 || q.Expected > time.Minute {
			t.Errorf("expected wait %v", q.Expected)
		}
		for _, rec := range r.records() {
			if rec.Recording.Outcome != store.OutcomeOK {
				t.Errorf("recording %+v", rec.Recording)
			}
		}
	})
}

// TestAbandonedInQueue: the phone is taken back, and no voice was kept (S1.3-d,
// S1.3-l).
func TestAbandonedInQueue(t *testing.T) {
	t.Parallel()
	for _, ringing := range []bool{true, false} {
		t.Run(fmt.Sprint(ringing), func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				if ringing {
					r.behave("101", pbxtest.RingForEver())
				} else {
					r.pool.SetAway("101", "lunch")
				}
				call := r.call()
				time.Sleep(5 * time.Second)
				call.Hangup()
				rec := r.only()
				ended(t, rec, store.CauseAbandoned, store.OutcomeNone)
				if files := r.audioFiles(); len(files) > 0 {
					t.Errorf("files in the vault: %v", files)
				}
				if !ringing {
					r.quiet("101")
					return
				}
				r.says("carrier > switch BYE", "switch > 101 CANCEL", "101 > switch 487 Request Terminated (INVITE)", "switch > 101 ACK")
				if len(rec.Rings) != 1 || rec.Rings[0].Result != "cancelled" {
					t.Errorf("rings %+v", rec.Rings)
				}
			})
		})
	}
}

// TestQueueLimits: who is one too many, or has waited too long, hears the
// closing message to its end and is then let go.
func TestQueueLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		set  func(*pbx.QueueConfig)
		wait time.Duration
	}{
		{"max_length", func(q *pbx.QueueConfig) { q.MaxLength = 1 }, 0},
		{"max_wait", func(q *pbx.QueueConfig) { q.MaxWait = 10 * time.Second }, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := briefCity(t, "101")
			c.set(&cfg.Queues[0])
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.pool.SetAway("101", "lunch")
				first := r.call()
				time.Sleep(2 * time.Second)
				call := first
				if c.wait == 0 {
					call = r.call()
				}
				r.must(call.WaitEnded(time.Minute))
				if e := call.End(); e.Method != "BYE" || e.ByUs {
					t.Errorf("ended by %+v", e)
				}
				heard := call.Heard()
				m := pbxtest.Find(heard.PCM, prompt(t, "busy"))
				if !m.Whole() || call.At(pbxtest.Ended).Sub(heard.Start.Add(m.To)).Abs() > 100*time.Millisecond {
					t.Errorf("closing message %+v, ended at %v", m, call.At(pbxtest.Ended).Sub(heard.Start))
				}
				if waited := m.From - time.Second; waited < c.wait-100*time.Millisecond || waited > c.wait+200*time.Millisecond {
					t.Errorf("waited %v, want %v", waited, c.wait)
				}
				first.Hangup()
				for _, rec := range r.records() {
					if rec.Cause != store.CauseQueueTimeout && (c.wait > 0 || rec.Cause != store.CauseAbandoned) || rec.Recording.Outcome != store.OutcomeNone {
						t.Errorf("record %+v", rec)
					}
				}
			})
		})
	}
}

// TestOverflow: to another queue and to an extension; the announcement is not
// heard again (S1.4-g).
func TestOverflow(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"queue:second", "extension:102"} {
		t.Run(target, func(t *testing.T) {
			cfg := briefCity(t, "101", "102")
			second := cfg.Queues[0]
			second.Name, second.Members = "second", []string{"102"}
			cfg.Queues[0].Members, cfg.Queues[0].Overflow, cfg.Queues[0].MaxWait = []string{"101"}, target, 5*time.Second
			cfg.Queues = append(cfg.Queues, second)
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.pool.SetAway("101", "lunch")
				call := r.call()
				agent := r.answeredBy("102")
				if waited := agent.At(pbxtest.Ringing).Sub(call.At(pbxtest.Answered)); waited < 5*time.Second || waited > 8*time.Second {
					t.Errorf("rang after %v", waited)
				}
				heard := call.Heard()
				if again := pbxtest.Find(heard.Since(heard.Start.Add(1500*time.Millisecond)), briefWords()); again.Similarity > 0.5 {
					t.Errorf("announced again: %+v", again)
				}
				time.Sleep(time.Second)
				call.Hangup()
				ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
			})
		})
	}
}

// TestClosedHours: outside of opening hours the announcement comes first all
// the same, then the closing message (S1.4-b). Bubbles begin on a Saturday.
func TestClosedHours(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Hours = []desk.HoursConfig{{Name: "cim", Week: []string{"mon-fri 07:30-15:30"}, Holidays: "pl"}}
	cfg.Queues[0].Hours = "cim"
	scenario(t, cfg, func(t *testing.T, r *rig) {
		call := r.call()
		r.must(call.WaitEnded(time.Minute))
		heard := call.Heard()
		a, m := pbxtest.Find(heard.PCM, briefWords()), pbxtest.Find(heard.PCM, prompt(t, "closed"))
		if !a.Whole() || !m.Whole() || m.From < a.To-20*time.Millisecond {
			t.Errorf("announcement %+v, closing message %+v", a, m)
		}
		ended(t, r.only(), store.CauseClosed, store.OutcomeNone)
		r.quiet("101")
	})
}

// TestRingAll: the first to answer has the call, the others are told that it
// was answered elsewhere (RFC 3326 §3.1).
func TestRingAll(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103")
	cfg.Queues[0].Strategy = "ring-all"
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		r.behave("102", pbxtest.AnswerAfter(4*time.Second))
		r.behave("103", pbxtest.Reject(486))
		call := r.call()
		r.answeredBy("102")
		loser, err := r.phones["101"].WaitCall(time.Second)
		r.must(err)
		r.must(loser.WaitEnded(time.Second))
		if e := loser.End(); e.Method != "CANCEL" || !strings.Contains(e.Reason, "SIP") || !strings.Contains(e.Reason, "cause=200") {
			t.Errorf("the other phone was told %+v", e)
		}
		time.Sleep(time.Second)
		call.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		results := map[string]string{}
		for _, ring := range rec.Rings {
			results[ring.Extension] = ring.Result
		}
		if len(rec.Rings) != 3 || results["101"] != "cancelled" || results["102"] != "answered" || results["103"] != "busy" {
			t.Errorf("rings %+v", rec.Rings)
		}
	})
}

// TestRingAllAtOnce: two phones that answer in the same instant: one has the
// call, the other is ended, nobody hears two.
func TestRingAllAtOnce(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].Strategy = "ring-all"
	scenario(t, cfg, func(t *testing.T, r *rig) {
		call := r.call()
		var agents []*pbxtest.Call
		for _, p := range []string{"101", "102"} {
			// Whose 200 the switch takes first is open; the other's may cross a CANCEL.
			agent, err := r.phones[p].WaitCall(time.Minute)
			r.must(err)
			agents = append(agents, agent)
		}
		time.Sleep(5 * time.Second)
		up := 0
		for _, a := range agents {
			if a.State() == pbxtest.Answered {
				up++
			}
		}
		if up != 1 {
			t.Errorf("%d agents talk", up)
		}
		call.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Segments) != 1 {
			t.Errorf("segments %+v", rec.Segments)
		}
	})
}

// TestPhoneWithTwoContacts: both devices of an extension ring.
func TestPhoneWithTwoContacts(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		other := r.device("101", 77)
		other.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		r.behave("101", pbxtest.RingForEver())
		call := r.call()
		second, err := other.WaitCall(time.Minute)
		r.must(err)
		r.must(second.WaitAnswered(10 * time.Second))
		first, err := r.phones["101"].WaitCall(time.Second)
		r.must(err)
		r.must(first.WaitEnded(time.Second))
		if e := first.End(); e.Method != "CANCEL" || !strings.Contains(e.Reason, "cause=200") {
			t.Errorf("the first device was told %+v", e)
		}
		time.Sleep(time.Second)
		second.Hangup()
		r.must(call.WaitEnded(time.Second))
		if rec := r.only(); len(rec.Rings) != 1 || rec.Rings[0].Result != "answered" {
			t.Errorf("rings %+v", rec.Rings)
		}
	})
}

// TestAgentUnregistersWhileRinging: the call goes to the next one at the ring
// timeout at the latest.
func TestAgentUnregistersWhileRinging(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].RingTimeout = 8 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		call := r.call()
		_, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		r.must(r.phones["101"].Unregister(t.Context()))
		r.answeredBy("102")
		call.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		next := r.call()
		r.answeredBy("102")
		next.Hangup()
		if n := r.count("switch > 101 INVITE"); n != 1 {
			t.Errorf("101 was called %d times", n)
		}
		r.records()
	})
}

// TestWrapUpAndAutoAway: an agent rests after a call; one who lets calls ring
// becomes away.
func TestWrapUpAndAutoAway(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Queues[0].WrapUp, cfg.Queues[0].AutoAwayAfter, cfg.Queues[0].RingTimeout = 30*time.Second, 2, 5*time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		call, agent := r.talk()
		agent.Hangup()
		r.must(call.WaitEnded(time.Second))
		over := time.Now()
		next := r.call()
		agent = r.answeredBy("101")
		if rest := agent.At(pbxtest.Ringing).Sub(over); rest < 30*time.Second || rest > 32*time.Second {
			t.Errorf("rested %v", rest)
		}
		next.Hangup()
		time.Sleep(31 * time.Second)
		r.behave("101", pbxtest.RingForEver())
		last := r.call()
		time.Sleep(time.Minute)
		if n := r.count("switch > 101 CANCEL"); n != 2 {
			t.Errorf("rang in vain %d times", n)
		}
		if st := r.pool.Snapshot()[0]; st.State != desk.Away {
			t.Errorf("agent %+v", st)
		}
		last.Hangup()
		r.records()
	})
}

// TestStaysAreCounted: the record says where a caller waited and how that ended,
// and the statistics count it.
func TestStaysAreCounted(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	second := cfg.Queues[0]
	second.Name, second.Members = "second", []string{"102"}
	cfg.Queues[0].Members, cfg.Queues[0].Overflow, cfg.Queues[0].MaxWait = []string{"101"}, "queue:second", 5*time.Second
	cfg.Queues = append(cfg.Queues, second)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		call := r.call()
		r.answeredBy("102")
		time.Sleep(time.Second)
		call.Hangup()
		time.Sleep(2 * time.Second)
		given := r.call()
		time.Sleep(3 * time.Second)
		given.Hangup()
		time.Sleep(2 * time.Second)
		early := r.call()
		time.Sleep(500 * time.Millisecond)
		early.Hangup()
		for _, rec := range r.records() {
			var results []string
			for _, st := range rec.Stays {
				results = append(results, st.Queue+" "+string(st.Result))
			}
			want := map[store.Cause][]string{
				store.CauseHangupCaller: {"cim overflowed", "second answered"}, store.CauseAbandoned: {"cim abandoned"}, store.CauseAnnouncementHangup: nil,
			}[rec.Cause]
			if !slices.Equal(results, want) {
				t.Errorf("%s: stays %v, want %v", rec.Cause, results, want)
			}
		}
		st, err := r.store.Statistics(today(), today())
		r.must(err)
		sum := map[string]store.QueueHour{}
		for _, q := range st[0].Queues {
			s := sum[q.Queue]
			s.Add(q)
			sum[q.Queue] = s
		}
		if q := sum["cim"]; q.Offered != 3 || q.Overflowed != 1 || q.Abandoned != 1 || q.Announcement != 1 {
			t.Errorf("cim %+v", q)
		}
		if q := sum["second"]; q.Offered != 1 || q.Answered != 1 || q.WaitMax < 3*time.Second || q.Talk < time.Second {
			t.Errorf("second %+v", q)
		}
		list, withheld, err := r.store.Callbacks(today(), today())
		r.must(err)
		if len(list) != 1 || withheld != 0 || list[0].Times != 1 || list[0].Done {
			t.Errorf("callbacks %+v", list)
		}
	})
}
