package pbx_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// quietCity is briefCity without a media timeout, for calls that last long and
// in which nobody speaks.
func quietCity(t *testing.T) pbx.Config {
	cfg := briefCity(t, "101")
	cfg.RTP.Timeout = 0
	return cfg
}

// sessionFields are the fields of somebody who asks for a session of 90 s.
func sessionFields(refresher string) []pbxtest.Field {
	if refresher != "" {
		refresher = ";refresher=" + refresher
	}
	return []pbxtest.Field{{Name: "Supported", Value: "timer"}, {Name: "Session-Expires", Value: "90" + refresher}}
}

// longCall places a call that is answered and in which nobody speaks any more.
func (r *rig) longCall(o pbxtest.CallOptions) (caller, agent *pbxtest.Call) {
	r.t.Helper()
	o.From, o.To = "+48600100200", "+48914245000"
	caller, err := r.carrier.Call(o)
	r.must(err)
	agent = r.answeredBy("101")
	time.Sleep(time.Second)
	caller.Say(nil)
	agent.Say(nil)
	return caller, agent
}

// methods lets the edit of an INVITE name other methods than all.
func methods(list string) func(*pbxtest.Message) {
	return func(m *pbxtest.Message) { m.Set("Allow", list) }
}

// TestSessionIsRefreshedByUs: neither the carrier nor the phone has heard of
// session timers; both are asked every 15 minutes, and the call goes on.
func TestSessionIsRefreshedByUs(t *testing.T) {
	t.Parallel()
	scenario(t, quietCity(t), func(t *testing.T, r *rig) {
		caller, agent := r.longCall(pbxtest.CallOptions{})
		time.Sleep(time.Hour)
		if a, b := r.count("switch > carrier UPDATE"), r.count("switch > 101 UPDATE"); a != 4 || b != 4 {
			t.Errorf("%d and %d refreshes in an hour", a, b)
		}
		if n := r.count("switch > carrier BYE"); n != 0 || caller.State() != pbxtest.Answered {
			t.Error("a healthy call was ended")
		}
		since := time.Now()
		caller.Say(pbxtest.Tone(callerHz))
		time.Sleep(2 * time.Second)
		hears(t, "agent", agent.Heard().Since(since.Add(100*time.Millisecond)), callerHz)
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestSessionAnswered: what the 2xx says to what the INVITE asked for (RFC 4028
// §9, table 2).
func TestSessionAnswered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, supported, expires, min string
		status                        int
		want, require                 string
	}{
		{"nothing", "", "", "", 200, "1800;refresher=uas", ""},
		{"supported only", "100rel, timer", "", "", 200, "1800;refresher=uas", "timer"},
		{"no refresher named", "timer", "300", "", 200, "300;refresher=uas", "timer"},
		{"we shall", "timer", "300;refresher=uas", "", 200, "300;refresher=uas", "timer"},
		{"the caller shall", "timer", "300;refresher=uac", "", 200, "300;refresher=uac", "timer"},
		{"a proxy's", "", "300", "", 200, "300;refresher=uas", ""},
		{"too long for us", "timer", "86400", "", 200, "1800;refresher=uas", "timer"},
		{"too long, and nothing shorter will do", "timer", "7200", "3600", 200, "3600;refresher=uas", "timer"},
		{"shortest", "timer", "90", "90", 200, "90;refresher=uas", "timer"},
		{"too short", "timer", "89;refresher=uac", "", 422, "", ""},
		{"too short, of a proxy", "", "60", "", 200, "1800;refresher=uas", ""},
		{"unreadable", "timer", "soon", "", 200, "1800;refresher=uas", "timer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, quietCity(t), func(t *testing.T, r *rig) {
				call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Edit: func(m *pbxtest.Message) {
					m.Set("Supported", c.supported)
					m.Set("Session-Expires", c.expires)
					m.Set("Min-SE", c.min)
				}})
				r.must(err)
				res, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status >= 200 })
				r.must(err)
				if res.Status != c.status || res.Get("Session-Expires") != c.want || res.Get("Require") != c.require {
					t.Errorf("answered %s", res.Bytes())
				}
				if c.status == 422 && res.Get("Min-SE") != "90" {
					t.Errorf("422 with Min-SE %q", res.Get("Min-SE"))
				}
				time.Sleep(100 * time.Millisecond)
				call.Hangup()
				r.must(call.WaitEnded(time.Second))
				r.records()
			})
		})
	}
}

