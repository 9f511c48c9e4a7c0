package pbx_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// reliableFar answers after 3 s, having rung reliably, with early media or not.
func reliableFar(early bool) pbxtest.Behaviour {
	b := pbxtest.AnswerAfter(3 * time.Second)
	b.Reliable, b.Early = true, early
	return b
}

// TestReliableRingingOfTrunk: each reliable provisional response of the trunk
// gets one PRACK, in order, and the ACK has the INVITE's CSeq (RFC 3262 §4). A
// reliable answer is the answer: the 200 has none.
func TestReliableRingingOfTrunk(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		for _, lost := range []string{"nothing", "SIP/2.0 18", "PRACK", "200 to PRACK"} {
			t.Run(fmt.Sprintf("early media %v, lost: %s", early, lost), func(t *testing.T) {
				scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
					r.carrier.SetBehaviour(pbxtest.Always(reliableFar(early)))
					switch lost {
					case "SIP/2.0 18":
						r.lose(carrierAddr, lost, func(n int) bool { return n == 1 })
					case "PRACK":
						r.lose(switchAddr, lost, func(n int) bool { return n <= 2 })
					case "200 to PRACK":
						r.lose(carrierAddr, "SIP/2.0 200", func(n int) bool { return n == 1 })
					}
					out, err := r.phones["101"].Dial("0600100200")
					r.must(err)
					far, err := r.carrier.WaitCall(time.Second)
					r.must(err)
					r.must(out.WaitAnswered(10 * time.Second))
					r.must(far.WaitAnswered(time.Second))
					pracks := map[string]bool{}
					for _, e := range far.Log() {
						if !e.Out && e.Message.Method == "PRACK" {
							pracks[e.Message.Branch()] = true
						}
					}
					if len(pracks) != 1 {
						t.Errorf("%d PRACKs\n%s", len(pracks), r.ladder)
					}
					status := "180 Ringing"
					if early {
						status = "183 Session Progress"
					}
					r.says("switch > carrier INVITE", "carrier > switch "+status+" (INVITE)", "switch > carrier PRACK",
						"carrier > switch 200 OK (PRACK)", "carrier > switch 200 OK (INVITE)", "switch > carrier ACK")
					time.Sleep(2 * time.Second)
					hears(t, "phone", out.Heard().Since(out.At(pbxtest.Answered).Add(100*time.Millisecond)), callerHz)
					hears(t, "far end", far.Heard().Since(far.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz)
					out.Hangup()
					ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
				})
			})
		}
	}
}

// TestEarlyUpdate: after a reliable answer the far end may offer anew before it
// answers the call (RFC 3311 §5.1); before any, the offer crosses ours.
func TestEarlyUpdate(t *testing.T) {
	t.Parallel()
	for _, reliable := range []bool{true, false} {
		t.Run(fmt.Sprint(reliable), func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				b := reliableFar(true)
				b.Reliable = reliable
				r.carrier.SetBehaviour(pbxtest.Always(b))
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				far, err := r.carrier.WaitCall(time.Second)
				r.must(err)
				time.Sleep(time.Second)
				res, err := far.Request(t.Context(), "UPDATE", far.LocalSDP(), pbxtest.Field{Name: "Content-Type", Value: "application/sdp"},
					pbxtest.Field{Name: "Contact", Value: "<sip:carrier@198.51.100.1:5060>"})
				r.must(err)
				if want := map[bool]int{true: 200, false: 491}[reliable]; res.Status != want {
					t.Errorf("UPDATE answered %d", res.Status)
				}
				r.must(out.WaitAnswered(10 * time.Second))
				time.Sleep(time.Second)
				hears(t, "phone", out.Heard().Since(out.At(pbxtest.Answered).Add(100*time.Millisecond)), callerHz)
				out.Hangup()
				ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
			})
		})
	}
}

