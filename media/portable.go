package media

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// defaultDrain is how long ports rest if PortableConfig does not say.
const defaultDrain = 5 * time.Second

// PortableConfig configures NewPortable.
type PortableConfig struct {
	// Listen opens sockets; nil means ListenUDP. The error for a port that
	// somebody else has must wrap syscall.EADDRINUSE: it is then skipped.
	Listen Listen
	// Addr is the local address of every socket; the zero value means any IPv4
	// address.
	Addr netip.Addr
	// PortMin and PortMax bound the range, both included.
	PortMin, PortMax uint16
	// Drain is how long a port pair rests before it is used again; 0 means 5 s.
	Drain time.Duration
	// Timeout is the media timeout (TimedOut); 0 means off.
	Timeout time.Duration
	// DSCP marks what real sockets send, 0..63; 0 leaves it to the system. If
	// the system refuses, the engine warns once and goes on.
	DSCP int
	// CNAME names us in RTCP; empty means a random one (RFC 7022 §4.2).
	CNAME string
	// Log may be nil.
	Log *slog.Logger
}

// portable is the Engine with a goroutine per socket. It works wherever Go does
// and over any Conn.
//
// Goroutines: three for each stream (RTP reader, RTCP reader, and one that
// keeps its time: frames, reports, timeout, events, the end); Run waits for all
// of them.
//
// Locks: mu guards the engine's tables. wiring is held while the relations
// between streams change, so that they always agree on both sides; the packet
// path never takes it. Each stream's own mu is innermost, and nobody holds two
// of those, nor any lock while sending or receiving packets. So packets that
// two goroutines send at the moment at which a stream's origin changes are
// numbered in order but may leave in the other.
type portable struct {
	cfg   PortableConfig
	log   *slog.Logger
	epoch time.Time
	pairs int

	wiring sync.Mutex

	mu       sync.Mutex
	stopped  bool
	ports    ports
	streams  map[*portableStream]struct{} // until their sockets are closed
	closed   EngineStats                  // sums of the streams that are gone
	unmarked bool                         // DSCP was refused and that was logged

	running sync.WaitGroup

	lateMu sync.Mutex // innermost
	late   punctuality
}

// NewPortable makes the portable engine. It refuses a configuration that could
// not work.
func NewPortable(cfg PortableConfig) (Engine, error) {
	ports, err := cfg.settle()
	if err != nil {
		return nil, err
	}
	return &portable{
		cfg: cfg, log: cfg.Log, epoch: time.Now(), ports: ports, pairs: len(ports.free),
		streams: make(map[*portableStream]struct{}),
	}, nil
}

// settle fills in what was left out, refuses what could not work, and makes the
// port range.
func (cfg *PortableConfig) settle() (ports, error) {
	if cfg.Listen == nil {
		cfg.Listen = ListenUDP
	}
	if !cfg.Addr.IsValid() {
		cfg.Addr = netip.IPv4Unspecified()
	}
	if cfg.Drain == 0 {
		cfg.Drain = defaultDrain
	}
	if cfg.CNAME == "" {
		var b [12]byte
		binary.NativeEndian.PutUint64(b[:], rand.Uint64())
		binary.NativeEndian.PutUint32(b[8:], rand.Uint32())
		cfg.CNAME = base64.StdEncoding.EncodeToString(b[:])
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Drain < 0:
		return ports{}, fmt.Errorf("media: drain time %v is negative", cfg.Drain)
	case cfg.Timeout < 0:
		return ports{}, fmt.Errorf("media: timeout %v is negative", cfg.Timeout)
	case cfg.DSCP < 0 || cfg.DSCP > 63:
		return ports{}, fmt.Errorf("media: DSCP %d is not within 0..63", cfg.DSCP)
	case len(cfg.CNAME) > 255:
		return ports{}, fmt.Errorf("media: CNAME of %d bytes is longer than 255", len(cfg.CNAME))
	}
	p, err := newPorts(cfg.PortMin, cfg.PortMax, cfg.Drain)
	if err != nil {
		return ports{}, fmt.Errorf("media: %w", err)
	}
	return p, nil
}

// now is the time since the epoch.
func (e *portable) now() time.Duration { return time.Since(e.epoch) }

// Run implements Engine. Streams work from Open on; Run sees to their end.
func (e *portable) Run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	e.stopped = true
	open := make([]*portableStream, 0, len(e.streams))
	for s := range e.streams {
		open = append(open, s)
	}
	e.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
	e.running.Wait()
	return nil
}

