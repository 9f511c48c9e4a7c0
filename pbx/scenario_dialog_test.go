package pbx_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// lose drops the n-th datagrams from the switch (or to it) that begin so.
func (r *rig) lose(from netip.AddrPort, begin string, which func(n int) bool) {
	n := 0
	r.net.Drop(func(src, _ netip.AddrPort, payload []byte) bool {
		if src != from || !strings.HasPrefix(string(payload), begin) {
			return false
		}
		n++
		return which(n)
	})
}

// inDialog builds a request of the caller's within its dialog, with any CSeq.
func inDialog(r *rig, call *pbxtest.Call, method string, seq uint32, fields ...pbxtest.Field) *pbxtest.Message {
	invite := call.Invite()
	var ok *pbxtest.Message
	for _, e := range call.Log() {
		if !e.Out && e.Message.Status == 200 && ok == nil {
			ok = e.Message
		}
	}
	m := r.carrier.NewRequest(method, "sip:"+switchAddr.String())
	if ok != nil {
		m.URI = strings.Trim(strings.TrimSpace(ok.Get("Contact")), "<>")
		m.Set("To", ok.Get("To"))
	}
	m.Set("From", invite.Get("From"))
	m.Set("Call-ID", invite.CallID())
	m.Set("CSeq", fmt.Sprintf("%d %s", seq, method))
	for _, f := range fields {
		m.Set(f.Name, f.Value)
	}
	return m
}

// read takes one message from a bare socket.
func read(r *rig, conn *pbxtest.PacketConn) *pbxtest.Message {
	r.t.Helper()
	buf := make([]byte, 4000)
	r.must(conn.SetReadDeadline(time.Now().Add(5 * time.Second)))
	n, _, err := conn.ReadFromUDPAddrPort(buf)
	r.must(err)
	m, err := pbxtest.ParseMessage(slices.Clone(buf[:n]))
	r.must(err)
	return m
}

// ask sends a request and returns the status of its answer.
func (r *rig) ask(m *pbxtest.Message) *pbxtest.Message {
	r.t.Helper()
	res, err := r.carrier.Request(r.t.Context(), m)
	r.must(err)
	return res
}

// TestLost200: the 2xx is sent again after T1, then at doubling intervals up to
// T2, until the ACK comes (RFC 3261 §13.3.1.4).
func TestLost200(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		began := time.Now()
		var at []time.Duration
		r.net.Drop(func(src, dst netip.AddrPort, payload []byte) bool {
			if src == switchAddr && dst == carrierAddr && strings.HasPrefix(string(payload), "SIP/2.0 200") && strings.Contains(string(payload), "INVITE") {
				at = append(at, time.Since(began).Round(10*time.Millisecond))
				return len(at) < 6
			}
			return false
		})
		call := r.call()
		r.must(call.WaitAnswered(20 * time.Second))
		r.net.Drop(nil)
		if want := []time.Duration{0, 500, 1500, 3500, 7500, 11500}; !slices.EqualFunc(at, want, func(a, b time.Duration) bool { return a == b*time.Millisecond }) {
			t.Errorf("200 sent at %v", at)
		}
		time.Sleep(500 * time.Millisecond)
		call.Hangup()
		ended(t, r.only(), store.CauseAnnouncementHangup, store.OutcomeNone)
	})
}

