package pbx_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// zone is a resolver of its own.
type zone struct {
	mu    sync.Mutex
	naptr []pbx.NAPTR
	srv   map[string][]*net.SRV
	hosts map[string][]netip.Addr
	asked int
}

func (z *zone) LookupNAPTR(_ context.Context, name string) ([]pbx.NAPTR, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.naptr, nil
}

func (z *zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	key := "_" + service + "._" + proto + "." + name
	if srv := z.srv[key]; srv != nil {
		return key, srv, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: key, IsNotFound: true}
}

func (z *zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if a := z.hosts[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// twoServers is a trunk whose name leads to the carrier's port 5070 first, and
// to its port 5060 if that fails.
func twoServers(t *testing.T) (pbx.Config, *zone) {
	cfg := briefCity(t, "101")
	cfg.Trunks[0].Server = "sip.operator.example"
	return cfg, &zone{
		srv: map[string][]*net.SRV{"_sip._udp.sip.operator.example": {
			{Target: "b.operator.example.", Port: 5060, Priority: 20}, {Target: "a.operator.example.", Port: 5070, Priority: 10}}},
		hosts: map[string][]netip.Addr{"a.operator.example": {carrierAddr.Addr()}, "b.operator.example": {carrierAddr.Addr()}},
	}
}

func with(z *zone) func(*rig) { return func(r *rig) { r.resolver = z } }

// TestServersInOrder: SRV says which server is tried first; what the next one
// is for is said by the answer of the first (RFC 3263 §4.3).
func TestServersInOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		next   bool
		cause  store.Cause
	}{
		{200, false, store.CauseHangupCaller}, {503, true, store.CauseHangupCaller}, {408, true, store.CauseHangupCaller}, {500, true, store.CauseHangupCaller},
		{486, false, store.CauseBusy}, {404, false, store.CauseNotFound}, {603, false, store.CauseDeclined}, {480, false, store.CauseNoAnswer},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			cfg, z := twoServers(t)
			scenario(t, cfg, func(t *testing.T, r *rig) {
				first := r.otherCarrier(5070)
				first.SetBehaviour(pbxtest.Always(pbxtest.Reject(c.status)))
				if c.status == 200 {
					first.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				}
				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				time.Sleep(40 * time.Second) // until both have answered OPTIONS
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				if c.next || c.status == 200 {
					r.must(out.WaitAnswered(3 * time.Second))
					out.Hangup()
				}
				r.must(out.WaitEnded(3 * time.Second))
				if n := r.count("switch > carrier INVITE"); (n == 1) != c.next {
					t.Errorf("the second server got %d INVITEs", n)
				}
				if n := r.count("switch > carrier:5070 INVITE"); n != 1 {
					t.Errorf("the first server got %d INVITEs\n%s", n, r.ladder)
				}
				if rec := r.only(); rec.Cause != c.cause {
					t.Errorf("ended %q", rec.Cause)
				}
			}, with(z))
		})
	}
}

// TestDeadServer: the first server has gone since it was last heard of. The
// caller waits five seconds, not thirty-two; the next caller does not wait, and
// when the server is back it comes first again.
func TestDeadServer(t *testing.T) {
	t.Parallel()
	cfg, z := twoServers(t)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first := r.otherCarrier(5070)
		first.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		time.Sleep(40 * time.Second)
		dead := netip.AddrPortFrom(carrierAddr.Addr(), 5070)
		r.net.Drop(func(_, dst netip.AddrPort, _ []byte) bool { return dst == dead })
		for i, wait := range []time.Duration{5 * time.Second, 0} {
			began := time.Now()
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			r.must(out.WaitAnswered(10 * time.Second))
			if d := time.Since(began); (d - wait).Abs() > 100*time.Millisecond {
				t.Errorf("call %d was answered after %v", i, d)
			}
			time.Sleep(time.Second)
			hears(t, "phone", out.Heard().PCM, callerHz)
			out.Hangup()
			r.must(out.WaitEnded(time.Second))
			time.Sleep(time.Second)
		}
		if n := r.count("switch > carrier INVITE"); n != 2 {
			t.Errorf("%d INVITEs to the second server", n)
		}
		r.net.Drop(nil)
		time.Sleep(2 * time.Minute)
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(time.Second))
		out.Hangup()
		r.must(out.WaitEnded(time.Second))
		if n := r.count("switch > carrier INVITE"); n != 2 {
			t.Error("the first server does not come first again")
		}
		for _, rec := range r.records() {
			ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		}
	}, with(z))
}

