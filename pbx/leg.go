package pbx

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
)

// legState is how far the dialog of a leg has come.
type legState uint8

const (
	legIdle     legState = iota
	legInviting          // INVITE received or sent, no final answer
	legAnswered          // we sent a 2xx and wait for its ACK
	legUp                // confirmed
	legEnding            // BYE or CANCEL sent, or a failure to be acknowledged
	legEnded
)

// leg is one party of a call: a SIP dialog, its offer/answer state and its
// stream. The call's goroutine owns it.
type leg struct {
	c     *call
	home  atomic.Pointer[call] // the same as c, for other goroutines
	label string               // "a", "b1", "b2", …: in logs and status
	ext   string               // the phone's extension; empty for a trunk's leg
	trunk *trunk               // nil for a phone's leg
	// outside marks the leg of a phone that placed a call to the outside.
	outside bool
	state   legState
	d       dialog
	neg     *negotiation
	// stream is nil until openMedia and after close.
	stream media.Stream
	// params is what was last configured.
	params media.Params
	// held: the peer put us on hold (its SDP lets it hear nothing from us, or
	// only its own music).
	held bool
	// muted: somebody holds the conversation; what the peer says is for nobody.
	muted bool
	// refusal are the headers of a 488, which say why.
	refusal []sip.Header

	// UAS
	invite   *sip.Request // received (UAS) or sent last (UAC)
	inviteTx *sip.ServerTx
	await    *await2xx
	byeLater []sip.Header // headers of a BYE that must wait for the ACK; nil: none
	wantBye  bool
	// wasAnswered: a 2xx was sent to the INVITE that began it.
	wasAnswered bool

	// UAC
	provisional bool // a provisional response has come
	cancelled   bool
	cancelWith  []sip.Header
	cancelSent  bool
	authTried   bool
	lastACK     *sip.Request
	moved       []sip.Uri        // where a 3xx wants the call to go, best first
	referred    bool             // the peer has sent a REFER
	early       *messageReceived // a BYE that came before the 2xx (see overtook)
	guardTimer  *time.Timer      // gives up on a peer that never ends its transaction

	session  sessionTimer
	reliable reliability

	mergeKey string // of the INVITE that began it (RFC 3261 §8.2.2.2)
}

// await2xx is a 2xx to an INVITE that is sent again until its ACK comes
// (RFC 3261 §13.3.1.4).
type await2xx struct {
	seq      uint32
	res      *sip.Response
	tx       *sip.ServerTx
	interval time.Duration
	giveUp   time.Time
	timer    *time.Timer
	initial  bool
	offered  bool // the 2xx carried our offer; the ACK carries the answer
}

// post hands ev to the call in which the leg is now; false if that is over.
func (l *leg) post(ev event) bool { return l.home.Load().post(ev) }

// secure reports whether the peer's signalling comes and goes by TLS, so that
// keys of the media may be told in it (RFC 4568 §8.3).
func (l *leg) secure() bool { return l.d.hop.transport == "TLS" }

func (l *leg) logAttrs() []any { return []any{"call", l.c.rec.ID, "leg", l.label} }

func (l *leg) log(level slog.Level, msg string, args ...any) {
	l.c.s.log.Log(l.c.s.ctx, level, msg, append(l.logAttrs(), args...)...)
}

// openMedia takes ports and prepares the offer/answer state. The address that
// the peer is told is the configured one, or that of the listener it talks to.
//
// If voice must be secret and cannot be, the error is errNoSRTP.
func (l *leg) openMedia() error {
	security := l.security()
	if security == voiceNoSecret {
		l.refuse(errNoSRTP)
		return fmt.Errorf("open media of leg %s: %w", l.label, errNoSRTP)
	}
	stream, err := l.c.s.engine.Open(media.StreamConfig{
		Label:  l.c.rec.ID.String()[:8] + "/" + l.label,
		Notify: func(ev media.Event) { l.post(mediaNotified{l, ev}) },
	})
	if err != nil {
		return fmt.Errorf("open media of leg %s: %w", l.label, err)
	}
	l.stream = stream
	l.neg = newNegotiation(l.c.s.mediaAddr(l.d.hop), stream.LocalPort(), newOrigin())
	l.neg.security = security
	return nil
}

