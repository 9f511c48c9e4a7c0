package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	bolt "go.etcd.io/bbolt"

	"centralka/ordinance"
)

// PutCall writes a call's record into its day and returns when it is durable.
// Of two records of one call the one with the higher Revision stays, whatever
// order they come in.
func (s *Store) PutCall(rec CallRecord) error {
	if rec.ID.IsZero() {
		return errors.New("put call: it has no id")
	}
	s.mu.Lock()
	now, moved := s.moved[rec.ID]
	s.mu.Unlock()
	if moved && now != rec.Day {
		return nil // an older state of a call that has moved on to another day
	}
	o, release, err := s.useDay(rec.Day, true)
	if err != nil {
		return fmt.Errorf("put call %v: %w", rec.ID, err)
	}
	defer release()
	if err := o.update(func(tx *bolt.Tx) error { return putCall(tx, rec) }); err != nil {
		return fmt.Errorf("put call %v: %w", rec.ID, err)
	}
	return nil
}

// MoveCall takes a call from the day of its INVITE to rec.Day, on which its
// recording began. It is written there first, so a crash in between leaves it
// twice; OpenCalls then drops the older one.
func (s *Store) MoveCall(rec CallRecord, from ordinance.Day) error {
	s.mu.Lock()
	s.moved[rec.ID] = rec.Day
	s.mu.Unlock()
	if err := s.PutCall(rec); err != nil {
		return err
	}
	return s.removeCall(from, rec.ID)
}

// removeCall takes a moved call off its old day. That day is dropped before the
// new one, so the bytes in its freed pages go first.
func (s *Store) removeCall(d ordinance.Day, id ID) error {
	o, release, err := s.useDay(d, false)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	return o.update(func(tx *bolt.Tx) error {
		old, err := getCall(tx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unindex(tx, old); err != nil {
			return err
		}
		return tx.Bucket(bucketCalls).Delete(id[:])
	})
}

func getCall(tx *bolt.Tx, id ID) (CallRecord, error) {
	v := tx.Bucket(bucketCalls).Get(id[:])
	if v == nil {
		return CallRecord{}, fmt.Errorf("call %v: %w", id, ErrNotFound)
	}
	var rec CallRecord
	if err := json.Unmarshal(v, &rec); err != nil {
		return CallRecord{}, fmt.Errorf("call %v: %w", id, err)
	}
	return rec, nil
}

func putCall(tx *bolt.Tx, rec CallRecord) error {
	old, err := getCall(tx, rec.ID)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case old.Revision > rec.Revision, old.Cause != "" && rec.Cause == "":
		return nil
	default:
		if err := unindex(tx, old); err != nil {
			return err
		}
	}
	v, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketCalls).Put(rec.ID[:], v); err != nil {
		return err
	}
	for _, k := range indexKeys(rec) {
		if err := tx.Bucket(k.bucket).Put(k.key, nil); err != nil {
			return err
		}
	}
	return nil
}

func unindex(tx *bolt.Tx, rec CallRecord) error {
	for _, k := range indexKeys(rec) {
		if err := tx.Bucket(k.bucket).Delete(k.key); err != nil {
			return err
		}
	}
	return nil
}

type indexKey struct{ bucket, key []byte }

// indexKeys are all keys under which a record is found. Each ends with the
// call's time and id.
func indexKeys(rec CallRecord) []indexKey {
	tail := binary.BigEndian.AppendUint64(nil, uint64(rec.Began.UnixNano()))
	tail = append(tail, rec.ID[:]...)
	keys := []indexKey{{bucketByTime, tail}}
	if n := rec.Citizen(); n != "" {
		keys = append(keys, indexKey{bucketByNumber, prefixed(n.E164(), tail)})
	}
	for _, ext := range rec.Agents() {
		keys = append(keys, indexKey{bucketByAgent, prefixed(ext, tail)})
	}
	if rec.Cause == "" {
		keys = append(keys, indexKey{bucketOpen, rec.ID[:]})
	}
	if o := rec.Recording.Outcome; o == OutcomeFailed || o == OutcomeDegraded {
		keys = append(keys, indexKey{bucketIncidents, tail})
	}
	return keys
}

func prefixed(s string, tail []byte) []byte {
	return append(append([]byte(s), 0), tail...)
}

// Call returns one call's record.
func (s *Store) Call(d ordinance.Day, id ID) (CallRecord, error) {
	o, release, err := s.useDay(d, false)
	if err != nil {
		return CallRecord{}, err
	}
	defer release()
	var rec CallRecord
	err = o.db.View(func(tx *bolt.Tx) (err error) {
		rec, err = getCall(tx, id)
		return err
	})
	return rec, err
}

// Find looks a call up in every day, newest first.
func (s *Store) Find(id ID) (CallRecord, error) {
	days := s.Days()
	slices.Reverse(days)
	for _, d := range days {
		rec, err := s.Call(d, id)
		if !errors.Is(err, ErrNotFound) {
			return rec, err
		}
	}
	return CallRecord{}, fmt.Errorf("call %v: %w", id, ErrNotFound)
}

