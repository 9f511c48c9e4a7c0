//go:build interop

package main_test

import (
	"testing"
	"time"

	"centralka/store"
)

// TestNextAgent: a phone that nobody answers loses the call to the next agent's,
// and the caller does not hear the announcement again (S1.4-g).
func TestNextAgent(t *testing.T) {
	r := newRig(t)
	r.ringTimeout = 2 * time.Second
	r.start()
	absent := r.register(phoneSetup{ext: "101", tone: toneOtherPhone, manual: true})
	pauseFor(300 * time.Millisecond) // idle for longer, so offered first
	agent := r.agent("102", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	absent.await("CALL_INCOMING", 10*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	absent.await("CALL_CLOSED", 2*time.Second)
	carrier.succeed(20 * time.Second)

	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2*time.Second)
	if len(call.Rings) != 2 || call.Rings[0].Extension != "101" || call.Rings[0].Result != "timeout" || call.Rings[1].Extension != "102" || call.Rings[1].Result != "answered" {
		t.Errorf("rings %+v", call.Rings)
	}
	if rang := call.Rings[0].To.Sub(call.Rings[0].From); (rang - r.ringTimeout).Abs() > lag {
		t.Errorf("the first phone rang for %v, want %v", rang, r.ringTimeout)
	}
}

// TestAbandoned: a caller who waits in vain and hangs up.
func TestAbandoned(t *testing.T) {
	r := newRig(t)
	r.start()
	r.deliver("in_conversation", 2500*time.Millisecond).succeed(15 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseAbandoned || call.Queued.IsZero() || !call.Announcement.Complete {
		t.Errorf("cause %q, queued %v, announcement %+v", call.Cause, call.Queued, call.Announcement)
	}
}

// TestAgentHolds: the phone holds and resumes by re-INVITE. The citizen does not
// hear the agent meanwhile, and both channels are silent.
func TestAgentHolds(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_agent_hangs_up", 0)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(1500 * time.Millisecond)
	agent.order("hold", "")
	pauseFor(1500 * time.Millisecond)
	agent.order("resume", "")
	pauseFor(1500 * time.Millisecond)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)

	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	if len(call.Holds) != 1 || call.Holds[0].By != "office" {
		t.Fatalf("holds %+v, want one by the office", call.Holds)
	}
	from, to := call.Holds[0].From.Sub(call.Answered), call.Holds[0].To.Sub(call.Answered)
	w := readWAV(t, path)
	for lane := range w.lanes {
		for _, hz := range []int{toneCarrier, tonePhone} {
			if got := w.level(lane, hz, from+200*time.Millisecond, to-200*time.Millisecond); got > 0.01 {
				t.Errorf("channel %d has %d Hz (%.3f) while held", lane+1, hz, got)
			}
		}
	}
	assertLanes(t, path, toneCarrier, tonePhone, 300*time.Millisecond, from-200*time.Millisecond)
	assertLanes(t, path, toneCarrier, tonePhone, to+300*time.Millisecond, to+1200*time.Millisecond)
}
