package pbxtest

import (
	"strconv"
	"strings"
)

// checkMessage looks for what any message must have (RFC 3261 §8.1.1,
// RFC 3261 §20.14). It reports false if the message cannot be handled at all.
func (p *Peer) checkMessage(m *Message, raw []byte) bool {
	usable := true
	for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
		if n := len(m.All(name)); n != 1 {
			p.violate("%s has %d %s fields", m, n, name)
			usable = false
		}
	}
	if len(m.All("Via")) == 0 {
		p.violate("%s has no Via", m)
		usable = false
	}
	num, method := m.CSeq()
	if method == "" || num >= 1<<31 {
		p.violate("%s has CSeq %q", m, m.Get("CSeq"))
		usable = false
	}
	if !usable {
		return false
	}
	if !strings.HasPrefix(m.Branch(), "z9hG4bK") {
		p.violate("%s has Via branch %q", m, m.Branch())
	}
	if m.FromTag() == "" {
		p.violate("%s has no From-tag", m)
	}
	length := m.All("Content-Length")
	if len(length) != 1 || length[0] != strconv.Itoa(len(m.Body)) {
		p.violate("%s has Content-Length %q with a body of %d bytes", m, length, len(m.Body))
	}
	if len(m.Body) > 0 && m.Get("Content-Type") == "" {
		p.violate("%s has a body without Content-Type", m)
	}
	if len(raw) > 1300 && m.Status == 0 && !p.reliable() && !p.cfg.Large {
		p.violate("%s of %d bytes over UDP (RFC 3261 §18.1.1)", m, len(raw))
	}
	if m.Status != 0 {
		return true
	}
	if method != m.Method {
		p.violate("%s has CSeq method %s", m, method)
		return false
	}
	if n, err := strconv.Atoi(m.Get("Max-Forwards")); err != nil || n < 1 || n > 255 {
		p.violate("%s has Max-Forwards %q", m, m.Get("Max-Forwards"))
	}
	switch m.Method {
	case "INVITE", "SUBSCRIBE", "UPDATE", "REFER":
		p.checkContact(m)
	}
	return true
}

func (p *Peer) checkContact(m *Message) {
	contacts := m.All("Contact")
	if len(contacts) != 1 || len(splitOutside(contacts[0], ',')) != 1 {
		p.violate("%s has %d Contacts", m, len(contacts))
		return
	}
	if a := addrOf(uriOf(contacts[0])); !a.IsValid() || a.Addr().IsUnspecified() {
		p.violate("%s has a Contact without an address to reach", m)
	}
}

// checkResponse compares a response with its request (RFC 3261 §8.2.6.2,
// RFC 3581 §4).
func (p *Peer) checkResponse(req, m *Message) {
	vias := m.All("Via")
	if len(vias) != 1 {
		p.violate("%s has %d Via fields, the request had 1", m, len(vias))
	}
	if got, want := bareVia(vias[0]), bareVia(req.Get("Via")); got != want {
		p.violate("%s has Via %q, the request had %q", m, got, want)
	}
	if _, asked := lookupParam(req.Get("Via"), "rport"); asked {
		if param(vias[0], "rport") != strconv.Itoa(int(p.addr.Port())) || param(vias[0], "received") != p.addr.Addr().String() {
			p.violate("%s has rport %q received %q, sent from %v", m, param(vias[0], "rport"), param(vias[0], "received"), p.addr)
		}
	}
	for _, name := range []string{"Call-ID", "CSeq"} {
		if m.Get(name) != req.Get(name) {
			p.violate("%s has %s %q, the request had %q", m, name, m.Get(name), req.Get(name))
		}
	}
	if uriOf(m.Get("From")) != uriOf(req.Get("From")) || m.FromTag() != req.FromTag() {
		p.violate("%s has another From than the request", m)
	}
	if uriOf(m.Get("To")) != uriOf(req.Get("To")) {
		p.violate("%s has another To than the request", m)
	}
	if m.Status > 100 && m.ToTag() == "" {
		p.violate("%s has no To-tag", m)
	}
	if req.ToTag() != "" && m.ToTag() != req.ToTag() && m.Status != 100 {
		p.violate("%s has To-tag %q, the request had %q", m, m.ToTag(), req.ToTag())
	}
	if req.Method == "INVITE" && m.Status > 100 && m.Status < 300 {
		p.checkContact(m)
	}
	needed := map[int]string{401: "WWW-Authenticate", 407: "Proxy-Authenticate", 405: "Allow", 420: "Unsupported", 423: "Min-Expires", 422: "Min-SE"}
	if name := needed[m.Status]; name != "" && m.Get(name) == "" {
		p.violate("%s has no %s", m, name)
	}
}

