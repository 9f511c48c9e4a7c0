package media

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

func TestPortable(t *testing.T) {
	testEngine(t, NewPortable, bubble, sockets)
}

// contract is what every engine must do. Cases with clock run only in the
// bubble, where minutes cost nothing.
var contract = []struct {
	name  string
	clock bool
	cfg   PortableConfig
	test  func(t *testing.T, r *rig)
}{
	{name: "RelayBothWays", test: testRelayBothWays},
	{name: "RelayKeepsLossAndOrder", test: testRelayKeepsLossAndOrder},
	{name: "NumbersGoOnAcrossOrigins", test: testNumbersGoOn},
	{name: "Transcoding", test: testTranscoding},
	{name: "ForeignPacketChangesNothing", test: testForeign},
	{name: "MalformedIsCounted", test: testMalformed},
	{name: "KeysAreReportedOnceAndRelayed", test: testKeys},
	{name: "ComfortNoiseIsTappedNotSent", test: testComfortNoise},
	{name: "TapHandover", test: testTapHandover},
	{name: "PlayedComplete", test: testPlayedComplete},
	{name: "PlayedIncomplete", test: testPlayedIncomplete},
	{name: "RelayToOneOnly", test: testRelayToOneOnly},
	{name: "EchoToItself", test: testEcho},
	{name: "DirectionLimitsBothWays", test: testDirection},
	{name: "NoPorts", cfg: PortableConfig{PortMin: firstPort + 1, PortMax: firstPort + 6}, test: testNoPorts},
	{name: "PortOfOthersIsSkipped", cfg: PortableConfig{PortMin: firstPort, PortMax: firstPort + 3}, test: testPortSkipped},
	{name: "CloseRaces", test: testCloseRaces},
	{name: "RunEndsEverything", test: testRunEndsEverything},
	{name: "SymmetricRTP", test: testSymmetric},
	{name: "SRTPEitherOrBothLegs", test: testSRTPLegs},
	{name: "SRTPRefusesWhatIsNotGenuine", test: testSRTPNotGenuine},
	{name: "SRTPSameKeyGoesOnOverWrapAndReinvite", test: testSRTPSameKey},
	{name: "SRTPNewKeyReplacesOneDirection", test: testSRTPNewKey},
	{name: "SRTPNeverUsesANumberTwice", test: testSRTPNumberOnce},
	{name: "SRTCP", clock: true, cfg: PortableConfig{CNAME: "cim@example"}, test: testSRTCP},
	{name: "UnsentFrameBreaksPrompt", clock: true, test: testUnsentFrame},
	{name: "PaceWithoutDrift", clock: true, test: testPace},
	{name: "Timeout", clock: true, cfg: PortableConfig{Timeout: time.Minute}, test: testTimeout},
	{name: "TimeoutOff", clock: true, test: testTimeoutOff},
	{name: "PortsDrain", clock: true, cfg: PortableConfig{PortMin: firstPort, PortMax: firstPort + 3, Drain: 7 * time.Second}, test: testDrain},
	{name: "Reports", clock: true, cfg: PortableConfig{CNAME: "cim@example"}, test: testReports},
}

func testEngine(t *testing.T, build newEngine, worlds ...world) {
	for _, w := range worlds {
		for _, c := range contract {
			if w.real && c.clock {
				continue
			}
			t.Run(w.name+"/"+c.name, func(t *testing.T) {
				w.run(t, func(t *testing.T) { c.test(t, newRig(t, w, build, c.cfg)) })
			})
		}
	}
}

func testNoPorts(t *testing.T, r *rig) {
	// 20001-20006 holds the pairs 20002 and 20004.
	var open []Stream
	for range 2 {
		s, err := r.engine.Open(StreamConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if s.LocalPort()%2 != 0 || s.LocalPort() < firstPort+1 || s.LocalPort()+1 > firstPort+6 {
			t.Errorf("port %d", s.LocalPort())
		}
		open = append(open, s)
	}
	if _, err := r.engine.Open(StreamConfig{Label: "third"}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("third stream: %v", err)
	}
	open[0].Close()
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("port that must rest was given out: %v", err)
	}
	if s := r.engine.Stats(); s.Streams != 1 || s.Draining != 1 || s.Ports != 2 {
		t.Errorf("stats %+v", s)
	}
}

func testPortSkipped(t *testing.T, r *rig) {
	r.dial(netip.AddrPortFrom(r.world.addr(1), firstPort+1)) // RTCP of the first pair
	s, err := r.engine.Open(StreamConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if s.LocalPort() != firstPort+2 {
		t.Errorf("port %d", s.LocalPort())
	}
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("second stream: %v", err)
	}
	// The half that was free was not kept.
	r.dial(netip.AddrPortFrom(r.world.addr(1), firstPort))
}

