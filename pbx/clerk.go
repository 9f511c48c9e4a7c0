package pbx

import (
	"context"
	"log/slog"
	"time"

	"centralka/store"
)

// clerk writes call records in the order in which they were handed in, so that
// no call waits for the disk. What the disk refuses is tried again until it
// takes it or the clerk is told to stop.
type clerk struct {
	store *store.Store
	log   *slog.Logger
	box   *mailbox[store.CallRecord]
	done  chan struct{}
}

func newClerk(st *store.Store, log *slog.Logger) *clerk {
	return &clerk{store: st, log: log, box: newMailbox[store.CallRecord](), done: make(chan struct{})}
}

func (k *clerk) put(rec store.CallRecord) { k.box.post(clone(rec)) }

// clone gives the record slices of its own: the call goes on changing its.
func clone(rec store.CallRecord) store.CallRecord {
	rec.Stays = append([]store.Stay(nil), rec.Stays...)
	rec.Rings = append([]store.Ring(nil), rec.Rings...)
	rec.Segments = append([]store.Segment(nil), rec.Segments...)
	rec.Holds = append([]store.Hold(nil), rec.Holds...)
	if rec.Announcement != nil {
		play := *rec.Announcement
		rec.Announcement = &play
	}
	return rec
}

// run writes until ctx is done and then what is left.
func (k *clerk) run(ctx context.Context) {
	defer close(k.done)
	for {
		recs := k.box.take()
		for _, rec := range recs {
			k.write(ctx, rec)
		}
		if len(recs) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			if recs := k.box.take(); len(recs) > 0 {
				for _, rec := range recs {
					k.write(ctx, rec)
				}
			}
			return
		case <-k.box.wake:
		}
	}
}

func (k *clerk) write(ctx context.Context, rec store.CallRecord) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := k.store.PutCall(rec)
		if err == nil {
			return
		}
		k.log.Error("call record not written", "call", rec.ID, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
