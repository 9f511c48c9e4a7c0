package pbx

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"centralka/desk"
	"centralka/store"
)

// The model of an agent: what can be said by counting, without timers.
type modelAgent struct {
	here, away, serves bool
	calls, unanswered  int
	wrapUntil          time.Time
	holder             *modelCaller // whose offer is live
}

func (a *modelAgent) state() desk.State {
	now := time.Now()
	switch {
	case a.holder != nil:
		return desk.Offered
	case a.calls > 0:
		return desk.Talking
	case now.Before(a.wrapUntil):
		return desk.WrapUp
	case !a.here || a.away:
		return desk.Away
	}
	return desk.Ready
}

// modelCaller is a call of which only the mailbox exists.
type modelCaller struct {
	c        *call
	q        *modelQueue
	priority int
	since    time.Time
	offers   map[string]offer     // live ones
	until    time.Time            // of the offers
	tried    bool                 // was offered, and has neither said again nor been forgotten
	refused  map[string]time.Time // by agent
}

type modelQueue struct {
	*queue
	cfg QueueConfig
}

// modelOffice is queues, pool and callers, held against the model after every
// step.
type modelOffice struct {
	t       *testing.T
	r       *rand.Rand
	pool    *desk.Pool
	agents  map[string]*modelAgent
	listed  []desk.Agent
	queues  []*modelQueue
	callers []*modelCaller
	at      string
}

const (
	modelWrapUp, modelAutoAway = 5 * time.Second, 3
	modelRing                  = 12 * time.Second
)

func (m *modelOffice) bad(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s: %s", m.at, fmt.Sprintf(format, args...))
}

// settle reads what the calls were told, and checks all that must always hold.
// still says that one thing has happened since the last settle.
func (m *modelOffice) settle(still bool) {
	synctest.Wait()
	now := time.Now()
	for _, c := range m.callers {
		if c.tried && !now.Before(c.until) { // the deadline of what was forgotten
			for ext := range c.offers {
				m.agents[ext].holder = nil
			}
			clear(c.offers)
			c.tried = false
		}
	}
	var news []given
	var events []func()
	for more := true; more; {
		events = events[:0]
		for _, c := range slices.Clone(m.callers) {
			for _, ev := range c.c.box.take() {
				events = append(events, func() { m.told(c, ev, now, &news) })
			}
		}
		for _, f := range events {
			f()
		}
		synctest.Wait() // what that set free may have been given out
		more = len(events) > 0
	}
	for _, c := range m.callers {
		if c.tried {
			continue
		}
		for _, ext := range c.q.cfg.Members {
			if at, ok := c.refused[ext]; ok && now.Sub(at) < 5*time.Second {
				continue
			}
			if m.agents[ext].state() == desk.Ready && m.lists(ext) {
				m.bad("a caller waits in %s (%s) although %s is ready; refused %v, waiting %v", c.q.cfg.Name, c.q.cfg.Strategy, ext, c.refused, time.Since(c.since))
			}
			for _, g := range news {
				if still && g.ext == ext && c.before(g.to) {
					m.bad("%s was given to a caller in %s who came after one in %s", ext, g.to.q.cfg.Name, c.q.cfg.Name)
				}
			}
		}
	}
	for _, st := range m.pool.Snapshot() {
		if want := m.agents[string(st.ID)].state(); st.State != want {
			m.bad("%s is %v, want %v", st.ID, st.State, want)
		}
	}
}

type given struct {
	ext string
	to  *modelCaller
}

// told takes what a call was told.
func (m *modelOffice) told(c *modelCaller, ev event, now time.Time, news *[]given) {
	switch ev := ev.(type) {
	case agentOffered:
		if c.tried && c.q.cfg.Strategy != "ring-all" {
			m.bad("a caller who is tried at an agent was offered another")
		}
		if !c.tried {
			c.until = now.Add(modelRing + 10*time.Second)
		}
		c.tried = true
		for _, o := range ev.offers {
			a := m.agents[o.ext]
			if got := a.state(); got != desk.Ready {
				m.bad("%s was offered while %v", o.ext, got)
			}
			a.holder, c.offers[o.ext] = c, o
			*news = append(*news, given{o.ext, c})
		}
	case queueOverflowed:
		m.drop(c)
	default:
		m.bad("a call was told %T", ev)
	}
}

func (m *modelOffice) lists(ext string) bool {
	return slices.ContainsFunc(m.listed, func(a desk.Agent) bool { return string(a.ID) == ext })
}

// before is the rule in the words of the manual.
func (c *modelCaller) before(o *modelCaller) bool {
	patient := func(c *modelCaller) bool { return time.Since(c.since) > 10*time.Minute }
	switch {
	case patient(c) != patient(o):
		return patient(c)
	case !patient(c) && c.priority+c.q.cfg.Priority != o.priority+o.q.cfg.Priority:
		return c.priority+c.q.cfg.Priority > o.priority+o.q.cfg.Priority
	}
	return c.since.Before(o.since)
}

