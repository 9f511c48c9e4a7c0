package pbx_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// powerless is vanish for voice as well.
func (r *rig) powerless(i int) {
	host := phoneAddr(i).Addr()
	r.net.Drop(func(src, dst netip.AddrPort, _ []byte) bool { return src.Addr() == host || dst.Addr() == host })
}

// shortSessions has a phone answer with a session that we are to refresh after 45 s.
func (r *rig) shortSessions(phone string) {
	b := pbxtest.AnswerAfter(3 * time.Second)
	b.Fields = sessionFields("uac")[1:]
	r.behave(phone, b)
}

// losing are the ways in which a phone is lost in the middle of a conversation
// without having hung up.
var losing = map[string]struct {
	cause store.Cause
	lose  func(r *rig, agent *pbxtest.Call)
}{
	"no ACK": {store.CauseNoAck, func(r *rig, agent *pbxtest.Call) {
		r.lose(phoneAddr(0), "ACK ", func(int) bool { return true })
		r.must(agent.Hold(r.t.Context()))
		time.Sleep(33 * time.Second)
		r.net.Drop(nil)
	}},
	"no answer in the ACK": {store.CauseNotAcceptable, func(r *rig, agent *pbxtest.Call) {
		var ack []byte // the last one, which carries the answer
		r.net.Drop(func(src, _ netip.AddrPort, b []byte) bool {
			whole := src == phoneAddr(0) && strings.HasPrefix(string(b), "ACK ") && strings.Contains(string(b), "v=0")
			if whole {
				ack = slices.Clone(b)
			}
			return whole
		})
		_, err := agent.ReInvite(r.t.Context(), nil)
		r.must(err)
		time.Sleep(10 * time.Millisecond)
		m, err := pbxtest.ParseMessage(ack)
		r.must(err)
		m.Body = nil
		m.Set("Content-Length", "0")
		r.must(r.phones["101"].Send(m.Bytes()))
		time.Sleep(100 * time.Millisecond)
		r.net.Drop(nil)
	}},
	"no voice": {store.CauseMediaTimeout, func(r *rig, agent *pbxtest.Call) {
		agent.Say(nil)
		r.net.Drop(func(src, _ netip.AddrPort, b []byte) bool {
			return src.Addr() == phoneAddr(0).Addr() && pbxtest.IsRTP(src, src, b)
		})
		time.Sleep(13 * time.Second)
		r.net.Drop(nil)
	}},
	"no session": {store.CauseSessionExpired, func(r *rig, agent *pbxtest.Call) {
		r.phones["101"].SetOnRequest(func(m *pbxtest.Message) bool {
			return m.Method == "UPDATE" && r.phones["101"].Respond(m, 481) == nil
		})
		time.Sleep(45 * time.Second)
	}},
	"no power": {store.CauseMediaTimeout, func(r *rig, _ *pbxtest.Call) {
		r.powerless(0)
		time.Sleep(13 * time.Second)
	}},
}

// TestCitizenIsNeverDropped: an agent's phone is lost, whatever the reason: the
// citizen hears music, is before all others in the queue, and talks to the next
// agent; one recording, two segments, no second announcement.
func TestCitizenIsNeverDropped(t *testing.T) {
	t.Parallel()
	for name, row := range losing {
		t.Run(name, func(t *testing.T) {
			cfg := briefCity(t, "101", "102")
			cfg.RTP.Timeout = 10 * time.Second
			if name == "no session" {
				cfg.RTP.Timeout = 0
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.lenient = true
				r.shortSessions("101")
				caller, agent := r.talk()
				time.Sleep(time.Second)
				r.code("102", "*22")
				if name == "no session" {
					caller.Say(nil)
					agent.Say(nil)
				}
				row.lose(r, agent)
				lost := time.Now()
				time.Sleep(500 * time.Millisecond)
				if !musicHeard(caller.Heard().Since(lost)) {
					t.Error("the citizen hears no music")
				}
				r.code("102", "*21")
				next := r.answeredBy("102")
				caller.Say(pbxtest.Tone(callerHz))
				time.Sleep(time.Second)
				hears(t, "next agent", next.Heard().Since(time.Now().Add(-500*time.Millisecond)), callerHz, phoneHz)
				hears(t, "citizen", caller.Heard().Since(time.Now().Add(-500*time.Millisecond)), phoneHz+30, phoneHz)
				if pbxtest.Find(caller.Heard().Since(lost), briefWords()).Whole() {
					t.Error("the announcement was played again")
				}
				caller.Hangup()
				for _, rec := range r.records() {
					if rec.Direction != store.Incoming {
						continue
					}
					ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
					segments(t, rec, "101", "102")
					if len(rec.Stays) != 2 || rec.Stays[1].Result != store.StayAnswered {
						t.Errorf("stays %+v", rec.Stays)
					}
					citizen, _ := r.lanes(rec)
					sameLength(t, rec, citizen)
				}
			})
		})
	}
}

