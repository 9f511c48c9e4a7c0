package media

import (
	"sync/atomic"
	"time"
)

// Lateness is how long after its time the engine did what was due (frames of
// prompts and music, reports), over the last one to two seconds. Zero if nothing
// was due. A relayed packet waits as long for its turn.
type Lateness struct{ Mean, Max time.Duration }

// latenessSpan is how long lateness is summed up before it is told.
const latenessSpan = time.Second

// punctuality measures lateness. note is for one goroutine at a time; lateness
// may be asked by any.
type punctuality struct {
	began    time.Duration // of this span
	now, old latenessSum

	// What was told last, and when that is out of date: nanoseconds.
	mean, max, until atomic.Int64
}

type latenessSum struct {
	sum, max time.Duration
	n        int64
}

// note takes one thing that was due and is done now.
func (p *punctuality) note(due, at time.Duration) {
	switch passed := at - p.began; {
	case passed >= 2*latenessSpan: // nothing was due for a while
		p.old, p.now, p.began = latenessSum{}, latenessSum{}, at
	case passed >= latenessSpan:
		p.tell(at)
	}
	late := max(at-due, 0)
	p.now.sum += late
	p.now.max = max(p.now.max, late)
	p.now.n++
}

// tell publishes the span that is over and the one before it.
func (p *punctuality) tell(at time.Duration) {
	if n := p.now.n + p.old.n; n > 0 {
		p.mean.Store(int64(p.now.sum+p.old.sum) / n)
		p.max.Store(int64(max(p.now.max, p.old.max)))
		p.until.Store(int64(at + 2*latenessSpan))
	}
	p.old, p.now, p.began = p.now, latenessSum{}, at
}

// lateness is what was told last, if that was of late.
func (p *punctuality) lateness(at time.Duration) Lateness {
	if int64(at) >= p.until.Load() {
		return Lateness{}
	}
	return Lateness{Mean: time.Duration(p.mean.Load()), Max: time.Duration(p.max.Load())}
}
