package desk

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func ready(t *testing.T, p *Pool, ids ...AgentID) {
	t.Helper()
	var list []Agent
	for _, id := range ids {
		list = append(list, Agent{ID: id, ReadyOnRegister: true})
	}
	p.SetAgents(list)
	for _, id := range ids {
		p.Available(id, true)
		time.Sleep(time.Second) // in a bubble: each is idle for another time
	}
}

// take reserves an agent at once or not at all, for somebody who does not wait.
func take(p *Pool, members []AgentID, by Strategy, until time.Time) (*Offer, bool) {
	got := make(chan []*Offer, 1)
	t := p.Wait(Request{Queue: "q", Members: members, Strategy: by, Since: time.Now(), Ring: time.Until(until) - ringMargin,
		Offered: func(o []*Offer) { got <- o }})
	left := t.LeaveUnlessOffered()
	if left {
		return nil, false
	}
	o := <-got // maybe told by another goroutine
	t.Leave()
	return o[0], true
}

func TestLongestIdleFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		members := []AgentID{"102", "101", "103"}
		ready(t, p, "101", "102", "103")
		want := []AgentID{"101", "102", "103"}
		for _, id := range want {
			o, ok := take(p, members, LongestIdle, time.Now().Add(time.Minute))
			if !ok || o.Agent() != id {
				t.Fatalf("offered %v, want %s", o, id)
			}
		}
		if o, ok := take(p, members, LongestIdle, time.Now().Add(time.Minute)); ok {
			t.Fatalf("all are reserved, yet %s is offered", o.Agent())
		}
	})
}

func TestRoundRobinGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		members := []AgentID{"101", "102", "103"}
		ready(t, p, members...)
		for i := range 7 {
			o, ok := take(p, members, RoundRobin, time.Now().Add(time.Minute))
			if !ok || o.Agent() != members[i%3] {
				t.Fatalf("turn %d: %v", i, o)
			}
			o.Release()
		}
	})
}

// TestReservationFallsBack: nobody stays reserved past the deadline
// (freeswitch#2540).
func TestReservationFallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		ready(t, p, "101")
		changed, cancel := p.Subscribe()
		defer cancel()
		o, _ := take(p, []AgentID{"101"}, LongestIdle, time.Now().Add(20*time.Second))
		<-changed
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := p.Snapshot()[0].State; s != Ready {
			t.Fatalf("state %v after the deadline, want ready", s)
		}
		select {
		case <-changed:
		default:
			t.Fatal("the queue was not woken")
		}
		o.Accept() // too late: must change nothing
		if s := p.Snapshot()[0].State; s != Ready {
			t.Fatalf("a late Accept made the agent %v", s)
		}
	})
}

func TestAutoAwayWrapUpAndBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		p.SetAgents([]Agent{{ID: "101", ReadyOnRegister: true, WrapUp: 30 * time.Second, AutoAwayAfter: 2}, {ID: "102"}})
		p.Available("101", true)
		p.Available("102", true)
		state := func(i int) State { return p.Snapshot()[i].State }
		if state(1) != Away {
			t.Error("an agent who must sign in is ready by registration alone")
		}
		p.SetReady("102")
		if state(1) != Ready {
			t.Error("signed in, yet not ready")
		}
		p.SetAway("102", "lunch")
		one := []AgentID{"101"}
		offer := func() *Offer {
			o, ok := take(p, one, LongestIdle, time.Now().Add(time.Minute))
			if !ok {
				t.Fatalf("no offer, state %v", state(0))
			}
			return o
		}
		o := offer()
		p.Busy("101", +1)
		o.Accept()
		if state(0) != Talking {
			t.Errorf("state %v in the call", state(0))
		}
		p.Busy("101", -1)
		if state(0) != WrapUp {
			t.Errorf("state %v after the call, want wrap-up", state(0))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if state(0) != Ready {
			t.Errorf("state %v after the wrap-up", state(0))
		}
		offer().Decline("timeout")
		if state(0) != Ready {
			t.Errorf("state %v after one unanswered offer", state(0))
		}
		offer().Decline("timeout")
		if state(0) != Away || p.Snapshot()[0].Reason != "unanswered" {
			t.Errorf("%+v after two unanswered offers, want away", p.Snapshot()[0])
		}
		p.Available("101", false)
		p.Available("101", true)
		if state(0) != Ready {
			t.Errorf("state %v after the phone was started again", state(0))
		}
		p.Busy("101", +1) // the agent's own outgoing call
		if _, ok := take(p, one, LongestIdle, time.Now().Add(time.Minute)); ok {
			t.Error("an agent who is on the phone was offered a call")
		}
	})
}

