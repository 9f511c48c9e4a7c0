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

// moved is what a phone does that forwards its calls.
func moved(status int, contacts ...string) pbxtest.Behaviour {
	b := pbxtest.Reject(status)
	for _, c := range contacts {
		b.Fields = append(b.Fields, pbxtest.Field{Name: "Contact", Value: c})
	}
	return b
}

// ringResults lists the offers of a call as "101 forwarded".
func ringResults(rec store.CallRecord) []string {
	var out []string
	for _, ring := range rec.Rings {
		who := ring.Extension
		if who == "" {
			who = string(ring.Number)
		}
		out = append(out, who+" "+ring.Result)
	}
	return out
}

func rang(t *testing.T, rec store.CallRecord, want ...string) {
	t.Helper()
	if got := ringResults(rec); !slices.Equal(got, want) {
		t.Errorf("rings %q, want %q", got, want)
	}
}

// TestForwardedToExtension: a phone that forwards its calls has them ring at the
// other one, which is told by whom; on the way back it is a call like any.
func TestForwardedToExtension(t *testing.T) {
	t.Parallel()
	for _, status := range []int{300, 301, 302} {
		scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
			r.behave("101", moved(status, "<sip:103@192.0.2.10>;q=0.1, <sip:102@elsewhere.example>;q=0.9"))
			if status == 302 { // the refusal is lost, and comes again
				lost := false
				r.net.Drop(func(src, _ netip.AddrPort, b []byte) bool {
					drop := !lost && src == phoneAddr(0) && strings.HasPrefix(string(b), "SIP/2.0 302")
					lost = lost || drop
					return drop
				})
			}
			caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
			r.must(err)
			target := r.answeredBy("102")
			time.Sleep(2 * time.Second)
			if d := target.Invite().Get("Diversion"); d != "<sip:101@centralka.test>;reason=unconditional;counter=1" {
				t.Errorf("Diversion %q", d)
			}
			if from := target.Invite().Number("From"); from != "+48600100200" {
				t.Errorf("the target sees %q", from)
			}
			caller.Hangup()
			rec := r.only()
			ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
			rang(t, rec, "101 forwarded", "102 answered")
			segments(t, rec, "102")
			r.quiet("103")
		})
	}
}

// TestForwardedOutside: to a number outside if the extension may call it itself;
// the carrier is told who forwards, the caller is recorded, and the call counts as
// one of that extension's.
func TestForwardedOutside(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Dial.MaxOutgoingPerExtension = 1
	scenario(t, cfg, func(t *testing.T, r *rig) {
		b := moved(302, "<sip:0501502503@192.0.2.10>")
		b.Ring, b.After = 0, 2*time.Second // it rings first
		r.behave("101", b)
		far := pbxtest.AnswerAfter(7 * time.Second)
		far.Say = pbxtest.Tone(1000)
		r.carrier.SetBehaviour(pbxtest.Always(far))
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111", Say: pbxtest.Tone(1300)})
		r.must(err)
		third, err := r.carrier.WaitCall(10 * time.Second)
		r.must(err)
		r.must(third.WaitAnswered(10 * time.Second))
		answered := time.Now()
		time.Sleep(3 * time.Second)
		invite := third.Invite()
		if d := invite.Get("Diversion"); !strings.HasPrefix(d, "<sip:+48914245111@192.0.2.10>;reason=no-answer;counter=1") {
			t.Errorf("Diversion %q", d)
		}
		if h := invite.Get("History-Info"); !strings.HasPrefix(h, "<sip:+48914245111@192.0.2.10>;index=1, <sip:+48501502503@") || !strings.HasSuffix(h, ";cause=408>;index=1.1;mp=1") {
			t.Errorf("History-Info %q", h)
		}
		if strings.Contains(string(invite.Bytes()), "600100200") || invite.Number("From") != "+48914245000" {
			t.Errorf("the carrier is told of the caller: %s", invite.Bytes())
		}
		if !ringbackHeard(caller.Heard().Between(answered.Add(-6500*time.Millisecond), answered)) {
			t.Error("the caller hears no ringback")
		}
		hears(t, "caller", caller.Heard().Since(answered.Add(200*time.Millisecond)), 1000)
		hears(t, "third", third.Heard().PCM, 1300)

		second, err := r.phones["102"].Dial("101") // one too many for 101
		r.must(err)
		r.must(second.WaitEnded(5 * time.Second))
		if e := second.End(); e.Status != 480 {
			t.Errorf("a second call was forwarded: %+v", e)
		}
		third.Hangup()
		r.must(caller.WaitEnded(time.Second))
		for _, rec := range r.records() {
			if rec.Direction == store.Internal {
				rang(t, rec, "101 forwarded")
				continue
			}
			ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
			rang(t, rec, "101 forwarded", "+48501502503 answered")
			segments(t, rec, "+48501502503")
			citizen, office := r.lanes(rec)
			sameLength(t, rec, citizen)
			hears(t, "citizen's lane", citizen, 1300)
			hears(t, "office lane", office, 1000)
		}
	})
}

