package pbxtest

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	t2      = 4 * time.Second
	allowed = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK, NOTIFY, MESSAGE, REFER"
)

// clientTx is a request of ours (RFC 3261 §17.1).
type clientTx struct {
	req      *Message
	raw      []byte
	to       netip.AddrPort
	interval time.Duration
	timer    *time.Timer // next retransmission
	expiry   *time.Timer // timer B or F
	progress bool        // a provisional response came
	final    *Message
	finalRaw []byte
	ack      []byte // what acknowledged the final response of an INVITE
	ackMsg   *Message
	ackTo    netip.AddrPort
	// on gets each response, with again set for a repeated final one, and nil
	// when there was none in time.
	on func(m *Message, again bool)
}

// serverTx is a request of the other side (RFC 3261 §17.2).
type serverTx struct {
	req     *Message
	raw     []byte
	from    netip.AddrPort
	last    *Message // last response, nil if none
	lastRaw []byte
	acked   bool
	timer   *time.Timer
	gaveUp  func() // called when no ACK came to a 2xx
}

func serverKey(m *Message, method string) string {
	sentBy, _, _ := strings.Cut(m.Get("Via"), ";")
	return m.Branch() + "|" + strings.ToLower(sentBy) + "|" + method
}

func clientKey(m *Message) string {
	_, method := m.CSeq()
	return m.Branch() + "|" + method
}

// known reports whether a received message is a retransmission.
func (p *Peer) known(m *Message) bool {
	if m.Status != 0 {
		tx := p.clients[clientKey(m)]
		return tx != nil && tx.final != nil && tx.final.Status == m.Status
	}
	if m.Method == "ACK" {
		tx := p.acknowledged(m)
		return tx != nil && tx.acked
	}
	return p.servers[serverKey(m, m.Method)] != nil
}

// transact sends a request and repeats it by timers A and E.
func (p *Peer) transact(req *Message, to netip.AddrPort, on func(*Message, bool)) *clientTx {
	tx := &clientTx{req: req.clone(), raw: req.Bytes(), to: to, interval: p.cfg.T1, on: on}
	key := clientKey(req)
	p.clients[key] = tx
	p.write(tx.req, tx.raw, to, false)
	tx.timer = p.after(tx.interval, func() { p.repeat(tx) })
	tx.expiry = p.after(64*p.cfg.T1, func() {
		if tx.final != nil || req.Method == "INVITE" && tx.progress {
			return
		}
		tx.timer.Stop()
		delete(p.clients, key)
		p.violate("no response to %s within 64*T1", req.Method)
		on(nil, false)
	})
	return tx
}

func (p *Peer) repeat(tx *clientTx) {
	invite := tx.req.Method == "INVITE"
	if tx.final != nil || invite && tx.progress || p.reliable() {
		return
	}
	tx.interval *= 2
	if !invite && (tx.interval > t2 || tx.progress) {
		tx.interval = t2
	}
	p.write(tx.req, tx.raw, tx.to, true)
	tx.timer = p.after(tx.interval, func() { p.repeat(tx) })
}

// stateless reports whether a copy of the response may differ from the first: a
// challenge need not be remembered (RFC 3261 §26.3.2.4), so a repeated request is
// challenged anew, and a repeated CANCEL may draw another To-tag.
func stateless(m *Message) bool {
	_, method := m.CSeq()
	return m.Status == 401 || m.Status == 407 || method == "CANCEL"
}

func (p *Peer) onResponse(m *Message, raw []byte) {
	tx := p.clients[clientKey(m)]
	if tx == nil {
		p.violate("%s belongs to no request of ours", m)
		return
	}
	p.checkResponse(tx.req, m)
	if m.Status < 200 {
		if tx.final == nil {
			tx.progress = true
			tx.on(m, false)
		}
		return
	}
	again := tx.final != nil
	if again && tx.final.Status != m.Status {
		p.violate("%s after %s", m, tx.final)
		return
	}
	if again && !bytes.Equal(raw, tx.finalRaw) && !stateless(m) {
		p.violate("repeated %s differs from the first", m)
	}
	if !again {
		tx.final, tx.finalRaw = m, raw
		tx.timer.Stop()
		tx.expiry.Stop()
		p.after(64*p.cfg.T1, func() { delete(p.clients, clientKey(tx.req)) })
	}
	if tx.req.Method == "INVITE" {
		if again && tx.ack != nil {
			p.write(tx.ackMsg, tx.ack, tx.ackTo, true)
		}
		if !again && m.Status >= 300 {
			p.ackFailure(tx, m)
		}
	}
	tx.on(m, again)
}

