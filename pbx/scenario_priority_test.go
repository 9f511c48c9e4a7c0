package pbx_test

import (
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
)

// TestPriorities: an agent of two queues serves the higher number first, whoever
// waits longer, and then in the order of coming.
func TestPriorities(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Numbers = append(cfg.Numbers, pbx.NumberConfig{Match: "+48914245222", Target: "queue:urgent", Priority: 1})
	urgent := cfg.Queues[0]
	urgent.Name, urgent.Priority = "urgent", 1
	cfg.Queues = append(cfg.Queues, urgent)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		plain := r.call()
		time.Sleep(2 * time.Second)
		second, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100201", To: "+48914245222"})
		r.must(err)
		time.Sleep(2 * time.Second)
		r.pool.SetReady("101")
		for _, call := range []*pbxtest.Call{second, plain} {
			agent := r.answeredBy("101")
			time.Sleep(500 * time.Millisecond)
			if !pbxtest.HasTone(call.Heard().Since(agent.At(pbxtest.Answered).Add(200*time.Millisecond)), phoneHz) {
				t.Fatal("another caller talks")
			}
			call.Hangup()
			time.Sleep(time.Second)
		}
		r.records()
	})
}

// TestReloadKeepsWhoWaits: a queue that the file changes keeps its callers, and
// they are offered to its new members.
func TestReloadKeepsWhoWaits(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].Members = []string{"101"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		call := r.call()
		time.Sleep(3 * time.Second)
		next := cfg
		next.Queues = append([]pbx.QueueConfig(nil), cfg.Queues...)
		next.Queues[0].Members = []string{"101", "102"}
		_, err := r.sw.Reload(next)
		r.must(err)
		r.answeredBy("102")
		call.Hangup()
		r.records()
	})
}

// TestRingAllJoin: an agent who becomes ready while others ring is rung too.
func TestRingAllJoin(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].Strategy = "ring-all"
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		r.pool.SetAway("102", "lunch")
		call := r.call()
		_, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		time.Sleep(time.Second)
		r.pool.SetReady("102")
		r.answeredBy("102")
		if n := r.count("switch > 101 INVITE"); n != 1 {
			t.Errorf("101 was called %d times", n)
		}
		call.Hangup()
		r.records()
	})
}

// TestWrapUpCodes: the rest after a call ends by code, or goes on.
func TestWrapUpCodes(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Queues[0].WrapUp = 30 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		rest := func() desk.State { return r.pool.Snapshot()[0].State }
		serve := func() {
			t.Helper()
			call := r.call()
			agent := r.answeredBy("101")
			agent.Hangup()
			r.must(call.WaitEnded(time.Second))
		}
		serve()
		r.code("101", "*26")
		time.Sleep(time.Second) // until that call is over
		if got := rest(); got != desk.Ready {
			t.Errorf("%v after *26", got)
		}
		serve()
		r.code("101", "*27")
		time.Sleep(40 * time.Second)
		if got := rest(); got != desk.WrapUp {
			t.Errorf("%v forty seconds after *27", got)
		}
		time.Sleep(time.Minute)
		if got := rest(); got != desk.Ready {
			t.Errorf("%v in the end", got)
		}
		r.records()
	})
}
