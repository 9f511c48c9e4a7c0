package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Buckets of centralka.db. None of them may hold a citizen's number or name.
var (
	bucketRetention  = []byte("retention")  // day -> retentionLine
	bucketTombstones = []byte("tombstones") // day, kind, id -> Tombstone
	bucketSweeps     = []byte("sweeps")     // cutoff day -> SweepReport
	bucketBindings   = []byte("bindings")   // extension -> []Binding
	bucketPhones     = []byte("phones")     // extension -> PhoneState
	bucketMarks      = []byte("marks")      // name -> value
	bucketOutages    = []byte("outages")    // end -> Outage
	bucketIntegrity  = []byte("integrity")  // day -> DayCheck
	bucketAudit      = []byte("audit")      // number -> line, see AuditEvent
	bucketAuditBy    = []byte("audit by")   // account or object, number -> nothing
	bucketClosures   = []byte("closures")   // id -> Closure
	bucketOverrides  = []byte("overrides")  // name of hours -> Override
	bucketUnits      = []byte("units")      // id -> Unit
	// instant -> Confirmation
	bucketConfirmations = []byte("confirmations")
	// day -> DayStatistics, of days that are settled or gone
	bucketDayStatistics = []byte("statistics")
	centralBuckets      = [][]byte{bucketRetention, bucketTombstones, bucketSweeps, bucketBindings, bucketPhones,
		bucketMarks, bucketOutages, bucketIntegrity, bucketClosures, bucketOverrides, bucketUnits,
		bucketAudit, bucketAuditBy, bucketDayStatistics, bucketConfirmations}
)

// dayState is where a day is on its way out; it only goes forward.
type dayState string

const (
	stateKept   dayState = "open"   // online
	stateDoomed dayState = "doomed" // its removal has begun and will be finished
	stateGone   dayState = "gone"   // removed, absence verified
)

// retentionLine is what the retention index says of a day.
type retentionLine struct {
	Day     ordinance.Day
	LastDay ordinance.Day // last day online, fixed when the day is made
	State   dayState
	// Made: the folder is durable. A line without it is a day that never had
	// anything.
	Made bool `json:",omitempty"`
	// Recipient is the public half of the day's key, set before the folder is
	// made.
	Recipient string `json:",omitempty"`
	// Settled: no call of the day is open or half moved, so a start need not
	// look.
	Settled bool `json:",omitempty"`
	// Counted when the day was doomed.
	Calls      int   `json:",omitempty"`
	Recordings int   `json:",omitempty"`
	Bytes      int64 `json:",omitempty"`
	// The removal: whose, when, how many tombstones and the SHA-256 of their
	// list.
	Job        ID        `json:",omitzero"`
	Removed    time.Time `json:",omitzero"`
	Tombstones int       `json:",omitempty"`
	ListSHA256 string    `json:",omitempty"`
}

func (s *Store) loadRetention() error {
	return s.central.view(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketRetention).ForEach(func(k, v []byte) error {
			var line retentionLine
			if err := json.Unmarshal(v, &line); err != nil {
				return fmt.Errorf("line %q: %w", k, err)
			}
			if line.Day.String() != string(k) {
				return fmt.Errorf("line %q speaks of %v", k, line.Day)
			}
			s.lines[line.Day] = line
			return nil
		})
		if err != nil {
			return err
		}
		if k, v := tx.Bucket(bucketSweeps).Cursor().Last(); k != nil {
			return json.Unmarshal(v, &s.lastSweep)
		}
		return nil
	})
}

func (s *Store) line(day ordinance.Day) (retentionLine, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, ok := s.lines[day]
	return line, ok
}

// changeLine changes a day's line and returns when that is durable.
func (s *Store) changeLine(day ordinance.Day, change func(*retentionLine)) error {
	return s.changeLineWith(day, func(_ *bbolt.Tx, l *retentionLine) error {
		change(l)
		return nil
	})
}

