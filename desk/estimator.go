package desk

import "time"

// Estimator guesses how long somebody waits, from how fast a queue was served
// of late. It counts the time from one answer to the next only if the next
// caller was there already at the former: then it was the agents who set the
// pace and not the calls. Its guess for the n-th place is n such times, less what
// has passed of the present one. It says nothing before it has seen three, nor
// half an hour after the last. It is not safe for concurrent use.
type Estimator struct {
	last  time.Time       // answer
	paces []time.Duration // the newest last
}

const (
	estimatorPaces = 8
	estimatorLeast = 3
	estimatorStale = 30 * time.Minute
)

// Answered notes that a caller who had come at since was answered at.
func (e *Estimator) Answered(at, since time.Time) {
	if !e.last.IsZero() && !since.After(e.last) {
		e.paces = append(e.paces, at.Sub(e.last))
		e.paces = e.paces[max(0, len(e.paces)-estimatorPaces):]
	}
	e.last = at
}

// Expect guesses the wait from now on of who is in that place (from 1 on).
func (e *Estimator) Expect(place int, now time.Time) (wait time.Duration, ok bool) {
	since := now.Sub(e.last)
	if place < 1 || len(e.paces) < estimatorLeast || since > estimatorStale {
		return 0, false
	}
	var sum time.Duration
	for _, p := range e.paces {
		sum += p
	}
	pace := sum / time.Duration(len(e.paces))
	return time.Duration(place)*pace - min(since, pace), true
}
