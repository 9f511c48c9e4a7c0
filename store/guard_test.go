package store

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

// machine is a computer whose clock the test sets: bubble time is what passes,
// offset is by how much its clock is off.
type machine struct {
	boot   string
	booted time.Time
	synced bool
	moved  time.Duration // by how much the clock was moved: time passed less by that
}

func (m *machine) facts() *clockFacts {
	return &clockFacts{
		synchronised: func() bool { return m.synced },
		uptime: func() (string, time.Duration, bool) {
			return m.boot, time.Since(m.booted) - m.moved, true
		},
	}
}

// TestGuardOfTheClock: what holds the sweep between two runs of the vault, and
// what does not (S6-j).
func TestGuardOfTheClock(t *testing.T) {
	const half = 200 * 24 * time.Hour
	for name, c := range map[string]struct {
		away  func(m *machine) // between the runs
		held  string
		later func(m *machine) // what then lets it go on
	}{
		"the same start of the machine, time passed": {away: func(*machine) { time.Sleep(half) }},
		"weeks off, synchronised": {away: func(m *machine) {
			time.Sleep(half)
			m.boot, m.booted = "second", time.Now()
		}},
		"weeks off, not synchronised": {
			away: func(m *machine) {
				time.Sleep(half)
				m.boot, m.booted, m.synced = "second", time.Now(), false
			},
			held: "outage of 4800h", later: func(m *machine) { m.synced = true },
		},
		"moved without a reason": {
			away: func(m *machine) { time.Sleep(half); m.moved = half - time.Hour },
			held: "the clock was moved by 4799h",
		},
		"moved, and synchronised to nonsense": {
			away: func(m *machine) { time.Sleep(half); m.moved = half },
			held: "the clock was moved by 4800h",
		},
		"not synchronised": {
			away: func(m *machine) { time.Sleep(half); m.synced = false },
			held: "not synchronised", later: func(m *machine) { m.synced = true },
		},
		"a step smaller than the time after midnight": {away: func(m *machine) { time.Sleep(half); m.moved = 4 * time.Minute }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{boot: "first", booted: time.Now(), synced: true}
				s := openTest(t, Config{clock: m.facts()})
				rec := record(t, s, call(ordinance.DayOf(time.Now()), 0), []byte("due"))
				closeTest(t, s)
				c.away(m)
				s = openTest(t, Config{Dir: s.cfg.Dir, clock: m.facts()})
				defer closeTest(t, s)
				report, err := s.Sweep(t.Context(), time.Now())
				if c.held == "" {
					must(t, err)
					expectGone(t, s, rec)
					return
				}
				held, ok := errors.AsType[*HeldError](err)
				if !ok || !strings.Contains(held.Reason, c.held) || report.Held != held.Reason || len(report.Days) > 0 || s.LastSweep().Held == "" {
					t.Fatalf("swept: %+v, %v; want held: %s", report, err, c.held)
				}
				if _, err := s.Call(rec.Day, rec.ID); err != nil {
					t.Errorf("held, and yet: %v", err)
				}
				if c.later != nil {
					c.later(m)
				} else {
					if _, err := s.ConfirmClock("admin", " "); err == nil {
						t.Error("confirmed without a reason")
					}
					_, err := s.ConfirmClock("admin", "checked against another clock")
					must(t, err)
				}
				report, err = s.Sweep(t.Context(), time.Now())
				must(t, err)
				if len(report.Days) != 1 || report.Days[0].Late < 10 || report.Held != "" {
					t.Errorf("report %+v", report)
				}
				expectGone(t, s, rec)
				if list, err := s.Confirmations(); err != nil || (c.later == nil) != (len(list) == 1) {
					t.Errorf("confirmations %+v, %v", list, err)
				}
				if _, err := s.ConfirmClock("admin", "once more"); err == nil {
					t.Error("confirmed although nothing is held")
				}
			})
		})
	}
}

