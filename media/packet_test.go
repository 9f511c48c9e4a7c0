package media

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// deafConn sends into the void and never receives.
type deafConn struct {
	closed chan struct{}
	once   *sync.Once
}

func (c deafConn) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	<-c.closed
	return 0, netip.AddrPort{}, net.ErrClosed
}
func (c deafConn) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) { return len(b), nil }
func (c deafConn) SetReadDeadline(time.Time) error                            { return nil }
func (c deafConn) LocalAddr() net.Addr                                        { return nil }
func (c deafConn) Close() error                                               { c.once.Do(func() { close(c.closed) }); return nil }

var benchPeer = netip.MustParseAddrPort("192.0.2.10:4000")

// bridged returns a tapped stream whose packets another one relays; with it
// comes what takes the tapped packets out again.
func bridged(tb testing.TB, law Codec) (s *portableStream, tap *Tap) {
	tb.Helper()
	e, err := NewPortable(PortableConfig{PortMin: 20000, PortMax: 20099, Listen: func(netip.AddrPort) (Conn, error) {
		return deafConn{make(chan struct{}), new(sync.Once)}, nil
	}})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := running(ctx, e)
	tb.Cleanup(func() { cancel(); <-done })
	var legs [2]Stream
	for i, c := range []Codec{PCMA, law} {
		if legs[i], err = e.Open(StreamConfig{}); err != nil {
			tb.Fatal(err)
		}
		legs[i].Configure(Params{Remote: benchPeer, Signalling: benchPeer.Addr(), Codec: c, PayloadType: uint8(c), EventType: 101, Direction: SendRecv})
	}
	Bridge(legs[0], legs[1])
	tap = NewTap(1<<16, time.Now())
	legs[0].SetTap(tap)
	return legs[0].(*portableStream), tap
}

// relayLoop returns a function that takes the next packet of a stream through
// the packet path: judge, tap, relay, send.
func relayLoop(tb testing.TB, law Codec) func() {
	s, tap := bridged(tb, law)
	var in inbound
	out, b, got := make([]byte, maxPacket), voicePacket(0, 0, 1), Packet{Payload: make([]byte, 0, MaxPayload)}
	var n uint32
	return func() {
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		binary.BigEndian.PutUint32(b[4:], n*FrameSamples)
		n++
		s.packet(b, benchPeer, &in, out)
		if !tap.Next(&got) {
			tb.Fatal("nothing was tapped")
		}
	}
}

func TestPacketPathDoesNotAllocate(t *testing.T) {
	for _, law := range []Codec{PCMA, PCMU} {
		next := relayLoop(t, law)
		next()
		if n := testing.AllocsPerRun(2000, next); n != 0 {
			t.Errorf("law %d: %v allocations for a relayed packet", law, n)
		}
	}
	s, _ := bridged(t, PCMA)
	var in inbound
	out, b := make([]byte, maxPacket), voicePacket(0, 0, 1)
	stranger := netip.MustParseAddrPort("192.0.2.66:4000")
	unknown := []byte{0x80, 18, 11: 0, 12: 1}
	extended := []byte{0x90, 8, 11: 1, 12: 1, 2, 0, 1, 5, 6, 7, 8, 9}
	for name, f := range map[string]func(){
		"foreign":   func() { s.packet(b, stranger, &in, out) },
		"cut short": func() { s.packet(b[:11], benchPeer, &in, out) },
		"unknown":   func() { s.packet(unknown, benchPeer, &in, out) },
		"extended":  func() { s.packet(extended, benchPeer, &in, out) },
	} {
		f()
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	f := speaking(silent)
	f.playPrompt(HoldMusic(), true, 0)
	at := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		if f.frame(at, out) == 0 {
			t.Fatal("no frame")
		}
		at += FrameTime
	}); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// TestStalePacketIsNotRelayed: a packet that was on its way to a stream when
// that turned to another origin is not sent.
func TestStalePacketIsNotRelayed(t *testing.T) {
	s, _ := bridged(t, PCMA)
	in := inbound{Packet: Packet{Kind: KindPCMA, Payload: []byte{1}}}
	out := make([]byte, maxPacket)
	sink := s.sink
	sink.pass(sink, &in, 0, out)
	if n := sink.Stats().Sent; n != 0 {
		t.Errorf("%d packets of another origin were sent", n)
	}
	sink.pass(s, &in, 0, out)
	if n := sink.Stats().Sent; n != 1 {
		t.Errorf("%d packets sent, want 1", n)
	}
}