// TestRingingInVainKeepsThePlace: who was longest idle stays so when the caller
// gave up while the phone rang, and loses the place by not answering.
func TestRingingInVainKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		members := []AgentID{"101", "102"}
		ready(t, p, members...)
		ring := func(want AgentID, end func(o *Offer)) {
			t.Helper()
			o, ok := take(p, members, LongestIdle, time.Now().Add(time.Minute))
			if !ok || o.Agent() != want {
				t.Fatalf("offered %v, want %s", o, want)
			}
			p.Busy(o.Agent(), +1) // the INVITE to the phone
			time.Sleep(3 * time.Second)
			end(o)
			p.Busy(o.Agent(), -1)
			time.Sleep(time.Second)
		}
		ring("101", func(o *Offer) { o.Release() })
		ring("101", func(o *Offer) { o.Decline("declined") })
		ring("102", func(o *Offer) { o.Accept() })
		ring("101", func(o *Offer) { o.Accept() })
		ring("102", func(o *Offer) { o.Accept() })
	})
}

// TestReload: states survive, and what the switch said of an extension holds
// once the extension becomes an agent.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		p.Available("102", true)
		p.Busy("102", +1)
		ready(t, p, "101")
		o, _ := take(p, []AgentID{"101"}, LongestIdle, time.Now().Add(time.Minute))
		p.SetAgents([]Agent{{ID: "101", ReadyOnRegister: true}, {ID: "102", ReadyOnRegister: true}})
		if got := p.Snapshot(); got[0].State != Offered || got[1].State != Talking {
			t.Fatalf("after the reload %+v, want offered and talking", got)
		}
		p.SetAgents([]Agent{{ID: "102", ReadyOnRegister: true}})
		o.Decline("timeout") // of an agent who has gone
		p.Busy("102", -1)
		if got := p.Snapshot(); len(got) != 1 || got[0].State != Ready {
			t.Fatalf("%+v, want 102 ready alone", got)
		}
	})
}

// TestWishes: what an agent wants is told to whoever keeps it, when it changes,
// and comes back after a restart.
func TestWishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		var kept []string
		p.OnWish(func(id AgentID) { kept = append(kept, string(id)+" "+p.Wish(id)) })
		p.SetAgents([]Agent{{ID: "101", ReadyOnRegister: true, AutoAwayAfter: 1}})
		p.Available("101", true)
		p.SetAway("101", "break")
		p.SetReady("101")
		o, ok := take(p, []AgentID{"101"}, LongestIdle, time.Now().Add(time.Minute))
		if !ok {
			t.Fatal("nobody is ready")
		}
		o.Decline("timeout")
		if want := []string{"101 break", "101 ", "101 unanswered"}; !slices.Equal(kept, want) {
			t.Errorf("kept %q, want %q", kept, want)
		}
		again := NewPool(slog.New(slog.DiscardHandler))
		again.SetAgents([]Agent{{ID: "101"}})
		again.Available("101", true)
		again.Recall("101", "")
		again.Recall("102", "break") // who is no agent any more
		if st := again.Snapshot(); len(st) != 1 || st[0].State != Ready {
			t.Errorf("after the restart: %+v", st)
		}
	})
}

// TestRefreshDoesNotEndAnAbsence: a phone registers every few minutes; that is
// no sign of its agent.
func TestRefreshDoesNotEndAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		p.SetAgents([]Agent{{ID: "101", ReadyOnRegister: true, AutoAwayAfter: 1}})
		p.Available("101", true)
		o, _ := take(p, []AgentID{"101"}, LongestIdle, time.Now().Add(time.Minute))
		o.Decline("timeout")
		p.Available("101", true)
		if got := p.Snapshot()[0]; got.State != Away || got.Reason != "unanswered" {
			t.Errorf("%+v, want away, unanswered", got)
		}
	})
}

// modelAgent is what can be said of an agent by counting, without timers.
type modelAgent struct {
	here, away, serves bool
	calls, unanswered  int
	wrapUntil, until   time.Time // until: of the reservation
	offer              *Offer
}

func (m *modelAgent) state() State {
	now := time.Now()
	switch {
	case m.offer != nil && now.Before(m.until):
		return Offered
	case m.calls > 0:
		return Talking
	case now.Before(m.wrapUntil):
		return WrapUp
	case !m.here || m.away:
		return Away
	}
	return Ready
}

