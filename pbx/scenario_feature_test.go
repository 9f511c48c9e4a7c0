package pbx_test

import (
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// code dials a feature code and returns the call once it is over.
func (r *rig) code(phone, code string) *pbxtest.Call {
	r.t.Helper()
	c, err := r.phones[phone].Dial(code)
	r.must(err)
	r.must(c.WaitEnded(10 * time.Second))
	return c
}

func (r *rig) agent(id string) desk.AgentStatus {
	r.t.Helper()
	for _, a := range r.pool.Snapshot() {
		if a.ID == desk.AgentID(id) {
			return a
		}
	}
	r.t.Fatalf("no agent %s", id)
	return desk.AgentStatus{}
}

// TestFeatureCodes: an agent says ready and away, and why, by dialling; beeps
// confirm it, the switch hangs up, and the queue goes by it.
func TestFeatureCodes(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Extensions[1].Agent = false
	cfg.Queues[0].Members = []string{"101"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		for code, reason := range map[string]string{"*22": "said", "*221": "break", "*222": "meeting", "*223": "training", "*23": "pause"} {
			c := r.code("101", code)
			if c.At(pbxtest.Answered).IsZero() || c.End().ByUs {
				t.Errorf("%s ended by %+v", code, c.End())
			}
			time.Sleep(100 * time.Millisecond)
			if a := r.agent("101"); a.State != desk.Away || a.Reason != reason {
				t.Errorf("after %s the agent is %+v", code, a)
			}
			if first := c.Heard().PCM; !pbxtest.HasTone(first[:len(first)/2], 880) {
				t.Errorf("%s is not confirmed by beeps", code)
			}
		}
		waiting := r.call()
		time.Sleep(5 * time.Second)
		r.quiet("101")
		if c := r.code("101", "*21"); !pbxtest.HasTone(c.Heard().PCM[:len(c.Heard().PCM)/2], 660) {
			t.Error("no rising beeps")
		}
		r.answeredBy("101")
		waiting.Hangup()
		if c := r.code("102", "*21"); c.End().Status != 403 {
			t.Errorf("a phone without agent: %+v", c.End())
		}
		for _, rec := range r.records() {
			if rec.Direction == store.Internal && rec.Recording.Outcome != store.OutcomeNone {
				t.Errorf("a code was recorded: %+v", rec)
			}
		}
	})
}

// TestBusyExtension: who is in as many calls as max_calls allows is busy, and so
// is who does not want to be disturbed; with room for two a second call rings.
func TestBusyExtension(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103")
	cfg.Extensions[0].MaxCalls = 1
	scenario(t, cfg, func(t *testing.T, r *rig) {
		busy := func(from, to string, want bool) {
			t.Helper()
			c, err := r.phones[from].Dial(to)
			r.must(err)
			if !want {
				r.must(c.WaitAnswered(10 * time.Second))
				c.Hangup()
				return
			}
			r.must(c.WaitEnded(time.Second))
			if c.End().Status != 486 {
				t.Errorf("%s to %s: %+v", from, to, c.End())
			}
		}
		first, err := r.phones["102"].Dial("101")
		r.must(err)
		r.must(first.WaitAnswered(10 * time.Second))
		busy("103", "101", true)
		busy("103", "102", false) // 102 has room for one more
		first.Hangup()
		time.Sleep(time.Second)
		busy("103", "101", false)
		r.code("102", "*24")
		busy("103", "102", true)
		r.code("102", "*25")
		busy("103", "102", false)
		r.records()
	})
}
