package pbx_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"centralka/media"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestQualityOfACall: the record tells of each leg what the network did to its
// voice, exactly, and what that is worth; the status tells it during the call.
func TestQualityOfACall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		lost, sent := 0, 0
		r.net.Drop(func(src, dst netip.AddrPort, payload []byte) bool {
			if src.Addr() != carrierAddr.Addr() || dst.Port() < 20000 || dst.Port()%2 != 0 {
				return false
			}
			sent++
			if sent%10 == 3 || sent%10 == 4 { // runs of two, and the last one comes
				lost++
				return true
			}
			return false
		})
		call, agent := r.talk()
		time.Sleep(8 * time.Second)
		now := r.sw.Status().Calls
		if len(now) != 1 || now[0].MOS < 1 || now[0].MOS > 3.3 {
			t.Errorf("during the call: %+v", now)
		}
		call.Hangup()
		r.must(agent.WaitEnded(time.Second))
		rec := r.only()
		if len(rec.Quality) != 2 {
			t.Fatalf("%+v", rec.Quality)
		}
		byLeg := map[string]store.Quality{}
		for _, q := range rec.Quality {
			byLeg[q.Leg] = q
		}
		a, b := byLeg["a"], byLeg["b1"]
		if a.Party != "operator" || b.Party != "101" {
			t.Errorf("parties %q, %q", a.Party, b.Party)
		}
		if d := int(a.Lost) - lost; d < -2 || d > 0 || a.Gaps != (a.Lost+1)/2 || a.Duplicate+a.Late != 0 || a.Received != uint64(sent-lost) {
			t.Errorf("from the caller: %+v, %d of %d were lost", a, lost, sent)
		}
		if a.HeardMOS > 3.3 || a.HeardMOS < 1.5 || b.HeardMOS < 4.3 || b.Lost != 0 {
			t.Errorf("MOS %v and %v", a.HeardMOS, b.HeardMOS)
		}
		// Every packet is accounted for: what came before the bridge was nobody's.
		if a.Received-a.Dropped["unclaimed"] != b.Sent || a.Dropped["unclaimed"] == 0 || len(a.Dropped) != 1 {
			t.Errorf("of %d dropped %v, sent on %d", a.Received, a.Dropped, b.Sent)
		}
		if st := r.sw.Status(); st.Heard.N != 2 || st.Heard.AtMost[3] != 1 || st.Heard.Sum < 5 {
			t.Errorf("sums %+v", st.Heard)
		}
	})
}

// TestLimitOfCalls: beyond rtp.max_calls everybody gets 503 with Retry-After but
// who calls 112.
func TestLimitOfCalls(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.RTP.MaxCalls = 1
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first, _ := r.talk()
		refusedWhenFull(t, r)
		first.Hangup()
		time.Sleep(time.Second)
		second := r.call()
		r.must(second.WaitAnswered(time.Second))
		second.Hangup()
	})
}

// refusedWhenFull tries a call of each kind.
func refusedWhenFull(t *testing.T, r *rig) {
	t.Helper()
	in, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"})
	r.must(err)
	r.must(in.WaitEnded(time.Second))
	out, err := r.phones["102"].Dial("0600100200")
	r.must(err)
	r.must(out.WaitEnded(time.Second))
	inside, err := r.phones["102"].Dial("101")
	r.must(err)
	r.must(inside.WaitEnded(time.Second))
	for name, call := range map[string]*pbxtest.Call{"in": in, "out": out, "inside": inside} {
		if end := call.End(); end.Status != 503 {
			t.Errorf("%s: %+v", name, end)
		}
	}
	r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
	help, err := r.phones["102"].Dial("112")
	r.must(err)
	r.must(help.WaitAnswered(5 * time.Second))
	help.Hangup()
	time.Sleep(time.Second)
}

// lateEngine is an engine that says it is late.
type lateEngine struct {
	media.Engine
	by *atomic.Int64
}

func (e lateEngine) Lateness() media.Lateness {
	return media.Lateness{Mean: time.Duration(e.by.Load())}
}

// TestLateEngineTakesNoCalls: who talks goes on talking, who calls is asked to
// try again, and 112 is called.
func TestLateEngineTakesNoCalls(t *testing.T) {
	t.Parallel()
	var by atomic.Int64
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		first, agent := r.talk()
		by.Store(int64(pbx.DefaultConfig().RTP.MaxLateness + time.Millisecond))
		if !r.sw.Status().TooLate {
			t.Error("the status does not tell")
		}
		refusedWhenFull(t, r)
		by.Store(int64(pbx.DefaultConfig().RTP.MaxLateness))
		second := r.call()
		r.must(second.WaitAnswered(time.Second))
		second.Hangup()
		first.Hangup()
		r.must(agent.WaitEnded(time.Second))
	}, func(r *rig) { r.wrap = func(e media.Engine) media.Engine { return lateEngine{e, &by} } })
}