// Open implements Engine. After Run has ended it fails with net.ErrClosed.
func (e *portable) Open(cfg StreamConfig) (Stream, error) {
	for range e.pairs {
		e.mu.Lock()
		port, ok := e.ports.take(e.now())
		e.mu.Unlock()
		if !ok {
			break
		}
		rtp, rtcp, err := e.listen(port)
		if err == nil {
			return e.start(cfg, port, rtp, rtcp)
		}
		e.mu.Lock()
		e.ports.skip(port)
		e.mu.Unlock()
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("open stream %s: %w", cfg.Label, err)
		}
	}
	return nil, fmt.Errorf("open stream %s: %w", cfg.Label, ErrNoPorts)
}

// listen opens both sockets of a pair or none.
func (e *portable) listen(port uint16) (rtp, rtcp Conn, err error) {
	rtp, err = e.cfg.Listen(netip.AddrPortFrom(e.cfg.Addr, port))
	if err != nil {
		return nil, nil, fmt.Errorf("listen for RTP: %w", err)
	}
	rtcp, err = e.cfg.Listen(netip.AddrPortFrom(e.cfg.Addr, port+1))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for RTCP: %w", err), rtp.Close())
	}
	if e.cfg.DSCP != 0 {
		e.warnUnmarked(errors.Join(mark(rtp, e.cfg.DSCP), mark(rtcp, e.cfg.DSCP)))
	}
	return rtp, rtcp, nil
}

// start sets a stream going over its sockets.
func (e *portable) start(cfg StreamConfig, port uint16, rtp, rtcp Conn) (Stream, error) {
	s := &portableStream{
		engine: e, label: cfg.Label, notify: cfg.Notify, port: port, rtp: rtp, rtcp: rtcp,
		flow: newFlow(e.epoch, e.now(), e.cfg.Timeout, e.cfg.CNAME),
		wake: make(chan struct{}, 1),
		over: make(chan struct{}),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		e.ports.skip(port)
		return nil, errors.Join(fmt.Errorf("open stream %s: %w", cfg.Label, net.ErrClosed), rtp.Close(), rtcp.Close())
	}
	e.streams[s] = struct{}{}
	e.running.Go(s.run)
	return s, nil
}

// gone takes a stream out whose sockets are closed.
func (e *portable) gone(s *portableStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, s)
	e.closed.add(s.Stats())
	e.ports.release(s.port, e.now())
}

// Stats implements Engine.
func (e *portable) Stats() EngineStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := e.closed
	sum.Kind, sum.Ports = "portable", e.pairs
	sum.Draining = e.ports.draining(e.now())
	for s := range e.streams {
		if s.isClosed() {
			sum.Draining++
		} else {
			sum.Streams++
		}
		sum.add(s.Stats())
	}
	return sum
}

// Lateness implements Engine.
func (e *portable) Lateness() Lateness { return e.late.lateness(e.now()) }

// note measures how late a stream did what was due.
func (e *portable) note(due, at time.Duration) {
	e.lateMu.Lock()
	defer e.lateMu.Unlock()
	e.late.note(due, at)
}

func (e *EngineStats) add(s StreamStats) {
	e.Received += s.Received
	e.Sent += s.Sent
	e.Drops.add(s.Drops)
}

func (e *portable) warnUnmarked(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	known := e.unmarked
	e.unmarked = true
	e.mu.Unlock()
	if !known {
		e.log.Warn("packets go out without DSCP", "err", err)
	}
}

// mark sets the DSCP of a real socket; another Conn has none.
func mark(c Conn, dscp int) error {
	u, ok := c.(*net.UDPConn)
	if !ok {
		return nil
	}
	// The two bits below the DSCP are ECN (RFC 3168 §5).
	tos := dscp << 2
	if local, ok := u.LocalAddr().(*net.UDPAddr); ok && local.IP.To4() != nil {
		if err := ipv4.NewConn(u).SetTOS(tos); err != nil {
			return fmt.Errorf("set TOS %#x: %w", tos, err)
		}
		return nil
	}
	if err := ipv6.NewConn(u).SetTrafficClass(tos); err != nil {
		return fmt.Errorf("set traffic class %#x: %w", tos, err)
	}
	return nil
}
