package store

import (
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// The guard of the sweep (S6-j). A day is removed by the clock on the wall, so
// a clock that is wrong would remove what is not due. The guard holds the
// sweep if the clock
//
//   - was moved: between two signs of life it went on by more or less than time
//     did. Within a run that is measured by Go's monotonic clock, across runs by
//     the machine's own time since it was started;
//   - cannot be trusted: it is not synchronised, and nobody has confirmed it.
//     Across a start of the machine nothing tells how long that was off: a
//     synchronised clock explains such an outage, another does not.
//
// So four August days that end on one day of February, and weeks in which the
// machine was off, are no reason to hold. What is held goes on by itself when
// the reason is gone (the clock is synchronised, or was moved back), or when an
// administrator has confirmed with a reason that the clock is right. A removal
// that was begun is always finished.

// clockTolerance is how far the clock may be moved without holding the sweep:
// the sweep begins this long after midnight, so nothing goes early.
const clockTolerance = sweepDelay

// clockFacts is what the operating system knows of the clock. Tests in which
// time is not the machine's put their own here.
type clockFacts struct {
	synchronised func() bool
	// uptime names this start of the machine and tells how long ago it was, time
	// in suspension included; ok is false if that is not known.
	uptime func() (boot string, up time.Duration, ok bool)
}

// clockState is what the guard remembers. It is kept in centralka.db.
type clockState struct {
	// Shift is by how much the clock was moved since it was last confirmed.
	Shift time.Duration `json:",omitempty"`
	// Gap is an outage across a start of the machine, of which only the clock
	// tells how long it was; zero once the clock is synchronised.
	Gap   time.Duration `json:",omitempty"`
	Moved time.Time     `json:",omitzero"` // when the last of these was noticed, by the clock in question
	// Trusted: an administrator confirmed a clock that is not synchronised.
	Trusted bool `json:",omitempty"`
}

var keyClock = []byte("clock")

// holds tells why the sweep is held, "" if it is not.
func (c clockState) holds(synchronised bool) string {
	switch {
	case c.Shift.Abs() >= clockTolerance:
		return fmt.Sprintf("the clock was moved by %v, noticed at %s", c.Shift.Round(time.Second), c.Moved.Format(time.RFC3339))
	case synchronised:
		return ""
	case c.Gap.Abs() >= clockTolerance:
		return fmt.Sprintf("the machine was started after an outage of %v by a clock that is not synchronised", c.Gap.Round(time.Second))
	case !c.Trusted:
		return "the clock is not synchronised"
	}
	return ""
}

// moved takes in that the clock went on by shift more than time did.
func (c clockState) moved(shift time.Duration, now time.Time) clockState {
	if c.Gap != 0 { // nobody could say where it stood
		c.Gap += shift
	} else {
		c.Shift += shift
	}
	if shift.Abs() >= clockTolerance {
		c.Moved, c.Trusted = utc(now), false
	}
	return c
}

// settled takes in that the clock is synchronised.
func (c clockState) settled(synchronised bool) clockState {
	if synchronised {
		c.Gap, c.Trusted = 0, false
	}
	return c
}

// shiftOf is by how much the clock was moved between two looks at it in one
// run: it went on by wall, Go's clock by run, the machine's by machine, if that
// is known. In a machine that slept Go's clock stood still.
func shiftOf(wall, run, machine time.Duration, known bool) time.Duration {
	if shift := wall - run; shift.Abs() < clockTolerance || !known {
		return shift
	}
	return wall - machine
}

// startShift is what the guard makes of an outage.
func startShift(c clockState, last aliveMark, now time.Time, boot string, up time.Duration, known bool) clockState {
	gap := now.Round(0).Sub(last.At)
	if known && boot == last.Boot {
		return c.moved(gap-(up-last.Up), now)
	}
	if gap.Abs() >= clockTolerance {
		c.Gap += gap
		c.Moved, c.Trusted = utc(now), false
	}
	return c
}

// HeldError is why a sweep removed nothing although days are due.
type HeldError struct{ Reason string }

func (e *HeldError) Error() string { return "sweep is held: " + e.Reason }

// SweepHeld tells why the guard would hold a sweep now, "" if it would not.
func (s *Store) SweepHeld() string {
	s.mu.Lock()
	clock := s.clock
	s.mu.Unlock()
	return clock.holds(s.clockFacts.synchronised())
}

// Confirmation is an administrator's word that the clock is right.
type Confirmation struct {
	At     time.Time
	By     string
	Reason string
	Held   string // what the sweep was held for
}

// ConfirmClock lets a sweep that is held go on (S6-j). It fails if none is held.
func (s *Store) ConfirmClock(by, reason string) (Confirmation, error) {
	c := Confirmation{At: utc(time.Now()), By: strings.TrimSpace(by), Reason: strings.TrimSpace(reason)}
	if c.By == "" || c.Reason == "" {
		return c, fmt.Errorf("confirm the clock: say who and why")
	}
	s.lineMu.Lock()
	defer s.lineMu.Unlock()
	if c.Held = s.SweepHeld(); c.Held == "" {
		return c, fmt.Errorf("confirm the clock: no sweep is held")
	}
	trusted := clockState{Trusted: !s.clockFacts.synchronised()}
	err := s.central.update(func(tx *bbolt.Tx) error {
		if err := putJSON(tx.Bucket(bucketMarks), keyClock, trusted); err != nil {
			return err
		}
		key := []byte(c.At.Format(time.RFC3339Nano))
		if err := putJSON(tx.Bucket(bucketConfirmations), key, c); err != nil {
			return err
		}
		return appendAudit(tx, AuditEvent{
			Action: ActionClockConfirmed, Object: DayObject(ordinance.DayOf(c.At)), Outcome: Allowed,
		})
	})
	if err != nil {
		return c, fmt.Errorf("confirm the clock: %w", err)
	}
	s.mu.Lock()
	s.clock = trusted
	s.mu.Unlock()
	s.log.Warn("the clock was confirmed: the sweep goes on", "held", c.Held)
	select {
	case s.confirmed <- struct{}{}:
	default: // Run knows already
	}
	return c, nil
}

// Confirmations returns all of them, oldest first.
func (s *Store) Confirmations() (list []Confirmation, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketConfirmations).ForEach(func(_, v []byte) error {
			var c Confirmation
			if err := getJSON(v, &c); err != nil {
				return err
			}
			list = append(list, c)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read confirmations: %w", err)
	}
	return list, nil
}
