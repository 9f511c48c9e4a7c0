package pbx_test

import (
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// hoursCity is briefCity whose queue has hours. Bubbles begin on a Saturday at
// 01:00 in Warsaw, New Year of 2000.
func hoursCity(t *testing.T, week string, phones ...string) pbx.Config {
	cfg := briefCity(t, phones...)
	cfg.Hours = []desk.HoursConfig{{Name: "cim", Week: []string{week}}}
	cfg.Queues[0].Hours = "cim"
	return cfg
}

// hearsClosed asserts that a caller hears the announcement, then the closing
// message, and is let go.
func (r *rig) hearsClosed() {
	r.t.Helper()
	call := r.call()
	r.must(call.WaitEnded(time.Minute))
	heard := call.Heard()
	a, m := pbxtest.Find(heard.PCM, briefWords()), pbxtest.Find(heard.PCM, prompt(r.t, "closed"))
	if !a.Whole() || !m.Whole() || m.From < a.To-20*time.Millisecond {
		r.t.Errorf("announcement %+v, closing message %+v", a, m)
	}
}

// TestOverrideByHand: the line is closed and opened by hand without a reload, at
// once for new callers; who waits already is served.
func TestOverrideByHand(t *testing.T) {
	t.Parallel()
	scenario(t, hoursCity(t, "mon-sun 00:00-24:00", "101"), func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		waiting := r.call()
		time.Sleep(3 * time.Second)
		_, err := r.store.SetOverride(store.Override{Hours: "cim", From: time.Now(), Until: time.Now().Add(2 * time.Hour), By: "anna", Reason: "awaria"})
		r.must(err)
		if st := r.sw.Status().Queues[0]; st.Open || st.Waiting != 1 {
			t.Errorf("queue %+v", st)
		}
		r.hearsClosed()
		r.pool.SetReady("101")
		agent := r.answeredBy("101")
		agent.Hangup()
		r.must(waiting.WaitEnded(time.Second))
		_, err = r.store.ClearOverride("cim", "anna", "naprawiono")
		r.must(err)
		again := r.call()
		r.answeredBy("101")
		again.Hangup()
		causes := map[store.Cause]int{}
		for _, rec := range r.records() {
			causes[rec.Cause]++
		}
		if causes[store.CauseClosed] != 1 || causes[store.CauseHangupCalled] != 1 || causes[store.CauseHangupCaller] != 1 {
			t.Errorf("causes %v", causes)
		}
	})
}

// TestClosingTime: who waits when the hours end is still served, who calls later
// hears that it is closed.
func TestClosingTime(t *testing.T) {
	t.Parallel()
	scenario(t, hoursCity(t, "sat 00:00-01:01", "101"), func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		waiting := r.call()
		time.Sleep(61 * time.Second)
		r.hearsClosed()
		r.pool.SetReady("101")
		r.answeredBy("101")
		waiting.Hangup()
		r.records()
	})
}

// TestReloadedHours: hours that the file changes hold for a queue that it does
// not.
func TestReloadedHours(t *testing.T) {
	t.Parallel()
	cfg := hoursCity(t, "sat 00:00-02:00", "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		call := r.call()
		r.answeredBy("101")
		call.Hangup()
		cfg.Hours = []desk.HoursConfig{{Name: "cim", Week: []string{"mon-fri 07:30-15:30"}}}
		_, err := r.sw.Reload(cfg)
		r.must(err)
		r.hearsClosed()
		r.records()
	})
}
