//go:build interop

package main_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"centralka/store"
)

// deliver has SIPp, as the carrier, call the city's number.
func (r *rig) deliver(scenario string, talk time.Duration) *sipp {
	r.t.Helper()
	return startSIPp(r.t, sippRun{scenario: scenario, from: r.addr(2) + ":5080", to: r.sip(),
		service: officeNumber, caller: citizenNumber, tone: toneCarrier, talk: talk, lasts: talk + 30*time.Second})
}

// TestPeers proves the tools without a switch: SIPp's audio reaches baresip, and
// two phones hear each other.
func TestPeers(t *testing.T) {
	r := newRig(t)
	callee := startPhone(t, phoneSetup{name: "callee", ext: "101", server: r.sip(), control: r.addr(20) + ":4444", tone: tonePhone})
	c := startSIPp(t, sippRun{scenario: "in_agent_hangs_up", from: r.addr(2) + ":5080", to: callee.addr, service: "101", caller: citizenNumber, tone: toneCarrier})
	callee.await("CALL_ESTABLISHED", 5*time.Second)
	callee.await("CALL_RTPESTAB", 5*time.Second)
	pauseFor(2 * time.Second)
	callee.order("hangup", "")
	c.succeed(10 * time.Second)
	callee.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, callee.heard(), toneCarrier, tonePhone)

	caller := startPhone(t, phoneSetup{name: "caller", ext: "102", server: r.sip(), control: r.addr(21) + ":4444", tone: toneOtherPhone})
	caller.order("dial", "sip:101@"+callee.addr)
	caller.await("CALL_ESTABLISHED", 5*time.Second)
	pauseFor(2 * time.Second)
	caller.order("hangup", "")
	caller.await("CALL_CLOSED", 5*time.Second)
	callee.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, caller.heard(), tonePhone, toneOtherPhone)
	assertHears(t, callee.heard(), toneOtherPhone, tonePhone)
}

// pauseFor lets peers talk: real processes take real time.
func pauseFor(d time.Duration) { <-time.After(d) }

// TestConversation is the backbone: announced, queued, answered, recorded. The
// carrier's tone is only in the left channel, the phone's only in the right.
func TestConversation(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	for _, page := range []string{"/stan", "/stan.json", "/metrics", "/healthz"} {
		if status, body := r.get(page); status != 200 || body == "" || strings.Contains(body, citizenNumber[3:]) {
			t.Errorf("%s in a call: status %d, %d bytes, or the caller's number in it", page, status, len(body))
		}
	}
	carrier.succeed(20 * time.Second)
	agent.await("CALL_CLOSED", 5*time.Second)
	agent.quit()
	assertHears(t, agent.heard(), toneCarrier, toneAnnouncement)

	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, 4*time.Second)
	switch a := call.Announcement; {
	case call.Direction != store.Incoming || call.Cause != store.CauseHangupCaller:
		t.Errorf("direction %q, cause %q", call.Direction, call.Cause)
	case !call.Caller.Identifiable() || call.Caller.Number.E164() != citizenNumber || call.Called.E164() != officeNumber:
		t.Error("the record's numbers are not those of the call")
	case a == nil || !a.Complete || a.Ended.Sub(a.Started) < time.Second:
		t.Errorf("announcement %+v, want it complete", a)
	case len(call.Rings) == 0 || call.Rings[0].From.Before(a.Ended) || call.Answered.Before(a.Ended):
		t.Error("a phone rang before the announcement ended (S1.4-c)")
	case call.Queue != "cim" || len(call.Segments) != 1 || call.Segments[0].Extension != "101":
		t.Errorf("queue %q, segments %+v", call.Queue, call.Segments)
	}
	bindings, err := v.store.Bindings()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(bindings["101"]); n != 0 {
		t.Errorf("the phone said goodbye and has %d bindings", n)
	}
}