// TestLostACK: a 200 that comes again is acknowledged again, and the
// announcement begins with the ACK that arrives.
func TestLostACK(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.lose(carrierAddr, "ACK ", func(n int) bool { return n < 3 })
		call, _ := r.talk()
		if n := r.count("carrier > switch ACK"); n != 3 {
			t.Errorf("%d ACKs", n)
		}
		if m := pbxtest.Find(call.Heard().PCM, briefWords()); !m.Whole() {
			t.Errorf("announcement %+v", m)
		}
		call.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestNeverACK: after 64*T1 the call is ended with a BYE (RFC 3261 §13.3.1.4),
// and nobody was rung.
func TestNeverACK(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.lose(carrierAddr, "ACK ", func(int) bool { return true })
		call := r.call()
		r.must(call.WaitEnded(time.Minute))
		if d := call.At(pbxtest.Ended).Sub(call.At(pbxtest.Answered)); d < 32*time.Second || d > 33*time.Second {
			t.Errorf("BYE after %v", d)
		}
		if e := call.End(); e.Method != "BYE" || e.ByUs {
			t.Errorf("ended by %+v", e)
		}
		ended(t, r.only(), store.CauseNoAck, store.OutcomeNone)
		r.quiet("101")
		if len(call.Heard().PCM) > 0 {
			t.Error("heard something before the ACK")
		}
	})
}

// TestNoACKFromPhone: a phone that we have answered and that never
// acknowledges, nor answers when it is called again: both ends are released after
// 64*T1.
func TestNoACKFromPhone(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		r.lose(phoneAddr(0), "ACK ", func(int) bool { return true })
		r.behave("101", pbxtest.Reject(486))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		r.must(far.WaitEnded(time.Minute))
		r.must(out.WaitEnded(time.Minute))
		ended(t, r.only(), store.CauseNoAck, store.OutcomeOK)
	})
}

// TestCancelCrosses200: the 200 stands; the caller ends the call with a BYE.
func TestCancelCrosses200(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		im := pbxtest.Impairment{Delay: 50 * time.Millisecond}
		r.net.Impair(pbxtest.Host(carrierAddr.Addr()), pbxtest.Any, im)
		r.net.Impair(pbxtest.Host(switchAddr.Addr()), pbxtest.Host(carrierAddr.Addr()), im)
		call := r.call()
		// The caller gives up when the 100 arrives; the 200 is right behind it.
		_, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status == 100 })
		r.must(err)
		call.Hangup()
		r.must(call.WaitEnded(2 * time.Second))
		rec := r.only()
		ended(t, rec, store.CauseAnnouncementHangup, store.OutcomeNone)
		r.quiet("101")
	})
}

// TestCancelBeforeAnswer is a CANCEL at its right time, from a phone.
func TestCancelBeforeAnswer(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitRinging(time.Second))
		time.Sleep(time.Second)
		out.Hangup()
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status != 487 {
			t.Errorf("ended %+v", e)
		}
		ended(t, r.only(), store.CauseCancelled, store.OutcomeNone)
		// Which side hears of it first is not said.
		r.says("101 > switch CANCEL", "switch > 101 200 OK (CANCEL)", "switch > 101 487 Request Terminated (INVITE)")
		r.says("101 > switch CANCEL", "switch > carrier CANCEL", "carrier > switch 487 Request Terminated (INVITE)", "switch > carrier ACK")
	})
}

// TestByeBeforeACK: the call is over, nothing is sent again (RFC 3261 §15).
func TestByeBeforeACK(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.lose(carrierAddr, "ACK ", func(int) bool { return true })
		call := r.call()
		r.must(call.WaitAnswered(time.Second))
		call.Hangup()
		ended(t, r.only(), store.CauseAnnouncementHangup, store.OutcomeNone)
		time.Sleep(10 * time.Second)
		if n := r.count("switch > carrier 200 OK (INVITE)"); n != 1 {
			t.Errorf("200 sent %d times", n)
		}
	})
}

// TestByeCrossesBye: each gets its 200.
func TestByeCrossesBye(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		im := pbxtest.Impairment{Delay: 100 * time.Millisecond, Match: pbxtest.IsSIP}
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		for _, a := range []netip.AddrPort{carrierAddr, phoneAddr(0)} {
			r.net.Impair(pbxtest.Host(a.Addr()), pbxtest.Any, im)
			r.net.Impair(pbxtest.Any, pbxtest.Host(a.Addr()), im)
		}
		agent.Hangup()
		time.Sleep(150 * time.Millisecond) // our BYE to the caller is on its way
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCalled, store.OutcomeOK)
		time.Sleep(time.Second)
		r.says("switch > carrier BYE", "switch > carrier 200 OK (BYE)")
		if n := r.count("carrier > switch 200 OK (BYE)"); n != 1 {
			t.Errorf("the caller answered %d BYEs", n)
		}
	})
}

