package media

import (
	"math"
	"testing"
	"time"
)

// TestMOS holds the estimate against values worked out from ITU-T G.107 by hand,
// and against what any estimate must do.
func TestMOS(t *testing.T) {
	for _, c := range []struct {
		loss, burst float64
		delay       time.Duration
		want        float64
	}{
		{0, 1, 0, 4.41},                      // R 93.2
		{0.01, 1, 0, 4.33},                   // Ie,eff 3.64, R 89.56
		{0.05, 1, 0, 3.92},                   // Ie,eff 15.78, R 77.42
		{0.20, 1, 0, 2.63},                   // Ie,eff 42.13, R 51.07
		{0, 1, 150 * time.Millisecond, 4.41}, // Idd 0.17
		{0, 1, 400 * time.Millisecond, 3.56}, // Idd 24.07, R 69.13
		{0.05, 3, 0, 3.84},                   // Ie,eff 17.74, R 75.46
		{1, 1, time.Second, 1},               // Idd 42, Ie,eff 76
	} {
		if got := MOS(c.loss, c.burst, c.delay); math.Abs(got-c.want) > 0.006 {
			t.Errorf("MOS(%v, %v, %v) = %.3f, want %.2f", c.loss, c.burst, c.delay, got, c.want)
		}
	}
	last := 5.
	for loss := 0.; loss <= 1; loss += 0.01 {
		if got := MOS(loss, 1, 0); got > last || got < 1 {
			t.Fatalf("more loss (%v) sounds better: %v after %v", loss, got, last)
		} else {
			last = got
		}
	}
}

// TestReceptionCountsOnce: what is late, what came twice and what never came are
// told apart, and a copy does not make up for a loss.
func TestReceptionCountsOnce(t *testing.T) {
	var r reception
	for _, seq := range []uint16{65533, 65534, 65534, 1, 0, 0, 65535, 5, 5, 4, 7} { // 2 3 6 never came
		r.note(seq, 0, 1, 0, false)
	}
	if r.lost() != 3 || r.late != 3 || r.twice != 3 || r.gaps != 3 {
		t.Errorf("lost %d late %d twice %d gaps %d", r.lost(), r.late, r.twice, r.gaps)
	}
	r.note(100, 0, 2, 0, false) // another sender
	r.note(103, 0, 2, 0, false)
	r.note(103, 0, 2, 0, false)
	if r.lost() != 5 || r.late != 3 || r.twice != 4 || r.gaps != 4 {
		t.Errorf("after the restart: lost %d late %d twice %d gaps %d", r.lost(), r.late, r.twice, r.gaps)
	}
	r = reception{}
	r.note(1, 0, 1, 0, false)
	r.note(200, 0, 1, 0, false)
	r.note(120, 0, 1, 0, false) // beyond the window: late, once
	if r.lost() != 197 || r.late != 1 || r.twice != 0 {
		t.Errorf("far below: lost %d late %d twice %d", r.lost(), r.late, r.twice)
	}
}
