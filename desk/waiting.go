package desk

import (
	"cmp"
	"slices"
	"time"
)

// Patience is how long somebody is passed over for others of higher priority:
// who has waited longer comes before all who have not, in the order of their
// coming. So nobody waits for ever behind a priority, however busy it is.
const Patience = 10 * time.Minute

// refusalRest is how long an agent who let a call ring, or declined it, is not
// tried again for that same caller.
const refusalRest = 5 * time.Second

// ringMargin is by how much a reservation outlives the ringing: it is the net
// below it.
const ringMargin = 10 * time.Second

// Request is somebody who waits for an agent: a caller in a queue, later a chat.
type Request struct {
	// Queue is what it waits in: places are counted within it, and its turn among
	// agents goes on from request to request.
	Queue    string
	Members  []AgentID // who may be offered it
	Strategy Strategy
	// Priority: the higher is served first, until Patience is over.
	Priority int
	// Front is before everybody: who was with an agent already.
	Front bool
	// Since is when the wait began; among equals the longer one comes first.
	Since time.Time
	// Ring is how long its holder tries an agent.
	Ring time.Duration
	// Offered is told who is reserved for it. It is called without a lock and must
	// not block. With RingAll it is called again for agents who become ready
	// while others ring; their Offers end as the first ones do.
	Offered func([]*Offer)
}

// Ticket is a request's place in the pool. It is in the line from Wait until an
// Offer of it is accepted or it leaves. While it is offered it keeps its place
// and gets no other agent, until Again says that nobody took it.
type Ticket struct {
	p   *Pool
	seq uint64

	// The rest is guarded by the pool's mutex.
	r       Request
	in      bool // in the line
	offered bool
	live    []*Offer              // reservations that have not ended
	until   time.Time             // of the reservations, while offered
	timer   *time.Timer           // fires then
	tried   map[AgentID]bool      // since it was offered
	refused map[AgentID]time.Time // when an agent last did not take it
}

// Wait puts a request into the line.
func (p *Pool) Wait(r Request) *Ticket {
	p.mu.Lock()
	defer p.unlock()
	p.seq++
	t := &Ticket{p: p, seq: p.seq, r: r, in: true, tried: map[AgentID]bool{}, refused: map[AgentID]time.Time{}}
	p.line = append(p.line, t)
	return t
}

// Again says that nobody took it: others are tried.
func (t *Ticket) Again() {
	t.p.mu.Lock()
	defer t.p.unlock()
	t.offered = false
	clear(t.tried)
}

// Lost says that the agent who accepted was gone before a word was said: the
// request is back in the line, at its place, and that agent rests from it.
func (t *Ticket) Lost(by AgentID) {
	t.p.mu.Lock()
	defer t.p.unlock()
	t.refused[by] = time.Now()
	if !t.in {
		t.in = true
		t.p.line = append(t.p.line, t)
	}
	t.offered = false
	clear(t.tried)
}

// Leave takes it out of the line. Offers that it holds are still its holder's to
// end.
func (t *Ticket) Leave() {
	t.p.mu.Lock()
	defer t.p.unlock()
	t.p.remove(t)
}

// LeaveUnlessOffered is Leave if no agent is tried for it now; it reports
// whether it has left.
func (t *Ticket) LeaveUnlessOffered() bool {
	t.p.mu.Lock()
	defer t.p.unlock()
	if t.in && t.offered {
		return false
	}
	t.p.remove(t)
	return true
}

// Revise changes what the configuration says of it; the place stays.
func (t *Ticket) Revise(change func(r *Request)) {
	t.p.mu.Lock()
	defer t.p.unlock()
	change(&t.r)
}

// Place is its place in its queue, from 1 on; 0 once it has left.
func (t *Ticket) Place() int {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if !t.in {
		return 0
	}
	place, now := 1, time.Now()
	for _, o := range t.p.line {
		if o != t && o.r.Queue == t.r.Queue && before(o, t, now) < 0 {
			place++
		}
	}
	return place
}

func (p *Pool) remove(t *Ticket) {
	t.in = false
	p.line = slices.DeleteFunc(p.line, func(o *Ticket) bool { return o == t })
}

// before orders the line: who comes back, then who has waited longer than
// Patience, then by priority, then by wait.
func before(a, b *Ticket, now time.Time) int {
	rank := func(t *Ticket) int {
		switch {
		case t.r.Front:
			return 0
		case now.Sub(t.r.Since) > Patience:
			return 1
		}
		return 2
	}
	ra, rb := rank(a), rank(b)
	if ra == 2 && rb == 2 && a.r.Priority != b.r.Priority {
		return cmp.Compare(b.r.Priority, a.r.Priority)
	}
	return cmp.Or(cmp.Compare(ra, rb), a.r.Since.Compare(b.r.Since), cmp.Compare(a.seq, b.seq))
}

// delivery is what a request is to be told once the lock is released.
type delivery struct {
	to     func([]*Offer)
	offers []*Offer
}

// unlock gives ready agents to whoever is first in the line for them, releases
// the mutex and tells those. Every method that may make an agent ready or a
// request waiting ends with it, so no pair of the two is ever left over.
func (p *Pool) unlock() {
	out := p.match(time.Now())
	p.mu.Unlock()
	for _, d := range out {
		d.to(d.offers)
	}
}

