package media

import (
	"net/netip"
	"sync"
	"time"
)

// readPause is how long a reader waits after a read that failed on a socket
// that is still open.
const readPause = 100 * time.Millisecond

// portableStream is a Stream of the portable engine: a flow, its lock, and the
// two sockets.
type portableStream struct {
	engine    *portable
	label     string
	notify    func(Event)
	port      uint16
	rtp, rtcp Conn
	wake      chan struct{} // capacity 1: run has something to do
	over      chan struct{} // closed by Close

	mu      sync.Mutex
	flow    flow
	tap     *Tap
	closed  bool
	relayed uint64
	// from is whom we relay, sink is who relays us. Both are written under the
	// engine's wiring and mu, so either is enough for reading.
	from, sink *portableStream
}

// LocalPort implements Stream.
func (s *portableStream) LocalPort() uint16 { return s.port }

// Configure implements Stream.
func (s *portableStream) Configure(p Params) {
	s.change(func(at time.Duration) { s.flow.configure(p, at) })
}

// Play implements Stream.
func (s *portableStream) Play(p *Prompt, loop bool) (id PlayID) {
	s.engine.wiring.Lock()
	defer s.engine.wiring.Unlock()
	s.unlink()
	s.change(func(at time.Duration) { id = s.flow.playPrompt(p, loop, at) })
	return id
}

// Relay implements Stream. A stream of another engine cannot be relayed; that
// is logged, and nothing is sent.
func (s *portableStream) Relay(from Stream) {
	src, ok := from.(*portableStream)
	if !ok || src == nil || src.engine != s.engine {
		s.engine.log.Error("relay from a stream of another engine", "leg", s.label)
		s.Silence()
		return
	}
	s.engine.wiring.Lock()
	defer s.engine.wiring.Unlock()
	if s.from == src {
		return
	}
	s.unlink()
	if src.isClosed() || s.isClosed() {
		s.change(s.flow.silence)
		return
	}
	if other := src.sink; other != nil {
		other.unlink()
		other.change(other.flow.silence)
	}
	src.mu.Lock()
	src.sink = s
	src.mu.Unlock()
	s.change(func(at time.Duration) {
		s.from = src
		s.flow.relayFrom(at)
	})
}

// Silence implements Stream.
func (s *portableStream) Silence() {
	s.engine.wiring.Lock()
	defer s.engine.wiring.Unlock()
	s.unlink()
	s.change(s.flow.silence)
}

// SetTap implements Stream. Packets are put under mu, which is what makes its
// promise hold.
func (s *portableStream) SetTap(t *Tap) {
	s.change(func(time.Duration) { s.tap = t })
}

// Stats implements Stream.
func (s *portableStream) Stats() StreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.flow.stats()
	stats.Relayed = s.relayed
	return stats
}

// Close implements Stream. The sockets are closed by run.
func (s *portableStream) Close() {
	s.engine.wiring.Lock()
	defer s.engine.wiring.Unlock()
	s.unlink()
	if sink := s.sink; sink != nil {
		sink.unlink()
		sink.change(sink.flow.silence)
	}
	s.change(func(at time.Duration) {
		s.flow.silence(at)
		s.tap, s.closed = nil, true
		close(s.over)
	})
}

// change applies a command to the flow and lets run see to what follows from
// it. On a closed stream it does nothing.
func (s *portableStream) change(f func(at time.Duration)) {
	s.mu.Lock()
	if !s.closed {
		f(s.engine.now())
	}
	s.mu.Unlock()
	s.poke()
}

// unlink ends the relation to the stream that is relayed. The caller holds
// wiring.
func (s *portableStream) unlink() {
	src := s.from
	if src == nil {
		return
	}
	src.mu.Lock()
	src.sink = nil
	src.mu.Unlock()
	s.mu.Lock()
	s.from = nil
	s.mu.Unlock()
}

