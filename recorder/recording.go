package recorder

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// Recording is one conversation being recorded. Its methods never block and
// are safe for concurrent use; the goroutine that owns the call calls them.
type Recording struct {
	recorder *Recorder
	at       time.Time
	day      ordinance.Day
	id       store.ID
	taps     [2]*media.Tap

	mu    sync.Mutex
	rec   store.CallRecord // newest state
	dirty bool             // not stored yet
	marks []mark           // not in the journal yet
	holds []span           // the last one is open while held
	held  bool
	end   int64 // -1 while it goes on

	// filing is held while the record is stored, so that no older state
	// overtakes the final one. It guards stored.
	filing sync.Mutex
	stored ordinance.Day // where the record lies

	// The rest is the writer's until the recording has ended.
	w       blockWriter
	packet  media.Packet
	journal journal   // nil until it could be created
	refused time.Time // creating the journal failed
	err     error     // why
	unsaid  bool      // the first block is not written
	pending []mark    // not written
	beat    int64     // last block
	dropped [2]uint64 // packets in blocks that the disk refused, or beyond the limit
	told    [2]uint64 // drops that the journal knows of
	fails   uint64
	counted uint64 // ring overflows in the status
}

// mark is an item without payload.
type mark struct {
	kind itemKind
	at   int64
}

// Day is the day of the call from now on: that on which the recording began.
func (c *Recording) Day() ordinance.Day { return c.day }

// Citizen is the tap for what the citizen's leg receives.
func (c *Recording) Citizen() *media.Tap { return c.taps[citizen] }

// Office is the tap for what the office's leg receives.
func (c *Recording) Office() *media.Tap { return c.taps[office] }

// offset returns an instant in microseconds since the beginning.
func (c *Recording) offset(at time.Time) int64 { return clampOffset(at.Sub(c.at).Microseconds()) }

// Hold begins or ends a stretch in which both lanes are silent, whatever the
// taps bring. Its label is the record's.
func (c *Recording) Hold(at time.Time, on bool) {
	t := c.offset(at)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end >= 0 || on == c.held {
		return
	}
	c.held = on
	if on {
		c.holds = append(c.holds, span{t, -1})
		c.marks = append(c.marks, mark{itemHold, t})
		return
	}
	h := &c.holds[len(c.holds)-1]
	h.to = max(t, h.from)
	c.marks = append(c.marks, mark{itemResume, t})
}

// Update makes rec the newest state of the call's record. Its Day and
// Recording are the recorder's.
func (c *Recording) Update(rec store.CallRecord) {
	c.mu.Lock()
	if c.end < 0 {
		c.set(rec)
	}
	c.mu.Unlock()
	wake(c.recorder.word)
}

func (c *Recording) set(rec store.CallRecord) {
	rec.ID, rec.Day, rec.Recording = c.id, c.day, c.rec.Recording
	c.rec, c.dirty = own(rec), true
}

// own returns a record that shares nothing with the call's, which goes on
// changing.
func own(rec store.CallRecord) store.CallRecord {
	rec.Rings = slices.Clone(rec.Rings)
	rec.Segments = slices.Clone(rec.Segments)
	rec.Holds = slices.Clone(rec.Holds)
	if a := rec.Announcement; a != nil {
		played := *a
		rec.Announcement = &played
	}
	return rec
}

// Finish ends the recording: the file ends at the given instant. Rendering
// follows; its outcome is stored with rec. Only the first call counts.
func (c *Recording) Finish(rec store.CallRecord, at time.Time) {
	c.mu.Lock()
	if c.end < 0 {
		c.end = c.offset(at)
		if c.held {
			h := &c.holds[len(c.holds)-1]
			h.to = max(c.end, h.from)
		}
		c.marks = append(c.marks, mark{itemEnd, c.end})
		if rec.Cause == "" { // or it would stay an open call
			rec.Cause = store.CauseInternal
		}
		c.set(rec)
	}
	c.mu.Unlock()
	wake(c.recorder.word)
}