// TestConversationHeardByCarrier has a phone stack as the carrier, to hear what
// SIPp cannot: announcement, then agent. Keys pressed on the way (RFC 4733) reach
// the agent's phone and are no sound in the recording.
func TestConversationHeardByCarrier(t *testing.T) {
	r := newRig(t)
	citizen := startPhone(t, phoneSetup{name: "citizen", ext: citizenNumber, server: r.sip(), control: r.addr(30) + ":4444", tone: toneCarrier})
	r.carriers = append(r.carriers, citizen.addr)
	r.start()
	agent := r.agent("101", tonePhone)
	citizen.order("dial", "sip:"+officeNumber+"@"+r.sip())
	citizen.await("CALL_ESTABLISHED", 5*time.Second)
	citizen.order("sndcode", "*") // skips nothing (S1.4-b)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(1500 * time.Millisecond)
	for _, key := range []string{"1", "9", "#"} {
		citizen.order("sndcode", key)
		if ev := agent.await("CALL_DTMF_START", 5*time.Second); ev.Param != key {
			t.Errorf("the agent's phone got the key %q, want %q", ev.Param, key)
		}
		agent.await("CALL_DTMF_END", 5*time.Second)
	}
	pauseFor(1500 * time.Millisecond)
	citizen.order("hangup", "")
	agent.await("CALL_CLOSED", 5*time.Second)
	citizen.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, citizen.heard(), toneAnnouncement, toneCarrier)
	assertHears(t, citizen.heard(), tonePhone, toneCarrier)

	v := r.open()
	call := v.only()
	if a := call.Announcement; !a.Complete || a.Ended.Sub(a.Started) < time.Second {
		t.Errorf("announcement %+v", a)
	}
	path := v.recorded(call, store.OutcomeOK)
	assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, 1500*time.Millisecond)
	w := readWAV(t, path)
	for lane := range w.lanes {
		for _, hz := range []int{697, 852, 941, 1209, 1477} { // 1, 9 and #
			if got := w.loudest(lane, hz); got > 0.05 {
				t.Errorf("channel %d: DTMF tone of %d Hz (%.3f)", lane+1, hz, got)
			}
		}
	}
}

// TestAgentHangsUp: the office ends the call.
func TestAgentHangsUp(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_agent_hangs_up", 0)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(2 * time.Second)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	if call.Cause != store.CauseHangupCalled {
		t.Errorf("cause %q, want %q", call.Cause, store.CauseHangupCalled)
	}
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 300*time.Millisecond, 1500*time.Millisecond)
}

// TestHangUpInAnnouncement: the statutory announcement, and a caller who does
// not agree (S1.4-d).
func TestHangUpInAnnouncement(t *testing.T) {
	r := newRig(t)
	r.ann = ""
	r.start()
	agent := r.agent("101", tonePhone)
	r.deliver("in_conversation", 2*time.Second).succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseAnnouncementHangup || call.Announcement == nil || call.Announcement.Complete || len(call.Rings) != 0 {
		t.Errorf("cause %q, announcement %+v, rings %+v", call.Cause, call.Announcement, call.Rings)
	}
	if agent.called() {
		t.Error("the agent's phone was called")
	}
}

// TestCancelCrossesAnswer: CANCEL when the 200 is on its way.
func TestCancelCrossesAnswer(t *testing.T) {
	r := newRig(t)
	r.start()
	r.deliver("in_cancel", 0).succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseAnnouncementHangup && call.Cause != store.CauseCancelled {
		t.Errorf("cause %q", call.Cause)
	}
}

// lag is how late a process may be on a busy machine.
const lag = 400 * time.Millisecond

// TestAckLate: RFC 3261 §13.3.1.4, T1 backoff of the 200.
func TestAckLate(t *testing.T) {
	r := newRig(t)
	r.start()
	carrier := r.deliver("in_ack_late", 0)
	carrier.succeed(20 * time.Second)
	oks := carrier.received("SIP/2.0 200", "CSeq: 1 INVITE")
	if len(oks) != 3 {
		t.Fatalf("%d times 200, want 3: at 0, T1, 3*T1, and none after the ACK", len(oks))
	}
	for i, want := range []time.Duration{500 * time.Millisecond, time.Second} {
		if got := oks[i+1].Sub(oks[i]); got < want-100*time.Millisecond || got > want+lag {
			t.Errorf("200 sent again after %v, want %v", got, want)
		}
	}
	if call := r.open().only(); call.Announcement == nil || call.Announcement.Started.Before(oks[2]) {
		t.Error("the announcement began before the ACK")
	}
}

// TestAckNever: RFC 3261 §13.3.1.4, BYE after 64*T1.
func TestAckNever(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_ack_never", 15*time.Second)
	carrier.succeed(45 * time.Second)
	oks, byes := carrier.received("SIP/2.0 200", "CSeq: 1 INVITE"), carrier.received("BYE ")
	if len(oks) < 10 || len(byes) == 0 {
		t.Fatalf("%d times 200, %d times BYE", len(oks), len(byes))
	}
	if after := byes[0].Sub(oks[0]); after < 31*time.Second || after > 34*time.Second {
		t.Errorf("BYE after %v, want 32 s", after)
	}
	for i := 1; i < len(oks); i++ {
		want := min(500*time.Millisecond<<(i-1), 4*time.Second)
		if got := oks[i].Sub(oks[i-1]); (got - want).Abs() > lag {
			t.Errorf("200 no. %d after %v, want %v", i+1, got, want)
		}
	}
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseNoAck || agent.called() {
		t.Errorf("cause %q, want %q and no phone rung", call.Cause, store.CauseNoAck)
	}
}