// TestClockMovedWhileRunning: Run notices, holds the sweep, survives a restart
// with that, and goes on at once when the clock is confirmed, or was moved back.
func TestClockMovedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{boot: "first", booted: time.Now(), synced: true}
		s := openTest(t, Config{clock: m.facts()})
		rec := record(t, s, call(ordinance.DayOf(time.Now()), 0), []byte("due"))
		later := record(t, s, call(ordinance.DayOf(time.Now()).Next(90), 0), []byte("due later"))
		time.Sleep(200 * 24 * time.Hour)
		// A clock that was moved by 200 days, as mark sees it.
		s.mu.Lock()
		s.clock = s.clock.moved(200*24*time.Hour, time.Now())
		s.mu.Unlock()
		must(t, s.beat(time.Now()))
		closeTest(t, s)
		s = openTest(t, Config{Dir: s.cfg.Dir, clock: m.facts(), Heartbeat: 12 * time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(48 * time.Hour)
		if s.LastSweep().Held == "" {
			t.Fatalf("last sweep %+v", s.LastSweep())
		}
		if _, err := s.Call(rec.Day, rec.ID); err != nil {
			t.Error(err)
		}
		_, err := s.ConfirmClock("admin", "the clock is right")
		must(t, err)
		synctest.Wait()
		expectGone(t, s, rec)
		s.mu.Lock()
		s.clock = s.clock.moved(100*24*time.Hour, time.Now()).moved(-100*24*time.Hour, time.Now())
		s.mu.Unlock()
		if held := s.SweepHeld(); held != "" {
			t.Errorf("moved and moved back: %s", held)
		}
		time.Sleep(100 * 24 * time.Hour)
		expectGone(t, s, later)
		protocols, err := s.Protocols(ordinance.Day{}, ordinance.Day{})
		must(t, err)
		if n := len(protocols); n < 100 || len(protocols[n-1].Days) > 0 || protocols[n-1].Audit.Seq == 0 {
			t.Errorf("%d protocols, the last %+v", n, protocols[n-1])
		}
		check, err := s.VerifyAudit(t.Context(), nil, nil)
		if err != nil || check.Fault != "" || check.Events < 8 {
			t.Errorf("audit log: %+v, %v", check, err)
		}
		cancel()
		must(t, <-done)
		closeTest(t, s)
	})
}

// TestShiftOfTheClock: a step of the clock on the wall shows, the machine's
// sleep does not.
func TestShiftOfTheClock(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		wall, run, machine time.Duration
		known              bool
		want               time.Duration
	}{
		{time.Minute, time.Minute, time.Minute, true, 0},
		{day + time.Minute, time.Minute, time.Minute, true, day},
		{-day, time.Minute, time.Minute, true, -day - time.Minute},
		{day, time.Minute, day, true, 0}, // slept
		{day, time.Minute, 0, false, day - time.Minute},
		{2 * time.Minute, time.Minute, 2 * time.Minute, true, time.Minute}, // too little to matter
	} {
		if got := shiftOf(c.wall, c.run, c.machine, c.known); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	now := time.Now()
	if c := (clockState{}).moved(2*day, now); c.holds(true) == "" || c.holds(false) == "" {
		t.Errorf("%+v holds nothing", c)
	}
	// Where the machine could not say how long it was off, a step may be the
	// right time at last; only being synchronised tells.
	c := startShift(clockState{}, aliveMark{At: now.Add(-365 * day), Boot: "y"}, now, "x", time.Hour, true)
	c = c.moved(300*day, now)
	if c.holds(false) == "" || c.settled(true).holds(true) != "" {
		t.Errorf("%+v", c)
	}
}

// TestMachinesClock asks the real machine.
func TestMachinesClock(t *testing.T) {
	if !syncedAsAWhole {
		t.Log("not Linux: nothing is known")
		return
	}
	boot, up, ok := osClock.uptime()
	if !ok || boot == "" || up <= 0 {
		t.Errorf("%q, %v, %v", boot, up, ok)
	}
	_ = osClock.synchronised() // either is true of some machine
	root, err := os.Open("/")
	must(t, err)
	defer root.Close() // only read
	if mounted, err := isMount(root, "proc"); err != nil || !mounted {
		t.Errorf("/proc: %v, %v", mounted, err)
	}
	if mounted, err := isMount(root, "usr/bin"); err != nil || mounted {
		t.Errorf("/usr/bin: %v, %v", mounted, err)
	}
}
