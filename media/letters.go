package media

import "sync/atomic"

// letters is a queue into which many goroutines put and which one empties.
// Neither side ever waits for the other, and it is never full. The zero value is
// empty.
type letters[T any] struct {
	newest atomic.Pointer[letter[T]]
}

type letter[T any] struct {
	body T
	next *letter[T]
}

// put reports whether the queue was empty: then the reader is to be woken.
func (q *letters[T]) put(body T) (first bool) {
	l := &letter[T]{body: body}
	for {
		newest := q.newest.Load()
		l.next = newest
		if q.newest.CompareAndSwap(newest, l) { // l is the reader's now
			return newest == nil
		}
	}
}

func (q *letters[T]) empty() bool { return q.newest.Load() == nil }

// take empties the queue and returns what was in it, the oldest first, each
// linked to the next.
func (q *letters[T]) take() (oldest *letter[T]) {
	for l := q.newest.Swap(nil); l != nil; {
		l, l.next, oldest = l.next, oldest, l
	}
	return oldest
}
