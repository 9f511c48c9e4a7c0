package pbx

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
)

// A phone takes over a call that rings at another, or one of its own extension's
// conversations: by INVITE with Replaces (RFC 3891), as a lamp key sends it, or
// by dialling a code:
//
//	*8      the call that has rung longest at any other phone of the office
//	**101   the call that rings at extension 101
//
// The INVITE makes no call of its own: its leg joins the call that it takes over.

const (
	codePickup         = "*8"
	codePickupDirected = "**"
)

// pickupCode reads a pickup code; of is the extension, empty for any.
func pickupCode(dialled string, isExtension func(string) bool) (ok bool, of string) {
	if d, err := url.PathUnescape(dialled); err == nil {
		dialled = d
	}
	if dialled == codePickup {
		return true, ""
	}
	of, ok = strings.CutPrefix(dialled, codePickupDirected)
	return ok && isExtension(of), of
}

// lamp is the part of one phone in a call, for those who watch it. It is a copy
// that the call publishes after every event.
type lamp struct {
	l      *leg
	ext    string
	id     dialogID
	remote string // the phone's tag
	early  bool   // not answered yet
	placed bool   // the phone has placed the call; else it is called
	since  time.Time
}

func (c *call) publishLamps() {
	var now []lamp
	old := c.lamps.Load()
	for _, l := range c.legs {
		if l.ext == "" || l.state != legInviting && l.state != legAnswered && l.state != legUp {
			continue
		}
		m := lamp{l: l, ext: l.ext, id: l.d.id, remote: l.d.remoteTag, early: l.state == legInviting, placed: l.inviteTx != nil, since: time.Now()}
		if old != nil {
			for _, o := range *old {
				if o.l == l && o.early == m.early {
					m.since = o.since
				}
			}
		}
		now = append(now, m)
	}
	if old == nil && now == nil || old != nil && slices.Equal(*old, now) {
		return
	}
	c.lamps.Store(&now)
	c.s.lampBoard.box.post(lampsChanged{})
}

// ringingAt finds the leg that has rung longest at extension of, or at any but
// not; nil if none rings.
func (s *Switch) ringingAt(of, not string) *leg {
	var best lamp
	for _, c := range s.snapshotCalls() {
		lamps := c.lamps.Load()
		if lamps == nil {
			continue
		}
		for _, m := range *lamps {
			if m.early && !m.placed && (of == "" && m.ext != not || m.ext == of) && (best.l == nil || m.since.Before(best.since)) {
				best = m
			}
		}
	}
	return best.l
}

// servePickup answers a phone that has dialled a pickup code.
func (s *Switch) servePickup(req *sip.Request, tx *sip.ServerTx, ext string, h hop, of string) {
	old := s.ringingAt(of, ext)
	if old == nil {
		s.end.reply(req, tx, 480, "Nothing To Pick Up")
		return
	}
	s.join(req, tx, h, legCame{l: newLeg(old.home.Load(), ""), old: old, ext: ext, otherwise: 480})
}

