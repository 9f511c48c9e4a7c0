package pbx_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestCityByEar lets many calls go on at once over a bad network, every party
// with a tone of its own, and listens: each ear hears its own conversation and
// no other, each lane of each recording holds its own party and no other, and
// each file is as long as its conversation.
func TestCityByEar(t *testing.T) {
	t.Parallel()
	names := []string{"101", "102", "103", "104", "105"}
	const calls = 16
	callerTone := func(i int) int { return 1000 + 40*i }
	agentTone := func(ext string) int {
		for i, n := range names {
			if n == ext {
				return phoneHz + 30*i
			}
		}
		return 0
	}
	var tones []float64
	for i := range calls {
		tones = append(tones, float64(callerTone(i)))
	}
	for _, n := range names {
		tones = append(tones, float64(agentTone(n)))
	}
	scenario(t, briefCity(t, names...), func(t *testing.T, r *rig) {
		r.net.Impair(pbxtest.Any, pbxtest.Any, pbxtest.Impairment{
			Loss: 0.03, Duplicate: 0.01, Reorder: 0.03, Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Match: pbxtest.IsRTP,
		})
		number := func(i int) string { return fmt.Sprintf("+486001%05d", i) }
		made := make([]*pbxtest.Call, calls)
		var wg sync.WaitGroup
		for i := range calls {
			call, err := r.carrier.Call(pbxtest.CallOptions{From: number(i), To: "+48914245000", Say: pbxtest.Tone(callerTone(i))})
			r.must(err)
			made[i] = call
			wg.Go(func() {
				_ = call.WaitEnded(11 * time.Second)
				call.Hangup()
			})
			time.Sleep(2 * time.Second)
		}
		wg.Wait()
		time.Sleep(time.Second)
		agents := map[string]*pbxtest.Call{} // by the caller's number, as the phone saw it
		for _, n := range names {
			for {
				c, err := r.phones[n].WaitCall(0)
				if err != nil {
					break
				}
				agents[c.Invite().Number("From")] = c
			}
		}
		talked := 0
		for _, rec := range r.records() {
			if rec.Answered.IsZero() {
				continue
			}
			talked++
			i := -1
			for k := range calls {
				if rec.Caller.Number == ordinance.Number(number(k)) {
					i = k
				}
			}
			agent := agents[rec.Caller.Number.E164()]
			if i < 0 || agent == nil || rec.Recording.Outcome != store.OutcomeOK {
				t.Fatalf("call %d, agent %v, record %+v", i, agent, rec)
			}
			said, answered := float64(callerTone(i)), float64(agentTone(rec.Segments[0].Extension))
			who := fmt.Sprintf("call %d", i)
			talk := made[i].Heard().Between(rec.Answered.Add(200*time.Millisecond), rec.Ended)
			if hz := pbxtest.Dominant(talk, tones...); hz != answered {
				t.Errorf("%s: the caller hears %.0f Hz, want %.0f", who, hz, answered)
			}
			if hz := pbxtest.Dominant(agent.Heard().PCM, tones...); hz != said {
				t.Errorf("%s: the agent hears %.0f Hz, want %.0f", who, hz, said)
			}
			left, right := r.lanes(rec)
			if hz := pbxtest.Dominant(left, tones...); hz != said {
				t.Errorf("%s: the left lane holds %.0f Hz, want %.0f", who, hz, said)
			}
			if hz := pbxtest.Dominant(right, tones...); hz != answered {
				t.Errorf("%s: the right lane holds %.0f Hz, want %.0f", who, hz, answered)
			}
			length := time.Duration(len(left)) * time.Second / 8000
			if d := (length - rec.Ended.Sub(rec.Answered)).Abs(); d > 40*time.Millisecond {
				t.Errorf("%s: file of %v for a conversation of %v", who, length, rec.Ended.Sub(rec.Answered))
			}
		}
		if talked < calls*3/4 {
			t.Errorf("only %d of %d calls were answered", talked, calls)
		}
	})
}
