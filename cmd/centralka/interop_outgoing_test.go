//go:build interop

package main_test

import (
	"crypto/md5"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"centralka/store"
)

// await starts SIPp as a carrier that waits for a call on host's address.
func (r *rig) await(scenario string, host int) *sipp {
	r.t.Helper()
	s := startSIPp(r.t, sippRun{name: fmt.Sprintf("%s-%d", scenario, host), scenario: scenario,
		from: fmt.Sprintf("%s:5080", r.addr(host)), tone: toneCarrier})
	listening(r.t, r.addr(host)+":5080")
	return s
}

// dial has a phone call the citizen.
func (r *rig) dial(p *phone) {
	p.order("dial", fmt.Sprintf("sip:0%s@%s", citizenNumber[3:], r.sip()))
}

// TestOutgoing: a phone calls a citizen; the call is recorded, citizen left.
func TestOutgoing(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_answer", 2)
	r.dial(agent)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(3 * time.Second)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	agent.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, agent.heard(), toneCarrier, toneAnnouncement)

	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2500*time.Millisecond)
	if call.Direction != store.Outgoing || call.Called.E164() != citizenNumber || call.Extension != "101" || call.Cause != store.CauseHangupCaller {
		t.Errorf("direction %q, extension %q, cause %q, called as dialled: %v", call.Direction, call.Extension, call.Cause, call.Called.E164() == citizenNumber)
	}
}

// TestOutgoingEarlyMedia: the phone hears the network's tone before the answer;
// nothing of it is recorded.
func TestOutgoingEarlyMedia(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_early_media", 2)
	r.dial(agent)
	agent.await("CALL_PROGRESS", 5*time.Second)
	early := agent.await("CALL_RTPESTAB", 5*time.Second)
	answer := agent.await("CALL_ESTABLISHED", 10*time.Second)
	if early.at.After(answer.at) {
		t.Error("the phone heard nothing before the answer")
	}
	pauseFor(1500 * time.Millisecond)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	v := r.open()
	v.recorded(v.only(), store.OutcomeOK)
}

// TestOutgoingBusy: the called party's 486 reaches the phone.
func TestOutgoingBusy(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_busy", 2)
	r.dial(agent)
	if ev := agent.await("CALL_CLOSED", 10*time.Second); ev.Param != "486 Busy Here" {
		t.Errorf("the phone was told %q, want 486", ev.Param)
	}
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseBusy || call.SIPStatus != 486 || call.Q850 != 17 {
		t.Errorf("cause %q, status %d, Q.850 %d", call.Cause, call.SIPStatus, call.Q850)
	}
}

// TestOutgoingNextTrunk: 503 from one carrier sends the call to the next.
func TestOutgoingNextTrunk(t *testing.T) {
	r := newRig(t)
	r.carriers = []string{r.addr(2)}
	r.trunks = fmt.Sprintf("[[trunk]]\nname = \"second\"\nserver = %q\nfrom = [%q]\ncaller_number = %q\n", r.addr(3)+":5080", r.addr(3), officeNumber)
	r.start()
	agent := r.agent("101", tonePhone)
	first, second := r.await("out_unavailable", 2), r.await("out_answer", 3)
	r.dial(agent)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(1500 * time.Millisecond)
	agent.order("hangup", "")
	first.succeed(10 * time.Second)
	second.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.recorded(call, store.OutcomeOK)
	if call.Trunk != "second" {
		t.Errorf("trunk %q, want the second", call.Trunk)
	}
}

// TestOutgoingUnavailable: 503 and no other way out ends the call.
func TestOutgoingUnavailable(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_unavailable", 2)
	r.dial(agent)
	agent.await("CALL_CLOSED", 10*time.Second)
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseUnreachable {
		t.Errorf("cause %q, want %q", call.Cause, store.CauseUnreachable)
	}
}

