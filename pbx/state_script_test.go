package pbx_test

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"centralka/pbx/pbxtest"
)

// player does what a script says.
type player struct {
	r     *rig
	seq   uint32
	calls []leg // placed by the carrier and the phones
	taken []leg // answered by them, or ringing there
	other bool  // raw requests come from the side that was called
	lamps []*pbxtest.Subscription
}

// leg is a call as one of the peers has it.
type leg struct {
	call   *pbxtest.Call
	peer   *pbxtest.Peer
	placed bool // by this peer
}

func (p *player) legs() []leg { return append(append([]leg(nil), p.calls...), p.taken...) }

func newest(legs []leg) leg {
	if len(legs) == 0 {
		return leg{}
	}
	return legs[len(legs)-1]
}

func (p *player) last() leg { return newest(p.calls) }

// collect takes note of every call that has reached a peer.
func (p *player) collect() {
	peers := []*pbxtest.Peer{p.r.carrier.Peer}
	for _, name := range []string{"101", "101/90", "102", "103"} {
		if phone := p.r.phones[name]; phone != nil {
			peers = append(peers, phone.Peer)
		}
	}
	for _, peer := range peers {
		for {
			c, err := peer.WaitCall(0)
			if err != nil {
				break
			}
			p.taken = append(p.taken, leg{c, peer, false})
		}
	}
}

// agent is the latest call that reached a peer.
func (p *player) agent() leg {
	p.collect()
	return newest(p.taken)
}

// side is the leg that raw requests are in.
func (p *player) side() leg {
	if p.other {
		return p.agent()
	}
	return p.last()
}

// raw sends a request within a dialog, or what its peer takes for one.
func (p *player) raw(l leg, method string, edit func(*pbxtest.Message)) {
	if l.call == nil {
		return
	}
	p.seq++
	var m *pbxtest.Message
	if l.placed {
		m = inDialog(p.r, l.call, method, p.seq)
	} else {
		m = inCalledDialog(l, method, p.seq)
	}
	if edit != nil {
		edit(m)
	}
	if err := l.peer.Send(m.Bytes()); err != nil {
		p.r.t.Error(err)
	}
}

// inCalledDialog is inDialog of the side that was called.
func inCalledDialog(l leg, method string, seq uint32) *pbxtest.Message {
	invite := l.call.Invite()
	m := l.peer.NewRequest(method, strings.Trim(strings.TrimSpace(invite.Get("Contact")), "<>"))
	m.Set("From", invite.Get("To"))
	for _, e := range l.call.Log() {
		if e.Out && e.Message.Status > 100 && e.Message.ToTag() != "" {
			m.Set("From", e.Message.Get("To"))
			break
		}
	}
	m.Set("To", invite.Get("From"))
	m.Set("Call-ID", invite.CallID())
	m.Set("CSeq", fmt.Sprintf("%d %s", seq, method))
	return m
}

// offer changes the media of a call that is up.
func (p *player) offer(l leg, d pbxtest.Direction, late bool) {
	if l.call == nil || l.call.State() != pbxtest.Answered {
		return
	}
	go func() { // refusals and the end of the call are as good as an answer
		if late {
			_, _ = l.call.ReInvite(p.r.t.Context(), nil)
			return
		}
		_ = l.call.HoldAs(p.r.t.Context(), d, false)
	}()
}

// refer passes the other side of a call that is up on to that URI.
func (p *player) refer(l leg, to string) {
	if l.call == nil || l.call.State() != pbxtest.Answered {
		return
	}
	go func() { _, _ = l.call.Refer(p.r.t.Context(), to) }()
}

func (p *player) place(peer *pbxtest.Peer, o pbxtest.CallOptions) {
	if len(p.calls) > 5 {
		return
	}
	c, err := peer.Call(o)
	p.r.must(err)
	p.calls = append(p.calls, leg{c, peer, true})
}

// consulted is the latest call that the phone 101 placed.
func (p *player) consulted() *pbxtest.Call {
	for i := len(p.calls) - 1; i >= 0; i-- {
		if p.calls[i].peer == p.r.phones["101"].Peer {
			return p.calls[i].call
		}
	}
	return nil
}

