package desk

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// AgentID names an agent; it is the number of the desk phone.
type AgentID string

// State is what an agent is doing.
type State uint8

// The states of an agent. An agent who is not registered, or has said so, is
// Away.
const (
	Away State = iota
	Ready
	Offered
	Talking
	WrapUp
)

// String returns the state's name, as the status page and metrics use it.
func (s State) String() string {
	return [...]string{"away", "ready", "offered", "talking", "wrap-up"}[s]
}

// Strategy chooses among ready agents.
type Strategy uint8

const (
	// LongestIdle takes who has been without a call for longest.
	LongestIdle Strategy = iota
	// RoundRobin takes who comes after the last one taken, in the order of the
	// members.
	RoundRobin
	// RingAll takes everybody who is ready; the first to answer has the call.
	RingAll
)

// Agent is an agent's configuration.
type Agent struct {
	ID AgentID
	// ReadyOnRegister makes the agent ready as soon as the phone is registered;
	// otherwise SetReady does.
	ReadyOnRegister bool
	// WrapUp is the rest after a conversation.
	WrapUp time.Duration
	// AutoAwayAfter is how many offers in a row may stay unanswered before the
	// agent becomes Away; 0 is never.
	AutoAwayAfter int
}

// AgentStatus is what a status page shows of an agent.
type AgentStatus struct {
	ID     AgentID
	State  State
	Since  time.Time
	Reason string // why away: "unregistered", "quiet", "unanswered", "new", or what the agent said ("said", "break", …)
}

// Pool is all agents and all who wait for one. It is safe for concurrent use.
type Pool struct {
	log *slog.Logger

	onWish func(AgentID) // set before the pool is used

	mu     sync.Mutex
	agents map[AgentID]*agent
	phones map[AgentID]*phone // also of extensions that are no agents: a reload may make them so
	line   []*Ticket          // who waits, in the order of coming
	seq    uint64             // of the last Ticket
	last   map[string]AgentID // round-robin: last taken, by queue
	subs   map[chan struct{}]struct{}
}

// phone is what the switch says of an extension. It is guarded by the pool's
// mutex and outlives the agent.
type phone struct {
	registered bool
	quiet      bool // it does not want to be disturbed: it is busy for everybody
	calls      int  // its dialogs
}

// agent is guarded by the pool's mutex. Its state is derived (see state); shown
// is what settle saw last.
type agent struct {
	Agent
	*phone
	away       string // reason for which the agent wants no calls; "" is none
	offer      *Offer
	blameless  bool      // the phone still rings for an offer that was taken back
	serves     bool      // a conversation from a queue goes on
	wrapUntil  time.Time // end of the rest
	idleSince  time.Time // of the last call's end, or of becoming ready
	shown      State
	since      time.Time // of shown
	unanswered int
	timer      *time.Timer // end of the rest
}

// NewPool makes an empty pool. It logs the agents' changes of state.
func NewPool(log *slog.Logger) *Pool {
	return &Pool{log: log, agents: map[AgentID]*agent{}, phones: map[AgentID]*phone{}, last: map[string]AgentID{}, subs: map[chan struct{}]struct{}{}}
}

// phone returns what is known of id's phone.
func (p *Pool) phone(id AgentID) *phone {
	ph := p.phones[id]
	if ph == nil {
		ph = &phone{}
		p.phones[id] = ph
	}
	return ph
}

func (a *agent) state(now time.Time) State {
	switch {
	case a.offer != nil:
		return Offered
	case a.calls > 0:
		return Talking
	case now.Before(a.wrapUntil):
		return WrapUp
	case !a.registered || a.quiet || a.away != "":
		return Away
	}
	return Ready
}

// SetAgents replaces the configuration. Who stays keeps the state; a
// reservation of who goes is void.
func (p *Pool) SetAgents(list []Agent) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	next := map[AgentID]*agent{}
	for _, cfg := range list {
		a := p.agents[cfg.ID]
		if a == nil {
			a = &agent{phone: p.phone(cfg.ID), idleSince: now, since: now}
			if !cfg.ReadyOnRegister {
				a.away = "new"
			}
		}
		a.Agent = cfg
		p.settle(a, now)
		next[cfg.ID] = a
	}
	for id, a := range p.agents {
		if next[id] == nil {
			a.drop()
		}
	}
	p.agents = next
	p.wake()
}

// drop ends reservation and timers of an agent that leaves the pool.
func (a *agent) drop() {
	if a.offer != nil {
		a.offer.void()
	}
	if a.timer != nil {
		a.timer.Stop()
	}
}

// OnWish has f called after an agent wants calls, or none any more: so that it is
// kept over a restart. Call it before the pool is used; f must not block.
func (p *Pool) OnWish(f func(AgentID)) { p.onWish = f }

// wished calls what OnWish set. The mutex is not held.
func (p *Pool) wished(id AgentID) {
	if p.onWish != nil {
		p.onWish(id)
	}
}

// Wish is the reason for which an agent wants no calls; empty if it does.
func (p *Pool) Wish(id AgentID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.agents[id]; a != nil {
		return a.away
	}
	return ""
}