// security is what is done about SRTP on this leg.
func (l *leg) security() voiceSecurity {
	srtp := l.c.s.config().extensions[l.ext].SRTP
	if l.trunk != nil {
		srtp = l.trunk.cfg.SRTP
	}
	return securityOf(srtp, l.c.s.secret(l.d.hop))
}

// takeOffer answers the peer's offer and applies what is agreed. After an error
// refusal says why to the peer.
func (l *leg) takeOffer(offer []byte) ([]byte, error) {
	answer, params, err := l.neg.answer(offer, media.SendRecv)
	if err != nil {
		l.refuse(err)
		return nil, err
	}
	l.refusal = nil
	l.configure(params)
	return answer, nil
}

// refuse notes why a 488 will be sent.
func (l *leg) refuse(err error) { l.refusal = []sip.Header{warningOf(l.c.s.domain(), err)} }

// configure applies p to the stream and learns whether the peer holds us.
func (l *leg) configure(p media.Params) {
	p.Signalling = l.d.hop.remote.Addr()
	l.params = p
	l.held = l.neg.held()
	l.apply()
}

// apply tells the stream what is settled. While somebody holds, nothing is
// listened to, whatever the direction allows, so that the media timeout is off
// and begins anew afterwards: who holds with sendonly need not send.
func (l *leg) apply() {
	p := l.params
	if l.held || l.muted {
		p.Direction &^= media.RecvOnly
	}
	if l.stream != nil {
		l.stream.Configure(p)
	}
}

// closeMedia frees the ports.
func (l *leg) closeMedia() {
	if l.stream != nil {
		l.stream.Close()
		l.noteQuality(l.stream.Stats())
		l.stream = nil
	}
}

// answer sends the 200 to the INVITE that began this leg. body is our SDP.
func (l *leg) answer(body []byte, offered bool) {
	if l.holdAnswer(func() { l.answer(body, offered) }) {
		return
	}
	res := l.response(l.invite, 200, "OK")
	l.grantSession(l.invite, res)
	if !l.reliable.answered { // else it was the answer (RFC 6337 §3.1.1)
		l.addSDP(res, body)
	}
	l.state, l.wasAnswered = legAnswered, true
	l.send2xx(&await2xx{seq: l.invite.CSeq().SeqNo, res: res, tx: l.inviteTx, initial: true, offered: offered})
}

// send2xx sends a 2xx to an INVITE and again until the ACK: after T1, then at
// doubling intervals up to T2, for 64*T1 in all, over any transport.
func (l *leg) send2xx(a *await2xx) {
	l.await = a
	a.interval = sip.T1
	a.giveUp = time.Now().Add(64 * sip.T1)
	l.c.s.end.respond(a.tx, a.res)
	a.timer = time.AfterFunc(a.interval, func() { l.post(ackMissing{l, a}) })
}

// ackMissing is the timer of send2xx.
type ackMissing struct {
	l *leg
	a *await2xx
}

func (ev ackMissing) of() *leg { return ev.l }

func (ev ackMissing) on(c *call) {
	l, a := ev.l, ev.a
	if l.await != a {
		return
	}
	if !time.Now().Before(a.giveUp) {
		// RFC 3261 §13.3.1.4: no ACK; the session should be ended with a BYE.
		l.await = nil
		l.log(slog.LevelInfo, "no ACK for 2xx")
		l.state = legUp
		if l.wantBye {
			l.bye(l.byeLater...)
			return
		}
		c.script.noAck(l)
		return
	}
	c.s.end.respond(a.tx, a.res)
	a.interval = min(2*a.interval, sip.T2)
	a.timer.Reset(min(a.interval, time.Until(a.giveUp)))
}

// progress sends a provisional response; body may be nil.
func (l *leg) progress(status int, reason string, body []byte) {
	if l.state != legInviting {
		return
	}
	res := l.response(l.invite, status, reason)
	if body != nil {
		l.addSDP(res, body)
	}
	l.provision(res)
}

// reject ends an INVITE that we have not answered.
func (l *leg) reject(status int, reason string, headers ...sip.Header) {
	if l.state != legInviting {
		return
	}
	if status == 488 {
		headers = append(headers[:len(headers):len(headers)], l.refusal...)
	}
	l.c.s.end.reply(l.invite, l.inviteTx, status, reason, headers...)
	l.ended()
}

