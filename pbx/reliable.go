package pbx

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// reliability is the state of reliable provisional responses of one leg
// (RFC 3262): those that we send, and those of the peer. Its leg owns it.
//
// We send them only to a caller that requires it: whoever merely supports them
// hears the same ringing without. Trunks' calls are answered without any
// provisional response, so that a required 100rel has nothing to hold on to
// there (RFC 3262 §3).
type reliability struct {
	// UAS
	last     uint32       // RSeq last used; 0: none
	waiting  *reliable1xx // sent, without its PRACK
	queue    []*sip.Response
	then     func() // the 2xx that must wait for a PRACK
	answered bool   // a reliable response had our answer
	told     map[string]bool

	// UAC, by To-tag: each fork counts for itself
	seen   map[string]uint32 // RSeq of the last in order
	agreed map[string]bool   // a reliable response had the peer's answer
}

// reliable1xx is one response that is sent again until its PRACK comes.
type reliable1xx struct {
	rseq     uint32
	res      *sip.Response
	sdp      bool
	interval time.Duration
	giveUp   time.Time
	timer    *time.Timer
}

// provision sends a provisional response as the caller wants it.
func (l *leg) provision(res *sip.Response) {
	if !lists(l.invite, "Require", "100rel") {
		l.c.s.end.respond(l.inviteTx, res)
		return
	}
	if len(l.invite.Body()) == 0 {
		// It would have to carry our offer (RFC 3262 §5), which the 2xx makes in
		// time; without any provisional response the call stands as well.
		return
	}
	r := &l.reliable
	key := strconv.Itoa(res.StatusCode) + string(res.Body())
	if r.told[key] {
		return // it has been said, and it is known to have been heard
	}
	if r.told == nil {
		r.told = map[string]bool{}
	}
	r.told[key] = true
	r.queue = append(r.queue, res)
	l.sendReliable()
}

// sendReliable sends the next response; one at a time (RFC 3262 §3).
func (l *leg) sendReliable() {
	r := &l.reliable
	if r.waiting != nil || len(r.queue) == 0 {
		return
	}
	res := r.queue[0]
	r.queue = r.queue[1:]
	if r.last == 0 {
		r.last = rand.Uint32N(1 << 30)
	}
	r.last++
	res.AppendHeader(sip.NewHeader("Require", "100rel"))
	res.AppendHeader(sip.NewHeader("RSeq", strconv.FormatUint(uint64(r.last), 10)))
	w := &reliable1xx{rseq: r.last, res: res, sdp: len(res.Body()) > 0, interval: sip.T1, giveUp: time.Now().Add(64 * sip.T1)}
	r.waiting = w
	l.c.s.end.respond(l.inviteTx, res)
	w.timer = time.AfterFunc(w.interval, func() { l.post(prackMissing{l, w}) })
}

// prackMissing is the timer of sendReliable.
type prackMissing struct {
	l *leg
	w *reliable1xx
}

func (ev prackMissing) of() *leg { return ev.l }

func (ev prackMissing) on(c *call) {
	l, w := ev.l, ev.w
	if l.reliable.waiting != w || l.state != legInviting {
		return
	}
	if !time.Now().Before(w.giveUp) {
		// RFC 3262 §3: the INVITE is refused with a 5xx.
		l.log(slog.LevelInfo, "no PRACK for a provisional response")
		c.rec.SIPStatus = 504
		c.script.noAck(l)
		return
	}
	c.s.end.respond(l.inviteTx, w.res)
	w.interval *= 2 // without a bound, unlike a 2xx's
	w.timer.Reset(min(w.interval, time.Until(w.giveUp)))
}

// holdAnswer keeps a 2xx back whose INVITE has a description of ours under way
// without its PRACK (RFC 3262 §3); send is called when it has come. Without
// one, the 2xx ends the repetition of what is outstanding.
func (l *leg) holdAnswer(send func()) bool {
	r := &l.reliable
	if r.waiting == nil {
		return false
	}
	if r.waiting.sdp {
		r.then = send
		return true
	}
	r.waiting.timer.Stop()
	r.queue = nil
	return false
}

