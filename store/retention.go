package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"centralka/ordinance"
)

// dayState is where a day stands on its way out.
type dayState string

const (
	stateOpen   dayState = "open"
	stateDoomed dayState = "doomed" // the intent to delete it is durable
	stateGone   dayState = "gone"   // its folder was verified to be absent
)

// dayLine is a line of the retention index.
type dayLine struct {
	Day     ordinance.Day
	LastDay ordinance.Day
	State   dayState
	Job     string      `json:",omitempty"` // of the sweep that doomed it
	Items   []Tombstone `json:",omitempty"` // while doomed: what its tombstones will say
	Gone    time.Time   `json:",omitzero"`
}

// Tombstone is what remains of an item: no number, no name, no text (S6-f).
type Tombstone struct {
	ID             ID
	Kind           string // "recording", or "call" for one without
	Created        ordinance.Day
	LastDay        ordinance.Day
	Deleted        time.Time
	Size           int64  `json:",omitempty"`
	SHA256         string `json:",omitempty"`
	Job            string
	VerifiedAbsent bool
}

// DueDay is a day that a sweep removes.
type DueDay struct {
	Day        ordinance.Day
	LastDay    ordinance.Day
	Calls      int
	Recordings int
	Bytes      int64 // of recordings
}

// Preview lists what the sweep on asOf will remove: the days whose last day is
// before it.
func (s *Store) Preview(asOf ordinance.Day) ([]DueDay, error) {
	var out []DueDay
	for _, d := range s.Days() {
		if ordinance.LastDay(d).Compare(asOf) >= 0 {
			continue
		}
		items, err := s.itemsOf(d, "")
		if err != nil {
			return nil, fmt.Errorf("preview: %w", err)
		}
		due := DueDay{Day: d, LastDay: ordinance.LastDay(d), Calls: len(items)}
		for _, it := range items {
			if it.Kind == "recording" {
				due.Recordings++
				due.Bytes += it.Size
			}
		}
		out = append(out, due)
	}
	return out, nil
}

// itemsOf makes the tombstones of a day.
func (s *Store) itemsOf(d ordinance.Day, job string) ([]Tombstone, error) {
	var out []Tombstone
	for rec, err := range s.CallsByDay(d, d) {
		if err != nil {
			return nil, err
		}
		t := Tombstone{ID: rec.ID, Kind: "call", Created: d, LastDay: ordinance.LastDay(d), Job: job}
		if rec.Recording.SHA256 != "" {
			t.Kind, t.Size, t.SHA256 = "recording", rec.Recording.Size, rec.Recording.SHA256
		}
		out = append(out, t)
	}
	return out, nil
}

// SweepReport says what a sweep did.
type SweepReport struct {
	Job   string
	At    time.Time
	Days  []ordinance.Day // removed
	Items int             // calls, with their recordings
	// Unexplained are names in days/ that the index does not list. They are
	// never deleted.
	Unexplained []string
}

// LastSweep returns what the last sweep of this run did, and its error.
func (s *Store) LastSweep() (SweepReport, error) {
	s.reports.Lock()
	defer s.reports.Unlock()
	return s.reports.sweep, s.reports.sweepErr
}

// NextSweep is when Run sweeps next; zero if it does not run.
func (s *Store) NextSweep() time.Time {
	s.reports.Lock()
	defer s.reports.Unlock()
	return s.reports.next
}

// Sweep removes each day whose term is over at now: exactly what the index
// lists as due, with one cutoff for the whole run (Zarz. 284/17 §6). For each
// day the intent is made durable, then the folder goes, its absence is
// verified, and one transaction writes the tombstones and closes the line.
// Whatever a crash cuts off is finished by the next Sweep or Open. Nothing else
// deletes.
func (s *Store) Sweep(ctx context.Context, now time.Time) (report SweepReport, err error) {
	report = SweepReport{Job: "sweep-" + now.UTC().Format("20060102T150405.000"), At: now}
	defer func() {
		s.reports.Lock()
		defer s.reports.Unlock()
		s.reports.sweep, s.reports.sweepErr = report, err
	}()
	if err := s.finishDoomed(ctx, now); err != nil {
		return report, err
	}
	for _, d := range s.Days() {
		if !ordinance.Due(d, now) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return report, err
		}
		n, err := s.doom(d, report.Job)
		if err != nil {
			return report, fmt.Errorf("sweep %v: %w", d, err)
		}
		if err := s.destroy(d, now); err != nil {
			return report, fmt.Errorf("sweep %v: %w", d, err)
		}
		report.Days = append(report.Days, d)
		report.Items += n
	}
	report.Unexplained, err = s.unexplained()
	return report, err
}

