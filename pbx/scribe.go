package pbx

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// scribe writes to the vault what is kept of each extension over a restart,
// behind the back of whoever changes it: a phone that registers, or a user who
// does not want to be disturbed, is in force at once and never waits for the
// disk. It writes what is so at the time of writing, one extension after the
// other, so that no older state ever overwrites a newer one. What the disk
// refuses is tried again until it takes it or run is told to stop.
type scribe struct {
	log  *slog.Logger
	wake chan struct{} // holds one token while due may be non-empty

	mu    sync.Mutex // guards what follows
	due   map[string]bool
	write func(ext string) error
}

func newScribe(write func(ext string) error, log *slog.Logger) *scribe {
	return &scribe{write: write, log: log, wake: make(chan struct{}, 1), due: map[string]bool{}}
}

// put asks for ext to be written. It never blocks.
func (k *scribe) put(ext string) {
	k.mu.Lock()
	k.due[ext] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// take empties the list.
func (k *scribe) take() (due map[string]bool, write func(ext string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	due = k.due
	k.due = map[string]bool{}
	return due, k.write
}

// run writes until ctx is done, and then once more what is left.
func (k *scribe) run(ctx context.Context) {
	const pause = time.Second // after a refusal
	for {
		select {
		case <-ctx.Done():
			k.writeAll()
			return
		case <-k.wake:
		}
		if k.writeAll() {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// writeAll writes what is due; false if the disk has refused any of it.
func (k *scribe) writeAll() (ok bool) {
	ok = true
	due, write := k.take()
	for ext := range due {
		if err := write(ext); err != nil {
			k.log.Error("state of extension not written", "ext", ext, "err", err)
			ok = false
			k.mu.Lock()
			k.due[ext] = true
			k.mu.Unlock()
		}
	}
	return ok
}
