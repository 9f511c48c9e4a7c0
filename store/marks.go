package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Outage is a time in which the vault was not open, or was and Run did not
// mark it. It explains a gap to the guard of the sweep.
type Outage struct {
	From, To time.Time
	Orderly  bool // began with Close, not with a crash
}

// Outages returns all of them, oldest first.
func (s *Store) Outages() (list []Outage, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOutages).ForEach(func(_, v []byte) error {
			var o Outage
			if err := getJSON(v, &o); err != nil {
				return err
			}
			list = append(list, o)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read outages: %w", err)
	}
	return list, nil
}

// aliveMark is the newest sign of life.
type aliveMark struct {
	At      time.Time
	Stopped bool `json:",omitempty"`
	// Boot names the start of the machine, Up is how long ago it was: from these
	// the guard of the sweep knows how much time passed, whatever the clock says.
	Boot string        `json:",omitempty"`
	Up   time.Duration `json:",omitempty"`
}

var keyAlive = []byte("alive")

// beatSeen is the last look at the clock in this run.
type beatSeen struct {
	at time.Time // with Go's monotonic reading
	up time.Duration
}

// markStart notes the outage that ends now and what the guard makes of it.
func (s *Store) markStart(now time.Time) error {
	boot, up, known := s.clockFacts.uptime()
	synchronised := s.clockFacts.synchronised()
	var clock clockState
	err := s.central.update(func(tx *bbolt.Tx) error {
		clock = clockState{}
		marks := tx.Bucket(bucketMarks)
		if text := marks.Get(keyClock); text != nil {
			if err := getJSON(text, &clock); err != nil {
				return err
			}
		}
		if text := marks.Get(keyAlive); text != nil {
			var last aliveMark
			if err := getJSON(text, &last); err != nil {
				return err
			}
			clock = startShift(clock, last, now, boot, up, known)
			key := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
			o := Outage{From: last.At, To: utc(now), Orderly: last.Stopped}
			if err := putJSON(tx.Bucket(bucketOutages), key, o); err != nil {
				return err
			}
		}
		clock = clock.settled(synchronised)
		return putMarks(tx, clock, aliveMark{At: utc(now), Boot: boot, Up: up})
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.clock, s.seen = clock, beatSeen{now, up}
	s.mu.Unlock()
	return nil
}

func (s *Store) beat(now time.Time) error     { return s.mark(now, false) }
func (s *Store) markStop(now time.Time) error { return s.mark(now, true) }

// mark notes a sign of life and looks whether the clock was moved since the
// last one.
func (s *Store) mark(now time.Time, stopped bool) error {
	s.lineMu.Lock() // one at a time, and none while a clock is confirmed
	defer s.lineMu.Unlock()
	s.mu.Lock()
	clock, seen := s.clock, s.seen
	s.mu.Unlock()
	boot, up, known := s.clockFacts.uptime()
	wall := now.Round(0).Sub(seen.at.Round(0))
	if shift := shiftOf(wall, now.Sub(seen.at), up-seen.up, known); shift != 0 {
		clock = clock.moved(shift, now)
		if shift.Abs() >= clockTolerance {
			s.log.Error("the clock was moved", "by", shift)
		}
	}
	clock = clock.settled(s.clockFacts.synchronised())
	err := s.central.update(func(tx *bbolt.Tx) error {
		return putMarks(tx, clock, aliveMark{At: utc(now), Stopped: stopped, Boot: boot, Up: up})
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.clock, s.seen = clock, beatSeen{now, up}
	s.mu.Unlock()
	return nil
}

func putMarks(tx *bbolt.Tx, clock clockState, alive aliveMark) error {
	marks := tx.Bucket(bucketMarks)
	if err := putJSON(marks, keyClock, clock); err != nil {
		return err
	}
	return putJSON(marks, keyAlive, alive)
}
