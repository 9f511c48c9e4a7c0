// Package store is the vault: the long-lived centralka.db, the day folders with
// their call records and recordings, the retention index and the sweep that
// drops whole days.
//
// # Layout
//
//	centralka.db        retention index, tombstones, bindings, marks, closures and
//	                    overrides, units, audit log, accounts: no citizen's number or name
//	keys/2026-11-23.age key of that Warsaw day, sealed to the master key
//	days/2026-11-23/    all that came into being on that day
//	    day.db          call records and their indexes
//	    journals/       raw blocks of recordings that are not rendered yet, sealed
//	    recordings/     finished recordings, sealed
//	    tmp/            files in the making, sealed
//	    quarantine/     what could not be read
//
// # Guarantees
//
// What a writing call acknowledged survives kill -9; what PutCall, MoveCall,
// PutFile and CommitRecording acknowledged survives the loss of power, a
// journal all but what was appended since the last SyncJournals.
//
// A day's line in the retention index is durable before its folder is made, so
// the sweep knows every folder. The sweep removes a day as a whole when its
// term is over (Zarz. 284/17 §6) and nothing else removes a finished
// recording or a call record: no call of this package, no full disk. After the
// sweep nothing of the day is left but tombstones, which name no one: a
// deleted record would live on in the free pages of a database, so a database
// that holds one goes with its day.
//
// A citizen's number or name is only ever in a day folder. What was said is
// never on the disk but sealed to the key of its day (age, X25519), journals
// and temporary files included, and read through OpenRecording and ReadJournal.
// The sweep destroys the key first, so no copy of a day outlives it.
//
// # Goroutines
//
// One writer for centralka.db and one for each open day (at most
// Config.OpenDays idle ones stay open): each commits the jobs of all waiting
// callers in one transaction. Run adds a loop for the heartbeat and the sweep and one for the
// nightly integrity check, and returns when both have. Every method may be
// called from any goroutine; a Journal belongs to one.
//
// # Limits
//
// One process at a time: Open of a vault in use fails with ErrInUse. A disk
// that acknowledges an fsync it did not do, and blocks that an SSD keeps after
// an unlink, are beyond it.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"centralka/ordinance"
)

var (
	// ErrNotFound: no such call, recording or journal.
	ErrNotFound = errors.New("not in the vault")
	// ErrGone: the day's term is over, what it held was or is being destroyed.
	ErrGone = errors.New("retention period is over")
	// ErrInUse: another process has the vault open.
	ErrInUse = errors.New("vault is in use by another process")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("vault is closed")
)

// Config says where the vault is and what it reports to. There is no setting
// for the retention period: the ordinance sets it.
type Config struct {
	Dir string // made with mode 0700 if absent
	// MasterKey is the file of the master key, an age identity. It is made when
	// an empty vault is first opened and there is none. Empty means Dir with
	// ".key" behind it, which is for tests and demonstrations: a master key
	// belongs on another disk than the vault.
	MasterKey string
	Log       *slog.Logger
	// Heartbeat is how often Run marks that the vault was alive; zero means
	// every minute.
	Heartbeat time.Duration
	// OpenDays is how many day databases stay open though no one uses them; zero means 8.
	OpenDays int

	clock *clockFacts // tests whose time is not the machine's; nil is the operating system
	files *fileOps    // tests inject faults here; nil is the operating system
}

