package pbx_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestTwoReferralsAtOnce: the second is refused with 491, whoever sends it, and the
// first is carried out.
func TestTwoReferralsAtOnce(t *testing.T) {
	t.Parallel()
	for _, sides := range []string{"one phone", "both phones"} {
		scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
			first, err := r.phones["101"].Dial("102")
			r.must(err)
			second := r.answeredBy("102")
			time.Sleep(time.Second)
			if sides == "one phone" {
				second = first
			}
			var mu sync.Mutex
			var answers []int
			var both sync.WaitGroup
			for _, c := range []*pbxtest.Call{first, second} {
				both.Go(func() {
					res, err := c.Refer(t.Context(), "sip:103@centralka.test")
					if err == nil {
						mu.Lock()
						answers = append(answers, res.Status)
						mu.Unlock()
					}
				})
			}
			both.Wait()
			slices.Sort(answers)
			// In one dialog the CSeq decides too: the second may come first.
			if !slices.Equal(answers, []int{202, 491}) && !slices.Equal(answers, []int{202, 500}) {
				t.Errorf("%s: answered %v", sides, answers)
			}
			target := r.answeredBy("103")
			time.Sleep(time.Second)
			target.Hangup()
			r.records()
		})
	}
}

// TestTransferToDeadPhone: its silence is not waited for; the phone has its party
// again.
func TestTransferToDeadPhone(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		r.vanish(1)
		time.Sleep(time.Second)
		r.refer(agent, "102", 202)
		time.Sleep(5 * time.Second)
		told(t, agent, "100 active", "480 terminated")
		hears(t, "caller", caller.Heard().Since(time.Now().Add(-500*time.Millisecond)), phoneHz)
		caller.Hangup()
		segments(t, r.only(), "101", "101")
	})
}

// TestTransferOnABadNetwork: the first of each message is lost, every message
// comes twice, or one overtakes another: the citizen is passed on all the same,
// once.
func TestTransferOnABadNetwork(t *testing.T) {
	t.Parallel()
	first := func(prefixes ...string) func(r *rig) {
		return func(r *rig) {
			lost := map[string]bool{}
			r.net.Drop(func(_, _ netip.AddrPort, b []byte) bool {
				for _, p := range prefixes {
					if strings.HasPrefix(string(b), p) && !lost[p] {
						lost[p] = true
						return true
					}
				}
				return false
			})
		}
	}
	impaired := func(im pbxtest.Impairment) func(r *rig) {
		return func(r *rig) {
			im.Match = pbxtest.IsSIP
			everybody := netip.MustParsePrefix("192.0.2.0/24")
			r.net.Impair(everybody, everybody, im)
		}
	}
	for name, hurt := range map[string]func(r *rig){
		"REFER and its answer lost":   first("REFER ", "SIP/2.0 202"),
		"NOTIFY and INVITE lost":      first("NOTIFY ", "INVITE "),
		"answer, ACK and BYE lost":    first("SIP/2.0 200", "ACK ", "BYE "),
		"everything comes twice":      impaired(pbxtest.Impairment{Duplicate: 1}),
		"messages overtake":           impaired(pbxtest.Impairment{Reorder: 0.5, ReorderBy: 40 * time.Millisecond}),
		"a third of messages is lost": impaired(pbxtest.Impairment{Loss: 0.3}),
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
				caller, agent := r.talk()
				time.Sleep(time.Second)
				hurt(r)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if res, err := agent.Refer(ctx, "sip:102@centralka.test"); err != nil || res.Status != 202 {
					t.Fatalf("REFER answered %v, %v", res, err)
				}
				target := r.answeredBy("102")
				time.Sleep(3 * time.Second)
				hears(t, "target", target.Heard().PCM, callerHz, phoneHz)
				r.net.Drop(nil)
				caller.Hangup()
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				segments(t, rec, "101", "102")
				if n := len(agent.News()); n == 0 || !strings.HasPrefix(agent.News()[n-1], "200 ") {
					t.Errorf("the phone was told %q", agent.News())
				}
			})
		})
	}
}

// TestEmergencyForAnybody: no registration, no limit, no "do not disturb", no
// trunk that answers OPTIONS and no call already up stands before an emergency
// number.
func TestEmergencyForAnybody(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Dial.MaxOutgoingPerExtension = 0
	cfg.Extensions[0].MaxCalls = 1
	cfg.RefuseUnrecorded = true
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		r.carrier.SetOnRequest(func(m *pbxtest.Message) bool { return m.Method == "OPTIONS" })
		r.lenient = true
		time.Sleep(150 * time.Second)
		r.code("101", "*24")
		up, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(up.WaitAnswered(10 * time.Second))
		r.must(r.phones["101"].Unregister(t.Context()))
		r.breakVault()
		for _, n := range []string{"112", "0999"} {
			help, err := r.phones["101"].Dial(n)
			r.must(err)
			r.must(help.WaitAnswered(10 * time.Second))
			help.Hangup()
		}
		if c, err := r.phones["101"].Dial("0501502503"); err != nil {
			t.Error(err)
		} else if r.must(c.WaitEnded(time.Second)); c.End().Status < 400 {
			t.Errorf("an ordinary number: %+v", c.End())
		}
		up.Hangup()
	})
}

// TestLampOfTwoCalls: a phone with a call and another that waits shows both, and
// goes out when the last is over; a subscription of before a restart is refused, so
// that the phone makes a new one, which shows what is so.
func TestLampOfTwoCalls(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		lamp := r.watch("103", "101", time.Hour)
		caller, _ := r.talk()
		time.Sleep(time.Second)
		r.behave("101", pbxtest.RingForEver())
		lost := 0
		r.net.Drop(func(_, dst netip.AddrPort, b []byte) bool { // a NOTIFY is lost
			drop := dst == phoneAddr(2) && strings.HasPrefix(string(b), "NOTIFY ") && lost == 0
			if drop {
				lost++
			}
			return drop
		})
		waiting, err := r.phones["102"].Dial("101")
		r.must(err)
		r.must(waiting.WaitRinging(time.Second))
		third, err := r.phones["103"].Dial("101")
		r.must(err)
		r.must(third.WaitEnded(time.Second))
		if e := third.End(); e.Status != 486 {
			t.Errorf("a third call ended %+v", e)
		}
		time.Sleep(2 * time.Second)
		caller.Hangup()
		time.Sleep(time.Second)
		waiting.Hangup()
		time.Sleep(time.Second)
		shown(t, lamp, "idle", "early", "confirmed", "confirmed,early", "early", "idle")
		r.records()
		r.before = int64(len(r.records()))
		r.stop()
		r.must(r.store.Close())
		r.startSwitch(cfg, r.dir)
		if res, err := lamp.Renew(t.Context(), time.Hour); err != nil || res.Status != 481 {
			t.Errorf("the old subscription was renewed: %v, %v", res, err)
		}
		shown(t, r.watch("103", "101", time.Hour), "idle")
	})
}
