package pbx

import (
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// phaseWhisper is the phase of a call that somebody has answered and that waits
// for the end of what that one hears first.
const phaseWhisper = "whisper"

// prelude is what somebody hears who has answered a citizen's call, before the
// two are bridged: an agent the name of the queue, somebody outside the notice of
// outgoing calls (S1.4-i). The caller hears music, or ringback, on; the recording
// begins at the bridge and not before (S1.3-l). If the one who has answered hangs
// up in it, the caller has lost nothing: the queue offers the call to the next.
type prelude struct {
	l      *leg
	ext    string           // of an agent
	number ordinance.Number // of somebody outside
	prompt *media.Prompt
	id     media.PlayID // 0: not begun
}

// meet is l having answered.
func (c *incoming) meet(l *leg, ext string, number ordinance.Number) {
	c.ring = nil
	c.prelude = &prelude{l: l, ext: ext, number: number}
	switch {
	case number != "":
		c.prelude.prompt = c.s.outgoingNotice()
	case c.queue != nil:
		c.prelude.prompt = c.s.config().whispers[c.queue.config().Whisper]
	}
	if c.telling.id != 0 {
		c.music() // an answer cuts every message short
	}
	if c.prelude.prompt == nil {
		c.connect()
		return
	}
	c.phase = phaseWhisper
	c.save()
	if l.state == legUp {
		c.whisper()
	}
}

// whisper plays the prelude, to a leg that is confirmed. Who cannot hear it has it
// skipped.
func (c *incoming) whisper() {
	p := c.prelude
	switch {
	case p.id != 0:
	case p.l.stream == nil || p.l.params.Direction&media.SendOnly == 0:
		c.connect()
	default:
		p.id = p.l.stream.Play(p.prompt, false)
	}
}

// connect ends the prelude with the conversation.
func (c *incoming) connect() {
	p := c.prelude
	c.prelude = nil
	c.served()
	c.converse(p.l, p.ext, p.number)
}

// lostInPrelude finds somebody else for the caller, if l is who has answered and
// is lost before the conversation. It reports whether it is.
func (c *incoming) lostInPrelude(l *leg) bool {
	p := c.prelude
	if p == nil || p.l != l || c.over {
		return false
	}
	c.prelude = nil
	l.hangUp(480, "Temporarily Unavailable")
	switch q := c.queue; {
	case q != nil:
		c.phase = phaseQueued
		c.save()
		q.lost(c.call, p.ext)
	case c.rec.Queue != "" && p.number == "":
		c.rec.EndStay(time.Now(), store.StayOverflowed) // the queue was closed by a reload
		c.route("queue:" + c.rec.Queue)
	default:
		c.bidFarewell(c.s.prompts.busy, store.CauseUnreachable)
	}
	return true
}
