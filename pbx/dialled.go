package pbx

import (
	"errors"
	"github.com/emiago/sipgo/sip"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// dialled is a call that a desk phone places: to another extension, or through
// a trunk, in which case it is recorded as outgoing.
type dialled struct {
	*call
	dialled  string
	answer   []byte   // our SDP answer to it, once given
	routes   []wayOut // ways that were not tried yet
	ring     *ringing
	notice   media.PlayID // announcement to the called party (S1.4-i)
	noticing bool
	early    bool // the phone hears the trunk's early media
	toned    bool // the phone hears ringback from us
}

// acceptPhoneInvite begins the call of an INVITE from a phone that has proved
// who it is.
func (s *Switch) acceptPhoneInvite(req *sip.Request, tx *sip.ServerTx, ext string, h hop) {
	c := s.newCall(store.CallRecord{
		Direction: store.Internal,
		Extension: ext,
		Caller:    store.Party{Raw: ext, Source: "From", Presentation: "allowed"},
	})
	out := &dialled{call: c, dialled: userOf(req.Recipient)}
	c.script = out
	a := c.newLeg("a")
	a.ext = ext
	c.a = a
	s.begin(c, a, req, tx, h, true, func() { out.start(req) })
}

func (c *dialled) start(req *sip.Request) {
	c.phase = phaseSetup
	a := c.a
	route := c.s.dialplan().resolve(c.dialled, c.s.isExtension)
	if n, ok := ordinance.ParseNumber(c.dialled); ok {
		c.rec.Called = n
	}
	switch route.kind {
	case routeEmergency, routeOutside:
		c.rec.Direction = store.Outgoing
		c.rec.Called = route.number
	}
	c.save()
	a.outside = c.rec.Direction == store.Outgoing
	c.s.lines.add(a)
	switch {
	case c.s.draining.Load() && route.kind != routeEmergency:
		c.end(store.CauseShutdown, nil)
		return
	case route.kind != routeEmergency && c.s.overloaded():
		c.end(store.CauseOverload, nil)
		return
	case route.kind == routeNotFound:
		c.end(store.CauseNotFound, nil)
		return
	case route.kind == routeForbidden:
		c.end(store.CauseForbidden, nil)
		return
	case route.kind == routeOutside && c.s.lines.outgoing(a.ext) > c.s.config().Dial.MaxOutgoingPerExtension:
		c.end(store.CauseForbidden, nil)
		return
	case route.kind == routeOutside && c.s.unrecordable() != nil:
		c.end(store.CauseOverload, nil)
		return
	}
	body, status, _ := sdpBody(req)
	if status != 0 {
		c.rec.SIPStatus = status
		c.end(store.CauseNotAcceptable, nil)
		return
	}
	if err := a.openMedia(); errors.Is(err, errNoSRTP) {
		c.end(store.CauseNotAcceptable, nil)
		return
	} else if err != nil {
		c.s.log.Warn("outgoing call refused", "call", c.rec.ID, "err", err)
		c.end(store.CauseOverload, nil)
		return
	}
	if len(body) > 0 {
		// Said now, so that a phone without a common codec costs nobody a call.
		answer, err := a.takeOffer(body)
		if err != nil {
			c.s.log.Info("offer of a phone refused", "call", c.rec.ID, "ext", a.ext, "err", err)
			c.end(store.CauseNotAcceptable, nil)
			return
		}
		c.answer = answer
	}
	c.phase = phaseRinging
	if route.kind == routeExtension {
		c.ringExtension(route.ext)
		return
	}
	c.routes = c.s.waysOut(route.kind == routeEmergency)
	c.nextTrunk(store.CauseUnreachable)
}

// nextTrunk tries the next way out, or ends the call with cause.
func (c *dialled) nextTrunk(cause store.Cause) {
	for len(c.routes) > 0 {
		r := c.routes[0]
		c.routes = c.routes[1:]
		l := c.newLeg(c.nextLabel())
		l.trunk = r.t
		c.early = false
		r.t.take()
		if err := l.dial(r.t.calleeAt(c.rec.Called, c.s, r.hop)); err != nil {
			c.s.log.Warn("trunk not called", "call", c.rec.ID, "trunk", r.t.cfg.Name, "err", err)
			l.ended()
			continue
		}
		c.rec.Trunk = r.t.cfg.Name
		c.b, c.citizen = l, l
		r.patience(l, c.routes)
		return
	}
	c.end(cause, nil)
}

func (c *dialled) ringExtension(ext string) {
	c.ring = newRinging(c.call, []offer{c.s.directOffer(ext)}, extensionRing)
	c.ring.start(func(b binding) callee {
		host := c.s.domain()
		return callee{uri: b.uri, hop: b.hop, fixed: true, to: sipURI(ext, host, 0), from: sipURI(c.a.ext, host, 0), fromName: c.s.extensionName(c.a.ext)}
	})
	c.settleRinging()
}

func (c *dialled) settleRinging() {
	if c.ring == nil || !c.ring.over() {
		return
	}
	cause := c.ring.result()
	c.rec.Rings = append(c.rec.Rings, c.ring.rings()...)
	c.ring.close()
	c.ring = nil
	c.end(cause, nil)
}

func (c *dialled) ringing(l *leg, status int, sdp bool) {
	switch {
	case c.ring != nil && c.ring.has(l):
		c.ring.heard(l)
		if status == 180 || status == 183 {
			c.a.progress(180, "Ringing", nil)
		}
	case l == c.b && sdp && c.answer != nil:
		// Early media of the far end: the phone hears it (RFC 3960 §3.1).
		if !c.early {
			c.early = true
			c.a.stream.Relay(l.stream)
		}
		c.a.progress(183, "Session Progress", c.answer)
	case l != c.b || c.early || c.toned:
	case status == 180 || c.answer == nil:
		c.a.progress(180, "Ringing", nil)
	default:
		// 181, 182 or 183, and nothing to hear: the phone would be silent, for it
		// sounds ringback of its own only at 180 (RFC 3960 §3.2).
		c.toned = true
		c.a.stream.Play(c.s.ringback, true)
		c.a.progress(183, "Session Progress", c.answer)
	}
}

func (c *dialled) answered(l *leg) {
	switch {
	case c.over:
		l.hangUp(487, "Request Terminated")
		return
	case c.ring != nil && c.ring.has(l):
		_, number := c.ring.won(l)
		c.ring = nil
		c.b = l
		if number != "" {
			// The extension has forwarded it: a call to the outside like any other
			// (Zarz. 284/17 §1 ust. 3).
			c.citizen = l
			c.rec.Direction, c.rec.Called, c.rec.Trunk = store.Outgoing, number, l.trunk.cfg.Name
		}
	case l != c.b:
		l.hangUp(487, "Request Terminated")
		return
	}
	c.meet(l)
}

// meet joins the phone that has dialled with l, which has answered.
func (c *dialled) meet(l *leg) {
	c.rec.SIPStatus, c.rec.Q850 = 0, 0 // those of a trunk that failed before
	// The phone is answered now; what it says is recorded from the same instant.
	if c.a.state == legInviting {
		if c.answer != nil {
			c.a.answer(c.answer, false)
		} else {
			c.a.answer(c.a.neg.offer(media.SendRecv), true)
		}
	}
	if p := c.s.outgoingNotice(); p != nil && c.citizen != nil {
		c.noticing = true
		c.notice = l.stream.Play(p, false)
		return
	}
	c.connect()
}

func (c *dialled) connect() {
	c.converse(c.b, c.a.ext, "")
}

func (c *dialled) played(l *leg, p media.Played) {
	if c.noticing && l == c.b && p.Play == c.notice {
		c.noticing = false
		c.connect()
	}
}

func (c *dialled) failed(l *leg, status, cause int) {
	if c.ring != nil && c.ring.has(l) {
		c.ring.lost(l, status)
		c.settleRinging()
		return
	}
	if l != c.b || c.over {
		return
	}
	c.rec.SIPStatus, c.rec.Q850 = status, cause
	// Another trunk is worth a try only if this one is out of order
	// (RFC 3263 §4.3): not when the called party is busy or does not exist.
	if status == 408 || status >= 500 && status < 600 {
		c.nextTrunk(causeOf(status))
		return
	}
	c.end(causeOf(status), nil)
}

func (c *dialled) hungUp(l *leg, q850 int) {
	if c.over || l != c.a && l != c.b {
		return
	}
	if q850 != 0 {
		c.rec.Q850 = q850
	}
	switch {
	case !c.talking && !c.noticing:
		c.stopRinging()
		c.end(store.CauseCancelled, l)
	case l == c.a:
		c.end(store.CauseHangupCaller, l)
	default:
		c.end(store.CauseHangupCalled, l)
	}
}

func (c *dialled) stopRinging() {
	if c.ring == nil {
		return
	}
	c.ring.cancel()
	c.rec.Rings = append(c.rec.Rings, c.ring.rings()...)
	c.ring = nil
}

func (c *dialled) cancelled(l *leg) {
	c.stopRinging()
	c.end(store.CauseCancelled, l)
}

func (c *dialled) confirmed(l *leg)    { c.rewire() }
func (c *dialled) noAck(l *leg)        { c.stopRinging(); c.end(store.CauseNoAck, nil) }
func (c *dialled) mediaChanged(l *leg) { c.rewire() }
func (c *dialled) mediaFailed(l *leg)  { c.stopRinging(); c.end(store.CauseNotAcceptable, nil) }

func (c *dialled) mediaTimedOut(l *leg) {
	if !c.talking {
		return // a phone may be silent while the far end rings
	}
	c.end(store.CauseMediaTimeout, nil)
}