// bareVia is a Via without what a response adds to it.
func bareVia(v string) string {
	var kept []string
	for _, part := range splitOutside(v, ';') {
		if k, _, _ := strings.Cut(part, "="); eq(k, "rport") || eq(k, "received") {
			continue
		}
		kept = append(kept, part)
	}
	return strings.Join(kept, ";")
}

// checkAck compares an ACK with the INVITE and its final response
// (RFC 3261 §13.2.2.4, RFC 3261 §17.1.1.3).
func (p *Peer) checkAck(tx *serverTx, ack *Message) {
	num, _ := tx.req.CSeq()
	if n, _ := ack.CSeq(); n != num {
		p.violate("ACK has CSeq %d, the INVITE %d", n, num)
	}
	if ack.ToTag() != tx.last.ToTag() {
		p.violate("ACK has To-tag %q, the %s %q", ack.ToTag(), tx.last, tx.last.ToTag())
	}
	if ack.FromTag() != tx.req.FromTag() {
		p.violate("ACK has From-tag %q, the INVITE %q", ack.FromTag(), tx.req.FromTag())
	}
	if tx.last.Status >= 300 {
		if ack.URI != tx.req.URI {
			p.violate("ACK to %s has another Request-URI than the INVITE", tx.last)
		}
		if len(ack.All("Via")) != 1 || ack.Branch() != tx.req.Branch() {
			p.violate("ACK to %s has Via branch %q, the INVITE %q", tx.last, ack.Branch(), tx.req.Branch())
		}
		return
	}
	if ack.Branch() == tx.req.Branch() {
		p.violate("ACK to %s reuses the branch of the INVITE", tx.last)
	}
	if ack.URI != p.contactURI() {
		p.violate("ACK to %s does not go to our Contact", tx.last)
	}
}

// checkCancel compares a CANCEL with its INVITE (RFC 3261 §9.1).
func (p *Peer) checkCancel(invite *serverTx, m *Message) {
	n, _ := m.CSeq()
	num, _ := invite.req.CSeq()
	switch {
	case n != num:
		p.violate("CANCEL has CSeq %d, the INVITE %d", n, num)
	case m.URI != invite.req.URI || m.CallID() != invite.req.CallID():
		p.violate("CANCEL has another Request-URI or Call-ID than the INVITE")
	case m.Get("From") != invite.req.Get("From") || m.Get("To") != invite.req.Get("To"):
		p.violate("CANCEL has another From or To than the INVITE")
	case m.Get("Require") != "" || len(m.Body) > 0:
		p.violate("CANCEL has a Require or a body")
	}
}

// checkInDialog looks at a request of the other side within a call
// (RFC 3261 §12.2).
func (c *Call) checkInDialog(m *Message) {
	num, _ := m.CSeq()
	if c.remoteCSeq != 0 && num <= c.remoteCSeq {
		c.peer.violate("%s has CSeq %d after %d", m.Method, num, c.remoteCSeq)
	}
	c.remoteCSeq = max(num, c.remoteCSeq)
	if m.URI != c.peer.contactURI() {
		c.peer.violate("%s in a dialog does not go to our Contact", m.Method)
	}
}

// checkSDP looks at a description of the other side: it names media that can
// be reached, and its o= line counts the changes (RFC 3264 §8).
func (c *Call) checkSDP(s *SDP, body string) {
	switch old := c.remote; {
	case old == nil:
	case s.Session != old.Session:
		c.peer.violate("o= line changed from %q to %q in a dialog", old.Session, s.Session)
	case body != c.remoteBody && s.Version != old.Version+1 && !(c.refused && s.Version > old.Version):
		c.peer.violate("SDP changed but its version went from %d to %d", old.Version, s.Version)
	}
	if s.Audio.Addr().Is4() != c.peer.addr.Addr().Is4() || s.Audio.Addr().IsUnspecified() && c.remote == nil {
		c.peer.violate("SDP offers audio at %v", s.Audio)
	}
	if s.Audio.Port() != 0 && len(s.Codecs) == 0 {
		c.peer.violate("SDP has payload types %v, none is G.711", s.Payloads)
	}
}

// masked hides the digits of telephone numbers, keeping the last two.
func masked(s string) string {
	b := []byte(s)
	for i := 0; i < len(b); {
		j := i
		for j < len(b) && b[j] >= '0' && b[j] <= '9' {
			j++
		}
		if j-i >= 7 {
			for k := i; k < j-2; k++ {
				b[k] = '*'
			}
		}
		i = max(j, i+1)
	}
	return string(b)
}
