package pbx

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/store"
)

const (
	// sessionExpires is the interval that we ask for and the longest that we
	// grant (RFC 4028 §4 recommends it): a dead call is found within it.
	sessionExpires = 1800 * time.Second
	// sessionMin is the shortest interval that we take (RFC 4028 §5).
	sessionMin = 90 * time.Second
	// sessionMax bounds the Min-SE that a peer may force on us.
	sessionMax = 24 * time.Hour
	// sessionRetry is how long after a refresh that was refused for no good
	// reason the next one is tried.
	sessionRetry = 10 * time.Second
)

// sessionTimer is the session timer of one dialog (RFC 4028). Its leg owns it.
//
// We refresh wherever the peer leaves it to us, and also for a peer that knows
// no session timers: only a dialog that is asked now and then is known to be
// alive, and a switch that merely waits for the refreshes of others hangs up on
// healthy calls when they do not come.
type sessionTimer struct {
	interval time.Duration // agreed
	least    time.Duration // largest Min-SE that the peer has named; 0: none
	ours     bool          // we refresh
	alone    bool          // the peer keeps no timer of its own
	update   bool          // the peer's Allow names UPDATE
	expires  time.Time     // when the session does
	raised   int           // times that our interval was refused with 422
	due      *sessionDue   // the timer that is set; an older one does nothing
	timer    *time.Timer

	offering bool         // our re-INVITE has no final response yet
	ack      *sip.Request // for our last re-INVITE's 2xx, for its copies
}

// sessionDue is the timer: a refresh to send, or the end of the session.
type sessionDue struct {
	l   *leg
	end bool
}

func (ev *sessionDue) of() *leg { return ev.l }

func (ev *sessionDue) on(*call) {
	l := ev.l
	switch {
	case l.session.due != ev || l.state != legUp:
	case ev.end:
		l.expireSession("not refreshed")
	default:
		l.refreshSession()
	}
}

func (t *sessionTimer) stop() {
	t.due = nil
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *sessionTimer) set(l *leg, after time.Duration, end bool) {
	t.stop()
	ev := &sessionDue{l, end}
	t.due = ev
	t.timer = time.AfterFunc(after, func() { l.post(ev) })
}

// deadline is when a session that was not refreshed is ended (RFC 4028 §10).
func (t *sessionTimer) deadline() time.Time {
	return t.expires.Add(-min(32*time.Second, t.interval/3))
}

// start counts a session from now.
func (t *sessionTimer) start(l *leg, interval time.Duration, ours bool) {
	t.interval, t.ours, t.raised = interval, ours, 0
	t.expires = time.Now().Add(interval)
	if ours {
		t.set(l, interval/2, false)
	} else {
		t.set(l, time.Until(t.deadline()), true)
	}
}

// sessionHeader reads Session-Expires: the interval, and who refreshes ("uac",
// "uas" or nobody named). What cannot be read counts as absent.
func sessionHeader(m sip.Message) (interval time.Duration, refresher string, ok bool) {
	found := m.GetHeaders("Session-Expires")
	if len(found) == 0 {
		return 0, "", false
	}
	value, params, _ := strings.Cut(found[0].Value(), ";")
	interval, ok = deltaSeconds(value)
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(k), "refresher") {
			refresher = strings.ToLower(strings.TrimSpace(v))
		}
	}
	return interval, refresher, ok
}

// minSE reads Min-SE; 0 if there is none.
func minSE(m sip.Message) time.Duration {
	found := m.GetHeaders("Min-SE")
	if len(found) == 0 {
		return 0
	}
	value, _, _ := strings.Cut(found[0].Value(), ";")
	d, _ := deltaSeconds(value)
	return d
}

func deltaSeconds(s string) (time.Duration, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	return time.Duration(n) * time.Second, err == nil
}

// lists tells whether a list header (Supported, Require, Allow) has a token.
func lists(m sip.Message, header, token string) bool {
	return slices.ContainsFunc(m.GetHeaders(header), func(h sip.Header) bool {
		return slices.ContainsFunc(splitList(h.Value()), func(s string) bool { return strings.EqualFold(s, token) })
	})
}

// shortSession tells whether a request asks for a session that is shorter than
// we take, and can be told so (RFC 4028 §9). A short interval of somebody who
// does not know session timers is a proxy's; it is not worth losing the call.
func shortSession(req *sip.Request) bool {
	interval, _, ok := sessionHeader(req)
	return ok && interval < sessionMin && lists(req, "Supported", "timer")
}

