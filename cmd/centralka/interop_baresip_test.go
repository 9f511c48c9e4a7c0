//go:build interop

package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"
)

// baresipTemplates are the configuration and account of a phone.
const baresipTemplates = "../../pbx/testdata/interop"

// phone is a baresip of its own, told what to do over its control socket. It
// speaks from 127.0.0.1: baresip binds voice to no address, so the kernel sends
// it from there, and a switch takes voice only from where SDP or signalling
// point. It plays its tone into every call and writes what it hears to a WAV.
type phone struct {
	*process
	dir  string
	addr string // of its SIP socket
	ctl  net.Conn

	mu     sync.Mutex
	events []phoneEvent
	seen   int // events that await has returned or passed over
	moved  chan struct{}
}

// phoneEvent is what baresip tells of itself.
type phoneEvent struct {
	Type  string `json:"type"`
	Peer  string `json:"peeruri"`
	Param string `json:"param"`
	at    time.Time
}

// phoneSetup describes a phone.
type phoneSetup struct {
	name     string // in logs
	ext      string // user part of its address
	password string // empty: it does not register
	server   string // ADDRESS:PORT of the switch
	control  string // ADDRESS:PORT for the test's orders
	tone     int
	manual   bool   // it rings until told to answer
	mediaenc string // "srtp-mand": it signals by TLS and speaks SRTP only
}

// startPhone runs baresip until it takes orders.
func startPhone(t *testing.T, s phoneSetup) *phone {
	t.Helper()
	p := &phone{dir: t.TempDir(), moved: make(chan struct{}, 1)}
	p.addr = freePort(t)
	writeTone(t, filepath.Join(p.dir, "tone.wav"), s.tone, 60*time.Second)
	fill := map[string]any{
		"Addr": p.addr, "Control": s.control, "Dir": p.dir, "Ext": s.ext, "Password": s.password,
		"Server": s.server, "Register": s.password != "", "Manual": s.manual, "MediaEnc": s.mediaenc,
	}
	for _, name := range []string{"config", "accounts"} {
		tmpl, err := template.ParseFiles(filepath.Join(baresipTemplates, "baresip."+name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(p.dir, name), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := tmpl.Execute(f, fill); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.process = start(t, s.name, p.dir, "baresip", "-f", p.dir, "-n", "127.0.0.1", "-s")
	eventually(t, 5*time.Second, s.name+" takes orders", func() bool {
		c, err := net.Dial("tcp", s.control)
		if err != nil {
			return false
		}
		p.ctl = c
		return true
	})
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		p.listen()
	}()
	t.Cleanup(func() {
		p.ctl.Close()
		<-heard
	})
	return p
}

// phonePorts counts the ports tried: below those that the kernel hands out by
// itself, which would be taken again before baresip is there.
var phonePorts atomic.Uint32

// freePort finds a port on 127.0.0.1 that nobody uses, UDP or TCP, nor the next
// one: baresip takes the first for both and the other for TLS.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 12000 + (uint32(os.Getpid())*100+2*phonePorts.Add(1))%8000
		addr, next := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
		if bindable(t, "udp", addr) && bindable(t, "tcp", addr) && bindable(t, "tcp", next) {
			return addr
		}
	}
	t.Fatal("no free port for a phone")
	return ""
}

func bindable(t *testing.T, network, addr string) bool {
	t.Helper()
	var c io.Closer
	var err error
	if network == "udp" {
		c, err = net.ListenPacket(network, addr)
	} else {
		c, err = net.Listen(network, addr)
	}
	if err != nil {
		return false
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}

// listen collects events until the control socket ends. The framing is
// netstrings: "LENGTH:JSON,".
func (p *phone) listen() {
	r := bufio.NewReader(p.ctl)
	for {
		length, err := r.ReadString(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimLeft(strings.TrimSuffix(length, ":"), ","))
		if err != nil || n > 1<<20 {
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		ev := phoneEvent{at: time.Now()}
		if json.Unmarshal(b, &ev) != nil || ev.Type == "" {
			continue // an order's answer
		}
		p.mu.Lock()
		p.events = append(p.events, ev)
		p.mu.Unlock()
		select {
		case p.moved <- struct{}{}:
		default:
		}
	}
}

// order tells the phone to do something: dial, hangup, accept, hold, resume,
// sndcode, quit.
func (p *phone) order(command, params string) {
	p.t.Helper()
	b, err := json.Marshal(map[string]string{"command": command, "params": params})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.ctl, "%d:%s,", len(b), b); err != nil {
		p.t.Fatalf("%s: order %s: %v", p.name, command, err)
	}
}

// await returns the next event of the type that was not awaited before.
func (p *phone) await(typ string, timeout time.Duration) phoneEvent {
	p.t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		for p.seen < len(p.events) {
			ev := p.events[p.seen]
			p.seen++
			if ev.Type == typ {
				p.mu.Unlock()
				return ev
			}
		}
		var all []string
		for _, ev := range p.events {
			all = append(all, ev.Type)
		}
		p.mu.Unlock()
		select {
		case <-p.moved:
		case <-deadline.C:
			p.t.Fatalf("%s: no %s within %v; there were %v", p.name, typ, timeout, all)
		}
	}
}

// called reports whether there was any call so far.
func (p *phone) called() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.events, func(ev phoneEvent) bool { return strings.HasPrefix(ev.Type, "CALL_") })
}

// heard returns the WAV of what the phone heard in its newest call, which must
// be over.
func (p *phone) heard() string {
	p.t.Helper()
	names, err := filepath.Glob(filepath.Join(p.dir, "dump-*-dec.wav"))
	if err != nil || len(names) == 0 {
		p.t.Fatalf("%s heard nothing (%v)", p.name, err)
	}
	sort.Strings(names)
	return names[len(names)-1]
}

// quit ends the phone as its owner does: it says goodbye to its registrar.
func (p *phone) quit() {
	p.t.Helper()
	p.order("quit", "")
	p.wait(5 * time.Second)
}

// agent starts a phone of the rig and waits for its registration.
func (r *rig) agent(ext string, tone int) *phone {
	r.t.Helper()
	return r.register(phoneSetup{ext: ext, tone: tone})
}

// register completes s for the rig, starts the phone and waits for its
// registration.
func (r *rig) register(s phoneSetup) *phone {
	r.t.Helper()
	for i, e := range r.extensions {
		if e.number == s.ext {
			s.name, s.password, s.server, s.control = "phone-"+s.ext, e.password, r.sip(), fmt.Sprintf("%s:4444", r.addr(20+i))
			if s.mediaenc != "" {
				s.server = r.sips()
			}
			p := startPhone(r.t, s)
			// It may have registered before it could tell.
			eventually(r.t, 5*time.Second, s.name+" is registered", func() bool {
				b, err := os.ReadFile(p.logPath)
				return err == nil && strings.Contains(string(b), "200 OK (centralka) [1 binding]")
			})
			return p
		}
	}
	r.t.Fatalf("no extension %s", s.ext)
	return nil
}
