//go:build interop

package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/zaf/g711"

	"centralka/store"
)

// TestReload: SIGHUP takes over a new number while a call goes on.
func TestReload(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	const added = "+48914245777"
	r.trunks = fmt.Sprintf("[[number]]\nmatch = %q\ntarget = \"queue:cim\"\n", added)
	r.configure()
	r.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, "the configuration is reloaded", func() bool { return r.logs("configuration reloaded") })
	startSIPp(t, sippRun{name: "added", scenario: "in_conversation", from: r.addr(3) + ":5080", to: r.sip(),
		service: added, caller: citizenNumber, tone: toneCarrier, talk: 300 * time.Millisecond}).succeed(10 * time.Second)
	carrier.succeed(15 * time.Second)
	v := r.open()
	if len(v.calls) != 2 {
		t.Fatalf("%d call records, want 2", len(v.calls))
	}
	for _, call := range v.calls {
		if call.Called.E164() == added {
			v.noAudio(call)
			continue
		}
		assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2500*time.Millisecond)
	}
}

// TestDrain: told to stop, the switch refuses new calls and lets the one that
// goes on end by itself.
func TestDrain(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	r.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, "the switch is not ready any more", func() bool {
		status, _ := r.get("/readyz")
		return status == http.StatusServiceUnavailable
	})
	startSIPp(t, sippRun{scenario: "refuse_not_ready", from: r.addr(3) + ":5080", to: r.sip(),
		service: officeNumber, caller: citizenNumber, tone: toneCarrier}).succeed(10 * time.Second)
	carrier.succeed(15 * time.Second)
	r.proc.wait(10 * time.Second)
	v := r.open()
	recorded := 0
	for _, call := range v.calls {
		if call.Answered.IsZero() {
			v.noAudio(call)
			continue
		}
		recorded++
		assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2500*time.Millisecond)
		if call.Cause != store.CauseHangupCaller {
			t.Errorf("cause %q", call.Cause)
		}
	}
	if recorded != 1 {
		t.Errorf("%d conversations, want 1", recorded)
	}
}

// TestHurry: told twice, it hangs up, and what was recorded is kept.
func TestHurry(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_agent_hangs_up", 0)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	pauseFor(2 * time.Second)
	r.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, "the switch drains", func() bool { return r.logs("draining") })
	r.signal(syscall.SIGTERM)
	carrier.succeed(10 * time.Second)
	r.proc.wait(10 * time.Second)
	v := r.open()
	call := v.only()
	if call.Cause != store.CauseShutdown {
		t.Errorf("cause %q, want %q", call.Cause, store.CauseShutdown)
	}
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 300*time.Millisecond, 1800*time.Millisecond)
}

// TestAnnouncementAltered: without the announcement that was approved no call is
// taken (S1.4-f).
func TestAnnouncementAltered(t *testing.T) {
	r := newRig(t)
	r.annHash = strings.Repeat("0", 64)
	r.launch(http.StatusServiceUnavailable)
	startSIPp(t, sippRun{scenario: "refuse_not_ready", from: r.addr(2) + ":5080", to: r.sip(),
		service: officeNumber, caller: citizenNumber, tone: toneCarrier}).succeed(10 * time.Second)
	v := r.open()
	for _, call := range v.calls {
		v.noAudio(call)
	}
}