func BenchmarkRelayPacket(b *testing.B) {
	for name, law := range map[string]Codec{"same law": PCMA, "transcoded": PCMU} {
		b.Run(name, func(b *testing.B) {
			next := relayLoop(b, law)
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}

// BenchmarkRelaySockets is a packet's way from one peer to the other over real
// sockets, the peers' own system calls included.
func BenchmarkRelaySockets(b *testing.B) {
	e, err := NewPortable(PortableConfig{Addr: loopback(1), PortMin: firstPort, PortMax: firstPort + 99})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := running(ctx, e)
	b.Cleanup(func() { cancel(); <-done })
	var legs [2]Stream
	var peers [2]Conn
	for i := range legs {
		addr := netip.AddrPortFrom(loopback(byte(10+i)), 4000)
		if peers[i], err = ListenUDP(addr); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := peers[i].Close(); err != nil {
				b.Error(err)
			}
		})
		if legs[i], err = e.Open(StreamConfig{}); err != nil {
			b.Fatal(err)
		}
		legs[i].Configure(Params{Remote: addr, Codec: PCMA, PayloadType: 8, Direction: SendRecv})
	}
	Bridge(legs[0], legs[1])
	to := netip.AddrPortFrom(loopback(1), legs[0].LocalPort())
	p, got := voicePacket(0, 0, 1), make([]byte, 2048)
	var n uint32
	b.ReportAllocs()
	for b.Loop() {
		binary.BigEndian.PutUint16(p[2:], uint16(n))
		binary.BigEndian.PutUint32(p[4:], n*FrameSamples)
		n++
		if _, err := peers[0].WriteToUDPAddrPort(p, to); err != nil {
			b.Fatal(err)
		}
		if _, _, err := peers[1].ReadFromUDPAddrPort(got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFlow is the state machine alone: receive on one, forward on another.
func BenchmarkFlow(b *testing.B) {
	from, to := speaking(silent), speaking(relaying)
	peer := from.params.Remote
	p, out := voicePacket(0, 0, 1), make([]byte, maxPacket)
	var in inbound
	var n uint32
	b.ReportAllocs()
	for b.Loop() {
		binary.BigEndian.PutUint16(p[2:], uint16(n))
		binary.BigEndian.PutUint32(p[4:], n*FrameSamples)
		at := time.Duration(n) * FrameTime
		n++
		if !from.receive(p, peer, at, &in) || to.forward(&in, at, out) == 0 {
			b.Fatal("not relayed")
		}
	}
}

func BenchmarkTap(b *testing.B) {
	tap := NewTap(1<<16, time.Now())
	in, out := Packet{Payload: frames(160, 1)}, Packet{Payload: make([]byte, 0, MaxPayload)}
	b.ReportAllocs()
	for b.Loop() {
		if !tap.Put(&in) || !tap.Next(&out) {
			b.Fatal("no packet")
		}
	}
}

func BenchmarkPromptFrame(b *testing.B) {
	f := speaking(silent)
	f.playPrompt(HoldMusic(), true, 0)
	buf := make([]byte, maxPacket)
	at := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		if f.frame(at, buf) == 0 {
			b.Fatal("no frame")
		}
		at += FrameTime
	}
}

func BenchmarkHoldMusic(b *testing.B) {
	for b.Loop() {
		composeHoldMusic()
	}
}

// FuzzPacket throws datagrams at the ports of a flow that is relayed by another:
// whatever they are, nothing panics, the counts add up, and what is sent is RTP
// of the right kind.
func FuzzPacket(f *testing.F) {
	f.Add(voicePacket(1, 160, 7), []byte{0x80, 101, 0, 2, 0, 0, 1, 64, 0, 0, 0, 7, 5, 0x8A, 0, 160}, uint16(20))
	f.Add([]byte{0xB1, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 0xBE, 0xDE, 0, 1, 0x17, 7, 7, 7, 42, 43, 0, 0, 3}, voicePacket(2, 320, 7), uint16(1))
	f.Add(voicePacket(65535, 160, 7), voicePacket(0, 0, 7), uint16(65535))
	report, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{SSRC: 7, Reports: []rtcp.ReceptionReport{{SSRC: 1, LastSenderReport: 5, Delay: 1 << 31}}},
		rtcp.NewCNAMESourceDescription(7, "x"), &rtcp.Goodbye{Sources: []uint32{7}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(report, []byte{0x80, 13, 0, 2, 0, 0, 1, 64, 0, 0, 0, 7, 60}, uint16(9))
	f.Fuzz(func(t *testing.T, first, second []byte, gap uint16) {
		from, to := speaking(silent), speaking(relaying)
		from.configure(Params{Remote: benchPeer, Codec: PCMA, PayloadType: 8, EventType: 101, Direction: SendRecv}, 0)
		to.params.EventType, to.params.Codec, to.params.PayloadType = 96, PCMU, 97
		from.out.ssrc = 1
		var in inbound
		out := make([]byte, maxPacket)
		control := netip.AddrPortFrom(benchPeer.Addr(), benchPeer.Port()+1)
		at := time.Duration(0)
		var judged, sent uint64
		for _, b := range [][]byte{first, second, first, second} {
			at += time.Duration(gap) * time.Millisecond
			judged++
			if from.receive(b, benchPeer, at, &in) {
				if len(in.Payload) > MaxPayload || in.SSRC != binary.BigEndian.Uint32(b[8:]) {
					t.Fatalf("%+v of % x", in.Packet, b)
				}
				if n := to.forward(&in, at, out); n > 0 {
					sent++
					if out[0] != 0x80 || out[1]&0x7F != 97 && out[1]&0x7F != 96 || binary.BigEndian.Uint32(out[8:]) != to.out.ssrc || n > maxPacket {
						t.Fatalf("sent % x", out[:n])
					}
				}
			}
			malformed := from.count.Malformed
			from.receiveRTCP(b, control, at)
			from.count.Malformed = malformed
			for report, err := from.report(from.reports.next); report == nil || err != nil; {
				t.Fatalf("no report: %v", err)
			}
		}
		if c := from.count; c.Received+c.Malformed != judged || to.count.Sent != sent {
			t.Fatalf("%d judged, %d sent: %+v %+v", judged, sent, c, to.count)
		}
		if s := from.stats(); s.RTT < 0 || s.Jitter < 0 || s.RemoteLoss < 0 || s.RemoteLoss > 1 {
			t.Fatalf("%+v", s)
		}
	})
}
