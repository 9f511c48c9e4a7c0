package desk

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestNobodyWaitsForEver: after Patience a caller is not passed over for higher
// priorities any more.
func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		p.SetAgents([]Agent{{ID: "1", ReadyOnRegister: true}})
		var served []string
		var low *Ticket
		wait := func(name string, priority int) *Ticket {
			return p.Wait(Request{Queue: name, Members: []AgentID{"1"}, Priority: priority, Since: time.Now(), Ring: 20 * time.Second,
				Offered: func(o []*Offer) { served = append(served, name); go func() { p.Busy("1", +1); o[0].Accept() }() }})
		}
		low = wait("low", 0)
		places := []int{low.Place(), wait("low", 1).Place(), low.Place()}
		if places[0] != 1 || places[1] != 1 || places[2] != 2 {
			t.Errorf("places %v, want 1, 1, 2", places)
		}
		wait("high", 5)
		serve := func() string {
			served = nil
			p.Available("1", true)
			synctest.Wait()
			p.Available("1", false)
			p.Busy("1", -1)
			return served[0]
		}
		if got := serve(); got != "high" {
			t.Errorf("%s was served first", got)
		}
		time.Sleep(Patience + time.Second)
		wait("high", 5)
		if got := serve(); got != "low" || low.Place() != 0 {
			t.Errorf("after ten minutes %v was served, and the one who came first is at %d", got, low.Place())
		}
	})
}

// TestForgottenRequestIsOfferedAgain: a holder that says nothing loses the
// agent at the deadline, and the request is not lost.
func TestForgottenRequestIsOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		ready(t, p, "1")
		told := make(chan time.Time, 4)
		p.Wait(Request{Queue: "q", Members: []AgentID{"1"}, Since: time.Now(), Ring: 20 * time.Second,
			Offered: func([]*Offer) { told <- time.Now() }})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		close(told)
		var offered []time.Time
		for at := range told {
			offered = append(offered, at)
		}
		if len(offered) != 2 || offered[1].Sub(offered[0]) != 30*time.Second {
			t.Errorf("offered at %v", offered)
		}
	})
}

func TestEstimator(t *testing.T) {
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	var e Estimator
	if _, ok := e.Expect(1, at); ok {
		t.Error("a guess from nothing")
	}
	for i := range 4 { // one every two minutes, all there from the beginning
		e.Answered(at.Add(time.Duration(i)*2*time.Minute), at.Add(-time.Minute))
	}
	now := at.Add(6 * time.Minute)
	for _, tc := range []struct {
		place int
		at    time.Time
		want  time.Duration
		ok    bool
	}{
		{1, now, 2 * time.Minute, true},
		{3, now, 6 * time.Minute, true},
		{1, now.Add(time.Minute), time.Minute, true},
		{2, now.Add(5 * time.Minute), 2 * time.Minute, true}, // overdue: not below the places before
		{0, now, 0, false},
		{1, now.Add(31 * time.Minute), 0, false},
	} {
		if got, ok := e.Expect(tc.place, tc.at); got != tc.want || ok != tc.ok {
			t.Errorf("place %d at +%v: %v %v, want %v %v", tc.place, tc.at.Sub(now), got, ok, tc.want, tc.ok)
		}
	}
	// A quiet hour says nothing of the pace.
	e.Answered(now.Add(time.Hour), now.Add(time.Hour-5*time.Second))
	if got, ok := e.Expect(1, now.Add(time.Hour)); !ok || got != 2*time.Minute {
		t.Errorf("after a quiet hour: %v %v", got, ok)
	}
}
