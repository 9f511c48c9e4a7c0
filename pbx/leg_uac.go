package pbx

import (
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
)

// callee says whom a leg calls and how it presents the call.
type callee struct {
	uri      sip.Uri // Request-URI
	hop      hop
	fixed    bool // requests stay on hop (a phone)
	to       sip.Uri
	from     sip.Uri
	fromName string
	headers  []sip.Header
}

// dial sends the INVITE of a UAC leg with our offer (RFC 3261 §13.2.1).
func (l *leg) dial(to callee) error {
	l.d = dialog{
		id:        dialogID{newCallID(to.hop.local.Addr().String()), newTag()},
		local:     to.from,
		localName: quotable(to.fromName),
		remote:    to.to,
		target:    to.uri,
		hop:       to.hop,
		fixed:     to.fixed,
		localSeq:  newSeq() - 1,
	}
	l.c.s.ladders.take(l.c, l)
	if err := l.openMedia(); err != nil {
		return err
	}
	l.state = legInviting
	req := l.d.request(sip.INVITE)
	req.AppendHeader(l.c.s.end.contact(to.hop, l.d.local.User))
	req.AppendHeader(sip.NewHeader("Allow", allow))
	if l.trunk != nil {
		req.AppendHeader(sip.NewHeader("Supported", supported))
	} else {
		// A phone's ringing is not worth a PRACK.
		req.AppendHeader(sip.NewHeader("Supported", supportedByPhones))
	}
	l.askSession(req)
	req.AppendHeader(sip.NewHeader("User-Agent", l.c.s.cfg.SIP.UserAgent))
	for _, h := range to.headers {
		req.AppendHeader(h)
	}
	l.addSDP(req, l.neg.offer(media.SendRecv))
	l.c.s.end.address(req, to.hop)
	l.c.s.remember(l)
	l.sendInvite(req)
	return nil
}

func (l *leg) sendInvite(req *sip.Request) {
	l.invite = req
	l.c.s.end.transact(req, func(res *sip.Response, err error) {
		if !l.post(inviteMoved{l, req, res, err}) {
			l.answeredLate(res)
		}
	})
}

// answeredLate takes a 2xx that comes when the call is over, such as after a BYE
// that overtook it: it is acknowledged and ended all the same (RFC 3261
// §13.2.2.4).
func (l *leg) answeredLate(res *sip.Response) {
	if res != nil && res.IsSuccess() {
		l.releaseFork(res)
	}
}

// inviteMoved is a response to an INVITE of ours, or its transaction's end.
type inviteMoved struct {
	l   *leg
	req *sip.Request
	res *sip.Response
	err error
}

func (ev inviteMoved) of() *leg { return ev.l }

func (ev inviteMoved) on(c *call) {
	l, res := ev.l, ev.res
	if res == nil {
		// The end of the transaction matters only if no final response came
		// (sipgo keeps finished ones for half a minute).
		if ev.err != nil && ev.req == l.invite && (l.state == legInviting || l.state == legEnding && l.lastACK == nil) {
			cancelled := l.cancelled
			l.ended()
			if !cancelled {
				c.script.failed(l, 408, 0)
			}
		}
		return
	}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
		l.accepted(res)
	case ev.req != l.invite:
		// An answer to an INVITE that was sent again with credentials.
	case res.StatusCode < 200:
		l.proceeding(res)
	default:
		l.refused(res)
	}
	if res.StatusCode >= 200 && ev.req == l.invite {
		l.takeEarly(l.early)
	}
}

func (l *leg) proceeding(res *sip.Response) {
	l.provisional = true
	if l.cancelled {
		l.sendCancel()
		return
	}
	if l.state != legInviting || res.StatusCode == 100 {
		return
	}
	rseq, ok := l.inOrder(res)
	if !ok {
		return
	}
	tag, _ := res.To().Params.Get("tag")
	if tag != "" {
		l.d.confirm(res) // early dialog (RFC 3261 §13.2.2.1)
	}
	if rseq != 0 {
		l.prack(res, rseq)
	}
	early := false
	if body := res.Body(); len(body) > 0 && !l.agreedReliably(tag) {
		params, err := l.neg.early(body)
		if err != nil {
			l.log(slog.LevelInfo, "early answer unusable", "status", res.StatusCode, "err", err)
		} else {
			l.neg.reopen()
			l.configure(params)
			early = true
			if rseq != 0 {
				l.reliable.agreed[tag] = true
			}
		}
	}
	l.c.script.ringing(l, res.StatusCode, early)
}

// accepted takes a 2xx: the first one, a copy of it, or one of a fork.
func (l *leg) accepted(res *sip.Response) {
	tag, _ := res.To().Params.Get("tag")
	if l.lastACK != nil {
		if tag == l.d.remoteTag {
			l.c.s.end.sendACK(l.lastACK) // RFC 3261 §13.2.2.4: every copy
			return
		}
		l.releaseFork(res)
		return
	}
	if l.state == legEnded {
		l.releaseFork(res)
		return
	}
	l.d.confirm(res)
	l.ack(res)
	if l.cancelled {
		// The answer crossed our CANCEL: end what it began.
		l.state = legUp
		l.bye(l.cancelWith...)
		return
	}
	if l.state != legInviting {
		return
	}
	l.state = legUp
	l.sessionGranted(res)
	if (len(res.Body()) == 0 || l.agreedReliably(tag)) && l.neg.settled() {
		// The early answer was the answer.
		l.neg.conclude()
		l.c.script.answered(l)
		return
	}
	params, err := l.neg.accept(res.Body())
	if err != nil {
		l.log(slog.LevelInfo, "answer unusable", "err", err)
		l.bye(reasonHeader("SIP", 488, "Not Acceptable Here"))
		l.c.script.failed(l, 488, 0)
		return
	}
	l.configure(params)
	l.c.script.answered(l)
}