// TestSessionRefreshMethods: by UPDATE if the peer's Allow has it; else by a
// re-INVITE with the very description that the peer knows, so that nothing is
// heard of it (RFC 4028 §7.4).
func TestSessionRefreshMethods(t *testing.T) {
	t.Parallel()
	for _, allow := range []string{"INVITE, ACK, BYE, UPDATE", "INVITE, ACK, BYE"} {
		t.Run(allow, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Fields: sessionFields(""), Edit: methods(allow)})
				r.must(err)
				agent := r.answeredBy("101")
				time.Sleep(60 * time.Second)
				method := "INVITE"
				if strings.Contains(allow, "UPDATE") {
					method = "UPDATE"
				}
				if n := r.count("switch > carrier " + method); n != 1 {
					t.Errorf("%d refreshes by %s\n%s", n, method, r.ladder)
				}
				sdp := map[string]bool{}
				for _, e := range caller.Log() {
					if m := e.Message; m.Method == method && !e.Out || m.Status == 200 && !e.Out && len(m.Body) > 0 {
						if m.Method == method && m.Get("Session-Expires") != "90;refresher=uac" {
							t.Errorf("refresh says %q", m.Get("Session-Expires"))
						}
						if m.Method == "UPDATE" && len(m.Body) > 0 {
							t.Error("UPDATE with an offer")
						}
						if len(m.Body) > 0 {
							sdp[string(m.Body)] = true
						}
					}
				}
				if len(sdp) != 1 {
					t.Errorf("%d descriptions were sent", len(sdp))
				}
				if method == "INVITE" {
					r.says("switch > carrier INVITE", "carrier > switch 200 OK (INVITE)", "switch > carrier ACK")
				}
				if spans := pbxtest.Spans(caller.Heard().Since(agent.At(pbxtest.Answered).Add(200*time.Millisecond)), phoneHz); len(spans) != 1 {
					t.Errorf("the voice had gaps: %v", spans)
				}
				caller.Hangup()
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				if len(rec.Holds) != 0 {
					t.Errorf("holds %+v", rec.Holds)
				}
			})
		})
	}
}

// TestSessionRefreshWhileHeld: the description sent again is the one of the
// hold, and the hold goes on. The carrier's Allow names UPDATE, but it does not
// take it.
func TestSessionRefreshWhileHeld(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetOnRequest(func(m *pbxtest.Message) bool {
			if m.Method != "UPDATE" {
				return false
			}
			if err := r.carrier.Respond(m, 405); err != nil {
				t.Error(err)
			}
			return true
		})
		caller, agent := r.talk()
		r.must(caller.Hold(t.Context()))
		time.Sleep(1000 * time.Second)
		if n := r.count("switch > carrier INVITE"); n != 1 {
			t.Errorf("%d refreshes", n)
		}
		r.says("switch > carrier UPDATE", "carrier > switch 405", "switch > carrier INVITE", "carrier > switch 200 OK (INVITE)", "switch > carrier ACK")
		if !musicHeard(agent.Heard().Since(time.Now().Add(-2 * time.Second))) {
			t.Error("the refresh has ended the hold")
		}
		caller.Hangup()
		if rec := r.only(); len(rec.Holds) != 1 {
			t.Errorf("holds %+v", rec.Holds)
		}
	})
}

// TestSessionRefreshOutcomes: what becomes of the call by the answer to our
// refresh (RFC 4028 §10).
func TestSessionRefreshOutcomes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		answers []int // 0: none at all; the last one for all further requests
		fields  []pbxtest.Field
		sent    int           // requests in the first 80 s
		ends    time.Duration // after the answer, ±1 s; 0: it goes on
	}{
		{"unknown dialog", []int{481}, nil, 1, 45 * time.Second},
		{"timed out behind a proxy", []int{408}, nil, 1, 45 * time.Second},
		{"no answer", []int{0}, nil, 1, 60 * time.Second},
		{"glare, then fine", []int{491, 200}, sessionFields("uac")[1:], 2, 0},
		{"glare for ever", []int{491}, nil, -1, 60 * time.Second},
		{"busy, then fine", []int{500, 200}, sessionFields("uac")[1:], 2, 0},
		{"refused for ever", []int{403}, nil, -1, 60 * time.Second},
		{"longer, please", []int{422, 200}, []pbxtest.Field{{Name: "Min-SE", Value: "600"}}, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, quietCity(t), func(t *testing.T, r *rig) {
				var mu sync.Mutex
				sent := 0
				r.carrier.SetOnRequest(func(m *pbxtest.Message) bool {
					if m.Method != "UPDATE" {
						return false
					}
					mu.Lock()
					status := c.answers[min(sent, len(c.answers)-1)]
					sent++
					mu.Unlock()
					if status != 0 {
						if err := r.carrier.Respond(m, status, c.fields...); err != nil {
							t.Error(err)
						}
					}
					return true
				})
				caller, _ := r.longCall(pbxtest.CallOptions{Fields: sessionFields("")})
				answered := caller.At(pbxtest.Answered)
				time.Sleep(80*time.Second - time.Since(answered))
				mu.Lock()
				n := sent
				mu.Unlock()
				if c.sent >= 0 && n != c.sent || n == 0 {
					t.Errorf("%d refreshes\n%s", n, r.ladder)
				}
				if c.ends == 0 {
					if caller.State() != pbxtest.Answered {
						t.Fatalf("ended\n%s", r.ladder)
					}
					caller.Hangup()
					ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
					return
				}
				r.must(caller.WaitEnded(time.Second))
				if d := caller.At(pbxtest.Ended).Sub(answered); (d - c.ends).Abs() > time.Second {
					t.Errorf("ended after %v", d)
				}
				if e := caller.End(); e.Method != "BYE" || e.ByUs || !strings.Contains(e.Reason, "cause=102") {
					t.Errorf("ended by %+v", e)
				}
				ended(t, r.only(), store.CauseSessionExpired, store.OutcomeOK)
			})
		})
	}
}

