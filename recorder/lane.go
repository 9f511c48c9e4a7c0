package recorder

import (
	"math"
	"slices"

	"centralka/media"
)

// Lanes of a recording, as everywhere in this package: left and right.
const (
	citizen = 0
	office  = 1
)

// Times of the timeline, in microseconds of our clock.
const (
	maxBlock = 500_000 // of packets in one block
	// reorderWindow is how far behind a later one a packet may come and still
	// be put where it belongs without any difference in the result.
	reorderWindow = 250_000
	// anchorWindow is how far the placing looks ahead, to tell a network that
	// stalled (what follows catches up) from a clock that did (it does not).
	anchorWindow = 1_000_000
	// straggle is how long a run is still recognised after another began.
	straggle = 1_000_000
	// early is how far before the line a packet that does not carry on may be:
	// a packet can be late but never early, so it is proof that the line moved.
	early = 20_000
	// The line moves later if a whole anchorWindow of packets is late by more
	// than this, the more packets the less.
	lateMany, lateSome, lateFew = 60_000, 200_000, 1_000_000
	many, some                  = 25, 5
)

const (
	sampleMicros = 1_000_000 / media.SampleRate // exactly 125
	maxQueue     = 512                          // packets that wait in a run; then the first goes
	maxRuns      = 8                            // runs of a lane that are recognised
	maxDropout   = 3000                         // RFC 3550 §A.1
	maxMisorder  = 1000                         // not beyond seenSpan
	seenSpan     = 1024                         // sequence numbers remembered for duplicates
)

// entry is a packet that waits for its place.
type entry struct {
	sequence  int64 // extended over wraps
	timestamp uint32
	at        int64       // its own arrival
	table     *[256]int16 // nil: stands for silence
	payload   []byte
	copied    bool // a duplicate: counts for order, is not placed
}

// run is a series of packets of one SSRC with continuous sequence numbers
// (RFC 3550 §A.1). It sorts them and holds the line from their timestamps to
// positions.
//
// Arrivals are kept in an order of their own, so that the k-th packet by
// sequence number can be compared with the k-th arrival: an order that does
// not depend on how the packets of a window changed places.
type run struct {
	ssrc     uint32
	top, low int64 // highest and lowest sequence number
	unique   uint64
	seen     [seenSpan / 64]uint64
	last     int64 // arrival of its latest packet
	sealed   bool  // takes no more packets
	queue    []entry
	arrivals []int64
	taken    int64 // sequence number of the last one placed

	line
}

func newRun(p *media.Packet) *run {
	s := int64(p.Sequence)
	return &run{ssrc: p.SSRC, top: s - 1, low: s, taken: math.MinInt64}
}

// distance is how far p's sequence number lies from the highest.
func (r *run) distance(p *media.Packet) int64 { return int64(int16(p.Sequence - uint16(r.top))) }

func (r *run) takes(p *media.Packet) bool {
	d := r.distance(p)
	return !r.sealed && p.SSRC == r.ssrc && d > -maxMisorder && d < maxDropout
}

// note enters a sequence number and reports whether it was there before.
func (r *run) note(s int64) bool {
	for n := max(r.top+1, s-seenSpan+1); n <= s; n++ {
		r.seen[n&(seenSpan-1)>>6] &^= 1 << (n & 63)
	}
	r.top = max(r.top, s)
	r.low = min(r.low, s)
	word, bit := &r.seen[s&(seenSpan-1)>>6], uint64(1)<<(s&63)
	if *word&bit != 0 {
		return true
	}
	*word |= bit
	r.unique++
	return false
}

// lost counts sequence numbers between the first and the last that never came.
func (r *run) lost() uint64 { return uint64(r.top-r.low+1) - r.unique }

// add queues a packet in the order of sequence numbers.
func (r *run) add(e entry, at int64) {
	i := len(r.queue)
	for i > 0 && r.queue[i-1].sequence > e.sequence {
		i--
	}
	r.queue = slices.Insert(r.queue, i, e)
	i = len(r.arrivals)
	for i > 0 && r.arrivals[i-1] > at {
		i--
	}
	r.arrivals = slices.Insert(r.arrivals, i, at)
}

