package pbx_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"centralka/pbx/pbxtest"
)

// FuzzState reads bytes as a script: each byte is a message or a deed of the
// caller, the phone or the network, in whatever state the call is in. Whatever
// the order, there is no panic, and nothing is left over of the calls.
func FuzzState(f *testing.F) {
	for _, script := range []string{
		"",
		"Iwwwwwb",               // hang up after the announcement
		"ICwwww",                // cancel at once
		"Iwwwwwwwwhwwrwwb",      // hold and resume
		"IwwwwwwwwHwwhwwRwrwwB", // both hold
		"IwwwwwwwwLwwLwwb",      // late offers
		"Iwwwwwwwwxxxuiopsyb",   // in-dialog noise
		"IwwwwAwwwwwwwwdddb",    // lost ACKs
		"Dwwwwwwbww",            // outgoing
		"DwCwDwwwwBw",
		"IIIIwwwwwwbbbb",
		"IwwwwwwwwnwwwwwNwwb", // the network goes away and comes back
		"IwwwwwwwwtttTTTb",
		"LIwwwwwbbb",
		"IwwwwwwwwzzzZZZjJb",
	} {
		f.Add([]byte(script))
	}
	cfg := cityConfig("101")
	dir := f.TempDir()
	cfg.Announcement.File, cfg.Announcement.SHA256 = dir+"/a.wav", writeWAVAt(f, dir+"/a.wav", briefWords())
	cfg.Queues[0].RingTimeout = 4 * time.Second
	cfg.Queues[0].MaxWait = 20 * time.Second
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 40 {
			script = script[:40]
		}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, cfg)
			r.lenient = true
			defer r.finish()
			p := player{r: r, seq: 100}
			r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
			r.behave("101", pbxtest.AnswerAfter(time.Second))
			for _, b := range script {
				p.play(b)
			}
			r.net.Drop(nil)
			for range 2 { // what rings late is ended late
				p.agent()
				for _, c := range append(p.calls, p.taken...) {
					c.Hangup()
				}
				time.Sleep(40 * time.Second)
			}
			for _, c := range p.calls { // a BYE of its own CSeq may be too low after raw ones
				p.seq++
				p.r.must(r.carrier.Send(inDialog(r, c, "BYE", p.seq).Bytes()))
			}
			time.Sleep(2 * time.Minute) // every timer of SIP, and the media timeout
			if n := r.sw.Calls(); n != 0 {
				t.Errorf("%d calls do not end, after %q\n%s", n, script, r.ladder)
			}
			for _, rec := range r.records() {
				if rec.Cause == "" || rec.Recording.Outcome == "" {
					t.Errorf("after %q: record %+v", script, rec)
				}
			}
		})
	})
}

// player does what a script says.
type player struct {
	r     *rig
	seq   uint32
	calls []*pbxtest.Call // placed by the carrier and the phone
	taken []*pbxtest.Call // answered by them
}

func (p *player) last() *pbxtest.Call {
	if len(p.calls) == 0 {
		return nil
	}
	return p.calls[len(p.calls)-1]
}

// agent is the latest call that reached the phone or the carrier.
func (p *player) agent() *pbxtest.Call {
	for _, peer := range []*pbxtest.Peer{p.r.phones["101"].Peer, p.r.carrier.Peer} {
		for {
			c, err := peer.WaitCall(0)
			if err != nil {
				break
			}
			p.taken = append(p.taken, c)
		}
	}
	if len(p.taken) == 0 {
		return nil
	}
	return p.taken[len(p.taken)-1]
}

// raw sends a request within the caller's dialog, or what it takes for one.
func (p *player) raw(method string, edit func(*pbxtest.Message)) {
	c := p.last()
	if c == nil {
		return
	}
	p.seq++
	m := inDialog(p.r, c, method, p.seq)
	if edit != nil {
		edit(m)
	}
	if err := p.r.carrier.Send(m.Bytes()); err != nil {
		p.r.t.Error(err)
	}
}