// Days lists the days that are kept, in order.
func (s *Store) Days() []ordinance.Day {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ordinance.Day, 0, len(s.listed))
	for d := range s.listed {
		out = append(out, d)
	}
	slices.SortFunc(out, ordinance.Day.Compare)
	return out
}

// daysBetween lists the kept days of a range, both ends included; a zero Day is
// no limit.
func (s *Store) daysBetween(from, to ordinance.Day) []ordinance.Day {
	return slices.DeleteFunc(s.Days(), func(d ordinance.Day) bool {
		return !from.IsZero() && d.Compare(from) < 0 || !to.IsZero() && d.Compare(to) > 0
	})
}

// CallsByDay yields the calls of the days from and to and between, in order of
// time.
func (s *Store) CallsByDay(from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(from, to, bucketByTime, nil)
}

// CallsByNumber yields the calls of a citizen's number.
func (s *Store) CallsByNumber(n ordinance.Number, from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(from, to, bucketByNumber, prefixed(n.E164(), nil))
}

// CallsByAgent yields the calls that an extension placed or answered.
func (s *Store) CallsByAgent(ext string, from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(from, to, bucketByAgent, prefixed(ext, nil))
}

// Incidents yields the calls whose recording failed or is degraded (S1.3-j).
func (s *Store) Incidents(from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(from, to, bucketIncidents, nil)
}

// scanBatch is how many records one read transaction of a look-up copies: a
// long one would keep bbolt from reusing pages.
const scanBatch = 256

func (s *Store) scan(from, to ordinance.Day, bucket, prefix []byte) iter.Seq2[CallRecord, error] {
	return func(yield func(CallRecord, error) bool) {
		for _, d := range s.daysBetween(from, to) {
			after := prefix
			for {
				batch, last, err := s.scanDay(d, bucket, prefix, after)
				if errors.Is(err, ErrNotFound) {
					break
				}
				if err != nil {
					yield(CallRecord{}, err)
					return
				}
				for _, rec := range batch {
					if !yield(rec, nil) {
						return
					}
				}
				if last == nil {
					break
				}
				after = append(last, 0)
			}
		}
	}
}

// scanDay copies up to scanBatch records with keys from after on; last is the
// key to go on behind, nil at the end.
func (s *Store) scanDay(d ordinance.Day, bucket, prefix, after []byte) (batch []CallRecord, last []byte, err error) {
	o, release, err := s.useDay(d, false)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	err = o.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.Seek(after); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			rec, err := getCall(tx, ID(k[len(k)-16:]))
			if err != nil {
				return fmt.Errorf("day %v: index %s: %w", d, bucket, err)
			}
			batch = append(batch, rec)
			if len(batch) == scanBatch {
				last = bytes.Clone(k)
				return nil
			}
		}
		return nil
	})
	return batch, last, err
}

// OpenCalls lists the calls without a cause. Of one that a crash left in two
// days (see MoveCall) the older copy is dropped.
func (s *Store) OpenCalls() ([]CallRecord, error) {
	newest := map[ID]CallRecord{}
	for _, d := range s.Days() {
		o, release, err := s.useDay(d, false)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var found []CallRecord
		err = o.db.View(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketOpen).ForEach(func(k, _ []byte) error {
				rec, err := getCall(tx, ID(k))
				if err != nil {
					return err
				}
				found = append(found, rec)
				return nil
			})
		})
		release()
		if err != nil {
			return nil, fmt.Errorf("open calls of %v: %w", d, err)
		}
		for _, rec := range found {
			newest[rec.ID] = rec
			// The copy may also have been finished on the next day.
			if next, err := s.Call(d.Next(1), rec.ID); err == nil {
				if err := s.removeCall(d, rec.ID); err != nil {
					return nil, err
				}
				delete(newest, rec.ID)
				if next.Cause == "" {
					newest[rec.ID] = next
				}
			}
		}
	}
	out := make([]CallRecord, 0, len(newest))
	for _, rec := range newest {
		out = append(out, rec)
	}
	slices.SortFunc(out, func(a, b CallRecord) int { return a.Began.Compare(b.Began) })
	return out, nil
}

// CountByCause counts a day's ended calls by cause; open ones count under "".
func (s *Store) CountByCause(d ordinance.Day) (map[Cause]int, error) {
	out := map[Cause]int{}
	for rec, err := range s.CallsByDay(d, d) {
		if err != nil {
			return nil, err
		}
		out[rec.Cause]++
	}
	return out, nil
}

// Citizen is the number of the person that the call is with: the caller's, or
// the dialled one of an outgoing call (S4.7-e). It is empty if the caller
// withheld it, and for internal calls.
func (r CallRecord) Citizen() ordinance.Number {
	switch r.Direction {
	case Incoming:
		return r.Caller.Number
	case Outgoing:
		return r.Called
	}
	return ""
}

// Agents lists the extensions that placed the call or talked in it.
func (r CallRecord) Agents() []string {
	var out []string
	add := func(ext string) {
		if ext != "" && !slices.Contains(out, ext) {
			out = append(out, ext)
		}
	}
	add(r.Extension)
	for _, s := range r.Segments {
		add(s.Extension)
	}
	return out
}
