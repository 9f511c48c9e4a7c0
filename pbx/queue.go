package pbx

import (
	"context"
	"slices"
	"time"

	"centralka/desk"
)

// retryAfterRefusal is how long an agent who let a call ring, or declined it,
// is passed over for that same call, while others are free.
const retryAfterRefusal = 5 * time.Second

// queue holds the callers who wait for an agent, in the order of their coming.
// Its goroutine owns it; calls reach it by enter, again and leave, which never
// block.
type queue struct {
	cfg  QueueConfig
	pool *desk.Pool
	box  *mailbox[queueEvent]

	waiting []*waiter
}

// waiter is one caller's place.
type waiter struct {
	c       *call
	since   time.Time
	offered bool                 // phones ring for this caller now
	refused map[string]time.Time // when an agent last did not take this call
}

type queueEvent interface{ on(q *queue) }

func newQueue(cfg QueueConfig, pool *desk.Pool) *queue {
	return &queue{cfg: cfg, pool: pool, box: newMailbox[queueEvent]()}
}

type callerEntered struct {
	c     *call
	at    time.Time
	proof announced
	first bool // before all others, however many there are
}

// enter puts a caller into the queue. Only a caller who has heard the
// announcement has the proof that it asks for.
func (q *queue) enter(c *incoming, proof announced) {
	q.box.post(callerEntered{c.call, time.Now(), proof, false})
}

// comeBack puts a caller in front who was with an agent already and was passed
// on in vain.
func (q *queue) comeBack(c *incoming, proof announced) {
	q.box.post(callerEntered{c.call, time.Now(), proof, true})
}

func (ev callerEntered) on(q *queue) {
	if !ev.proof.play.Complete {
		panic("a caller without announcement entered the queue")
	}
	w := &waiter{c: ev.c, since: ev.at, refused: map[string]time.Time{}}
	if ev.first {
		q.waiting = slices.Insert(q.waiting, 0, w)
		return
	}
	if q.cfg.MaxLength > 0 && len(q.waiting) >= q.cfg.MaxLength {
		ev.c.post(queueOverflowed{q})
		return
	}
	q.waiting = append(q.waiting, w)
}

type callerLeft struct{ c *call }

// leave takes a caller out: abandoned, connected, or gone elsewhere.
func (q *queue) leave(c *call) { q.box.post(callerLeft{c}) }

func (ev callerLeft) on(q *queue) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w *waiter) bool { return w.c == ev.c })
}

type callerReturned struct{ c *call }

// again asks for another agent: nobody took the call. The caller keeps the
// place.
func (q *queue) again(c *call) { q.box.post(callerReturned{c}) }

func (ev callerReturned) on(q *queue) {
	for _, w := range q.waiting {
		if w.c == ev.c {
			w.offered = false
		}
	}
}

type agentRefused struct {
	c   *call
	ext string
	at  time.Time
}

func (ev agentRefused) on(q *queue) {
	for _, w := range q.waiting {
		if w.c == ev.c {
			w.refused[ev.ext] = ev.at
		}
	}
}

// run offers callers to agents until ctx is done.
func (q *queue) run(ctx context.Context) {
	changed, unsubscribe := q.pool.Subscribe()
	defer unsubscribe()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for _, ev := range q.box.take() {
			ev.on(q)
		}
		timer.Reset(q.work(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-q.box.wake:
		case <-changed:
		case <-timer.C:
		}
	}
}

// work sends on who has waited too long, offers agents to callers in order, and
// returns when to look again at the latest.
func (q *queue) work(now time.Time) time.Duration {
	next := time.Hour
	for _, w := range slices.Clone(q.waiting) {
		if q.cfg.MaxWait > 0 && !w.offered {
			left := q.cfg.MaxWait - now.Sub(w.since)
			if left <= 0 {
				q.waiting = slices.DeleteFunc(q.waiting, func(o *waiter) bool { return o == w })
				w.c.post(queueOverflowed{q})
				continue
			}
			next = min(next, left)
		}
		if w.offered {
			continue
		}
		offers := q.reserve(w, now)
		if len(offers) == 0 {
			if len(w.refused) > 0 {
				next = min(next, time.Second)
			}
			continue
		}
		w.offered = true
		if !w.c.post(agentOffered{q, offers}) {
			for _, o := range offers {
				o.release()
			}
		}
	}
	return next
}

// reserve takes the agents that are to be tried for w. An agent who has just
// refused this call is passed over for a while.
func (q *queue) reserve(w *waiter, now time.Time) []offer {
	skip := func(id desk.AgentID) bool {
		at, ok := w.refused[string(id)]
		return ok && now.Sub(at) < retryAfterRefusal
	}
	members := make([]desk.AgentID, len(q.cfg.Members))
	for i, m := range q.cfg.Members {
		members[i] = desk.AgentID(m)
	}
	// The reservation outlives the ringing by a margin: it is the net below it.
	deadline := now.Add(q.cfg.RingTimeout + 10*time.Second)
	var taken []*desk.Offer
	switch q.cfg.Strategy {
	case "ring-all":
		taken = q.pool.OfferAll(members, skip, deadline)
	default:
		if o, ok := q.pool.Offer(members, strategyOf(q.cfg.Strategy), skip, deadline); ok {
			taken = append(taken, o)
		}
	}
	offers := make([]offer, 0, len(taken))
	for _, o := range taken {
		ext := string(o.Agent())
		offers = append(offers, offer{
			ext:    ext,
			accept: o.Accept,
			decline: func(result string) {
				o.Decline(result)
				q.box.post(agentRefused{w.c, ext, time.Now()})
			},
			release: o.Release,
		})
	}
	return offers
}

func strategyOf(name string) desk.Strategy {
	if name == "round-robin" {
		return desk.RoundRobin
	}
	return desk.LongestIdle
}