// TestCitizenIsNeverDroppedWithoutQueue: called directly, the extension rings
// again; if nobody is there, the citizen is told so before the call ends.
func TestCitizenIsNeverDroppedWithoutQueue(t *testing.T) {
	t.Parallel()
	for name, row := range losing {
		t.Run(name, func(t *testing.T) {
			cfg := briefCity(t, "101")
			cfg.RTP.Timeout = 10 * time.Second
			if name == "no session" {
				cfg.RTP.Timeout = 0
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.lenient = true
				r.shortSessions("101")
				caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
				r.must(err)
				agent := r.answeredBy("101")
				time.Sleep(time.Second)
				if name == "no session" {
					caller.Say(nil)
					agent.Say(nil)
				}
				r.behave("101", pbxtest.Reject(486))
				row.lose(r, agent)
				r.must(caller.WaitEnded(time.Minute))
				if !pbxtest.Find(caller.Heard().PCM, prompt(t, "busy")).Whole() {
					t.Error("the citizen does not hear the closing message")
				}
				rec := r.only()
				ended(t, rec, row.cause, store.OutcomeOK)
				segments(t, rec, "101")
				citizen, _ := r.lanes(rec)
				sameLength(t, rec, citizen)
			})
		})
	}
}

// TestOutgoingCallKeepsItsCitizen: a phone that was started again in a call that
// it has placed rings, and has its party again.
func TestOutgoingCallKeepsItsCitizen(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.RTP.Timeout = 10 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.lenient = true
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		out, err := r.phones["101"].Dial("0501502503")
		r.must(err)
		citizen, err := r.carrier.WaitCall(time.Minute)
		r.must(err)
		r.must(out.WaitAnswered(time.Minute))
		time.Sleep(time.Second)
		losing["no voice"].lose(r, out)
		again := r.answeredBy("101")
		time.Sleep(time.Second)
		hears(t, "phone", again.Heard().PCM, callerHz)
		citizen.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		segments(t, rec, "101", "101")
	})
}

// TestOnlyAgentIsTriedAgain: an agent who hangs up in the whisper, or whose phone
// is lost, is the only one: the caller is offered again after a rest, without
// anything else having to happen.
func TestOnlyAgentIsTriedAgain(t *testing.T) {
	t.Parallel()
	scenario(t, whisperCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(500 * time.Millisecond)
		agent.Hangup()
		from := time.Now()
		again, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		if d := time.Since(from); d < 4*time.Second || d > 7*time.Second {
			t.Errorf("the only agent is tried again after %v", d)
		}
		r.must(again.WaitAnswered(time.Minute))
		caller.Hangup()
		r.only()
	})
}

// TestPhoneDiesInWhisper: its ACK never comes or its voice stays away; it is the
// next agent's call.
func TestPhoneDiesInWhisper(t *testing.T) {
	t.Parallel()
	cfg := whisperCity(t, "101", "102")
	cfg.Queues[0].Whisper, _ = writeWAV(t, pbxtest.Chirp(8*pbxtest.Rate, 500, 900))
	cfg.RTP.Timeout = 4 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		caller, _ := r.talk()
		time.Sleep(500 * time.Millisecond)
		r.powerless(0)
		r.behave("102", pbxtest.RingForEver())
		next, err := r.phones["102"].WaitCall(time.Minute)
		r.must(err)
		if !musicHeard(caller.Heard().Since(time.Now().Add(-time.Second))) {
			t.Error("the caller hears no music")
		}
		caller.Hangup()
		r.must(next.WaitEnded(time.Second))
		rec := r.only()
		ended(t, rec, store.CauseAbandoned, store.OutcomeNone)
		segments(t, rec)
	})
}

// TestQueuePassesOverWhoIsQuiet: who does not want to be disturbed is offered
// nothing, is shown so by state and lamp, over a restart too, and is offered what
// waits in the instant of *25.
func TestQueuePassesOverWhoIsQuiet(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].Members = []string{"101"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		lamp := r.watch("102", "101", time.Hour)
		r.code("101", "*24")
		time.Sleep(time.Second)
		if a := r.agent("101"); a.State != desk.Away || a.Reason != "quiet" {
			t.Errorf("after *24 the agent is %+v", a)
		}
		caller := r.call()
		time.Sleep(10 * time.Second)
		r.quiet("101")
		if got := lamp.States(); got[len(got)-1] != "confirmed" {
			t.Errorf("the lamp of who is quiet shows %q", got)
		}
		from := time.Now()
		c, err := r.phones["101"].Dial("*25")
		r.must(err)
		r.must(c.WaitEnded(10 * time.Second))
		r.answeredBy("101")
		if d := time.Since(from); d > 6*time.Second {
			t.Errorf("after *25 the agent is called within %v", d)
		}
		time.Sleep(time.Second)
		caller.Hangup()
		time.Sleep(time.Second)
		if got := lamp.States(); got[len(got)-1] != "idle" {
			t.Errorf("the lamp ends as %q", got)
		}
		r.code("101", "*24")
		r.before = int64(len(r.records()))
		r.stop()
		r.must(r.store.Close())
		r.startSwitch(cfg, r.dir)
		if a := r.agent("101"); a.State != desk.Away || a.Reason != "quiet" {
			t.Errorf("after a restart the agent is %+v", a)
		}
		shown(t, r.watch("102", "101", time.Hour), "confirmed")
	})
}
