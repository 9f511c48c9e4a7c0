// Package recorder turns the packets of a conversation into a stereo WAV file:
// tap -> journal -> render. Left is the citizen, right the office.
//
// While a conversation runs, only what was received is kept: packets go from
// the two taps, as they are, into an append-only journal, in blocks of at most
// half a second (docs/journal-format.md). When it has ended, the journal is
// rendered: a pure function of its blocks that puts every packet where its RTP
// timestamp says and gives a file as long as the conversation, to the sample
// (docs/recording-format.md). What a crash left behind is rendered by the same
// function at the next start.
//
// It guarantees that a call is never disturbed: nothing here blocks a caller
// or a packet loop. What could not be kept is counted, and every recording
// ends with exactly one outcome in its call record.
//
// # Goroutines
//
// Run owns all of them. The writer drains the taps and appends to the journals
// of all recordings; the keeper syncs journals once a second, so that a slow
// disk does not stop the draining; the clerk stores call records while they
// are open; workers render. A Recording's methods only leave word under a
// mutex that is never held across a system call.
//
// # Limits
//
// A recording lasts at most 24 hours. A tap's ring holds some 7 s of G.711;
// a disk that does not take data for longer costs packets, which makes the
// outcome degraded. Power loss costs at most what the last sync, a second
// ago, did not cover. A tone steered after a drifting clock is one sample
// longer or shorter at times.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

const (
	// ringBytes is the size of one lane's tap: seven seconds of 20 ms packets.
	ringBytes = 64 << 10
	// stuckAfter is how long the disk may take for a pass of the writer or for a
	// sync until the recorder says that it cannot record.
	stuckAfter = 5 * time.Second
	// writerSteps is into how many steps a round of the writer is divided.
	writerSteps = 20
	probeEvery  = 5 * time.Second
	retryFirst  = time.Second
	retryMost   = time.Minute
	// leastFree is the room on the disk below which the recorder is not ready.
	// It goes on with what it has begun.
	leastFree = 64 << 20
	// overflowAlarm is how long an overflow of a ring is alarming.
	overflowAlarm = time.Minute
)

// Config is what a Recorder needs.
type Config struct {
	Store *store.Store
	Log   *slog.Logger
	// Workers is how many recordings are rendered at the same time; 0 means 1.
	Workers int
	// FlushEvery is the time between two blocks of a journal; 0 means 400 ms,
	// and it is at most half a second.
	FlushEvery time.Duration
}

// Recorder records conversations. Its methods are safe for concurrent use.
type Recorder struct {
	cfg  Config
	disk disk
	left leftBehind
	// Nobody ticks while there is nothing to do: these wake the writer, the
	// keeper and the clerk.
	began, worry, word chan struct{}

	mu       sync.Mutex
	work     sync.Cond // jobs, or closed
	active   []*Recording
	jobs     []*job
	deferred []*job // failed, to be tried again
	busy     int    // jobs being rendered
	stopping bool   // Run's context is done: no retries
	closed   bool   // no job will come any more
	status   Status
	failing  [trouble(len(troubles))]error
	since    [trouble(len(troubles))]time.Time // begun and not yet answered
	overflow time.Time
	probed   time.Time
}

// disk is where the writer and the keeper meet it; tests put faults in between.
type disk struct {
	create func(ordinance.Day, store.ID) (journal, error)
	sync   func() error
	free   func() (int64, error) // bytes
}

// journal is a store.Journal.
type journal interface {
	Append(block []byte) error
	Close() error
}

// trouble is a kind of work on the disk that can fail.
type trouble int

const (
	appending trouble = iota
	syncing
	filing
	rendering
	filling
)

var troubles = [...]string{"journal", "sync", "call record", "rendering", "disk"}

// Status is what the recorder tells about itself. It holds no personal data.
type Status struct {
	Active     int                      // conversations being recorded
	Rendering  int                      // recordings waiting for their WAV, or being rendered
	Outcomes   map[store.Outcome]uint64 // since the start
	Recovered  uint64                   // of these, calls that the last run had left
	Overflowed uint64                   // packets dropped because a ring was full
	Unwritten  uint64                   // packets dropped because the disk refused them
	WriteFails uint64                   // blocks that the disk refused
	LastError  string                   // what failed last
	LastFailed time.Time
	// Alarm is set while recording fails or packets were dropped in the last
	// minute (S1.3-j).
	Alarm bool
}

