package pbx_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestHour is an hour of the city in one bubble: more than a thousand calls of
// all kinds overlap, at random but seeded. Of every one: the announcement ended
// before a phone rang and before anything was recorded (S1.4-c), it has exactly
// one cause and one outcome, and nothing is left over.
func TestHour(t *testing.T) {
	t.Parallel()
	const calls = hourCalls
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprint(101+i))
	}
	cfg := briefCity(t, names...)
	cfg.Trunks[0].MaxCalls = 100
	cfg.Queues[0].RingTimeout = 5 * time.Second
	cfg.Queues[0].MaxWait = 20 * time.Second
	cfg.Queues[0].MaxLength = 4
	cfg.RTP.Timeout = 10 * time.Minute // voices are limited
	cfg.SIP.OptionsInterval = 5 * time.Minute
	voice := func(hz int) *pbxtest.Voice {
		return &pbxtest.Voice{Say: pbxtest.Tone(hz), Limit: 500 * time.Millisecond, Deaf: true}
	}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.net.OnPacket(nil) // the ladder of an hour is long
		rng := rand.New(rand.NewPCG(284, 17))
		var mu sync.Mutex
		for _, p := range names {
			phone := rand.New(rand.NewPCG(rng.Uint64(), 1))
			r.phones[p].SetBehaviour(func(*pbxtest.Message) pbxtest.Behaviour {
				mu.Lock()
				defer mu.Unlock()
				switch n := phone.IntN(100); {
				case n < 5:
					return pbxtest.Reject(486)
				case n < 8:
					return pbxtest.Reject(603)
				case n < 15:
					return pbxtest.RingForEver()
				case n < 16:
					return pbxtest.Reject(500)
				default:
					b := pbxtest.AnswerAfter(time.Duration(300+phone.IntN(2000)) * time.Millisecond)
					b.Voice = voice(phoneHz)
					return b
				}
			})
		}
		far := rand.New(rand.NewPCG(rng.Uint64(), 2))
		r.carrier.SetBehaviour(func(*pbxtest.Message) pbxtest.Behaviour {
			mu.Lock()
			defer mu.Unlock()
			switch n := far.IntN(10); {
			case n < 2:
				return pbxtest.Reject(486)
			case n < 3:
				return pbxtest.RingForEver()
			default:
				b := pbxtest.AnswerAfter(time.Duration(500+far.IntN(3000)) * time.Millisecond)
				b.Voice = voice(callerHz)
				return b
			}
		})
		var wg sync.WaitGroup
		placed := 0
		for range calls {
			time.Sleep(time.Duration(rng.IntN(2*3600_000/1100)) * time.Millisecond)
			patience := time.Duration(rng.ExpFloat64() * float64(8*time.Second))
			if rng.IntN(12) == 0 {
				patience = time.Duration(rng.IntN(1200)) * time.Millisecond // in the announcement
			}
			var call *pbxtest.Call
			var err error
			kind := rng.IntN(20)
			switch {
			case kind < 2:
				call, err = r.phones[names[rng.IntN(len(names))]].Call(pbxtest.CallOptions{To: "0600100200", Voice: voice(phoneHz)})
			case kind < 3:
				call, err = r.phones[names[rng.IntN(len(names))]].Call(pbxtest.CallOptions{To: names[rng.IntN(len(names))], Voice: voice(phoneHz)})
			default:
				o := pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Voice: voice(callerHz), Anonymous: kind < 5, LateOffer: kind == 19}
				if kind == 18 {
					o.To = "+48914245111"
				}
				call, err = r.carrier.Call(o)
			}
			r.must(err)
			placed++
			holds := rng.IntN(10) == 0
			wg.Go(func() {
				if holds && call.WaitAnswered(time.Minute) == nil {
					time.Sleep(patience / 3)
					if call.State() == pbxtest.Answered && call.Hold(t.Context()) == nil {
						time.Sleep(patience / 3)
						if call.State() == pbxtest.Answered {
							_ = call.Resume(t.Context())
						}
					}
				}
				_ = call.WaitEnded(patience) // or else it is given up
				call.Hangup()
			})
			for _, name := range names { // the phones' own calls end, too
				if c, err := r.phones[name].WaitCall(0); err == nil {
					stay := time.Duration(rng.ExpFloat64() * float64(8*time.Second))
					wg.Go(func() {
						_ = c.WaitEnded(stay)
						if c.State() == pbxtest.Answered {
							c.Hangup()
						}
					})
				}
			}
		}
		wg.Wait()
		recs := r.records()
		if len(recs) != placed {
			t.Fatalf("%d records of %d calls", len(recs), placed)
		}
		causes, outcomes, announced := map[store.Cause]int{}, map[store.Outcome]int{}, 0
		for _, rec := range recs {
			causes[rec.Cause]++
			outcomes[rec.Recording.Outcome]++
			if recorded := rec.Recording.Outcome == store.OutcomeOK; recorded != (!rec.Answered.IsZero() && rec.Direction != store.Internal) {
				t.Errorf("answered %v, %s, outcome %q (%s)", rec.Answered, rec.Direction, rec.Recording.Outcome, rec.Recording.Reason)
			}
			if rec.Direction != store.Incoming {
				continue
			}
			a := rec.Announcement
			if a == nil || !a.Complete {
				if len(rec.Rings) > 0 || !rec.Queued.IsZero() || rec.Recording.Outcome != store.OutcomeNone {
					t.Errorf("not announced, yet %+v", rec)
				}
				continue
			}
			announced++
			for _, ring := range rec.Rings {
				if ring.From.Before(a.Ended) || ring.Result == "" || ring.To.Before(ring.From) {
					t.Errorf("announced until %v, ring %+v", a.Ended, ring)
				}
			}
			if began := rec.Recording.Began; !began.IsZero() && began.Before(a.Ended) || rec.Ended.Before(a.Ended) {
				t.Errorf("announced until %v, recorded from %v", a.Ended, began)
			}
		}
		t.Logf("causes %v, outcomes %v, announced %d", causes, outcomes, announced)
		if announced < calls*6/10 || outcomes[store.OutcomeOK] < calls/3 || len(causes) < 5 {
			t.Errorf("the hour was not mixed enough")
		}
		if n := r.sw.Status().Engine.Streams; n != 0 {
			t.Errorf("%d streams left", n)
		}
		time.Sleep(40 * time.Second) // the last transactions
	})
}