// TestSessionOfPeer: a caller who said that it refreshes and does so keeps the
// call; once it is silent, we hang up before the session expires (RFC 4028
// §10).
func TestSessionOfPeer(t *testing.T) {
	t.Parallel()
	scenario(t, quietCity(t), func(t *testing.T, r *rig) {
		caller, agent := r.longCall(pbxtest.CallOptions{Fields: sessionFields("uac")})
		var last time.Time
		for range 3 {
			time.Sleep(45 * time.Second)
			last = time.Now()
			res, err := caller.Request(t.Context(), "UPDATE", nil, sessionFields("uac")...)
			r.must(err)
			if res.Status != 200 || res.Get("Session-Expires") != "90;refresher=uac" {
				t.Errorf("answered %s", res.Bytes())
			}
		}
		if n := r.count("switch > carrier UPDATE"); n != 0 {
			t.Errorf("we refreshed %d times", n)
		}
		r.must(caller.WaitEnded(2 * time.Minute))
		r.must(agent.WaitEnded(time.Second))
		if d := caller.At(pbxtest.Ended).Sub(last); (d - time.Minute).Abs() > time.Second {
			t.Errorf("ended %v after the last refresh", d)
		}
		ended(t, r.only(), store.CauseSessionExpired, store.OutcomeOK)
	})
}

// TestSessionTooShortInCall: 422 to a refresh, and the session stays.
func TestSessionTooShortInCall(t *testing.T) {
	t.Parallel()
	scenario(t, quietCity(t), func(t *testing.T, r *rig) {
		caller, _ := r.longCall(pbxtest.CallOptions{})
		short := []pbxtest.Field{{Name: "Supported", Value: "timer"}, {Name: "Session-Expires", Value: "30"}}
		res, err := caller.Request(t.Context(), "UPDATE", nil, short...)
		r.must(err)
		if res.Status != 422 || res.Get("Min-SE") != "90" {
			t.Errorf("answered %s", res.Bytes())
		}
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestSessionAskedOutgoing: our INVITE asks for a session that we refresh, takes
// a 422 and asks again with the interval named in it (RFC 4028 §7.3), and keeps
// to what the 2xx says.
func TestSessionAskedOutgoing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, granted string
		ours          bool
	}{
		{"granted", "90;refresher=uac", true}, {"taken over", "90;refresher=uas", false}, {"nothing said", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, quietCity(t), func(t *testing.T, r *rig) {
				asked := 0
				r.carrier.SetBehaviour(func(m *pbxtest.Message) pbxtest.Behaviour {
					asked++
					if got, want := m.Get("Session-Expires"), []string{"", "1800;refresher=uac", "3600;refresher=uac"}[asked]; got != want || !strings.Contains(m.Get("Supported"), "timer") {
						t.Errorf("INVITE %d asks for %q, want %q", asked, got, want)
					}
					if asked == 1 {
						return pbxtest.Behaviour{Ring: -1, Status: 422, Fields: []pbxtest.Field{{Name: "Min-SE", Value: "3600"}}}
					}
					if m.Get("Min-SE") != "3600" {
						t.Errorf("Min-SE %q", m.Get("Min-SE"))
					}
					b := pbxtest.AnswerAfter(time.Second)
					if c.granted != "" {
						b.Fields = []pbxtest.Field{{Name: "Require", Value: "timer"}, {Name: "Session-Expires", Value: c.granted}}
					}
					return b
				})
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				r.must(out.WaitAnswered(5 * time.Second))
				_, err = r.carrier.WaitCall(time.Second) // the refused one
				r.must(err)
				far, err := r.carrier.WaitCall(time.Second)
				r.must(err)
				out.Say(nil)
				far.Say(nil)
				time.Sleep(50 * time.Second)
				want := 0
				if c.ours && c.granted != "" {
					want = 1
				}
				if n := r.count("switch > carrier UPDATE"); n != want {
					t.Errorf("%d refreshes", n)
				}
				if c.ours {
					out.Hangup()
					ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
					return
				}
				r.must(out.WaitEnded(20 * time.Second))
				ended(t, r.only(), store.CauseSessionExpired, store.OutcomeOK)
			})
		})
	}
}

