//go:build amd64 || arm64

package media

import (
	"net/netip"
	"time"
)

// loopStream is a Stream of the loop engine.
type loopStream struct {
	engine    *loopEngine
	label     string
	notify    func(Event)
	port      uint16
	rtp, rtcp udpSocket

	// Under the engine's mu: what callers know. from is whom we relay, sink is
	// who relays us; both are on our loop.
	loop       *loop
	closed     bool
	plays      PlayID
	from, sink *loopStream

	// The loop's.
	flow    flow
	tap     *Tap
	listens *loopStream // who relays us
	relayed uint64
	to      netip.AddrPort // what target is
	target  sockaddr
	wake    time.Duration // when its time is kept, if it has a seat
	seat    int           // its place in the loop's heap, or nowhere
	failing bool          // the last read failed

	ended chan struct{} // closed by the loop when it has let go
	final StreamStats   // then written
}

// LocalPort implements Stream.
func (s *loopStream) LocalPort() uint16 { return s.port }

// order sends an order to the loop of a stream that is not closed; what follows
// from it is seen to. The caller holds the engine's mu.
func (s *loopStream) order(f func(at time.Duration)) {
	if s.closed {
		return
	}
	s.loop.post(func(l *loop, at time.Duration) {
		f(at)
		l.announce(s)
		l.schedule(s)
	})
}

// Configure implements Stream.
func (s *loopStream) Configure(p Params) {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	s.order(func(at time.Duration) { s.flow.configure(p, at) })
}

// Play implements Stream. Prompts are counted here as the flow will count them,
// so that the loop need not be waited for.
func (s *loopStream) Play(p *Prompt, loop bool) PlayID {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	if s.closed {
		return 0
	}
	s.unlink()
	s.plays++
	s.order(func(at time.Duration) { s.flow.playPrompt(p, loop, at) })
	return s.plays
}

// Relay implements Stream. A stream of another engine cannot be relayed; that
// is logged, and nothing is sent.
func (s *loopStream) Relay(from Stream) {
	e := s.engine
	src, ok := from.(*loopStream)
	if !ok || src == nil || src.engine != e {
		e.log.Error("relay from a stream of another engine", "leg", s.label)
		s.Silence()
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.from == src || s.closed {
		return
	}
	s.unlink()
	if src.closed {
		s.order(s.flow.silence)
		return
	}
	if other := src.sink; other != nil {
		other.unlink()
		other.order(other.flow.silence)
	}
	e.bring(s, src.loop)
	s.from, src.sink = src, s
	s.order(func(at time.Duration) {
		src.listens = s
		s.flow.relayFrom(at)
	})
}

// unlink ends the relation to the stream that is relayed. The caller holds the
// engine's mu.
func (s *loopStream) unlink() {
	src := s.from
	if src == nil {
		return
	}
	s.from, src.sink = nil, nil
	src.order(func(time.Duration) { src.listens = nil })
}

// Silence implements Stream.
func (s *loopStream) Silence() {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	s.unlink()
	s.order(s.flow.silence)
}

// SetTap implements Stream. It waits one turn of the loop, which is what makes
// its promise hold.
func (s *loopStream) SetTap(t *Tap) {
	obeyed := make(chan struct{})
	s.engine.mu.Lock()
	if s.closed {
		s.engine.mu.Unlock()
		<-s.ended
		return
	}
	s.order(func(time.Duration) {
		s.tap = t
		close(obeyed)
	})
	s.engine.mu.Unlock()
	<-obeyed
}

// Stats implements Stream. It waits one turn of the loop.
func (s *loopStream) Stats() StreamStats {
	now := make(chan StreamStats, 1)
	s.engine.mu.Lock()
	if s.closed {
		s.engine.mu.Unlock()
		<-s.ended
		return s.final
	}
	s.loop.post(func(*loop, time.Duration) { now <- s.stats() })
	s.engine.mu.Unlock()
	return <-now
}

// stats are the counts so far. Called by the loop.
func (s *loopStream) stats() StreamStats {
	stats := s.flow.stats()
	stats.Relayed = s.relayed
	return stats
}

// Close implements Stream. The sockets are closed by the clerk.
func (s *loopStream) Close() {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	if s.closed {
		return
	}
	s.unlink()
	if sink := s.sink; sink != nil {
		sink.unlink()
		sink.order(sink.flow.silence)
	}
	s.closed = true
	s.loop.post(func(l *loop, at time.Duration) { l.end(s, at) })
}
