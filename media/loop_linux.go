//go:build amd64 || arm64

package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loopEngine is the Engine of packet loops: a few goroutines, each of which
// waits for the sockets of many streams with one epoll descriptor and keeps its
// thread while packets flow. It costs about half of what the portable engine
// costs, and is late by a fraction when the program computes something else.
//
// Goroutines: the loops, and the clerk, who calls Notify, closes sockets and
// writes the log, so that no loop ever waits for anybody. They start with the
// first Open, and Run waits for all of them. As each loop keeps a place in Go's
// scheduler to itself while it is busy, GOMAXPROCS is raised for as long as they
// run (places).
//
// Everything that packets touch belongs to the stream's loop; there are no locks
// on their path. Methods of streams send orders to the loop, which obeys them
// before any packet that came later. mu guards what the callers of methods share;
// no loop ever takes it.
//
// Streams that relay one another are always on one loop. Open chooses the loop
// with the fewest streams, and Relay brings the two together: it moves the one
// that begins to relay, with what in turn relays that, and waits one turn of the
// loop that gives them up. Packets wait in their sockets meanwhile.
type loopEngine struct {
	cfg   PortableConfig
	log   *slog.Logger
	epoch time.Time
	pairs int
	loops []*loop

	mu       sync.Mutex
	ports    ports
	streams  map[*loopStream]struct{} // until their sockets are closed
	started  bool
	stopped  bool // Open is refused
	ending   bool // the loops were told to quit
	unmarked bool // DSCP was refused and that was logged

	over    chan struct{} // closed when the loops have ended
	open    sync.WaitGroup
	running sync.WaitGroup
	clerk   sync.WaitGroup

	news  letters[report]
	knock chan struct{} // capacity 1: there are news
}

// report is what a loop has for the clerk: an event, the end of a stream, or
// something for the log.
type report struct {
	stream *loopStream
	event  Event
	ended  bool
	what   string
	err    error
}

// NewLoop makes the loop engine. It fails if the configuration cannot work or if
// the system lacks what the engine needs; the portable engine may still work
// then. Run must be called, for it frees what NewLoop took.
func NewLoop(cfg LoopConfig) (Engine, error) {
	common := cfg.Portable()
	ports, err := common.settle()
	if err != nil {
		return nil, err
	}
	n := cfg.Loops
	switch {
	case n < 0 || n > 64:
		return nil, fmt.Errorf("media: %d packet loops are not within 0..64", n)
	case n == 0:
		n = max(1, runtime.GOMAXPROCS(0)/4)
	}
	e := &loopEngine{
		cfg: common, log: common.Log, epoch: time.Now(), ports: ports, pairs: len(ports.free),
		streams: make(map[*loopStream]struct{}),
		over:    make(chan struct{}), knock: make(chan struct{}, 1),
	}
	for range n {
		l, err := newLoop(e)
		if err != nil {
			errs := []error{fmt.Errorf("media: start packet loop: %w", err)}
			for _, l := range e.loops {
				errs = append(errs, l.close())
			}
			return nil, errors.Join(errs...)
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

// now is the time since the epoch.
func (e *loopEngine) now() time.Duration { return time.Since(e.epoch) }

// places is by how much GOMAXPROCS is raised: one for each loop, and some more,
// so that a loop which the runtime makes yield finds a place at once though two
// other goroutines compute and there is one processor for all. Which of the
// threads goes first is then the kernel's to say, and it says the loop's
// (loop.claim).
func (e *loopEngine) places() int { return len(e.loops) + 2 }

// start starts the goroutines. The caller holds mu.
func (e *loopEngine) start() {
	if e.started {
		return
	}
	e.started = true
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + e.places())
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	e.clerk.Go(e.readNews)
}

// Run implements Engine. Streams work from Open on; Run sees to their end.
func (e *loopEngine) Run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	e.stopped = true
	open := make([]*loopStream, 0, len(e.streams))
	for s := range e.streams {
		open = append(open, s)
	}
	e.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
	e.open.Wait()

	e.mu.Lock()
	e.ending = true
	started := e.started
	if started {
		for _, l := range e.loops {
			l.post(func(l *loop, _ time.Duration) { l.quit = true })
		}
	}
	e.mu.Unlock()
	e.running.Wait()
	close(e.knock)
	e.clerk.Wait()
	if started {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-e.places()))
	}
	close(e.over)
	var errs []error
	for _, l := range e.loops {
		errs = append(errs, l.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("media: end packet loops: %w", err)
	}
	return nil
}