// Store is an open vault. Its owner calls Close after Run and every other user
// has returned.
type Store struct {
	cfg     Config
	log     *slog.Logger
	files   fileOps
	root    *os.Root
	dir     *os.File // the vault's folder, for syncfs
	central *ledger
	master  *age.X25519Identity

	lineMu sync.Mutex // held over a change of a retention line; before mu

	exceptionMu sync.Mutex                 // held over a change of closures and overrides
	exceptions  atomic.Pointer[Exceptions] // as in centralka.db

	mu        sync.Mutex
	closed    bool
	lines     map[ordinance.Day]retentionLine // as in centralka.db
	barred    map[ordinance.Day]bool          // kept days on which a sweep has begun
	parts     map[ordinance.Day]*partition
	keys      map[ordinance.Day]*age.X25519Identity // of days that are online, as they are needed
	uses      uint64                                // counts uses of partitions, for the least recent
	clock     clockState
	seen      beatSeen
	journals  map[ID]*Journal
	moved     map[ID]ordinance.Day // calls that changed their day since Open
	lastSweep SweepReport
	nextSweep time.Time
	usage     DiskUsage
	measured  time.Time

	sightings sightings // of sessions
	passwords hasher

	clockFacts clockFacts
	confirmed  chan struct{} // an administrator confirmed the clock: Run sweeps again

	sweeping sync.Mutex  // one sweep at a time
	unsynced atomic.Bool // a journal was written since the last SyncJournals
}

// Open opens the vault, making it if cfg.Dir is absent or empty, and finishes
// what a crash left half done: sweeps, moved calls, temporary files.
func Open(cfg Config) (_ *Store, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = time.Minute
	}
	if cfg.OpenDays <= 0 {
		cfg.OpenDays = 8
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, files: osFiles, clockFacts: osClock, confirmed: make(chan struct{}, 1),
		lines:    make(map[ordinance.Day]retentionLine),
		barred:   make(map[ordinance.Day]bool),
		parts:    make(map[ordinance.Day]*partition),
		keys:     make(map[ordinance.Day]*age.X25519Identity),
		journals: make(map[ID]*Journal),
		moved:    make(map[ID]ordinance.Day),
	}
	if cfg.files != nil {
		s.files = *cfg.files
	}
	if cfg.clock != nil {
		s.clockFacts = *cfg.clock
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if err := s.openRoot(); err != nil {
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, err)
	}
	if s.central, err = openLedger(s.root, centralFile, slices.Concat(centralBuckets, staffBuckets), s.files.committed); err != nil {
		if errors.Is(err, berrors.ErrTimeout) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, err)
	}
	// The names of centralka.db and days/ must be as durable as what they hold.
	if err := s.syncDir("."); err != nil {
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, err)
	}
	if err := s.openMaster(); err != nil {
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, err)
	}
	if err := s.loadRetention(); err != nil {
		return nil, fmt.Errorf("read retention index of %s: %w", cfg.Dir, err)
	}
	if err := s.loadExceptions(); err != nil {
		return nil, fmt.Errorf("open vault %s: %w", cfg.Dir, err)
	}
	if err := s.markStart(time.Now()); err != nil {
		return nil, fmt.Errorf("mark start in %s: %w", cfg.Dir, err)
	}
	if err := s.foundUnits(); err != nil {
		return nil, fmt.Errorf("make the ordinance's units in %s: %w", cfg.Dir, err)
	}
	s.recoverDays()
	return s, nil
}

const (
	centralFile = "centralka.db"
	daysDir     = "days"
)

func (s *Store) openRoot() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(s.cfg.Dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(s.cfg.Dir, 0o700); err != nil {
			return fmt.Errorf("close it to others: %w", err)
		}
	}
	if s.root, err = os.OpenRoot(s.cfg.Dir); err != nil {
		return err
	}
	if s.dir, err = os.Open(filepath.Clean(s.cfg.Dir)); err != nil {
		return err
	}
	return errors.Join(s.makeDir(daysDir), s.makeDir(keysDir))
}

// recoverDays finishes what the last run left. A day that resists is logged
// and left to the next sweep or start: it must not keep the others shut.
func (s *Store) recoverDays() {
	if _, err := s.sweep(context.Background(), time.Now(), onlyDoomed); err != nil {
		s.log.Error("finish the last sweep", "err", err)
	}
	for _, line := range s.keptLines() {
		if !line.Made || line.Settled {
			continue
		}
		if err := s.clearTemporary(line.Day); err != nil {
			s.log.Error("clear temporary files", "day", line.Day, "err", err)
		}
		if err := s.finishMoves(line.Day); err != nil {
			s.log.Error("finish moving calls", "day", line.Day, "err", err)
		}
	}
}