// everyone makes all peers behave one way.
func (p *player) everyone(b pbxtest.Behaviour) {
	p.r.carrier.SetBehaviour(pbxtest.Always(b))
	for _, phone := range p.r.phones {
		phone.SetBehaviour(pbxtest.Always(b))
	}
}

// withSDP gives a raw request the description of its call, changed.
func (p *player) withSDP(l leg, d pbxtest.Direction) func(*pbxtest.Message) {
	return func(m *pbxtest.Message) {
		body := l.call.LocalSDP()
		if len(body) == 0 {
			return
		}
		m.Body = []byte(bump(string(body), d))
		m.Set("Content-Type", "application/sdp")
		m.Set("Contact", fmt.Sprintf("<sip:carrier@%v>", l.peer.Addr()))
	}
}

const deeds = "ILDEbCBhrHRxXuUiopsyYazZjJAdnmNtTqgGvVKkfFlMQSeP123456789@OcwWwWwWwWwWwWwWwWwW"

// play does the deed of a byte; every byte is one.
func (p *player) play(b byte) {
	switch {
	case p.playCall(b), p.playRaw(b), p.playTransfer(b), p.playAround(b):
	default:
		p.play(deeds[int(b)%len(deeds)])
	}
}

// playCall places, changes and ends calls.
func (p *player) playCall(b byte) bool {
	incoming := pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"}
	carrier, phone := p.r.carrier.Peer, p.r.phones["101"].Peer
	switch b {
	case 'I':
		p.place(carrier, incoming)
	case 'L':
		if l := p.last(); l.call != nil && l.call.State() == pbxtest.Answered {
			p.offer(l, "", true)
			break
		}
		incoming.LateOffer = true
		p.place(carrier, incoming)
	case 'S': // we refresh the session
		incoming.Fields = sessionFields("uas")
		p.place(carrier, incoming)
	case '1': // rings at all phones
		incoming.To = "+48914245222"
		p.place(carrier, incoming)
	case 'D':
		p.place(phone, pbxtest.CallOptions{To: "0600100200"})
	case 'E':
		p.place(phone, pbxtest.CallOptions{To: "101"})
	case 'P': // rings reliably
		p.place(phone, pbxtest.CallOptions{To: "0600100200", Fields: []pbxtest.Field{{Name: "Require", Value: "100rel"}}})
	case 'K': // consults
		p.place(phone, pbxtest.CallOptions{To: "102"})
	case '2':
		p.place(p.r.phones["103"].Peer, pbxtest.CallOptions{To: "*8"})
	case '3':
		p.place(p.r.phones["103"].Peer, pbxtest.CallOptions{To: "**101"})
	case '5', '6', '7':
		p.place(phone, pbxtest.CallOptions{To: map[byte]string{'5': "*22", '6': "*21", '7': "*24"}[b]})
	case 'b', 'C':
		if l := p.last(); l.call != nil {
			l.call.Hangup()
		}
	case 'B':
		if l := p.agent(); l.call != nil {
			l.call.Hangup()
		}
	case 'h':
		p.offer(p.last(), pbxtest.SendOnly, false)
	case 'r':
		p.offer(p.last(), pbxtest.SendRecv, false)
	case 'H':
		p.offer(p.agent(), pbxtest.Inactive, false)
	case 'R':
		p.offer(p.agent(), pbxtest.SendRecv, false)
	default:
		return false
	}
	return true
}

