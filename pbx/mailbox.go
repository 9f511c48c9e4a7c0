package pbx

import "sync"

// mailbox is an unbounded queue with many senders and one reader. Sending never
// blocks, so timers, transactions and packet loops can send from anywhere.
type mailbox[E any] struct {
	mu    sync.Mutex
	queue []E
	wake  chan struct{} // holds one token while queue may be non-empty
}

func newMailbox[E any]() *mailbox[E] {
	return &mailbox[E]{wake: make(chan struct{}, 1)}
}

func (m *mailbox[E]) post(ev E) {
	m.mu.Lock()
	m.queue = append(m.queue, ev)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns all that is queued, in the order it was posted; it returns
// nothing if woken in vain.
func (m *mailbox[E]) take() []E {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue
	m.queue = nil
	return q
}