// TestTCP: the carrier signals over TCP.
func TestTCP(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := startSIPp(t, sippRun{scenario: "in_conversation", from: r.addr(2) + ":5080", to: r.sip(), tcp: true,
		service: officeNumber, caller: citizenNumber, tone: toneCarrier, talk: 6 * time.Second})
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	v := r.open()
	assertLanes(t, v.recorded(v.only(), store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2*time.Second)
}

// TestTranscoding: µ-law on the trunk, A-law at the phone.
func TestTranscoding(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_pcmu", 6*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	carrier.succeed(15 * time.Second)
	agent.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, agent.heard(), toneCarrier, toneAnnouncement)
	v := r.open()
	assertLanes(t, v.recorded(v.only(), store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 2*time.Second)
}

// TestForeignVoice: somebody who guessed the port talks into the call. Nobody
// hears it and it is not recorded.
func TestForeignVoice(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	var port string
	for _, m := range carrier.log() {
		if sdp := regexp.MustCompile(`m=audio (\d+) `).FindStringSubmatch(m.text); !m.sent && sdp != nil {
			port = sdp[1]
		}
	}
	from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(r.addr(9)), 6000))
	to, err := net.ResolveUDPAddr("udp", r.addr(1)+":"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp", from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frame := g711.EncodeAlaw(pcmBytes(sine(toneOtherPhone, 20*time.Millisecond)))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range 100 {
		<-tick.C
		p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 8, SequenceNumber: uint16(i), Timestamp: uint32(160 * i), SSRC: 0xbad}, Payload: frame}
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	counted := regexp.MustCompile(`"foreign":\s*100\b`)
	eventually(t, 2*time.Second, "the status page counts 100 foreign packets", func() bool {
		_, stan := r.get("/stan.json")
		return counted.MatchString(stan)
	})
	carrier.succeed(15 * time.Second)
	agent.await("CALL_CLOSED", 5*time.Second)
	assertHears(t, agent.heard(), toneCarrier, toneOtherPhone)
	v := r.open()
	path := v.recorded(v.only(), store.OutcomeOK)
	assertLanes(t, path, toneCarrier, tonePhone, 500*time.Millisecond, 3*time.Second)
	w := readWAV(t, path)
	if got := w.loudest(0, toneOtherPhone); got > 0.05 {
		t.Errorf("the foreign voice is in the recording (%.3f)", got)
	}
}

// TestBadInput: the messages of RFC 4475, random bytes and cut-off ones, from the
// trunk's address, a phone's and a stranger's, while a call goes on. The call is
// not disturbed and the next one is taken.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.agent("101", tonePhone)
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)

	files, err := filepath.Glob("../../pbx/testdata/rfc4475/*.dat")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d torture messages (%v)", len(files), err)
	}
	var junk [][]byte
	random := rand.New(rand.NewPCG(4475, 2006))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		junk = append(junk, b, b[:random.IntN(len(b))])
		for range 3 {
			b = bytes.Clone(b)
			b[random.IntN(len(b))] = byte(random.Uint32())
			junk = append(junk, b)
		}
	}
	for range 200 {
		b := make([]byte, random.IntN(1400))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		junk = append(junk, b)
	}
	for _, from := range []string{r.addr(2) + ":5099", agent.addr[:strings.Index(agent.addr, ":")] + ":0", r.addr(66) + ":5060"} {
		for _, to := range []string{r.sip(), r.addr(1) + ":20000", r.addr(1) + ":20001"} {
			send(t, from, to, junk)
		}
	}
	carrier.succeed(20 * time.Second)
	startSIPp(t, sippRun{name: "afterwards", scenario: "in_conversation", from: r.addr(3) + ":5080", to: r.sip(),
		service: officeNumber, caller: citizenNumber, tone: toneCarrier, talk: 300 * time.Millisecond}).succeed(10 * time.Second)
	if _, metrics := r.get("/metrics"); !regexp.MustCompile(`(?m)^centralka_panics_total 0$`).MatchString(metrics) {
		t.Error("the metrics do not say that there was no panic")
	}
	v := r.open()
	conversations := 0
	for _, call := range v.calls {
		if call.Recording.Outcome != store.OutcomeNone {
			conversations++
			assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 3*time.Second)
		}
	}
	if conversations != 1 {
		t.Errorf("%d recordings, want 1", conversations)
	}
}

// send writes datagrams, some at a time, as no queue of the kernel's is long.
func send(t *testing.T, from, to string, datagrams [][]byte) {
	t.Helper()
	local, remote := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	conn, err := net.ListenUDP("udp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, b := range datagrams {
		if _, err := conn.WriteToUDP(b, remote); err != nil {
			t.Fatal(err)
		}
		if i%25 == 24 {
			pauseFor(2 * time.Millisecond)
		}
	}
}
