package pbxtest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The dialog under a Call (RFC 3261 §12). Everything here is called with the
// peer locked.

func (c *Call) reach(s State) {
	if c.state >= s {
		return
	}
	c.state = s
	c.at[s] = time.Now()
	if s == Ended {
		if err := c.voice.close(); err != nil {
			c.peer.violate("close the voice: %v", err)
		}
		c.peer.forget(c)
	}
	c.peer.notify()
}

func (c *Call) finished(e End) {
	if c.state != Ended {
		c.end = e
		c.reach(Ended)
	}
}

// describe makes our next SDP.
func (c *Call) describe(d Direction) []byte {
	c.desc.direction = d
	c.offerKeys()
	return c.publish()
}

// publish counts the version up if the description is not the one that was
// last sent (RFC 3264 §8).
func (c *Call) publish() []byte {
	if c.sent != nil && !bytes.Equal(c.sent, c.desc.bytes()) {
		c.desc.version++
	}
	c.sent = c.desc.bytes()
	return c.sent
}

func (c *Call) setOffer(m *Message, sdp []byte) {
	m.Body = sdp
	m.Set("Content-Type", "application/sdp")
	if s, err := ParseSDP(sdp); err == nil { // a test may offer nonsense
		c.offered = s
		if s.Direction.receives() {
			c.voice.ready()
		}
	}
}

// newRequest builds a request within the dialog.
func (c *Call) newRequest(method string) *Message {
	c.cseq++
	m := &Message{Method: method, URI: c.target}
	m.Add("Via", c.peer.via())
	for _, r := range c.routes {
		m.Add("Route", r)
	}
	m.Add("Max-Forwards", "70")
	m.Add("From", c.local+";tag="+c.localTag)
	m.Add("To", c.remoteParty+";tag="+c.remoteTag)
	m.Add("Call-ID", c.id)
	m.Add("CSeq", fmt.Sprintf("%d %s", c.cseq, method))
	if method == "INVITE" || method == "UPDATE" || method == "REFER" {
		m.Add("Contact", "<"+c.peer.contactURI()+">")
	}
	return m
}

// next is where requests within the dialog go.
func (c *Call) next() netip.AddrPort {
	hop := c.target
	if len(c.routes) > 0 {
		hop = uriOf(c.routes[0])
	}
	if a := addrOf(hop); a.IsValid() {
		return a
	}
	return c.peer.cfg.Switch
}

func (c *Call) sendInvite(m *Message) {
	to := c.peer.cfg.Switch
	if m.ToTag() != "" {
		to = c.next()
	} else {
		c.invite = m
	}
	challenged := false
	var on func(*Message, bool)
	on = func(res *Message, again bool) {
		if res != nil && !again && !challenged && !c.cancelling && c.peer.canAnswer(res) {
			challenged = true
			c.peer.authorize(m, res)
			c.mine = c.peer.transact(m, to, on)
			return
		}
		c.onInviteResponse(m, res, again)
	}
	c.mine = c.peer.transact(m, to, on)
}

// onInviteResponse gets the responses to an INVITE or re-INVITE of ours.
func (c *Call) onInviteResponse(req, res *Message, again bool) {
	first := req.ToTag() == ""
	switch {
	case again:
	case res == nil && first:
		c.finished(End{Status: 408})
	case res == nil:
		c.final(nil)
	case res.Status == 100:
		c.sendCancel()
	case res.Status < 200:
		c.early(res)
		c.sendCancel()
	case res.Status < 300:
		c.accepted(res, first)
	default:
		c.offered = nil
		if first {
			end := End{Status: res.Status, Reason: res.Get("Reason"), ByUs: c.cancelling}
			if c.cancelling {
				end.Method = "CANCEL"
			}
			c.finished(end)
		} else if res.Status == 481 || res.Status == 408 {
			c.bye() // RFC 3261 §12.2.1.2: the dialog is gone
		}
		c.final(res)
	}
}

func (c *Call) final(res *Message) {
	if f := c.onFinal; f != nil {
		c.onFinal = nil
		f(res)
	}
}

func (c *Call) early(res *Message) {
	if !c.prack(res) {
		return
	}
	if c.remoteTag == "" {
		c.remoteTag = res.ToTag()
	} else if res.ToTag() != c.remoteTag {
		c.peer.violate("%s has another To-tag than the response before it", res)
	}
	if res.Status == 180 || res.Status == 183 {
		c.reach(Ringing)
	}
	if len(res.Body) > 0 {
		c.describedBy(res)
	}
}

