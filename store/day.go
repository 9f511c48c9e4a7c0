package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"centralka/ordinance"
)

// openDays is how many day databases stay open; further ones close as soon as
// nobody uses them.
const openDays = 8

// day is an open day database. Its writer goroutine commits what waits in one
// transaction: a hundred calls that end together cost one fsync, not a hundred.
type day struct {
	date ordinance.Day
	db   *bolt.DB
	jobs chan dayJob
	done chan struct{}

	// guarded by Store.mu
	users int
	used  uint64
}

type dayJob struct {
	f    func(tx *bolt.Tx) error
	done chan error
}

var (
	bucketCalls     = []byte("calls")     // id -> CallRecord
	bucketByTime    = []byte("by-time")   // began, id
	bucketByNumber  = []byte("by-number") // number, 0, began, id
	bucketByAgent   = []byte("by-agent")  // extension, 0, began, id
	bucketOpen      = []byte("open")      // id: calls without a cause
	bucketIncidents = []byte("incidents") // began, id: recordings failed or degraded
	dayBuckets      = [][]byte{bucketCalls, bucketByTime, bucketByNumber, bucketByAgent, bucketOpen, bucketIncidents}
)

// ensureDay lists the day in the retention index and then makes its folder. The
// line is durable first: a folder that the sweep does not know would stay for
// ever.
func (s *Store) ensureDay(d ordinance.Day) error {
	if d.IsZero() {
		return errors.New("no day is given")
	}
	s.mu.Lock()
	known := s.listed[d]
	s.mu.Unlock()
	dir := s.dayDir(d)
	if !known {
		line := dayLine{Day: d, LastDay: ordinance.LastDay(d), State: stateOpen}
		err := s.main.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketRetention)
			if v := b.Get([]byte(d.String())); v != nil {
				var old dayLine
				if err := json.Unmarshal(v, &old); err != nil {
					return err
				}
				if old.State != stateOpen {
					return ErrGone
				}
			}
			v, err := json.Marshal(line)
			if err != nil {
				return err
			}
			return b.Put([]byte(d.String()), v)
		})
		if err != nil {
			return fmt.Errorf("list day %v: %w", d, err)
		}
		s.mu.Lock()
		s.listed[d] = true
		s.mu.Unlock()
	}
	if _, err := os.Stat(filepath.Join(dir, "day.db")); err == nil {
		return nil
	}
	for _, sub := range []string{"", "journals", "recordings", "tmp", "quarantine"} {
		if err := s.files.mkdir(filepath.Join(dir, sub)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make folder of day %v: %w", d, err)
		}
	}
	if err := s.syncDir(dir); err != nil {
		return fmt.Errorf("make folder of day %v: %w", d, err)
	}
	return nil
}

// useDay opens a day for as long as release is not called. With create it is
// made if it is not there; without, ErrNotFound is returned.
func (s *Store) useDay(d ordinance.Day, create bool) (_ *day, release func(), err error) {
	if create {
		if err := s.ensureDay(d); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errors.New("the vault is closed")
	}
	o := s.days[d]
	if o == nil {
		if !s.listed[d] {
			return nil, nil, fmt.Errorf("day %v: %w", d, ErrNotFound)
		}
		path := filepath.Join(s.dayDir(d), "day.db")
		if !create {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				return nil, nil, fmt.Errorf("day %v: %w", d, ErrNotFound)
			}
		}
		if o, err = openDay(d, path); err != nil {
			return nil, nil, err
		}
		s.days[d] = o
	}
	o.users++
	s.using.Add(1)
	s.tick++
	o.used = s.tick
	return o, func() { s.releaseDay(o) }, nil
}

// releaseDay lets go of a day and closes the ones unused for longest.
func (s *Store) releaseDay(o *day) {
	defer s.using.Done()
	s.mu.Lock()
	o.users--
	var idle []*day
	for len(s.days)-len(idle) > openDays {
		var oldest *day
		for _, d := range s.days {
			if d.users == 0 && (oldest == nil || d.used < oldest.used) {
				oldest = d
			}
		}
		if oldest == nil {
			break
		}
		delete(s.days, oldest.date)
		// Closed under the mutex: the file must be free before it is opened again.
		if err := oldest.close(); err != nil {
			s.log.Error("day not closed", "day", oldest.date.String(), "err", err)
		}
	}
	s.mu.Unlock()
}

func openDay(d ordinance.Day, path string) (*day, error) {
	opt := boltOptions
	db, err := bolt.Open(path, 0o600, &opt)
	if err != nil {
		return nil, fmt.Errorf("open day %v: %w", d, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range dayBuckets {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open day %v: %w", d, err), db.Close())
	}
	o := &day{date: d, db: db, jobs: make(chan dayJob, 64), done: make(chan struct{})}
	go o.write()
	return o, nil
}

func (o *day) close() error {
	close(o.jobs)
	<-o.done
	if err := o.db.Close(); err != nil {
		return fmt.Errorf("close day %v: %w", o.date, err)
	}
	return nil
}

// update runs f in the next transaction and returns when it is durable.
func (o *day) update(f func(tx *bolt.Tx) error) error {
	j := dayJob{f, make(chan error, 1)}
	o.jobs <- j
	return <-j.done
}

// write is the day's writer: the first job that waits, then all others that
// have come meanwhile, in one transaction. If one of them fails they are run
// one by one, so that the others do not suffer.
func (o *day) write() {
	defer close(o.done)
	for j := range o.jobs {
		batch := []dayJob{j}
		for more := true; more && len(batch) < 256; {
			select {
			case k, ok := <-o.jobs:
				if ok {
					batch = append(batch, k)
				}
				more = ok
			default:
				more = false
			}
		}
		err := o.db.Update(func(tx *bolt.Tx) error {
			for _, b := range batch {
				if err := b.f(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, b := range batch {
			if err != nil && len(batch) > 1 {
				b.done <- o.db.Update(b.f)
			} else {
				b.done <- err
			}
		}
	}
}