// Recall sets what Wish returned before a restart.
func (p *Pool) Recall(id AgentID, away string) {
	p.change(id, func(a *agent, _ time.Time) { a.away = away })
}

// change applies f to an agent.
func (p *Pool) change(id AgentID, f func(a *agent, now time.Time)) {
	p.mu.Lock()
	defer p.unlock()
	if a := p.agents[id]; a != nil {
		now := time.Now()
		f(a, now)
		p.settle(a, now)
	}
}

// settle notices that an agent's state is another than before: the queues are
// woken, and who has become ready is idle from now on.
func (p *Pool) settle(a *agent, now time.Time) {
	state := a.state(now)
	if state == a.shown {
		return
	}
	if state == Ready && (a.shown == Away || a.shown == WrapUp) {
		a.idleSince = now
	}
	p.log.Debug("agent", "agent", string(a.ID), "from", a.shown.String(), "to", state.String())
	a.shown, a.since = state, now
	p.wake()
}

// Available says whether the agent's phone can be reached. A phone that was
// started again ends an absence for unanswered calls; one that refreshes its
// registration does not.
func (p *Pool) Available(id AgentID, on bool) {
	p.mu.Lock()
	defer p.unlock()
	ph := p.phone(id)
	if ph.registered == on {
		return
	}
	ph.registered = on
	if a := p.agents[id]; a != nil {
		if on && a.ReadyOnRegister && a.away == "unanswered" {
			a.away = ""
		}
		p.settle(a, time.Now())
	}
}

// Quiet says whether the agent's phone does not want to be disturbed. Whether the
// agent wants calls of the queues is remembered for when it does again.
func (p *Pool) Quiet(id AgentID, on bool) {
	p.mu.Lock()
	defer p.unlock()
	p.phone(id).quiet = on
	if a := p.agents[id]; a != nil {
		p.settle(a, time.Now())
	}
}

// SetReady says that the agent takes calls; a rest ends.
func (p *Pool) SetReady(id AgentID) {
	p.change(id, func(a *agent, now time.Time) {
		a.away, a.unanswered = "", 0
		p.rest(a, now, 0)
	})
	p.wished(id)
}

// SetAway says that the agent takes no calls, and why. A call that is already
// offered or goes on is not touched.
func (p *Pool) SetAway(id AgentID, reason string) {
	if reason == "" {
		reason = "said"
	}
	p.change(id, func(a *agent, _ time.Time) { a.away = reason })
	p.wished(id)
}

// Busy changes the number of dialogs that the phone has: who is on the phone,
// for whatever reason, is not offered a call. When the last one ends and there
// was a conversation from a queue, the rest begins.
func (p *Pool) Busy(id AgentID, delta int) {
	p.mu.Lock()
	defer p.unlock()
	ph := p.phone(id)
	ph.calls = max(0, ph.calls+delta)
	a := p.agents[id]
	if a == nil {
		return
	}
	now := time.Now()
	if ph.calls == 0 {
		// A phone that rang in vain for a caller who gave up, or whom another
		// agent took, does not cost its agent the place.
		if a.offer == nil && !a.blameless {
			a.idleSince = now
		}
		a.blameless = false
		if a.serves {
			a.serves = false
			p.rest(a, now, a.WrapUp)
		}
	}
	p.settle(a, now)
}

// Release ends a conversation from a queue that is no dialog of the phone: the
// rest begins.
func (p *Pool) Release(id AgentID) {
	p.change(id, func(a *agent, now time.Time) {
		a.idleSince, a.serves = now, false
		p.rest(a, now, a.WrapUp)
	})
}

// EndWrapUp ends the rest after a conversation; whether the agent is away is
// not touched.
func (p *Pool) EndWrapUp(id AgentID) {
	p.change(id, func(a *agent, now time.Time) { p.rest(a, now, 0) })
}

// ExtendWrapUp lets the rest go on for d more, or begin.
func (p *Pool) ExtendWrapUp(id AgentID, d time.Duration) {
	p.change(id, func(a *agent, now time.Time) { p.rest(a, now, max(0, a.wrapUntil.Sub(now))+d) })
}

// rest lets an agent rest for d from now on; zero ends a rest.
func (p *Pool) rest(a *agent, now time.Time, d time.Duration) {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer, a.wrapUntil = nil, now.Add(d)
	if id := a.ID; d > 0 {
		a.timer = time.AfterFunc(d, func() { p.change(id, func(*agent, time.Time) {}) })
	}
}

// Subscribe returns a channel that holds a token whenever an agent's state has
// changed since it was last emptied, and the function that ends it.
func (p *Pool) Subscribe() (changed <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subs[ch] = struct{}{}
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.subs, ch)
	}
}

func (p *Pool) wake() {
	for ch := range p.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Snapshot lists the agents in the order of their ids.
func (p *Pool) Snapshot() []AgentStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	out := make([]AgentStatus, 0, len(p.agents))
	for id, a := range p.agents {
		st := AgentStatus{ID: id, State: a.state(now), Since: a.since}
		if st.State == Away {
			st.Reason = a.away
			switch {
			case !a.registered:
				st.Reason = "unregistered"
			case a.quiet:
				st.Reason = "quiet"
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b AgentStatus) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