func (c *Call) accepted(res *Message, first bool) {
	if first {
		if c.remoteTag != "" && res.ToTag() != c.remoteTag {
			c.peer.violate("%s has another To-tag than the response before it", res)
		}
		c.remoteTag = res.ToTag()
		c.routes = res.All("Record-Route")
		slices.Reverse(c.routes)
	}
	if contact := uriOf(res.Get("Contact")); contact != "" {
		c.target = contact
	}
	switch {
	case first && c.reliable.answered:
		if len(res.Body) > 0 {
			c.peer.violate("%s has an SDP after a reliable answer (RFC 6337 §3.1.1)", res)
		}
	case len(res.Body) == 0:
		c.peer.violate("%s has no SDP", res)
	}
	c.describedBy(res)
	// The ACK has a transaction of its own (RFC 3261 §13.2.2.4).
	num, _ := res.CSeq()
	cseq := c.cseq
	ack := c.newRequest("ACK")
	c.cseq = cseq
	ack.Set("CSeq", fmt.Sprintf("%d ACK", num))
	if c.lateAnswer != nil {
		ack.Body = c.lateAnswer
		ack.Add("Content-Type", "application/sdp")
		c.lateAnswer = nil
	}
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		if v := c.mine.req.Get(name); v != "" {
			ack.Add(name, v)
		}
	}
	c.peer.sendAck(c.mine, ack, c.next())
	if first {
		c.reach(Answered)
		if c.cancelling {
			c.bye() // the 200 crossed our CANCEL
		}
	}
	c.final(res)
}

// describedBy takes the SDP of a response to our INVITE: an answer, or an
// offer if our INVITE had none.
func (c *Call) describedBy(m *Message) {
	late := c.mine != nil && len(c.mine.req.Body) == 0 && m.Status >= 200
	if len(m.Body) == 0 {
		return
	}
	if c.offered == nil && !late {
		if string(m.Body) != c.remoteBody {
			c.peer.violate("%s has another SDP than the answer before it", m)
		}
		return
	}
	s, err := ParseSDP(m.Body)
	if err != nil {
		c.peer.violate("%s: %v", m, err)
		return
	}
	c.checkSDP(s, string(m.Body))
	if c.offered != nil {
		for _, wrong := range checkAnswer(c.offered, s) {
			c.peer.violate("%s: %s", m, wrong)
		}
		c.setRemote(s, m.Body)
		c.offered = nil
		c.flow(c.desc.direction)
		return
	}
	c.lateAnswer = c.answerTo(s, m.Body)
}

func (c *Call) setRemote(s *SDP, body []byte) {
	c.remote, c.remoteBody, c.refused = s, string(body), false
}

// answerTo takes their offer and makes our answer.
func (c *Call) answerTo(s *SDP, body []byte) []byte {
	c.setRemote(s, body)
	c.desc.codecs = nil
	for _, mine := range c.voice.cfg.Codecs {
		if slices.Contains(s.Codecs, mine) {
			c.desc.codecs = []Codec{mine}
			break
		}
	}
	if c.desc.event != 0 {
		c.desc.event = s.Event
	}
	dir := s.Direction
	if s.Audio.Addr().IsUnspecified() {
		dir = direction(dir.sends(), false) // nothing can reach them
	}
	dir = dir.answer(c.want)
	c.desc.direction = dir
	if !c.answerKeys(s) {
		c.desc.codecs = nil // which is refused
	}
	c.flow(dir)
	return c.publish()
}

// flow lets the voice do what both descriptions allow.
func (c *Call) flow(ours Direction) {
	r := c.remote
	if r == nil {
		return
	}
	m := media{remote: r.Audio, event: r.Event, codec: PCMA}
	for _, codec := range r.Codecs {
		if slices.Contains(c.voice.cfg.Codecs, codec) {
			m.codec = codec
			break
		}
	}
	m.send = ours.sends() && r.Direction.receives() && r.Audio.Port() != 0 && !r.Audio.Addr().IsUnspecified()
	m.receive = ours.receives() && r.Direction.sends() && !c.desc.zeroHold
	m.ours, m.theirs, _ = pair(c.desc.crypto, r.Crypto)
	c.voice.configure(m)
}