func (p *player) offer(c *pbxtest.Call, d pbxtest.Direction, late bool) {
	if c == nil || c.State() != pbxtest.Answered {
		return
	}
	go func() { // refusals and the end of the call are as good as an answer
		if late {
			_, _ = c.ReInvite(p.r.t.Context(), nil)
			return
		}
		_ = c.HoldAs(p.r.t.Context(), d, false)
	}()
}

func (p *player) place(peer *pbxtest.Peer, o pbxtest.CallOptions) {
	if len(p.calls) > 5 {
		return
	}
	c, err := peer.Call(o)
	p.r.must(err)
	p.calls = append(p.calls, c)
}

func (p *player) play(b byte) {
	sdp := func(d pbxtest.Direction) func(*pbxtest.Message) {
		return func(m *pbxtest.Message) {
			body := p.last().LocalSDP()
			if len(body) == 0 {
				return
			}
			m.Body = []byte(bump(string(body), d))
			m.Set("Content-Type", "application/sdp")
			m.Set("Contact", fmt.Sprintf("<sip:carrier@%v>", carrierAddr))
		}
	}
	incoming := pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"}
	switch b {
	case 'I':
		p.place(p.r.carrier.Peer, incoming)
	case 'L':
		if c := p.last(); c != nil && c.State() == pbxtest.Answered {
			p.offer(c, "", true)
			return
		}
		incoming.LateOffer = true
		p.place(p.r.carrier.Peer, incoming)
	case 'D':
		p.place(p.r.phones["101"].Peer, pbxtest.CallOptions{To: "0600100200"})
	case 'E':
		p.place(p.r.phones["101"].Peer, pbxtest.CallOptions{To: "101"})
	case 'b', 'C':
		if c := p.last(); c != nil {
			c.Hangup()
		}
	case 'B':
		if c := p.agent(); c != nil {
			c.Hangup()
		}
	case 'h':
		p.offer(p.last(), pbxtest.SendOnly, false)
	case 'r':
		p.offer(p.last(), pbxtest.SendRecv, false)
	case 'H':
		p.offer(p.agent(), pbxtest.Inactive, false)
	case 'R':
		p.offer(p.agent(), pbxtest.SendRecv, false)
	case 'x':
		p.raw("INVITE", sdp(pbxtest.SendRecv))
	case 'X':
		p.raw("INVITE", nil)
	case 'u':
		p.raw("UPDATE", sdp(pbxtest.Inactive))
	case 'U':
		p.raw("UPDATE", nil)
	case 'i':
		p.raw("INFO", nil)
	case 'o':
		p.raw("OPTIONS", nil)
	case 'p':
		p.raw("PRACK", func(m *pbxtest.Message) { m.Set("RAck", "1 1 INVITE") })
	case 's':
		p.raw("SUBSCRIBE", nil)
	case 'y':
		p.raw("BYE", func(m *pbxtest.Message) { m.Set("To", strings.Replace(m.Get("To"), ";tag=", ";tag=x", 1)) })
	case 'Y':
		p.raw("BYE", nil)
	case 'a':
		p.raw("ACK", nil)
	case 'z':
		p.raw("CANCEL", nil)
	case 'Z':
		p.raw("REGISTER", nil)
	case 'j':
		if c := p.last(); c != nil {
			p.sendAgain(c.Invite().Bytes())
		}
	case 'J':
		p.sendAgain([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n"))
	case 'A', 'd':
		p.r.lose(carrierAddr, "ACK ", func(n int) bool { return n < int(b%7) })
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
		p.r.behave("101", pbxtest.RingForEver())
	case 'g':
		p.r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Reject(503)))
	case 'G':
		p.r.pool.SetAway("101", "said")
	case 'w':
		time.Sleep(500 * time.Millisecond)
	case 'W':
		time.Sleep(5 * time.Second)
	default: // so that every byte is a deed
		p.play(deeds[int(b)%len(deeds)])
	}
}

const deeds = "ILDEbCBhrHRxXuUiopsyYazZjJAdnmNtTqgGwWwWwWwWwWwWwW"

func (p *player) sendAgain(b []byte) {
	if err := p.r.carrier.Send(b); err != nil {
		p.r.t.Error(err)
	}
}
