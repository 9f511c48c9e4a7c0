package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
)

func TestDemoIsCalledWrongly(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--twice"}, "twice"},
		{[]string{"once"}, `"once" is no flag`},
		{[]string{"--out", ""}, "--out needs a folder"},
	} {
		var stdout, stderr bytes.Buffer
		if code := runDemo(tc.args, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
			t.Errorf("%q: exit %d, %q", tc.args, code, stderr.String())
		}
	}
}

func TestDemoConfigIsValid(t *testing.T) {
	cfg := demoConfig(netip.MustParseAddrPort("127.0.0.10:5060"), netip.MustParseAddrPort("127.0.0.2:5060"), t.TempDir(), "127.0.0.1:8082", map[string]string{"101": "x", "102": "y"})
	tel := cfg.Telephony()
	if err := tel.Validate(); err != nil {
		t.Error(err)
	}
}

func TestDemoScenesAreWhole(t *testing.T) {
	for _, s := range scenes() {
		for _, l := range s.lines {
			if _, err := pbxtest.VoiceOf(l.voice); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
		if s.recorded() == (s.leaves > 0) {
			t.Errorf("%s: a call either has a conversation or is left before it", s.name)
		}
	}
	for shown, want := range map[string]string{"+48600100201": "A", "600100302": "B", "anonymous": "C", "600100403": "", "600999999": ""} {
		if got := sceneOf(scenes(), shown); got != want {
			t.Errorf("a call from %q belongs to %q, want %q", shown, got, want)
		}
	}
}

// TestDemoFallsBackToFreePorts: what somebody has is left alone.
func TestDemoFallsBackToFreePorts(t *testing.T) {
	any := netip.MustParseAddrPort("127.0.0.10:0")
	taken, err := pbxtest.ListenUDP(any)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first := netip.MustParseAddrPort(taken.LocalAddr().String())
	got, err := unusedUDP(first)
	if err != nil || got.Addr() != first.Addr() || got.Port() == first.Port() || got.Port() == 0 {
		t.Errorf("beside %v: %v, %v", first, got, err)
	}
	if again, err := unusedUDP(got); err != nil || again != got {
		t.Errorf("a free port: %v, %v", again, err)
	}
	if _, err := unusedUDP(netip.MustParseAddrPort("192.0.2.1:5060")); err == nil {
		t.Error("an address of another machine was found free")
	}
}

func TestDemoFolderIsRemovedOnlyIfTemporary(t *testing.T) {
	given := filepath.Join(t.TempDir(), "data")
	for _, tc := range []struct {
		o     demoOptions
		stays bool
	}{{demoOptions{}, false}, {demoOptions{keep: true}, true}, {demoOptions{dir: given}, true}} {
		dir, remove, err := demoFolder(tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if err := remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); (err == nil) != tc.stays {
			t.Errorf("%+v: the folder afterwards: %v", tc.o, err)
		}
		if tc.o.dir == "" {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDemoCopiesAreNamedByTimeAndCall(t *testing.T) {
	began := time.Date(2026, 7, 1, 22, 30, 5, 0, time.UTC) // the next day in Warsaw
	list := scenes()
	if got := recordingName(began, list[0]); got != "2026-07-02-003005-A-incoming" {
		t.Error(got)
	}
	if got := recordingName(began, list[3]); got != "2026-07-02-003005-D-outgoing" {
		t.Error(got)
	}
	dir := t.TempDir()
	for _, want := range []string{"x.wav", "x-2.wav", "x-3.wav"} {
		f, err := createUnused(dir, "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(f.Name()) != want {
			t.Errorf("made %s, want %s", f.Name(), want)
		}
	}
}

func TestDemoTable(t *testing.T) {
	findings := []finding{{"A", "heard all", true, "17.3 s"}, {"A", "nie zadzwonił", false, "too early"}, {"", "clean", true, ""}}
	got := table(newScreen(&bytes.Buffer{}), scenes(), findings)
	want := []string{
		"", "  A  a resident calls and talks to an agent",
		"  ✓  heard all      17.3 s",
		"  ✗  nie zadzwonił  too early",
		"", "  All of it",
		"  ✓  clean",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if passed(findings) || !passed(findings[:1]) || passed(nil) {
		t.Error("one thing that did not happen, or none looked for, is a failure")
	}
}

// TestScreenWritesPlainLogs: a pipe gets no control characters, no line of
// progress, and no number.
func TestScreenWritesPlainLogs(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.width = 40
	l := pbxtest.NewLadder()
	carrier, sw := netip.MustParseAddrPort("127.0.0.2:5060"), netip.MustParseAddrPort("127.0.0.10:5060")
	l.Name(carrier, "carrier")
	l.Name(sw, "switch")
	l.Stream(s)
	invite, err := pbxtest.ParseMessage([]byte("INVITE sip:x@127.0.0.10 SIP/2.0\r\nCall-ID: a\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.next("C")
	l.Observe(pbxtest.Entry{At: time.Now(), Peer: "carrier", Local: carrier, Remote: sw, Out: true, Message: invite})
	s.show("progress")
	s.tell("C", "somebody calls from +48600100403 and is heard")
	got := out.String()
	if strings.ContainsAny(got, "\x1b\r") || strings.Contains(got, "progress") || strings.Contains(got, "600100") {
		t.Errorf("not plain:\n%q", got)
	}
	for _, want := range []string{"carrier", "INVITE", "▶│  C\n", "   C  somebody calls from", "+48*******03"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "#1") {
		t.Errorf("the ladder's own numbers are left:\n%s", got)
	}
}

// TestScreenKeepsProgressBelow: on a terminal each line takes the place of the
// progress, which follows it.
func TestScreenKeepsProgressBelow(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.terminal, s.colour, s.width = true, true, 20
	s.show("a long line of progress")
	s.print("text")
	const erase = "\r\x1b[K"
	want := erase + "\x1b[1ma long line of prog\x1b[0m" + erase + "text\n\x1b[1ma long line of prog\x1b[0m"
	if out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestScreenRemembersThatNobodyReads(t *testing.T) {
	s := newScreen(brokenPipe{})
	s.print("x")
	if s.failed() == nil {
		t.Error("the error of writing is lost")
	}
}

func TestWrap(t *testing.T) {
	got := wrap("zażółć gęślą  jaźń, a długiesłowo zostaje", 12)
	want := []string{"zażółć gęślą", "jaźń, a", "długiesłowo", "zostaje"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestOutline(t *testing.T) {
	if got := outline([]byte{0, 1, 2, 40, 255, 255, 0, 128}, 4); got != "·▂█▅" {
		t.Error(got)
	}
	if got := outline([]byte{0, 200}, 60); got != "·▇" {
		t.Error(got)
	}
	if got := gauge(5*time.Second, 10*time.Second); got != "▓▓▓▓▓░░░░░" {
		t.Error(got)
	}
}

func TestHasNumberInEveryWayToWriteIt(t *testing.T) {
	for _, text := range []string{"tel. 600 100 201!", "+48600100201", "(600) 100-201", "<b>600&nbsp;x</b> 600100201"} {
		if !hasNumber(text, "+48600100201") {
			t.Errorf("not found in %q", text)
		}
	}
	for _, text := range []string{"", "600100", "60010 0202", "+48 60 *** ** 01"} {
		if hasNumber(text, "+48600100201") {
			t.Errorf("found in %q", text)
		}
	}
}

// TestFollow: an announcement with pauses was heard in full; one with a part
// missing, or changed, was not.
func TestFollow(t *testing.T) {
	a, err := pbxtest.VoiceOf("caller-id")
	if err != nil {
		t.Fatal(err)
	}
	b, err := pbxtest.VoiceOf("agent-callback")
	if err != nil {
		t.Fatal(err)
	}
	speech, b := a[:24_000], b[:24_000]
	rnd := rand.New(rand.NewPCG(1, 1))
	noise := func(n int) []int16 {
		pcm := make([]int16, n)
		for i := range pcm {
			pcm[i] = int16(rnd.IntN(17) - 8)
		}
		return pcm
	}
	lead, tail := noise(1777), noise(9000)
	cut := func(at, n int) []int16 { return slices.Concat(speech[:at], speech[at+n:]) }
	cleared := func(at, n int) []int16 { return slices.Concat(speech[:at], make([]int16, n), speech[at+n:]) }
	paused := func(at, n int) []int16 { return slices.Concat(speech[:at], noise(n), speech[at:]) }
	for _, tc := range []struct {
		name   string
		heard  []int16
		whole  bool
		mostly bool
		pauses time.Duration
	}{
		{"as it is", speech, true, true, 0},
		{"a pause", paused(10_000, 2400), true, true, 300 * time.Millisecond},
		{"a pause in the first word", paused(1900, 2400), true, true, 300 * time.Millisecond},
		{"two pauses", slices.Concat(speech[:10_000], noise(1760), speech[10_000:18_765], noise(4000), speech[18_765:]), true, true, 720 * time.Millisecond},
		{"a third of a second lost", cleared(10_000, 2700), false, true, 0},
		{"a third of a second left out", cut(10_000, 2700), false, false, -1},
		{"half of it", speech[:len(speech)/2], false, false, 0},
		{"another", b, false, false, -1},
		{"nothing", nil, false, false, -1},
	} {
		m := follow(slices.Concat(lead, tc.heard, tail), speech)
		if m.whole != tc.whole || m.mostly() != tc.mostly || tc.pauses >= 0 && (m.pauses-tc.pauses).Abs() > 10*time.Millisecond {
			t.Errorf("%s: %+v", tc.name, m)
		}
		if m.whole {
			if want := lengthOf(lead); tc.name == "as it is" && (m.from-want).Abs() > time.Millisecond {
				t.Errorf("%s: begins at %v, want %v", tc.name, m.from, want)
			}
			if want := lengthOf(lead) + lengthOf(tc.heard); (m.to - want).Abs() > 2*time.Millisecond {
				t.Errorf("%s: ends at %v, want %v", tc.name, m.to, want)
			}
		}
	}
	if m := follow(speech[3000:], speech); m.whole {
		t.Errorf("the beginning missed: %+v", m)
	}
}