// drain brings everything that has arrived into the journal. It reports true
// when the recording has ended and its journal is closed.
func (c *Recording) drain() (ended bool) {
	now := c.offset(time.Now()) // what arrived before is in the rings
	c.mu.Lock()
	c.pending = append(c.pending, c.marks...)
	c.marks = nil
	ended = c.end >= 0
	c.mu.Unlock()
	if c.journal == nil && !c.create(ended) {
		if ended {
			c.lose()
		}
		c.tally()
		return ended // until then the rings hold what comes
	}
	c.w.reset()
	if c.unsaid {
		c.begin()
	}
	for side, tap := range c.taps {
		for tap.Next(&c.packet) {
			at := c.packet.Arrival.Microseconds()
			if at < 0 || at > maxOffset {
				c.dropped[side]++
				continue
			}
			if c.w.full(at) {
				c.append()
			}
			c.w.packet(side, &c.packet, at)
		}
	}
	for _, m := range c.pending {
		c.w.mark(m.kind, m.at)
	}
	if ended {
		c.tellRecord() // how the call ended, should there be no time to commit it
	}
	told := c.tally()
	if told != c.told {
		c.w.dropped(told, c.fails)
	}
	if !c.w.empty() || now-c.beat >= int64(time.Second/time.Microsecond) {
		c.w.mark(itemTick, now)
		c.beat = now
		if c.append() {
			c.pending, c.told = nil, told
		}
	}
	if ended {
		c.err = errors.Join(c.err, c.recorder.try(appending, c.journal.Close))
	}
	return ended
}

// create makes the journal. After a failure it is tried again once a second,
// and when the call has ended.
func (c *Recording) create(ended bool) bool {
	if !c.refused.IsZero() && time.Since(c.refused) < time.Second && !ended {
		return false
	}
	c.err = c.recorder.try(appending, func() (err error) {
		c.journal, err = c.recorder.disk.create(c.day, c.id)
		return err
	})
	if c.err != nil {
		c.journal = nil
		c.refused = time.Now()
	}
	return c.err == nil
}

// lose counts what the rings still hold at the end of a recording whose journal
// could never be created: a short one has lost everything without an overflow.
func (c *Recording) lose() {
	var lost uint64
	for side, tap := range c.taps {
		for tap.Next(&c.packet) {
			c.dropped[side]++
			lost++
		}
	}
	c.fails++
	r := c.recorder
	r.mu.Lock()
	r.status.WriteFails++
	r.status.Unwritten += lost
	r.mu.Unlock()
}

// begin writes what a journal begins with. The record is there for the case
// that the store does not have it yet when everything stops.
func (c *Recording) begin() {
	c.w.start(c.id, c.at)
	c.tellRecord()
}

func (c *Recording) tellRecord() {
	c.mu.Lock()
	rec, err := json.Marshal(c.rec)
	c.mu.Unlock()
	if err == nil && len(rec) <= maxRecord {
		c.w.record(rec)
	}
}

// append writes the block and begins the next. What the disk refuses is lost
// and counted; the next block is tried again.
func (c *Recording) append() bool {
	c.err = c.recorder.try(appending, func() error { return c.journal.Append(c.w.buf) })
	if c.err != nil {
		c.fails++
		for side, n := range c.w.packets {
			c.dropped[side] += n
		}
		c.recorder.mu.Lock()
		c.recorder.status.WriteFails++
		c.recorder.status.Unwritten += c.w.packets[citizen] + c.w.packets[office]
		c.recorder.mu.Unlock()
	} else {
		c.unsaid = false
	}
	c.w.reset()
	return c.err == nil
}

// tally sums up what was lost per lane, and enters overflows in the status.
func (c *Recording) tally() [2]uint64 {
	var n [2]uint64
	var rings uint64
	for side, tap := range c.taps {
		rings += tap.Dropped()
		n[side] = tap.Dropped() + c.dropped[side]
	}
	if rings > c.counted {
		r := c.recorder
		r.mu.Lock()
		r.status.Overflowed += rings - c.counted
		r.overflow = time.Now()
		r.mu.Unlock()
		c.counted = rings
	}
	return n
}

// file stores the record if it has changed and the call goes on. How it ended
// is stored with the outcome (finish): until then it counts as open, so that
// after a crash it is found. It reports false if it has to be tried again.
func (c *Recording) file() bool {
	c.filing.Lock()
	defer c.filing.Unlock()
	c.mu.Lock()
	rec, due := c.rec, c.dirty && c.end < 0
	c.dirty = false
	c.mu.Unlock()
	if !due {
		return true
	}
	if err := c.recorder.try(filing, func() error { return c.put(rec) }); err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return false
	}
	return true
}

// put stores rec, at the place of the state before. filing is held.
func (c *Recording) put(rec store.CallRecord) error {
	if err := c.settle(rec); err != nil {
		return err
	}
	return c.recorder.cfg.Store.PutCall(rec)
}

// settle sees to it that the record is nowhere but on the recording's day. It
// is left open. filing is held.
func (c *Recording) settle(rec store.CallRecord) error {
	if c.stored.IsZero() || c.stored == c.day {
		return nil
	}
	rec.Cause = ""
	if err := c.recorder.cfg.Store.MoveCall(rec, c.stored); err != nil {
		return err
	}
	c.stored = c.day
	return nil
}