// playRaw sends what no peer would.
func (p *player) playRaw(b byte) bool {
	l := p.side()
	switch b {
	case '@':
		p.other = !p.other
	case 'x':
		p.raw(l, "INVITE", p.withSDP(l, pbxtest.SendRecv))
	case 'X':
		p.raw(l, "INVITE", nil)
	case 'u':
		p.raw(l, "UPDATE", p.withSDP(l, pbxtest.Inactive))
	case 'U':
		p.raw(l, "UPDATE", nil)
	case 'i':
		p.raw(l, "INFO", nil)
	case 'o':
		p.raw(l, "OPTIONS", nil)
	case 'p':
		p.raw(l, "PRACK", func(m *pbxtest.Message) { m.Set("RAck", "1 1 INVITE") })
	case 's':
		p.raw(l, "SUBSCRIBE", nil)
	case 'f':
		p.raw(l, "REFER", func(m *pbxtest.Message) { m.Set("Refer-To", "<sip:102@centralka.test?Replaces=x%3Bto-tag%3D1>") })
	case 'F':
		p.raw(l, "NOTIFY", func(m *pbxtest.Message) { m.Set("Event", "refer") })
	case 'y':
		p.raw(l, "BYE", func(m *pbxtest.Message) { m.Set("To", strings.Replace(m.Get("To"), ";tag=", ";tag=x", 1)) })
	case 'Y':
		p.raw(l, "BYE", nil)
	case 'a':
		p.raw(l, "ACK", nil)
	case 'z':
		p.raw(l, "CANCEL", nil)
	case 'Z':
		p.raw(l, "REGISTER", nil)
	case 'j':
		if l := p.last(); l.call != nil {
			p.r.must(l.peer.Send(l.call.Invite().Bytes()))
		}
	case 'J':
		p.r.must(p.r.carrier.Send([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n")))
	default:
		return false
	}
	return true
}

// playTransfer passes calls on and watches lamps.
func (p *player) playTransfer(b byte) bool {
	switch b {
	case 'v':
		p.refer(p.agent(), "sip:102@centralka.test")
	case 'c':
		p.refer(p.last(), "sip:103@centralka.test")
	case 'V':
		p.refer(p.agent(), "sip:0600100300@centralka.test")
	case 'k': // the first call of 101 goes to whom it consults
		p.collect()
		for _, l := range p.taken {
			if other := p.consulted(); other != nil && l.peer == p.r.phones["101"].Peer && l.call.State() == pbxtest.Answered {
				p.refer(l, "sip:102@centralka.test?Replaces="+url.QueryEscape(other.Replaces()))
				break
			}
		}
	case 'l':
		if len(p.lamps) < 3 {
			if s, _, err := p.r.phones["103"].Subscribe(p.r.t.Context(), "101", time.Minute); err == nil {
				p.lamps = append(p.lamps, s)
			}
		}
	case 'M':
		if n := len(p.lamps); n > 0 {
			s := p.lamps[n-1]
			go func() { _, _ = s.Renew(p.r.t.Context(), 0) }()
		}
	case 'Q':
		if n := len(p.lamps); n > 0 {
			p.lamps[n-1].Forget()
		}
	default:
		return false
	}
	return true
}

// playAround changes the network, the peers' ways and the time.
func (p *player) playAround(b byte) bool {
	switch b {
	case 'A', 'd':
		p.r.lose(carrierAddr, "ACK ", func(n int) bool { return n < int(b%7) })
	case '4':
		p.r.lose(phoneAddr(0), "PRACK ", func(int) bool { return true })
	case '9':
		p.r.lose(phoneAddr(0), "SIP/2.0 ", func(n int) bool { return n < 5 })
	case 'n':
		p.r.lose(carrierAddr, "", func(int) bool { return true })
	case 'm':
		p.r.lose(switchAddr, "", func(n int) bool { return n%2 == 0 })
	case 'N':
		p.r.net.Drop(nil)
	case 't':
		p.r.behave("101", pbxtest.Reject(486))
	case 'T':
		p.r.behave("101", pbxtest.Behaviour{Early: true, Status: 200, After: 500 * time.Millisecond})
	case 'q':
		p.everyone(pbxtest.RingForEver())
	case 'e':
		p.everyone(pbxtest.Behaviour{Reliable: true, Status: 200, After: time.Second})
	case 'g':
		p.r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Reject(503)))
	case 'G':
		p.r.pool.SetAway("101", "said")
	case 'O':
		if p.r.phones["101/90"] == nil {
			p.r.device("101", 90)
		}
	case 'w':
		time.Sleep(500 * time.Millisecond)
	case 'W':
		time.Sleep(5 * time.Second)
	case '8': // half of a session
		time.Sleep(45 * time.Second)
	default:
		return false
	}
	return true
}