// ackFailure acknowledges a final response that is not 2xx
// (RFC 3261 §17.1.1.3): same branch, same Request-URI, the response's To.
func (p *Peer) ackFailure(tx *clientTx, res *Message) {
	ack := &Message{Method: "ACK", URI: tx.req.URI}
	num, _ := tx.req.CSeq()
	ack.Add("Via", tx.req.Get("Via"))
	for _, r := range tx.req.All("Route") {
		ack.Add("Route", r)
	}
	ack.Add("Max-Forwards", "70")
	ack.Add("From", tx.req.Get("From"))
	ack.Add("To", res.Get("To"))
	ack.Add("Call-ID", tx.req.CallID())
	ack.Add("CSeq", fmt.Sprintf("%d ACK", num))
	p.sendAck(tx, ack, tx.to)
}

func (p *Peer) sendAck(tx *clientTx, ack *Message, to netip.AddrPort) {
	tx.ack, tx.ackMsg, tx.ackTo = ack.Bytes(), ack, to
	p.write(ack, tx.ack, to, false)
}

// open makes the server transaction of a new request.
func (p *Peer) open(m *Message, raw []byte, from netip.AddrPort) *serverTx {
	tx := &serverTx{req: m, raw: raw, from: from}
	key := serverKey(m, m.Method)
	p.servers[key] = tx
	if m.Method != "INVITE" {
		p.after(64*p.cfg.T1, func() { delete(p.servers, key) })
	}
	return tx
}

// repeated answers a retransmission with the last response.
func (p *Peer) repeated(tx *serverTx, raw []byte) {
	if !bytes.Equal(raw, tx.raw) {
		p.violate("repeated %s differs from the first", tx.req.Method)
	}
	if tx.lastRaw != nil {
		p.write(tx.last, tx.lastRaw, tx.from, true)
	}
}

// respond sends a response. A final one to an INVITE is repeated until its
// ACK (timers G and H; RFC 3261 §13.3.1.4).
func (p *Peer) respond(tx *serverTx, status int, body []byte, fields ...Field) {
	if tx.last != nil && tx.last.Status >= 200 {
		return
	}
	m := &Message{Status: status, Reason: reason(status), Body: body}
	vias := tx.req.All("Via")
	if len(vias) > 0 {
		if v, ok := lookupParam(vias[0], "rport"); ok && v == "" {
			parts := splitOutside(vias[0], ';')
			for i, part := range parts {
				if eq(part, "rport") {
					parts[i] = fmt.Sprintf("rport=%d", tx.from.Port())
				}
			}
			vias[0] = strings.Join(parts, ";") + ";received=" + tx.from.Addr().String()
		}
	}
	for _, v := range vias {
		m.Add("Via", v)
	}
	for _, v := range tx.req.All("Record-Route") {
		m.Add("Record-Route", v)
	}
	m.Add("From", tx.req.Get("From"))
	to := tx.req.Get("To")
	if status > 100 && param(to, "tag") == "" {
		to += ";tag=" + p.tagFor(tx.req)
	}
	m.Add("To", to)
	m.Add("Call-ID", tx.req.CallID())
	m.Add("CSeq", tx.req.Get("CSeq"))
	if tx.req.Method == "INVITE" && status > 100 && status < 300 || tx.req.Method == "UPDATE" && status < 300 {
		m.Add("Contact", "<"+p.contactURI()+">")
	}
	if tx.req.Method == "OPTIONS" || tx.req.Method == "INVITE" && status == 200 || status == 405 || status == 501 {
		m.Add("Allow", allowed)
	}
	for _, f := range fields {
		m.Add(f.Name, f.Value)
	}
	if len(body) > 0 && m.Get("Content-Type") == "" {
		m.Add("Content-Type", "application/sdp")
	}
	tx.last, tx.lastRaw = m, m.Bytes()
	p.write(m, tx.lastRaw, tx.from, false)
	if tx.req.Method == "INVITE" && status >= 200 {
		began, interval := time.Now(), p.cfg.T1
		var again func()
		again = func() {
			if tx.acked {
				return
			}
			if time.Since(began) >= 64*p.cfg.T1 {
				p.violate("no ACK to %s", m)
				if tx.gaveUp != nil {
					tx.gaveUp()
				}
				return
			}
			if status < 300 || !p.reliable() {
				p.write(m, tx.lastRaw, tx.from, true)
			}
			interval = min(2*interval, t2)
			tx.timer = p.after(interval, again)
		}
		tx.timer = p.after(interval, again)
		p.after(128*p.cfg.T1, func() { delete(p.servers, serverKey(tx.req, "INVITE")) })
	}
}

