package pbx

import (
	"errors"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// The phases of a call, for the status page.
const (
	phaseSetup    = "setup"
	phaseAnnounce = "announcement"
	phaseQueued   = "queue"
	phaseRinging  = "ringing"
	phaseTalking  = "talking"
	phaseClosing  = "closing message"
	phaseEnding   = "ending"
	extensionRing = 45 * time.Second // how long an extension rings that was called directly
)

// incoming is a call from a trunk: announcement, then queue or extension, then
// conversation.
type incoming struct {
	*call
	number    NumberConfig
	announce  announcing
	proof     announced
	proven    bool
	queue     *queue // in which it waits, or from which it is offered
	overflows int
	ring      *ringing
	toned     bool         // the caller hears ringback instead of music
	prelude   *prelude     // what somebody hears who has answered; nil: nobody, or it is over
	farewell  media.PlayID // closing message being played; the call ends after it
	why       store.Cause  // with which the closing message ends the call
}

// start answers the INVITE: Trying was sent, the trunk is known. It runs on the
// call's goroutine.
func (c *incoming) start(req *sip.Request, tx *sip.ServerTx, a *leg) {
	c.phase = phaseSetup
	c.save()
	reject := func(cause store.Cause) { c.end(cause, nil) }

	number, ok := c.s.number(c.rec.Called)
	if !ok {
		reject(store.CauseNotFound)
		return
	}
	c.number = number
	if name, ok := strings.CutPrefix(number.Target, "queue:"); ok {
		c.rec.Queue = name // the one it came for, also if it never gets there
	}
	switch {
	case !c.s.Ready(), c.s.overloaded():
		reject(store.CauseOverload)
		return
	case !a.trunk.admit():
		c.rec.SIPStatus = 486
		reject(store.CauseOverload)
		return
	}
	a.d.fixed = false
	if err := a.openMedia(); errors.Is(err, errNoSRTP) {
		c.s.log.Info("incoming offer refused", "call", c.rec.ID, "err", err)
		reject(store.CauseNotAcceptable)
		return
	} else if err != nil {
		c.s.log.Warn("incoming call refused", "call", c.rec.ID, "err", err)
		reject(store.CauseOverload)
		return
	}
	c.announce.what = c.s.announcementFor(number)
	body, status, _ := sdpBody(req)
	if status != 0 {
		c.rec.SIPStatus = status
		reject(store.CauseNotAcceptable)
		return
	}
	if len(body) == 0 {
		a.answer(a.neg.offer(media.SendRecv), true) // late offer (RFC 3261 §13.2.1)
	} else {
		answer, err := a.takeOffer(body)
		if err != nil {
			c.s.log.Info("incoming offer refused", "call", c.rec.ID, "err", err)
			reject(store.CauseNotAcceptable)
			return
		}
		a.answer(answer, false)
	}
	c.phase = phaseAnnounce
}

// confirmed: the caller hears us from here on.
func (c *incoming) confirmed(l *leg) {
	switch {
	case l == c.a && !c.proven:
		c.beginAnnouncement()
	case c.prelude != nil && l == c.prelude.l:
		c.whisper()
	}
}

func (c *incoming) beginAnnouncement() {
	c.announce.begin(c.a)
	play := c.announce.play
	c.rec.Announcement = &play
	c.save()
}

func (c *incoming) noAck(l *leg) {
	if c.lostInPrelude(l) {
		return
	}
	c.leaveQueue()
	c.stopRinging()
	c.end(store.CauseNoAck, nil)
}

func (c *incoming) played(l *leg, p media.Played) {
	if c.prelude != nil && l == c.prelude.l && p.Play == c.prelude.id {
		c.connect()
		return
	}
	if l != c.a || c.over {
		return
	}
	if c.farewell != 0 && p.Play == c.farewell {
		c.end(c.why, nil)
		return
	}
	if c.proven || p.Play != c.announce.id {
		return
	}
	proof, ok := c.announce.heard(p)
	play := c.announce.play
	c.rec.Announcement = &play
	if !ok {
		c.save()
		// Broken off: from the beginning, now or when the hold ends.
		if c.a.params.Direction&media.SendOnly != 0 {
			c.beginAnnouncement()
		}
		return
	}
	c.proof, c.proven = proof, true
	c.save()
	c.route(c.number.Target)
}

// drainBegan says that the switch takes no new calls any more: who is with nobody
// yet is told so.
type drainBegan struct{}

func (drainBegan) on(c *call) {
	in, ok := c.script.(*incoming)
	if ok && !c.over && in.proven && !in.talking && in.prelude == nil && in.farewell == 0 {
		in.turnAway()
	}
}

func (c *incoming) turnAway() {
	row := causes[store.CauseShutdown]
	c.stopRinging(reasonHeader("Q.850", row.q850, row.text))
	c.bidFarewell(c.s.prompts.busy, store.CauseShutdown)
}

// route sends an announced caller to "queue:…" or "extension:…".
func (c *incoming) route(target string) {
	if c.s.draining.Load() {
		c.turnAway()
		return
	}
	kind, name, _ := strings.Cut(target, ":")
	switch kind {
	case "queue":
		q := c.s.queue(name)
		if q == nil {
			c.bidFarewell(c.s.prompts.busy, store.CauseNotFound)
			return
		}
		if !c.s.line(q.config()).Open(time.Now()) {
			if len(c.rec.Stays) > 0 { // it waited while its own queue was open
				c.bidFarewell(c.s.prompts.busy, store.CauseQueueTimeout)
				return
			}
			c.bidFarewell(c.s.prompts.closed, store.CauseClosed)
			return
		}
		c.rec.BeginStay(name, time.Now())
		c.queue = q
		c.phase = phaseQueued
		c.save()
		c.music()
		q.enter(c, c.proof)
	case "extension":
		c.music()
		c.ringExtension(name)
	default:
		c.bidFarewell(c.s.prompts.busy, store.CauseNotFound)
	}
}

// music plays hold music to the waiting caller.
func (c *incoming) music() {
	c.toned = false
	if c.a.stream != nil {
		c.a.stream.Play(c.s.music, true)
	}
}

// bidFarewell plays a closing message and then ends the call.
func (c *incoming) bidFarewell(p *media.Prompt, cause store.Cause) {
	c.leaveQueue()
	c.stopRinging()
	c.phase = phaseClosing
	c.why = cause
	if c.a.stream == nil || c.a.params.Direction&media.SendOnly == 0 {
		c.end(cause, nil)
		return
	}
	c.farewell = c.a.stream.Play(p, false)
}

// maxOverflows bounds how often a caller is sent on.
const maxOverflows = 10

// queueOverflowed is said by the queue: it is full, has been closed, or the caller
// has waited too long.
type queueOverflowed struct{ q *queue }

func (ev queueOverflowed) on(c *call) {
	in, ok := c.script.(*incoming)
	if !ok || c.over || in.queue != ev.q || in.talking {
		return
	}
	if in.prelude != nil {
		in.queue = nil // it is answered, and may still come to nothing
		return
	}
	in.stopRinging()
	in.queue = nil
	in.rec.EndStay(time.Now(), store.StayOverflowed)
	// The configuration has no circles, but it may change under a caller.
	if o := ev.q.config().Overflow; o != "" && in.overflows < maxOverflows {
		in.overflows++
		in.route(o)
		return
	}
	in.bidFarewell(c.s.prompts.busy, store.CauseQueueTimeout)
}

// agentOffered is the queue's decision to try these agents now.
type agentOffered struct {
	q      *queue
	offers []offer
}

func (ev agentOffered) on(c *call) {
	in, ok := c.script.(*incoming)
	switch {
	case !ok || c.over || in.queue != ev.q || in.talking || in.prelude != nil || in.farewell != 0:
		for _, o := range ev.offers {
			o.release()
		}
	case in.ring != nil: // ring-all: somebody more has become ready
		in.ring.join(ev.offers)
		in.save()
		in.settleRinging()
	default:
		in.ringAgents(ev.offers, ev.q.config().RingTimeout)
	}
}

// ringAgents calls the phones of the agents that are offered the call. It
// needs the proof that the announcement was heard.
func (c *incoming) ringAgents(offers []offer, timeout time.Duration) {
	if !c.proven {
		panic("an agent was offered a call before its announcement ended")
	}
	c.phase = phaseRinging
	c.ring = newRinging(c.call, offers, timeout)
	c.ring.start(c.calleeFor)
	c.save()
	c.settleRinging()
}

func (c *incoming) ringExtension(ext string) {
	c.ringAgents([]offer{c.s.directOffer(ext)}, extensionRing)
}

// calleeFor presents the citizen's call to a phone.
func (c *incoming) calleeFor(b binding) callee {
	name, user := c.rec.Caller.Number.E164(), c.rec.Caller.Number.E164()
	if !c.rec.Caller.Identifiable() {
		name, user = "Numer zastrzeżony", "anonymous"
	}
	if c.queue != nil {
		name = c.queue.config().Name + " " + name // an agent of several queues sees which one calls
	}
	host := c.s.domain()
	return callee{
		uri: b.uri, hop: b.hop, fixed: true,
		to:       sipURI(b.ext, host, 0),
		from:     sipURI(user, host, 0),
		fromName: name,
	}
}

// ringing: the caller of a queue hears our music meanwhile, whatever the phones
// do; who is put through to an extension hears that its phone rings.
func (c *incoming) ringing(l *leg, _ int, _ bool) {
	if c.ring == nil || !c.ring.has(l) {
		return
	}
	c.ring.heard(l)
	if c.queue == nil && !c.toned && c.a.stream != nil {
		c.toned = true
		c.a.stream.Play(c.s.ringback, true)
	}
}

func (c *incoming) answered(l *leg) {
	if c.ring == nil || !c.ring.has(l) || c.over {
		l.hangUp(487, "Request Terminated")
		return
	}
	ext, number := c.ring.won(l)
	c.meet(l, ext, number)
}

// served: an agent has the call.
func (c *incoming) served() {
	if c.queue != nil {
		c.queue.served(c.call)
		c.queue = nil
	}
	c.rec.EndStay(time.Now(), store.StayAnswered)
}

func (c *incoming) failed(l *leg, status, cause int) {
	if c.ring == nil || !c.ring.has(l) {
		return
	}
	c.ring.lost(l, status)
	c.settleRinging()
}

// settleRinging acts when no phone rings any more: back to the queue, or the
// closing message.
func (c *incoming) settleRinging() {
	if c.ring == nil || !c.ring.over() {
		return
	}
	result := c.ring.result()
	c.rec.Rings = append(c.rec.Rings, c.ring.rings()...)
	c.ring.close()
	c.ring = nil
	c.save()
	if c.queue != nil {
		c.phase = phaseQueued
		c.queue.again(c.call)
		return
	}
	c.bidFarewell(c.s.prompts.busy, result)
}

func (c *incoming) leaveQueue() {
	if c.queue != nil {
		c.queue.leave(c.call)
		c.queue = nil
	}
}

// stopRinging takes back what rings; headers say why.
func (c *incoming) stopRinging(headers ...sip.Header) {
	if c.ring == nil {
		return
	}
	c.ring.cancel(headers...)
	c.rec.Rings = append(c.rec.Rings, c.ring.rings()...)
	c.ring.close()
	c.ring = nil
}

func (c *incoming) hungUp(l *leg, q850 int) {
	if c.over || c.lostInPrelude(l) {
		return
	}
	if q850 != 0 {
		c.rec.Q850 = q850
	}
	switch {
	case l != c.a && l != c.b:
		return
	case c.talking && l == c.a:
		c.end(store.CauseHangupCaller, l)
	case c.talking:
		c.end(store.CauseHangupCalled, l)
	default:
		c.gaveUp(l)
	}
}

// gaveUp is the caller hanging up before the conversation.
func (c *incoming) gaveUp(l *leg) {
	c.leaveQueue()
	c.stopRinging()
	switch {
	case !c.proven:
		c.end(store.CauseAnnouncementHangup, l)
	case c.farewell != 0:
		c.end(c.why, l)
	default:
		c.end(store.CauseAbandoned, l)
	}
}

func (c *incoming) cancelled(l *leg) {
	if l == c.a {
		c.end(store.CauseCancelled, l)
	}
}

func (c *incoming) mediaChanged(l *leg) {
	if l == c.a && !c.proven && !c.announce.on && l.state == legUp && l.params.Direction&media.SendOnly != 0 {
		c.beginAnnouncement()
		return
	}
	if c.prelude != nil && l == c.prelude.l && l.params.Direction&media.SendOnly == 0 {
		c.connect() // on hold it hears nothing; the caller is with somebody now
		return
	}
	c.rewire()
}

func (c *incoming) mediaFailed(l *leg) {
	if c.lostInPrelude(l) {
		return
	}
	c.leaveQueue()
	c.stopRinging()
	c.end(store.CauseNotAcceptable, nil)
}

func (c *incoming) mediaTimedOut(l *leg) {
	if c.lostInPrelude(l) {
		return
	}
	c.leaveQueue()
	c.stopRinging()
	c.end(store.CauseMediaTimeout, nil)
}

// acceptTrunkInvite begins the call of an INVITE from a trunk.
func (s *Switch) acceptTrunkInvite(req *sip.Request, tx *sip.ServerTx, t *trunk, h hop) {
	called, ok := ordinance.ParseNumber(userOf(req.Recipient))
	if !ok {
		called = ""
	}
	c := s.newCall(store.CallRecord{
		Direction: store.Incoming,
		Caller:    callerIdentity(req, true),
		Called:    called,
		Diverted:  divertedFrom(req),
		Trunk:     t.cfg.Name,
	})
	in := &incoming{call: c}
	c.script = in
	a := c.newLeg("a")
	a.trunk = t
	c.a, c.citizen = a, a
	s.begin(c, a, req, tx, h, false, func() { in.start(req, tx, a) })
}

// userOf is the user part of a sip or tel URI, without parameters.
func userOf(u sip.Uri) string {
	user := u.User
	if u.Scheme == "tel" {
		user = u.Raw()
	}
	user, _, _ = strings.Cut(user, ";")
	return user
}