func (c *Call) bye() {
	m := c.newRequest("BYE")
	c.finished(End{Method: "BYE", ByUs: true})
	challenged := false
	var on func(*Message, bool)
	on = func(res *Message, again bool) {
		if res != nil && !again && !challenged && c.peer.canAnswer(res) {
			challenged = true
			c.peer.authorize(m, res)
			c.peer.transact(m, c.next(), on)
		}
	}
	c.peer.transact(m, c.next(), on)
}

// cancel gives an outgoing call up; the CANCEL waits for a first response
// (RFC 3261 §9.1).
func (c *Call) cancel() {
	if c.cancelling {
		return
	}
	c.cancelling = true
	if c.mine.progress {
		c.sendCancel()
	}
}

func (c *Call) sendCancel() {
	if !c.cancelling || c.mine.final != nil {
		return
	}
	req := c.mine.req
	m := &Message{Method: "CANCEL", URI: req.URI}
	num, _ := req.CSeq()
	m.Add("Via", req.Get("Via"))
	m.Add("Max-Forwards", "70")
	m.Add("From", req.Get("From"))
	m.Add("To", req.Get("To"))
	m.Add("Call-ID", c.id)
	m.Add("CSeq", fmt.Sprintf("%d CANCEL", num))
	if _, sent := c.peer.clients[clientKey(m)]; sent {
		return
	}
	c.peer.transact(m, c.mine.to, func(*Message, bool) {})
}

// onInvite begins an incoming call.
func (p *Peer) onInvite(tx *serverTx) {
	m := tx.req
	num, _ := m.CSeq()
	if p.bound && m.URI != p.contactURI() {
		p.violate("INVITE does not go to the Contact that we registered")
	}
	b := Behaviour{}
	if p.behave != nil {
		b = p.behave(m)
	}
	if b.Ignore {
		return
	}
	voice := &p.cfg.Voice
	if b.Voice != nil {
		voice = b.Voice
	}
	if s, err := ParseSDP(m.Body); err == nil && !voice.speaks(s) {
		p.respond(tx, 488, nil) // it may come again with another offer
		return
	}
	c, err := p.newCall(m, b.Voice, b.Say)
	if err != nil {
		p.violate("%v", err)
		p.respond(tx, 500, nil)
		return
	}
	c.localTag = p.token()
	c.remoteTag = m.FromTag()
	c.local, c.remoteParty = withoutTag(m.Get("To")), withoutTag(m.Get("From"))
	c.target = uriOf(m.Get("Contact"))
	c.routes = m.All("Record-Route")
	c.remoteCSeq = num
	c.theirs[num] = tx
	c.answerFields = b.Fields
	c.reliable.send = b.Reliable
	p.calls[c.id] = c
	if len(p.log) > 0 && p.log[len(p.log)-1].Message == m {
		c.log = append(c.log, p.log[len(p.log)-1])
	}
	p.incoming = append(p.incoming, c)
	tx.gaveUp = c.bye
	if len(m.Body) > 0 {
		if s, err := ParseSDP(m.Body); err != nil {
			p.violate("INVITE: %v", err)
			c.respond(488, nil)
			return
		} else {
			c.checkSDP(s, string(m.Body))
		}
	}
	c.behaveAs(b)
}

func (c *Call) behaveAs(b Behaviour) {
	p := c.peer
	ring := func() {
		if c.state >= Answered {
			return
		}
		if b.Early {
			c.provisional(183, c.localSDP())
		} else {
			c.provisional(180, nil)
		}
	}
	if b.Ring > 0 {
		c.provisional(100, nil)
		p.after(b.Ring, ring)
	} else if b.Ring == 0 {
		ring()
	}
	if b.Status == 0 {
		return
	}
	if b.After == 0 {
		c.respond(b.Status, b.Fields)
		return
	}
	if b.Ring < 0 {
		c.provisional(100, nil)
	}
	p.after(b.After, func() { c.respond(b.Status, b.Fields) })
}

func (c *Call) first() *serverTx {
	num, _ := c.invite.CSeq()
	return c.theirs[num]
}

func (c *Call) provisional(status int, body []byte) {
	if status > 100 && c.reliable.send {
		c.respondReliably(status, body)
	} else {
		c.peer.respond(c.first(), status, body)
	}
	if status > 100 {
		c.reach(Ringing)
	}
}