// lane places the packets of one side.
type lane struct {
	out    *mixer
	side   int
	now    int64 // what arrived before is known
	cuts   []int64
	runs   []*run // latest used last
	spare  [][]byte
	counts struct{ packets, lost, duplicate, reordered, unplaced uint64 }
}

// packet takes the next packet of the journal.
func (l *lane) packet(p *media.Packet, at int64) {
	for len(l.cuts) > 0 && at >= l.cuts[0] {
		l.cuts = l.cuts[1:]
		for _, r := range l.runs {
			r.sealed = true
		}
	}
	r := l.runOf(p, at)
	d := r.distance(p)
	s := r.top + d
	again := r.note(s)
	r.last = max(r.last, at)
	e := entry{sequence: s, timestamp: p.Timestamp, at: at, table: decoder(p.Kind), copied: again}
	switch {
	case again:
		l.counts.duplicate++
	case d < 0:
		l.counts.reordered++
	}
	if !again {
		l.counts.packets++
	}
	if s <= r.taken { // too late to be sorted in
		if !again && e.table != nil && r.placed {
			l.displaced(l.out.put(l.side, r.extend(p.Timestamp)+r.offset, p.Payload, e.table, true))
		}
	} else {
		if !again && e.table != nil {
			e.payload = l.keep(p.Payload)
		}
		r.add(e, at)
	}
	l.advance(at)
}

// runOf finds the run that p carries on, or begins one.
func (l *lane) runOf(p *media.Packet, at int64) *run {
	for i, r := range slices.Backward(l.runs) {
		if r.takes(p) && (i == len(l.runs)-1 || at-r.last < straggle) {
			copy(l.runs[i:], l.runs[i+1:])
			l.runs[len(l.runs)-1] = r
			return r
		}
	}
	if len(l.runs) == maxRuns {
		l.end(0)
	}
	r := newRun(p)
	l.runs = append(l.runs, r)
	return r
}

// end places all that a run still holds and forgets it.
func (l *lane) end(i int) {
	r := l.runs[i]
	for len(r.queue) > 0 {
		l.place(r)
	}
	l.counts.lost += r.lost()
	l.runs = slices.Delete(l.runs, i, i+1)
}

// advance places what can no longer change, now that all that arrived before
// the given offset is known.
func (l *lane) advance(now int64) {
	l.now = max(l.now, now)
	for {
		var first *run
		for _, r := range l.runs {
			if len(r.queue) > 0 && (first == nil || r.arrivals[0] < first.arrivals[0]) {
				first = r
			}
		}
		if first == nil || len(first.queue) < maxQueue && first.arrivals[0]+anchorWindow+reorderWindow > l.now {
			break
		}
		l.place(first)
	}
	for i := len(l.runs) - 2; i >= 0; i-- {
		if r := l.runs[i]; len(r.queue) == 0 && r.last+straggle+reorderWindow < l.now {
			l.end(i)
		}
	}
}

// finish places everything.
func (l *lane) finish() {
	l.advance(math.MaxInt64 / 2)
	for len(l.runs) > 0 {
		l.end(0)
	}
}

// place takes the first packet off the run's queue and writes it where it
// belongs.
func (l *lane) place(r *run) {
	e := r.queue[0]
	if e.payload != nil && len(e.payload) > 0 {
		pos, hole := r.locate(&e, r.arrivals[0], r.queue, r.arrivals)
		if hole > 0 {
			l.out.bridge(l.side, pos-hole, hole)
		}
		l.displaced(l.out.put(l.side, pos, e.payload, e.table, false))
	}
	if e.payload != nil {
		l.spare = append(l.spare, e.payload)
	}
	r.taken = e.sequence
	r.queue = slices.Delete(r.queue, 0, 1)
	r.arrivals = slices.Delete(r.arrivals, 0, 1)
}

// displaced counts samples for which there was no place. Steering gives up to
// two for each step, by design, and they are not counted.
func (l *lane) displaced(samples int) {
	if samples > 2 {
		l.counts.unplaced += uint64(samples)
	}
}

// keep copies a payload into a buffer used before.
func (l *lane) keep(payload []byte) []byte {
	var b []byte
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		b = make([]byte, 0, 2*media.FrameSamples)
	}
	return append(b[:0], payload...)
}
