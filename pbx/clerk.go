package pbx

import (
	"context"
	"log/slog"
	"time"

	"centralka/store"
)

// clerk writes call records and ladders in the order in which they were handed
// in, so that no call waits for the disk. What the disk refuses is tried again until it
// takes it or the clerk is told to stop.
type clerk struct {
	store *store.Store
	log   *slog.Logger
	box   *mailbox[paper]
	done  chan struct{}
}

func newClerk(st *store.Store, log *slog.Logger) *clerk {
	return &clerk{store: st, log: log, box: newMailbox[paper](), done: make(chan struct{})}
}

// paper is a record to be written, or the ladder of its call.
type paper struct {
	rec    store.CallRecord
	ladder *store.Ladder // nil: the record
}

func (k *clerk) put(rec store.CallRecord) { k.box.post(paper{rec: clone(rec)}) }

// putLadder hands over the ladder of the call of rec.
func (k *clerk) putLadder(rec store.CallRecord, ladder store.Ladder) {
	k.box.post(paper{rec: store.CallRecord{ID: rec.ID, Day: rec.Day}, ladder: &ladder})
}

// clone gives the record slices of its own: the call goes on changing its.
func clone(rec store.CallRecord) store.CallRecord {
	rec.Stays = append([]store.Stay(nil), rec.Stays...)
	rec.Rings = append([]store.Ring(nil), rec.Rings...)
	rec.Segments = append([]store.Segment(nil), rec.Segments...)
	rec.Holds = append([]store.Hold(nil), rec.Holds...)
	rec.Quality = append([]store.Quality(nil), rec.Quality...)
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
		papers := k.box.take()
		for _, p := range papers {
			k.write(ctx, p)
		}
		if len(papers) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			for _, p := range k.box.take() {
				k.write(ctx, p)
			}
			return
		case <-k.box.wake:
		}
	}
}

func (k *clerk) write(ctx context.Context, p paper) {
	what := "record"
	if p.ladder != nil {
		what = "ladder"
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		var err error
		if p.ladder != nil {
			err = k.store.PutLadder(p.rec.Day, p.rec.ID, *p.ladder)
		} else {
			err = k.store.PutCall(p.rec)
		}
		if err == nil {
			return
		}
		k.log.Error("call "+what+" not written", "call", p.rec.ID, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