// TestOrderInDialog: what belongs to no dialog, or comes too late, or is of a
// method that we do not know (RFC 3261 §12.2.2, §8.2.1).
func TestOrderInDialog(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, _ := r.talk()
		status := func(want int, m *pbxtest.Message) *pbxtest.Message {
			t.Helper()
			res := r.ask(m)
			if res.Status != want {
				t.Errorf("%s answered %d, want %d", m.Get("CSeq"), res.Status, want)
			}
			return res
		}
		status(200, inDialog(r, caller, "INFO", 5))
		status(500, inDialog(r, caller, "INFO", 4))
		status(500, inDialog(r, caller, "OPTIONS", 5))
		status(200, inDialog(r, caller, "OPTIONS", 9)) // gaps are allowed
		if allow := status(405, inDialog(r, caller, "PUBLISH", 10)).Get("Allow"); !strings.Contains(allow, "UPDATE") || !strings.Contains(allow, "BYE") {
			t.Errorf("Allow %q", allow)
		}
		status(501, inDialog(r, caller, "FROBNICATE", 11))
		status(481, inDialog(r, caller, "PRACK", 12, pbxtest.Field{Name: "RAck", Value: "1 1 INVITE"}))
		alien := inDialog(r, caller, "BYE", 13)
		alien.Set("To", strings.Replace(alien.Get("To"), ";tag=", ";tag=x", 1))
		status(481, alien)
		foreign := inDialog(r, caller, "BYE", 14)
		foreign.Set("From", strings.Replace(foreign.Get("From"), ";tag=", ";tag=x", 1))
		status(481, foreign)
		unknown := inDialog(r, caller, "BYE", 15)
		unknown.Set("Call-ID", "nobody@nowhere")
		status(481, unknown)
		if r.sw.Calls() != 1 {
			t.Fatal("the call did not survive")
		}
		status(200, inDialog(r, caller, "BYE", 16))
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
		status(481, inDialog(r, caller, "BYE", 17))
	})
}

// TestOutsideOfDialogs: what needs none, and what needs one.
func TestOutsideOfDialogs(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		for method, want := range map[string]int{"OPTIONS": 200, "BYE": 481, "CANCEL": 481, "UPDATE": 481, "INFO": 481, "MESSAGE": 405, "SUBSCRIBE": 403, "REFER": 403, "PUBLISH": 405, "NOTIFY": 481, "FROBNICATE": 501} {
			res := r.ask(r.carrier.NewRequest(method, "sip:"+switchAddr.String()))
			if res.Status != want {
				t.Errorf("%s answered %d, want %d", method, res.Status, want)
			}
			if allow := res.Get("Allow"); (want == 405 || want == 200) && !strings.Contains(allow, "UPDATE") {
				t.Errorf("%s: Allow %q", method, allow)
			}
			if accept := res.Get("Accept"); method == "OPTIONS" && accept != "application/sdp" {
				t.Errorf("OPTIONS: Accept %q", accept)
			}
		}
	})
}

