package pbx

import (
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/ordinance"
	"centralka/store"
)

// offer is a phone that may be tried for a call: an agent reserved by the
// queue, or an extension called directly. Exactly one of accept, decline and
// release ends it.
type offer struct {
	ext     string
	direct  bool                // called for itself, not through a queue
	accept  func()              // the phone answered
	decline func(result string) // it did not
	release func()              // taken back, for no fault of the agent's
}

// ringing is one attempt at one or more extensions, each with all its
// contacts: the first that answers has the call. The call's goroutine owns it.
type ringing struct {
	c     *call
	to    func(b binding) callee
	tries []*try
	timer *time.Timer
	ended bool
}

type try struct {
	offer  offer
	ring   store.Ring
	legs   []*leg // still ringing
	status int    // worst reason so far
	rang   bool   // a phone has said that it rings
	// forwarded is set if another phone has sent the call here.
	forwarded *forwarding
}

// ringTimedOut ends an attempt.
type ringTimedOut struct{ r *ringing }

func (ev ringTimedOut) on(c *call) {
	if ev.r.ended {
		return
	}
	ev.r.timeOut()
	if s, ok := c.script.(interface{ settleRinging() }); ok {
		s.settleRinging()
	}
}

// phonePatience is how long a phone may leave our INVITE without any response: it
// lets four transmissions pass (RFC 3261 §17.1.1.2). The call moves on then; it
// does not wait for the ring timeout of a phone that has lost its power.
const phonePatience = 4 * time.Second

// phoneSilent is the end of that patience.
type phoneSilent struct {
	l *leg
	b binding
}

func (ev phoneSilent) of() *leg { return ev.l }

func (ev phoneSilent) on(c *call) {
	l := ev.l
	if c.over || l.provisional || l.state != legInviting {
		return
	}
	c.s.log.Info("phone does not answer", "call", c.rec.ID, "ext", l.ext)
	c.s.registrar.suspend(ev.b)
	// A 2xx that comes yet is acknowledged and ended; until then the leg waits for
	// the end of its transaction (RFC 3261 §9.1), and nobody is busy with it.
	l.hangUp(487, "Request Terminated")
	c.s.lines.drop(l)
	c.script.failed(l, 408, 0)
}

func newRinging(c *call, offers []offer, timeout time.Duration) *ringing {
	r := &ringing{c: c}
	r.add(offers)
	r.timer = time.AfterFunc(timeout, func() { c.post(ringTimedOut{r}) })
	return r
}

func (r *ringing) add(offers []offer) []*try {
	from, now := len(r.tries), time.Now()
	for _, o := range offers {
		r.tries = append(r.tries, &try{offer: o, ring: store.Ring{Extension: o.ext, From: now}})
	}
	return r.tries[from:]
}

// start sends an INVITE to every contact of every extension.
func (r *ringing) start(to func(b binding) callee) {
	r.to = to
	for _, t := range r.tries {
		r.dial(t)
	}
}

// join lets more phones ring, as long as those that ring already.
func (r *ringing) join(offers []offer) {
	for _, t := range r.add(offers) {
		r.dial(t)
	}
}

// dial sends the INVITEs of one try.
func (r *ringing) dial(t *try) {
	if t.forwarded != nil && t.forwarded.number != "" {
		r.dialOutside(t)
		return
	}
	if r.c.s.engaged(t.offer.ext, r.c) {
		t.finish("busy")
		return
	}
	for _, b := range r.c.s.registrar.reachable(t.offer.ext) {
		l := r.c.newLeg(r.c.nextLabel())
		l.ext = t.offer.ext
		to := r.to(b)
		to.headers = append(to.headers, t.forwarded.toPhone(r.c.s.domain())...)
		if err := l.dial(to); err != nil {
			r.c.s.log.Warn("phone not called", "call", r.c.rec.ID, "ext", l.ext, "err", err)
			l.ended()
			continue
		}
		r.c.s.lines.add(l)
		t.legs = append(t.legs, l)
		time.AfterFunc(phonePatience, func() { l.post(phoneSilent{l, b}) })
	}
	if len(t.legs) == 0 {
		t.finish("unreachable")
	}
}

