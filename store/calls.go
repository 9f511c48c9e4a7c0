package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Buckets of a day.db. The keys of the indexes end in the call's beginning (8
// bytes) and id; by-number and by-agent keys begin with length and text.
var (
	bucketCalls     = []byte("calls")     // id -> CallRecord
	bucketTime      = []byte("time")      // all calls
	bucketNumber    = []byte("number")    // by the citizen's number
	bucketAgent     = []byte("agent")     // by extension
	bucketOpen      = []byte("open")      // calls without a cause
	bucketIncidents = []byte("incidents") // recording failed or degraded (S1.3-j)
	bucketMoved     = []byte("moved")     // id -> day that the record has yet to leave
	bucketTotals    = []byte("totals")    // "cause/"+cause, "recordings", "bytes" -> count
	bucketKeys      = []byte("keys")      // name -> random key that goes with the day
	bucketUnserved  = []byte("unserved")  // callers who waited in vain
	bucketCallbacks = []byte("callbacks") // id -> []CallbackMark
	// hour, kind, name -> QueueHour or AgentHour
	bucketStatistics = []byte("statistics")
	dayBuckets       = [][]byte{bucketCalls, bucketTime, bucketNumber, bucketAgent, bucketOpen,
		bucketIncidents, bucketMoved, bucketTotals, bucketKeys, bucketLadders,
		bucketUnserved, bucketCallbacks, bucketStatistics}
)

