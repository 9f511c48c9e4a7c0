package pbxtest

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/icholy/digest"
)

var (
	carrierAddr = netip.MustParseAddrPort("198.51.100.1:5060")
	phoneAddr   = netip.MustParseAddrPort("192.0.2.101:5060")
)

// town is a carrier and a phone that talk straight to each other: each is the
// other's switch.
type town struct {
	*testing.T
	net     *Net
	ladder  *Ladder
	carrier *Carrier
	phone   *Phone
	lenient bool // violations are the test's business
}

func inTown(t *testing.T, test func(*town), edit ...func(carrier, phone *PeerConfig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		l := NewLadder()
		l.Name(carrierAddr, "carrier")
		l.Name(phoneAddr, "101")
		n.OnPacket(l.Tap)
		cc := PeerConfig{Name: "carrier", Listen: n.Listen, Addr: carrierAddr, Switch: phoneAddr, Voice: Voice{Say: Tone(425)}}
		pc := PeerConfig{Name: "101", Listen: n.Listen, Addr: phoneAddr, Switch: carrierAddr, Voice: Voice{Say: Tone(620)}}
		for _, f := range edit {
			f(&cc, &pc)
		}
		carrier, err := NewCarrier(cc)
		if err != nil {
			t.Fatal(err)
		}
		phone, err := NewPhone(pc)
		if err != nil {
			t.Fatal(err)
		}
		tn := &town{T: t, net: n, ladder: l, carrier: carrier, phone: phone}
		defer func() {
			for _, p := range []*Peer{carrier.Peer, phone.Peer} {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				for _, v := range p.Violations() {
					if !tn.lenient {
						t.Error("violation:", v)
					}
				}
			}
			if t.Failed() {
				t.Logf("\n%s", l)
			}
		}()
		test(tn)
	})
}

func (tn *town) must(err error) {
	tn.Helper()
	if err != nil {
		tn.Fatal(err)
	}
}

// call places a call from the carrier and returns both ends.
func (tn *town) call(o CallOptions) (out, in *Call) {
	tn.Helper()
	if o.To == "" {
		o.To = "101"
	}
	out, err := tn.carrier.Call(o)
	tn.must(err)
	in, err = tn.phone.WaitCall(time.Second)
	tn.must(err)
	return out, in
}

func (tn *town) lines(want ...string) {
	tn.Helper()
	if got := tn.ladder.Lines(); !slices.Equal(got, want) {
		tn.Errorf("ladder is\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestACallIsSpokenAndHeardOnBothSides(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.phone.SetBehaviour(Always(AnswerAfter(3 * time.Second)))
		out, in := tn.call(CallOptions{From: "+48600100200", PAI: "+48600100200", Privacy: "id"})
		tn.must(out.WaitRinging(time.Second))
		tn.must(out.WaitAnswered(5 * time.Second))
		if d := out.At(Answered).Sub(out.At(Ringing)); d != 3*time.Second {
			tn.Errorf("rang for %v", d)
		}
		time.Sleep(10 * time.Second)
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
		if e := in.End(); e != (End{Method: "BYE"}) {
			tn.Errorf("the phone's call ended by %+v", e)
		}
		if e := out.End(); e != (End{Method: "BYE", ByUs: true}) {
			tn.Errorf("the carrier's call ended by %+v", e)
		}
		for _, c := range []struct {
			call *Call
			hz   float64
		}{{out, 620}, {in, 425}} {
			h := c.call.Heard()
			if s := Spans(h.PCM, c.hz); len(s) != 1 || s[0].To-s[0].From < 9980*time.Millisecond {
				tn.Errorf("%s heard %v Hz at %v", c.call.peer.Name(), c.hz, s)
			}
			if Dominant(h.PCM, 425, 620) != c.hz || h.Lost+h.Late+h.Duplicates != 0 || len(h.SSRCs) != 1 || !slices.Equal(h.Laws, []Codec{PCMA}) {
				tn.Errorf("%s heard %d packets, lost %d, sources %x, laws %v", c.call.peer.Name(), h.Packets, h.Lost, h.SSRCs, h.Laws)
			}
		}
		if m := in.Invite(); m.Number("From") != "+48600100200" || m.Number("P-Asserted-Identity") != "+48600100200" || m.Get("privacy") != "id" || m.Number("") != "101" {
			tn.Errorf("INVITE was %s", m.Bytes())
		}
		const golden = `
         carrier                         101
   +0.000   │─────────── INVITE ─────────▶│  #1
   +0.000   │◀─── 180 Ringing (INVITE) ───│  #1
   +3.000   │◀───── 200 OK (INVITE) ──────│  #1
   +3.000   │──────────── ACK ───────────▶│  #1
  +13.000   │──────────── BYE ───────────▶│  #1
  +13.000   │◀─────── 200 OK (BYE) ───────│  #1
`
		if got := "\n" + tn.ladder.String(); got != golden {
			tn.Errorf("ladder is %s", got)
		}
	})
}

