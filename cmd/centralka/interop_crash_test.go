//go:build interop

package main_test

import (
	"testing"
	"time"

	"centralka/store"
)

// TestKill kills the switch in the middle of three recorded calls. After the
// next start each has its record and a recording that misses at most the last
// second, and says so.
func TestKill(t *testing.T) {
	r := newRig(t)
	for i := range r.extensions {
		r.extensions[i].agent = true
	}
	r.start()
	var agents []*phone
	for _, ext := range []string{"101", "102", "103"} {
		agents = append(agents, r.agent(ext, tonePhone))
	}
	startSIPp(t, sippRun{scenario: "in_conversation", from: r.addr(2) + ":5080", to: r.sip(), service: officeNumber,
		caller: citizenNumber, tone: toneCarrier, talk: 60 * time.Second, calls: len(agents), lasts: 70 * time.Second})
	var answered []time.Time
	for _, a := range agents {
		answered = append(answered, a.await("CALL_ESTABLISHED", 15*time.Second).at)
	}
	pauseFor(5300 * time.Millisecond)
	killed := time.Now()
	r.proc.kill()

	r.start() // recovery is done before it is ready, or soon after
	v := r.open()
	if len(v.calls) != len(agents) {
		t.Fatalf("%d call records, want %d", len(v.calls), len(agents))
	}
	earliest, latest := answered[0], answered[len(answered)-1]
	for _, call := range v.calls {
		path := v.recorded(call, store.OutcomeDegraded)
		got := readWAV(t, path).length()
		t.Logf("%s: %v of %v to %v; %s", call.ID, got, killed.Sub(latest), killed.Sub(earliest), call.Recording.Reason)
		talk := killed.Sub(call.Answered)
		if missing := talk - got; missing > time.Second || missing < -100*time.Millisecond {
			t.Errorf("recording of %v for %v of conversation: %v are missing", got, talk, missing)
		}
		if call.Answered.Before(earliest.Add(-time.Second)) || call.Answered.After(latest.Add(time.Second)) {
			t.Errorf("answered at %v, the phones say %v to %v", call.Answered, earliest, latest)
		}
		if call.Cause != store.CauseInterrupted || call.Ended.IsZero() || call.Recording.Reason == "" {
			t.Errorf("cause %q, ended %v, reason %q", call.Cause, call.Ended, call.Recording.Reason)
		}
		assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, 4*time.Second)
	}
}
