package pbx_test

import (
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestPickup: a call that rings at one phone is taken by another, by the code
// for any, by the code for that extension, or by a key that sends Replaces; the
// first phone is told that it was answered elsewhere, and the conversation is
// recorded like any (mikopbx#771, RFC 3891 §3, RFC 3326 §2).
func TestPickup(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"*8", "**101", "Replaces", "Replaces early-only"} {
		t.Run(how, func(t *testing.T) {
			scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
				r.behave("101", pbxtest.RingForEver())
				caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
				r.must(err)
				rings, err := r.phones["101"].WaitCall(time.Minute)
				r.must(err)
				time.Sleep(2 * time.Second)
				o := pbxtest.CallOptions{To: how}
				if strings.HasPrefix(how, "Replaces") {
					o.To = "101"
					o.Fields = []pbxtest.Field{{Name: "Replaces", Value: rings.Replaces()}, {Name: "Require", Value: "replaces"}}
					if strings.HasSuffix(how, "early-only") {
						o.Fields[0].Value += ";early-only"
					}
				}
				taker, err := r.phones["102"].Call(o)
				r.must(err)
				r.must(taker.WaitAnswered(time.Second))
				r.must(rings.WaitEnded(time.Second))
				if end := rings.End(); end.Method != "CANCEL" || !strings.Contains(end.Reason, "cause=200") {
					t.Errorf("the phone that rang ended by %+v", end)
				}
				time.Sleep(4 * time.Second)
				hears(t, "taker", taker.Heard().PCM, callerHz, phoneHz+30)
				caller.Hangup()
				r.must(taker.WaitEnded(2 * time.Second))
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				segments(t, rec, "102")
				if len(rec.Rings) != 1 || rec.Rings[0].Extension != "101" || rec.Rings[0].Result != "cancelled" {
					t.Errorf("rings %+v", rec.Rings)
				}
				left, right := r.lanes(rec)
				sameLength(t, rec, left)
				hears(t, "citizen's lane", left, callerHz)
				hears(t, "office lane", right, phoneHz+30)
			})
		})
	}
}

// TestPickupOfQueueCall: the agent for whom it rang is free again.
func TestPickupOfQueueCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		caller := r.call()
		_, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		time.Sleep(time.Second)
		taker, err := r.phones["102"].Dial("*8")
		r.must(err)
		r.must(taker.WaitAnswered(time.Second))
		time.Sleep(time.Second)
		r.behave("101", pbxtest.AnswerAfter(time.Second))
		second := r.call()
		r.answeredBy("101")
		time.Sleep(time.Second)
		second.Hangup()
		caller.Hangup()
		r.records()
	})
}

// TestPickupOfInternalCall: between phones it is the same, and not recorded.
func TestPickupOfInternalCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		caller, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(caller.WaitRinging(time.Second))
		taker, err := r.phones["103"].Dial("**102")
		r.must(err)
		r.must(caller.WaitAnswered(time.Second))
		time.Sleep(2 * time.Second)
		hears(t, "caller", caller.Heard().PCM, phoneHz+60)
		hears(t, "taker", taker.Heard().PCM, phoneHz)
		taker.Hangup()
		ended(t, r.only(), store.CauseHangupCalled, store.OutcomeNone)
	})
}

// TestConversationMovesToAnotherDevice: INVITE with Replaces from another device
// of the extension takes the conversation over; one WAV.
func TestConversationMovesToAnotherDevice(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		other := r.device("101", 181)
		here, err := other.Call(pbxtest.CallOptions{To: "101", Fields: []pbxtest.Field{{Name: "Replaces", Value: agent.Replaces()}}, Say: pbxtest.Tone(1000)})
		r.must(err)
		r.must(here.WaitAnswered(time.Second))
		r.must(agent.WaitEnded(time.Second))
		moved := time.Now()
		time.Sleep(3 * time.Second)
		hears(t, "caller", caller.Heard().Since(moved.Add(200*time.Millisecond)), 1000, phoneHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101", "101")
		left, right := r.lanes(rec)
		sameLength(t, rec, left)
		hears(t, "office lane at the end", right[len(right)-at(2*time.Second):], 1000)
	})
}

// TestReplacesRefused: what may not be taken over, and by whom (RFC 3891 §3).
func TestReplacesRefused(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(time.Second)
		try := func(p *pbxtest.Peer, want int, fields ...string) {
			t.Helper()
			o := pbxtest.CallOptions{To: "101"}
			for _, f := range fields {
				o.Fields = append(o.Fields, pbxtest.Field{Name: "Replaces", Value: f})
			}
			c, err := p.Call(o)
			r.must(err)
			r.must(c.WaitEnded(10 * time.Second))
			if got := c.End().Status; got != want {
				t.Errorf("Replaces %q answered %d, want %d", fields, got, want)
			}
		}
		phone := r.phones["102"].Peer
		try(phone, 603, agent.Replaces()) // another extension's conversation
		try(phone, 486, agent.Replaces()+";early-only")
		try(phone, 481, "nobody@knows;to-tag=a;from-tag=b")
		try(phone, 481, strings.Replace(agent.Replaces(), "from-tag=", "from-tag=x", 1))
		try(phone, 400, "without;to-tag=a")
		try(phone, 400, agent.Replaces(), agent.Replaces())
		try(r.carrier.Peer, 403, caller.Replaces())
		if c, err := phone.Call(pbxtest.CallOptions{To: "*8"}); err != nil {
			t.Error(err)
		} else if r.must(c.WaitEnded(time.Second)); c.End().Status != 480 {
			t.Errorf("pickup of nothing: %+v", c.End())
		}
		from := time.Now()
		time.Sleep(time.Second)
		hears(t, "caller", caller.Heard().Since(from), phoneHz)
		agent.Hangup()
		r.must(caller.WaitEnded(time.Second))
		try(phone, 481, agent.Replaces())
		segments(t, r.only(), "101")
	})
}

// TestPhonesOwnDialogIsNotReplaced: a call that the phone itself has begun and
// that still rings cannot be replaced (RFC 3891 §3).
func TestPhonesOwnDialogIsNotReplaced(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.RingForEver())
		placed, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(placed.WaitRinging(time.Second))
		time.Sleep(time.Second)
		c, err := r.phones["101"].Call(pbxtest.CallOptions{To: "102", Fields: []pbxtest.Field{{Name: "Replaces", Value: placed.Replaces()}}})
		r.must(err)
		r.must(c.WaitEnded(time.Second))
		if c.End().Status != 481 {
			t.Errorf("%+v", c.End())
		}
		placed.Hangup()
		ended(t, r.only(), store.CauseCancelled, store.OutcomeNone)
	})
}