func TestACallSurvivesLossOfAnyMessageOnce(t *testing.T) {
	for _, lost := range []string{"INVITE", "180", "200 INVITE", "ACK", "BYE", "200 BYE"} {
		t.Run(lost, func(t *testing.T) {
			inTown(t, func(tn *town) {
				done := false
				tn.net.Drop(func(_, _ netip.AddrPort, b []byte) bool {
					m, err := ParseMessage(b)
					if err != nil || done {
						return false
					}
					_, method := m.CSeq()
					done = lost == m.Method || lost == fmt.Sprint(m.Status) || lost == fmt.Sprint(m.Status, " ", method)
					return done
				})
				tn.phone.SetBehaviour(Always(AnswerAfter(time.Second)))
				out, in := tn.call(CallOptions{})
				tn.must(out.WaitAnswered(3 * time.Second))
				time.Sleep(5 * time.Second)
				out.Hangup()
				tn.must(in.WaitEnded(2 * time.Second))
				time.Sleep(40 * time.Second)
				if !done {
					tn.Error("nothing was lost")
				}
				again := 0
				for _, line := range tn.ladder.Lines() {
					if strings.HasSuffix(line, "(again)") {
						again++
					}
				}
				if again == 0 && lost != "180" {
					tn.Error("nothing was repeated")
				}
			})
		})
	}
}

func TestATransactionGivesUpAfter64T1(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.lenient = true
		tn.phone.SetBehaviour(Always(Behaviour{Ignore: true}))
		out, err := tn.carrier.Call(CallOptions{To: "101"})
		tn.must(err)
		tn.must(out.WaitEnded(33 * time.Second))
		if d := out.At(Ended).Sub(out.At(Dialling)); d != 32*time.Second || out.End().Status != 408 {
			tn.Errorf("gave up after %v with %+v", d, out.End())
		}
		// RFC 3261 §17.1.1.2: at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s
		if n := len(tn.ladder.Lines()); n != 7 {
			tn.Errorf("sent %d INVITEs", n)
		}
		if v := tn.carrier.Violations(); len(v) != 1 || !strings.Contains(v[0], "no response to INVITE") {
			tn.Errorf("violations %v", v)
		}
	})
}

func TestAnAnswerWithoutACKIsRepeatedAndEndsInBYE(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.lenient = true
		tn.net.Drop(func(_, _ netip.AddrPort, b []byte) bool { return bytes.HasPrefix(b, []byte("ACK ")) })
		tn.phone.SetBehaviour(Always(AnswerAfter(0)))
		_, in := tn.call(CallOptions{})
		tn.must(in.WaitEnded(40 * time.Second))
		if d := in.At(Ended).Sub(in.At(Answered)); d < 32*time.Second || d > 36*time.Second || !in.End().ByUs {
			tn.Errorf("ended after %v: %+v", d, in.End())
		}
		n := 0
		for _, line := range tn.ladder.Lines() {
			if strings.HasPrefix(line, "101 > carrier 200 OK (INVITE)") {
				n++
			}
		}
		if n != 11 { // 0, 0.5, 1.5, 3.5, 7.5, then every 4 s
			tn.Errorf("the 200 was sent %d times", n)
		}
		if v := tn.phone.Violations(); len(v) != 1 || !strings.Contains(v[0], "no ACK") {
			tn.Errorf("violations %v", v)
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, status := range []int{486, 603, 480} {
		inTown(t, func(tn *town) {
			tn.phone.SetBehaviour(Always(Reject(status)))
			out, in := tn.call(CallOptions{})
			tn.must(out.WaitEnded(time.Second))
			if out.End().Status != status || in.End() != (End{Status: status, ByUs: true}) {
				tn.Errorf("ended %+v and %+v", out.End(), in.End())
			}
			err := out.WaitAnswered(time.Second)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprint("<", status)) {
				tn.Errorf("waiting for an answer: %v", err)
			}
			tn.lines("carrier > 101 INVITE", fmt.Sprintf("101 > carrier %d %s (INVITE)", status, reason(status)), "carrier > 101 ACK")
		})
	}
}