// refuseSession answers such a request.
func (e *endpoint) refuseSession(req *sip.Request, tx *sip.ServerTx) {
	e.reply(req, tx, 422, "Session Interval Too Small", sip.NewHeader("Min-SE", seconds(sessionMin)))
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// learnAllow notes whether the peer takes UPDATE.
func (l *leg) learnAllow(m sip.Message) {
	if len(m.GetHeaders("Allow")) > 0 {
		l.session.update = lists(m, "Allow", "UPDATE")
	}
}

// grantSession puts what we agree to into the 2xx of an INVITE or UPDATE, and
// counts the session from now (RFC 4028 §9). The refresher is the peer only if
// it said so itself.
func (l *leg) grantSession(req *sip.Request, res *sip.Response) {
	l.learnAllow(req)
	knows := lists(req, "Supported", "timer")
	interval, refresher, asked := sessionHeader(req)
	if !asked || interval < sessionMin {
		interval = max(sessionExpires, minSE(req))
	}
	interval = min(interval, max(sessionExpires, minSE(req)))
	l.session.alone = !knows
	ours := !knows || refresher != "uac"
	who := "uas"
	if !ours {
		who = "uac"
	}
	if knows {
		res.AppendHeader(sip.NewHeader("Require", "timer"))
	}
	res.AppendHeader(sip.NewHeader("Session-Expires", seconds(interval)+";refresher="+who))
	l.session.start(l, interval, ours)
}

// askSession puts our wish into an INVITE or UPDATE (RFC 4028 §7.1, §7.4): the
// roles of a dialog stay as they are.
func (l *leg) askSession(req *sip.Request) {
	t := &l.session
	interval := sessionExpires
	if t.interval != 0 {
		interval = t.interval
	}
	if t.least > sessionMin {
		interval = max(interval, t.least)
		setHeader(req, "Min-SE", seconds(t.least))
	}
	setHeader(req, "Session-Expires", seconds(interval)+";refresher=uac")
}

// setHeader puts a field in the place of the one that may be there.
func setHeader(req *sip.Request, name, value string) {
	req.RemoveHeader(name)
	req.AppendHeader(sip.NewHeader(name, value))
}

// sessionGranted reads the 2xx to our INVITE or UPDATE (RFC 4028 §7.2). A peer
// that says nothing of session timers leaves the refreshing to us.
func (l *leg) sessionGranted(res *sip.Response) {
	l.learnAllow(res)
	t := &l.session
	interval, refresher, ok := sessionHeader(res)
	t.alone = !ok
	switch {
	case ok && interval < sessionMin:
		interval = sessionMin // it may not be: a refresh that is too late for the peer is the peer's fault
	case !ok && t.interval != 0:
		interval = t.interval
	case !ok:
		interval = max(sessionExpires, t.least)
	}
	t.start(l, min(interval, sessionMax), !ok || refresher != "uas")
}

// raiseSession takes a 422 into account; false if there is no use in asking
// again.
func (l *leg) raiseSession(res *sip.Response) bool {
	t := &l.session
	least := minSE(res)
	if least <= max(t.least, sessionMin) || least > sessionMax || t.raised >= 3 {
		return false
	}
	t.least = least
	t.raised++
	return true
}

// refreshSession sends an UPDATE, or a re-INVITE with the description that the
// peer knows (RFC 4028 §7.4): the same bytes, so that it sees that nothing
// changes (RFC 3264 §8).
func (l *leg) refreshSession() {
	t := &l.session
	if l.await != nil || t.offering || l.neg.offered || !l.neg.settled() {
		l.retryRefresh(time.Second)
		return
	}
	method := sip.UPDATE
	if !t.update {
		method = sip.INVITE
	}
	req := l.d.request(method)
	req.AppendHeader(l.c.s.end.contact(l.d.hop, l.d.local.User))
	req.AppendHeader(sip.NewHeader("Allow", allow))
	req.AppendHeader(sip.NewHeader("Supported", supported))
	l.askSession(req)
	if method == sip.INVITE {
		t.offering = true
		l.addSDP(req, l.neg.again())
	}
	// A peer that never comes to an end of it: the session ends on time.
	t.set(l, time.Until(t.deadline()), true)
	l.transact(req, func(res *sip.Response, err error) { l.refreshed(method, res) })
}

// refreshed takes a response to our refresh, nil if there was none.
func (l *leg) refreshed(method sip.RequestMethod, res *sip.Response) {
	t := &l.session
	if res != nil && res.StatusCode < 200 {
		return
	}
	if method == sip.INVITE {
		t.offering = false
		if res != nil && res.IsSuccess() {
			l.reoffered(res)
		} else {
			l.neg.withdraw()
		}
	}
	if l.state != legUp {
		return // it ends anyway
	}
	switch {
	case res == nil:
		l.expireSession("refresh not answered")
	case res.IsSuccess():
		if c := res.Contact(); c != nil {
			l.d.target = *c.Address.Clone() // target refresh (RFC 3261 §12.2.1.2)
		}
		l.sessionGranted(res)
	case res.StatusCode == 408 || res.StatusCode == 481:
		l.expireSession("the peer knows of no call") // RFC 4028 §10
	case res.StatusCode == 422 && l.raiseSession(res):
		t.interval = max(t.interval, t.least)
		l.retryRefresh(0)
	case res.StatusCode == 491:
		l.retryRefresh(l.glareDelay())
	case method == sip.UPDATE && (res.StatusCode == 405 || res.StatusCode == 501):
		t.update = false // whatever its Allow said
		l.retryRefresh(0)
	case t.alone:
		// It refuses the request, but it knows the call, and it has no timer that
		// could run out.
		l.log(slog.LevelInfo, "session refresh refused", "status", res.StatusCode)
		t.start(l, t.interval, true)
	default:
		l.log(slog.LevelInfo, "session refresh refused", "status", res.StatusCode)
		l.retryRefresh(sessionRetry)
	}
}

// retryRefresh tries again after d, or ends the session if it is too late then.
func (l *leg) retryRefresh(d time.Duration) {
	t := &l.session
	if left := time.Until(t.deadline()); d >= left {
		t.set(l, left, true)
		return
	}
	t.set(l, d, false)
}

// glareDelay is how long to wait after a 491 (RFC 3261 §14.1): the owner of the
// Call-ID longer than the other, in steps of 10 ms.
func (l *leg) glareDelay() time.Duration {
	if l.inviteTx == nil {
		return 2100*time.Millisecond + time.Duration(rand.IntN(191))*10*time.Millisecond
	}
	return time.Duration(rand.IntN(201)) * 10 * time.Millisecond
}

// reoffered takes the 2xx of our re-INVITE: its ACK, and the answer, in which
// the peer may have changed its mind.
func (l *leg) reoffered(res *sip.Response) {
	ack := l.d.build(sip.ACK, res.CSeq().SeqNo)
	to := l.next()
	l.c.s.end.address(ack, to)
	l.session.ack = ack
	l.c.s.end.sendACK(ack, to)
	before, held := l.params, l.held
	params, err := l.neg.accept(res.Body())
	if err != nil {
		// The session is as it was (RFC 3261 §14.1).
		l.log(slog.LevelInfo, "answer to refresh unusable", "err", err)
		return
	}
	if l.state != legUp {
		return
	}
	l.configure(params)
	if !l.params.Equal(before) || l.held != held {
		l.c.script.mediaChanged(l)
	}
}

// reacknowledge answers a copy of the 2xx of our re-INVITE (RFC 3261
// §13.2.2.4); false if it is not one.
func (l *leg) reacknowledge(res *sip.Response) bool {
	ack := l.session.ack
	if ack == nil || ack.CSeq().SeqNo != res.CSeq().SeqNo {
		return false
	}
	l.c.s.end.sendACK(ack, l.next())
	return true
}

// expireSession ends the call of a peer that is gone.
func (l *leg) expireSession(why string) {
	l.log(slog.LevelInfo, "session expired", "err", why)
	l.session.stop()
	l.c.script.sessionExpired(l)
}

// sessionExpired in a transfer ends the call only if it is the party's that
// stays; another is gone like one that hung up.
func (t *transferring) sessionExpired(l *leg) {
	if l == t.stays {
		t.stopRinging()
		t.call.end(store.CauseSessionExpired, nil)
		return
	}
	l.hangUp(408, "Request Timeout")
	t.hungUp(l, 0)
}

func (silentScript) sessionExpired(l *leg) { l.hangUp(500, "Server Internal Error") }

// again offers our last description unchanged, to refresh the session. There
// must be one.
func (n *negotiation) again() []byte {
	if !n.offered {
		n.before = negotiationTurn{n.slots, n.audio}
	}
	n.offered, n.offerDir = true, n.sentDir
	return n.sent
}