func (m *modelOffice) drop(c *modelCaller) {
	for _, ev := range c.c.box.close() { // as a call that is over does
		if late, ok := ev.(agentOffered); ok {
			for _, o := range late.offers {
				o.release()
			}
		}
	}
	for ext, o := range c.offers {
		m.agents[ext].holder = nil
		o.release()
	}
	clear(c.offers)
	m.callers = slices.DeleteFunc(m.callers, func(o *modelCaller) bool { return o == c })
}

func (m *modelOffice) arrive() {
	q := m.queues[m.r.IntN(len(m.queues))]
	c := &modelCaller{c: &call{box: newMailbox[event]()}, q: q, priority: m.r.IntN(2), since: time.Now(), offers: map[string]offer{}, refused: map[string]time.Time{}}
	m.callers = append(m.callers, c)
	q.box.post(callerEntered{c: c.c, at: c.since, since: c.since, priority: c.priority, proof: announced{play: heardWhole}})
}

// heardWhole is a play that the model's callers have heard.
var heardWhole = store.AnnouncementPlay{Complete: true}

func (m *modelOffice) refuse(c *modelCaller, ext, result string) {
	o, a := c.offers[ext], m.agents[ext]
	delete(c.offers, ext)
	a.holder = nil
	c.refused[ext] = time.Now()
	if a.unanswered++; result != "timeout" || !m.lists(ext) {
		a.unanswered--
	} else if a.unanswered == modelAutoAway {
		a.away, a.unanswered = true, 0
	}
	o.decline(result)
}

func (m *modelOffice) answer(c *modelCaller, ext string) {
	o, a := c.offers[ext], m.agents[ext]
	delete(c.offers, ext)
	a.holder = nil
	a.unanswered, a.serves = 0, true
	a.calls++
	m.pool.Busy(desk.AgentID(ext), +1)
	o.accept()
	m.drop(c)
	c.q.served(c.c)
}

func (m *modelOffice) hangUp(ext string) {
	a := m.agents[ext]
	if a.calls == 0 {
		return
	}
	a.calls--
	if a.calls == 0 && a.serves {
		a.serves = false
		if m.lists(ext) {
			a.wrapUntil = time.Now().Add(modelWrapUp)
		}
	}
	m.pool.Busy(desk.AgentID(ext), -1)
}

// ring lets something happen to one of the offers.
func (m *modelOffice) ring() {
	for _, c := range m.callers {
		if len(c.offers) == 0 || m.r.IntN(2) == 0 {
			continue
		}
		exts := slices.Sorted(func(yield func(string) bool) {
			for ext := range c.offers {
				if !yield(ext) {
					return
				}
			}
		})
		switch ext := exts[m.r.IntN(len(exts))]; m.r.IntN(5) {
		case 0, 1:
			m.answer(c, ext)
		case 2:
			m.refuse(c, ext, []string{"busy", "declined", "unreachable"}[m.r.IntN(3)])
		case 3:
			for _, ext := range exts {
				m.refuse(c, ext, "timeout")
			}
		case 4: // nothing: forgotten until the deadline
			return
		}
		if len(c.offers) == 0 && c.tried && slices.Contains(m.callers, c) {
			c.tried = false
			c.q.again(c.c)
		}
		return
	}
}

// reload changes members and strategies, and now and then who is an agent.
func (m *modelOffice) reload(all []desk.Agent) {
	m.listed = slices.Clone(all)
	if m.r.IntN(2) == 0 {
		gone := string(m.listed[m.r.IntN(len(m.listed))].ID)
		m.listed = slices.DeleteFunc(m.listed, func(a desk.Agent) bool { return string(a.ID) == gone })
		a := m.agents[gone]
		if a.holder != nil {
			delete(a.holder.offers, gone)
		}
		*a = modelAgent{here: a.here, calls: a.calls}
	}
	m.pool.SetAgents(m.listed)
	q := m.queues[m.r.IntN(len(m.queues))]
	if !slices.ContainsFunc(m.callers, func(c *modelCaller) bool { return c.q == q && c.tried }) {
		q.cfg.Strategy = []string{"longest-idle", "round-robin", "ring-all"}[m.r.IntN(3)]
	}
	q.cfg.Members = nil
	for _, a := range all {
		if m.r.IntN(3) > 0 {
			q.cfg.Members = append(q.cfg.Members, string(a.ID))
		}
	}
	q.box.post(queueConfigured{q.cfg})
}

