package recorder

import "math"

// Steering: how the offset follows the line without being heard.
const (
	// A gap takes up a difference of this many samples at once.
	steerGap = 16
	// Within speech, correction by single samples begins at the first and ends
	// at the second; up to steerQuiet it waits for a packet that begins softly.
	steerFrom, steerTo, steerQuiet = 24, 2, 40
	softly                         = 256
	// One sample per steerEvery samples of speech, or, from steerFast samples
	// of difference on, two per packet.
	steerEvery, steerFast = 800, 160
)

// line maps timestamps of a run to positions in the file, both in samples: a
// constant offset as long as the peer's clock and the network's least delay
// stay as they are.
//
// The skew of a packet is its arrival less its timestamp. Jitter only ever
// adds to it, so the least skew of the recent past tells the offset: the
// packet that was fastest. Drift of the peer's clock against ours moves it
// slowly and is followed by steering; what moves it at once (a clock that was
// set anew, one that stood still on hold) anchors it again.
//
// Decisions about one packet take the k-th packet by sequence number to have
// arrived as the k-th, so that one packet's delay decides nothing; see pace
// for what the offset itself is taken from.
type line struct {
	placed bool
	stamp  int64 // extended timestamp of the last audio packet
	next   int64 // where it ended: timestamp
	end    int64 // where it ended: position
	offset int64 // position less timestamp
	least  int64 // least skew of late, in microseconds

	steering bool
	steered  int64 // timestamp of the last step
	recent   floor
}

// extend unwraps a timestamp next to the last one.
func (n *line) extend(timestamp uint32) int64 {
	if !n.placed {
		return int64(timestamp)
	}
	return n.stamp + int64(int32(timestamp-uint32(n.stamp)))
}

// locate returns the position of the first audio packet in the queue, e. If it
// carries on where the one before ended, up to two samples may have opened
// between them, which hole tells.
func (n *line) locate(e *entry, at int64, queue []entry, arrivals []int64) (pos, hole int64) {
	stamp := n.extend(e.timestamp)
	skew := at - stamp*sampleMicros
	joined := n.placed && stamp == n.next
	if n.placed && stamp == n.stamp { // said again under a number of its own
		return stamp + n.offset, 0
	}
	switch {
	case !n.placed:
		least, _ := n.ahead(stamp, queue, arrivals)
		n.anchor(least)
		n.end = math.MinInt64
	case !joined || skew-n.least > lateMany:
		least, count := n.ahead(stamp, queue, arrivals)
		if !joined && skew < n.least-early || least-n.least > lateness(count, joined) {
			n.anchor(least)
		}
	}
	n.observe(skew, e.at-stamp*sampleMicros, at)

	want := floorDiv(n.least, sampleMicros) - n.offset
	if joined {
		step := n.steer(want, stamp, e.table[e.payload[0]])
		n.offset += step
		hole = max(step, 0)
	} else if want >= steerGap || want <= -steerGap {
		n.offset += want
	}
	pos = stamp + n.offset
	if !joined && pos < n.end {
		// Not over what was said before, and not later than it came.
		pos = max(pos, min(n.end, at/sampleMicros))
		n.offset = pos - stamp
	}
	n.placed = true
	n.stamp = stamp
	n.next = stamp + int64(len(e.payload))
	n.end = pos + int64(len(e.payload))
	return pos, hole
}

// lateness is how far the least skew ahead must exceed the line to be believed.
func lateness(count int, joined bool) int64 {
	switch {
	case count >= many:
		return lateMany
	case count >= some || !joined:
		return lateSome
	}
	return lateFew
}