func (s *portableStream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *portableStream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the stream's time until it is closed, then takes it down.
func (s *portableStream) run() {
	var readers sync.WaitGroup
	readers.Go(s.readRTP)
	readers.Go(s.readRTCP)
	timer := time.NewTimer(0)
	defer timer.Stop()
	buf := make([]byte, maxSent)
	for !s.turn(buf, timer) {
		select {
		case <-timer.C:
		case <-s.wake:
		}
	}
	for _, c := range []Conn{s.rtp, s.rtcp} {
		if err := c.Close(); err != nil {
			s.engine.log.Warn("close media socket", "leg", s.label, "err", err)
		}
	}
	readers.Wait()
	s.engine.gone(s)
}

// turn does everything that is due, sets the timer for what comes next and
// reports whether the stream is closed.
func (s *portableStream) turn(buf []byte, timer *time.Timer) (closed bool) {
	for {
		s.mu.Lock()
		at := s.engine.now()
		closed = s.closed
		wasDue, ticks := s.flow.due()
		n, play := 0, s.flow.play.id
		var report []byte
		var err error
		if closed {
			report, err = s.flow.goodbye(at)
		} else if n = s.flow.frame(at, buf); n == 0 {
			s.flow.check(at)
			report, err = s.flow.report(at)
		}
		rtp, _ := s.flow.rtp.target()
		rtcp, _ := s.flow.rtcp.target()
		events := s.flow.events
		s.flow.events = nil
		next, ticking := s.flow.due()
		s.mu.Unlock()
		if ticks && wasDue <= at {
			s.engine.note(wasDue, at)
		}

		if err != nil {
			s.engine.log.Warn("make RTCP report", "leg", s.label, "err", err)
		}
		if s.notify != nil {
			for _, e := range events {
				s.notify(e)
			}
		}
		if n > 0 {
			s.send(buf[:n], rtp, play)
			continue // the next frame, or the end, may be due already
		}
		if report != nil {
			// A report that is lost is made up for by the next.
			_, _ = s.rtcp.WriteToUDPAddrPort(report, rtcp)
		}
		if !closed && ticking {
			timer.Reset(next - s.engine.now())
		}
		return closed
	}
}

// send sends an RTP packet. play is the prompt that it is a frame of, or 0.
func (s *portableStream) send(b []byte, to netip.AddrPort, play PlayID) {
	if _, err := s.rtp.WriteToUDPAddrPort(b, to); err == nil {
		return
	}
	s.mu.Lock()
	s.flow.failed(play, s.engine.now())
	s.mu.Unlock()
	s.poke()
}

// readRTP is the packet loop.
func (s *portableStream) readRTP() {
	var in inbound
	out := make([]byte, maxSent)
	s.read(s.rtp, func(b []byte, from netip.AddrPort) { s.packet(b, from, &in, out) })
}

func (s *portableStream) readRTCP() {
	s.read(s.rtcp, func(b []byte, from netip.AddrPort) {
		s.mu.Lock()
		if !s.closed {
			s.flow.receiveRTCP(b, from, s.engine.now())
		}
		s.mu.Unlock()
	})
}

// read hands on every datagram until the stream is closed.
func (s *portableStream) read(c Conn, take func(b []byte, from netip.AddrPort)) {
	buf := make([]byte, maxDatagram)
	failing := false
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err == nil {
			failing = false
			take(buf[:n], from)
			continue
		}
		select {
		case <-s.over:
			return
		default:
		}
		if !failing {
			failing = true
			s.engine.log.Warn("read media socket", "leg", s.label, "err", err)
		}
		select {
		case <-s.over:
			return
		case <-time.After(readPause):
		}
	}
}

// packet handles one RTP datagram: judge, tap, relay. in and out belong to the
// calling reader.
func (s *portableStream) packet(b []byte, from netip.AddrPort, in *inbound, out []byte) {
	at := s.engine.now()
	var sink *portableStream
	s.mu.Lock()
	if !s.closed && s.flow.receive(b, from, at, in) {
		if s.tap != nil {
			s.tap.Put(&in.Packet)
		}
		switch sink = s.sink; {
		case sink == nil:
			s.flow.count.Unclaimed++
		case in.Kind != KindComfortNoise:
			s.relayed++
		}
	}
	news := len(s.flow.events) > 0
	s.mu.Unlock()
	if news {
		s.poke()
	}
	if sink != nil {
		sink.pass(s, in, at, out)
	}
}

// pass sends on a packet that from received, if we still relay it.
func (s *portableStream) pass(from *portableStream, in *inbound, at time.Duration, out []byte) {
	n := 0
	var to netip.AddrPort
	s.mu.Lock()
	if s.from == from && !s.closed {
		n = s.flow.forward(in, at, out)
		to, _ = s.flow.rtp.target()
	}
	s.mu.Unlock()
	if n > 0 {
		s.send(out[:n], to, 0)
	}
}