// changeLineWith lets change do more in the same transaction, which may be
// called more than once.
func (s *Store) changeLineWith(day ordinance.Day, change func(*bbolt.Tx, *retentionLine) error) error {
	s.lineMu.Lock()
	defer s.lineMu.Unlock()
	var line retentionLine
	err := s.central.update(func(tx *bbolt.Tx) error {
		line, _ = s.line(day)
		if err := change(tx, &line); err != nil {
			return err
		}
		return putJSON(tx.Bucket(bucketRetention), []byte(day.String()), line)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.lines[day] = line
	s.mu.Unlock()
	return nil
}

// bar shuts a day to readers and writers of this process at once, or opens it
// again.
func (s *Store) bar(day ordinance.Day, shut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if shut {
		s.barred[day] = true
	} else {
		delete(s.barred, day)
	}
}

// usable tells whether a listed day is online; s.mu is held.
func (s *Store) usable(line retentionLine) bool {
	return line.State == stateKept && !s.barred[line.Day]
}

// keptLines lists the days that are online, oldest first.
func (s *Store) keptLines() []retentionLine {
	return s.selectLines(s.usable)
}

// selectLines lists the lines that want, called with s.mu held, accepts.
func (s *Store) selectLines(want func(retentionLine) bool) []retentionLine {
	s.mu.Lock()
	var lines []retentionLine
	for _, line := range s.lines {
		if want(line) {
			lines = append(lines, line)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(lines, func(a, b retentionLine) int { return a.Day.Compare(b.Day) })
	return lines
}

// keptDays lists the days between from and to that are online, oldest first; a
// zero day leaves that end open.
func (s *Store) keptDays(from, to ordinance.Day) (days []ordinance.Day) {
	for _, line := range s.keptLines() {
		if line.Made && (from.IsZero() || line.Day.Compare(from) >= 0) && (to.IsZero() || line.Day.Compare(to) <= 0) {
			days = append(days, line.Day)
		}
	}
	return days
}

// settleDays marks days before yesterday on which nothing is open.
func (s *Store) settleDays(now time.Time) {
	yesterday := ordinance.DayOf(now).Next(-1)
	for _, line := range s.keptLines() {
		if !line.Made || line.Settled || line.Day.Compare(yesterday) >= 0 {
			continue
		}
		if err := s.settle(line.Day); err != nil && !errors.Is(err, ErrGone) {
			s.log.Error("settle day", "day", line.Day, "err", err)
		}
	}
}

func (s *Store) settle(day ordinance.Day) error {
	p, err := s.acquire(day, false)
	if err != nil {
		return err
	}
	defer s.yield(p)
	// Inside the day's transaction, so that no call is opened meanwhile.
	return p.update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketOpen, bucketMoved} {
			if k, _ := tx.Bucket(b).Cursor().First(); k != nil {
				return nil
			}
		}
		differs, err := recount(tx)
		if err != nil {
			return fmt.Errorf("count its records: %w", err)
		}
		if differs {
			s.log.Error("statistics were not what the records say; corrected", "day", day)
		}
		st, err := readStatistics(tx.Bucket(bucketStatistics))
		if err != nil {
			return err
		}
		return s.changeLineWith(day, func(central *bbolt.Tx, l *retentionLine) error {
			l.Settled = true
			return keepStatistics(central, day, st)
		})
	})
}

// DueDay is a day that a sweep will remove.
type DueDay struct {
	Day, LastDay ordinance.Day
	Calls        int
	Recordings   int
	Bytes        int64 // of the recordings
}

// Preview returns what the sweep of the day asOf will remove of what is in the
// vault now, oldest first (S0-b).
func (s *Store) Preview(asOf ordinance.Day) ([]DueDay, error) {
	var due []DueDay
	for _, line := range s.selectLines(func(l retentionLine) bool { return l.due(asOf) }) {
		d := DueDay{Day: line.Day, LastDay: line.LastDay, Calls: line.Calls, Recordings: line.Recordings, Bytes: line.Bytes}
		if line.State == stateKept && line.Made {
			t, err := s.totals(line.Day)
			if errors.Is(err, ErrGone) {
				continue // swept meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("preview sweep of %v: %w", asOf, err)
			}
			d.Calls, d.Recordings, d.Bytes = t.calls(), t.recordings, t.bytes
		}
		due = append(due, d)
	}
	return due, nil
}

// due tells whether the sweep of the day cutoff removes the line's day: its
// last day online is over, or its removal was begun.
func (l retentionLine) due(cutoff ordinance.Day) bool {
	return l.State == stateDoomed || l.State == stateKept && l.LastDay.Compare(cutoff) < 0
}

// totals of a day, kept up to date by every transaction that puts a call.
type totals struct {
	causes     map[Cause]int // "" counts open calls
	recordings int
	bytes      int64
	statistics *DayStatistics // nil: not read
}

func (t totals) calls() (n int) {
	for _, c := range t.causes {
		n += c
	}
	return n
}

func (s *Store) totals(day ordinance.Day) (t totals, err error) {
	p, err := s.acquire(day, false)
	if err != nil {
		return t, err
	}
	defer s.yield(p)
	err = p.view(func(tx *bbolt.Tx) error {
		t = readTotals(tx)
		return nil
	})
	return t, err
}

func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, text)
}
