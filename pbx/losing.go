package pbx

import "centralka/store"

// A party can be lost without having hung up: its ACK never comes, its voice stays
// away, its description cannot be used, its session is not refreshed. If it is the
// citizen, or nobody is left who could be one, the call is over. If it is the
// office's side of a conversation, the citizen is not dropped for the office's
// fault: the conversation is interrupted as by a transfer, the recording goes on,
// and somebody else is found (see transferring.comeBack).

// spare ends the part of l, which is lost for cause, and keeps the citizen that
// talks to it. It reports false if that is not so.
func (c *call) spare(l *leg, cause store.Cause) bool {
	if c.over || !c.talking || c.citizen == nil || l == c.citizen || l != c.a && l != c.b {
		return false
	}
	c.s.log.Info("party lost, the citizen stays", "call", c.rec.ID, "leg", l.label, "ext", l.ext, "cause", string(cause))
	t := c.pass(l, nil)
	t.fault = cause
	l.held, t.stays.muted = false, false // by a hold that nobody can end any more
	t.stays.apply()
	l.hangUp(408, "Request Timeout")
	t.comeBack()
	return true
}

// comeBack lets the caller wait in front of everybody in the queue that it came
// from, and not for the agent who was lost just now. It reports false if there is
// no such queue.
func (c *incoming) comeBack(lost string) bool {
	q := c.s.queue(c.rec.Queue)
	if q == nil {
		return false
	}
	c.b, c.phase = nil, phaseQueued
	if c.s.draining.Load() {
		c.turnAway()
		return true
	}
	c.stand(q)
	q.comeBack(c, c.proof, lost)
	return true
}

func (c *incoming) lose(l *leg, cause store.Cause) {
	switch {
	case c.ring != nil && c.ring.has(l):
		// One that rings owes nobody any voice, whatever its 180 says.
	case c.over || c.lostInPrelude(l) || c.spare(l, cause):
	case l == c.a || l == c.b:
		c.leaveQueue()
		c.stopRinging()
		c.end(cause, nil)
	default: // one whose place another has taken
		l.hangUp(408, "Request Timeout")
	}
}

func (c *incoming) noAck(l *leg)          { c.lose(l, store.CauseNoAck) }
func (c *incoming) mediaFailed(l *leg)    { c.lose(l, store.CauseNotAcceptable) }
func (c *incoming) mediaTimedOut(l *leg)  { c.lose(l, store.CauseMediaTimeout) }
func (c *incoming) sessionExpired(l *leg) { c.lose(l, store.CauseSessionExpired) }

func (c *dialled) lose(l *leg, cause store.Cause) {
	switch {
	case c.over || c.spare(l, cause):
	case l == c.a || l == c.b:
		c.stopRinging()
		c.end(cause, nil)
	default:
		l.hangUp(408, "Request Timeout")
	}
}

func (c *dialled) noAck(l *leg)          { c.lose(l, store.CauseNoAck) }
func (c *dialled) mediaFailed(l *leg)    { c.lose(l, store.CauseNotAcceptable) }
func (c *dialled) sessionExpired(l *leg) { c.lose(l, store.CauseSessionExpired) }

func (c *dialled) mediaTimedOut(l *leg) {
	if c.talking { // a phone may be silent while the far end rings
		c.lose(l, store.CauseMediaTimeout)
	}
}
