package pbx_test

import (
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// twoQueues is briefCity with 101 in the queue cim and 102 in the queue tax, to
// which phones pass callers on by 500.
func twoQueues(t *testing.T) pbx.Config {
	t.Helper()
	cfg := briefCity(t, "101", "102", "103")
	second := cfg.Queues[0]
	second.Name, second.Members, second.Number = "tax", []string{"102"}, "500"
	cfg.Queues[0].Members = []string{"101"}
	cfg.Queues = append(cfg.Queues, second)
	return cfg
}

// TestTransferToQueue: an agent passes the citizen on to another queue's line: the
// citizen waits there with music and no second announcement, and talks to its
// agent; one recording, two segments.
func TestTransferToQueue(t *testing.T) {
	t.Parallel()
	scenario(t, twoQueues(t), func(t *testing.T, r *rig) {
		busy, err := r.phones["103"].Dial("102") // so that there is a wait
		r.must(err)
		r.must(busy.WaitAnswered(10 * time.Second))
		caller, agent := r.talk()
		time.Sleep(time.Second)
		r.refer(agent, "500", 202)
		passed := time.Now()
		r.must(agent.WaitEnded(time.Second))
		told(t, agent, "100 active", "200 terminated")
		time.Sleep(3 * time.Second)
		if !musicHeard(caller.Heard().Since(passed.Add(200 * time.Millisecond))) {
			t.Error("the citizen hears no music in the queue")
		}
		_, err = r.phones["102"].WaitCall(time.Second) // that of 103
		r.must(err)
		busy.Hangup()
		next := r.answeredBy("102")
		time.Sleep(time.Second)
		if from := next.Invite().Get("From"); !strings.HasPrefix(from, `"tax +48600100200"`) {
			t.Errorf("the next agent sees %q", from)
		}
		hears(t, "next agent", next.Heard().PCM, callerHz)
		if pbxtest.Find(caller.Heard().Since(passed), briefWords()).Whole() {
			t.Error("the announcement was played again")
		}
		caller.Hangup()
		for _, rec := range r.records() {
			if rec.Direction == store.Incoming {
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				segments(t, rec, "101", "102")
				citizen, _ := r.lanes(rec)
				sameLength(t, rec, citizen)
			}
		}
	})
}

// TestTransferToQueueRefused: a closed queue has the phone keep its party; nobody
// who has not heard the announcement waits in a queue, and no phone dials one.
func TestTransferToQueueRefused(t *testing.T) {
	t.Parallel()
	cfg := twoQueues(t)
	cfg.Hours = []desk.HoursConfig{{Name: "never", Week: []string{"mon 10:00-11:00"}}} // it is Saturday
	cfg.Queues[1].Hours = "never"
	scenario(t, cfg, func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(time.Second)
		r.refer(agent, "500", 202)
		time.Sleep(time.Second)
		told(t, agent, "100 active", "480 terminated")
		hears(t, "caller", caller.Heard().Since(time.Now().Add(-500*time.Millisecond)), phoneHz)
		caller.Hangup()
		inside, err := r.phones["103"].Dial("102")
		r.must(err)
		r.must(inside.WaitAnswered(10 * time.Second))
		time.Sleep(100 * time.Millisecond)
		r.refer(inside, "500", 202)
		time.Sleep(time.Second)
		told(t, inside, "100 active", "403 terminated")
		inside.Hangup()
		dialled, err := r.phones["103"].Dial("500")
		r.must(err)
		r.must(dialled.WaitEnded(time.Second))
		if e := dialled.End(); e.Status != 403 {
			t.Errorf("a queue that was dialled ended %+v", e)
		}
		r.records()
	})
}

// TestGroupPickup: *8 takes the calls of those with whom a phone serves a queue;
// one that serves none takes any.
func TestGroupPickup(t *testing.T) {
	t.Parallel()
	cfg := twoQueues(t)
	cfg.Queues[0].Members = []string{"101", "103"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		director, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(director.WaitRinging(time.Second))
		if c := r.code("103", "*8"); c.End().Status != 480 {
			t.Errorf("another queue's agent was picked up: %+v", c.End())
		}
		other, err := r.phones["103"].Dial("**102") // a code that names the phone does
		r.must(err)
		r.must(other.WaitAnswered(time.Second))
		other.Hangup()

		r.behave("101", pbxtest.RingForEver())
		inside, err := r.phones["102"].Dial("101")
		r.must(err)
		r.must(inside.WaitRinging(time.Second))
		taker, err := r.phones["103"].Dial("*8")
		r.must(err)
		r.must(taker.WaitAnswered(time.Second))
		taker.Hangup()
		r.records()
	})
}
