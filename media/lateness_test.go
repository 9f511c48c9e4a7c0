package media

import (
	"testing"
	"time"
)

// TestLateness: one hiccup shows in the maximum and hardly in the mean, lasting
// delay in both, and neither outlives its time.
func TestLateness(t *testing.T) {
	var p punctuality
	at := time.Duration(0)
	step := func(n int, late time.Duration) {
		for range n {
			at += 20 * time.Millisecond
			p.note(at-late, at)
		}
	}
	step(120, time.Millisecond)
	if got := p.lateness(at); got != (Lateness{time.Millisecond, time.Millisecond}) {
		t.Errorf("even: %+v", got)
	}
	step(1, 300*time.Millisecond)
	step(60, time.Millisecond)
	if got := p.lateness(at); got.Max != 300*time.Millisecond || got.Mean > 7*time.Millisecond {
		t.Errorf("a hiccup: %+v", got)
	}
	step(150, 80*time.Millisecond)
	if got := p.lateness(at); got.Mean != 80*time.Millisecond || got.Max != 80*time.Millisecond {
		t.Errorf("overload: %+v", got)
	}
	if got := p.lateness(at + 3*time.Second); got != (Lateness{}) {
		t.Errorf("long after: %+v", got)
	}
	at += time.Minute
	step(60, time.Millisecond)
	if got := p.lateness(at); got.Max != time.Millisecond {
		t.Errorf("after a pause: %+v", got)
	}
	step(200, -time.Second) // woken early
	if got := p.lateness(at); got != (Lateness{}) {
		t.Errorf("early: %+v", got)
	}
	if n := testing.AllocsPerRun(500, func() { step(1, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
