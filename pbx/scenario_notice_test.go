package pbx_test

import (
	"slices"
	"testing"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// spokenTo is a message of these pieces as a caller hears it, "" being a pause.
func spokenTo(t *testing.T, names ...string) []int16 {
	t.Helper()
	list, err := ordinance.QueuePhrases()
	if err != nil {
		t.Fatal(err)
	}
	var out []int16
	for _, name := range names {
		if name == "" {
			out = append(out, make([]int16, pbxtest.Rate/5)...)
			continue
		}
		if list[name].ALaw == nil {
			t.Fatalf("no piece %q", name)
		}
		for _, b := range list[name].ALaw {
			out = append(out, media.DecodePCMA(b))
		}
	}
	return out
}

// after is what a call has heard from d after its answer on, up to to.
func after(c *pbxtest.Call, d, to time.Duration) []int16 {
	up := c.At(pbxtest.Answered)
	return c.Heard().Between(up.Add(d), up.Add(to))
}

// step is the largest step from one sample to the next.
func step(samples []int16) (most int) {
	for i := 1; i < len(samples); i++ {
		most = max(most, max(int(samples[i])-int(samples[i-1]), int(samples[i-1])-int(samples[i])))
	}
	return most
}

// saidAt asserts that a message was heard whole, from then on after the answer.
func saidAt(t *testing.T, c *pbxtest.Call, at time.Duration, names ...string) {
	t.Helper()
	words := spokenTo(t, names...)
	long := time.Duration(len(words)) * time.Second / pbxtest.Rate
	m := pbxtest.Find(after(c, at-time.Second, at+long+time.Second), words)
	if !m.Whole() || (m.From-time.Second).Abs() > 150*time.Millisecond {
		t.Errorf("%v at %v: %+v", names, at, m)
	}
	from := at - time.Second + m.From
	for side, heard := range map[string][]int16{
		"before": after(c, from-time.Second, from), "after": after(c, from+long, from+long+time.Second),
	} {
		if l := pbxtest.Level(heard); l < -35 || l > -15 {
			t.Errorf("%v at %v: %.0f dBFS %s it", names, at, l, side)
		}
	}
	for _, join := range []time.Duration{from, from + long} {
		if most := step(after(c, join-10*time.Millisecond, join+10*time.Millisecond)); most > 1500 {
			t.Errorf("%v at %v: a step of %d at %v", names, at, most, join)
		}
	}
}

// saidNothing asserts that none of a message's beginning was heard.
func saidNothing(t *testing.T, heard []int16, names ...string) {
	t.Helper()
	if m := pbxtest.Find(heard, spokenTo(t, names...)); m.Similarity > 0.6 {
		t.Errorf("heard %v: %+v", names, m)
	}
}

// placeCity tells places every 15 seconds; announcement takes one second.
func placeCity(t *testing.T, phones ...string) pbx.Config {
	cfg := briefCity(t, phones...)
	cfg.Queues[0].AnnouncePosition = 15 * time.Second
	return cfg
}

// entered is when who calls stands in the queue, after the answer.
const entered = time.Second

// TestPlaceIsTold: each caller is told the place after five seconds and then every
// interval, as it is then; the wait is not, as nobody was answered yet. The
// announcement comes first and whole, keys do nothing.
func TestPlaceIsTold(t *testing.T) {
	t.Parallel()
	scenario(t, placeCity(t, "101"), func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		first := r.call()
		time.Sleep(2 * time.Second)
		second := r.call()
		time.Sleep(7 * time.Second) // in the middle of its message
		r.must(second.SendDTMF("1#*"))
		time.Sleep(5 * time.Second)
		first.Hangup()
		time.Sleep(14 * time.Second)
		saidAt(t, first, entered+5*time.Second, "", "place", "place-1", "")
		saidAt(t, second, entered+5*time.Second, "", "place", "place-2", "")
		saidAt(t, second, entered+20*time.Second, "", "place", "place-1", "")
		heard := second.Heard()
		if a := pbxtest.Find(heard.PCM, briefWords()); !a.Whole() || a.From > 100*time.Millisecond {
			t.Errorf("announcement %+v", a)
		}
		saidNothing(t, heard.PCM, "wait")
		second.Hangup()
		for _, rec := range r.records() {
			ended(t, rec, store.CauseAbandoned, store.OutcomeNone)
		}
	})
}

