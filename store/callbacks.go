package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Callback is a caller who waited in a queue and was not served, to be called
// back by the staff. It is read from the days' records and gone with them.
type Callback struct {
	Number ordinance.Number
	Day    ordinance.Day // of the last vain call
	Call   ID            // the last vain call
	Queue  string        // the queue that it waited in
	First  time.Time     // beginning of the first vain call of the days asked for
	Last   time.Time     // beginning of the last
	Waited time.Duration // in the last
	Times  int           // vain calls
	// Attempts counts calls from the office since then that were not answered.
	Attempts int
	// Done: since the last vain call the office reached the number or the caller
	// an agent, or somebody has marked it.
	Done   bool
	DoneAt time.Time
	DoneBy CallbackEnd
	By     string // who marked it
}

// CallbackEnd says how a callback was settled.
type CallbackEnd string

const (
	CalledBack  CallbackEnd = "called_back"  // an answered call to the number
	CalledAgain CallbackEnd = "called_again" // an answered call from it
	Marked      CallbackEnd = "marked"       // by hand
)

// CallbackMark is one marking by hand; the last one of a call holds.
type CallbackMark struct {
	At   time.Time
	By   string
	Done bool
}

// Callbacks lists the callers of the days from..to who gave up or were let go
// while they waited, the one who called last first, and counts the vain calls
// whose number was withheld. A zero day leaves that end open.
func (s *Store) Callbacks(from, to ordinance.Day) (list []Callback, withheld int, err error) {
	at := map[ordinance.Number]int{}
	for rec, err := range s.scan(s.keptDays(from, to), bucketUnserved, nil) {
		if err != nil {
			return nil, 0, fmt.Errorf("callbacks: %w", err)
		}
		if !rec.Caller.Identifiable() {
			withheld++
			continue
		}
		i, known := at[rec.Caller.Number]
		if !known {
			i = len(list)
			at[rec.Caller.Number] = i
			list = append(list, Callback{Number: rec.Caller.Number, First: rec.Began})
		}
		cb := &list[i]
		cb.Times++
		if !rec.Began.Before(cb.Last) {
			cb.Day, cb.Call, cb.Queue, cb.Last = rec.Day, rec.ID, rec.Queue, rec.Began
			cb.Waited = lasted(rec.Queued, rec.Ended)
		}
	}
	for i := range list {
		if err := s.settleCallback(&list[i]); err != nil {
			return nil, 0, fmt.Errorf("callbacks: %w", err)
		}
	}
	slices.SortFunc(list, func(a, b Callback) int { return b.Last.Compare(a.Last) })
	return list, withheld, nil
}

// settleCallback looks at what happened since the last vain call.
func (s *Store) settleCallback(cb *Callback) error {
	for rec, err := range s.CallsByNumber(cb.Number, cb.Day, ordinance.Day{}) {
		if err != nil {
			return err
		}
		switch {
		case rec.ID == cb.Call || rec.Began.Before(cb.Last):
		case !rec.Answered.IsZero():
			if !cb.Done {
				cb.Done, cb.DoneAt, cb.DoneBy = true, rec.Answered, CalledAgain
				if rec.Direction == Outgoing {
					cb.DoneBy = CalledBack
				}
			}
		case rec.Direction == Outgoing && rec.Cause != "":
			cb.Attempts++
		}
	}
	if cb.Done {
		return nil
	}
	marks, err := s.CallbackMarks(cb.Day, cb.Call)
	if err != nil || len(marks) == 0 {
		return err
	}
	if last := marks[len(marks)-1]; last.Done {
		cb.Done, cb.DoneAt, cb.DoneBy, cb.By = true, last.At, Marked, last.By
	}
	return nil
}

// MarkCallback notes by hand that the caller of a vain call was called back, or
// takes that note back. Notes are kept as a trace and go with the call's day.
func (s *Store) MarkCallback(day ordinance.Day, id ID, by string, done bool) error {
	mark := CallbackMark{At: utc(time.Now()), By: strings.TrimSpace(by), Done: done}
	err := errors.New("it lacks who does it")
	if mark.By != "" {
		err = s.change(day, func(tx *bbolt.Tx) error {
			rec, err := getCall(tx, id)
			if err != nil {
				return err
			}
			if !rec.Unserved() {
				return errors.New("its caller did not wait in vain")
			}
			marks, err := readCell[[]CallbackMark](tx.Bucket(bucketCallbacks), id[:])
			if err != nil {
				return err
			}
			return putJSON(tx.Bucket(bucketCallbacks), id[:], append(marks, mark))
		})
	}
	if err != nil {
		return fmt.Errorf("mark callback of call %v of %v: %w", id, day, err)
	}
	return nil
}

// CallbackMarks returns the notes of a call, oldest first.
func (s *Store) CallbackMarks(day ordinance.Day, id ID) (marks []CallbackMark, err error) {
	err = s.look(day, func(tx *bbolt.Tx) error {
		marks, err = readCell[[]CallbackMark](tx.Bucket(bucketCallbacks), id[:])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("callback marks of call %v of %v: %w", id, day, err)
	}
	return marks, nil
}

// Unserved tells whether a call waited in a queue and ended without a
// conversation.
func (rec *CallRecord) Unserved() bool {
	return rec.Direction == Incoming && rec.Cause != "" && !rec.Queued.IsZero() && rec.Answered.IsZero()
}
