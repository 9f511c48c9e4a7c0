package pbxtest

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A phone must see what is wrong with what it gets: each case spoils one
// message of a good call on its way.
func TestViolationsAreSeen(t *testing.T) {
	replace := func(old, with string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) }
	}
	for _, c := range []struct {
		spoil string // start of the message
		how   func([]byte) []byte
		wants string
	}{
		{"INVITE", replace("Max-Forwards: 70\r\n", ""), "Max-Forwards"},
		{"INVITE", replace("branch=z9hG4bK", "branch=x"), "Via branch"},
		{"INVITE", replace("Content-Length: ", "Content-Length: 1"), "Content-Length"},
		{"INVITE", replace("Contact: <sip:carrier@198.51.100.1:5060>\r\n", ""), "0 Contacts"},
		{"INVITE", replace("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"), "CSeq method"},
		{"INVITE", replace("Call-ID", "X-ID"), "0 Call-ID"},
		{"INVITE", replace("m=audio", "m=audjo"), "no audio"},
		{"INVITE", replace("RTP/AVP 8 0 101", "RTP/AVP 3 18"), "none is G.711"},
		{"ACK", replace("sip:101@192.0.2.101:5060 ", "sip:101@192.0.2.7 "), "does not go to our Contact"},
		{"ACK", replace("CSeq: 1", "CSeq: 2"), "ACK for no INVITE"},
		{"ACK", replace("tag=", "tag=x"), "From-tag"},
		{"BYE", replace("CSeq: 2", "CSeq: 1"), "CSeq 1 after 1"},
		{"BYE", replace("sip:101@192.0.2.101:5060 ", "sip:101@192.0.2.7 "), "does not go to our Contact"},
		{"SIP/2.0 180", replace("Contact", "X-Contact"), "0 Contacts"},
		{"SIP/2.0 180", replace(";rport=5060", ";rport"), "rport"},
		{"SIP/2.0 200", replace("Contact", "X-Contact"), "0 Contacts"},
		{"SIP/2.0 200", replace("To: <sip:101@192.0.2.101:5060>;tag=", "To: <sip:101@192.0.2.101:5060>;tag=2"), "another To-tag"},
		{"SIP/2.0 200", replace("To: <sip:101@192.0.2.101:5060>;tag=", "To: <sip:101@192.0.2.101:5060>;x="), "no To-tag"},
		{"SIP/2.0 200", replace("From: <sip:carrier", "From: <sip:courier"), "another From"},
		{"SIP/2.0 200", replace("a=sendrecv", "a=sendonly\r\nm=video 0 RTP/AVP 34"), "2 m-lines"},
		{"SIP/2.0 200", replace("branch=z9hG4bK", "branch=z9hG4bKx"), "no request of ours"},
		{"SIP/2.0 200", func(b []byte) []byte { return b[:20] }, "not a SIP message"},
	} {
		t.Run(c.spoil+" "+c.wants, func(t *testing.T) {
			inTown(t, func(tn *town) {
				tn.lenient = true
				tn.phone.SetBehaviour(Always(AnswerAfter(time.Second)))
				out, err := tn.carrier.Call(CallOptions{To: "101"})
				tn.must(err)
				time.Sleep(2 * time.Second)
				out.Hangup()
				time.Sleep(2 * time.Second)
				all := slices.Concat(tn.phone.Violations(), tn.carrier.Violations())
				if !slices.ContainsFunc(all, func(v string) bool { return strings.Contains(v, c.wants) }) {
					tn.Errorf("violations %q", all)
				}
			}, func(cc, pc *PeerConfig) {
				listen := cc.Listen
				cc.Listen = func(addr netip.AddrPort) (Socket, error) {
					s, err := listen(addr)
					return spoiler{s, c.spoil, c.how}, err
				}
				pc.Listen = cc.Listen
			})
		})
	}
}

// spoiler changes the messages that begin in a certain way as they are sent.
type spoiler struct {
	Socket
	begins string
	how    func([]byte) []byte
}

func (s spoiler) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if bytes.HasPrefix(b, []byte(s.begins)) {
		b = s.how(b)
	}
	return s.Socket.WriteToUDPAddrPort(b, to)
}

func TestRequestsOutsideOfDialogsAreRefused(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.lenient = true
		for method, want := range map[string]int{"BYE": 481, "UPDATE": 481, "PUBLISH": 405} {
			req := tn.carrier.NewRequest(method, "sip:101@192.0.2.101")
			if method == "BYE" {
				req.Set("To", req.Get("To")+";tag=none")
			}
			if res, err := tn.carrier.Request(tn.Context(), req); err != nil || res.Status != want {
				tn.Errorf("%s answered %v, %v", method, res, err)
			}
		}
		tn.must(tn.carrier.Send([]byte("hello\r\n\r\n")))
		tn.must(tn.carrier.Send([]byte("\r\n\r\n")))
		time.Sleep(time.Second)
		if v := tn.phone.Violations(); len(v) != 3 {
			tn.Errorf("violations %q", v)
		}
	})
}

