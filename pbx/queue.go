package pbx

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"centralka/desk"
)

// queue holds the callers who wait for an agent. Who is served next, and by whom,
// is the pool's to decide, for all queues together; the queue's goroutine owns
// who is in it, for how long, and how fast it is served. Calls reach it by enter,
// again and leave, which never block.
type queue struct {
	cfg  atomic.Pointer[QueueConfig]
	pool *desk.Pool
	box  *mailbox[queueEvent]

	waiting []*waiter
	pace    pace
}

// pace is the estimator with a lock of its own: Status asks it.
type pace struct {
	mu sync.Mutex
	e  desk.Estimator
}

// waiter is one caller's place.
type waiter struct {
	c      *call
	came   time.Time // into this queue
	ticket *desk.Ticket
}

type queueEvent interface{ on(q *queue) }

func newQueue(cfg QueueConfig, pool *desk.Pool) *queue {
	q := &queue{pool: pool, box: newMailbox[queueEvent]()}
	q.cfg.Store(&cfg)
	return q
}

func (q *queue) config() QueueConfig { return *q.cfg.Load() }

type callerEntered struct {
	c        *call
	at       time.Time
	since    time.Time // of its wait in all queues
	priority int       // of its number
	proof    announced
	first    bool // before all others, however many there are
}

// enter puts a caller into the queue. Only a caller who has heard the
// announcement has the proof that it asks for.
func (q *queue) enter(c *incoming, proof announced) {
	q.admit(callerEntered{c: c.call, at: time.Now(), since: c.rec.Queued, priority: c.number.Priority, proof: proof})
}

// comeBack puts a caller in front who was with an agent already and was passed
// on in vain.
func (q *queue) comeBack(c *incoming, proof announced) {
	now := time.Now()
	q.admit(callerEntered{c: c.call, at: now, since: now, proof: proof, first: true})
}

// admit sends a caller on at once if the queue has just been closed.
func (q *queue) admit(ev callerEntered) {
	if !q.box.post(ev) {
		ev.c.post(queueOverflowed{q})
	}
}

func (ev callerEntered) on(q *queue) {
	if !ev.proof.play.Complete {
		panic("a caller without announcement entered the queue")
	}
	cfg := q.config()
	if !ev.first && cfg.MaxLength > 0 && len(q.waiting) >= cfg.MaxLength {
		ev.c.post(queueOverflowed{q})
		return
	}
	w := &waiter{c: ev.c, came: ev.at}
	q.waiting = append(q.waiting, w)
	r := desk.Request{
		Queue: cfg.Name, Priority: cfg.Priority + ev.priority, Front: ev.first, Since: ev.since,
		Offered: func(taken []*desk.Offer) { q.offered(w, taken) },
	}
	configure(&r, cfg)
	w.ticket = q.pool.Wait(r)
}

// configure sets what the configuration says of a request.
func configure(r *desk.Request, cfg QueueConfig) {
	r.Members = make([]desk.AgentID, len(cfg.Members))
	for i, m := range cfg.Members {
		r.Members[i] = desk.AgentID(m)
	}
	r.Strategy, r.Ring = strategyOf(cfg.Strategy), cfg.RingTimeout
}

// offered passes on whom the pool has reserved. It runs on whatever goroutine
// made an agent or a caller ready.
func (q *queue) offered(w *waiter, taken []*desk.Offer) {
	offers := make([]offer, 0, len(taken))
	for _, o := range taken {
		offers = append(offers, offer{ext: string(o.Agent()), accept: o.Accept, decline: o.Decline, release: o.Release})
	}
	if w.c.post(agentOffered{q, offers}) {
		return
	}
	q.leave(w.c) // the call is over
	for _, o := range offers {
		o.release()
	}
}

type callerLeft struct {
	c *call
	// served: an agent has it, at that instant.
	served time.Time
}

// leave takes a caller out: abandoned, or gone elsewhere.
func (q *queue) leave(c *call) { q.box.post(callerLeft{c: c}) }

// served takes a caller out whom an agent has answered.
func (q *queue) served(c *call) { q.box.post(callerLeft{c, time.Now()}) }

func (ev callerLeft) on(q *queue) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		if w.c != ev.c {
			return false
		}
		w.ticket.Leave()
		if !ev.served.IsZero() {
			q.pace.mu.Lock()
			q.pace.e.Answered(ev.served, w.came)
			q.pace.mu.Unlock()
		}
		return true
	})
}

// expect guesses how long who is in that place will wait.
func (q *queue) expect(place int) (time.Duration, bool) {
	q.pace.mu.Lock()
	defer q.pace.mu.Unlock()
	return q.pace.e.Expect(place, time.Now())
}

type callerReturned struct {
	c *call
	// lost is the agent who has answered and was gone before the conversation; empty
	// if nobody has.
	lost string
}

// again asks for another agent: nobody took the call. The caller keeps the
// place.
func (q *queue) again(c *call) { q.box.post(callerReturned{c: c}) }

// lost asks for another agent: the one who has answered is gone again.
func (q *queue) lost(c *call, ext string) { q.box.post(callerReturned{c, ext}) }

func (ev callerReturned) on(q *queue) {
	longest, now := q.config().MaxWait, time.Now()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		if w.c != ev.c {
			return false
		}
		if longest > 0 && now.Sub(w.came) >= longest {
			w.ticket.Leave()
			w.c.post(queueOverflowed{q})
			return true
		}
		if ev.lost != "" {
			w.ticket.Lost(desk.AgentID(ev.lost))
			return false
		}
		w.ticket.Again()
		return false
	})
}

// queueConfigured is another configuration for the queue. Whoever waits goes on
// waiting by it.
type queueConfigured struct{ cfg QueueConfig }

func (ev queueConfigured) on(q *queue) {
	q.cfg.Store(&ev.cfg)
	for _, w := range q.waiting {
		w.ticket.Revise(func(r *desk.Request) { configure(r, ev.cfg) })
	}
}

// queueClosing ends a queue that the configuration no longer has: its callers
// overflow, then its goroutine ends.
type queueClosing struct{ cancel context.CancelFunc }

func (ev queueClosing) on(q *queue) {
	for _, w := range q.waiting {
		w.ticket.Leave()
		w.c.post(queueOverflowed{q})
	}
	q.waiting = nil
	ev.cancel()
}

// run keeps the queue until ctx is done.
func (q *queue) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer func() {
		for _, ev := range q.box.close() {
			if late, ok := ev.(callerEntered); ok {
				late.c.post(queueOverflowed{q})
			}
		}
	}()
	for {
		for _, ev := range q.box.take() {
			ev.on(q)
		}
		timer.Reset(q.overflow(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-q.box.wake:
		case <-timer.C:
		}
	}
}

// overflow sends on who has waited too long, but not while phones ring, and
// returns when to look again at the latest.
func (q *queue) overflow(now time.Time) time.Duration {
	next, longest := time.Hour, q.config().MaxWait
	if longest <= 0 {
		return next
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool {
		left := longest - now.Sub(w.came)
		switch {
		case left > 0:
			next = min(next, left)
		case w.ticket.LeaveUnlessOffered():
			w.c.post(queueOverflowed{q})
			return true
		}
		return false
	})
	return next
}

func strategyOf(name string) desk.Strategy {
	switch name {
	case "round-robin":
		return desk.RoundRobin
	case "ring-all":
		return desk.RingAll
	}
	return desk.LongestIdle
}