// serveReplaces answers an INVITE with Replaces from a phone (RFC 3891 §3).
func (s *Switch) serveReplaces(req *sip.Request, tx *sip.ServerTx, ext string, h hop, fields []sip.Header) {
	r, ok := parseReplaces(fields[0].Value())
	if !ok || len(fields) > 1 {
		s.end.reply(req, tx, 400, "Bad Replaces")
		return
	}
	if len(s.registrar.reachable(ext)) == 0 {
		s.end.reply(req, tx, 403, "Forbidden")
		return
	}
	old := s.replaced(r)
	if old == nil {
		s.end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	s.join(req, tx, h, legCame{l: newLeg(old.home.Load(), ""), old: old, ext: ext, fromTag: r.fromTag, earlyOnly: r.earlyOnly, otherwise: 481})
}

// join lets the leg of a phone's INVITE come into a call that there is already.
func (s *Switch) join(req *sip.Request, tx *sip.ServerTx, h hop, ev legCame) {
	ev.l.ext = ev.ext
	if s.enrol(nil, ev.l, req, tx, h, true) && !ev.l.home.Load().post(ev) {
		ev.refuse()
	}
}

// legCame is a phone that wants the place of old in the call.
type legCame struct {
	l, old    *leg
	ext       string
	fromTag   string // of old's peer; empty: known to be right
	earlyOnly bool
	otherwise int // status if there is nothing to take over any more
}

// refuse is for a call that is over: nobody owns the leg.
func (ev legCame) refuse() {
	s := ev.l.home.Load().s
	s.end.reply(ev.l.invite, ev.l.inviteTx, ev.otherwise, statusText(ev.otherwise))
	s.forget(ev.l)
}

func (ev legCame) on(c *call) {
	l := ev.l
	l.label = c.nextLabel()
	c.legs = append(c.legs, l)
	c.s.ladders.take(c, l)
	c.s.lines.add(l)
	if status := ev.takeOver(c); status != 0 {
		l.reject(status, statusText(status))
	}
}

// takeOver gives the call to the leg, or returns the status with which its
// INVITE is refused (RFC 3891 §3).
func (ev legCame) takeOver(c *call) (status int) {
	old := ev.old
	if old.home.Load() != c || ev.fromTag != "" && old.d.remoteTag != ev.fromTag {
		return ev.otherwise
	}
	switch {
	case old.state == legEnding || old.state == legEnded:
		if ev.fromTag != "" {
			return 603 // it has ended meanwhile
		}
		return ev.otherwise
	case c.over || ev.l.state != legInviting:
		return ev.otherwise
	case old.state == legInviting && old.inviteTx == nil:
		p, ok := c.script.(interface {
			rung() *ringing
			pickedUp(l *leg)
		})
		if !ok || p.rung() == nil || !p.rung().has(old) {
			return ev.otherwise
		}
		if status := ev.l.accept(); status != 0 {
			return status
		}
		r := p.rung()
		r.stop(func(*leg) bool { return true }, "cancelled", reasonHeader("SIP", 200, "Call completed elsewhere"))
		c.rec.Rings = append(c.rec.Rings, r.rings()...)
		p.pickedUp(ev.l)
		return 0
	case old.state == legInviting:
		return 481 // an early dialog that the phone has begun (RFC 3891 §3)
	case ev.earlyOnly:
		return 486
	case !c.talking || old != c.a && old != c.b || old.ext != ev.ext:
		return 603 // only the extension itself moves its conversation to another device
	}
	if status := ev.l.accept(); status != 0 {
		return status
	}
	c.moved(old, ev.l)
	return 0
}

// moved gives the conversation of old to another device of the same extension.
func (c *call) moved(old, l *leg) {
	if n := len(c.rec.Segments); n > 0 {
		c.rec.Segments[n-1].To = time.Now()
	}
	if old.stream != nil {
		old.stream.SetTap(nil)
	}
	c.settle(old, l)
	c.release(old, nil)
	c.rejoin(l, l.ext, "")
}

// accept answers the INVITE that began the leg; a status says why it cannot.
func (l *leg) accept() (status int) {
	body, status, _ := sdpBody(l.invite)
	if status != 0 {
		return status
	}
	if err := l.openMedia(); errors.Is(err, errNoSRTP) {
		return 488
	} else if err != nil {
		l.c.s.log.Warn("phone cannot take a call over", "call", l.c.rec.ID, "ext", l.ext, "err", err)
		return 503
	}
	if len(body) == 0 {
		l.answer(l.neg.offer(media.SendRecv), true)
		return 0
	}
	answer, err := l.takeOffer(body)
	if err != nil {
		return 488
	}
	l.answer(answer, false)
	return 0
}

func (c *incoming) rung() *ringing { return c.ring }

func (c *incoming) pickedUp(l *leg) { c.meet(l, l.ext, "") }

func (c *dialled) rung() *ringing { return c.ring }

func (c *dialled) pickedUp(l *leg) {
	c.ring, c.b = nil, l
	c.meet(l)
}

func (t *transferring) rung() *ringing { return t.ring }

func (t *transferring) pickedUp(l *leg) {
	t.ring = nil
	t.done(l, "")
}
