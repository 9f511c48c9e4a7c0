// Package store is the vault: what is kept about calls, their recordings, and
// the retention that takes both away.
//
// It is cut by time. days/YYYY-MM-DD/ holds everything of one local day: the
// day's bbolt file with call records and their indexes, journals, recordings.
// The long-lived centralka.db holds what outlives six months: the retention
// index, tombstones, registrations, results of integrity checks. It never holds
// a citizen's number or name. Deleting is dropping day folders, and only Sweep
// does it (Zarz. 284/17 §6): a bbolt delete would leave its bytes in freed pages
// (S6-e).
//
// # Guarantees
//
// What a call returned nil for is on disk and survives kill -9 and power loss:
// records by bbolt's commit, files by write, fsync, rename, fsync of the folder.
// Journals are synced by SyncJournals. A day's line in the retention index is
// durable before its folder is made, so the sweep knows every folder there is.
//
// Content reaches the disk by two calls only, Journal.Append and PutFile, and is
// read by OpenRecording and ReadJournal.
//
// # Goroutines
//
// Each open day has a writer that commits what waits for it in one transaction.
// Run sweeps and verifies. All methods are safe for concurrent use.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"centralka/ordinance"
)

// ErrNotFound is returned for a call, recording or journal that is not there.
var ErrNotFound = errors.New("not found")

// ErrGone is returned for a day whose term is over: what it held is being
// destroyed or has been.
var ErrGone = errors.New("retention period is over")

// ErrInUse is returned by Open if another process has the vault.
var ErrInUse = errors.New("the vault is in use by another process")

// Config says where the vault is.
type Config struct {
	Dir string // made with mode 0700 if it is not there
	Log *slog.Logger
}

// Store is an open vault.
type Store struct {
	dir   string
	log   *slog.Logger
	main  *bolt.DB
	files files

	mu     sync.Mutex
	days   map[ordinance.Day]*day
	listed map[ordinance.Day]bool // in the retention index, state open
	moved  map[ID]ordinance.Day   // calls whose day was changed since the start
	tick   uint64
	closed bool

	journals sync.Map       // *Journal -> struct{}: open ones
	using    sync.WaitGroup // uses of days, for Close

	reports struct {
		sync.Mutex
		sweep    SweepReport
		sweepErr error
		next     time.Time
		verify   VerifyReport
	}
}

var (
	bucketRetention  = []byte("retention")  // day -> dayLine
	bucketTombstones = []byte("tombstones") // day of creation, id -> Tombstone
	bucketBindings   = []byte("bindings")   // extension -> []Binding
)

var boltOptions = bolt.Options{
	Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true, PreLoadFreelist: true,
}

// Open opens the vault, and finishes a sweep that a crash has cut off.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open vault: no folder is named")
	}
	s := &Store{dir: cfg.Dir, log: cfg.Log, files: realFiles, days: map[ordinance.Day]*day{}, listed: map[ordinance.Day]bool{}, moved: map[ID]ordinance.Day{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "days"), 0o700); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	opt := boltOptions
	db, err := bolt.Open(filepath.Join(cfg.Dir, "centralka.db"), 0o600, &opt)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	s.main = db
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketRetention, bucketTombstones, bucketBindings} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.readIndex()
	}
	if err == nil {
		err = s.clearTemporary()
	}
	if err == nil {
		err = s.finishDoomed(context.Background(), time.Now())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open vault: %w", err), db.Close())
	}
	return s, nil
}

// readIndex learns which days are listed.
func (s *Store) readIndex() error {
	return s.main.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketRetention).ForEach(func(k, v []byte) error {
			var line dayLine
			if err := json.Unmarshal(v, &line); err != nil {
				return fmt.Errorf("retention index, day %s: %w", k, err)
			}
			if line.State == stateOpen {
				s.listed[line.Day] = true
			}
			return nil
		})
	})
}

// clearTemporary removes what a crash left of files that were being written:
// they were never acknowledged.
func (s *Store) clearTemporary() error {
	for d := range s.listed {
		dir := filepath.Join(s.dayDir(d), "tmp")
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := s.files.remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("clear temporary file: %w", err)
			}
		}
	}
	return nil
}

// Close waits for writers and closes every file. Journals must be closed before.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.using.Wait()
	s.mu.Lock()
	days := s.days
	s.days = nil
	s.mu.Unlock()
	var errs []error
	for _, d := range days {
		errs = append(errs, d.close())
	}
	errs = append(errs, s.main.Close())
	return errors.Join(errs...)
}

// Run sweeps at once and shortly after each local midnight, and verifies the
// recordings after it, until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	next := time.Now()
	for {
		s.reports.Lock()
		s.reports.next = next
		s.reports.Unlock()
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		report, err := s.Sweep(ctx, time.Now())
		if err != nil {
			s.log.Error("sweep incomplete", "err", err)
		} else if len(report.Days) > 0 {
			s.log.Info("sweep done", "days", len(report.Days), "items", report.Items)
		}
		if _, err := s.Verify(ctx, nil); err != nil && ctx.Err() == nil {
			s.log.Error("integrity check incomplete", "err", err)
		}
		next = ordinance.DayOf(time.Now()).Next(1).Start().Add(2 * time.Minute)
	}
}

func (s *Store) dayDir(d ordinance.Day) string { return filepath.Join(s.dir, "days", d.String()) }

func (s *Store) recordingPath(d ordinance.Day, id ID) string {
	return filepath.Join(s.dayDir(d), "recordings", id.String()+".wav")
}

func (s *Store) journalPath(d ordinance.Day, id ID) string {
	return filepath.Join(s.dayDir(d), "journals", id.String()+".jnl")
}
