package store

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// ledger is one bbolt file and the one goroutine that writes to it. That
// commits in groups: what all waiting callers want goes into one transaction
// with one fsync. (bbolt's own Batch waits for its delay even when there is
// nothing to wait for.)
type ledger struct {
	db   *bbolt.DB
	then func() // after each commit; nil is nothing
	jobs chan *ledgerJob
	quit chan struct{}
	done chan struct{}
}

type ledgerJob struct {
	do   func(*bbolt.Tx) error
	err  error
	done chan struct{}
}

// maxGroup bounds a transaction.
const maxGroup = 512

func openLedger(root *os.Root, name string, buckets [][]byte, then func()) (*ledger, error) {
	db, err := bbolt.Open(name, 0o600, ledgerOptions(root))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	db.AllocSize = 256 << 10 // a day is small: do not grow it by bbolt's 16 MB
	missing := false
	err = db.View(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			missing = missing || tx.Bucket(b) == nil
		}
		return nil
	})
	if err == nil && missing {
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, b := range buckets {
				if _, err := tx.CreateBucketIfNotExists(b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make tables of %s: %w", name, err), db.Close())
	}
	l := &ledger{db: db, then: then, jobs: make(chan *ledgerJob), quit: make(chan struct{}), done: make(chan struct{})}
	go l.write()
	return l, nil
}

// write is the goroutine; close ends it.
func (l *ledger) write() {
	defer close(l.done)
	var group []*ledgerJob
	for {
		select {
		case <-l.quit:
			return
		case j := <-l.jobs:
			group = append(group[:0], j)
		}
		runtime.Gosched() // whoever the last commit woke may be about to come
	collect:
		for len(group) < maxGroup {
			select {
			case j := <-l.jobs: // unbuffered: whoever waits is taken
				group = append(group, j)
			default:
				break collect
			}
		}
		l.commit(group)
		for _, j := range group {
			close(j.done)
		}
		clear(group)
	}
}

// commit does the group in one transaction. A job that fails by itself is left
// out and the others are done again without it.
func (l *ledger) commit(group []*ledgerJob) {
	for {
		var culprit *ledgerJob
		err := l.db.Update(func(tx *bbolt.Tx) error {
			for _, j := range group {
				if j.err != nil {
					continue
				}
				if err := j.do(tx); err != nil {
					culprit = j
					return err
				}
			}
			return nil
		})
		if culprit != nil {
			culprit.err = err
			continue
		}
		for _, j := range group {
			if j.err == nil {
				j.err = err
			}
		}
		if l.then != nil {
			l.then()
		}
		return
	}
}

// update does do in a transaction and returns when it is durable. do may be
// called more than once and runs on the ledger's goroutine.
func (l *ledger) update(do func(*bbolt.Tx) error) error {
	j := &ledgerJob{do: do, done: make(chan struct{})}
	select {
	case l.jobs <- j:
	case <-l.quit:
		return ErrClosed
	}
	<-j.done
	return j.err
}

func (l *ledger) view(do func(*bbolt.Tx) error) error { return l.db.View(do) }

func (l *ledger) close() error {
	close(l.quit)
	<-l.done
	return l.db.Close()
}

// partition is one open day. Its holders have called acquire and will call
// yield; they hold it for an operation of their own, never while a caller's
// code runs, so a sweep does not wait long.
type partition struct {
	*ledger
	day     ordinance.Day
	ready   chan struct{} // closed when ledger or err is set
	err     error
	refs    int    // guarded by Store.mu, like all below
	used    uint64 // Store.uses at its last use
	closing bool
	drained chan struct{} // closed when the last holder of a closing partition is gone
	closed  chan struct{}
}

var errNoDay = fmt.Errorf("nothing kept of that day: %w", ErrNotFound)

// acquire opens a day. A day that the vault does not know is made if create is
// set; else the error is an ErrNotFound.
func (s *Store) acquire(day ordinance.Day, create bool) (*partition, error) {
	for {
		s.mu.Lock()
		line, listed := s.lines[day]
		var err error
		switch {
		case s.closed:
			err = ErrClosed
		case listed && !s.usable(line):
			err = fmt.Errorf("day %v: %w", day, ErrGone)
		case !create && !line.Made:
			err = errNoDay
		}
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		p := s.parts[day]
		if p == nil {
			p = &partition{
				day: day, refs: 1, ready: make(chan struct{}),
				drained: make(chan struct{}), closed: make(chan struct{}),
			}
			s.parts[day] = p
			s.mu.Unlock()
			p.ledger, p.err = s.openDay(day, create)
			close(p.ready)
		} else if p.closing {
			s.mu.Unlock()
			<-p.closed
			continue
		} else {
			p.refs++
			s.mu.Unlock()
			<-p.ready
		}
		if p.err != nil {
			err := p.err
			s.yield(p)
			return nil, err
		}
		return p, nil
	}
}

// yield gives a partition back and closes the least recently used one if too
// many are open.
func (s *Store) yield(p *partition) {
	s.mu.Lock()
	p.refs--
	s.uses++
	p.used = s.uses
	if p.refs == 0 && p.closing {
		close(p.drained)
	}
	var victim *partition
	if p.refs == 0 && !p.closing && p.err != nil {
		victim = p // could not be opened: the next one may try again
	} else if idle := s.idlePartitions(); len(idle) > s.cfg.OpenDays {
		victim = idle[0]
		for _, q := range idle {
			if q.used < victim.used {
				victim = q
			}
		}
	}
	if victim != nil {
		victim.closing = true
	}
	s.mu.Unlock()
	if victim != nil {
		if err := s.shut(victim); err != nil {
			s.log.Error("close day database", "day", victim.day, "err", err)
		}
	}
}

func (s *Store) idlePartitions() (idle []*partition) {
	for _, q := range s.parts {
		if q.refs == 0 && !q.closing {
			idle = append(idle, q)
		}
	}
	return idle
}

// retire closes a day's database when its holders are done.
func (s *Store) retire(day ordinance.Day) error {
	s.mu.Lock()
	p := s.parts[day]
	if p == nil {
		s.mu.Unlock()
		return nil
	}
	if p.closing {
		s.mu.Unlock()
		<-p.closed
		return nil
	}
	p.closing = true
	held := p.refs > 0
	s.mu.Unlock()
	if held {
		<-p.drained
	}
	return s.shut(p)
}

// shut closes a partition that is closing and has no holder.
func (s *Store) shut(p *partition) (err error) {
	if p.ledger != nil {
		err = p.ledger.close()
	}
	s.mu.Lock()
	delete(s.parts, p.day)
	s.mu.Unlock()
	close(p.closed)
	if err != nil {
		return fmt.Errorf("close database of %v: %w", p.day, err)
	}
	return nil
}

// openDay opens a day's database, making the day if it may.
//
// The order makes a crash at any point harmless: the line in the retention
// index is durable first, so no key and no folder can exist that the sweep
// does not know; then comes the key, of which the line takes the public half;
// then the folder and the database and their names; then the line says that
// they are made. A line whose folder was never made is an empty day.
func (s *Store) openDay(day ordinance.Day, create bool) (*ledger, error) {
	line, listed := s.line(day)
	if !listed {
		if d, err := ordinance.ParseDay(day.String()); err != nil || d != day {
			return nil, fmt.Errorf("%v is not a day", day)
		}
		line = retentionLine{Day: day, LastDay: ordinance.LastDay(day), State: stateKept}
		if err := s.changeLine(day, func(l *retentionLine) { *l = line }); err != nil {
			return nil, fmt.Errorf("list day %v in the retention index: %w", day, err)
		}
	}
	if line.Made {
		if _, err := s.root.Lstat(dayDir(day)); err != nil {
			if !create || !notExist(err) {
				return nil, fmt.Errorf("open day %v: %w", day, err)
			}
			s.log.Error("folder of a day that is kept has vanished; making it anew", "day", day)
			line.Made = false
			if err := s.changeLine(day, func(l *retentionLine) { l.Made = false }); err != nil {
				return nil, err
			}
		}
	}
	if !line.Made {
		if err := s.ensureKey(line); err != nil {
			return nil, err
		}
		for _, sub := range []string{"", journalsDir, recordingsDir, tmpDir, quarantineDir} {
			if err := s.makeDir(path.Join(dayDir(day), sub)); err != nil {
				return nil, err
			}
		}
	}
	l, err := openLedger(s.root, path.Join(dayDir(day), "day.db"), dayBuckets, s.files.committed)
	if err != nil {
		return nil, err
	}
	if !line.Made {
		err := errors.Join(s.syncDir(dayDir(day)), s.syncDir(daysDir))
		if err == nil {
			err = s.changeLine(day, func(l *retentionLine) { l.Made = true })
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make day %v: %w", day, err), l.close())
		}
	}
	return l, nil
}

const (
	journalsDir   = "journals"
	recordingsDir = "recordings"
	tmpDir        = "tmp"
	quarantineDir = "quarantine"

	recordingExt = ".wav.age"
)

func dayDir(day ordinance.Day) string { return daysDir + "/" + day.String() }

func journalPath(day ordinance.Day, id ID) string {
	return path.Join(dayDir(day), journalsDir, id.String()+".journal")
}

func recordingPath(day ordinance.Day, id ID) string {
	return path.Join(dayDir(day), recordingsDir, id.String()+recordingExt)
}

// utc strips the zone and the monotonic reading: stored instants are UTC
// (S0-a).
func utc(t time.Time) time.Time { return t.Round(0).UTC() }