func TestReInvitesThatCrossAreRefusedWith491(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.net.Impair(Any, Any, Impairment{Delay: 50 * time.Millisecond})
		tn.phone.SetBehaviour(Always(AnswerAfter(0)))
		out, in := tn.call(CallOptions{})
		tn.must(out.WaitAnswered(time.Second))
		time.Sleep(time.Second)
		other := make(chan error)
		go func() { other <- in.Hold(tn.Context()) }()
		err := out.Hold(tn.Context())
		if err2 := <-other; err == nil || err2 == nil || !strings.Contains(err.Error(), "491") || !strings.Contains(err2.Error(), "491") {
			tn.Errorf("crossing holds: %v, %v", err, err2)
		}
		tn.must(in.Resume(tn.Context()))
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
		time.Sleep(time.Second)
	})
}

func TestWaitsSayWhatWasSeenInstead(t *testing.T) {
	inTown(t, func(tn *town) {
		if _, err := tn.phone.WaitCall(time.Second); err == nil || !strings.Contains(err.Error(), "saw nothing") {
			tn.Error(err)
		}
		out, _ := tn.call(CallOptions{From: "+48600100200"})
		err := out.WaitAnswered(10 * time.Second)
		if err == nil || !strings.Contains(err.Error(), "call is ringing, not answered within 10s; saw >INVITE +1s, <180 Ringing (INVITE) +1s") {
			tn.Error(err)
		}
		if strings.Contains(err.Error(), "600100200") {
			tn.Error("an error names a telephone number")
		}
		if m, err := tn.phone.WaitMessage(0, func(m *Message) bool { return m.Method == "INVITE" }); err != nil || m.Number("From") != "+48600100200" {
			tn.Error(m, err)
		}
		if tn.phone.Calls() != 1 {
			tn.Errorf("%d calls", tn.phone.Calls())
		}
		out.Hangup()
		tn.must(out.WaitEnded(time.Second))
		if tn.phone.Calls() != 0 {
			tn.Errorf("%d calls", tn.phone.Calls())
		}
	})
}

// Two runs with one seed send the same bytes at the same times.
func TestSameSeedSameMessages(t *testing.T) {
	run := func() (all []byte) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNet(3)
			n.OnPacket(func(p Packet) { all = append(all, p.Payload...) })
			p, err := NewPeer(PeerConfig{Name: "carrier", Listen: n.Listen, Addr: carrierAddr, Switch: phoneAddr, Seed: 3})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := p.Call(CallOptions{To: "101"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return all
	}
	if a, b := run(), run(); !bytes.Equal(a, b) || len(a) == 0 {
		t.Error("two runs differ")
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1, b\r\nf: \"a,\\\"b\" <sip:x@y;z>;tag=1\r\n folded\r\n\r\nbody"))
	f.Add([]byte("SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := ParseMessage(m.Bytes())
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%q", err, m.Bytes())
		}
		if again.Method != m.Method || again.Status != m.Status || !bytes.Equal(again.Body, m.Body) {
			t.Fatalf("%q became %q", b, m.Bytes())
		}
		m.CSeq()
		m.Branch()
		addrOf(uriOf(m.Get("Contact")))
		userOf(uriOf(m.Get("From")))
	})
}

func FuzzParseSDP(f *testing.F) {
	f.Add(description{codecs: []Codec{PCMA, PCMU}, event: 101, ptime: 20, direction: SendRecv, addr: carrierAddr}.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSDP(b); err == nil {
			checkAnswer(s, s)
		}
	})
}

func FuzzEar(f *testing.F) {
	f.Add([]byte{0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5})
	f.Add([]byte{0xbf, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5})
	f.Fuzz(func(t *testing.T, b []byte) {
		e := ear{tolerance: 100 * time.Millisecond}
		begin := time.Unix(0, 0)
		at := begin
		b = b[:min(len(b), 5000)]
		for len(b) > 0 {
			n := min(len(b), 14)
			e.packet(b[:n], carrierAddr, at)
			b, at = b[n:], at.Add(20*time.Millisecond)
		}
		// Nothing that comes makes the recording much longer than the call.
		if heard := timeOf(len(e.snapshot().PCM)); heard > at.Sub(begin)*6+time.Second {
			t.Errorf("heard %v in %v", heard, at.Sub(begin))
		}
	})
}