// TestOutgoingCancelled: the phone gives up while it rings at the citizen's.
func TestOutgoingCancelled(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_cancelled", 2)
	r.dial(agent)
	agent.await("CALL_RINGING", 10*time.Second)
	pauseFor(500 * time.Millisecond)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Cause != store.CauseCancelled {
		t.Errorf("cause %q, want %q", call.Cause, store.CauseCancelled)
	}
}

// TestOutgoingChallenge: the carrier asks the INVITE for credentials.
func TestOutgoingChallenge(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.await("out_challenge", 2)
	r.dial(agent)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(time.Second)
	agent.order("hangup", "")
	carrier.succeed(10 * time.Second)
	var proven sippMessage
	for _, m := range carrier.log() {
		if !m.sent && strings.HasPrefix(m.first(), "INVITE ") && strings.Contains(m.text, "\nProxy-Authorization:") {
			proven = m
			break
		}
	}
	verifyDigest(t, proven.text, "szczecin", trunkSecret)
	v := r.open()
	v.recorded(v.only(), store.OutcomeOK)
}

// verifyDigest checks the Proxy-Authorization of an INVITE (RFC 7616 §3.4.1,
// MD5 and qop auth).
func verifyDigest(t *testing.T, invite, user, password string) {
	t.Helper()
	_, rest, _ := strings.Cut(invite, "\nProxy-Authorization: Digest ")
	line, _, _ := strings.Cut(rest, "\n")
	field := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+)=(?:"([^"]*)"|([^",\s]+))`).FindAllStringSubmatch(line, -1) {
		field[m[1]] = m[2] + m[3]
	}
	h := func(parts ...string) string { return fmt.Sprintf("%x", md5.Sum([]byte(strings.Join(parts, ":")))) }
	want := h(h(user, field["realm"], password), field["nonce"], field["nc"], field["cnonce"], field["qop"], h("INVITE", field["uri"]))
	uri, _, _ := strings.Cut(strings.TrimPrefix(invite, "INVITE "), " ")
	if field["response"] != want || field["uri"] != uri || field["username"] != user {
		t.Errorf("credentials %v: want response %s for %s", field, want, uri)
	}
}

// TestPhoneBySIPp: registration, a wrong password and a call, to the letter.
func TestPhoneBySIPp(t *testing.T) {
	r := newRig(t)
	r.start()
	run := sippRun{from: r.addr(4) + ":5070", to: r.sip(), service: "103", password: "thirdsecret", tone: tonePhone}
	for _, c := range []struct{ scenario, password string }{
		{"phone_register", "thirdsecret"},
		{"phone_wrong_password", "thirdsecre"},
	} {
		run.scenario, run.password = c.scenario, c.password
		startSIPp(t, run).succeed(10 * time.Second)
	}
	carrier := r.await("out_answer", 2)
	run.scenario, run.password, run.called, run.talk = "phone_call", "thirdsecret", "0"+citizenNumber[3:], 3*time.Second
	startSIPp(t, run).succeed(20 * time.Second)
	carrier.succeed(10 * time.Second)
	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2500*time.Millisecond)
	bindings, err := v.store.Bindings()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(bindings["103"]); n != 0 {
		t.Errorf("%d bindings are left", n)
	}
}

// TestInternal: calls between phones are bridged and not recorded (S1.3-e).
func TestInternal(t *testing.T) {
	r := newRig(t)
	r.start()
	a, b := r.agent("101", tonePhone), r.agent("102", toneOtherPhone)
	a.order("dial", "sip:102@"+r.sip())
	a.await("CALL_ESTABLISHED", 10*time.Second)
	b.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(2 * time.Second)
	b.order("hangup", "")
	a.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, a.heard(), toneOtherPhone, tonePhone)
	b.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, b.heard(), tonePhone, toneOtherPhone)
	v := r.open()
	call := v.only()
	v.noAudio(call)
	if call.Direction != store.Internal {
		t.Errorf("direction %q", call.Direction)
	}
}