// New makes a recorder and looks which calls and journals the last run has
// left: what begins after New is never taken for them.
func New(cfg Config) *Recorder {
	if cfg.Workers <= 0 {
		cfg.Workers = 1
	}
	if cfg.FlushEvery <= 0 {
		cfg.FlushEvery = 400 * time.Millisecond
	}
	cfg.FlushEvery = min(cfg.FlushEvery, maxBlock*time.Microsecond)
	r := &Recorder{cfg: cfg, began: make(chan struct{}, 1), worry: make(chan struct{}, 1), word: make(chan struct{}, 1)}
	r.work.L = &r.mu
	r.disk = disk{
		create: func(day ordinance.Day, id store.ID) (journal, error) { return cfg.Store.CreateJournal(day, id) },
		sync:   cfg.Store.SyncJournals,
		free: func() (int64, error) {
			u, err := cfg.Store.Disk()
			return int64(min(u.Free, math.MaxInt64)), err
		},
	}
	r.status.Outcomes = make(map[store.Outcome]uint64)
	r.left = findLeft(cfg.Store)
	return r
}

// Run records, and renders what has ended and what the last run has left. When
// ctx is done it goes on until every recording is finished and rendered; what
// cannot be rendered then is left to the next run.
func (r *Recorder) Run(ctx context.Context) error {
	if r.left.err != nil {
		return fmt.Errorf("look for what the last run left: %w", r.left.err)
	}
	r.mu.Lock()
	r.jobs = append(r.jobs, r.left.jobs()...)
	r.mu.Unlock()

	var workers, others sync.WaitGroup
	for range r.cfg.Workers {
		workers.Go(r.renderJobs)
	}
	done := make(chan struct{}) // rendered everything
	others.Go(func() { r.keep(done) })
	others.Go(func() { r.file(done) })

	r.write(ctx)
	r.mu.Lock()
	r.closed = true
	r.work.Broadcast()
	r.mu.Unlock()
	workers.Wait()
	close(done)
	others.Wait()
	return nil
}

// Start begins to record a conversation at the given instant, which carries a
// monotonic reading; the WAV begins there. From then on the call's record is
// the recorder's to store, through Update and Finish, and its Day is the
// Recording's.
func (r *Recorder) Start(rec store.CallRecord, at time.Time) *Recording {
	c := &Recording{recorder: r, at: at, stored: rec.Day, end: -1, unsaid: true}
	rec.Day = ordinance.DayOf(at)
	rec.Recording = store.Recording{Began: at}
	c.day, c.id, c.rec, c.dirty = rec.Day, rec.ID, own(rec), true
	c.taps = [2]*media.Tap{media.NewTap(ringBytes, at), media.NewTap(ringBytes, at)}
	r.mu.Lock()
	r.active = append(r.active, c)
	r.mu.Unlock()
	wake(r.began)
	wake(r.worry)
	wake(r.word)
	return c
}

// wake leaves word for one of Run's goroutines.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready tells why a conversation that began now could not be recorded, nil if
// it could.
func (r *Recorder) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble(appending, syncing, filling)
}

// trouble returns the first of these kinds that fails or hangs. The mutex is
// held.
func (r *Recorder) trouble(kinds ...trouble) error {
	for _, k := range kinds {
		if err := r.failing[k]; err != nil {
			return err
		}
		if t := r.since[k]; k != rendering && !t.IsZero() && time.Since(t) > stuckAfter {
			return fmt.Errorf("%s: the disk has not answered for %v", troubles[k], time.Since(t).Round(time.Second))
		}
	}
	return nil
}

// Status reports the present state.
func (r *Recorder) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Outcomes = maps.Clone(s.Outcomes)
	s.Active = len(r.active)
	s.Rendering = len(r.jobs) + len(r.deferred) + r.busy
	s.Alarm = r.trouble(appending, syncing, filing, rendering, filling) != nil ||
		!r.overflow.IsZero() && time.Since(r.overflow) < overflowAlarm
	return s
}

// try does work of a kind on the disk and keeps account of whether it fails or
// hangs. A failure is logged when it begins and when it is over, since it can
// come five times a second; whoever called decides what becomes of the work.
func (r *Recorder) try(k trouble, work func() error) error {
	r.mu.Lock()
	if r.since[k].IsZero() {
		r.since[k] = time.Now()
	}
	r.mu.Unlock()
	err := work()
	r.mu.Lock()
	first := err != nil && r.failing[k] == nil
	over := err == nil && r.failing[k] != nil
	r.since[k] = time.Time{}
	r.failing[k] = err
	if err != nil {
		r.status.LastError, r.status.LastFailed = err.Error(), time.Now()
	}
	r.mu.Unlock()
	if first {
		r.cfg.Log.Error("recorder: "+troubles[k]+" in trouble", "err", err)
	}
	if over {
		r.cfg.Log.Info("recorder: " + troubles[k] + " out of trouble")
	}
	return err
}