func TestCancel(t *testing.T) {
	inTown(t, func(tn *town) {
		out, in := tn.call(CallOptions{})
		tn.must(out.WaitRinging(time.Second))
		time.Sleep(20 * time.Second)
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
		tn.must(out.WaitEnded(time.Second))
		if in.End() != (End{Method: "CANCEL", Status: 487}) || out.End() != (End{Method: "CANCEL", Status: 487, ByUs: true}) {
			tn.Errorf("ended %+v and %+v", out.End(), in.End())
		}
		tn.lines("carrier > 101 INVITE", "101 > carrier 180 Ringing (INVITE)", "carrier > 101 CANCEL",
			"101 > carrier 200 OK (CANCEL)", "101 > carrier 487 Request Terminated (INVITE)", "carrier > 101 ACK")
	})
}

func TestCancelThatCrossesTheAnswerEndsInBYE(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.net.Impair(Any, Any, Impairment{Delay: 100 * time.Millisecond})
		tn.phone.SetBehaviour(Always(AnswerAfter(time.Second)))
		out, in := tn.call(CallOptions{})
		time.Sleep(950 * time.Millisecond)
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
		if in.At(Answered).IsZero() || out.End().Method != "BYE" {
			tn.Errorf("ended %+v and %+v", out.End(), in.End())
		}
		time.Sleep(time.Second)
	})
}

func TestLateOffer(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.phone.SetBehaviour(Always(AnswerAfter(time.Second)))
		out, in := tn.call(CallOptions{LateOffer: true, Voice: &Voice{Say: Tone(425), Codecs: []Codec{PCMU}}})
		tn.must(out.WaitAnswered(2 * time.Second))
		time.Sleep(2 * time.Second)
		in.Hangup()
		tn.must(out.WaitEnded(time.Second))
		if len(in.Invite().Body) != 0 || in.RemoteSDP() == nil {
			tn.Error("the INVITE had an offer")
		}
		if h := in.Heard(); !HasTone(h.PCM, 425) || !slices.Equal(h.Laws, []Codec{PCMU}) || !HasTone(out.Heard().PCM, 620) {
			tn.Errorf("heard %d packets of %v", h.Packets, h.Laws)
		}
	})
}

func TestHoldStopsBothVoices(t *testing.T) {
	for _, form := range []struct {
		d    Direction
		zero bool
	}{{SendOnly, false}, {Inactive, false}, {SendRecv, true}} {
		t.Run(fmt.Sprint(form), func(t *testing.T) {
			inTown(t, func(tn *town) {
				tn.phone.SetBehaviour(Always(AnswerAfter(0)))
				out, in := tn.call(CallOptions{})
				ctx := context.Background()
				time.Sleep(2 * time.Second)
				held := time.Now()
				tn.must(in.HoldAs(ctx, form.d, form.zero))
				time.Sleep(5 * time.Second)
				tn.must(in.Resume(ctx))
				resumed := time.Now()
				time.Sleep(2 * time.Second)
				out.Hangup()
				tn.must(in.WaitEnded(time.Second))
				h := in.Heard()
				if n := len(h.Between(held.Add(40*time.Millisecond), resumed.Add(-40*time.Millisecond))); n != samplesIn(4920*time.Millisecond) {
					tn.Errorf("%d samples on the timeline of the hold", n)
				}
				spans := Spans(h.PCM, 425)
				if len(spans) != 2 || spans[0].To < 1980*time.Millisecond || spans[0].To > 2025*time.Millisecond ||
					spans[1].From < 6980*time.Millisecond || spans[1].From > 7025*time.Millisecond {
					tn.Errorf("the phone heard its caller at %v", spans)
				}
				if got := len(Spans(out.Heard().PCM, 620)); form.d == SendOnly && got != 1 || form.d == Inactive && got != 2 {
					tn.Errorf("the caller heard %d stretches", got)
				}
			})
		})
	}
}

