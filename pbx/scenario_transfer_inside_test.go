package pbx_test

import (
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestInternalCallPassedOutside: two phones talk, unrecorded; one passes the
// other on to a number outside: from then on it is an outgoing call, recorded.
func TestInternalCallPassedOutside(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		colleague, err := r.phones["102"].Dial("101")
		r.must(err)
		agent := r.answeredBy("101")
		time.Sleep(2 * time.Second)
		r.refer(agent, "0501502503", 202)
		citizen, err := r.carrier.WaitCall(10 * time.Second)
		r.must(err)
		r.must(citizen.WaitAnswered(10 * time.Second))
		answered := time.Now()
		time.Sleep(4 * time.Second)
		citizen.Hangup()
		r.must(colleague.WaitEnded(2 * time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		segments(t, rec, "102", "102")
		if rec.Direction != store.Outgoing || rec.Called != "+48501502503" || rec.Recording.Began.Before(answered.Add(-time.Second)) {
			t.Errorf("record %+v", rec)
		}
		left, right := r.lanes(rec)
		hears(t, "citizen's lane", left, callerHz, phoneHz, phoneHz+30)
		hears(t, "office lane", right, phoneHz+30, callerHz, phoneHz)
	})
}

// TestOutgoingCallPassedOn: the phone that called a citizen passes the citizen
// on to a colleague; the colleague's phone shows the citizen's number.
func TestOutgoingCallPassedOn(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		agent, err := r.phones["101"].Dial("0501502503")
		r.must(err)
		r.must(agent.WaitAnswered(10 * time.Second))
		citizen, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		time.Sleep(2 * time.Second)
		r.refer(agent, "102", 202)
		colleague := r.answeredBy("102")
		answered := time.Now()
		time.Sleep(3 * time.Second)
		hears(t, "citizen", citizen.Heard().Since(answered.Add(200*time.Millisecond)), phoneHz+30, phoneHz)
		hears(t, "colleague", colleague.Heard().PCM, callerHz, phoneHz)
		if from := colleague.Invite().Get("From"); !strings.Contains(from, "+48501502503") {
			t.Errorf("the colleague sees %q", from)
		}
		citizen.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		segments(t, rec, "101", "102")
		left, right := r.lanes(rec)
		sameLength(t, rec, left)
		hears(t, "citizen's lane at the end", left[len(left)-at(2*time.Second):], callerHz)
		hears(t, "office lane at the end", right[len(right)-at(2*time.Second):], phoneHz+30)
	})
}
