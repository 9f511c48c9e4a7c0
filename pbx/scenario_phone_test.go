package pbx_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// vanish makes the i-th phone lose its power; the function brings it back.
func (r *rig) vanish(i int) (back func()) {
	r.net.Drop(func(src, dst netip.AddrPort, _ []byte) bool { return src == phoneAddr(i) || dst == phoneAddr(i) })
	return func() { r.net.Drop(nil) }
}

// TestDeadPhoneIsPassedOver: a phone that has lost its power since its last sign
// of life holds a caller up for some seconds, not for the ring timeout, and the
// next caller not at all; when it is there again it is called again.
func TestDeadPhoneIsPassedOver(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{30 * time.Second, 0} {
		cfg := briefCity(t, "101", "102")
		cfg.SIP.OptionsInterval = interval
		scenario(t, cfg, func(t *testing.T, r *rig) {
			back := r.vanish(0)
			first := r.call()
			r.must(first.WaitAnswered(time.Second))
			time.Sleep(time.Second) // the announcement
			offered := time.Now()
			r.answeredBy("102")
			if d := time.Since(offered); d > 8*time.Second {
				t.Errorf("the next agent answered after %v", d)
			}
			if a := r.agent("101"); a.State != desk.Away || a.Reason != "unregistered" {
				t.Errorf("the agent whose phone is dead is %+v", a)
			}
			first.Hangup()
			time.Sleep(time.Second)
			invites := r.count("switch > 101 INVITE")
			second := r.call()
			r.answeredBy("102")
			second.Hangup()
			if n := r.count("switch > 101 INVITE"); n != invites {
				t.Errorf("the dead phone got %d INVITEs more", n-invites)
			}
			inside, err := r.phones["102"].Dial("101")
			r.must(err)
			r.must(inside.WaitEnded(time.Second))
			if e := inside.End(); e.Status != 480 {
				t.Errorf("an internal call to it ended %+v", e)
			}
			back()
			time.Sleep(30 * time.Second)
			if c, err := r.phones["101"].WaitCall(time.Second); err != nil || c.End().Method != "CANCEL" {
				t.Errorf("the INVITE that it missed was not cancelled: %v", err)
			}
			if a := r.agent("101"); a.State != desk.Ready {
				t.Errorf("after it came back its agent is %+v", a)
			}
			third, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
			r.must(err)
			r.answeredBy("101")
			third.Hangup()
			for _, rec := range r.records() {
				if rec.Direction == store.Incoming && rec.Cause != store.CauseHangupCaller {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// TestSlowPhoneIsWaitedFor: one that says 100 Trying late, or repeats nothing but
// that, is there, and has its ring timeout.
func TestSlowPhoneIsWaitedFor(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.Behaviour{Ring: 3 * time.Second, Status: 200, After: 8 * time.Second})
		caller := r.call()
		r.answeredBy("101")
		r.quiet("102")
		caller.Hangup()
		r.records()
	})
}

// TestAnswerOfPhoneGivenUp: only what the phone said was lost. Its answer comes
// when somebody else has the call: it is acknowledged and hung up.
func TestAnswerOfPhoneGivenUp(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		lost := time.Now().Add(9 * time.Second)
		r.net.Drop(func(src, _ netip.AddrPort, _ []byte) bool { return src == phoneAddr(0) && time.Now().Before(lost) })
		caller := r.call()
		r.answeredBy("102")
		late := r.answeredBy("101")
		r.must(late.WaitEnded(5 * time.Second))
		if e := late.End(); e.Method != "BYE" || e.ByUs {
			t.Errorf("the late one ended %+v", e)
		}
		from := time.Now()
		time.Sleep(time.Second)
		hears(t, "caller", caller.Heard().Since(from), phoneHz+30, phoneHz)
		caller.Hangup()
		segments(t, r.only(), "102")
	})
}

// TestOneOfTwoDevicesIsDead: the other one rings on.
func TestOneOfTwoDevicesIsDead(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		other := r.device("101", 181)
		other.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(7 * time.Second)))
		r.vanish(0)
		caller := r.call()
		r.answeredBy("101/181")
		caller.Hangup()
		rec := r.only()
		if len(rec.Rings) != 1 || rec.Rings[0].Result != "answered" {
			t.Errorf("rings %+v", rec.Rings)
		}
	})
}

// TestWishesSurviveRestart: who does not want to be disturbed, and who is away
// and why, is so after a restart as well.
func TestWishesSurviveRestart(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.code("101", "*221")
		r.code("102", "*24")
		r.code("103", "*22")
		r.code("103", "*21")
		r.records()
		r.stop()
		r.must(r.store.Close())
		r.startSwitch(cfg, r.dir)
		r.before = 4
		if a := r.agent("101"); a.State != desk.Away || a.Reason != "break" {
			t.Errorf("101 is %+v", a)
		}
		if a := r.agent("103"); a.State != desk.Ready {
			t.Errorf("103 is %+v", a)
		}
		c, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(c.WaitEnded(time.Second))
		if e := c.End(); e.Status != 486 {
			t.Errorf("a call to 102 ended %+v", e)
		}
		r.code("102", "*25")
		r.records()
	})
}

