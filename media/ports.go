package media

import (
	"fmt"
	"time"
)

// ports hands out port pairs, the longest unused first. A pair that comes back
// rests before it is used again, so that what is still on its way to an old
// call never reaches a new one. The engine owns it.
type ports struct {
	drain   time.Duration
	free    []uint16 // RTP ports, longest unused first
	resting []rest   // in the order in which they become free
}

type rest struct {
	port  uint16
	until time.Duration
}

// newPorts makes the pairs of an even and the next odd port in [low, high].
func newPorts(low, high uint16, drain time.Duration) (ports, error) {
	p := ports{drain: drain}
	for port := int(low) + int(low)%2; port+1 <= int(high); port += 2 {
		if port != 0 {
			p.free = append(p.free, uint16(port))
		}
	}
	if len(p.free) == 0 {
		return p, fmt.Errorf("port range %d-%d holds no pair of an even and an odd port", low, high)
	}
	return p, nil
}

// take returns the RTP port of a pair; false if there is none.
func (p *ports) take(at time.Duration) (uint16, bool) {
	p.wake(at)
	if len(p.free) == 0 {
		return 0, false
	}
	port := p.free[0]
	p.free = p.free[1:]
	return port, true
}

// skip puts back a pair that could not be opened; the others come first.
func (p *ports) skip(port uint16) { p.free = append(p.free, port) }

// release puts back a pair that was used.
func (p *ports) release(port uint16, at time.Duration) {
	p.resting = append(p.resting, rest{port, at + p.drain})
}

// draining counts the pairs that rest.
func (p *ports) draining(at time.Duration) int {
	p.wake(at)
	return len(p.resting)
}

// wake ends the rest of those that have rested.
func (p *ports) wake(at time.Duration) {
	n := 0
	for n < len(p.resting) && p.resting[n].until <= at {
		p.free = append(p.free, p.resting[n].port)
		n++
	}
	p.resting = p.resting[n:]
}