// testCloseRaces calls everything from several goroutines while packets flow and
// streams close; the race detector and a deadlock are what it looks for.
func testCloseRaces(t *testing.T, r *rig) {
	for round := range 4 {
		a, b := r.leg(byte(20+2*round)), r.leg(byte(21+2*round))
		var all sync.WaitGroup
		for i, way := range [][2]*leg{{a, b}, {b, a}} {
			x, y := way[0], way[1]
			all.Go(func() {
				for range 100 {
					x.say(8, byte(i))
				}
			})
			all.Go(func() {
				tap := NewTap(4096, time.Now())
				for n := range 50 {
					x.Relay(y.Stream)
					x.SetTap(tap)
					x.Configure(x.params)
					if n%5 == 0 {
						x.Play(promptOf(2), n%2 == 0)
					}
					x.Stats()
					r.engine.Stats()
					if n%7 == 0 {
						x.Silence()
					}
					Bridge(y.Stream, x.Stream)
				}
				x.Close()
				x.Close()
			})
		}
		all.Wait()
		received := a.Stats().Received
		a.Configure(a.params)
		a.Relay(b.Stream)
		a.SetTap(nil)
		a.Silence()
		if a.Stats().Received != received {
			t.Error("a closed stream receives")
		}
	}
	r.stop()
	if s := r.engine.Stats(); s.Streams != 0 || s.Draining != 8 {
		t.Errorf("stats %+v", s)
	}
}