// Close waits for calls in progress, marks an orderly end and closes all
// files.
func (s *Store) Close() error {
	err := s.closeDays()
	if s.central != nil {
		err = errors.Join(err, s.markStop(time.Now()))
	}
	return errors.Join(err, s.release())
}

// closeDays refuses new work and closes journals and day databases.
func (s *Store) closeDays() error {
	s.mu.Lock()
	s.closed = true
	var days []ordinance.Day
	for day := range s.parts {
		days = append(days, day)
	}
	var open []*Journal
	for _, j := range s.journals {
		open = append(open, j)
	}
	s.mu.Unlock()
	var errs []error
	for _, j := range open {
		errs = append(errs, j.Close())
	}
	for _, day := range days {
		errs = append(errs, s.retire(day))
	}
	return errors.Join(errs...)
}

// release closes what Open opened.
func (s *Store) release() error {
	var errs []error
	if s.central != nil {
		errs = append(errs, s.central.close())
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	return errors.Join(errs...)
}

// sweepDelay is how long after midnight the sweep begins; Zarz. 284/17 §6 is
// read as: at the first purge after 24:00 of the last day, by 03:00 at the
// latest.
const (
	sweepDelay = 5 * time.Minute
	sweepRetry = 15 * time.Minute
)

// NextSweep returns when Run will sweep; without Run, when it would.
func (s *Store) NextSweep() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nextSweep.IsZero() {
		return sweepAfter(time.Now())
	}
	return s.nextSweep
}

func sweepAfter(now time.Time) time.Time {
	today := ordinance.DayOf(now)
	if t := today.Start().Add(sweepDelay); t.After(now) {
		return t
	}
	return today.Next(1).Start().Add(sweepDelay)
}

// Run sweeps at once and then after each Warsaw midnight, again after a quarter
// of an hour if something stood in the way, and at once when the clock is
// confirmed. It reconciles files and index at its start and after each
// midnight's sweep, then checks recordings, and marks every Config.Heartbeat
// that it is alive. It returns nil when ctx ends.
func (s *Store) Run(ctx context.Context) error {
	night := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		s.reconcile(ctx)
		for {
			select {
			case <-ctx.Done():
				return
			case <-night:
				s.reconcile(ctx)
				s.checkAtNight(ctx)
			}
		}
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	due, atStart := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.confirmed:
			due = time.Time{}
		case <-timer.C:
		}
		// The wall clock decides, looked at anew with each beat: a timer alone
		// would miss a clock that was set or a machine that slept.
		now := time.Now()
		if err := s.beat(now); err != nil {
			s.log.Error("mark heartbeat", "err", err)
		}
		if !now.Before(due) {
			due = sweepAfter(now)
			if _, err := s.Sweep(ctx, now); err != nil && ctx.Err() == nil {
				s.log.Error("sweep", "err", err)
				due = now.Add(sweepRetry)
			}
			s.settleDays(now)
			s.anchorAudit()
			if !atStart {
				select {
				case night <- struct{}{}:
				default: // the last check is still running
				}
			}
			atStart = false
		}
		if next := sweepAfter(now); next.Before(due) {
			due = next
		}
		s.mu.Lock()
		s.nextSweep = due
		s.mu.Unlock()
		timer.Reset(max(0, min(s.cfg.Heartbeat, time.Until(due))))
	}
}

// reconcile is Reconcile for Run.
func (s *Store) reconcile(ctx context.Context) {
	r, err := s.Reconcile(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Error("reconcile", "err", err)
	}
	if n := r.Unexplained(); n > 0 {
		s.log.Error("the vault holds what its index does not explain, or lacks what it lists", "unexplained", n,
			"missing", r.Missing, "orphans", r.Orphans, "foreign", len(r.Foreign))
	}
}

// notExist tells whether err says that a file is absent.
func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// ledgerOptions: no freelist on disk (it is rebuilt at open), and a mapping so
// large that a growing file does not have to wait for readers.
func ledgerOptions(root *os.Root) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		PreLoadFreelist: true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 256 << 20,
		OpenFile:        root.OpenFile,
	}
}