// doom makes the intent to delete a day durable.
func (s *Store) doom(d ordinance.Day, job string) (items int, err error) {
	list, err := s.itemsOf(d, job)
	if err != nil {
		return 0, err
	}
	err = s.setLine(dayLine{Day: d, LastDay: ordinance.LastDay(d), State: stateDoomed, Job: job, Items: list})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	delete(s.listed, d)
	s.mu.Unlock()
	return len(list), nil
}

func (s *Store) setLine(line dayLine) error {
	return s.main.Update(func(tx *bolt.Tx) error { return putLine(tx, line) })
}

func putLine(tx *bolt.Tx, line dayLine) error {
	v, err := json.Marshal(line)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketRetention).Put([]byte(line.Day.String()), v)
}

func (s *Store) line(d ordinance.Day) (line dayLine, err error) {
	err = s.main.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketRetention).Get([]byte(d.String()))
		if v == nil {
			return fmt.Errorf("day %v: %w", d, ErrNotFound)
		}
		return json.Unmarshal(v, &line)
	})
	return line, err
}

// finishDoomed goes on with the days whose deletion was cut off.
func (s *Store) finishDoomed(ctx context.Context, now time.Time) error {
	var doomed []ordinance.Day
	err := s.main.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketRetention).ForEach(func(_, v []byte) error {
			var line dayLine
			if err := json.Unmarshal(v, &line); err != nil {
				return err
			}
			if line.State == stateDoomed {
				doomed = append(doomed, line.Day)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, d := range doomed {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.destroy(d, now); err != nil {
			return fmt.Errorf("finish sweep of %v: %w", d, err)
		}
	}
	return nil
}

// destroy removes a doomed day's folder, makes sure that it is gone, and closes
// its line. It may be run again at any point.
func (s *Store) destroy(d ordinance.Day, now time.Time) error {
	if err := s.shut(d); err != nil {
		return err
	}
	dir := s.dayDir(d)
	if err := s.files.removeAll(dir); err != nil {
		return fmt.Errorf("remove folder: %w", err)
	}
	if err := s.syncDir(dir); err != nil {
		return fmt.Errorf("remove folder: %w", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("folder is still there after its removal: %v", err)
	}
	line, err := s.line(d)
	if err != nil {
		return err
	}
	if line.State != stateDoomed {
		return fmt.Errorf("day is %s, not doomed", line.State)
	}
	return s.main.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketTombstones)
		for _, t := range line.Items {
			t.Deleted, t.VerifiedAbsent = now.UTC(), true
			v, err := json.Marshal(t)
			if err != nil {
				return err
			}
			if err := b.Put(append([]byte(d.String()), t.ID[:]...), v); err != nil {
				return err
			}
		}
		return putLine(tx, dayLine{Day: d, LastDay: line.LastDay, State: stateGone, Job: line.Job, Gone: now.UTC()})
	})
}

// shut closes a day's database once nobody uses it; nobody new can, since it is
// not listed any more.
func (s *Store) shut(d ordinance.Day) error {
	for {
		s.mu.Lock()
		o := s.days[d]
		if o == nil || o.users == 0 {
			delete(s.days, d)
			s.mu.Unlock()
			if o == nil {
				return nil
			}
			return o.close()
		}
		s.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
}

// Tombstones lists what remains of a day that is gone.
func (s *Store) Tombstones(d ordinance.Day) ([]Tombstone, error) {
	var out []Tombstone
	prefix := []byte(d.String())
	err := s.main.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketTombstones).Cursor()
		for k, v := c.Seek(prefix); len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix); k, v = c.Next() {
			var t Tombstone
			if err := json.Unmarshal(v, &t); err != nil {
				return err
			}
			out = append(out, t)
		}
		return nil
	})
	return out, err
}

// unexplained lists what is in days/ and not in the index.
func (s *Store) unexplained() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "days"))
	if err != nil {
		return nil, err
	}
	var out []string
	days := s.Days()
	for _, e := range entries {
		d, err := ordinance.ParseDay(e.Name())
		if err != nil || !slices.Contains(days, d) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