// TestQueueModel runs random interleavings of agents, callers, answers, refusals,
// forgotten reservations and reloads over the real pool and queues: no agent is
// offered twice or while busy, no caller waits beside a ready agent, nobody is
// passed over, and in the end everybody has been served and is ready.
func TestQueueModel(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { runQueueModel(t, seed, 300) })
	}
}

func runQueueModel(t *testing.T, seed uint64, steps int) {
	m := &modelOffice{t: t, r: rand.New(rand.NewPCG(seed, 4)), pool: desk.NewPool(slog.New(slog.DiscardHandler)), agents: map[string]*modelAgent{}}
	var all []desk.Agent
	for _, id := range []string{"1", "2", "3", "4"} {
		all = append(all, desk.Agent{ID: desk.AgentID(id), ReadyOnRegister: true, WrapUp: modelWrapUp, AutoAwayAfter: modelAutoAway})
		m.agents[id] = &modelAgent{}
	}
	m.listed = all
	m.pool.SetAgents(all)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, members := range [][]string{{"1", "2", "3"}, {"2", "3", "4"}, {"1", "2", "3", "4"}} {
		cfg := QueueConfig{Name: fmt.Sprint("q", i), Strategy: []string{"longest-idle", "round-robin", "ring-all"}[i], Members: members,
			RingTimeout: modelRing, Priority: i % 2, MaxLength: 8}
		if seed%3 == 0 {
			cfg.MaxWait = 40 * time.Second
		}
		q := newQueue(cfg, m.pool)
		m.queues = append(m.queues, &modelQueue{q, cfg})
		wg.Go(func() { q.run(ctx) })
	}
	ids := []string{"1", "2", "3", "4"}
	for step := range steps {
		m.at = fmt.Sprintf("seed %d step %d", seed, step)
		ext := ids[m.r.IntN(len(ids))]
		a, id := m.agents[ext], desk.AgentID(ext)
		still := true
		switch m.r.IntN(14) {
		case 0, 1, 2:
			m.arrive()
		case 3, 4, 5:
			m.ring()
		case 6:
			if len(m.callers) > 0 {
				c := m.callers[m.r.IntN(len(m.callers))]
				c.q.leave(c.c)
				m.drop(c)
			}
		case 7:
			a.calls++
			m.pool.Busy(id, +1)
		case 8, 9:
			m.hangUp(ext)
		case 10:
			a.here = !a.here
			m.pool.Available(id, a.here)
			if a.here && m.lists(ext) {
				a.away, a.unanswered, a.wrapUntil = false, 0, time.Time{}
			}
			if a.here {
				m.pool.SetReady(id) // whatever the reason was
			}
		case 11:
			switch {
			case !m.lists(ext):
			case m.r.IntN(3) == 0:
				a.away = true
				m.pool.SetAway(id, "break")
			case m.r.IntN(2) == 0:
				a.wrapUntil = time.Time{}
				m.pool.EndWrapUp(id)
			default:
				from := time.Now()
				if a.wrapUntil.After(from) {
					from = a.wrapUntil
				}
				a.wrapUntil = from.Add(3 * time.Second)
				m.pool.ExtendWrapUp(id, 3*time.Second)
			}
		case 12:
			m.reload(all)
			still = false // agents and queues change one after the other
		case 13:
			// A step in time for each second, so that the model sees every turn.
			for range 1 + m.r.IntN(30) {
				time.Sleep(time.Second)
				m.settle(false)
			}
			still = false
		}
		m.settle(still)
	}
	// Nothing may be left over: everybody becomes ready and answers.
	m.at = fmt.Sprintf("seed %d at the end", seed)
	m.listed = all
	m.pool.SetAgents(all)
	for _, q := range m.queues {
		q.cfg.Members = ids
		q.box.post(queueConfigured{q.cfg})
	}
	for _, ext := range ids {
		a := m.agents[ext]
		a.here, a.away, a.unanswered, a.wrapUntil = true, false, 0, time.Time{}
		m.pool.Available(desk.AgentID(ext), true)
		m.pool.SetReady(desk.AgentID(ext))
		for a.calls > 0 {
			m.hangUp(ext)
		}
	}
	m.settle(false)
	for range 400 {
		time.Sleep(time.Second)
		m.settle(false)
		for _, c := range slices.Clone(m.callers) {
			for ext := range c.offers {
				m.answer(c, ext)
				m.hangUp(ext)
				break
			}
		}
		m.settle(false)
	}
	if len(m.callers) > 0 {
		m.bad("%d callers are stuck", len(m.callers))
	}
	for _, st := range m.pool.Snapshot() {
		if st.State != desk.Ready {
			m.bad("%s is %v (%s)", st.ID, st.State, st.Reason)
		}
	}
	for _, q := range m.queues {
		if n := len(q.waiting); n > 0 {
			m.bad("%d callers are left in %s", n, q.cfg.Name)
		}
	}
	cancel()
	wg.Wait()
}