// TestLateAnswerOfDeadServer: a 2xx that comes after we have gone on is
// acknowledged and ended; the caller talks to the second server.
func TestLateAnswerOfDeadServer(t *testing.T) {
	t.Parallel()
	cfg, z := twoServers(t)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first := r.otherCarrier(5070)
		first.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ring: -1, Status: 200}))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		time.Sleep(40 * time.Second)
		slow := netip.AddrPortFrom(carrierAddr.Addr(), 5070)
		until := time.Now().Add(6 * time.Second)
		r.net.Drop(func(_, dst netip.AddrPort, _ []byte) bool { return dst == slow && time.Now().Before(until) })
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(6 * time.Second))
		time.Sleep(10 * time.Second) // an INVITE sent again arrives at the first
		r.says("carrier:5070 > switch 200 OK (INVITE)", "switch > carrier:5070 ACK", "switch > carrier:5070 BYE")
		if out.State() != pbxtest.Answered {
			t.Error("the call was lost")
		}
		out.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	}, with(z))
}

// TestRegistersWhereItCalls: one registration, at the server that answers, kept
// alive with one Call-ID and a growing CSeq; when that server is gone, we
// register at the next and call there.
func TestRegistersWhereItCalls(t *testing.T) {
	t.Parallel()
	cfg, z := twoServers(t)
	cfg.Trunks[0].Register, cfg.Trunks[0].User, cfg.Secrets.Trunks = true, "city", map[string]string{"operator": "trunk-secret"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first := r.otherCarrier(5070)
		asked := 0
		first.SetOnRequest(func(m *pbxtest.Message) bool {
			if m.Method != "REGISTER" {
				return false
			}
			asked++
			challenge := pbxtest.Field{Name: "WWW-Authenticate", Value: fmt.Sprintf(`Digest realm="operator", nonce="n%d", algorithm=MD5, qop="auth"`, asked)}
			var err error
			switch {
			case asked == 1:
				err = first.Respond(m, 423, pbxtest.Field{Name: "Min-Expires", Value: "1200"})
			case m.Get("Authorization") == "":
				err = first.Respond(m, 401, challenge)
			case asked == 3: // the nonce has become stale meanwhile (RFC 7616 §3.3)
				challenge.Value += ", stale=TRUE"
				err = first.Respond(m, 401, challenge)
			default:
				err = first.Respond(m, 200, pbxtest.Field{Name: "Contact", Value: m.Get("Contact") + ";expires=" + m.Get("Expires")})
			}
			if err != nil {
				t.Error(err)
			}
			return true
		})
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		time.Sleep(45 * time.Second)
		until := r.sw.Status().Trunks[0].Registered
		if d := time.Until(until); d < 1150*time.Second || d > 1200*time.Second {
			t.Fatalf("registered for %v, want 20 minutes\n%s", d, r.ladder)
		}
		time.Sleep(11 * time.Minute)
		if d := time.Until(r.sw.Status().Trunks[0].Registered); d < 9*time.Minute {
			t.Errorf("not refreshed at half: %v are left", d)
		}
		ids, last := map[string]bool{}, 0
		for _, e := range first.Messages() {
			if m := e.Message; m.Method == "REGISTER" && !e.Again {
				n, _ := m.CSeq()
				if int(n) <= last {
					t.Errorf("CSeq %d after %d", n, last)
				}
				ids[m.CallID()], last = true, int(n)
			}
		}
		if len(ids) != 1 || r.count("switch > carrier REGISTER") != 0 {
			t.Errorf("%d Call-IDs, %d REGISTERs elsewhere", len(ids), r.count("switch > carrier REGISTER"))
		}
		dead := netip.AddrPortFrom(carrierAddr.Addr(), 5070)
		r.net.Drop(func(_, dst netip.AddrPort, _ []byte) bool { return dst == dead })
		time.Sleep(4 * time.Minute) // three pings are missed
		if n := r.count("switch > carrier REGISTER"); n == 0 {
			t.Error("not registered at the second server")
		}
		began := time.Now()
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(time.Second))
		if time.Since(began) > 100*time.Millisecond {
			t.Error("the dead server was tried")
		}
		out.Hangup()
		r.only()
	}, with(z))
}

