package pbxtest

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Subscription is a peer's watch on the calls of an extension (RFC 4235, RFC
// 6665). Its state is owned by the peer.
type Subscription struct {
	peer   *Peer
	req    *Message // the last SUBSCRIBE
	tag    string   // the switch's
	cseq   uint32   // of the last NOTIFY
	next   int      // the version that comes next
	gone   bool
	states []string
	over   string
}

// Subscribe watches the calls of an extension for a time, whole seconds, and
// returns the final response with the subscription that it has begun.
func (p *Peer) Subscribe(ctx context.Context, of string, expires time.Duration, fields ...Field) (*Subscription, *Message, error) {
	p.mu.Lock()
	m := p.newRequest("SUBSCRIBE", fmt.Sprintf("sip:%s@%v", of, p.cfg.Switch))
	m.Add("Event", "dialog")
	m.Add("Accept", "application/dialog-info+xml")
	m.Add("Expires", strconv.Itoa(int(expires/time.Second)))
	for _, f := range fields {
		m.Set(f.Name, f.Value)
	}
	s := &Subscription{peer: p, req: m}
	p.subs[m.CallID()] = s
	p.mu.Unlock()
	res, err := p.Request(ctx, m)
	if err == nil && res.Status < 300 {
		p.mu.Lock()
		defer p.mu.Unlock()
		if tag := res.ToTag(); s.tag == "" {
			s.tag = tag
		} else if s.tag != tag {
			p.violate("%s has To-tag %q, the NOTIFY before it %q", res, tag, s.tag)
		}
	}
	return s, res, err
}

// Renew sends SUBSCRIBE within the dialog; zero ends the subscription.
func (s *Subscription) Renew(ctx context.Context, expires time.Duration) (*Message, error) {
	p := s.peer
	p.mu.Lock()
	m := s.req.clone()
	num, _ := m.CSeq()
	m.Set("Via", p.via())
	m.Set("CSeq", fmt.Sprintf("%d SUBSCRIBE", num+1))
	m.Set("To", withoutTag(m.Get("To"))+";tag="+s.tag)
	m.Set("Expires", strconv.Itoa(int(expires/time.Second)))
	s.req = m
	p.mu.Unlock()
	return p.Request(ctx, m)
}

// Forget makes the peer answer every further NOTIFY with 481, as after a
// restart.
func (s *Subscription) Forget() {
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	s.gone = true
}

// States is what the lamp has shown, oldest first: the states of the
// extension's dialogs joined by commas, "idle" if there are none. Over is the
// reason with which the subscription was ended, empty while it goes on.
func (s *Subscription) States() []string {
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	return slices.Clone(s.states)
}

// Over is described at States.
func (s *Subscription) Over() string {
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	return s.over
}

// dialogInfo is RFC 4235 §4.1, as far as a lamp looks at it.
type dialogInfo struct {
	XMLName xml.Name `xml:"urn:ietf:params:xml:ns:dialog-info dialog-info"`
	Version int      `xml:"version,attr"`
	State   string   `xml:"state,attr"`
	Entity  string   `xml:"entity,attr"`
	Dialogs []struct {
		ID    string `xml:"id,attr"`
		State string `xml:"state"`
	} `xml:"dialog"`
}

// onNotify takes a NOTIFY; the peer is locked.
func (s *Subscription) onNotify(tx *serverTx) {
	p, m := s.peer, tx.req
	if s.gone {
		p.respond(tx, 481, nil)
		return
	}
	p.respond(tx, 200, nil)
	num, _ := m.CSeq()
	if s.tag != "" && (m.FromTag() != s.tag || num <= s.cseq) {
		p.violate("NOTIFY %d of another dialog, or after %d", num, s.cseq)
	}
	s.tag, s.cseq = m.FromTag(), num
	if m.ToTag() != s.req.FromTag() || m.URI != p.contactURI() || m.Get("Event") != "dialog" {
		p.violate("NOTIFY does not belong to our SUBSCRIBE")
	}
	state, rest, _ := strings.Cut(m.Get("Subscription-State"), ";")
	switch state {
	case "active":
	case "terminated":
		s.over = strings.TrimPrefix(rest, "reason=")
	default:
		p.violate("NOTIFY has Subscription-State %q", m.Get("Subscription-State"))
	}
	var info dialogInfo
	if err := xml.Unmarshal(m.Body, &info); err != nil || info.State != "full" || info.Version != s.next || !strings.HasPrefix(info.Entity, "sip:") {
		p.violate("NOTIFY holds %q (%v), want version %d", m.Body, err, s.next)
	}
	s.next++
	var states []string
	for _, d := range info.Dialogs {
		states = append(states, d.State)
	}
	if states == nil {
		states = []string{"idle"}
	}
	s.states = append(s.states, strings.Join(states, ","))
	p.notify()
}