// response builds a response of this dialog with our Contact.
func (l *leg) response(req *sip.Request, status int, reason string) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, reason, nil)
	res.AppendHeader(l.c.s.end.contact(l.d.hop, l.d.local.User))
	res.AppendHeader(sip.NewHeader("Allow", allow))
	res.AppendHeader(sip.NewHeader("Supported", supported))
	return res
}

func (l *leg) addSDP(m interface {
	AppendHeader(sip.Header)
	SetBody([]byte)
}, body []byte) {
	m.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	m.SetBody(body)
}

// receive handles a request within the dialog.
func (l *leg) receive(req *sip.Request, tx *sip.ServerTx) {
	end := l.c.s.end
	if l.overtook(req, tx) {
		return
	}
	if tag, _ := req.From().Params.Get("tag"); tag != l.d.remoteTag {
		if !req.IsAck() {
			end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
		}
		return
	}
	if req.IsAck() {
		l.acknowledged(req)
		return
	}
	if !l.d.order(req) {
		end.reply(req, tx, 500, "CSeq Out Of Order", sip.NewHeader("Retry-After", "0"))
		return
	}
	if l.state == legEnding || l.state == legEnded {
		// Our BYE is under way; theirs has crossed it and gets its 200.
		if req.Method == sip.BYE {
			end.reply(req, tx, 200, "OK")
			return
		}
		end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	switch req.Method {
	case sip.BYE:
		end.reply(req, tx, 200, "OK")
		if l.await != nil {
			l.await.timer.Stop() // BYE before ACK
			l.await = nil
		}
		if l.state == legInviting && l.inviteTx != nil {
			// RFC 3261 §15.1.2: a BYE on an early dialog ends the INVITE with 487.
			end.reply(l.invite, l.inviteTx, 487, "Request Terminated")
		}
		cause := q850(req)
		unanswered := l.state == legInviting && l.inviteTx == nil
		l.ended()
		if unanswered {
			// The BYE has overtaken the 200, which will be acknowledged and ended.
			l.c.script.failed(l, 480, cause)
			return
		}
		l.c.script.hungUp(l, cause)
	case sip.INVITE:
		l.reinvited(req, tx)
	case sip.UPDATE:
		l.updated(req, tx)
	case sip.OPTIONS:
		end.respond(tx, l.c.s.optionsResponse(req))
	case sip.INFO:
		// DTMF by INFO has no taker in a call; a 200 keeps phones content
		// (RFC 6086 §4.2.2: only named info packages could be refused).
		end.reply(req, tx, 200, "OK")
	case sip.REFER:
		l.c.referred(l, req, tx)
	case sip.SUBSCRIBE:
		l.subscribed(req, tx)
	case sip.NOTIFY:
		// We subscribe to nothing (RFC 6665 §4.1.3).
		end.reply(req, tx, 481, "Subscription Does Not Exist")
	case sip.PRACK:
		l.pracked(req, tx)
	default:
		end.refuseMethod(req, tx)
	}
}

// overtakeWait is how long a request is held that came before the response
// which it must follow.
const overtakeWait = 200 * time.Millisecond

// overtook holds a BYE that came before the 2xx of our INVITE was looked at: a
// phone that is answered and put down at once sends both in one breath, and
// sipgo hands each message up on a goroutine of its own. The BYE is applied
// right after the 2xx, or after a moment if none comes.
func (l *leg) overtook(req *sip.Request, tx *sip.ServerTx) bool {
	if req.Method != sip.BYE || l.inviteTx != nil || l.state != legInviting || l.early != nil {
		return false
	}
	ev := &messageReceived{l, req, tx}
	l.early = ev
	time.AfterFunc(overtakeWait, func() { l.post(overtakeOver{ev}) })
	return true
}

// overtakeOver ends the wait of overtook.
type overtakeOver struct{ ev *messageReceived }

func (o overtakeOver) of() *leg { return o.ev.l }

func (o overtakeOver) on(*call) { o.ev.l.takeEarly(o.ev) }

// takeEarly applies what was held, once.
func (l *leg) takeEarly(ev *messageReceived) {
	if ev == nil || l.early != ev {
		return
	}
	l.receive(ev.req, ev.tx)
	l.early = nil
}

// acknowledged takes the ACK of a 2xx.
func (l *leg) acknowledged(req *sip.Request) {
	a := l.await
	if a == nil || req.CSeq().SeqNo != a.seq {
		return
	}
	a.timer.Stop()
	l.await = nil
	if l.state == legAnswered {
		l.state = legUp
	}
	if a.offered {
		body, status, _ := sdpBody(req)
		params, err := media.Params{}, error(nil)
		if status != 0 || len(body) == 0 {
			err = fmt.Errorf("ACK carries no answer to our offer")
		} else {
			params, err = l.neg.accept(body)
		}
		if err != nil {
			l.log(slog.LevelInfo, "late answer unusable", "err", err)
			l.c.script.mediaFailed(l)
			return
		}
		l.configure(params)
	}
	if l.wantBye {
		l.bye(l.byeLater...)
		return
	}
	if a.initial {
		l.c.script.confirmed(l)
	} else {
		l.c.script.mediaChanged(l)
	}
}

// reinvited answers an INVITE within the dialog: hold, resume, a refresh, or a
// new address (RFC 3261 §14.2).
func (l *leg) reinvited(req *sip.Request, tx *sip.ServerTx) {
	end := l.c.s.end
	switch {
	case l.state == legInviting:
		end.reply(req, tx, 500, "INVITE In Progress", sip.NewHeader("Retry-After", "1"))
		return
	case l.await != nil || l.session.offering || l.state != legUp:
		end.reply(req, tx, 491, "Request Pending")
		return
	case shortSession(req):
		end.refuseSession(req, tx)
		return
	}
	body, status, reason := sdpBody(req)
	if status != 0 {
		end.reply(req, tx, status, reason)
		return
	}
	if c := req.Contact(); c != nil {
		l.d.target = *c.Address.Clone() // target refresh (RFC 3261 §12.2.2)
	}
	a := &await2xx{seq: req.CSeq().SeqNo, tx: tx}
	var sdp []byte
	if len(body) == 0 {
		sdp = l.neg.offer(media.SendRecv)
		a.offered = true
	} else {
		answer, err := l.takeOffer(body)
		if err != nil {
			l.log(slog.LevelInfo, "offer within call refused", "err", err)
			end.reply(req, tx, 488, "Not Acceptable Here", l.refusal...)
			return
		}
		sdp = answer
	}
	a.res = l.response(req, 200, "OK")
	l.grantSession(req, a.res)
	l.addSDP(a.res, sdp)
	l.send2xx(a)
	if !a.offered {
		l.c.script.mediaChanged(l)
	}
}

// updated answers an UPDATE (RFC 3311 §5.2): with an offer it is a re-INVITE
// without ACK, without one a refresh.
func (l *leg) updated(req *sip.Request, tx *sip.ServerTx) {
	end := l.c.s.end
	if shortSession(req) {
		end.refuseSession(req, tx)
		return
	}
	body, status, reason := sdpBody(req)
	if status != 0 {
		end.reply(req, tx, status, reason)
		return
	}
	if c := req.Contact(); c != nil {
		l.d.target = *c.Address.Clone()
	}
	if len(body) == 0 {
		res := l.response(req, 200, "OK")
		if l.state == legUp || l.state == legAnswered {
			l.grantSession(req, res)
		}
		end.respond(tx, res)
		return
	}
	if l.inviteTx == nil && l.state == legInviting && l.agreedReliably(l.d.remoteTag) {
		l.neg.conclude() // the exchange of the INVITE is over (RFC 3311 §5.1)
	} else if l.await != nil || l.session.offering || l.state != legUp {
		// An offer while ours, or the answer to theirs, is outstanding.
		end.reply(req, tx, 491, "Request Pending")
		return
	}
	answer, err := l.takeOffer(body)
	if err != nil {
		l.log(slog.LevelInfo, "offer within call refused", "err", err)
		end.reply(req, tx, 488, "Not Acceptable Here", l.refusal...)
		return
	}
	res := l.response(req, 200, "OK")
	if l.state == legUp {
		l.grantSession(req, res)
	}
	l.addSDP(res, answer)
	end.respond(tx, res)
	l.c.script.mediaChanged(l)
}

// hangUp ends the leg in whatever state it is; status and reason are for an
// INVITE that was not answered yet.
func (l *leg) hangUp(status int, reason string, headers ...sip.Header) {
	switch l.state {
	case legIdle:
		l.ended()
	case legInviting:
		if l.inviteTx != nil {
			l.reject(status, reason, headers...)
		} else {
			l.cancel(headers...)
		}
	case legAnswered, legUp:
		if l.await == nil {
			l.bye(headers...)
			return
		}
		// RFC 3261 §15: no BYE before the ACK, or before the 2xx has timed out; nor
		// before that of a re-INVITE, whose 2xx may have to be sent again.
		l.wantBye, l.byeLater = true, headers
		l.closeMedia()
	}
}

// bye ends a confirmed dialog.
func (l *leg) bye(headers ...sip.Header) {
	l.closeMedia()
	l.state = legEnding
	req := l.d.request(sip.BYE)
	for _, h := range headers {
		req.AppendHeader(h)
	}
	l.transact(req, func(res *sip.Response, err error) {
		if res == nil || res.StatusCode >= 200 {
			l.ended()
		}
	})
}

// transact sends a request of the dialog; on is called on the call's goroutine
// for each response, and with nil when the transaction has failed. A trunk
// that asks for credentials gets them, once.
func (l *leg) transact(req *sip.Request, on func(res *sip.Response, err error)) {
	l.c.s.end.address(req, l.d.next())
	tried := false
	var handle func(res *sip.Response, err error)
	handle = func(res *sip.Response, err error) {
		if res != nil && (res.StatusCode == 401 || res.StatusCode == 407) && !tried && l.trunk != nil && l.trunk.cfg.User != "" {
			tried = true
			again := l.retry(req)
			if err := authorize(again, res, l.trunk.cfg.User, l.trunk.secret); err == nil {
				l.c.s.end.transact(again, l.posting(handle))
				return
			}
		}
		if res != nil || err != nil {
			on(res, err)
		}
	}
	l.c.s.end.transact(req, func(res *sip.Response, err error) {
		l.post(transactionMoved{l, res, err, handle})
	})
}

func (l *leg) posting(handle func(*sip.Response, error)) func(*sip.Response, error) {
	return func(res *sip.Response, err error) {
		l.post(transactionMoved{l, res, err, handle})
	}
}

// retry is the same request with the next CSeq and a branch of its own
// (RFC 3261 §22.2).
func (l *leg) retry(req *sip.Request) *sip.Request {
	l.d.localSeq++
	again := req.Clone()
	again.CSeq().SeqNo = l.d.localSeq
	again.Via().Params.Add("branch", sip.GenerateBranchN(24))
	again.Laddr = req.Laddr
	return again
}

// transactionMoved is a response, or the end, of a client transaction.
type transactionMoved struct {
	l   *leg
	res *sip.Response
	err error
	do  func(res *sip.Response, err error)
}

func (ev transactionMoved) of() *leg { return ev.l }

func (ev transactionMoved) on(*call) { ev.do(ev.res, ev.err) }

// ended releases all that the leg holds. It may be called again.
func (l *leg) ended() {
	if l.state == legEnded {
		return
	}
	l.state = legEnded
	if l.await != nil {
		l.await.timer.Stop()
		l.await = nil
	}
	if l.guardTimer != nil {
		l.guardTimer.Stop()
	}
	l.session.stop()
	l.reliable.stop()
	l.closeMedia()
	l.c.s.forget(l)
}

// mediaNotified is an event of a leg's stream.
type mediaNotified struct {
	l  *leg
	ev media.Event
}

func (ev mediaNotified) of() *leg { return ev.l }

func (ev mediaNotified) on(c *call) {
	if ev.l.stream == nil {
		return // it was closed meanwhile
	}
	switch m := ev.ev.(type) {
	case media.Played:
		c.script.played(ev.l, m)
	case media.TimedOut:
		ev.l.log(slog.LevelInfo, "media timeout", "silent", m.Silent)
		c.script.mediaTimedOut(ev.l)
	case media.DigitPressed, media.Heard:
		// Nobody asks for digits in a call: the announcement cannot be skipped
		// (S1.4-b).
	default:
		panic(fmt.Sprintf("unknown media event %T", m))
	}
}

// mediaAddr is the address that SDP names for a leg that talks through h.
func (s *Switch) mediaAddr(h hop) netip.Addr {
	for _, a := range []string{s.cfg.RTP.Advertise, s.cfg.SIP.Advertise} {
		if ip, err := netip.ParseAddr(a); err == nil {
			return ip
		}
		if ap, err := netip.ParseAddrPort(a); err == nil {
			return ap.Addr()
		}
	}
	return h.local.Addr()
}