// TestRefusedInvites: the answers that an INVITE from the trunk gets.
func TestRefusedInvites(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(*pbxtest.Message) {
		return func(m *pbxtest.Message) { m.Set(name, value) }
	}
	body := func(sdp string) func(*pbxtest.Message) {
		return func(m *pbxtest.Message) { m.Body = []byte(strings.ReplaceAll(sdp, "\n", "\r\n")) }
	}
	const head = "v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\n"
	for _, c := range []struct {
		name   string
		edit   func(*pbxtest.Message)
		status int
		header string
		cause  store.Cause // empty: no call at all
	}{
		{"100rel required", set("Require", "100rel"), 200, "", store.CauseAnnouncementHangup},
		{"precondition required", set("Require", "precondition"), 420, "Unsupported", ""},
		{"precondition supported", set("Supported", "precondition, 100rel"), 200, "", store.CauseAnnouncementHangup},
		{"no hops left", set("Max-Forwards", "0"), 483, "", ""},
		{"no Contact", set("Contact", ""), 400, "", ""},
		{"no Max-Forwards is forgiven", set("Max-Forwards", ""), 200, "", store.CauseAnnouncementHangup},
		{"unknown number", func(m *pbxtest.Message) { m.URI = "sip:+48914249999@192.0.2.10" }, 404, "", store.CauseNotFound},
		{"no number at all", func(m *pbxtest.Message) { m.URI = "sip:192.0.2.10" }, 404, "", store.CauseNotFound},
		{"tel URI", func(m *pbxtest.Message) { m.URI = "tel:+48-91-424-50-00" }, 200, "", store.CauseAnnouncementHangup},
		{"sips URI", func(m *pbxtest.Message) { m.URI = "im:+48914245000@192.0.2.10" }, 416, "", ""},
		{"national number", func(m *pbxtest.Message) { m.URI = "sip:914245000@192.0.2.10" }, 200, "", store.CauseAnnouncementHangup},
		{"no common codec", body(head + "m=audio 4000 RTP/AVP 18\na=rtpmap:18 G729/8000\n"), 488, "", store.CauseNotAcceptable},
		{"video only", body(head + "m=video 4000 RTP/AVP 96\na=rtpmap:96 H264/90000\n"), 488, "", store.CauseNotAcceptable},
		{"T.38 only", body(head + "m=image 4000 udptl t38\n"), 488, "", store.CauseNotAcceptable},
		{"SRTP only", body(head + "m=audio 4000 RTP/SAVP 8\n"), 488, "", store.CauseNotAcceptable},
		{"nonsense as SDP", body("hello"), 488, "", store.CauseNotAcceptable},
		{"no SDP but text", func(m *pbxtest.Message) { m.Set("Content-Type", "text/plain") }, 415, "Accept", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Edit: c.edit})
				r.must(err)
				res, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status >= 200 })
				r.must(err)
				if res.Status != c.status || c.header != "" && res.Get(c.header) == "" {
					t.Errorf("answered %s", res.Bytes())
				}
				time.Sleep(100 * time.Millisecond)
				call.Hangup()
				r.must(call.WaitEnded(time.Second))
				recs := r.records()
				if c.cause == "" {
					if len(recs) != 0 {
						t.Errorf("records %+v", recs)
					}
					return
				}
				if len(recs) != 1 {
					t.Fatalf("records %+v", recs)
				}
				ended(t, recs[0], c.cause, store.OutcomeNone)
				if want := c.status; recs[0].SIPStatus != want {
					t.Errorf("recorded status %d, sent %d", recs[0].SIPStatus, want)
				}
			})
		})
	}
}

// TestMergedInvite: the same request by another way gets 482 (RFC 3261
// §8.2.2.2); one sent again is not a new call.
func TestMergedInvite(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		call := r.call()
		r.must(call.WaitAnswered(time.Second))
		first := call.Invite()
		r.must(r.carrier.Send(first.Bytes()))
		time.Sleep(time.Second)
		// Another way has another sent-by; a socket of its own stands for it.
		way, err := r.net.ListenPacket(netip.MustParseAddrPort("198.51.100.1:5070"))
		r.must(err)
		defer func() { r.must(way.Close()) }()
		merged := r.carrier.NewRequest("INVITE", first.URI)
		for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
			merged.Set(name, first.Get(name))
		}
		merged.Set("Content-Type", "application/sdp")
		merged.Body = first.Body
		_, err = way.WriteToUDPAddrPort(merged.Bytes(), switchAddr)
		r.must(err)
		if m := read(r, way); m.Status != 482 || m.Branch() != merged.Branch() {
			t.Errorf("answered %s", m.Bytes())
		}
		if n := r.sw.Calls(); n != 1 {
			t.Errorf("%d calls", n)
		}
		// A copy that was on its way for a minute is no new call either.
		r.answeredBy("101")
		time.Sleep(40 * time.Second)
		late := *first
		late.Fields = slices.Clone(first.Fields)
		late.Set("Via", strings.Replace(first.Get("Via"), "198.51.100.1:5060", "198.51.100.1:5070", 1))
		_, err = way.WriteToUDPAddrPort(late.Bytes(), switchAddr)
		r.must(err)
		m := read(r, way)
		for m.Branch() != late.Branch() { // copies of the 482 that nobody acknowledged
			m = read(r, way)
		}
		if m.Status != 482 {
			t.Errorf("a late copy was answered %s", m)
		}
		call.Hangup()
		r.only()
	})
}