func TestReInviteWithoutOfferAndOtherRequests(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.phone.SetBehaviour(Always(AnswerAfter(0)))
		out, in := tn.call(CallOptions{})
		tn.must(out.WaitAnswered(time.Second))
		ctx := context.Background()
		res, err := out.ReInvite(ctx, nil)
		tn.must(err)
		if res.Status != 200 || len(res.Body) == 0 {
			tn.Errorf("re-INVITE without SDP answered %s", res)
		}
		for _, method := range []string{"UPDATE", "INFO", "OPTIONS", "NOTIFY"} {
			res, err := in.Request(ctx, method, nil)
			tn.must(err)
			if res.Status != 200 {
				tn.Errorf("%s answered %s", method, res)
			}
		}
		if res, err := in.Request(ctx, "PUBLISH", nil); err != nil || res.Status != 405 {
			tn.Errorf("PUBLISH answered %v, %v", res, err)
		}
		if res, err := tn.carrier.Request(ctx, tn.carrier.NewRequest("OPTIONS", "sip:192.0.2.101")); err != nil || res.Status != 200 || res.Get("Allow") == "" {
			tn.Errorf("OPTIONS answered %v, %v", res, err)
		}
		time.Sleep(time.Second)
		in.Hangup()
		tn.must(out.WaitEnded(time.Second))
	})
}

func TestEarlyMedia(t *testing.T) {
	inTown(t, func(tn *town) {
		tn.phone.SetBehaviour(Always(Behaviour{Early: true, Status: 200, After: 3 * time.Second}))
		out, in := tn.call(CallOptions{})
		tn.must(out.WaitAnswered(5 * time.Second))
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
		if s := Spans(out.Heard().PCM, 620); len(s) != 1 || s[0].To < 2900*time.Millisecond {
			tn.Errorf("heard before the answer: %v", s)
		}
	})
}

func TestDTMFIsHeardOncePerKey(t *testing.T) {
	for _, ptime := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		inTown(t, func(tn *town) {
			tn.phone.SetBehaviour(Always(AnswerAfter(0)))
			out, in := tn.call(CallOptions{Voice: &Voice{Say: Tone(425), Ptime: ptime, Loss: 0.1}})
			tn.must(out.WaitAnswered(time.Second))
			tn.must(out.SendDTMF("1190*#"))
			if err := out.SendDTMF("x"); err == nil {
				tn.Error("there is a key x")
			}
			time.Sleep(3 * time.Second)
			out.Hangup()
			tn.must(in.WaitEnded(time.Second))
			if k := in.Heard().Keys; k != "1190*#" {
				tn.Errorf("at %v heard keys %q", ptime, k)
			}
		})
	}
}

// registrar answers REGISTER with a digest challenge, checked by other code
// than the phone's.
type registrar struct {
	carrier   *Carrier
	algorithm string
	nonce     int
	asked     int
	accepted  int
}

func (r *registrar) onRequest(m *Message) bool {
	if m.Method != "REGISTER" {
		return false
	}
	r.asked++
	ch := digest.Challenge{Realm: "centralka", Nonce: fmt.Sprint("n", r.nonce), Algorithm: r.algorithm, QOP: []string{"auth"}, Opaque: "o"}
	if cred, err := digest.ParseCredentials(m.Get("Authorization")); err == nil && cred.Nonce == ch.Nonce {
		want, err := digest.Digest(&ch, digest.Options{Method: "REGISTER", URI: m.URI, Username: "101", Password: "secret", Count: cred.Nc, Cnonce: cred.Cnonce})
		if err == nil && want.Response == cred.Response {
			r.nonce++
			r.accepted++
			contact := m.Get("Contact") + ";expires=60"
			if m.Get("Expires") == "0" {
				contact = ""
			}
			if contact == "" {
				r.carrier.Respond(m, 200)
			} else {
				r.carrier.Respond(m, 200, Field{"Contact", "<sip:other@192.0.2.9>;expires=5, " + contact})
			}
			return true
		}
	}
	r.carrier.Respond(m, 401, Field{"WWW-Authenticate", ch.String()})
	return true
}