// TestAnswerCutsMessageShort: the voice of who answers comes at once, and no word
// of the message after it.
func TestAnswerCutsMessageShort(t *testing.T) {
	t.Parallel()
	scenario(t, placeCity(t, "101"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.AnswerAfter(6*time.Second))
		call := r.call()
		agent := r.answeredBy("101")
		time.Sleep(20 * time.Second) // past when the next would have been
		up := agent.At(pbxtest.Answered)
		words := spokenTo(t, "", "place", "place-1", "")
		m := pbxtest.Find(call.Heard().Between(call.At(pbxtest.Answered), up), words[:pbxtest.Rate])
		if m.Similarity < 0.9 {
			t.Fatalf("not in the middle of the message: %+v", m)
		}
		hears(t, "caller", call.Heard().Between(up.Add(100*time.Millisecond), up.Add(time.Second)), phoneHz)
		hears(t, "caller", call.Heard().Between(up.Add(2*time.Second), time.Now()), phoneHz)
		saidNothing(t, call.Heard().Since(up.Add(100*time.Millisecond)), "place")
		call.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestHoldDuringMessage: a caller who holds hears no more of the message, music
// when the hold ends, and the next message whole.
func TestHoldDuringMessage(t *testing.T) {
	t.Parallel()
	scenario(t, placeCity(t, "101"), func(t *testing.T, r *rig) {
		r.pool.SetAway("101", "lunch")
		call := r.call()
		time.Sleep(entered + 6*time.Second)
		r.must(call.Hold(t.Context()))
		time.Sleep(4 * time.Second)
		r.must(call.Resume(t.Context()))
		time.Sleep(14 * time.Second)
		if !musicHeard(after(call, entered+11*time.Second, entered+19*time.Second)) {
			t.Error("no music after the hold")
		}
		saidNothing(t, after(call, entered+7*time.Second, entered+19*time.Second), "place-1", "")
		saidAt(t, call, entered+20*time.Second, "", "place", "place-1", "")
		call.Hangup()
		ended(t, r.only(), store.CauseAbandoned, store.OutcomeNone)
	})
}

// TestWaitIsTold: once the pace of a queue is known the expected wait is told with
// the place, but not while nobody takes calls.
func TestWaitIsTold(t *testing.T) {
	t.Parallel()
	scenario(t, placeCity(t, "101"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.AnswerAfter(time.Second))
		var calls []*pbxtest.Call
		for range 4 {
			calls = append(calls, r.call())
			time.Sleep(100 * time.Millisecond)
		}
		for i, call := range calls {
			r.answeredBy("101")
			if i < 3 {
				call.Hangup()
			}
		}
		late := r.call()
		time.Sleep(13 * time.Second)
		saidAt(t, late, entered+5*time.Second, "", "place", "place-1", "", "wait", "wait-less", "")
		r.pool.SetAway("101", "lunch")
		calls[3].Hangup()
		time.Sleep(13 * time.Second)
		saidAt(t, late, entered+20*time.Second, "", "place", "place-1", "")
		saidNothing(t, after(late, entered+15*time.Second, entered+26*time.Second), "wait")
		late.Hangup()
		r.records()
	})
}

// TestPatienceIsAsked: the embedded words or the installer's recording, together
// with the place when both fall due.
func TestPatienceIsAsked(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		t.Run(map[bool]string{false: "embedded", true: "own"}[own], func(t *testing.T) {
			cfg := briefCity(t, "101")
			words := spokenTo(t, "patience")
			cfg.Queues[0].Periodic = 15 * time.Second
			if own {
				words = pbxtest.Chirp(pbxtest.Rate, 500, 1200)
				cfg.Queues[0].PeriodicFile, _ = writeWAV(t, words)
			} else {
				cfg.Queues[0].AnnouncePosition = 15 * time.Second
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.pool.SetAway("101", "lunch")
				call := r.call()
				time.Sleep(entered + 29*time.Second)
				place := spokenTo(t, "", "place", "place-1", "")
				if own {
					place = spokenTo(t, "")
				}
				m := pbxtest.Find(after(call, entered+19*time.Second, entered+28*time.Second), slices.Concat(place, words))
				if !m.Whole() || (m.From-time.Second).Abs() > 150*time.Millisecond {
					t.Errorf("message %+v", m)
				}
				if m := pbxtest.Find(after(call, 0, entered+19*time.Second), words); m.Similarity > 0.6 {
					t.Errorf("too early: %+v", m)
				}
				call.Hangup()
				ended(t, r.only(), store.CauseAbandoned, store.OutcomeNone)
			})
		})
	}
}
