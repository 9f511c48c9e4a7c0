package media

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/pion/rtp"
)

// newEngine makes the engine under test.
type newEngine func(PortableConfig) (Engine, error)

// world is where an engine is tested.
type world struct {
	name   string
	real   bool // real sockets and real time
	listen func(*rig) Listen
	addr   func(host byte) netip.Addr
	run    func(t *testing.T, f func(t *testing.T))
}

var bubble = world{
	name:   "bubble",
	listen: func(r *rig) Listen { return r.ether.listen },
	addr:   func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, host}) },
	run:    synctest.Test,
}

var sockets = world{
	name:   "loopback",
	real:   true,
	listen: func(*rig) Listen { return ListenUDP },
	addr:   loopback,
	run:    func(t *testing.T, f func(t *testing.T)) { f(t) },
}

// rig is one engine with a network and peers.
type rig struct {
	t      *testing.T
	world  world
	ether  *ether
	engine Engine
	stop   func() // ends the engine and waits for it
}

const firstPort = 20000

func newRig(t *testing.T, w world, build newEngine, cfg PortableConfig) *rig {
	t.Helper()
	r := &rig{t: t, world: w, ether: newEther()}
	cfg.Listen, cfg.Addr = w.listen(r), w.addr(1)
	if cfg.PortMin == 0 {
		cfg.PortMin, cfg.PortMax = firstPort, firstPort+99
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	engine, err := build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.engine = engine
	ctx, cancel := context.WithCancel(context.Background())
	done := running(ctx, engine)
	r.stop = func() {
		cancel()
		if err, open := <-done; open && err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func running(ctx context.Context, e Engine) chan error {
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx); close(done) }()
	return done
}

func (r *rig) dial(addr netip.AddrPort) Conn {
	r.t.Helper()
	c, err := r.world.listen(r)(addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

// ear collects what a socket receives, until it is closed.
func ear(c Conn) <-chan datagram {
	heard := make(chan datagram, 4096)
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			select {
			case heard <- datagram{append([]byte(nil), b[:n]...), from}:
			default: // nobody listens
			}
		}
	}()
	return heard
}

// leg is a stream and the peer at its other end.
type leg struct {
	Stream
	t      *testing.T
	params Params
	events chan Event
	rtp    Conn
	rtcp   Conn
	heard  <-chan datagram
	told   <-chan datagram // RTCP
	to     netip.AddrPort
	toRTCP netip.AddrPort
	ssrc   uint32
	seq    uint16
	ts     uint32
	secure *peerSRTP // nil: RTP in the clear
}

// open opens a stream and a peer for it on a host of its own.
func (r *rig) open(host byte) *leg {
	r.t.Helper()
	l := &leg{t: r.t, events: make(chan Event, 1000), ssrc: 0xA0000000 + uint32(host), seq: 65530, ts: uint32(host) * 1000}
	s, err := r.engine.Open(StreamConfig{Label: "leg", Notify: func(e Event) { l.events <- e }})
	if err != nil {
		r.t.Fatal(err)
	}
	l.Stream = s
	addr := netip.AddrPortFrom(r.world.addr(host), 4000)
	l.rtp, l.rtcp = r.dial(addr), r.dial(netip.AddrPortFrom(addr.Addr(), 4001))
	l.heard, l.told = ear(l.rtp), ear(l.rtcp)
	l.to = netip.AddrPortFrom(r.world.addr(1), s.LocalPort())
	l.toRTCP = netip.AddrPortFrom(r.world.addr(1), s.LocalPort()+1)
	l.params = Params{Remote: addr, Signalling: addr.Addr(), Codec: PCMA, PayloadType: 8, EventType: 101, Direction: SendRecv}
	return l
}

// leg opens a stream that is configured.
func (r *rig) leg(host byte) *leg {
	r.t.Helper()
	l := r.open(host)
	l.Configure(l.params)
	return l
}

// say sends the next packet of the peer's voice.
func (l *leg) say(payloadType uint8, payload ...byte) {
	l.t.Helper()
	l.sayFrom(l.rtp, rtp.Header{PayloadType: payloadType}, payload)
	l.seq++
	l.ts += FrameSamples
}

// sayFrom sends a packet with the peer's numbers from any socket.
func (l *leg) sayFrom(c Conn, h rtp.Header, payload []byte) {
	l.t.Helper()
	h.Version, h.SSRC, h.SequenceNumber, h.Timestamp = 2, l.ssrc, l.seq, l.ts
	b, err := h.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	b = append(b, payload...)
	if l.secure != nil {
		b = l.secure.seal(l.t, b)
	}
	if _, err := c.WriteToUDPAddrPort(b, l.to); err != nil {
		l.t.Fatal(err)
	}
}

// hear returns the next packet that the peer got.
func (l *leg) hear() rtp.Packet {
	l.t.Helper()
	d := wait(l.t, "RTP", l.heard)
	return l.parse(d)
}

func (l *leg) parse(d datagram) rtp.Packet {
	l.t.Helper()
	if l.secure != nil {
		d.b = l.secure.open(l.t, d.b)
	}
	var p rtp.Packet
	if err := p.Unmarshal(d.b); err != nil {
		l.t.Fatal(err)
	}
	if d.from != l.to {
		l.t.Fatalf("packet from %v, want %v", d.from, l.to)
	}
	return p
}

// event returns the stream's next event of a kind; others are passed over.
func event[E Event](l *leg) E {
	l.t.Helper()
	for {
		if e, ok := wait(l.t, "event", l.events).(E); ok {
			return e
		}
	}
}

// frames returns a payload of n bytes in which b is at the front.
func frames(n int, b byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = b + byte(i)
	}
	return p
}

// promptOf makes a prompt of n whole frames; frame i is filled with samples
// whose code differs from the neighbours'.
func promptOf(n int) *Prompt {
	samples := make([]int16, n*FrameSamples)
	for i := range samples {
		samples[i] = int16((i/FrameSamples%30 + 1) * 1000)
	}
	return NewPrompt(samples)
}