// Open implements Engine. After Run has ended it fails with net.ErrClosed.
func (e *loopEngine) Open(cfg StreamConfig) (Stream, error) {
	for range e.pairs {
		e.mu.Lock()
		port, ok := e.ports.take(e.now())
		e.mu.Unlock()
		if !ok {
			break
		}
		rtp, rtcp, err := e.bind(port)
		if err == nil {
			return e.take(cfg, port, rtp, rtcp)
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

// bind opens both sockets of a pair or none.
func (e *loopEngine) bind(port uint16) (rtp, rtcp udpSocket, err error) {
	rtp, err = openUDP(netip.AddrPortFrom(e.cfg.Addr, port))
	if err != nil {
		return rtp, rtcp, fmt.Errorf("open RTP socket: %w", err)
	}
	rtcp, err = openUDP(netip.AddrPortFrom(e.cfg.Addr, port+1))
	if err != nil {
		return rtp, rtcp, errors.Join(fmt.Errorf("open RTCP socket: %w", err), rtp.close())
	}
	if e.cfg.DSCP != 0 {
		e.warnUnmarked(errors.Join(rtp.mark(e.cfg.DSCP), rtcp.mark(e.cfg.DSCP)))
	}
	return rtp, rtcp, nil
}

func (e *loopEngine) warnUnmarked(err error) {
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

// newStream makes a stream over its sockets that no loop has yet.
func (e *loopEngine) newStream(cfg StreamConfig, port uint16, rtp, rtcp udpSocket) *loopStream {
	return &loopStream{
		engine: e, label: cfg.Label, notify: cfg.Notify, port: port,
		rtp: rtp, rtcp: rtcp, ended: make(chan struct{}),
		flow: newFlow(e.epoch, e.now(), e.cfg.Timeout, e.cfg.CNAME),
		seat: nowhere,
	}
}

// take gives a stream over its sockets to the loop with the fewest.
func (e *loopEngine) take(cfg StreamConfig, port uint16, rtp, rtcp udpSocket) (Stream, error) {
	s := e.newStream(cfg, port, rtp, rtcp)
	added := make(chan error, 1)
	e.mu.Lock()
	if e.stopped {
		e.ports.skip(port)
		e.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("open stream %s: %w", cfg.Label, net.ErrClosed), rtp.close(), rtcp.close())
	}
	e.start()
	e.streams[s] = struct{}{}
	e.open.Add(1)
	s.loop = slices.MinFunc(e.loops, func(a, b *loop) int { return a.load - b.load })
	s.loop.load++
	s.loop.post(func(l *loop, _ time.Duration) { added <- l.adopt(s) })
	e.mu.Unlock()
	if err := <-added; err != nil {
		s.Close()
		return nil, fmt.Errorf("open stream %s: %w", cfg.Label, os.NewSyscallError("epoll_ctl", err))
	}
	return s, nil
}

// Lateness implements Engine: that of the latest loop.
func (e *loopEngine) Lateness() (worst Lateness) {
	at := e.now()
	for _, l := range e.loops {
		of := l.late.lateness(at)
		worst.Mean, worst.Max = max(worst.Mean, of.Mean), max(worst.Max, of.Max)
	}
	return worst
}

// Stats implements Engine.
func (e *loopEngine) Stats() EngineStats {
	e.mu.Lock()
	sum := EngineStats{Kind: "loop", Ports: e.pairs, Draining: e.ports.draining(e.now())}
	for s := range e.streams {
		if s.closed {
			sum.Draining++
		} else {
			sum.Streams++
		}
	}
	alive := e.started && !e.ending
	parts := make(chan EngineStats, len(e.loops))
	if alive {
		for _, l := range e.loops {
			l.post(func(l *loop, _ time.Duration) { parts <- l.stats() })
		}
	}
	ending := e.started && e.ending
	e.mu.Unlock()
	if ending {
		<-e.over
	}
	for _, l := range e.loops {
		var part EngineStats
		if alive {
			part = <-parts
		} else {
			part = l.closed // no stream is left, or there never was one
		}
		sum.Received += part.Received
		sum.Sent += part.Sent
		sum.Drops.add(part.Drops)
	}
	return sum
}

// tell gives the clerk something to do.
func (e *loopEngine) tell(r report) {
	if e.news.put(r) {
		select {
		case e.knock <- struct{}{}:
		default:
		}
	}
}

// readNews is the clerk.
func (e *loopEngine) readNews() {
	for range e.knock {
		for n := e.news.take(); n != nil; n = n.next {
			r := n.body
			switch {
			case r.ended:
				e.gone(r.stream)
			case r.event != nil:
				if r.stream.notify != nil {
					r.stream.notify(r.event)
				}
			default:
				e.log.Warn(r.what, "leg", r.stream.label, "err", r.err)
			}
		}
	}
}

// gone frees the sockets and ports of a stream that its loop has let go.
func (e *loopEngine) gone(s *loopStream) {
	if err := errors.Join(s.rtp.close(), s.rtcp.close()); err != nil {
		e.log.Warn("close media socket", "leg", s.label, "err", err)
	}
	e.mu.Lock()
	delete(e.streams, s)
	s.loop.load--
	e.ports.release(s.port, e.now())
	e.mu.Unlock()
	e.open.Done()
}

// bring moves s, and what relays it, and so on, to the loop, if they are on
// another. s must relay nothing. The caller holds mu.
func (e *loopEngine) bring(s *loopStream, to *loop) {
	from := s.loop
	if from == to {
		return
	}
	var all []*loopStream
	for x := s; x != nil; x = x.sink {
		all = append(all, x)
	}
	released := make(chan struct{})
	from.post(func(l *loop, _ time.Duration) {
		for _, x := range all {
			l.release(x)
		}
		close(released)
	})
	<-released
	for _, x := range all {
		x.loop = to
	}
	from.load -= len(all)
	to.load += len(all)
	to.post(func(l *loop, _ time.Duration) {
		for _, x := range all {
			if err := l.adopt(x); err != nil {
				e.tell(report{stream: x, what: "move stream to another loop", err: os.NewSyscallError("epoll_ctl", err)})
			}
		}
	})
}

// newLoop makes a loop that does not run yet.
func newLoop(e *loopEngine) (*loop, error) {
	l := &loop{engine: e, active: -idleAfter}
	var err error
	if l.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(l.poll))
	}
	if err = l.watch(l.bell, entry{}); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), l.close())
	}
	return l, nil
}

// close frees the loop's descriptors.
func (l *loop) close() error {
	return errors.Join(os.NewSyscallError("close", unix.Close(l.poll)), os.NewSyscallError("close", unix.Close(l.bell)))
}