// TestRegisterDoesNotWaitForTheDisk: while the vault takes nothing, phones
// register, and are called; it gets what was missed in the end.
func TestRegisterDoesNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		release := r.sw.HoldWrites()
		asked := time.Now()
		other := r.device("101", 181)
		third := r.device("101", 182)
		if d := time.Since(asked); d > 100*time.Millisecond {
			t.Errorf("two REGISTERs took %v", d)
		}
		third.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		call := r.call()
		r.answeredBy("101/182")
		call.Hangup()
		r.records()
		r.must(other.Unregister(t.Context()))
		release()
		r.stop()
		r.must(r.store.Close())
		r.startSwitch(cfg, r.dir)
		r.before = 1
		if n := r.sw.Status().Phones[0].Devices; n != 2 {
			t.Errorf("%d devices after the restart", n)
		}
	})
}

// TestDrainTurnsWaitingCallersAway: a phone that rings does not hold a stop up:
// it is cancelled with a reason, the caller hears the closing message; who talks
// goes on, and who is still in the announcement is not queued.
func TestDrainTurnsWaitingCallersAway(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		talking, _ := r.talk()
		waiting := r.call()
		rings, err := r.phones["102"].WaitCall(time.Minute)
		r.must(err)
		announced := r.call()
		r.must(announced.WaitAnswered(time.Second))
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		drained := make(chan struct{})
		go func() { r.sw.Drain(t.Context()); close(drained) }()
		r.must(rings.WaitEnded(time.Second))
		if e := rings.End(); e.Method != "CANCEL" || !strings.Contains(e.Reason, "Q.850;cause=41") {
			t.Errorf("the phone that rang ended by %+v", e)
		}
		for name, c := range map[string]*pbxtest.Call{"waiting": waiting, "announced": announced} {
			r.must(c.WaitEnded(20 * time.Second))
			if !pbxtest.Find(c.Heard().PCM, prompt(t, "busy")).Whole() {
				t.Errorf("the caller who was %s does not hear the closing message", name)
			}
		}
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("the waiting were turned away after %v", d)
		}
		from := time.Now()
		time.Sleep(time.Second)
		hears(t, "who talks", talking.Heard().Since(from), phoneHz)
		talking.Hangup()
		<-drained
		shut := 0
		for _, rec := range r.records() {
			if rec.Cause == store.CauseShutdown && rec.Recording.Outcome == store.OutcomeNone {
				shut++
			}
		}
		if shut != 2 {
			t.Errorf("%d of two callers were turned away: %+v", shut, r.records())
		}
	})
}

// TestCancelCarriesTheTag: the 200 to a CANCEL has the To-tag of the responses to
// its INVITE (RFC 3261 §9.2), which is another for each call.
func TestCancelCarriesTheTag(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		seen := map[string]bool{}
		for range 2 {
			c, err := r.phones["101"].Dial("102")
			r.must(err)
			r.must(c.WaitRinging(time.Second))
			c.Hangup()
			r.must(c.WaitEnded(time.Second))
			tags := map[string]bool{}
			responses := 0
			for _, e := range r.phones["101"].Messages() {
				if m := e.Message; !e.Out && m.CallID() == c.Invite().CallID() && m.Status > 100 && m.Status != 401 {
					tags[m.ToTag()] = true
					responses++
				}
			}
			if len(tags) != 1 || responses != 3 { // 180, 200 of the CANCEL, 487
				t.Errorf("%d responses with the To-tags %v", responses, tags)
			}
			for tag := range tags {
				if seen[tag] {
					t.Error("two calls have one tag")
				}
				seen[tag] = true
			}
		}
		r.records()
	})
}

// TestBansAreToldOnce: the log hears once of a source that is banned again and
// again, and not of each source of many.
func TestBansAreToldOnce(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		thief := r.stranger("101", "guessed")
		r.lenient = true // it complains of silence
		for range 3 {
			for range 6 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := thief.Register(ctx); err == nil {
					t.Error("a wrong password was taken")
				}
				cancel()
			}
			time.Sleep(10 * time.Minute)
		}
		if n := strings.Count(r.log.String(), "source banned"); n != 1 {
			t.Errorf("the log tells of the ban %d times", n)
		}
		if n := r.sw.Status().Guard["bans"]; n < 2 {
			t.Errorf("%d bans", n)
		}
	})
}