func (r *reliability) stop() {
	if r.waiting != nil {
		r.waiting.timer.Stop()
	}
	r.queue, r.then = nil, nil
}

// pracked answers a PRACK (RFC 3262 §3). An offer in it (RFC 3262 §5) is
// answered in its 200.
func (l *leg) pracked(req *sip.Request, tx *sip.ServerTx) {
	end, r := l.c.s.end, &l.reliable
	w := r.waiting
	if w == nil || rack(req) != fmt.Sprintf("%d %d INVITE", w.rseq, l.invite.CSeq().SeqNo) {
		end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	w.timer.Stop()
	r.waiting = nil
	r.answered = r.answered || w.sdp
	body, status, reason := sdpBody(req)
	switch {
	case status != 0:
		end.reply(req, tx, status, reason)
	case len(body) == 0:
		end.reply(req, tx, 200, "OK")
	default:
		answer, err := l.takeOffer(body)
		if err != nil {
			end.reply(req, tx, 488, "Not Acceptable Here", l.refusal...)
			break
		}
		res := sip.NewResponseFromRequest(req, 200, "OK", nil)
		l.addSDP(res, answer)
		end.respond(tx, res)
		l.c.script.mediaChanged(l)
	}
	if then := r.then; then != nil {
		r.queue, r.then = nil, nil
		then()
		return
	}
	if l.state == legInviting {
		l.sendReliable()
	}
}

// rack reads RAck with its parts one blank apart; empty if there is none.
func rack(req *sip.Request) string {
	h := req.GetHeader("RAck")
	if h == nil {
		return ""
	}
	parts := strings.Fields(h.Value())
	if len(parts) == 3 {
		for i, p := range parts[:2] {
			if n, err := strconv.ParseUint(p, 10, 32); err == nil {
				parts[i] = strconv.FormatUint(n, 10)
			}
		}
	}
	return strings.Join(parts, " ")
}

// inOrder judges a provisional response of the peer (RFC 3262 §4): false means
// a copy, or one that came before another that is missing still, which is sent
// again. rseq is 0 for an unreliable one.
func (l *leg) inOrder(res *sip.Response) (rseq uint32, ok bool) {
	h := res.GetHeader("RSeq")
	if h == nil || !lists(res, "Require", "100rel") {
		return 0, true
	}
	n, err := strconv.ParseUint(strings.TrimSpace(h.Value()), 10, 32)
	tag, tagged := res.To().Params.Get("tag")
	if err != nil || n == 0 || !tagged || tag == "" {
		return 0, true // it cannot be acknowledged
	}
	rseq = uint32(n)
	if last, any := l.reliable.seen[tag]; any && rseq != last+1 {
		return rseq, false
	}
	if l.reliable.seen == nil {
		l.reliable.seen, l.reliable.agreed = map[string]uint32{}, map[string]bool{}
	}
	l.reliable.seen[tag] = rseq
	return rseq, true
}

// prack acknowledges a reliable provisional response (RFC 3262 §4), of the
// dialog that it has just confirmed.
func (l *leg) prack(res *sip.Response, rseq uint32) {
	req := l.d.request(sip.PRACK)
	req.AppendHeader(sip.NewHeader("RAck", fmt.Sprintf("%d %d %s", rseq, res.CSeq().SeqNo, res.CSeq().MethodName)))
	l.transact(req, func(res *sip.Response, err error) {
		if err != nil || res != nil && res.StatusCode >= 300 {
			// The INVITE goes on: its final response decides.
			l.log(slog.LevelInfo, "PRACK refused", "err", err)
		}
	})
}

// agreedReliably tells whether the answer to our offer came in a reliable
// response of this fork: it was the answer, and what a 2xx repeats is none.
func (l *leg) agreedReliably(tag string) bool { return l.reliable.agreed[tag] }
