package pbx

import (
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// referral is the subscription that a REFER makes (RFC 3515 §2.4.4): the phone
// that passes a call on is told by NOTIFY how far that has come. The call's
// goroutine owns it. A nil referral tells nobody.
//
// Only one NOTIFY is under way at a time, for one that overtook another would be
// refused; what becomes known meanwhile is told in the next, the last state only.
type referral struct {
	l       *leg
	event   string
	sending bool
	next    *news
	last    int  // the status that was told last
	over    bool // the final state is known, or the phone does not want to hear it
}

// news is a state to be told.
type news struct {
	status int
	text   string
	then   func() // after it was told; nil: nothing
}

func newReferral(l *leg, req *sip.Request) *referral {
	r := &referral{l: l, event: "refer"}
	if l.referred {
		// All but the first in a dialog carry an id (RFC 3515 §2.4.6).
		r.event = fmt.Sprintf("refer;id=%d", req.CSeq().SeqNo)
	}
	l.referred = true
	return r
}

// tell notifies of a status that the target's call has reached; the same one is
// not told twice.
func (r *referral) tell(status int, text string, then func()) {
	if r == nil || r.over {
		if then != nil {
			then()
		}
		return
	}
	if status < 200 && status <= r.last {
		return
	}
	r.last, r.over = status, status >= 200
	r.next = &news{status, text, then}
	r.send()
}

// finish tells the final status; then is called once the phone has it.
func (r *referral) finish(status int, text string, then func()) { r.tell(status, text, then) }

func (r *referral) send() {
	n := r.next
	if n == nil || r.sending {
		return
	}
	r.next, r.sending = nil, true
	state := "active;expires=180"
	if n.status >= 200 {
		state = "terminated;reason=noresource" // RFC 3515 §2.4.7
	}
	req := r.l.d.request(sip.NOTIFY)
	req.AppendHeader(r.l.c.s.end.contact(r.l.d.hop, r.l.d.local.User))
	req.AppendHeader(sip.NewHeader("Event", r.event))
	req.AppendHeader(sip.NewHeader("Subscription-State", state))
	req.AppendHeader(sip.NewHeader("Content-Type", "message/sipfrag;version=2.0"))
	req.SetBody(fmt.Appendf(nil, "SIP/2.0 %d %s\r\n", n.status, n.text)) // RFC 3420
	r.l.transact(req, func(res *sip.Response, err error) {
		if res != nil && res.StatusCode < 200 {
			return
		}
		if r.sending = false; res != nil && res.StatusCode >= 300 {
			r.over = true // it does not want to know (RFC 6665 §4.2.2)
			if r.next != nil && r.next.then != nil {
				r.next.then()
			}
			r.next = nil
		}
		if n.then != nil {
			n.then()
			n.then = nil
		}
		r.send()
	})
}

// subscribed answers a SUBSCRIBE within a dialog: only what a REFER began can be
// renewed or ended there.
func (l *leg) subscribed(req *sip.Request, tx *sip.ServerTx) {
	end := l.c.s.end
	t, ok := l.c.script.(*transferring)
	h := req.GetHeader("Event")
	if !ok || t.by != l || t.ref == nil || t.ref.over || h == nil || !strings.HasPrefix(strings.ToLower(h.Value()), "refer") {
		end.reply(req, tx, 481, "Subscription Does Not Exist")
		return
	}
	res := l.response(req, 200, "OK")
	left := "180"
	if e := req.GetHeader("Expires"); e != nil && strings.TrimSpace(e.Value()) == "0" {
		left, t.ref.over = "0", true
	}
	res.AppendHeader(sip.NewHeader("Expires", left))
	end.respond(tx, res)
}
