package pbx_test

import (
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestCallIsAnnouncedQueuedBridgedAndRecorded is the backbone: the announcement
// in full, then music, then an agent, then a WAV of exactly that conversation
// (S1.3-a, S1.4-b, S1.4-c, S1.4-e).
func TestCallIsAnnouncedQueuedBridgedAndRecorded(t *testing.T) {
	t.Parallel()
	scenario(t, cityConfig("101", "102"), func(t *testing.T, r *rig) {
		call := r.call()
		agent, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		r.must(agent.WaitAnswered(10 * time.Second))
		time.Sleep(20 * time.Second)
		call.Hangup()
		r.must(agent.WaitEnded(2 * time.Second))

		heard := call.Heard()
		played := pbxtest.Find(heard.PCM, announcement(t))
		if !played.Whole() {
			t.Errorf("the announcement was not heard in full: %+v", played)
		}
		end := heard.Start.Add(played.To)
		if ring := agent.At(pbxtest.Ringing); ring.Before(end.Add(-20 * time.Millisecond)) {
			t.Errorf("the phone rang at %v, before the announcement's end at %v", ring, end)
		}
		answered := agent.At(pbxtest.Answered)
		hears(t, "caller", heard.Since(answered.Add(100*time.Millisecond)), phoneHz, callerHz)
		hears(t, "agent", agent.Heard().PCM, callerHz, phoneHz)

		rec := r.only()
		if rec.Cause != store.CauseHangupCaller || rec.Recording.Outcome != store.OutcomeOK || rec.Direction != store.Incoming {
			t.Errorf("record %+v", rec)
		}
		if rec.Announcement == nil || !rec.Announcement.Complete || rec.Recording.Began.Before(rec.Announcement.Ended) || rec.Rings[0].From.Before(rec.Announcement.Ended) {
			t.Errorf("announcement %+v, rings %+v, recording from %v", rec.Announcement, rec.Rings, rec.Recording.Began)
		}
		if got := rec.Caller; got.Number != "+48600100200" || !got.Identifiable() || got.Source != "P-Asserted-Identity" && got.Source != "From" {
			t.Errorf("caller %+v", got)
		}
		citizen, office := r.lanes(rec)
		conversation := rec.Ended.Sub(rec.Answered)
		length := time.Duration(len(citizen)) * time.Second / 8000
		if d := length - conversation; d < -40*time.Millisecond || d > 40*time.Millisecond {
			t.Errorf("file of %v for a conversation of %v", length, conversation)
		}
		hears(t, "left lane", citizen, callerHz, phoneHz)
		hears(t, "right lane", office, phoneHz, callerHz)
	})
}