// TestReliableRingingToPhone: a phone that requires 100rel gets our ringing and
// the far end's early media so, and no 200 before its PRACK (RFC 3262 §3).
func TestReliableRingingToPhone(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		for _, lost := range []string{"nothing", "SIP/2.0 18", "PRACK"} {
			t.Run(fmt.Sprintf("early media %v, lost: %s", early, lost), func(t *testing.T) {
				scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
					b := pbxtest.AnswerAfter(100 * time.Millisecond)
					b.Early = early
					r.carrier.SetBehaviour(pbxtest.Always(b))
					switch lost {
					case "SIP/2.0 18":
						r.net.Drop(dropFirst(switchAddr, lost, phoneAddr(0)))
					case "PRACK":
						r.lose(phoneAddr(0), lost, func(n int) bool { return n == 1 })
					}
					out, err := r.phones["101"].Call(pbxtest.CallOptions{To: "0600100200", Fields: []pbxtest.Field{{Name: "Require", Value: "100rel"}}})
					r.must(err)
					r.must(out.WaitAnswered(10 * time.Second))
					far, err := r.carrier.WaitCall(time.Second)
					r.must(err)
					lines := []string{"switch > 101 180 Ringing (INVITE)", "101 > switch PRACK", "switch > 101 200 OK (PRACK)", "switch > 101 200 OK (INVITE)"}
					if early {
						lines[0] = "switch > 101 183 Session Progress (INVITE)"
					}
					if early || lost == "nothing" {
						r.says(lines...)
					}
					time.Sleep(2 * time.Second)
					hears(t, "phone", out.Heard().Since(out.At(pbxtest.Answered).Add(200*time.Millisecond)), callerHz)
					hears(t, "far end", far.Heard().PCM, phoneHz)
					out.Hangup()
					ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
				})
			})
		}
	}
}

// TestPRACKThatNeverComes: the INVITE is refused with a 5xx after 64*T1
// (RFC 3262 §3).
func TestPRACKThatNeverComes(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
		out, err := r.phones["101"].Call(pbxtest.CallOptions{To: "0600100200", Edit: func(m *pbxtest.Message) { m.Set("Require", "100rel") }})
		r.must(err)
		r.net.Drop(dropAll(switchAddr, "SIP/2.0 180", phoneAddr(0)))
		r.must(out.WaitEnded(40 * time.Second))
		if e := out.End(); e.Status != 504 {
			t.Errorf("ended %+v", e)
		}
		rec := r.only()
		ended(t, rec, store.CauseNoAck, store.OutcomeNone)
		if rec.SIPStatus != 504 {
			t.Errorf("recorded %d", rec.SIPStatus)
		}
	})
}

// TestWrongRAck: a PRACK that belongs to nothing, or to what has been
// acknowledged, gets 481 (RFC 3262 §3), and the call goes on.
func TestWrongRAck(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		out, err := r.phones["101"].Call(pbxtest.CallOptions{To: "0600100200", Fields: []pbxtest.Field{{Name: "Require", Value: "100rel"}}})
		r.must(err)
		ringing, err := r.phones["101"].WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status == 180 })
		r.must(err)
		time.Sleep(100 * time.Millisecond)
		for _, wrong := range []string{ringing.Get("RSeq") + " " + ringing.Get("CSeq"), "1 1 INVITE", "", "1 2", "x y INVITE"} {
			res, err := out.Request(t.Context(), "PRACK", nil, pbxtest.Field{Name: "RAck", Value: wrong})
			r.must(err)
			if res.Status != 481 {
				t.Errorf("RAck %q answered %d", wrong, res.Status)
			}
		}
		r.must(out.WaitAnswered(5 * time.Second))
		out.Hangup()
		r.only()
	})
}

// TestRequired100relWithNothingToRing: a trunk's call that requires it is
// answered at once.
func TestRequired100relWithNothingToRing(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Fields: []pbxtest.Field{{Name: "Require", Value: "100rel"}}})
		r.must(err)
		r.answeredBy("101")
		for _, l := range r.ladder.Lines() {
			if strings.HasPrefix(l, "switch > carrier 18") {
				t.Errorf("%q", l)
			}
		}
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// dropAll drops what begins so from one to the other; dropFirst only once.
func dropAll(from netip.AddrPort, begin string, to netip.AddrPort) func(src, dst netip.AddrPort, payload []byte) bool {
	return func(src, dst netip.AddrPort, payload []byte) bool {
		return src == from && dst == to && strings.HasPrefix(string(payload), begin)
	}
}

func dropFirst(from netip.AddrPort, begin string, to netip.AddrPort) func(src, dst netip.AddrPort, payload []byte) bool {
	done := false
	return func(src, dst netip.AddrPort, payload []byte) bool {
		if done || !dropAll(from, begin, to)(src, dst, payload) {
			return false
		}
		done = true
		return true
	}
}
