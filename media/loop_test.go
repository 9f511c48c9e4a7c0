//go:build linux && (amd64 || arm64)

package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pion/rtcp"
)

// buildLoop makes a loop engine of n loops from what the rig configures.
func buildLoop(n int) newEngine {
	return func(c PortableConfig) (Engine, error) {
		return NewLoop(LoopConfig{
			Addr: c.Addr, PortMin: c.PortMin, PortMax: c.PortMax, Drain: c.Drain, Timeout: c.Timeout,
			DSCP: c.DSCP, CNAME: c.CNAME, Log: c.Log, Loops: n,
		})
	}
}

func TestLoop(t *testing.T) { testEngine(t, buildLoop(1), sockets) }

// TestLoops has every stream begin on another loop than the one before.
func TestLoops(t *testing.T) { testEngine(t, buildLoop(3), sockets) }

// TestRelayAcrossLoopsLosesNothing bridges streams of three loops in ever new
// ways while all of them are spoken to.
func TestRelayAcrossLoopsLosesNothing(t *testing.T) {
	r := newRig(t, sockets, buildLoop(3), PortableConfig{})
	legs := []*leg{r.leg(10), r.leg(11), r.leg(12), r.leg(13), r.leg(14)}
	const packets = 300
	var speakers sync.WaitGroup
	for i, l := range legs {
		speakers.Go(func() {
			for n := range uint64(packets) {
				l.say(8, byte(i))
				for l.Stats().Received+20 < n { // what was taken paces the speaker
					runtime.Gosched()
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := legs[rng.IntN(len(legs))], legs[rng.IntN(len(legs))]
		if rng.IntN(8) == 0 {
			a.Silence()
		} else {
			Bridge(a.Stream, b.Stream)
		}
	}
	speakers.Wait()
	for i, l := range legs {
		until(t, "every packet", func() bool { return l.Stats().Received == packets })
		if s := l.Stats(); s.Lost+s.Foreign+s.Malformed != 0 {
			t.Errorf("leg %d: %+v", i, s)
		}
	}
	e := r.engine.(*loopEngine)
	e.mu.Lock()
	total := 0
	for _, l := range e.loops {
		total += l.load
	}
	for s := range e.streams {
		if s.from != nil && (s.from.loop != s.loop || s.from.sink != s) {
			t.Error("a stream relays one of another loop")
		}
	}
	e.mu.Unlock()
	if total != len(legs) {
		t.Errorf("%d streams on the loops, want %d", total, len(legs))
	}
	Bridge(legs[0].Stream, legs[4].Stream)
	for len(legs[4].heard) > 0 {
		<-legs[4].heard
	}
	legs[0].say(8, 99)
	for p := legs[4].hear(); p.Payload[0] != 99; p = legs[4].hear() {
	}
}

// TestLoopLetsTheWorldStop: a loop that waits, or is busy, must not keep the
// collector waiting.
func TestLoopLetsTheWorldStop(t *testing.T) {
	r := newRig(t, sockets, buildLoop(2), PortableConfig{})
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	b.Play(promptOf(1), true)
	collected := make(chan bool, 1)
	for range 3 {
		a.say(8, 1)
		b.hear()
		go func() { runtime.GC(); collected <- true }()
		wait(t, "the collector", collected)
	}
}

// TestLoopTimeout is the contract's timeout in real time.
func TestLoopTimeout(t *testing.T) {
	r := newRig(t, sockets, buildLoop(1), PortableConfig{Timeout: 30 * time.Millisecond, Drain: 50 * time.Millisecond})
	a := r.leg(10)
	for range 2 { // a packet sets it going again
		if e := event[TimedOut](a); e.Silent < 30*time.Millisecond {
			t.Errorf("%+v", e)
		}
		a.say(8, 1)
	}
	a.Close()
	if s := r.engine.Stats(); s.Draining != 1 {
		t.Errorf("stats %+v", s)
	}
	until(t, "the end of the drain time", func() bool { return r.engine.Stats().Draining == 0 })
}

// TestLoopUnsentFrameBreaksPrompt sends to where the system forbids it.
func TestLoopUnsentFrameBreaksPrompt(t *testing.T) {
	r := newRig(t, sockets, buildLoop(1), PortableConfig{})
	a := r.open(10)
	a.params.Remote = netip.MustParseAddrPort("255.255.255.255:4000")
	a.Configure(a.params)
	id := a.Play(promptOf(5), false)
	if e := event[Played](a); e.Play != id || e.Complete {
		t.Errorf("%+v", e)
	}
	if s := a.Stats(); s.Sent != 0 || s.Unsent != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestLoopFamilies relays between an IPv4 and an IPv6 peer through sockets of
// both, and marks what is sent in both.
func TestLoopFamilies(t *testing.T) {
	any6 := sockets
	any6.addr = func(byte) netip.Addr { return netip.IPv6Unspecified() }
	if s, err := openUDP(netip.AddrPortFrom(netip.IPv6Loopback(), 0)); err != nil {
		return // a machine without IPv6
	} else if err := s.close(); err != nil {
		t.Fatal(err)
	}
	first := firstPort + uint16(loopback(1).As4()[2])*40 // the address is not of this process alone
	r := newRig(t, any6, buildLoop(1), PortableConfig{PortMin: first, PortMax: first + 39, DSCP: 46})
	var peers [2]Conn
	var streams [2]Stream
	for i, addr := range []netip.Addr{loopback(10), netip.IPv6Loopback()} {
		peers[i] = r.dial(netip.AddrPortFrom(addr, 0))
		s, err := r.engine.Open(StreamConfig{})
		if err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(addr, netip.MustParseAddrPort(peers[i].LocalAddr().String()).Port())
		s.Configure(Params{Remote: at, Codec: PCMA, PayloadType: 8, Direction: SendRecv})
		streams[i] = s
		fd := s.(*loopStream).rtp.fd
		tos, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS)
		class, err6 := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS)
		if tos != 46<<2 || class != 46<<2 || err != nil || err6 != nil {
			t.Errorf("TOS %#x, %v; traffic class %#x, %v", tos, err, class, err6)
		}
	}
	Bridge(streams[0], streams[1])
	for i, to := range []netip.Addr{loopback(1), netip.IPv6Loopback()} {
		heard := ear(peers[1-i])
		if _, err := peers[i].WriteToUDPAddrPort(voicePacket(1, 160, 7), netip.AddrPortFrom(to, streams[i].LocalPort())); err != nil {
			t.Fatal(err)
		}
		wait(t, "RTP", heard)
		if s := streams[i].Stats(); s.Source.Addr().Is4() != (i == 0) || s.Received != 1 {
			t.Errorf("stats %+v", s)
		}
	}
}

// still is a loop that does not run by itself, with two streams bridged on it
// whose peers are plain sockets.
type still struct {
	*loop
	legs  [2]*loopStream
	peers [2]udpSocket // RTP; RTCP of the first is control
	ports [2]sockaddr  // of the legs
	ctrl  udpSocket
}

func newStill(tb testing.TB, law Codec) *still {
	tb.Helper()
	engine, err := NewLoop(LoopConfig{Addr: loopback(1), PortMin: firstPort, PortMax: firstPort + 99, Loops: 1, CNAME: "x"})
	if err != nil {
		tb.Fatal(err)
	}
	e := engine.(*loopEngine)
	s := &still{loop: e.loops[0]}
	closing := func(c udpSocket) {
		tb.Cleanup(func() {
			if err := c.close(); err != nil {
				tb.Error(err)
			}
		})
	}
	open := func(a netip.AddrPort) udpSocket {
		c, err := openUDP(a)
		if err != nil {
			tb.Fatal(err)
		}
		closing(c)
		return c
	}
	for i, c := range []Codec{PCMA, law} {
		port := firstPort + 2*uint16(i)
		rtp, rtcp, err := e.bind(port)
		if err != nil {
			tb.Fatal(err)
		}
		closing(rtp)
		closing(rtcp)
		peer := netip.AddrPortFrom(loopback(byte(10+i)), 4000)
		s.peers[i] = open(peer)
		s.ports[i].set(netip.AddrPortFrom(loopback(1), port), unix.AF_INET)
		leg := e.newStream(StreamConfig{}, port, rtp, rtcp)
		if err := s.adopt(leg); err != nil {
			tb.Fatal(err)
		}
		leg.flow.configure(Params{Remote: peer, Codec: c, PayloadType: uint8(c), Direction: SendRecv}, 0)
		s.schedule(leg)
		s.legs[i] = leg
	}
	s.ctrl = open(netip.AddrPortFrom(loopback(10), 4001))
	s.legs[0].listens, s.legs[1].listens = s.legs[1], s.legs[0]
	for _, leg := range s.legs {
		leg.flow.relayFrom(0)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := engine.Run(ctx); err != nil { // closes what was never started
			tb.Error(err)
		}
	})
	return s
}

// relayed returns a function that takes the next packet from one peer through
// the loop to the other, system calls of all three included.
func (s *still) relayed(tb testing.TB, tap *Tap) func() {
	s.legs[0].tap = tap
	b, got := voicePacket(0, 0, 1), Packet{Payload: make([]byte, 0, MaxPayload)}
	heard, from := make([]byte, maxDatagram), new(sockaddr)
	var n uint32
	return func() {
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		binary.BigEndian.PutUint32(b[4:], n*FrameSamples)
		n++
		if errno := s.peers[0].send(b, &s.ports[0]); errno != 0 {
			tb.Fatal(errno)
		}
		s.turn()
		if size, errno := s.peers[1].receive(heard, from); errno != 0 || size != len(b) {
			tb.Fatal(size, errno)
		}
		if !tap.Next(&got) {
			tb.Fatal("nothing was tapped")
		}
	}
}

func TestLoopPathDoesNotAllocate(t *testing.T) {
	for _, law := range []Codec{PCMA, PCMU} {
		t.Run(fmt.Sprint(law), func(t *testing.T) { testLoopPathDoesNotAllocate(t, newStill(t, law)) })
	}
}

func testLoopPathDoesNotAllocate(t *testing.T, s *still) {
	next := s.relayed(t, NewTap(1<<16, time.Now()))
	next()
	s.turn() // announces Heard
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Errorf("%v allocations for a relayed packet", n)
	}
	// A stranger's packet, and none at all.
	b, stranger := voicePacket(1, 160, 7), s.ctrl
	if n := testing.AllocsPerRun(200, func() {
		if errno := stranger.send(b, &s.ports[0]); errno != 0 {
			t.Fatal(errno)
		}
		s.turn()
	}); n != 0 || s.legs[0].flow.count.Foreign != 201 {
		t.Errorf("%v allocations for each of %d foreign packets", n, s.legs[0].flow.count.Foreign)
	}
	// Music, its time being moved on by hand.
	s.legs[1].flow.playPrompt(HoldMusic(), true, 0)
	if n := testing.AllocsPerRun(200, func() {
		s.legs[1].flow.play.start = s.engine.now() - time.Duration(s.legs[1].flow.play.n)*FrameTime
		s.schedule(s.legs[1])
		s.turn()
	}); n != 0 || s.legs[1].flow.count.Sent < 1200 {
		t.Errorf("%v allocations for each of %d frames", n, s.legs[1].flow.count.Sent)
	}
}

// TestLoopReports moves the engine's clock on until reports are due.
func TestLoopReports(t *testing.T) {
	s := newStill(t, PCMA)
	s.relayed(t, NewTap(1<<16, time.Now()))()
	s.engine.epoch = s.engine.epoch.Add(-reportEvery)
	s.turn()
	b, from := make([]byte, maxDatagram), new(sockaddr)
	n, errno := s.ctrl.receive(b, from)
	if errno != 0 {
		t.Fatal(errno)
	}
	packets, err := rtcp.Unmarshal(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	if rr, ok := packets[0].(*rtcp.ReceiverReport); !ok || len(rr.Reports) != 1 || rr.Reports[0].SSRC != 1 {
		t.Errorf("report %v", packets[0])
	}
	if want := netip.AddrPortFrom(loopback(1), firstPort+1); from.addrPort() != want {
		t.Errorf("report from %v, want %v", from.addrPort(), want)
	}
	if len(s.due) != 2 || s.due[0].wake <= s.engine.now() {
		t.Errorf("%d streams have something due, the first at %v", len(s.due), s.due[0].wake)
	}
}

// TestSchedule: whatever is put off, brought forward or dropped, the soonest
// comes first and every stream knows its place.
func TestSchedule(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	l := &loop{}
	streams := make([]*loopStream, 50)
	for i := range streams {
		streams[i] = &loopStream{seat: nowhere}
	}
	for range 5000 {
		s := streams[rng.IntN(len(streams))]
		s.flow.configured = rng.IntN(4) > 0
		s.flow.reports.next = time.Duration(rng.IntN(1000))
		l.schedule(s)
		want, waiting := time.Duration(-1), 0
		for _, s := range streams {
			if (s.seat != nowhere) != s.flow.configured || s.seat != nowhere && l.due[s.seat] != s {
				t.Fatalf("configured %v has seat %d", s.flow.configured, s.seat)
			}
			if s.flow.configured {
				waiting++
				if want < 0 || s.flow.reports.next < want {
					want = s.flow.reports.next
				}
			}
		}
		if len(l.due) != waiting || waiting > 0 && l.due[0].wake != want {
			t.Fatalf("%d seats for %d streams, the first is due at %v, want %v", len(l.due), waiting, l.due[0].wake, want)
		}
	}
}

// TestLetters: nothing is lost, and what one writer put comes in its order.
func TestLetters(t *testing.T) {
	var q letters[[2]int]
	bell := make(chan struct{}, 1)
	var writers sync.WaitGroup
	const each = 2000
	for w := range 4 {
		writers.Go(func() {
			for i := range each {
				if q.put([2]int{w, i}) {
					select {
					case bell <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	var next [4]int
	for got := 0; got < 4*each; {
		wait(t, "the bell", bell)
		for l := q.take(); l != nil; l = l.next {
			w, i := l.body[0], l.body[1]
			if i != next[w] {
				t.Fatalf("letter %d of writer %d, want %d", i, w, next[w])
			}
			next[w]++
			got++
		}
	}
	writers.Wait()
	if !q.empty() {
		t.Error("a letter is left")
	}
}

func TestSockaddr(t *testing.T) {
	for _, c := range []struct {
		addr   string
		family uint16
		len    uint32
	}{
		{"192.0.2.1:4000", unix.AF_INET, 16},
		{"[2001:db8::1]:65535", unix.AF_INET6, 28},
		{"192.0.2.1:4000", unix.AF_INET6, 28}, // mapped
	} {
		var s sockaddr
		want := netip.MustParseAddrPort(c.addr)
		s.set(want, c.family)
		if got := s.addrPort(); got != want || s.len != c.len {
			t.Errorf("%s in family %d: %v, %d bytes", c.addr, c.family, got, s.len)
		}
	}
}

func TestNewLoopRefuses(t *testing.T) {
	for name, c := range map[string]LoopConfig{
		"no pair":        {PortMin: 20001, PortMax: 20002},
		"negative drain": {PortMin: 20000, PortMax: 20001, Drain: -1},
		"negative loops": {PortMin: 20000, PortMax: 20001, Loops: -1},
	} {
		if _, err := NewLoop(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// BenchmarkLoopTurn is a packet's way from one peer to the other over real
// sockets through one turn of a loop, the peers' own system calls included.
func BenchmarkLoopTurn(b *testing.B) {
	next := newStill(b, PCMA).relayed(b, NewTap(1<<16, time.Now()))
	b.ReportAllocs()
	for b.Loop() {
		next()
	}
}
