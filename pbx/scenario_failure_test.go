package pbx_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// breakVault makes the vault refuse every journal of today: where the folder of
// journals should be there is a file. (Rights would not stop root.)
func (r *rig) breakVault() (repair func()) {
	r.t.Helper()
	days, err := filepath.Glob(filepath.Join(r.dir, "days", "*"))
	r.must(err)
	if len(days) != 1 {
		r.t.Fatalf("days %v", days)
	}
	journals := filepath.Join(days[0], "journals")
	r.must(os.RemoveAll(journals))
	r.must(os.WriteFile(journals, nil, 0o600))
	return func() {
		r.must(os.Remove(journals))
		r.must(os.Mkdir(journals, 0o700))
	}
}

// TestRecorderFails: with "continue" the call goes on, says that it was not
// recorded, and the alarm is there within 10 s (S1.3-j).
func TestRecorderFails(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		first, _ := r.talk()
		time.Sleep(time.Second)
		first.Hangup()
		r.only()
		repair := r.breakVault()
		call, agent := r.talk()
		time.Sleep(10 * time.Second)
		if st := r.rec.Status(); !st.Alarm || st.LastError == "" {
			t.Errorf("recorder %+v", st)
		}
		hears(t, "caller", call.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz)
		call.Hangup()
		r.must(agent.WaitEnded(time.Second))
		var failed store.CallRecord
		for _, rec := range r.records() {
			if rec.Recording.Outcome != store.OutcomeOK {
				failed = rec
			}
		}
		ended(t, failed, store.CauseHangupCaller, store.OutcomeFailed)
		if failed.Recording.Reason == "" {
			t.Error("no reason")
		}
		repair()
		time.Sleep(5 * time.Minute)
		again, _ := r.talk()
		time.Sleep(2 * time.Second)
		again.Hangup()
		ok := 0
		for _, rec := range r.records() {
			if rec.Recording.Outcome == store.OutcomeOK {
				ok++
			}
		}
		if ok != 2 || r.rec.Status().Alarm {
			t.Errorf("%d recordings, recorder %+v", ok, r.rec.Status())
		}
	})
}

// TestRecorderFailsAndCallsAreRefused: with "refuse" both ways are closed but
// for emergencies (S1.3-j).
func TestRecorderFailsAndCallsAreRefused(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.RefuseUnrecorded = true
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		first, _ := r.talk()
		time.Sleep(time.Second)
		first.Hangup()
		r.only()
		r.breakVault()
		second := r.call() // is found out by this one
		r.answeredBy("102")
		time.Sleep(5 * time.Second)
		second.Hangup()
		time.Sleep(time.Second)
		if reasons := r.sw.NotReady(); len(reasons) != 1 || !strings.HasPrefix(reasons[0], "not recording: ") {
			t.Errorf("not ready: %q", reasons)
		}
		call := r.call()
		r.must(call.WaitEnded(time.Second))
		if e := call.End(); e.Status != 503 {
			t.Errorf("incoming answered %d", e.Status)
		}
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status != 503 {
			t.Errorf("outgoing answered %d", e.Status)
		}
		internal, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(internal.WaitAnswered(5 * time.Second))
		internal.Hangup()
		help, err := r.phones["101"].Dial("112")
		r.must(err)
		r.must(help.WaitAnswered(5 * time.Second))
		help.Hangup()
		outcomes := map[store.Outcome]int{}
		for _, rec := range r.records() {
			outcomes[rec.Recording.Outcome]++
		}
		if outcomes[store.OutcomeOK] != 1 || outcomes[store.OutcomeFailed] != 2 || outcomes[store.OutcomeNone] != 3 {
			t.Errorf("outcomes %v", outcomes)
		}
	})
}

// TestReloadSaysWhetherCallsAreRefused: vault.recording_failure is that of the
// last reload, for calls in both directions.
func TestReloadSaysWhetherCallsAreRefused(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		first, _ := r.talk()
		time.Sleep(time.Second)
		first.Hangup()
		r.only()
		r.breakVault()
		second := r.call() // is found out by this one
		r.answeredBy("102")
		time.Sleep(5 * time.Second)
		second.Hangup()
		for _, refuse := range []bool{true, false} {
			cfg.RefuseUnrecorded = refuse
			_, err := r.sw.Reload(cfg)
			r.must(err)
			if r.sw.Ready() == refuse {
				t.Errorf("refuse %v, not ready: %q", refuse, r.sw.NotReady())
			}
			in := r.call()
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			time.Sleep(1500 * time.Millisecond)
			for name, call := range map[string]*pbxtest.Call{"incoming": in, "outgoing": out} {
				if refused := call.State() == pbxtest.Ended && call.End().Status == 503; refused != refuse {
					t.Errorf("refuse %v: %s is %v, %+v", refuse, name, call.State(), call.End())
				}
				call.Hangup()
			}
		}
		time.Sleep(5 * time.Second)
		r.records()
	})
}