func testRunEndsEverything(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	b.Play(promptOf(10), true)
	b.hear()
	r.stop()
	if e := event[Played](b); e.Complete {
		t.Errorf("%+v", e)
	}
	if _, err := r.engine.Open(StreamConfig{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("open after the end: %v", err)
	}
	// Every socket is closed.
	r.dial(a.to)
	r.dial(a.toRTCP)
	if s := r.engine.Stats(); s.Streams != 0 || s.Sent != b.Stats().Sent {
		t.Errorf("stats %+v", s)
	}
}

func testTimeout(t *testing.T, r *rig) {
	a := r.open(10)
	time.Sleep(5 * time.Minute) // counts from Configure
	started := time.Now()
	a.Configure(a.params)
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != time.Minute {
		t.Errorf("%+v after %v", e, time.Since(started))
	}
	time.Sleep(10 * time.Minute)
	if len(a.events) > 0 {
		t.Errorf("timed out twice: %v", <-a.events)
	}
	a.say(8, 1)
	event[Heard](a)
	time.Sleep(50 * time.Second)
	rr, err := (&rtcp.ReceiverReport{SSRC: a.ssrc}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.rtcp.WriteToUDPAddrPort(rr, a.toRTCP); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	stranger := r.dial(netip.AddrPortFrom(r.world.addr(66), 4000))
	time.Sleep(30 * time.Second)
	a.sayFrom(stranger, rtp.Header{PayloadType: 8}, []byte{1})
	if _, err := stranger.WriteToUDPAddrPort(rr, a.toRTCP); err != nil {
		t.Fatal(err)
	}
	started = time.Now()
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != 30*time.Second {
		t.Errorf("%+v after %v: RTCP is a sign of life, a stranger is none", e, time.Since(started))
	}
	// Held, the peer may be silent for as long as it likes.
	a.say(8, 1)
	hold := a.params
	hold.Direction = SendOnly
	a.Configure(hold)
	time.Sleep(time.Hour)
	if len(a.events) > 0 {
		t.Errorf("while held: %v", <-a.events)
	}
	started = time.Now()
	a.Configure(a.params)
	if e := event[TimedOut](a); e.Silent != time.Minute || time.Since(started) != time.Minute {
		t.Errorf("%+v after %v", e, time.Since(started))
	}
}

func testTimeoutOff(t *testing.T, r *rig) {
	a := r.leg(10)
	time.Sleep(24 * time.Hour)
	if len(a.events) > 0 {
		t.Errorf("%v", <-a.events)
	}
}

func testDrain(t *testing.T, r *rig) {
	old := r.open(10)
	r.open(11)
	old.Close()
	synctest.Wait()
	closed := time.Now()
	for {
		s, err := r.engine.Open(StreamConfig{})
		if err == nil {
			if d := time.Since(closed); d != 7*time.Second || s.LocalPort() != old.LocalPort() {
				t.Errorf("port %d after %v", s.LocalPort(), d)
			}
			break
		}
		if !errors.Is(err, ErrNoPorts) {
			t.Fatal(err)
		}
		// The caller of old goes on talking into the void.
		old.say(8, 1)
		time.Sleep(time.Second)
	}
	synctest.Wait()
	if s := r.engine.Stats(); s.Received+s.Foreign+s.Malformed != 0 || s.Draining != 0 {
		t.Errorf("stats %+v", s)
	}
}

func testReports(t *testing.T, r *rig) {
	a, b := r.leg(10), r.leg(11)
	Bridge(a.Stream, b.Stream)
	// Speak for a minute and lose every tenth packet; a's peer answers each
	// report after 40 ms with a report of its own.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 * 50 {
			if i%10 == 3 {
				a.seq++
				a.ts += FrameSamples
			} else {
				a.say(8, frames(160, 0)...)
			}
			b.say(8, frames(160, 0)...)
			time.Sleep(FrameTime)
		}
	}()
	last := time.Now().Add(-1250 * time.Millisecond) // the first comes after half the time
	var blocks int
	for speaking := true; speaking; {
		select {
		case <-done:
			speaking = false
		case d := <-a.told:
			if gap := time.Since(last); gap < 2500*time.Millisecond || gap > 7500*time.Millisecond {
				t.Errorf("a report after %v", gap)
			}
			last = time.Now()
			if d.from != a.toRTCP {
				t.Errorf("report from %v", d.from)
			}
			packets, err := rtcp.Unmarshal(d.b)
			if err != nil {
				t.Fatal(err)
			}
			sr := packets[0].(*rtcp.SenderReport)
			if cname, err := rtcp.CompoundPacket(packets).CNAME(); err != nil || cname != "cim@example" {
				t.Errorf("CNAME %q, %v", cname, err)
			}
			if len(sr.Reports) != 1 || sr.Reports[0].SSRC != a.ssrc {
				t.Fatalf("report blocks %+v", sr.Reports)
			}
			blocks++
			if f := sr.Reports[0].FractionLost; f < 22 || f > 29 { // 25.6 is a tenth
				t.Errorf("fraction lost %d/256", f)
			}
			time.Sleep(40 * time.Millisecond)
			answer := &rtcp.ReceiverReport{SSRC: a.ssrc, Reports: []rtcp.ReceptionReport{{
				SSRC: sr.SSRC, FractionLost: 64, Jitter: 16,
				LastSenderReport: uint32(sr.NTPTime >> 16), Delay: 65536 / 50, // 20 ms
			}}}
			raw, err := rtcp.Marshal([]rtcp.Packet{answer, rtcp.NewCNAMESourceDescription(a.ssrc, "x")})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.rtcp.WriteToUDPAddrPort(raw, a.toRTCP); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := a.Stats()
	if blocks < 8 || s.Lost != 300 || s.Jitter != 0 {
		t.Errorf("%d reports, stats %+v", blocks, s)
	}
	if rtt := s.RTT; rtt < 19900*time.Microsecond || rtt > 20100*time.Microsecond {
		t.Errorf("round trip %v, want 40 ms less the 20 ms that the peer held it", rtt)
	}
	if s.RemoteLoss != 0.25 || s.RemoteJitter != 2*time.Millisecond {
		t.Errorf("remote loss %v, jitter %v", s.RemoteLoss, s.RemoteJitter)
	}
	a.Close()
	for {
		packets, err := rtcp.Unmarshal(wait(t, "BYE", a.told).b)
		if err != nil {
			t.Fatal(err)
		}
		if bye, ok := packets[len(packets)-1].(*rtcp.Goodbye); ok {
			if len(packets) != 3 || len(bye.Sources) != 1 {
				t.Errorf("goodbye %v", packets)
			}
			return
		}
	}
}

func TestNewPortableRefuses(t *testing.T) {
	ok := PortableConfig{PortMin: 20000, PortMax: 20001}
	if _, err := NewPortable(ok); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*PortableConfig){
		"no pair":          func(c *PortableConfig) { c.PortMin = 20001; c.PortMax = 20002 },
		"no range":         func(c *PortableConfig) { c.PortMin, c.PortMax = 0, 0 },
		"reversed":         func(c *PortableConfig) { c.PortMax = 10000 },
		"negative drain":   func(c *PortableConfig) { c.Drain = -1 },
		"negative timeout": func(c *PortableConfig) { c.Timeout = -1 },
		"DSCP":             func(c *PortableConfig) { c.DSCP = 64 },
		"CNAME":            func(c *PortableConfig) { c.CNAME = string(make([]byte, 256)) },
	} {
		c := ok
		change(&c)
		if _, err := NewPortable(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestListenError: what is not a port in use is the caller's to know.
func TestListenError(t *testing.T) {
	tries := 0
	e, err := NewPortable(PortableConfig{PortMin: 20000, PortMax: 20099, Listen: func(a netip.AddrPort) (Conn, error) {
		tries++
		return nil, fmt.Errorf("listen %v: %w", a, syscall.EMFILE)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(StreamConfig{Label: "a"}); !errors.Is(err, syscall.EMFILE) || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

func TestDSCP(t *testing.T) {
	for _, addr := range []netip.Addr{loopback(1), netip.IPv6Loopback()} {
		c, err := ListenUDP(netip.AddrPortFrom(addr, 0))
		if err != nil {
			if addr.Is6() {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		if err := mark(c, 46); err != nil {
			t.Errorf("%v: %v", addr, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
