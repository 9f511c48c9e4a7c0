//go:build interop

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"centralka/store"
)

// linphone is a linphonec of its own, told what to do over its stdin. Like
// baresip it speaks from 127.0.0.1, plays its tone and writes what it hears.
type linphone struct {
	*process
	orders *os.File
	heard  string
	passed int // bytes of its output that await has passed over
}

// linphone starts the phone of an extension, which answers by itself, and waits
// for its registration. The password must be one word.
func (r *rig) linphone(ext string, tone int) *linphone {
	r.t.Helper()
	t, dir := r.t, r.t.TempDir()
	_, port, _ := strings.Cut(freePort(t), ":")
	_, media, _ := strings.Cut(freePort(t), ":")
	tmpl, err := template.ParseFiles(filepath.Join(baresipTemplates, "linphone.rc"))
	if err != nil {
		t.Fatal(err)
	}
	// Its file of calls wants its folder to be there.
	if err := os.MkdirAll(filepath.Join(dir, ".local/share/linphone"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "rc"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := tmpl.Execute(f, map[string]string{"Ext": ext, "Port": port, "Media": media}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	writeTone(t, filepath.Join(dir, "tone.wav"), tone, 60*time.Second)
	stdin, orders, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(t.ArtifactDir(), "linphone-"+ext+".trace.log")
	p := &linphone{orders: orders, heard: filepath.Join(dir, "heard.wav")}
	p.process = startFed(t, "linphone-"+ext, dir, stdin, "linphonec", "-a", "-c", filepath.Join(dir, "rc"),
		"-d", "6", "-l", trace)
	t.Cleanup(func() {
		if err := orders.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	p.order("soundcard use files")
	p.order("play " + filepath.Join(dir, "tone.wav"))
	p.order("record " + p.heard)
	for _, e := range r.extensions {
		if e.number == ext {
			p.order(fmt.Sprintf("register sip:%s@%s sip:%s %s", ext, r.sip(), r.sip(), e.password))
		}
	}
	// It does not say so on its console.
	eventually(t, 10*time.Second, p.name+" is registered", func() bool {
		b, err := os.ReadFile(trace)
		return err == nil && strings.Contains(string(b), "to [LinphoneRegistrationOk]")
	})
	return p
}

// order is a line as one would type it.
func (p *linphone) order(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.orders, line); err != nil {
		p.t.Fatalf("%s: order %s: %v", p.name, line, err)
	}
}

// await waits until the phone says something that it was not awaited for before.
func (p *linphone) await(what string, timeout time.Duration) {
	p.t.Helper()
	eventually(p.t, timeout, p.name+" says "+what, func() bool {
		b, err := os.ReadFile(p.logPath)
		if err != nil {
			p.t.Fatal(err)
		}
		at := strings.Index(string(b[p.passed:]), what)
		if at < 0 {
			return false
		}
		p.passed += at + len(what)
		return true
	})
}

// quit ends the phone as its owner does: it says goodbye to its registrar, and
// finishes the file of what it heard.
func (p *linphone) quit() {
	p.t.Helper()
	p.order("quit")
	p.wait(10 * time.Second)
}

// TestLinphone: a second phone stack as the agent's desk phone. It takes a
// call, presses keys, holds, resumes and passes the call on; a third party's
// ears, the carrier's, tell what came through.
func TestLinphone(t *testing.T) {
	r := newRig(t)
	citizen := startPhone(t, phoneSetup{name: "citizen", ext: citizenNumber, server: r.sip(), control: r.addr(30) + ":4444", tone: toneCarrier})
	r.carriers = append(r.carriers, citizen.addr)
	r.start()
	agent := r.linphone("102", tonePhone)
	citizen.order("dial", "sip:"+officeNumber+"@"+r.sip())
	citizen.await("CALL_ESTABLISHED", 5*time.Second)
	agent.await("connected.", 10*time.Second)
	pauseFor(1500 * time.Millisecond)
	for _, key := range []string{"1", "9", "#"} {
		agent.order(key)
		if ev := citizen.await("CALL_DTMF_START", 5*time.Second); ev.Param != key {
			t.Errorf("the carrier got the key %q, want %q", ev.Param, key)
		}
		citizen.await("CALL_DTMF_END", 5*time.Second)
	}
	pauseFor(500 * time.Millisecond)
	agent.order("pause")
	agent.await("is now paused", 5*time.Second)
	pauseFor(1500 * time.Millisecond)
	agent.order("resume")
	agent.await("Media streams established", 5*time.Second)
	pauseFor(1500 * time.Millisecond)
	target := r.agent("101", toneOtherPhone)
	agent.order("transfer 1 sip:101@" + r.sip())
	target.await("CALL_ESTABLISHED", 10*time.Second)
	agent.await("ended", 5*time.Second)
	pauseFor(1500 * time.Millisecond)
	citizen.order("hangup", "")
	citizen.await("CALL_CLOSED", 5*time.Second)
	target.await("CALL_CLOSED", 5*time.Second)
	agent.quit()
	for _, hz := range []int{toneAnnouncement, tonePhone, toneOtherPhone} {
		assertHears(t, citizen.heard(), hz, toneCarrier)
	}
	assertHears(t, agent.heard, toneCarrier, toneOtherPhone)

	v := r.open()
	call := v.only()
	path := v.recorded(call, store.OutcomeOK)
	if len(call.Segments) != 2 || call.Segments[0].Extension != "102" || call.Segments[1].Extension != "101" {
		t.Fatalf("segments %+v, want 102 and 101", call.Segments)
	}
	if len(call.Holds) != 2 || call.Holds[0].By != "office" || call.Holds[0].To.Sub(call.Holds[0].From) < time.Second {
		t.Fatalf("holds %+v, want one by the office, and the transfer", call.Holds)
	}
	w := readWAV(t, path)
	from, to := call.Holds[0].From.Sub(call.Answered), call.Holds[0].To.Sub(call.Answered)
	for lane := range w.lanes {
		for _, hz := range []int{toneCarrier, tonePhone} {
			if got := w.level(lane, hz, from+200*time.Millisecond, to-200*time.Millisecond); got > 0.01 {
				t.Errorf("channel %d has %d Hz (%.3f) while held", lane+1, hz, got)
			}
		}
	}
	assertLanes(t, path, toneCarrier, tonePhone, to+500*time.Millisecond, to+1300*time.Millisecond)
	second := call.Segments[1].From.Sub(call.Answered)
	assertLanes(t, path, toneCarrier, toneOtherPhone, second+400*time.Millisecond, second+1200*time.Millisecond)
}

// TestLinphoneOutgoing: it calls a citizen and hangs up.
func TestLinphoneOutgoing(t *testing.T) {
	r := newRig(t)
	r.start()
	agent := r.linphone("102", tonePhone)
	carrier := r.await("out_answer", 2)
	agent.order("call sip:0" + citizenNumber[3:] + "@" + r.sip())
	agent.await("connected.", 10*time.Second)
	pauseFor(3 * time.Second)
	agent.order("terminate")
	carrier.succeed(10 * time.Second)
	agent.quit()
	assertHears(t, agent.heard, toneCarrier, toneAnnouncement)
	v := r.open()
	call := v.only()
	assertLanes(t, v.recorded(call, store.OutcomeOK), toneCarrier, tonePhone, 700*time.Millisecond, 2500*time.Millisecond)
	if call.Direction != store.Outgoing || call.Extension != "102" || call.Cause != store.CauseHangupCaller {
		t.Errorf("direction %q, extension %q, cause %q", call.Direction, call.Extension, call.Cause)
	}
	bindings, err := v.store.Bindings()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(bindings["102"]); n != 0 {
		t.Errorf("the phone said goodbye and has %d bindings", n)
	}
}