// TestNoPortsLeft: a call without ports for its voice is refused, not answered
// in silence.
func TestNoPortsLeft(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.RTP.Ports.Last = cfg.RTP.Ports.First + 3
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first, _ := r.talk()
		second := r.call()
		r.must(second.WaitEnded(time.Second))
		if e := second.End(); e.Status != 503 {
			t.Errorf("answered %d", e.Status)
		}
		first.Hangup()
		time.Sleep(5 * time.Second)
		third, _ := r.talk()
		third.Hangup()
		r.records()
	})
}

// TestTrunkIsFull: one call more than the trunk may carry is busy.
func TestTrunkIsFull(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Trunks[0].MaxCalls = 2
	scenario(t, cfg, func(t *testing.T, r *rig) {
		a, b := r.call(), r.call()
		time.Sleep(time.Second)
		c := r.call()
		r.must(c.WaitEnded(time.Second))
		if e := c.End(); e.Status != 486 {
			t.Errorf("answered %d", e.Status)
		}
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status < 480 {
			t.Errorf("outgoing answered %d", e.Status)
		}
		a.Hangup()
		b.Hangup()
		r.records()
	})
}

// TestDrain: new calls are refused, those that are up go on to their end.
func TestDrain(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		call, agent := r.talk()
		drained := make(chan time.Time, 1)
		go func() {
			r.sw.Drain(context.Background())
			drained <- time.Now()
		}()
		time.Sleep(time.Second)
		refused := r.call()
		r.must(refused.WaitEnded(time.Second))
		if e := refused.End(); e.Status != 503 {
			t.Errorf("answered %d", e.Status)
		}
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status != 503 {
			t.Errorf("a phone was answered %d", e.Status)
		}
		time.Sleep(10 * time.Second)
		hears(t, "caller", call.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz)
		call.Hangup()
		over := time.Now()
		if d := (<-drained).Sub(over); d < 0 || d > time.Second {
			t.Errorf("drained %v after the last call", d)
		}
		if !r.sw.Status().Draining {
			t.Error("the status does not say so")
		}
		r.records()
	})
}

// TestStopInTheMiddle: Run's end sends a BYE, a CANCEL or a 503 to everybody and
// finishes the recordings.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
		talking, agent := r.talk()
		ringing := r.call()
		_, err := r.phones["102"].WaitCall(time.Minute)
		r.must(err)
		dialling, err := r.phones["103"].Dial("0600100200")
		r.must(err)
		r.must(dialling.WaitRinging(time.Second))
		announced := r.call()
		r.must(announced.WaitAnswered(time.Second))
		time.Sleep(500 * time.Millisecond)
		at := time.Now()
		r.stop()
		if d := time.Since(at); d > 6*time.Second {
			t.Errorf("stopped after %v", d)
		}
		for what, c := range map[string]*pbxtest.Call{"talking": talking, "agent": agent, "ringing": ringing, "announced": announced} {
			if e := c.End(); e.Method != "BYE" || e.ByUs {
				t.Errorf("%s: ended %+v", what, e)
			}
		}
		if e := dialling.End(); e.Status != 503 {
			t.Errorf("dialling: ended %+v", e)
		}
		r.says("switch > 102 CANCEL", "102 > switch 487 Request Terminated (INVITE)")
		r.says("switch > carrier CANCEL")
		outcomes := map[store.Outcome]int{}
		for rec, err := range r.store.CallsByDay(today(), today()) {
			r.must(err)
			if rec.Cause != store.CauseShutdown {
				t.Errorf("cause %q of %+v", rec.Cause, rec)
			}
			outcomes[rec.Recording.Outcome]++
		}
		if outcomes[store.OutcomeOK] != 1 || outcomes[store.OutcomeNone] != 3 {
			t.Errorf("outcomes %v", outcomes)
		}
		r.stop = func() {}
	})
}

// TestStopWithDeadPeers: nobody answers the farewells; the switch stops all the
// same.
func TestStopWithDeadPeers(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.talk()
		time.Sleep(time.Second)
		r.net.Drop(func(netip.AddrPort, netip.AddrPort, []byte) bool { return true })
		at := time.Now()
		r.stop()
		if d := time.Since(at); d > 10*time.Second {
			t.Errorf("stopped after %v", d)
		}
		for rec, err := range r.store.CallsByDay(today(), today()) {
			r.must(err)
			ended(t, rec, store.CauseShutdown, store.OutcomeOK)
		}
		r.stop = func() {}
	})
}

// TestNobodyIsPassedOutsideUnrecorded: where calls are refused that cannot be
// recorded, no phone makes one by passing on a call between phones (S1.3-j).
func TestNobodyIsPassedOutsideUnrecorded(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103")
	cfg.RefuseUnrecorded = true
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first, _ := r.talk()
		time.Sleep(time.Second)
		first.Hangup()
		r.only()
		r.breakVault()
		second := r.call() // is found out by this one
		r.answeredBy("102")
		time.Sleep(5 * time.Second)
		second.Hangup()
		time.Sleep(time.Second)
		inside, err := r.phones["101"].Dial("103")
		r.must(err)
		r.must(inside.WaitAnswered(5 * time.Second))
		time.Sleep(time.Second)
		r.refer(inside, "0501502503", 403)
		inside.Hangup()
		time.Sleep(time.Second)
		r.quiet("carrier")
	})
}