// TestSessionRefreshLost: messages of a refresh that get lost are sent again, a
// copy of the 200 to our re-INVITE is acknowledged again.
func TestSessionRefreshLost(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"INVITE", "SIP/2.0 200", "ACK"} {
		t.Run(lost, func(t *testing.T) {
			scenario(t, quietCity(t), func(t *testing.T, r *rig) {
				caller, _ := r.longCall(pbxtest.CallOptions{Fields: sessionFields(""), Edit: methods("INVITE, ACK, BYE")})
				from := switchAddr
				if strings.HasPrefix(lost, "SIP") {
					from = carrierAddr
				}
				r.lose(from, lost, func(n int) bool { return n <= 2 })
				time.Sleep(60 * time.Second)
				if n := r.count("carrier > switch 200 OK (INVITE)"); n == 0 {
					t.Errorf("no refresh\n%s", r.ladder)
				}
				caller.Hangup()
				ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
			})
		})
	}
}

// TestSessionRefreshGlare: our re-INVITE crosses the caller's: both get 491,
// and ours comes again later (RFC 3261 §14.1).
func TestSessionRefreshGlare(t *testing.T) {
	t.Parallel()
	scenario(t, quietCity(t), func(t *testing.T, r *rig) {
		caller, _ := r.longCall(pbxtest.CallOptions{Fields: sessionFields(""), Edit: methods("INVITE, ACK, BYE")})
		im := pbxtest.Impairment{Delay: 100 * time.Millisecond, Match: pbxtest.IsSIP}
		r.net.Impair(pbxtest.Host(carrierAddr.Addr()), pbxtest.Any, im)
		r.net.Impair(pbxtest.Any, pbxtest.Host(carrierAddr.Addr()), im)
		time.Sleep(time.Until(caller.At(pbxtest.Answered).Add(45*time.Second + 50*time.Millisecond)))
		res, err := caller.ReInvite(t.Context(), caller.LocalSDP())
		r.must(err)
		if res.Status != 491 {
			t.Errorf("answered %d", res.Status)
		}
		r.net.Impair(pbxtest.Any, pbxtest.Any, pbxtest.Impairment{})
		time.Sleep(10 * time.Second)
		r.says("switch > carrier INVITE", "carrier > switch 491 Request Pending (INVITE)", "switch > carrier ACK", "switch > carrier INVITE",
			"carrier > switch 200 OK (INVITE)", "switch > carrier ACK")
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestRequireTimer: an INVITE that requires session timers is taken, and one
// that requires what we do not have is not.
func TestRequireTimer(t *testing.T) {
	t.Parallel()
	scenario(t, quietCity(t), func(t *testing.T, r *rig) {
		caller, _ := r.longCall(pbxtest.CallOptions{Fields: append(sessionFields("uas"), pbxtest.Field{Name: "Require", Value: "timer"})})
		res, err := caller.Request(t.Context(), "UPDATE", nil, pbxtest.Field{Name: "Require", Value: "timer, flying"})
		r.must(err)
		if res.Status != 420 || res.Get("Unsupported") != "flying" {
			t.Errorf("answered %s", res.Bytes())
		}
		if got := fmt.Sprint(caller.State()); got != "answered" {
			t.Errorf("call is %s", got)
		}
		caller.Hangup()
		r.only()
	})
}

// TestSessionFollowsTransfer: a leg that has moved to another call is still
// refreshed there.
func TestSessionFollowsTransfer(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.RTP.Timeout = 0
	scenario(t, cfg, func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		consultation := r.consult(agent, "102")
		colleague := r.answeredBy("102")
		time.Sleep(time.Second)
		r.attend(agent, consultation, 202)
		r.must(agent.WaitEnded(5 * time.Second))
		caller.Say(nil)
		colleague.Say(nil)
		time.Sleep(20 * time.Minute)
		if a, b := r.count("switch > carrier UPDATE"), r.count("switch > 102 UPDATE"); a != 1 || b != 1 {
			t.Errorf("%d and %d refreshes", a, b)
		}
		if caller.State() != pbxtest.Answered || colleague.State() != pbxtest.Answered {
			t.Error("the call was lost")
		}
		caller.Hangup()
		r.records()
	})
}