func (p *Pool) match(now time.Time) (out []delivery) {
	ready := 0
	for _, a := range p.agents {
		if a.state(now) == Ready {
			ready++
		}
	}
	if ready == 0 || len(p.line) == 0 {
		return nil
	}
	line := slices.Clone(p.line)
	slices.SortFunc(line, func(a, b *Ticket) int { return before(a, b, now) })
	for _, t := range line {
		if ready == 0 {
			break
		}
		if offers := p.reserveFor(t, now); len(offers) > 0 {
			ready -= len(offers)
			out = append(out, delivery{t.r.Offered, offers})
		}
	}
	return out
}

// reserveFor takes the agents that are to be tried for t now.
func (p *Pool) reserveFor(t *Ticket, now time.Time) (offers []*Offer) {
	if t.offered {
		// Ring-all: who becomes ready rings too, if that is worth while.
		if t.r.Strategy != RingAll || len(t.live) == 0 || t.until.Sub(now) < ringMargin+refusalRest {
			return nil
		}
	} else {
		t.until = now.Add(t.r.Ring + ringMargin)
	}
	defer func() {
		if len(offers) > 0 && !t.offered {
			t.offered = true
			if t.timer != nil {
				t.timer.Stop()
			}
			t.timer = time.AfterFunc(t.until.Sub(now), t.expire)
		}
	}()
	if t.r.Strategy == RingAll {
		for _, id := range t.r.Members {
			if a := p.agents[id]; a != nil && a.state(now) == Ready && t.takes(id, now) {
				offers = append(offers, p.reserve(a, t))
			}
		}
		return offers
	}
	if a := p.choose(t, now); a != nil {
		p.last[t.r.Queue] = a.ID
		offers = append(offers, p.reserve(a, t))
	}
	return offers
}

// takes reports whether an agent may be tried for t: not twice in one round,
// and not just after a refusal.
func (t *Ticket) takes(id AgentID, now time.Time) bool {
	at, refused := t.refused[id]
	return !t.tried[id] && (!refused || now.Sub(at) >= refusalRest)
}

// choose finds the agent whose turn it is.
func (p *Pool) choose(t *Ticket, now time.Time) (best *agent) {
	order := t.r.Members
	if t.r.Strategy == RoundRobin {
		if i := slices.Index(order, p.last[t.r.Queue]); i >= 0 {
			order = slices.Concat(order[i+1:], order[:i+1])
		}
	}
	for _, id := range order {
		a := p.agents[id]
		if a == nil || a.state(now) != Ready || !t.takes(id, now) {
			continue
		}
		if t.r.Strategy == RoundRobin {
			return a
		}
		if best == nil || a.idleSince.Before(best.idleSince) {
			best = a
		}
	}
	return best
}

func (p *Pool) reserve(a *agent, t *Ticket) *Offer {
	o := &Offer{p: p, a: a, t: t}
	a.offer, a.blameless = o, false
	t.tried[a.ID] = true
	t.live = append(t.live, o)
	p.settle(a, time.Now())
	return o
}

// Offer is a reservation of one agent for one request. Exactly one of Accept,
// Decline and Release ends it; the deadline does so otherwise.
type Offer struct {
	p *Pool
	a *agent
	t *Ticket
}

// Agent is who is reserved.
func (o *Offer) Agent() AgentID { return o.a.ID }

// end ends the reservation, once. The mutex is held; f may be nil.
func (o *Offer) end(f func(a *agent, now time.Time)) {
	if o.a.offer != o {
		return
	}
	now := time.Now()
	o.void()
	if f != nil {
		f(o.a, now)
	}
	o.p.settle(o.a, now)
}

// Accept says that the agent took the call; that the phone is busy is counted
// by Busy. The request leaves the line.
func (o *Offer) Accept() {
	o.p.mu.Lock()
	defer o.p.unlock()
	o.end(func(a *agent, _ time.Time) {
		a.unanswered, a.serves = 0, true
		o.p.remove(o.t)
	})
}

// Decline says that the agent did not take the call: "timeout", "busy",
// "declined" or "unreachable". Unanswered offers in a row make an agent away.
func (o *Offer) Decline(result string) {
	o.decline(result)
	if result == "timeout" {
		o.p.wished(o.a.ID)
	}
}

func (o *Offer) decline(result string) {
	o.p.mu.Lock()
	defer o.p.unlock()
	o.end(func(a *agent, now time.Time) {
		o.t.refused[a.ID] = now
		// When the agent may be tried again for this caller, nothing else may happen.
		time.AfterFunc(refusalRest, o.p.look)
		// Not the longest idle any more: others are tried first.
		a.idleSince = now
		if result != "timeout" {
			return
		}
		a.unanswered++
		if a.AutoAwayAfter > 0 && a.unanswered >= a.AutoAwayAfter {
			a.away, a.unanswered = "unanswered", 0
		}
	})
}

// Release takes the reservation back, for no fault of the agent's.
func (o *Offer) Release() {
	o.p.mu.Lock()
	defer o.p.unlock()
	o.end(func(a *agent, _ time.Time) { a.blameless = a.calls > 0 })
}

// void takes the reservation off agent and request.
func (o *Offer) void() {
	o.a.offer = nil
	o.t.live = slices.DeleteFunc(o.t.live, func(l *Offer) bool { return l == o })
}

// expire is the deadline: whoever held reservations has forgotten them, and with
// them the request, which is offered again.
func (t *Ticket) expire() {
	t.p.mu.Lock()
	defer t.p.unlock()
	if time.Now().Before(t.until) {
		return // those of an earlier round
	}
	for _, o := range slices.Clone(t.live) {
		o.end(func(a *agent, _ time.Time) { a.blameless = a.calls > 0 })
	}
	t.offered = false
	clear(t.tried)
}

// look gives ready agents out.
func (p *Pool) look() {
	p.mu.Lock()
	p.unlock()
}