func (t *try) finish(result string) {
	if t.ring.Result != "" {
		return
	}
	t.ring.To, t.ring.Result = time.Now(), result
	switch result {
	case "answered":
		t.offer.accept()
	case "cancelled":
		t.offer.release()
	default:
		t.offer.decline(result)
	}
}

func (r *ringing) find(l *leg) *try {
	for _, t := range r.tries {
		for _, m := range t.legs {
			if m == l {
				return t
			}
		}
	}
	return nil
}

func (r *ringing) has(l *leg) bool { return r.find(l) != nil }

// won ends the attempt in l's favour and returns who answered: an extension, or
// a number outside that one has forwarded the call to. All others are cancelled as
// answered elsewhere (RFC 3326 §3.1).
func (r *ringing) won(l *leg) (ext string, number ordinance.Number) {
	winner := r.find(l)
	winner.finish("answered")
	r.stop(func(m *leg) bool { return m != l }, "cancelled", reasonHeader("SIP", 200, "Call completed elsewhere"))
	r.c.rec.Rings = append(r.c.rec.Rings, r.rings()...)
	return winner.offer.ext, winner.ring.Number
}

// heard notes that l rings.
func (r *ringing) heard(l *leg) { r.find(l).rang = true }

// lost notes that l was refused.
func (r *ringing) lost(l *leg, status int) {
	t := r.find(l)
	t.status = status
	for i, m := range t.legs {
		if m == l {
			t.legs = append(t.legs[:i], t.legs[i+1:]...)
			break
		}
	}
	switch {
	case len(l.moved) > 0:
		r.forward(t, l.moved)
		return
	case t.forwarded.another(status):
		r.dialOutside(t)
		return
	}
	if len(t.legs) == 0 {
		t.finish(ringResult(t.status))
	}
}

// ringResult reads a phone's refusal: 5xx and the like say nothing of its user.
func ringResult(status int) string {
	switch {
	case status == 486 || status == 600:
		return "busy"
	case status == 404 || status == 408 || status == 410 || status == 480 || status/100 == 5:
		return "unreachable"
	}
	return "declined"
}

func (r *ringing) timeOut() { r.stop(func(*leg) bool { return true }, "timeout") }

// cancel takes the call back from all phones; headers say why.
func (r *ringing) cancel(headers ...sip.Header) {
	r.stop(func(*leg) bool { return true }, "cancelled", headers...)
}

func (r *ringing) stop(which func(*leg) bool, result string, headers ...sip.Header) {
	for _, t := range r.tries {
		for _, l := range t.legs {
			if which(l) {
				l.hangUp(487, "Request Terminated", headers...)
			}
		}
		t.finish(result) // nothing if it has a result
	}
	r.close()
}

// over reports whether no phone rings any more.
func (r *ringing) over() bool {
	for _, t := range r.tries {
		if t.ring.Result == "" {
			return false
		}
	}
	return true
}

func (r *ringing) close() {
	r.ended = true
	r.timer.Stop()
}

func (r *ringing) rings() []store.Ring {
	var out []store.Ring
	for _, t := range r.tries {
		out = append(out, t.ring)
	}
	return out
}

// result is the cause with which a call ends that nobody took.
func (r *ringing) result() store.Cause {
	for i := range r.tries {
		// Where a call was forwarded to tells more than what forwarded it.
		switch r.tries[len(r.tries)-1-i].ring.Result {
		case "busy":
			return store.CauseBusy
		case "timeout":
			return store.CauseNoAnswer
		case "declined":
			return store.CauseDeclined
		}
	}
	return store.CauseUnreachable
}