// respond sends the final response to an incoming call.
func (c *Call) respond(status int, fields []Field) {
	if c.state >= Answered {
		return
	}
	if status >= 300 {
		c.peer.respond(c.first(), status, nil, fields...)
		c.finished(End{Status: status, ByUs: true})
		return
	}
	if c.reliable.waiting != nil {
		c.reliable.then = func() { c.respond(status, fields) }
		return
	}
	body := c.localSDP()
	if c.reliable.answered {
		body = nil
	}
	if len(c.desc.codecs) == 0 {
		c.peer.respond(c.first(), 488, nil)
		c.finished(End{Status: 488, ByUs: true})
		return
	}
	c.peer.respond(c.first(), status, body, fields...)
	c.reach(Answered)
}

// localSDP is our answer to the INVITE's offer, or our offer if it had none.
func (c *Call) localSDP() []byte {
	if c.sent != nil {
		return c.sent
	}
	if len(c.invite.Body) == 0 {
		return c.offerLate(c.want)
	}
	s, err := ParseSDP(c.invite.Body)
	if err != nil {
		return nil // refused on arrival
	}
	return c.answerTo(s, c.invite.Body)
}

func (c *Call) offerLate(d Direction) []byte {
	c.desc.codecs = c.voice.cfg.Codecs
	body := c.describe(d)
	if s, err := ParseSDP(body); err == nil {
		c.offered = s
	}
	return body
}

// onAck takes the ACK to a 2xx; after a late offer it holds the answer.
func (c *Call) onAck(tx *serverTx, ack *Message) {
	if len(tx.req.Body) > 0 {
		return
	}
	if len(ack.Body) == 0 {
		c.peer.violate("ACK without the answer to our offer")
		return
	}
	c.describedBy(ack)
}

func (c *Call) onCancel(invite *serverTx, m *Message) {
	if invite.last != nil && invite.last.Status >= 200 {
		return // too late; the 200 to the CANCEL was sent
	}
	c.peer.respond(invite, 487, nil)
	c.finished(End{Method: "CANCEL", Status: 487, Reason: m.Get("Reason")})
}

// onRequest takes a request of the other side within the dialog.
func (c *Call) onRequest(tx *serverTx) {
	p, m := c.peer, tx.req
	c.checkInDialog(m)
	if c.state == Ended && m.Method != "BYE" {
		p.respond(tx, 481, nil)
		return
	}
	switch m.Method {
	case "BYE":
		p.respond(tx, 200, nil)
		if inv := c.first(); !c.outgoing && (inv.last == nil || inv.last.Status < 200) {
			p.violate("BYE before the call was answered")
		}
		c.finished(End{Method: "BYE", Reason: m.Get("Reason")})
	case "INVITE", "UPDATE":
		c.onOffer(tx)
	case "OPTIONS", "INFO", "NOTIFY", "MESSAGE":
		p.respond(tx, 200, nil)
	case "PRACK":
		c.pracked(tx)
	case "REFER":
		p.respond(tx, 603, nil)
	default:
		p.respond(tx, 405, nil)
	}
}

// onOffer takes a re-INVITE or an UPDATE.
func (c *Call) onOffer(tx *serverTx) {
	p, m := c.peer, tx.req
	if a := uriOf(m.Get("Contact")); a != "" {
		c.target = a
	}
	if m.Method == "INVITE" {
		num, _ := m.CSeq()
		c.theirs[num] = tx
		tx.gaveUp = c.bye
	}
	if len(m.Body) == 0 {
		var body []byte
		if m.Method == "INVITE" {
			body = c.offerLate(c.want)
		}
		p.respond(tx, 200, body)
		return
	}
	if c.offered != nil || c.mine != nil && c.mine.req.Method == "INVITE" && c.mine.final == nil {
		c.refused = true
		p.respond(tx, 491, nil) // RFC 3261 §14.2
		return
	}
	s, err := ParseSDP(m.Body)
	if err != nil {
		p.violate("%s: %v", m.Method, err)
		p.respond(tx, 488, nil)
		return
	}
	c.checkSDP(s, string(m.Body))
	body := c.answerTo(s, m.Body)
	if len(c.desc.codecs) == 0 {
		c.refused = true
		p.respond(tx, 488, nil)
		return
	}
	p.respond(tx, 200, body)
}

// withoutTag takes the tag off a From or To value.
func withoutTag(v string) string {
	parts := splitOutside(v, ';')
	kept := parts[:1]
	for _, part := range parts[1:] {
		if k, _, _ := strings.Cut(part, "="); !eq(k, "tag") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}