// ack sends the ACK of a 2xx and keeps it for copies.
func (l *leg) ack(res *sip.Response) {
	req := l.d.build(sip.ACK, res.CSeq().SeqNo)
	if h := l.invite.GetHeader("Authorization"); h != nil {
		req.AppendHeader(sip.HeaderClone(h)) // RFC 3261 §22.1
	}
	if h := l.invite.GetHeader("Proxy-Authorization"); h != nil {
		req.AppendHeader(sip.HeaderClone(h))
	}
	l.c.s.end.address(req, l.d.next())
	l.lastACK = req
	l.c.s.end.sendACK(req)
}

// releaseFork acknowledges and ends a dialog that a second 2xx made.
func (l *leg) releaseFork(res *sip.Response) {
	d := l.d
	d.id = l.d.id
	d.confirm(res)
	ack := d.build(sip.ACK, res.CSeq().SeqNo)
	l.c.s.end.address(ack, d.next())
	l.c.s.end.sendACK(ack)
	bye := d.request(sip.BYE)
	l.c.s.end.address(bye, d.next())
	l.c.s.end.transact(bye, func(*sip.Response, error) {})
}

func (l *leg) refused(res *sip.Response) {
	if (res.StatusCode == 401 || res.StatusCode == 407) && !l.authTried && !l.cancelled && l.trunk != nil && l.trunk.cfg.User != "" {
		l.authTried = true
		again := l.retry(l.invite)
		if err := authorize(again, res, l.trunk.cfg.User, l.trunk.secret); err != nil {
			l.log(slog.LevelWarn, "trunk asks for credentials that cannot be given", "err", err)
		} else {
			l.sendInvite(again)
			return
		}
	}
	if res.StatusCode == 422 && !l.cancelled && l.raiseSession(res) {
		// RFC 4028 §7.3: once more with what the peer asks for. Credentials are
		// made anew if it wants them.
		again := l.retry(l.invite)
		again.RemoveHeader("Authorization")
		again.RemoveHeader("Proxy-Authorization")
		l.authTried = false
		l.askSession(again)
		l.sendInvite(again)
		return
	}
	if (res.StatusCode == 488 || res.StatusCode == 606 || res.StatusCode == 415) && !l.cancelled && l.state == legInviting && l.neg.concede() {
		l.log(slog.LevelInfo, "SRTP refused, offered again in the clear", "status", res.StatusCode)
		again := l.retry(l.invite)
		again.RemoveHeader("Authorization")
		again.RemoveHeader("Proxy-Authorization")
		l.authTried = false
		again.SetBody(l.neg.offer(media.SendRecv))
		l.sendInvite(again)
		return
	}
	if l.state == legEnded {
		return
	}
	cancelled := l.cancelled
	if l.trunk == nil {
		l.moved = movedTo(res)
	}
	l.ended()
	if !cancelled {
		l.c.script.failed(l, res.StatusCode, q850(res))
	}
}

// cancel takes back an INVITE (RFC 3261 §9.1): at once if a provisional
// response has come, else when one does. A 2xx that crosses it is ended.
func (l *leg) cancel(headers ...sip.Header) {
	if l.state != legInviting || l.cancelled {
		return
	}
	l.cancelled, l.cancelWith = true, headers
	l.state = legEnding
	l.closeMedia()
	if l.provisional {
		l.sendCancel()
	}
	// A peer that answers the CANCEL but never the INVITE is given up after
	// 64*T1 (RFC 3261 §9.1).
	l.guardTimer = time.AfterFunc(64*sip.T1, func() { l.post(cancelUnanswered{l}) })
}

type cancelUnanswered struct{ l *leg }

func (ev cancelUnanswered) of() *leg { return ev.l }

func (ev cancelUnanswered) on(*call) { ev.l.ended() }

func (l *leg) sendCancel() {
	if l.cancelSent {
		return
	}
	l.cancelSent = true
	inv := l.invite
	req := sip.NewRequest(sip.CANCEL, *inv.Recipient.Clone())
	req.AppendHeader(inv.Via().Clone())
	for _, name := range []string{"Route"} {
		sip.CopyHeaders(name, inv, req)
	}
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	req.AppendHeader(sip.HeaderClone(inv.From()))
	req.AppendHeader(sip.HeaderClone(inv.To()))
	id := *inv.CallID()
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: inv.CSeq().SeqNo, MethodName: sip.CANCEL})
	for _, h := range l.cancelWith {
		req.AppendHeader(h)
	}
	req.SetBody(nil)
	req.SetTransport(inv.Transport())
	req.SetDestination(inv.Destination())
	req.Laddr = inv.Laddr
	l.c.s.end.transact(req, func(*sip.Response, error) {})
}

// strayReceived is a response without a transaction: a 2xx sent again.
type strayReceived struct {
	l   *leg
	res *sip.Response
}

func (ev strayReceived) of() *leg { return ev.l }

func (ev strayReceived) on(*call) {
	if ev.res.CSeq().MethodName == sip.INVITE && ev.res.IsSuccess() && !ev.l.reacknowledge(ev.res) {
		ev.l.accepted(ev.res)
	}
}

func sipURI(user, host string, port int) sip.Uri {
	return sip.Uri{Scheme: "sip", User: user, Host: host, Port: port}
}

func newOrigin() uint64 { return uint64(time.Now().UnixNano()) & (1<<62 - 1) }

// quotable makes a name fit for a quoted string (RFC 3261 §25.1), into which
// sipgo puts it as it is.
func quotable(name string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, name))
}
