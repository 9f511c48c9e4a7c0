package pbx

import "sync"

// mailbox is an unbounded queue with many senders and one reader. Sending never
// blocks, so timers, transactions and packet loops can send from anywhere.
type mailbox[E any] struct {
	mu    sync.Mutex
	queue []E
	shut  bool
	wake  chan struct{} // holds one token while queue may be non-empty
}

func newMailbox[E any]() *mailbox[E] {
	return &mailbox[E]{wake: make(chan struct{}, 1)}
}

// post reports whether ev will be taken: false once the mailbox is shut.
func (m *mailbox[E]) post(ev E) bool {
	m.mu.Lock()
	shut := m.shut
	if !shut {
		m.queue = append(m.queue, ev)
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return !shut
}

// close shuts the mailbox and returns what is left in it.
func (m *mailbox[E]) close() []E {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue
	m.queue, m.shut = nil, true
	return q
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
