package pbxtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// reliable is what a call knows of reliable provisional responses (RFC 3262),
// its own and those of the other side.
type reliable struct {
	send     bool // ours are
	waiting  *Message
	rseq     int
	then     func() // after the PRACK
	answered bool   // a reliable response had the answer
	seen     int    // RSeq of the last that came
}

// prack acknowledges a reliable provisional response; false if it is a copy.
func (c *Call) prack(res *Message) bool {
	if !strings.Contains(res.Get("Require"), "100rel") {
		return true
	}
	p := c.peer
	if invite := c.mine.req; !strings.Contains(invite.Get("Supported")+invite.Get("Require"), "100rel") {
		p.violate("%s is reliable, which we do not support", res)
	}
	rseq, err := strconv.Atoi(res.Get("RSeq"))
	if err != nil || rseq < 1 || rseq >= 1<<31 {
		p.violate("%s has RSeq %q", res, res.Get("RSeq"))
		return true
	}
	if rseq == c.reliable.seen {
		return false
	}
	if c.reliable.seen != 0 && rseq != c.reliable.seen+1 {
		p.violate("%s has RSeq %d after %d", res, rseq, c.reliable.seen)
	}
	c.reliable.seen = rseq
	if len(res.Body) > 0 {
		c.reliable.answered = true
	}
	c.remoteTag = res.ToTag()
	if contact := uriOf(res.Get("Contact")); contact != "" {
		c.target = contact
	}
	m := c.newRequest("PRACK")
	m.Add("RAck", fmt.Sprintf("%d %s", rseq, res.Get("CSeq")))
	p.transact(m, c.next(), func(res *Message, again bool) {
		if !again && (res == nil || res.Status != 200) {
			p.violate("PRACK answered %v", res)
		}
	})
	return true
}

// respondReliably sends a provisional response until its PRACK comes.
func (c *Call) respondReliably(status int, body []byte) {
	p, tx := c.peer, c.first()
	if supported := c.invite.Get("Supported") + c.invite.Get("Require"); !strings.Contains(supported, "100rel") {
		p.violate("INVITE does not support 100rel")
	}
	if c.reliable.rseq == 0 {
		c.reliable.rseq = 700
	}
	c.reliable.rseq++
	p.respond(tx, status, body, Field{"Require", "100rel"}, Field{"RSeq", strconv.Itoa(c.reliable.rseq)})
	res, raw := tx.last, tx.lastRaw
	c.reliable.waiting = res
	c.reliable.answered = c.reliable.answered || len(body) > 0
	interval := p.cfg.T1
	var again func()
	again = func() {
		if c.reliable.waiting != res || c.state >= Answered {
			return
		}
		p.write(res, raw, tx.from, true)
		interval *= 2
		p.after(interval, again)
	}
	p.after(interval, again)
}

// pracked takes the PRACK of the other side.
func (c *Call) pracked(tx *serverTx) {
	w := c.reliable.waiting
	if w == nil || tx.req.Get("RAck") != w.Get("RSeq")+" "+w.Get("CSeq") {
		c.peer.violate("PRACK with RAck %q", tx.req.Get("RAck"))
		c.peer.respond(tx, 481, nil)
		return
	}
	c.reliable.waiting = nil
	c.peer.respond(tx, 200, nil)
	if then := c.reliable.then; then != nil {
		c.reliable.then = nil
		// The 2xx a moment later: both at once may overtake each other.
		c.peer.after(10*time.Millisecond, then)
	}
}
