//go:build interop

package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"centralka/store"
)

// sippPhone has SIPp, as the phone 103, call somebody.
func (r *rig) sippPhone(scenario, called string, talk time.Duration) *sipp {
	r.t.Helper()
	return startSIPp(r.t, sippRun{name: scenario + "-" + strings.Trim(called, "*"), scenario: scenario, from: r.addr(4) + ":5070", to: r.sip(),
		service: "103", password: "thirdsecret", called: called, tone: tonePhone, talk: talk})
}

// TestSessionTimer: a session of 90 s is refreshed by us after 45 s, by UPDATE or
// by re-INVITE; nothing of it is heard.
func TestSessionTimer(t *testing.T) {
	for _, scenario := range []string{"in_session_update", "in_session_reinvite"} {
		t.Run(scenario, func(t *testing.T) {
			r := newRig(t)
			r.start()
			agent := r.agent("101", tonePhone)
			carrier := startSIPp(t, sippRun{scenario: scenario, from: r.addr(2) + ":5080", to: r.sip(),
				service: officeNumber, caller: citizenNumber, tone: toneCarrier, lasts: 70 * time.Second})
			agent.await("CALL_ESTABLISHED", 10*time.Second)
			carrier.succeed(70 * time.Second)
			v := r.open()
			call := v.only()
			if out := call.Recording.Outcome; out != store.OutcomeOK && out != store.OutcomeDegraded { // a busy machine holds a phone up
				t.Fatalf("recording outcome %q (%s)", out, call.Recording.Reason)
			}
			path := v.copyOut(call)
			assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, readWAV(t, path).length()-time.Second)
		})
	}
}

// TestVideo, TestReferOfTrunk: refused, and the call goes on.
func TestVideo(t *testing.T)        { testUndisturbed(t, "in_video") }
func TestReferOfTrunk(t *testing.T) { testUndisturbed(t, "in_refer") }

// TestKeysByINFO: no key skips the announcement, and the call is not disturbed.
func TestKeysByINFO(t *testing.T) { testUndisturbed(t, "in_info") }

// TestDiverted: the number that was dialled first is in the record, and the
// caller is the caller.
func TestDiverted(t *testing.T) {
	r := newRig(t)
	r.start()
	r.deliver("in_diverted", 300*time.Millisecond).succeed(10 * time.Second)
	call := r.open().only()
	if call.Diverted.E164() != "+48914240000" || call.Caller.Number.E164() != citizenNumber {
		t.Errorf("diverted from what was dialled first: %v; the caller is the citizen: %v",
			call.Diverted.E164() == "+48914240000", call.Caller.Number.E164() == citizenNumber)
	}
}

// TestMoreRefusals are refusals that leave no record, or one without audio.
func TestMoreRefusals(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, scenario := range []string{"refuse_content", "refuse_extension", "refuse_replaces", "refuse_session", "in_require_100rel"} {
		t.Run(scenario, func(t *testing.T) {
			startSIPp(t, sippRun{scenario: scenario, from: r.addr(2) + ":5080", to: r.sip(),
				service: officeNumber, caller: citizenNumber, tone: toneCarrier, lasts: 10 * time.Second}).succeed(12 * time.Second)
		})
	}
	for _, call := range r.open().calls {
		if call.Recording.Outcome != store.OutcomeNone {
			t.Errorf("recording %+v", call.Recording)
		}
	}
}

// TestOutgoingReliable: PRACK, and the answer in the reliable 183.
func TestOutgoingReliable(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_reliable", 2)
	r.dial(agent)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(1500 * time.Millisecond)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	v := r.open()
	assertLanes(t, v.recorded(v.only(), store.OutcomeOK), toneCarrier, tonePhone, 300*time.Millisecond, 1200*time.Millisecond)
}

// TestOutgoingSilent: a carrier that does not answer loses the call to the next.
func TestOutgoingSilent(t *testing.T) {
	r := newRig(t)
	r.carriers = []string{r.addr(2)}
	r.trunks = fmt.Sprintf("[[trunk]]\nname = \"second\"\nserver = %q\nfrom = [%q]\ncaller_number = %q\n", r.addr(3)+":5080", r.addr(3), officeNumber)
	r.start()
	agent := r.agent("101", tonePhone)
	silent, second := r.await("out_silent", 2), r.await("out_answer", 3)
	began := time.Now()
	r.dial(agent)
	agent.await("CALL_ESTABLISHED", 15*time.Second)
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("answered by the second after %v", d)
	}
	pauseFor(time.Second)
	agent.order("hangup", "")
	second.succeed(10 * time.Second)
	silent.succeed(15 * time.Second)
	v := r.open()
	v.recorded(v.only(), store.OutcomeOK)
}

// TestTrunkRegisters: with a nonce that was stale.
func TestTrunkRegisters(t *testing.T) {
	r := newRig(t)
	r.carriers = []string{r.addr(2)}
	r.trunks = fmt.Sprintf("[[trunk]]\nname = \"registering\"\nserver = %q\nfrom = [%q]\nregister = true\nuser = \"szczecin\"\ncaller_number = %q\n", r.addr(3)+":5080", r.addr(3), officeNumber)
	r.secrets = "registering = \"another secret\"\n"
	registrar := r.await("trunk_register", 3)
	r.start()
	registrar.succeed(15 * time.Second)
	eventually(t, 5*time.Second, "the status page says that the trunk is registered", func() bool {
		_, stan := r.get("/stan.json")
		_, rest, _ := strings.Cut(stan, `"registering"`)
		return strings.Contains(rest, time.Now().UTC().Format("2006-01-02"))
	})
	r.stop()
}