// ahead returns the least skew among the audio packets that arrived within
// anchorWindow of the first, and their number. It does not look beyond a
// timestamp that was set forward.
func (n *line) ahead(stamp int64, queue []entry, arrivals []int64) (least int64, count int) {
	var p pace
	for i := range queue {
		e := &queue[i]
		if arrivals[i]-arrivals[0] > anchorWindow {
			break
		}
		if len(e.payload) == 0 {
			continue
		}
		stamp += int64(int32(e.timestamp - uint32(stamp)))
		skew := arrivals[i] - stamp*sampleMicros
		limit := n.least
		if !n.placed || p.least < limit {
			limit = p.least
		}
		if p.count > 0 && skew < limit-lateSome {
			break
		}
		p.add(skew, e.at-stamp*sampleMicros)
	}
	return p.skew(), p.count
}

// anchor sets the line anew.
func (n *line) anchor(least int64) {
	n.least = least
	n.offset = floorDiv(least, sampleMicros)
	n.steering = false
	n.recent.reset()
}

// observe lets the line follow: down at once, since no packet is early, up
// with the least of the recent past.
func (n *line) observe(skew, own, at int64) {
	if n.recent.turn(at / 1_000_000) {
		if least, ok := n.recent.least(); ok {
			n.least = least
		}
	}
	n.recent.now().add(skew, own)
	n.least = min(n.least, skew)
}

// steer returns the step by which a packet that carries on is moved.
func (n *line) steer(want, stamp int64, first int16) int64 {
	far, step := want, int64(1)
	if want < 0 {
		far, step = -want, -1
	}
	if far <= steerTo {
		n.steering = false
	} else if far >= steerFrom {
		n.steering = true
	}
	switch {
	case !n.steering:
		return 0
	case far >= steerFast:
		return 2 * step
	case stamp-n.steered < steerEvery && stamp >= n.steered:
		return 0
	case far < steerQuiet && (first > softly || first < -softly):
		return 0
	}
	n.steered = stamp
	return step
}

// pace gathers the skews of some packets, by order and each one's own. As a
// rule the least of their own is right: a packet that overtook others was
// fast, they were late. But if the arrivals keep an even pace, nothing was
// late and the packets only changed places: then order is right.
type pace struct {
	count             int
	least, most, self int64
}

func (p *pace) add(skew, own int64) {
	if p.count == 0 {
		p.least, p.most, p.self = skew, skew, own
	}
	p.least, p.most, p.self = min(p.least, skew), max(p.most, skew), min(p.self, own)
	p.count++
}

// even is how much the pace of arrivals may vary to count as even.
const even = 5_000

func (p *pace) skew() int64 {
	if p.most-p.least <= even {
		return p.least
	}
	return min(p.least, p.self)
}

// floor keeps the paces of the last seconds in which packets came.
type floor struct {
	seconds [64]struct {
		second int64
		pace
	}
	at int // of the current second
}

const (
	floorEnough = 50 // packets; the least of fewer is mostly jitter
	floorFew    = 5
	floorNear   = 10 // seconds that always count
	floorFar    = 60 // seconds that count while there are too few packets
)

func (f *floor) reset() { *f = floor{} }

// now is the pace of the current second.
func (f *floor) now() *pace { return &f.seconds[f.at].pace }

// turn begins a second, unless it is the current one, and reports whether
// another has ended; least tells of the ended ones until a packet is added.
func (f *floor) turn(second int64) (ended bool) {
	s := &f.seconds[f.at]
	if s.count > 0 && s.second != second {
		f.at = (f.at + 1) % len(f.seconds)
		s = &f.seconds[f.at]
		s.pace = pace{}
		ended = true
	}
	s.second = second
	return ended
}

// least returns the least skew of the last ten seconds, or of up to a minute
// if the packets were few; false if they were too few.
func (f *floor) least() (least int64, ok bool) {
	least = math.MaxInt64
	now, count := f.seconds[f.at].second, 0
	for i := 1; i < len(f.seconds); i++ {
		s := &f.seconds[(f.at-i+len(f.seconds))%len(f.seconds)]
		age := now - s.second
		if s.count == 0 || age > floorFar || age > floorNear && count >= floorEnough {
			break
		}
		least = min(least, s.skew())
		count += s.count
	}
	return least, count >= floorFew
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
