//go:build interop

package main_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zaf/g711"
)

// sippScenarios holds the scenarios, each of which names what must be seen.
const sippScenarios = "../../pbx/testdata/sipp"

// sippRun is one run of SIPp: one scenario, one call unless said otherwise.
type sippRun struct {
	name     string // of the run, in logs; the scenario's if empty
	scenario string
	from     string // ADDRESS:PORT of its own
	to       string // of the peer; empty: it waits for a call
	service  string // number called, or the phone's own
	caller   string
	called   string // number that a phone calls
	password string
	talk     time.Duration // the scenario's pauses without a length
	tone     int
	calls    int
	tcp      bool
	lasts    time.Duration // SIPp gives up after so long; 30 s if zero
}

// sipp is a run that was started.
type sipp struct {
	*process
	messages string // log of all messages
	errors   string
}

// sipp starts SIPp. Its messages and errors are among the test's artifacts.
func startSIPp(t *testing.T, run sippRun) *sipp {
	t.Helper()
	if run.name == "" {
		run.name = run.scenario
	}
	if run.lasts == 0 {
		run.lasts = 30 * time.Second
	}
	host, port, ok := strings.Cut(run.from, ":")
	if !ok {
		t.Fatalf("%q is not ADDRESS:PORT", run.from)
	}
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join(sippScenarios, run.scenario+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	pcm := pcmBytes(sine(run.tone, time.Second))
	for name, b := range map[string][]byte{"scenario.xml": text, "tone.al": g711.EncodeAlaw(pcm), "tone.ul": g711.EncodeUlaw(pcm)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &sipp{
		messages: filepath.Join(t.ArtifactDir(), run.name+".messages.log"),
		errors:   filepath.Join(t.ArtifactDir(), run.name+".errors.log"),
	}
	args := []string{"sipp"}
	if run.to != "" {
		args = append(args, run.to)
	}
	args = append(args, "-sf", "scenario.xml", "-i", host, "-mi", host, "-ci", host, "-bind_local", "-p", port,
		"-m", strconv.Itoa(max(1, run.calls)), "-nostdin", "-d", strconv.FormatInt(run.talk.Milliseconds(), 10),
		"-timeout", strconv.Itoa(int(run.lasts/time.Second)), "-timeout_error",
		"-trace_err", "-error_file", s.errors, "-trace_msg", "-message_file", s.messages)
	if run.tcp {
		args = append(args, "-t", "t1")
	}
	if run.service != "" {
		args = append(args, "-s", run.service)
	}
	if run.caller != "" {
		args = append(args, "-key", "caller", run.caller)
	}
	if run.called != "" {
		// SIPp computes digests over this instead of the Request-URI.
		args = append(args, "-key", "called", run.called, "-auth_uri", run.called+"@"+run.to)
	}
	if run.password != "" {
		args = append(args, "-au", run.service, "-ap", run.password)
	}
	s.process = start(t, run.name, dir, args...)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("%s: errors\n%s", run.name, tailOf(s.errors, 40))
			t.Logf("%s: messages\n%s", run.name, tailOf(s.messages, 120))
		}
	})
	return s
}

// succeed waits for the run's end: each of its calls went as its scenario says.
func (s *sipp) succeed(timeout time.Duration) {
	s.t.Helper()
	if code := s.wait(timeout); code != 0 {
		s.t.Fatalf("%s: SIPp ended with %d: %s", s.name, code, tailOf(s.errors, 3))
	}
}

// sippMessage is one line of the message log: what went over the wire when.
type sippMessage struct {
	at   time.Time
	sent bool
	text string
}

// first is the message's first line.
func (m sippMessage) first() string {
	line, _, _ := strings.Cut(m.text, "\n")
	return strings.TrimSpace(line)
}

var sippSeparator = regexp.MustCompile(`(?m)^-{40,} (\d{4}-\d\d-\d\d)\s(\d\d:\d\d:\d\d\.\d+)\n(?:UDP|TCP) message (sent|received)[^\n]*\n\n`)

// log reads the message log. Retransmissions that SIPp absorbs are in it.
func (s *sipp) log() []sippMessage {
	s.t.Helper()
	b, err := os.ReadFile(s.messages)
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "\r", "")
	var out []sippMessage
	marks := sippSeparator.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		at, err := time.ParseInLocation("2006-01-02 15:04:05.999999", text[m[2]:m[3]]+" "+text[m[4]:m[5]], time.Local)
		if err != nil {
			s.t.Fatalf("read %s: %v", s.messages, err)
		}
		out = append(out, sippMessage{at, text[m[6]:m[7]] == "sent", text[m[1]:end]})
	}
	return out
}

// received returns the times of the received messages whose first line begins
// with prefix and that contain each of the parts.
func (s *sipp) received(prefix string, parts ...string) []time.Time {
	s.t.Helper()
	var out []time.Time
next:
	for _, m := range s.log() {
		if m.sent || !strings.HasPrefix(m.first(), prefix) {
			continue
		}
		for _, p := range parts {
			if !strings.Contains(m.text, p) {
				continue next
			}
		}
		out = append(out, m.at)
	}
	return out
}

// listening waits until a UDP socket is bound to addr, as /proc tells.
func listening(t *testing.T, addr string) {
	t.Helper()
	ap := netip.MustParseAddrPort(addr)
	ip := ap.Addr().As4()
	want := fmt.Sprintf(" %02X%02X%02X%02X:%04X ", ip[3], ip[2], ip[1], ip[0], ap.Port())
	eventually(t, 5*time.Second, "SIPp listens on "+addr, func() bool {
		b, err := os.ReadFile("/proc/net/udp")
		return err == nil && strings.Contains(string(b), want)
	})
}