// PutCall stores the record of a call, new or as it is now, under rec.Day and
// rec.ID, and returns when that is durable. Of two states of a call the one of
// the higher Revision stays, and an ended one is never opened again, whatever
// order they come in; a state from before MoveCall changes nothing. A recording
// that was committed for the call stays in the record, whatever rec.Recording
// says.
func (s *Store) PutCall(rec CallRecord) error {
	s.mu.Lock()
	day, moved := s.moved[rec.ID]
	s.mu.Unlock()
	if moved && day != rec.Day {
		return nil
	}
	return s.putCall(rec, func(tx *bbolt.Tx, rec CallRecord) error {
		old, err := getCall(tx, rec.ID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && (old.Revision > rec.Revision || old.Cause != "" && rec.Cause == "") {
			return nil
		}
		if old.Recording.SHA256 != "" {
			rec.Recording = old.Recording
		}
		return storeCall(tx, rec)
	})
}

// putCall does put in the day's next transaction.
func (s *Store) putCall(rec CallRecord, put func(*bbolt.Tx, CallRecord) error) error {
	rec, err := checked(rec)
	if err == nil {
		var p *partition
		if p, err = s.acquire(rec.Day, true); err == nil {
			defer s.yield(p)
			err = p.update(func(tx *bbolt.Tx) error {
				if err := s.unsettle(rec); err != nil {
					return err
				}
				return put(tx, rec)
			})
		}
	}
	if err != nil {
		return fmt.Errorf("put call %v of %v: %w", rec.ID, rec.Day, err)
	}
	return nil
}

// unsettle makes sure that a later start looks for the open call. It runs in
// the day's transaction, as settle does, so one of them sees the other.
func (s *Store) unsettle(rec CallRecord) error {
	if line, _ := s.line(rec.Day); !line.Settled || rec.Cause != "" {
		return nil
	}
	return s.changeLine(rec.Day, func(l *retentionLine) { l.Settled = false })
}

// checked refuses a record without identity and brings its times to UTC.
func checked(rec CallRecord) (CallRecord, error) {
	if rec.ID.IsZero() || rec.Day.IsZero() || rec.Began.IsZero() {
		return rec, errors.New("record lacks id, day or beginning")
	}
	for _, t := range []*time.Time{&rec.Began, &rec.Queued, &rec.Answered, &rec.Ended, &rec.Recording.Began} {
		*t = utc(*t)
	}
	rec.Rings = slices.Clone(rec.Rings)
	for i := range rec.Rings {
		rec.Rings[i].From, rec.Rings[i].To = utc(rec.Rings[i].From), utc(rec.Rings[i].To)
	}
	rec.Stays = slices.Clone(rec.Stays)
	for i := range rec.Stays {
		rec.Stays[i].From, rec.Stays[i].To = utc(rec.Stays[i].From), utc(rec.Stays[i].To)
	}
	rec.Segments = slices.Clone(rec.Segments)
	for i := range rec.Segments {
		rec.Segments[i].From, rec.Segments[i].To = utc(rec.Segments[i].From), utc(rec.Segments[i].To)
	}
	rec.Holds = slices.Clone(rec.Holds)
	for i := range rec.Holds {
		rec.Holds[i].From, rec.Holds[i].To = utc(rec.Holds[i].From), utc(rec.Holds[i].To)
	}
	if rec.Announcement != nil {
		a := *rec.Announcement
		a.Started, a.Ended = utc(a.Started), utc(a.Ended)
		rec.Announcement = &a
	}
	return rec, nil
}

// MoveCall stores rec under rec.Day and takes it out of the day from: for a
// call whose recording begins after the midnight that followed its INVITE.
//
// The new day's transaction comes first and notes where the record has still
// to leave; a crash in between leaves it in both days, and Open, which finds
// the note, takes it out of the old one. So the record is never in neither.
func (s *Store) MoveCall(rec CallRecord, from ordinance.Day) error {
	if rec.Day == from {
		return s.PutCall(rec)
	}
	s.mu.Lock()
	before, moved := s.moved[rec.ID]
	s.moved[rec.ID] = rec.Day // bars late states before the record can be seen
	s.mu.Unlock()
	err := s.putCall(rec, func(tx *bbolt.Tx, rec CallRecord) error {
		if err := tx.Bucket(bucketMoved).Put(rec.ID[:], []byte(from.String())); err != nil {
			return err
		}
		return storeCall(tx, rec)
	})
	if err != nil {
		s.mu.Lock()
		if s.moved[rec.ID] = before; !moved {
			delete(s.moved, rec.ID)
		}
		s.mu.Unlock()
		return err
	}
	return s.finishMove(rec.ID, from, rec.Day)
}

func (s *Store) finishMove(id ID, from, to ordinance.Day) error {
	err := s.change(from, func(tx *bbolt.Tx) error { return deleteCall(tx, id) })
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrGone) {
		err = s.change(to, func(tx *bbolt.Tx) error { return tx.Bucket(bucketMoved).Delete(id[:]) })
	}
	if err != nil {
		return fmt.Errorf("move call %v from %v to %v: %w", id, from, to, err)
	}
	return nil
}

func (s *Store) finishMoves(day ordinance.Day) error {
	moved := make(map[ID]ordinance.Day)
	err := s.look(day, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMoved).ForEach(func(k, v []byte) error {
			from, err := ordinance.ParseDay(string(v))
			if err != nil || len(k) != len(ID{}) {
				return fmt.Errorf("note of a moved call %x: %q", k, v)
			}
			moved[ID(k)] = from
			return nil
		})
	})
	for id, from := range moved {
		err = errors.Join(err, s.finishMove(id, from, day))
	}
	return err
}

// change does do in a transaction of a day that exists.
func (s *Store) change(day ordinance.Day, do func(*bbolt.Tx) error) error {
	p, err := s.acquire(day, false)
	if err != nil {
		return err
	}
	defer s.yield(p)
	return p.update(do)
}

// look does do in a reading transaction of a day that exists.
func (s *Store) look(day ordinance.Day, do func(*bbolt.Tx) error) error {
	p, err := s.acquire(day, false)
	if err != nil {
		return err
	}
	defer s.yield(p)
	return p.view(do)
}

// Call returns the record of a call of which the day is known.
func (s *Store) Call(day ordinance.Day, id ID) (rec CallRecord, err error) {
	err = s.look(day, func(tx *bbolt.Tx) error {
		rec, err = getCall(tx, id)
		return err
	})
	if err != nil {
		return CallRecord{}, fmt.Errorf("call %v of %v: %w", id, day, err)
	}
	return rec, nil
}