// write drains the taps of all recordings until ctx is done and none is left.
// Each is drained once in FlushEvery, but not all at the same time: a round has
// up to writerSteps steps, so that what the packet loops need of the processor
// never waits for the blocks of hundreds of calls.
func (r *Recorder) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	var some []*Recording
	var round, next, left int // recordings of this round, the next of them, how many are left
	for {
		r.mu.Lock()
		active := len(r.active)
		if left == 0 { // what begins from now on waits for the next round
			round, next, left = active, 0, active
		}
		steps := max(1, min(round, writerSteps))
		n := min((round+steps-1)/steps, left)
		some = append(some[:0], r.active[next:next+n]...)
		r.mu.Unlock()
		next, left = next+n, left-n
		for _, c := range some {
			if c.drain() {
				r.ended(c)
				next-- // those behind it have moved up
			}
		}
		clear(some)
		if active == 0 {
			if stop == nil {
				return
			}
			timer.Stop()
		} else {
			timer.Reset(r.cfg.FlushEvery / time.Duration(steps))
		}
		for idle := active == 0; ; {
			select {
			case <-timer.C:
			case <-r.began:
				if !idle { // beginnings must not put draining off, nor bring it on
					continue
				}
			case <-stop:
				stop = nil
				r.mu.Lock()
				r.stopping = true
				r.mu.Unlock()
				wake(r.worry)
			}
			break
		}
	}
}

// ended hands a recording whose journal is closed to the workers.
func (r *Recorder) ended(c *Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active = slices.DeleteFunc(r.active, func(o *Recording) bool { return o == c })
	r.jobs = append(r.jobs, &job{day: c.day, id: c.id, live: c})
	r.work.Signal()
}

// keep syncs the journals once a second, brings failed jobs back, looks at the
// room on the disk and, while appending fails and nothing is recorded, tries
// whether it takes data again.
func (r *Recorder) keep(done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	ticks := true
	var measured time.Time
	for {
		select {
		case <-tick.C:
		case <-r.worry:
			if !ticks {
				tick.Reset(time.Second)
				ticks = true
			}
			continue
		case <-done:
			return
		}
		if time.Since(measured) >= probeEvery {
			measured = time.Now()
			_ = r.try(filling, r.space)
		}
		r.mu.Lock()
		now := time.Now()
		r.deferred = slices.DeleteFunc(r.deferred, func(j *job) bool {
			due := r.stopping || !j.due.After(now)
			if due {
				r.jobs = append(r.jobs, j)
			}
			return due
		})
		r.work.Broadcast()
		recording := len(r.active) > 0
		sync := recording || r.failing[syncing] != nil
		refused := r.failing[appending] != nil && !recording
		probe := refused && now.Sub(r.probed) >= probeEvery
		if probe {
			r.probed = now
		}
		if !sync && !refused && len(r.deferred) == 0 && r.failing[filling] == nil {
			tick.Stop()
			ticks = false
		}
		r.mu.Unlock()
		if sync {
			_ = r.try(syncing, r.disk.sync)
		}
		if probe {
			_ = r.try(appending, r.probe)
		}
	}
}

// space tells whether the disk has too little room to rely on.
func (r *Recorder) space() error {
	free, err := r.disk.free()
	if err != nil {
		return err
	}
	if free < leastFree {
		return fmt.Errorf("only %d MB are free: %w", free>>20, syscall.ENOSPC)
	}
	return nil
}

// probe writes a journal that belongs to no call and removes it.
func (r *Recorder) probe() (err error) {
	day, id := ordinance.DayOf(time.Now()), store.NewID()
	j, err := r.disk.create(day, id)
	if err != nil {
		return fmt.Errorf("probe the journals' disk: %w", err)
	}
	var w blockWriter
	w.reset()
	w.record(make([]byte, maxRecord))
	err = errors.Join(j.Append(w.buf), j.Close(), r.cfg.Store.DropJournal(day, id))
	if err != nil {
		return fmt.Errorf("probe the journals' disk: %w", err)
	}
	return nil
}

// file stores the records of open calls as they change.
func (r *Recorder) file(done <-chan struct{}) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-r.word:
		case <-retry.C:
		case <-done:
			return
		}
		r.mu.Lock()
		calls := slices.Clone(r.active)
		r.mu.Unlock()
		for _, c := range calls {
			if !c.file() {
				retry.Reset(time.Second)
			}
		}
	}
}
