package pbx

import (
	"net/url"
	"strings"

	"github.com/emiago/sipgo/sip"

	"centralka/ordinance"
	"centralka/store"
)

// replaces is a Replaces header (RFC 3891 §6.1): the dialog that a new call is to
// take the place of, seen from our side of it.
type replaces struct {
	id        dialogID // Call-ID and to-tag, which is ours
	fromTag   string   // the peer's
	earlyOnly bool
}

// parseReplaces reads the value of the header.
func parseReplaces(v string) (replaces, bool) {
	callID, params, _ := strings.Cut(v, ";")
	r := replaces{id: dialogID{callID: strings.TrimSpace(callID)}}
	seen := map[string]bool{}
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		k = strings.ToLower(strings.TrimSpace(k))
		if k != "" && seen[k] {
			return replaces{}, false
		}
		seen[k] = true
		switch k {
		case "to-tag":
			r.id.localTag = strings.TrimSpace(v)
		case "from-tag":
			r.fromTag = strings.TrimSpace(v)
		case "early-only":
			r.earlyOnly = true
		}
	}
	if r.id.callID == "" || strings.ContainsAny(r.id.callID, " \t,") || !isToken(r.id.localTag) || !isToken(r.fromTag) {
		return replaces{}, false
	}
	return r, true
}

// replacesInURI finds Replaces among the headers of a Refer-To URI, where it is
// escaped (RFC 3891 §5). found is false if there is none, ok if it cannot be read.
func replacesInURI(u sip.Uri) (r replaces, found, ok bool) {
	for _, h := range u.Headers {
		if !strings.EqualFold(h.K, "Replaces") {
			continue
		}
		v, err := url.PathUnescape(h.V)
		if err != nil || found {
			return replaces{}, true, false
		}
		found = true
		if r, ok = parseReplaces(v); !ok {
			return replaces{}, true, false
		}
	}
	return r, found, true
}

// replaced finds the leg whose dialog r names; nil if there is none.
func (s *Switch) replaced(r replaces) *leg {
	s.mu.Lock()
	l := s.dialogs[r.id]
	s.mu.Unlock()
	return l
}

// refusable is an event whose sender waits for an answer even if the call that
// should give it is over.
type refusable interface{ refuse() }

// legAsked asks a call for the party that talks to old: by wants it in the place
// of its own leg replacing. The answer is legArrived.
type legAsked struct {
	by        *call
	old       *leg
	replacing *leg
	fromTag   string // of the peer of old; empty: known to be right
	citizen   bool   // by has the citizen
	back      bool   // it answers a legAsked of ours: ours is the call without citizen
}

func (ev legAsked) refuse() { ev.by.post(legArrived{replacing: ev.replacing}) }

// legArrived brings the party that was asked for, l, or word that there is none.
// If dialled is set, old had only dialled that and nobody has answered yet.
type legArrived struct {
	l         *leg
	replacing *leg
	number    ordinance.Number // of a party outside
	dialled   string
}

// askFor asks the call of an attended transfer's other dialog for its party.
func (t *transferring) askFor(r replaces) {
	old := t.s.replaced(r)
	if old == nil || old == t.by || old.ext != t.by.ext {
		// Nobody but the phone itself may move its calls.
		t.gone()
		return
	}
	t.expecting++
	if !old.post(legAsked{by: t.call, old: old, replacing: t.by, fromTag: r.fromTag, citizen: t.citizen != nil}) {
		t.expecting--
		t.gone()
	}
}

func (t *transferring) gone() {
	t.failedWith(481, "Call/Transaction Does Not Exist", store.CauseUnreachable)
}

func (ev legArrived) on(c *call) {
	c.expecting--
	t, ok := c.script.(*transferring)
	waits := ok && !c.over && t.by == ev.replacing
	l := ev.l
	if l != nil {
		l.label = c.nextLabel()
		c.legs = append(c.legs, l)
		c.s.ladders.take(c, l)
	}
	switch {
	case l != nil && !waits:
		l.hangUp(487, "Request Terminated")
	case !waits:
	case l != nil && (l.state == legUp || l.state == legAnswered):
		t.done(l, ev.number)
	case ev.dialled != "":
		r := c.s.routeOf(ev.dialled)
		if !c.s.mayPlace(t.by.ext, r) {
			r.kind = routeForbidden
		}
		t.to(r)
	default:
		t.gone()
	}
}

func (ev legAsked) on(c *call) {
	if ev.back {
		ev.turn(c)
		return
	}
	old := ev.old
	d, placed := c.script.(*dialled)
	switch {
	case c.over || ev.by == c || old.d.remoteTag != ev.fromTag:
		ev.refuse()
	case c.talking && (old == c.a || old == c.b) && c.citizen != nil && !ev.citizen:
		// The citizen is at this side: this call goes on, and by gives its party.
		c.pass(old, nil)
		c.expecting++
		if !ev.by.post(legAsked{by: c, old: ev.replacing, replacing: old, citizen: true, back: true}) {
			c.expecting-- // cannot be: by expects us
		}
	case c.talking && (old == c.a || old == c.b):
		c.give(c.other(old), old, nil, ev)
	case placed && !c.talking && old == c.a && !d.noticing:
		// Semi-attended (RFC 5589 §6.2): the phone does not wait for the answer. The
		// target is called anew, for the citizen.
		dialled := d.dialled
		d.stopRinging()
		c.end(store.CauseCancelled, nil)
		ev.by.post(legArrived{replacing: ev.replacing, dialled: dialled})
	default:
		ev.refuse()
	}
}

// turn gives the party of a call without citizen to the call that has it.
func (ev legAsked) turn(c *call) {
	c.expecting--
	t, ok := c.script.(*transferring)
	if !ok || c.over || t.by != ev.old {
		ev.refuse()
		return
	}
	c.give(t.stays, t.by, t.ref, ev)
}

// give hands l over to the call that asked for it. What is left of this one is
// old, which is told so by ref and ends.
func (c *call) give(l, old *leg, ref *referral, ev legAsked) {
	var number ordinance.Number
	if l.trunk != nil {
		number = c.rec.Caller.Number
		if c.rec.Direction == store.Outgoing {
			number = c.rec.Called
		}
		c.s.lines.charge(l, old.ext)
	}
	if l.stream != nil {
		l.stream.SetTap(nil)
		l.stream.Silence()
	}
	cause := store.CauseHangupCalled
	if old == c.a {
		cause = store.CauseHangupCaller
	}
	c.script, c.talking = silentScript{}, false
	for i, m := range c.legs {
		if m == l {
			c.legs = append(c.legs[:i:i], c.legs[i+1:]...)
			break
		}
	}
	c.a, c.b, c.citizen = nil, nil, nil
	l.c = ev.by
	l.home.Store(ev.by)
	ev.by.post(legArrived{l: l, replacing: ev.replacing, number: number}) // l is not ours from here on
	c.end(cause, old)
	c.release(old, ref)
}