// TestTrunkIsAsked: OPTIONS to the trunk's server.
func TestTrunkIsAsked(t *testing.T) {
	r := newRig(t)
	r.optionsInterval = "30s"
	carrier := r.await("trunk_options", 2)
	r.start()
	carrier.succeed(20 * time.Second)
	r.stop()
}

// TestTollFraud: what a phone may not dial reaches no trunk; an emergency number
// always does.
func TestTollFraud(t *testing.T) {
	r := newRig(t)
	r.start()
	r.sippPhone("phone_forbidden", "0700123456", 0).succeed(10 * time.Second)
	carrier := r.await("out_emergency", 2)
	r.sippPhone("phone_call", "112", 2*time.Second).succeed(10 * time.Second)
	carrier.succeed(10 * time.Second)
	v := r.open()
	if len(v.calls) != 2 {
		t.Fatalf("%d records, want 2", len(v.calls))
	}
	for _, call := range v.calls {
		if call.Answered.IsZero() {
			v.noAudio(call)
			continue
		}
		v.recorded(call, store.OutcomeOK)
	}
}

// TestDoNotDisturb: set by a code, and taken back.
func TestDoNotDisturb(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	agent.order("dial", "sip:*24@"+r.sip())
	agent.await("CALL_ESTABLISHED", 5*time.Second)
	agent.await("CALL_CLOSED", 8*time.Second)
	r.sippPhone("phone_busy", "101", 0).succeed(10 * time.Second)
	r.sippPhone("phone_code", "*25", 0).succeed(15 * time.Second)
	if v := r.open(); len(v.calls) != 0 && v.calls[0].Recording.Outcome != store.OutcomeNone {
		t.Error("a code was recorded")
	}
}

// TestPhoneHolds: the recording is silent meanwhile.
func TestPhoneHolds(t *testing.T) {
	r := newRig(t)
	r.start()
	carrier := r.await("out_answer", 2)
	r.sippPhone("phone_hold", "0"+citizenNumber[3:], 0).succeed(20 * time.Second)
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.recorded(call, store.OutcomeOK)
	if len(call.Holds) != 1 || call.Holds[0].By != "office" || call.Holds[0].To.Sub(call.Holds[0].From) < time.Second {
		t.Errorf("holds %+v", call.Holds)
	}
}

// TestTransfer: the citizen, whom 103 has called, is passed on to 102; one
// recording, two segments.
func TestTransfer(t *testing.T) {
	r := newRig(t)
	r.start()
	target := r.agent("102", toneOtherPhone)
	carrier := r.await("out_answer", 2)
	r.sippPhone("phone_transfer", "0"+citizenNumber[3:], 0).succeed(20 * time.Second)
	target.await("CALL_ESTABLISHED", 5*time.Second)
	pauseFor(2 * time.Second)
	target.order("hangup", "")
	carrier.succeed(10 * time.Second)
	target.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, target.heard(), toneCarrier, tonePhone)
	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	if len(call.Segments) != 2 || call.Segments[1].Extension != "102" {
		t.Fatalf("segments %+v", call.Segments)
	}
	at := call.Segments[1].From.Sub(call.Answered)
	assertLanes(t, path, toneCarrier, toneOtherPhone, at+300*time.Millisecond, at+1500*time.Millisecond)
}

// TestTransferInVain: the call stays with the phone.
func TestTransferInVain(t *testing.T) {
	r := newRig(t)
	r.start()
	carrier := r.await("out_answer", 2)
	r.sippPhone("phone_transfer_in_vain", "0"+citizenNumber[3:], 0).succeed(20 * time.Second)
	carrier.succeed(10 * time.Second)
	v := r.open()
	v.recorded(v.only(), store.OutcomeOK)
}

// TestPickup: a phone that rings for long is relieved by another, by code.
func TestPickup(t *testing.T) {
	r := newRig(t)
	r.start()
	rings := r.register(phoneSetup{ext: "101", tone: toneOtherPhone, manual: true})
	carrier := r.deliver("in_conversation", 7*time.Second)
	rings.await("CALL_INCOMING", 10*time.Second)
	r.sippPhone("phone_call", "*8", 2*time.Second).succeed(15 * time.Second)
	rings.await("CALL_CLOSED", 2*time.Second)
	carrier.wait(15 * time.Second)
	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 300*time.Millisecond, 1500*time.Millisecond)
	if len(call.Segments) != 1 || call.Segments[0].Extension != "103" {
		t.Errorf("segments %+v", call.Segments)
	}
}

// TestLamp: a phone sees another's call begin.
func TestLamp(t *testing.T) {
	r := newRig(t)
	r.start()
	r.register(phoneSetup{ext: "102", tone: tonePhone, manual: true}) // it rings, and no more
	agent := r.register(phoneSetup{ext: "101", tone: toneOtherPhone, manual: true})
	startSIPp(t, sippRun{scenario: "phone_bind", from: r.addr(4) + ":5070", to: r.sip(), service: "103", password: "thirdsecret", tone: tonePhone}).succeed(10 * time.Second)
	lamp := r.sippPhone("phone_lamp", "102", 0)
	pauseFor(700 * time.Millisecond)
	agent.order("dial", "sip:102@"+r.sip())
	lamp.succeed(20 * time.Second)
	agent.order("hangup", "")
	agent.await("CALL_CLOSED", 5*time.Second)
	r.stop()
}