// TestInternalCallForwardedOutside: two phones, of which one has sent its calls to
// a number outside: from then on an outgoing call, recorded.
func TestInternalCallForwardedOutside(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", moved(302, "<sip:+48501502503@192.0.2.10>"))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		out, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(out.WaitAnswered(5 * time.Second))
		time.Sleep(3 * time.Second)
		hears(t, "phone", out.Heard().PCM, callerHz)
		out.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		rang(t, rec, "102 forwarded", "+48501502503 answered")
		if rec.Direction != store.Outgoing || rec.Called != "+48501502503" || rec.Trunk != "operator" {
			t.Errorf("record %+v", rec)
		}
		left, right := r.lanes(rec)
		hears(t, "left lane", left, callerHz, phoneHz)
		hears(t, "right lane", right, phoneHz, callerHz)
	})
}

// TestNotForwarded: what a phone's redirection does not reach.
func TestNotForwarded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		to     string
		told   int
	}{
		{"premium", 302, "<sip:0700123456@x>", 480},
		{"abroad", 302, "<sip:+441632960961@x>", 480},
		{"emergency", 302, "<sip:112@x>", 480},
		{"emergency with prefix", 302, "<sip:0112@x>", 480},
		{"the caller", 302, "<sip:101@x>", 480},
		{"itself", 302, "<sip:102@x>", 480},
		{"a code", 302, "<sip:*24@x>", 480},
		{"nobody", 302, "<sip:777@x>", 480},
		{"by REGISTER", 302, "<sip:103@x;method=REGISTER>", 603},
		{"without Contact", 302, "", 603},
		{"proxy", 305, "<sip:103@x>", 603},
		{"service", 380, "<sip:103@x>", 603},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
				b := moved(c.status)
				if c.to != "" {
					b = moved(c.status, c.to)
				}
				r.behave("102", b)
				out, err := r.phones["101"].Dial("102")
				r.must(err)
				r.must(out.WaitEnded(2 * time.Second))
				if e := out.End(); e.Status != c.told {
					t.Errorf("the caller was told %+v, want %d", e, c.told)
				}
				r.quiet("carrier")
				r.quiet("103")
				r.records()
			})
		})
	}
}