// TestTargetRefresh: a re-INVITE with another Contact moves the requests that
// we send (RFC 3261 §12.2.2).
func TestTargetRefresh(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		moved := netip.MustParseAddrPort("198.51.100.1:5090")
		r.ladder.Name(moved, "elsewhere")
		m := inDialog(r, caller, "UPDATE", 7)
		m.Set("Contact", fmt.Sprintf("<sip:moved@%v>", moved))
		if res := r.ask(m); res.Status != 200 || res.Get("Contact") == "" {
			t.Errorf("UPDATE answered %s", res)
		}
		agent.Hangup()
		time.Sleep(time.Second)
		r.says("switch > elsewhere BYE")
		if n := r.count("switch > carrier BYE"); n != 0 {
			t.Error("BYE went to the old target")
		}
		caller.Hangup() // its end was not told
		time.Sleep(time.Second)
		r.records()
	})
}

// TestRecordRoute: requests within the dialog go through the proxies that asked
// for it (RFC 3261 §12.1.1, §12.2.1.1).
func TestRecordRoute(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		proxy := netip.MustParseAddrPort("198.51.100.2:5060")
		r.ladder.Name(proxy, "proxy")
		conn, err := r.net.ListenPacket(proxy)
		r.must(err)
		defer func() { r.must(conn.Close()) }()
		call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Edit: func(m *pbxtest.Message) {
			m.Add("Record-Route", fmt.Sprintf("<sip:%v;lr>, <sip:198.51.100.3;lr>", proxy))
		}})
		r.must(err)
		res, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status == 200 })
		r.must(err)
		if got := strings.Join(res.All("Record-Route"), ", "); got != fmt.Sprintf("<sip:%v;lr>, <sip:198.51.100.3;lr>", proxy) {
			t.Errorf("Record-Route of the 200: %q", got)
		}
		// The carrier's own ACK goes to the proxy of the route and gets lost there,
		// as if the proxy had eaten it: acknowledge by hand.
		ack := inDialog(r, call, "ACK", 1)
		r.must(r.carrier.Send(ack.Bytes()))
		agent := r.answeredBy("101")
		agent.Hangup()
		bye := read(r, conn)
		for bye.Method != "BYE" { // the carrier's ACKs come by
			bye = read(r, conn)
		}
		if got := strings.Join(bye.All("Route"), ", "); got != fmt.Sprintf("<sip:%v;lr>, <sip:198.51.100.3;lr>", proxy) {
			t.Errorf("Route of the BYE: %q", got)
		}
		res = &pbxtest.Message{Status: 200, Reason: "OK"}
		for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
			res.Set(name, bye.Get(name))
		}
		_, err = conn.WriteToUDPAddrPort(res.Bytes(), switchAddr)
		r.must(err)
		ended(t, r.only(), store.CauseHangupCalled, store.OutcomeOK)
	})
}