// TestLateOffer: RFC 3261 §13.2.1, the answer comes in the ACK.
func TestLateOffer(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_late_offer", 6*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	v := r.open()
	assertLanes(t, v.recorded(v.only(), store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 3*time.Second)
}

// TestHold: the carrier holds in every way there is, twice resumes, and the
// recording stays one timeline.
func TestHold(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_hold", 5*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(30 * time.Second)
	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	if len(call.Holds) < 2 {
		t.Fatalf("holds %+v, want those of the carrier", call.Holds)
	}
	w := readWAV(t, path)
	for _, h := range call.Holds {
		from, to := h.From.Sub(call.Answered), h.To.Sub(call.Answered)
		if h.By != "citizen" || to-from < 700*time.Millisecond {
			t.Errorf("hold by %q for %v", h.By, to-from)
		}
		for lane := range w.lanes {
			for _, hz := range []int{toneCarrier, tonePhone} {
				if got := w.level(lane, hz, from+200*time.Millisecond, to-200*time.Millisecond); got > 0.01 {
					t.Errorf("channel %d has %d Hz (%.3f) while held", lane+1, hz, got)
				}
			}
		}
	}
	resumed := call.Holds[0].To.Sub(call.Answered)
	assertLanes(t, path, toneCarrier, tonePhone, resumed+300*time.Millisecond, resumed+1200*time.Millisecond)
	last := call.Holds[len(call.Holds)-1].To.Sub(call.Answered)
	assertLanes(t, path, toneCarrier, tonePhone, last+300*time.Millisecond, last+1200*time.Millisecond)
}

// TestFax: a re-INVITE to T.38 is refused and the call goes on.
func TestFax(t *testing.T) { testUndisturbed(t, "in_t38") }

// TestUpdate: an UPDATE that only refreshes changes nothing.
func TestUpdate(t *testing.T) { testUndisturbed(t, "in_update") }

func testUndisturbed(t *testing.T, scenario string) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver(scenario, 5*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, readWAV(t, path).length()-200*time.Millisecond)
	if call.Cause != store.CauseHangupCaller || len(call.Holds) != 0 {
		t.Errorf("cause %q, holds %+v", call.Cause, call.Holds)
	}
}

// TestWithheld: a caller who withholds the number stays unknown to phone, record
// and log (S4.7-a).
func TestWithheld(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_withheld", 5*time.Second)
	ev := agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	if strings.Contains(ev.Peer, citizenNumber[1:]) {
		t.Error("the phone was shown the number")
	}
	agent.quit()
	b, err := os.ReadFile(agent.logPath) // has every SIP message
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), citizenNumber[3:]) {
		t.Error("the number was sent to the phone")
	}
	v := r.open()
	call := v.only()
	v.recorded(call, store.OutcomeOK)
	if call.Caller.Identifiable() || call.Caller.Number != "" || call.Caller.Raw != "" || call.Caller.Presentation != "withheld" {
		t.Errorf("caller identifiable %v, presentation %q", call.Caller.Identifiable(), call.Caller.Presentation)
	}
}

// TestExtensionNumber: a number of its own rings one extension.
func TestExtensionNumber(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := startSIPp(t, sippRun{scenario: "in_conversation", from: r.addr(2) + ":5080", to: r.sip(),
		service: directNumber, caller: citizenNumber, tone: toneCarrier, talk: 6 * time.Second})
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2*time.Second)
	if call.Queue != "" || !call.Announcement.Complete {
		t.Errorf("queue %q, announcement %+v", call.Queue, call.Announcement)
	}
}

// TestRefusals: what is answered as the RFCs say, one after the other against
// one switch, which stays ready.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, c := range []struct{ scenario, service string }{
		{"refuse_unknown_number", "+48914249999"},
		{"refuse_no_codec", officeNumber},
		{"refuse_precondition", officeNumber},
		{"refuse_max_forwards", officeNumber},
		{"refuse_method", officeNumber},
		{"refuse_dialog", officeNumber},
		{"options", officeNumber},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			startSIPp(t, sippRun{scenario: c.scenario, from: r.addr(2) + ":5080", to: r.sip(),
				service: c.service, caller: citizenNumber, tone: toneCarrier, lasts: 10 * time.Second}).succeed(12 * time.Second)
		})
	}
	if status, _ := r.get("/readyz"); status != 200 {
		t.Errorf("/readyz answers %d afterwards", status)
	}
	v := r.open()
	for _, call := range v.calls {
		v.noAudio(call)
		if call.Cause != store.CauseNotFound && call.Cause != store.CauseNotAcceptable {
			t.Errorf("cause %q", call.Cause)
		}
	}
}