// TestPoolModel runs random interleavings against a model: every agent is in
// the state that the model says, nobody is reserved past the deadline, who is
// offered was ready, and a queue that waits is woken by every change.
func TestPoolModel(t *testing.T) {
	const wrapUp, autoAway = 5 * time.Second, 3
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			p := NewPool(slog.New(slog.DiscardHandler))
			ids := []AgentID{"1", "2", "3", "4"}
			var list []Agent
			model := map[AgentID]*modelAgent{}
			for _, id := range ids {
				list = append(list, Agent{ID: id, ReadyOnRegister: true, WrapUp: wrapUp, AutoAwayAfter: autoAway})
				model[id] = &modelAgent{}
			}
			p.SetAgents(list)
			changed, cancel := p.Subscribe()
			defer cancel()
			shown := map[AgentID]State{}
			for step := range 250 {
				id := ids[r.IntN(len(ids))]
				m := model[id]
				switch r.IntN(10) {
				case 0, 1, 2:
					until := time.Now().Add(time.Duration(1+r.IntN(20)) * time.Second)
					anyReady := false
					for _, m := range model {
						anyReady = anyReady || m.state() == Ready
					}
					o, ok := take(p, ids, Strategy(r.IntN(2)), until)
					if ok != anyReady {
						t.Fatalf("seed %d step %d: offered %v, somebody ready %v", seed, step, ok, anyReady)
					}
					if !ok {
						break
					}
					m := model[o.Agent()]
					if m.state() != Ready {
						t.Fatalf("seed %d step %d: %s was offered while %v", seed, step, o.Agent(), m.state())
					}
					m.offer, m.until = o, until
				case 3, 4:
					if m.offer == nil {
						break
					}
					inTime := time.Now().Before(m.until)
					switch r.IntN(3) {
					case 0:
						m.offer.Accept()
						if inTime {
							m.unanswered, m.serves = 0, true
						}
					case 1:
						m.offer.Release()
					case 2:
						m.offer.Decline("timeout")
						if inTime {
							if m.unanswered++; m.unanswered == autoAway {
								m.away, m.unanswered = true, 0
							}
						}
					}
					m.offer = nil
				case 5:
					p.Busy(id, +1)
					m.calls++
				case 6:
					if m.calls > 0 {
						p.Busy(id, -1)
						if m.calls--; m.calls == 0 && m.serves {
							m.serves, m.wrapUntil = false, time.Now().Add(wrapUp)
						}
					}
					if r.IntN(6) == 0 {
						p.Release(id)
						m.serves, m.wrapUntil = false, time.Now().Add(wrapUp)
					}
				case 7:
					m.here = !m.here
					p.Available(id, m.here)
					if m.here {
						p.SetReady(id) // whatever the reason was
						m.away, m.unanswered, m.wrapUntil = false, 0, time.Time{}
					}
				case 8:
					if r.IntN(4) == 0 {
						p.SetAway(id, "")
						m.away = true
					}
				case 9:
					time.Sleep(time.Duration(r.IntN(8)) * time.Second)
					synctest.Wait()
				}
				differs := false
				for _, st := range p.Snapshot() {
					if want := model[st.ID].state(); st.State != want {
						t.Fatalf("seed %d step %d: %s is %v, want %v", seed, step, st.ID, st.State, want)
					}
					differs = differs || st.State != shown[st.ID]
					shown[st.ID] = st.State
				}
				select {
				case <-changed:
				default:
					if differs {
						t.Fatalf("seed %d step %d: a state changed and nobody was woken", seed, step)
					}
				}
			}
			for _, id := range ids {
				p.Busy(id, -model[id].calls)
				p.Available(id, true)
				p.SetReady(id)
			}
			time.Sleep(time.Minute) // past every deadline
			synctest.Wait()
			for _, st := range p.Snapshot() {
				if st.State != Ready {
					t.Fatalf("seed %d: %s is %v in the end (%s)", seed, st.ID, st.State, st.Reason)
				}
			}
		})
	}
}

// TestPoolConcurrent is for the race detector, and for reservations that
// overlap: nobody belongs to two callers at a time.
func TestPoolConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(slog.New(slog.DiscardHandler))
		members := []AgentID{"1", "2", "3"}
		ready(t, p, members...)
		var holders sync.Map
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 2))
				for range 200 {
					o, ok := take(p, members, Strategy(r.IntN(2)), time.Now().Add(time.Hour))
					if !ok {
						time.Sleep(time.Millisecond)
						continue
					}
					if other, taken := holders.LoadOrStore(o.Agent(), g); taken {
						t.Errorf("%s is held by %v and by %d", o.Agent(), other, g)
					}
					time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
					holders.Delete(o.Agent())
					[]func(){o.Accept, o.Release, func() { o.Decline("busy") }}[r.IntN(3)]()
					p.Snapshot()
				}
			})
		}
		wg.Wait()
	})
}