func TestRegisterRefreshUnregister(t *testing.T) {
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		r := &registrar{algorithm: algorithm}
		inTown(t, func(tn *town) {
			r.carrier = tn.carrier
			ctx := context.Background()
			tn.must(tn.phone.Register(ctx))
			if left := time.Until(tn.phone.Registered()); left != time.Minute {
				tn.Errorf("registered for %v", left)
			}
			time.Sleep(95 * time.Second)
			synctest.Wait()
			if r.accepted != 4 || r.asked != 8 {
				tn.Errorf("accepted %d of %d in 95 s", r.accepted, r.asked)
			}
			tn.must(tn.phone.Unregister(ctx))
			if !tn.phone.Registered().IsZero() {
				tn.Error("still registered")
			}
			time.Sleep(95 * time.Second)
			synctest.Wait()
			if r.accepted != 5 {
				tn.Errorf("accepted %d", r.accepted)
			}
		}, func(cc, pc *PeerConfig) {
			cc.OnRequest = r.onRequest
			pc.User, pc.Password = "101", "secret"
		})
	}
	r := &registrar{}
	inTown(t, func(tn *town) {
		r.carrier = tn.carrier
		if err := tn.phone.Register(context.Background()); err == nil || !strings.Contains(err.Error(), "401") {
			tn.Errorf("a wrong password registers: %v", err)
		}
	}, func(cc, pc *PeerConfig) {
		cc.OnRequest = r.onRequest
		pc.Password = "wrong"
	})
}

func TestACallIsAuthenticated(t *testing.T) {
	var carrier *Carrier
	inTown(t, func(tn *town) {
		carrier = tn.carrier
		carrier.SetBehaviour(Always(AnswerAfter(time.Second)))
		out, err := tn.phone.Dial("0914245000")
		tn.must(err)
		tn.must(out.WaitAnswered(2 * time.Second))
		in, err := tn.carrier.WaitCall(0)
		tn.must(err)
		if in.Invite().Get("Proxy-Authorization") == "" {
			tn.Error("no credentials")
		}
		time.Sleep(time.Second)
		out.Hangup()
		tn.must(in.WaitEnded(time.Second))
	}, func(cc, pc *PeerConfig) {
		cc.OnRequest = func(m *Message) bool {
			if m.Method != "INVITE" || m.Get("Proxy-Authorization") != "" {
				return false
			}
			return carrier.Respond(m, 407, Field{"Proxy-Authenticate", `Digest realm="a, b", nonce="x;y", algorithm=MD5`}) == nil
		}
		pc.Password = "secret"
	})
}

func TestOverRealSockets(t *testing.T) {
	listen := func(name string, to netip.AddrPort, hz int) *Peer {
		p, err := NewPeer(PeerConfig{Name: name, Listen: ListenUDP, Addr: netip.MustParseAddrPort("127.0.0.1:0"), Switch: to,
			Behave: Always(AnswerAfter(0)), Voice: Voice{Say: Tone(hz), Tolerance: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	in := listen("101", netip.AddrPort{}, 620)
	out := listen("carrier", in.Addr(), 425)
	call, err := out.Call(CallOptions{To: "101"})
	if err == nil {
		err = call.WaitAnswered(5 * time.Second)
	}
	if err != nil {
		t.Fatal(err)
	}
	other, err := in.WaitCall(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// A real clock: wait for what must be heard, not for a time.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && (call.Heard().Packets < 10 || other.Heard().Packets < 10); {
		if _, err := out.Request(context.Background(), out.NewRequest("OPTIONS", "sip:101@127.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	call.Hangup()
	if err := other.WaitEnded(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if !HasTone(call.Heard().PCM, 620) || !HasTone(other.Heard().PCM, 425) {
		t.Errorf("heard %d and %d packets", call.Heard().Packets, other.Heard().Packets)
	}
	for _, p := range []*Peer{in, out} {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if v := p.Violations(); len(v) != 0 {
			t.Error(v)
		}
	}
}