// TestForwardingEnds: phones that send calls to each other, and a chain that is
// too long, end it.
func TestForwardingEnds(t *testing.T) {
	t.Parallel()
	phones := []string{"101", "102", "103", "104", "105", "106"}
	scenario(t, briefCity(t, phones...), func(t *testing.T, r *rig) {
		r.behave("102", moved(302, "<sip:103@x>"))
		r.behave("103", moved(302, "<sip:102@x>"))
		out, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(out.WaitEnded(2 * time.Second))
		if e := out.End(); e.Status != 480 {
			t.Errorf("a circle ended %+v", e)
		}
		for i, p := range phones[1:5] {
			r.behave(p, moved(302, fmt.Sprintf("<sip:%s@x>", phones[i+2])))
		}
		out, err = r.phones["101"].Dial("102")
		r.must(err)
		r.must(out.WaitEnded(2 * time.Second))
		if e := out.End(); e.Status != 480 {
			t.Errorf("a chain of four ended %+v", e)
		}
		r.quiet("106")
		out, err = r.phones["101"].Dial("103") // three are followed
		r.must(err)
		r.must(out.WaitAnswered(5 * time.Second))
		out.Hangup()
		r.records()
	})
}

// TestQueueCallIsNotForwarded: for the queue an agent who forwards has not taken
// the call; the next one has it, and nobody outside.
func TestQueueCallIsNotForwarded(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", moved(302, "<sip:0501502503@x>"))
		caller := r.call()
		r.answeredBy("102")
		caller.Hangup()
		rec := r.only()
		rang(t, rec, "101 forwarded", "102 answered")
		r.quiet("carrier")
	})
}

// TestTransferIsForwarded: the target of a transfer forwards: the party that is
// passed on reaches whom it forwards to; if that one is busy it comes back.
func TestTransferIsForwarded(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
			r.behave("102", moved(302, "<sip:103@x>"))
			if busy {
				r.behave("103", pbxtest.Reject(486))
			}
			caller, agent := r.talk()
			time.Sleep(time.Second)
			r.refer(agent, "102", 202)
			if busy {
				time.Sleep(time.Second)
				told(t, agent, "100 active", "486 terminated")
				caller.Hangup()
				segments(t, r.only(), "101", "101")
				return
			}
			r.answeredBy("103")
			time.Sleep(time.Second)
			told(t, agent, "100 active", "180 active", "200 terminated")
			caller.Hangup()
			segments(t, r.only(), "101", "103")
		})
	}
}

// TestForwardedByOneOfTwoDevices: the other device stops ringing, and who gave up
// in the middle leaves nothing that rings.
func TestForwardedByOneOfTwoDevices(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		other := r.device("101", 181)
		other.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
		b := moved(302, "<sip:0501502503@x>")
		b.Ring, b.After = 0, time.Second
		r.behave("101", b)
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
		out, err := r.phones["102"].Dial("101")
		r.must(err)
		far, err := r.carrier.WaitCall(5 * time.Second)
		r.must(err)
		time.Sleep(100 * time.Millisecond) // the CANCEL leaves beside the INVITE
		r.says("switch > 101/181 CANCEL", "101/181 > switch 487")
		time.Sleep(time.Second)
		out.Hangup()
		r.must(far.WaitEnded(time.Second))
		if e := far.End(); e.Method != "CANCEL" {
			t.Errorf("the far end was ended by %+v", e)
		}
		rec := r.only()
		ended(t, rec, store.CauseCancelled, store.OutcomeNone)
		rang(t, rec, "101 forwarded", "+48501502503 cancelled")
	})
}

// TestEarlyMediaOfForward: a phone hears what the carrier plays before the answer
// of a number to which another phone has forwarded the call (RFC 3960 §3.1).
func TestEarlyMediaOfForward(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", moved(302, "<sip:0501502503@192.0.2.10>"))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Early: true, Status: 200, After: 4 * time.Second}))
		out, err := r.phones["102"].Dial("101")
		r.must(err)
		r.must(out.WaitAnswered(10 * time.Second))
		answered := time.Now()
		hears(t, "phone before the answer", out.Heard().Between(answered.Add(-3*time.Second), answered), callerHz)
		time.Sleep(time.Second)
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		hears(t, "far end", far.Heard().Since(answered.Add(100*time.Millisecond)), phoneHz+30)
		far.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		segments(t, rec, "102")
	})
}
