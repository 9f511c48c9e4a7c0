package desk

import (
	"fmt"
	"math/rand/v2"
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

func TestLongestIdleFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		members := []AgentID{"102", "101", "103"}
		ready(t, p, "101", "102", "103")
		want := []AgentID{"101", "102", "103"}
		for _, id := range want {
			o, ok := p.Offer(members, LongestIdle, nil, time.Now().Add(time.Minute))
			if !ok || o.Agent() != id {
				t.Fatalf("offered %v, want %s", o, id)
			}
		}
		if o, ok := p.Offer(members, LongestIdle, nil, time.Now().Add(time.Minute)); ok {
			t.Fatalf("all are reserved, yet %s is offered", o.Agent())
		}
	})
}

func TestRoundRobinGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool()
		members := []AgentID{"101", "102", "103"}
		ready(t, p, members...)
		for i := range 7 {
			o, ok := p.Offer(members, RoundRobin, nil, time.Now().Add(time.Minute))
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
		p := NewPool()
		ready(t, p, "101")
		changed, cancel := p.Subscribe()
		defer cancel()
		o, _ := p.Offer([]AgentID{"101"}, LongestIdle, nil, time.Now().Add(20*time.Second))
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
		p := NewPool()
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
			o, ok := p.Offer(one, LongestIdle, nil, time.Now().Add(time.Minute))
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
		p.Release("101")
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
		if _, ok := p.Offer(one, LongestIdle, nil, time.Now().Add(time.Minute)); ok {
			t.Error("an agent who is on the phone was offered a call")
		}
	})
}

// TestPoolModel runs random interleavings and holds the pool against what can
// be said without knowing how it works: nobody is offered twice, nobody busy or
// absent is offered, and once all is released everybody who is there is ready.
func TestPoolModel(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			p := NewPool()
			ids := []AgentID{"1", "2", "3", "4"}
			ready(t, p, ids...)
			type held struct {
				o     *Offer
				until time.Time
			}
			var offers []held
			busy, here := map[AgentID]int{}, map[AgentID]bool{"1": true, "2": true, "3": true, "4": true}
			for step := range 300 {
				id := ids[r.IntN(len(ids))]
				switch r.IntN(8) {
				case 0, 1:
					until := time.Now().Add(time.Duration(1+r.IntN(20)) * time.Second)
					o, ok := p.Offer(ids, Strategy(r.IntN(2)), nil, until)
					if !ok {
						break
					}
					if busy[o.Agent()] > 0 || !here[o.Agent()] {
						t.Fatalf("seed %d step %d: %s offered, busy %d, here %v", seed, step, o.Agent(), busy[o.Agent()], here[o.Agent()])
					}
					for _, h := range offers {
						if h.o.Agent() == o.Agent() && time.Now().Before(h.until) {
							t.Fatalf("seed %d step %d: %s reserved twice", seed, step, o.Agent())
						}
					}
					offers = append(offers, held{o, until})
				case 2, 3:
					if len(offers) > 0 {
						i := r.IntN(len(offers))
						[]func(){offers[i].o.Accept, offers[i].o.Release, func() { offers[i].o.Decline("timeout") }}[r.IntN(3)]()
						offers = append(offers[:i], offers[i+1:]...)
					}
				case 4:
					p.Busy(id, +1)
					busy[id]++
				case 5:
					if busy[id] > 0 {
						p.Busy(id, -1)
						busy[id]--
					}
				case 6:
					here[id] = !here[id]
					p.Available(id, here[id])
				case 7:
					time.Sleep(time.Duration(r.IntN(8)) * time.Second)
					synctest.Wait()
				}
			}
			for _, h := range offers {
				h.o.Release()
			}
			for _, id := range ids {
				p.Busy(id, -busy[id])
				p.Available(id, true)
			}
			for _, st := range p.Snapshot() {
				if st.State != Ready {
					t.Fatalf("seed %d: %s is %v in the end: %s", seed, st.ID, st.State, fmt.Sprint(st.Reason))
				}
			}
		})
	}
}
