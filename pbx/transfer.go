package pbx

import (
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// phaseTransfer is the phase of a call whose party is being passed on.
const phaseTransfer = "transfer"

// transferring is the script of a call of which one party, a phone, passes the
// other one on (RFC 5589). It rings the target, and then gives the call back to
// the script that had it: with the target, with the phone again, or with nobody,
// for the queue. The party that is passed on is never dropped: it hears music,
// and if nobody answers it and the phone has hung up, it returns to its queue or
// rings that phone again.
type transferring struct {
	*call
	was    script
	by     *leg      // who passes the other party on
	stays  *leg      // the party that is passed on
	ref    *referral // nil: nobody has asked for news
	ring   *ringing
	number ordinance.Number // of a target outside
	ways   []wayOut         // that are still to be tried
	out    *leg             // the target outside
	recall bool             // it is the phone of by that rings
	toned  bool             // the party that is passed on hears ringback
	// farewell is the closing message, notice what a party outside hears first.
	farewell media.PlayID
	notice   media.PlayID
	why      store.Cause
}

// referred answers a REFER within a dialog of the call (RFC 3515 §2.4).
func (c *call) referred(l *leg, req *sip.Request, tx *sip.ServerTx) {
	end := c.s.end
	t, pending := c.script.(*transferring)
	switch {
	case l.trunk != nil:
		end.reply(req, tx, 403, "Forbidden") // nobody outside moves our calls
		return
	case len(req.GetHeaders("Refer-To")) != 1:
		end.reply(req, tx, 400, "Need exactly one Refer-To") // RFC 3515 §2.4.1
		return
	case pending && (t.by == l || t.stays == l):
		end.reply(req, tx, 491, "Request Pending")
		return
	case pending || !c.talking || l.state != legUp || l != c.a && l != c.b:
		end.reply(req, tx, 603, "Decline")
		return
	}
	to := req.ReferTo().Address
	if m, _ := to.UriParams.Get("method"); m != "" && !strings.EqualFold(m, "INVITE") {
		end.reply(req, tx, 403, "Forbidden") // only calls are passed on
		return
	}
	other, attended, ok := replacesInURI(to)
	if !ok {
		end.reply(req, tx, 400, "Bad Replaces")
		return
	}
	var target route
	if !attended {
		// The rules of the phone's own calls, before anything changes. A 404 would
		// end the phone's dialog (RFC 5057 §5.1); it is told by NOTIFY.
		target = c.s.dialplan().resolve(userOf(to), c.s.isExtension)
		if !c.s.mayPlace(l.ext, target) {
			end.reply(req, tx, 403, "Forbidden")
			return
		}
	}
	end.respond(tx, l.response(req, 202, "Accepted"))
	t = c.pass(l, newReferral(l, req))
	t.ref.tell(100, "Trying", nil)
	if attended {
		t.askFor(other)
	} else {
		t.to(target)
	}
}

// mayPlace applies the rules for calls that ext causes: emergency numbers always,
// others outside only as the dial plan and the limit of calls allow.
func (s *Switch) mayPlace(ext string, r route) bool {
	return r.kind != routeForbidden && (r.kind != routeOutside || s.lines.outgoing(ext) < s.config().Dial.MaxOutgoingPerExtension)
}

// pass interrupts the conversation so that by's other party can be passed on.
// The recording goes on in silence: for the citizen this is a hold.
func (c *call) pass(by *leg, ref *referral) *transferring {
	t := &transferring{call: c, was: c.script, by: by, stays: c.other(by), ref: ref}
	c.script = t
	c.interrupt(by)
	t.music()
	return t
}

// other is who talks to l.
func (c *call) other(l *leg) *leg {
	if l == c.a {
		return c.b
	}
	return c.a
}

// interrupt ends a segment of the conversation. What follows is labelled as a
// hold by the office until the next one begins.
func (c *call) interrupt(by *leg) {
	now := time.Now()
	c.talking = false
	c.phase = phaseTransfer
	if n := len(c.rec.Segments); n > 0 && c.rec.Segments[n-1].To.IsZero() {
		c.rec.Segments[n-1].To = now
	}
	if c.holder == nil {
		if c.recording != nil {
			c.recording.Hold(now, true)
		}
		c.rec.Holds = append(c.rec.Holds, store.Hold{By: "office", From: now})
		c.holder = by
	}
	if by.stream != nil {
		by.stream.SetTap(nil)
		by.stream.Silence()
	}
	c.save()
}

// rejoin begins the next segment of a conversation: of c.a and c.b, one of which
// is office. What is recorded stays one recording; it begins here if only now
// somebody outside takes part.
func (c *call) rejoin(office *leg, ext string, number ordinance.Number) {
	now, called := time.Now(), number
	c.talking = true
	c.phase = phaseTalking
	if c.citizen == nil && office.trunk != nil {
		// An internal call that was passed on to the outside: a call to the outside
		// like any other (Zarz. 284/17 §1 ust. 3).
		c.citizen = office
		ext, number = c.other(office).ext, ""
		c.rec.Direction, c.rec.Called, c.rec.Trunk = store.Outgoing, called, office.trunk.cfg.Name
		if c.recording == nil {
			c.record(now)
		} else if stays := c.other(office); stays.stream != nil {
			stays.stream.SetTap(nil) // it may change its lane
			c.tap(stays)
		}
	}
	if c.recording != nil {
		c.tap(office)
	}
	c.rec.Segments = append(c.rec.Segments, store.Segment{Extension: ext, Number: number, From: now})
	c.save()
	c.rewire()
	c.s.log.Info("conversation goes on", "call", c.rec.ID, "direction", string(c.rec.Direction), "ext", ext)
}

// release ends the part of a phone whose place another leg has taken, after it
// was told so.
func (c *call) release(l *leg, ref *referral) {
	l.held = false
	if l.await != nil {
		l.await.timer.Stop()
		l.await = nil
	}
	l.closeMedia()
	if l.outside && c.citizen != nil {
		c.s.lines.charge(c.citizen, l.ext) // who placed the call answers for it as long as it lasts
	}
	ref.finish(200, "OK", func() { l.hangUp(487, "Request Terminated") })
}

func (t *transferring) music() {
	t.toned = false
	if t.stays.stream != nil {
		t.stays.stream.Play(t.s.music, true)
	}
}

// to rings the target of a blind transfer.
func (t *transferring) to(r route) {
	t.number = r.number
	switch r.kind {
	case routeExtension:
		t.ringExtension(r.ext)
	case routeEmergency, routeOutside:
		t.ways = t.s.waysOut(r.kind == routeEmergency)
		t.nextTrunk(store.CauseUnreachable)
	case routeForbidden:
		t.missed(store.CauseForbidden)
	default:
		t.missed(store.CauseNotFound)
	}
}

func (t *transferring) ringExtension(ext string) {
	t.ring = newRinging(t.call, []offer{t.s.directOffer(ext)}, extensionRing)
	t.ring.start(t.calleeFor)
	t.settleRinging()
}

// calleeFor presents the party that is passed on to a phone, and who does it
// (RFC 3892 §2).
func (t *transferring) calleeFor(b binding) callee {
	host := t.s.domain()
	to := callee{
		uri: b.uri, hop: b.hop, fixed: true, to: sipURI(b.ext, host, 0),
		headers: []sip.Header{sip.NewHeader("Referred-By", "<sip:"+t.by.ext+"@"+host+">")},
	}
	number := t.rec.Caller.Number
	withheld := !t.rec.Caller.Identifiable()
	if t.rec.Direction == store.Outgoing {
		number, withheld = t.rec.Called, false
	}
	switch {
	case t.stays.ext != "":
		to.from, to.fromName = sipURI(t.stays.ext, host, 0), t.s.extensionName(t.stays.ext)
	case withheld:
		to.from, to.fromName = sipURI("anonymous", host, 0), "Numer zastrzeżony"
	default:
		to.from, to.fromName = sipURI(number.E164(), host, 0), number.E164()
	}
	return to
}

// nextTrunk calls the target outside by the next trunk.
func (t *transferring) nextTrunk(cause store.Cause) {
	for len(t.ways) > 0 {
		w := t.ways[0]
		t.ways = t.ways[1:]
		k := w.t
		l := t.newLeg(t.nextLabel())
		l.trunk = k
		k.take()
		if err := l.dial(k.calleeAt(t.number, t.s, w.hop)); err != nil {
			t.s.log.Warn("trunk not called", "call", t.rec.ID, "trunk", k.cfg.Name, "err", err)
			l.ended()
			continue
		}
		t.s.lines.charge(l, t.by.ext)
		t.out = l
		w.patience(l, t.ways)
		return
	}
	t.missed(cause)
}

func (t *transferring) settleRinging() {
	if t.ring == nil || !t.ring.over() {
		return
	}
	cause := t.ring.result()
	t.stopRinging()
	t.missed(cause)
}

func (t *transferring) stopRinging() {
	if t.ring != nil {
		t.ring.cancel()
		t.rec.Rings = append(t.rec.Rings, t.ring.rings()...)
		t.ring = nil
	}
}

func (t *transferring) missed(cause store.Cause) {
	t.failedWith(causes[cause].status, causes[cause].text, cause)
}

// failedWith: the target is not to be had. The phone has its party again if it is
// still there.
func (t *transferring) failedWith(status int, text string, cause store.Cause) {
	t.ref.finish(status, text, nil)
	switch {
	case t.recall:
		t.bidFarewell(cause)
	case t.by.state == legUp:
		t.script = t.was
		t.settle(t.by, t.by)
		t.rejoin(t.by, t.by.ext, "")
	default:
		t.comeBack()
	}
}

// comeBack finds somebody else for a party that was passed on in vain by a phone
// that has hung up: the queue that it came from, else that phone.
func (t *transferring) comeBack() {
	if in, ok := t.was.(*incoming); ok && t.rec.Queue != "" && t.stays == t.a {
		if q := t.s.queue(t.rec.Queue); q != nil {
			t.script = in
			in.b, in.queue, in.phase = nil, q, phaseQueued
			in.music()
			in.rec.BeginStay(q.config().Name, time.Now())
			in.save()
			q.comeBack(in, in.proof)
			return
		}
	}
	t.recall = true
	t.ringExtension(t.by.ext)
}

func (t *transferring) bidFarewell(cause store.Cause) {
	t.why = cause
	if t.stays.stream == nil || t.stays.params.Direction&media.SendOnly == 0 {
		t.call.end(cause, nil)
		return
	}
	t.phase = phaseClosing
	t.farewell = t.stays.stream.Play(t.s.prompts.busy, false)
}

// settle puts l into the place of old.
func (c *call) settle(old, l *leg) {
	if c.a == old {
		c.a = l
	} else {
		c.b = l
	}
}

// done: l has the call.
func (t *transferring) done(l *leg, number ordinance.Number) {
	t.script = t.was
	t.settle(t.by, l)
	t.release(t.by, t.ref)
	t.rejoin(l, l.ext, number)
}

func (t *transferring) ringing(l *leg, status int, _ bool) {
	rings := t.ring != nil && t.ring.has(l)
	if rings {
		t.ring.heard(l)
	}
	if !rings && l != t.out {
		return
	}
	t.ref.tell(180, "Ringing", nil)
	if !t.toned && t.stays.stream != nil {
		t.toned = true
		t.stays.stream.Play(t.s.ringback, true)
	}
}

func (t *transferring) answered(l *leg) {
	switch {
	case t.over || t.farewell != 0:
		l.hangUp(487, "Request Terminated")
	case t.ring != nil && t.ring.has(l):
		_, t.number = t.ring.won(l)
		t.ring = nil
		t.reached(l)
	case l == t.out:
		t.reached(l)
	default:
		l.hangUp(487, "Request Terminated")
	}
}

// reached: l has answered, and somebody outside hears the notice first (S1.4-i).
func (t *transferring) reached(l *leg) {
	if p := t.s.outgoingNotice(); p != nil && l.trunk != nil {
		t.out, t.notice = l, l.stream.Play(p, false)
		return
	}
	t.done(l, t.number)
}

func (t *transferring) failed(l *leg, status, _ int) {
	switch {
	case t.ring != nil && t.ring.has(l):
		t.ring.lost(l, status)
		t.settleRinging()
	case l != t.out || t.over:
	case status == 408 || status >= 500 && status < 600:
		t.out = nil
		t.nextTrunk(causeOf(status)) // another trunk is worth a try (RFC 3263 §4.3)
	default:
		t.out = nil
		t.missed(causeOf(status))
	}
}

func (t *transferring) hungUp(l *leg, q850 int) {
	switch {
	case t.over:
	case l == t.stays:
		if q850 != 0 {
			t.rec.Q850 = q850
		}
		t.stopRinging()
		cause := store.CauseHangupCalled
		if l == t.a {
			cause = store.CauseHangupCaller
		}
		t.call.end(cause, l)
	case l == t.by:
		// The phone leaves early. That ends its part, not the call (RFC 5589 §6.1).
		l.held = false
	case l == t.out:
		t.out = nil
		t.missed(store.CauseUnreachable) // during the notice
	}
}

func (t *transferring) played(l *leg, p media.Played) {
	switch {
	case l == t.stays && t.farewell != 0 && p.Play == t.farewell:
		t.call.end(t.why, nil)
	case l == t.out && t.notice != 0 && p.Play == t.notice:
		t.notice = 0
		t.done(l, t.number)
	}
}

func (t *transferring) noAck(l *leg) {
	if l == t.stays {
		t.stopRinging()
		t.call.end(store.CauseNoAck, nil)
		return
	}
	l.hangUp(408, "Request Timeout")
	t.hungUp(l, 0)
}

func (t *transferring) mediaFailed(l *leg) {
	if l == t.stays {
		t.stopRinging()
		t.call.end(store.CauseNotAcceptable, nil)
		return
	}
	l.hangUp(488, "Not Acceptable Here")
	t.hungUp(l, 0)
}

func (t *transferring) mediaTimedOut(l *leg) {
	if l == t.stays {
		t.stopRinging()
		t.call.end(store.CauseMediaTimeout, nil)
	}
}

func (t *transferring) confirmed(*leg)    {}
func (t *transferring) cancelled(*leg)    {}
func (t *transferring) mediaChanged(*leg) {}