// TestNamesMove: servers are looked up again, and kept if the look-up fails.
func TestNamesMove(t *testing.T) {
	t.Parallel()
	cfg, z := twoServers(t)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		moved := r.otherCarrier(5080)
		moved.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
		call := func() {
			t.Helper()
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			r.must(out.WaitAnswered(time.Second))
			out.Hangup()
			r.must(out.WaitEnded(time.Second))
		}
		z.mu.Lock()
		z.srv, z.hosts = nil, nil // the name server is gone
		z.mu.Unlock()
		time.Sleep(3 * time.Minute)
		call()
		z.mu.Lock()
		z.srv = map[string][]*net.SRV{"_sip._udp.sip.operator.example": {{Target: "c.operator.example.", Port: 5080}}}
		z.hosts = map[string][]netip.Addr{"c.operator.example": {carrierAddr.Addr()}}
		asked := z.asked
		z.mu.Unlock()
		time.Sleep(3 * time.Minute)
		call()
		if r.count("switch > carrier INVITE") != 1 || r.count("switch > carrier:5080 INVITE") != 1 {
			t.Errorf("calls went elsewhere\n%s", r.ladder)
		}
		z.mu.Lock()
		defer z.mu.Unlock()
		if n := z.asked - asked; n > 3 {
			t.Errorf("asked %d times in 3 minutes", n)
		}
		if lines := r.ladder.Lines(); slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "switch > carrier:5070 INVITE") }) {
			t.Error("a server that is down was called first")
		}
		r.records()
	}, with(z))
}

// twoTrunks is a second trunk, at the carrier's port 5070, that comes first.
func twoTrunks(t *testing.T) pbx.Config {
	cfg := briefCity(t, "101")
	first := cfg.Trunks[0]
	first.Name, first.Server = "first", "198.51.100.1:5070"
	first.From = []pbx.Source{{Prefix: pbxtest.Host(carrierAddr.Addr()), Port: 5070}}
	cfg.Trunks[0].From = []pbx.Source{{Prefix: pbxtest.Host(carrierAddr.Addr()), Port: 5060}}
	cfg.Trunks = append([]pbx.TrunkConfig{first}, cfg.Trunks...)
	return cfg
}

// TestSilentTrunk: a trunk that is silent leads to the next one in five
// seconds; one that has said at least Trying is waited for.
func TestSilentTrunk(t *testing.T) {
	t.Parallel()
	for _, trying := range []bool{false, true} {
		t.Run(fmt.Sprintf("Trying %v", trying), func(t *testing.T) {
			scenario(t, twoTrunks(t), func(t *testing.T, r *rig) {
				first := r.otherCarrier(5070)
				first.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ignore: true}))
				if trying {
					first.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ring: -1, Status: 200, After: 20 * time.Second}))
				}
				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(0)))
				time.Sleep(40 * time.Second)
				began := time.Now()
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				r.must(out.WaitAnswered(time.Minute))
				want, name := 5*time.Second, "operator"
				if trying {
					want, name = 20*time.Second, "first"
				}
				if d := time.Since(began); (d - want).Abs() > 100*time.Millisecond {
					t.Errorf("answered after %v", d)
				}
				out.Hangup()
				if rec := r.only(); rec.Trunk != name || rec.Cause != store.CauseHangupCaller {
					t.Errorf("record %+v", rec)
				}
			})
		})
	}
}

// TestNoWayOut: all ways are silent: each is tried once, and the caller is told
// in the end.
func TestNoWayOut(t *testing.T) {
	t.Parallel()
	scenario(t, twoTrunks(t), func(t *testing.T, r *rig) {
		first := r.otherCarrier(5070)
		first.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ignore: true}))
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ignore: true}))
		time.Sleep(40 * time.Second)
		began := time.Now()
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitEnded(time.Minute))
		if d := time.Since(began); (d-37*time.Second).Abs() > time.Second || out.End().Status != 408 {
			t.Errorf("ended %+v after %v", out.End(), d)
		}
		if a, b := r.count("switch > carrier INVITE"), r.count("switch > carrier:5070 INVITE"); a == 0 || b == 0 {
			t.Errorf("%d and %d INVITEs", a, b)
		}
		ended(t, r.only(), store.CauseUnreachable, store.OutcomeNone)
	})
}

// TestCallerGivesUpWhileWeLook: the caller hangs up while a silent server is
// waited for, and nobody else is called.
func TestCallerGivesUpWhileWeLook(t *testing.T) {
	t.Parallel()
	scenario(t, twoTrunks(t), func(t *testing.T, r *rig) {
		first := r.otherCarrier(5070)
		first.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Ignore: true}))
		time.Sleep(40 * time.Second)
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		time.Sleep(3 * time.Second)
		out.Hangup()
		r.must(out.WaitEnded(time.Second))
		time.Sleep(time.Minute)
		if n := r.count("switch > carrier INVITE"); n != 0 {
			t.Errorf("the second trunk got %d INVITEs", n)
		}
		ended(t, r.only(), store.CauseCancelled, store.OutcomeNone)
	})
}