// tagFor is our To-tag for a request: the call's, or one drawn from the
// request so that it is the same in every response.
func (p *Peer) tagFor(req *Message) string {
	if c := p.calls[req.CallID()]; c != nil && !c.outgoing {
		return c.localTag
	}
	if tx := p.servers[serverKey(req, req.Method)]; tx != nil && tx.last != nil && tx.last.ToTag() != "" {
		return tx.last.ToTag()
	}
	return p.token()
}

// acknowledged finds the INVITE that an ACK is for: by branch after a failure,
// by dialog and CSeq after a 2xx.
func (p *Peer) acknowledged(ack *Message) *serverTx {
	if tx := p.servers[serverKey(ack, "INVITE")]; tx != nil {
		return tx
	}
	num, _ := ack.CSeq()
	c := p.calls[ack.CallID()]
	if c == nil {
		return nil
	}
	return c.theirs[num]
}

func (p *Peer) onAck(ack *Message) {
	tx := p.acknowledged(ack)
	if tx == nil || tx.last == nil || tx.last.Status < 200 {
		p.violate("ACK for no INVITE that was answered")
		return
	}
	p.checkAck(tx, ack)
	if tx.acked {
		return
	}
	tx.acked = true
	tx.timer.Stop()
	if c := p.calls[ack.CallID()]; c != nil && tx.last.Status < 300 {
		c.onAck(tx, ack)
	}
	p.notify()
}

// onRequest handles a new request other than ACK.
func (p *Peer) onRequest(tx *serverTx) {
	m := tx.req
	c := p.calls[m.CallID()]
	switch {
	case m.Method == "CANCEL":
		p.onCancel(tx)
	case m.Method == "NOTIFY" && p.subs[m.CallID()] != nil:
		p.subs[m.CallID()].onNotify(tx)
	case m.Method == "INVITE" && m.ToTag() == "":
		if c != nil && c.end.Status != 401 && c.end.Status != 407 && c.end.Status != 422 { // it comes back with credentials (RFC 3261 §22.2), or a longer session (RFC 4028 §7.3)
			p.violate("second INVITE without To-tag for one Call-ID")
			p.respond(tx, 482, nil)
			return
		}
		p.onInvite(tx)
	case m.ToTag() != "":
		if c == nil || m.ToTag() != c.localTag || c.remoteTag != "" && m.FromTag() != c.remoteTag {
			p.violate("%s in a dialog that does not exist", m.Method)
			p.respond(tx, 481, nil)
			return
		}
		c.onRequest(tx)
	case m.Method == "OPTIONS":
		p.respond(tx, 200, nil, Field{"Accept", "application/sdp"})
	case m.Method == "NOTIFY", m.Method == "MESSAGE", m.Method == "INFO":
		p.respond(tx, 200, nil)
	case m.Method == "REGISTER":
		// The registrar of a carrier with a registering trunk.
		expires := m.Get("Expires")
		if expires == "" {
			expires = "3600"
		}
		p.respond(tx, 200, nil, Field{"Contact", m.Get("Contact") + ";expires=" + expires})
	case m.Method == "BYE", m.Method == "UPDATE":
		p.violate("%s without a To-tag", m.Method)
		p.respond(tx, 481, nil)
	default:
		p.respond(tx, 405, nil)
	}
}

func (p *Peer) onCancel(tx *serverTx) {
	invite := p.servers[serverKey(tx.req, "INVITE")]
	if invite == nil {
		p.violate("CANCEL for no INVITE")
		p.respond(tx, 481, nil)
		return
	}
	p.checkCancel(invite, tx.req)
	p.respond(tx, 200, nil)
	if c := p.calls[invite.req.CallID()]; c != nil {
		c.onCancel(invite, tx.req)
	}
}

func reason(status int) string {
	if r, ok := reasons[status]; ok {
		return r
	}
	return "Other"
}

var reasons = map[int]string{
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
	200: "OK", 202: "Accepted", 301: "Moved Permanently", 302: "Moved Temporarily", 400: "Bad Request",
	401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 407: "Proxy Authentication Required",
	408: "Request Timeout", 410: "Gone", 415: "Unsupported Media Type", 420: "Bad Extension", 422: "Session Interval Too Small",
	423: "Interval Too Brief", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
	483: "Too Many Hops", 484: "Address Incomplete", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
	491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Server Time-out", 600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}
