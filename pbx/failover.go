package pbx

import (
	"time"
)

// routePatience is how long a trunk's server may leave our INVITE without any
// response while there is another way: an agent does not wait the 32 s of timer
// B (RFC 3261 §17.1.1.2). It lets four transmissions pass.
const routePatience = 5 * time.Second

// routeSilent is the end of that patience.
type routeSilent struct {
	l *leg
	r wayOut
}

// patience ends the wait for l's first response in time, if there are other
// ways.
func (w wayOut) patience(l *leg, others []wayOut) {
	if len(others) > 0 {
		time.AfterFunc(routePatience, func() { l.post(routeSilent{l, w}) })
	}
}

func (ev routeSilent) of() *leg { return ev.l }

func (ev routeSilent) on(c *call) {
	l := ev.l
	if c.over || l.provisional || l.state != legInviting {
		return
	}
	ev.r.t.suspect(ev.r.hop)
	// A 2xx that comes yet is acknowledged and ended; until then the leg waits
	// for the end of its transaction (RFC 3261 §9.1).
	l.hangUp(487, "Request Terminated")
	c.script.failed(l, 408, 0)
}

// trunksFor lists the trunks in the order in which they are tried; emergency
// calls are never held back by a limit.
func (s *Switch) trunksFor(emergency bool) []*trunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	var up, down []*trunk
	for _, t := range s.trunks {
		full := t.cfg.MaxCalls > 0 && t.calls.Load() >= int64(t.cfg.MaxCalls)
		switch {
		case full && !emergency:
		case t.alive():
			up = append(up, t.trunk)
		default:
			down = append(down, t.trunk)
		}
	}
	return append(up, down...)
}

// waysOut lists every way to place a call: first the servers that answer,
// trunk by trunk, then the others, for a probe may be wrong.
func (s *Switch) waysOut(emergency bool) []wayOut {
	var up, down []wayOut
	for _, t := range s.trunksFor(emergency) {
		answering, silent, err := t.hops()
		if err != nil {
			s.log.Warn("trunk not usable", "trunk", t.cfg.Name, "err", err)
			continue
		}
		for _, h := range answering {
			up = append(up, wayOut{t, h})
		}
		for _, h := range silent {
			down = append(down, wayOut{t, h})
		}
	}
	return append(up, down...)
}