// Find returns the record of a call of any day, looking at the newest first.
func (s *Store) Find(id ID) (CallRecord, error) {
	var errs []error
	for _, day := range slices.Backward(s.keptDays(ordinance.Day{}, ordinance.Day{})) {
		rec, err := s.Call(day, id)
		if err == nil {
			return rec, nil
		}
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrGone) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return CallRecord{}, errors.Join(errs...)
	}
	return CallRecord{}, fmt.Errorf("call %v: %w", id, ErrNotFound)
}

// OpenCalls returns the calls that have no cause yet: after a start, those
// that the last run left.
func (s *Store) OpenCalls() ([]CallRecord, error) {
	var open []CallRecord
	for _, line := range s.keptLines() {
		if !line.Made || line.Settled {
			continue
		}
		for rec, err := range s.scan([]ordinance.Day{line.Day}, bucketOpen, nil) {
			if err != nil {
				return nil, fmt.Errorf("open calls: %w", err)
			}
			open = append(open, rec)
		}
	}
	return open, nil
}

// CallsByDay yields the calls of the days from..to in the order of days and,
// in each, of their beginnings. A zero day leaves that end open. An error is
// yielded in place of what could not be read; the rest follows.
func (s *Store) CallsByDay(from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(s.keptDays(from, to), bucketTime, nil)
}

// CallsByNumber yields the calls of a citizen's number: of the caller, if the
// call came in and the number was not withheld, of the called, if it went out.
// Order and errors are those of CallsByDay.
func (s *Store) CallsByNumber(n ordinance.Number, from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(s.keptDays(from, to), bucketNumber, indexPrefix(n.E164()))
}

// CallsByAgent yields the calls that a phone answered or placed. Order and
// errors are those of CallsByDay.
func (s *Store) CallsByAgent(ext string, from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(s.keptDays(from, to), bucketAgent, indexPrefix(ext))
}

// Incidents yields the calls whose recording failed or is degraded (S1.3-j).
// Order and errors are those of CallsByDay.
func (s *Store) Incidents(from, to ordinance.Day) iter.Seq2[CallRecord, error] {
	return s.scan(s.keptDays(from, to), bucketIncidents, nil)
}