// TestPhoneAnswersWhileCancelled: a 200 that crosses our CANCEL is acknowledged
// and ended (RFC 3261 §9.1).
func TestPhoneAnswersWhileCancelled(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		im := pbxtest.Impairment{Delay: 200 * time.Millisecond, Match: pbxtest.IsSIP}
		r.net.Impair(pbxtest.Host(phoneAddr(0).Addr()), pbxtest.Any, im)
		r.net.Impair(pbxtest.Any, pbxtest.Host(phoneAddr(0).Addr()), im)
		call := r.call()
		agent, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		r.must(agent.WaitRinging(time.Second))
		time.Sleep(3*time.Second - 100*time.Millisecond) // it answers 3 s after its INVITE
		call.Hangup()
		r.must(agent.WaitEnded(2 * time.Second))
		if e := agent.End(); e.Method != "BYE" || e.ByUs {
			t.Errorf("the phone's call ended by %+v", e)
		}
		ended(t, r.only(), store.CauseAbandoned, store.OutcomeNone)
		r.says("switch > 101 CANCEL", "101 > switch 200 OK (INVITE)", "switch > 101 ACK", "switch > 101 BYE", "101 > switch 200 OK (BYE)")
	})
}

// TestLostACKOfOurs: a 2xx that a phone sends again is acknowledged again
// (RFC 3261 §13.2.2.4).
func TestLostACKOfOurs(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		n := 0
		r.net.Drop(func(src, dst netip.AddrPort, payload []byte) bool {
			if dst == phoneAddr(0) && strings.HasPrefix(string(payload), "ACK ") {
				n++
				return n < 4
			}
			return false
		})
		caller, agent := r.talk()
		time.Sleep(15 * time.Second)
		r.net.Drop(nil)
		if n != 4 || agent.State() != pbxtest.Answered {
			t.Errorf("%d ACKs, the phone's call is %v", n, agent.State())
		}
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestForked2xx: the second phone of a fork is acknowledged and ended
// (RFC 3261 §13.2.2.4).
func TestForked2xx(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(5 * time.Second))
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		var answer *pbxtest.Message
		for _, e := range far.Log() {
			if e.Out && e.Message.Status == 200 {
				answer = e.Message
			}
		}
		fork := *answer
		fork.Fields = slices.Clone(answer.Fields)
		fork.Set("To", strings.Split(answer.Get("To"), ";tag=")[0]+";tag=fork")
		fork.Set("Contact", "<sip:fork@198.51.100.1:5099>")
		forked := netip.MustParseAddrPort("198.51.100.1:5099")
		r.ladder.Name(forked, "fork")
		r.must(r.carrier.Send(fork.Bytes()))
		time.Sleep(time.Second)
		r.says("carrier > switch 200 OK (INVITE)", "switch > fork ACK", "switch > fork BYE")
		if out.State() != pbxtest.Answered || far.State() != pbxtest.Answered {
			t.Errorf("the call did not survive: %v, %v", out.State(), far.State())
		}
		out.Hangup()
		r.must(far.WaitEnded(time.Second))
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestByeOvertakes200: a phone whose BYE comes before its 200 has not taken the
// call; the next agent gets it, and the late 200 is acknowledged and ended.
func TestByeOvertakes200(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		lost := false
		r.net.Drop(func(src, _ netip.AddrPort, payload []byte) bool {
			first := !lost && src == phoneAddr(0) && strings.HasPrefix(string(payload), "SIP/2.0 200") && strings.Contains(string(payload), " INVITE\r\n")
			lost = lost || first
			return first
		})
		call := r.call()
		agent, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		r.must(agent.WaitAnswered(time.Minute))
		agent.Hangup()
		r.answeredBy("102")
		time.Sleep(time.Second)
		call.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Rings) != 2 || rec.Rings[0].Result != "unreachable" || rec.Segments[0].Extension != "102" {
			t.Errorf("rings %+v", rec.Rings)
		}
		r.says("101 > switch BYE", "101 > switch 200 OK (INVITE)", "switch > 101 ACK", "switch > 101 BYE")
	})
}