// CountByCause counts a day's calls by the cause of their end; the empty Cause
// stands for those that go on (S1.4-d).
func (s *Store) CountByCause(day ordinance.Day) (map[Cause]int, error) {
	t, err := s.totals(day)
	if errors.Is(err, errNoDay) {
		return map[Cause]int{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("count calls of %v: %w", day, err)
	}
	return t.causes, nil
}

// scanBatch is how many records one reading transaction copies. Between
// transactions the consumer runs, for as long as it likes.
const scanBatch = 128

// scan yields the records that a bucket lists under keys with a prefix.
func (s *Store) scan(days []ordinance.Day, bucket, prefix []byte) iter.Seq2[CallRecord, error] {
	type found struct {
		rec CallRecord
		err error
	}
	return func(yield func(CallRecord, error) bool) {
		var batch []found
		for _, day := range days {
			last := prefix
			for more := true; more; {
				batch, more = batch[:0], false
				err := s.look(day, func(tx *bbolt.Tx) error {
					c := tx.Bucket(bucket).Cursor()
					k, _ := c.Seek(last)
					if k != nil && len(last) > len(prefix) && bytes.Equal(k, last) {
						k, _ = c.Next()
					}
					for ; k != nil && bytes.HasPrefix(k, prefix) && len(k) > len(ID{}); k, _ = c.Next() {
						if len(batch) == scanBatch {
							more = true
							break
						}
						rec, err := getCall(tx, ID(k[len(k)-len(ID{}):]))
						batch = append(batch, found{rec, err})
						last = append(last[:0:0], k...)
					}
					return nil
				})
				for _, f := range batch {
					if !yield(f.rec, f.err) {
						return
					}
				}
				if err != nil && !errors.Is(err, ErrGone) && !yield(CallRecord{}, fmt.Errorf("calls of %v: %w", day, err)) {
					return
				}
			}
		}
	}
}

func getCall(tx *bbolt.Tx, id ID) (rec CallRecord, err error) {
	text := tx.Bucket(bucketCalls).Get(id[:])
	if text == nil {
		return rec, ErrNotFound
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return CallRecord{}, fmt.Errorf("record of call %v: %w", id, err)
	}
	return rec, nil
}

// storeCall puts a record in place of the one with its id and brings indexes,
// totals and statistics up to date.
func storeCall(tx *bbolt.Tx, rec CallRecord) error {
	old, err := getCall(tx, rec.ID)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	before := &old
	if !known {
		before = nil
	} else if len(rec.Tags) == 0 {
		rec.Tags = old.Tags
	}
	if err := countChange(tx, before, &rec); err != nil {
		return err
	}
	if known {
		if err := unlist(tx, &old); err != nil {
			return err
		}
	}
	if err := putJSON(tx.Bucket(bucketCalls), rec.ID[:], rec); err != nil {
		return err
	}
	for _, e := range indexEntries(&rec) {
		if err := tx.Bucket(e.bucket).Put(e.key, nil); err != nil {
			return err
		}
	}
	return addTotals(tx, &rec, +1)
}

// deleteCall takes a record out if it is there. Its bytes stay in free pages
// until the day goes.
func deleteCall(tx *bbolt.Tx, id ID) error {
	old, err := getCall(tx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := countChange(tx, &old, nil); err != nil {
		return err
	}
	if err := unlist(tx, &old); err != nil {
		return err
	}
	return tx.Bucket(bucketCalls).Delete(id[:])
}

// unlist takes a record out of indexes and totals.
func unlist(tx *bbolt.Tx, old *CallRecord) error {
	for _, e := range indexEntries(old) {
		if err := tx.Bucket(e.bucket).Delete(e.key); err != nil {
			return err
		}
	}
	return addTotals(tx, old, -1)
}

type indexEntry struct{ bucket, key []byte }

// indexEntries derives a record's places in the indexes from nothing but the
// record, so that the old one's can be taken out.
func indexEntries(rec *CallRecord) []indexEntry {
	suffix := binary.BigEndian.AppendUint64(nil, uint64(rec.Began.UnixNano())^1<<63) // negative before positive
	suffix = append(suffix, rec.ID[:]...)
	list := []indexEntry{{bucketTime, suffix}}
	under := func(bucket []byte, text string) {
		if text != "" {
			list = append(list, indexEntry{bucket, append(indexPrefix(text), suffix...)})
		}
	}
	switch rec.Direction {
	case Incoming:
		under(bucketNumber, rec.Caller.Number.E164())
	case Outgoing:
		under(bucketNumber, rec.Called.E164())
	}
	agents := []string{rec.Extension}
	for _, seg := range rec.Segments {
		agents = append(agents, seg.Extension)
	}
	for _, ring := range rec.Rings {
		if ring.Result == "answered" {
			agents = append(agents, ring.Extension)
		}
	}
	slices.Sort(agents)
	for _, ext := range slices.Compact(agents) {
		under(bucketAgent, ext)
	}
	if rec.Cause == "" {
		list = append(list, indexEntry{bucketOpen, suffix})
	}
	if rec.Unserved() {
		list = append(list, indexEntry{bucketUnserved, suffix})
	}
	if o := rec.Recording.Outcome; o == OutcomeFailed || o == OutcomeDegraded {
		list = append(list, indexEntry{bucketIncidents, suffix})
	}
	return list
}

// indexPrefix is length and text: no text's entries fall among another's.
func indexPrefix(text string) []byte {
	text = text[:min(len(text), 255)]
	return append([]byte{byte(len(text))}, text...)
}
