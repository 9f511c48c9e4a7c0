package pbx_test

import (
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

var holdForms = []struct {
	name string
	dir  pbxtest.Direction
	zero bool
}{{"sendonly", pbxtest.SendOnly, false}, {"inactive", pbxtest.Inactive, false}, {"c=0.0.0.0", pbxtest.SendRecv, true}}

// TestHold: either side holds in each of the three forms; the other hears
// music, both lanes of the recording are silent for exactly that long, the span
// is labelled, and afterwards they talk again (S1.3-g, RFC 3264 §8.4).
func TestHold(t *testing.T) {
	t.Parallel()
	for _, form := range holdForms {
		for _, by := range []string{"citizen", "office"} {
			t.Run(form.name+" by "+by, func(t *testing.T) {
				scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
					caller, agent := r.talk()
					holder, other := caller, agent
					otherHears := float64(callerHz)
					if by == "office" {
						holder, other, otherHears = agent, caller, phoneHz
					}
					time.Sleep(5 * time.Second)
					r.must(holder.HoldAs(t.Context(), form.dir, form.zero))
					held := time.Now()
					time.Sleep(10 * time.Second)
					r.must(holder.Resume(t.Context()))
					resumed := time.Now()
					time.Sleep(5 * time.Second)
					caller.Hangup()

					if !musicHeard(other.Heard().Between(held.Add(300*time.Millisecond), resumed.Add(-300*time.Millisecond))) {
						t.Errorf("the other side heard no music")
					}
					hears(t, "the other side", other.Heard().Between(resumed.Add(100*time.Millisecond), resumed.Add(4*time.Second)), otherHears)
					hears(t, "the holder", holder.Heard().Between(resumed.Add(100*time.Millisecond), resumed.Add(4*time.Second)), callerHz+phoneHz-otherHears)
					rec := r.only()
					ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
					if len(rec.Holds) != 1 || rec.Holds[0].By != by || rec.Holds[0].From.Sub(held).Abs() > 5*time.Millisecond || rec.Holds[0].To.Sub(resumed).Abs() > 5*time.Millisecond {
						t.Errorf("holds %+v, held %v to %v", rec.Holds, held, resumed)
					}
					left, right := r.lanes(rec)
					sameLength(t, rec, left)
					for lane, hz := range map[*[]int16]float64{&left: callerHz, &right: phoneHz} {
						from, to := held.Sub(rec.Answered), resumed.Sub(rec.Answered)
						if !pbxtest.ToneAt(*lane, hz, 100*time.Millisecond, from-20*time.Millisecond) || !pbxtest.ToneAt(*lane, hz, to+60*time.Millisecond, to+4*time.Second) {
							t.Errorf("%.0f Hz is not where it should be: %v", hz, pbxtest.Spans(*lane, hz))
						}
						if level := pbxtest.Level((*lane)[at(from+40*time.Millisecond):at(to-40*time.Millisecond)]); level > -80 {
							t.Errorf("lane of %.0f Hz has %.0f dBFS while held", hz, level)
						}
					}
				})
			})
		}
	}
}

// at is the sample at a time.
func at(d time.Duration) int { return int(d * pbxtest.Rate / time.Second) }

// sameLength asserts that the file is as long as the conversation (S1.3-a).
func sameLength(t *testing.T, rec store.CallRecord, lane []int16) {
	t.Helper()
	length := time.Duration(len(lane)) * time.Second / pbxtest.Rate
	if d := length - rec.Ended.Sub(rec.Answered); d.Abs() > 40*time.Millisecond {
		t.Errorf("file of %v for a conversation of %v", length, rec.Ended.Sub(rec.Answered))
	}
}

// TestHoldByBoth: silence while either holds; each label names who held.
func TestHoldByBoth(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		began := time.Now()
		r.must(agent.Hold(t.Context()))
		time.Sleep(3 * time.Second)
		r.must(caller.HoldAs(t.Context(), pbxtest.Inactive, false))
		time.Sleep(3 * time.Second)
		r.must(agent.Resume(t.Context()))
		freed := time.Now()
		time.Sleep(3 * time.Second)
		if !musicHeard(agent.Heard().Since(freed.Add(300 * time.Millisecond))) {
			t.Error("the agent hears no music while the caller holds")
		}
		r.must(caller.Resume(t.Context()))
		over := time.Now()
		time.Sleep(3 * time.Second)
		hears(t, "caller", caller.Heard().Since(over.Add(100*time.Millisecond)), phoneHz)
		hears(t, "agent", agent.Heard().Since(over.Add(100*time.Millisecond)), callerHz)
		agent.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		var labels []string
		for _, h := range rec.Holds {
			labels = append(labels, h.By)
		}
		if got := strings.Join(labels, " "); got != "office citizen" || !rec.Holds[0].To.Equal(rec.Holds[1].From) {
			t.Errorf("holds %+v", rec.Holds)
		}
		left, right := r.lanes(rec)
		sameLength(t, rec, left)
		for _, lane := range [][]int16{left, right} {
			if level := pbxtest.Level(lane[at(began.Sub(rec.Answered)+60*time.Millisecond):at(over.Sub(rec.Answered)-60*time.Millisecond)]); level > -80 {
				t.Errorf("a lane has %.0f dBFS while held", level)
			}
		}
	})
}

// TestHangupWhileHeld: the span ends with the call.
func TestHangupWhileHeld(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(2 * time.Second)
		r.must(agent.Hold(t.Context()))
		time.Sleep(2 * time.Second)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Holds) != 1 || !rec.Holds[0].To.Equal(rec.Ended) {
			t.Errorf("holds %+v, ended %v", rec.Holds, rec.Ended)
		}
		left, _ := r.lanes(rec)
		sameLength(t, rec, left)
	})
}

// TestHoldWhileWaiting: a caller who holds in the queue hears the music go on
// afterwards, or is heard nothing of while an agent answers meanwhile.
func TestHoldWhileWaiting(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.AnswerAfter(8*time.Second))
		caller := r.call()
		time.Sleep(3 * time.Second)
		r.must(caller.HoldAs(t.Context(), pbxtest.Inactive, false))
		time.Sleep(2 * time.Second)
		r.must(caller.Resume(t.Context()))
		resumed := time.Now()
		time.Sleep(2 * time.Second)
		if !musicHeard(caller.Heard().Since(resumed.Add(200 * time.Millisecond))) {
			t.Error("no music after the hold")
		}
		r.must(caller.Hold(t.Context()))
		agent := r.answeredBy("101")
		time.Sleep(2 * time.Second)
		if !musicHeard(agent.Heard().PCM[at(300*time.Millisecond):]) {
			t.Error("the agent who answers a caller on hold hears no music")
		}
		r.must(caller.Resume(t.Context()))
		resumed = time.Now()
		time.Sleep(2 * time.Second)
		hears(t, "agent", agent.Heard().Since(resumed.Add(100*time.Millisecond)), callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Holds) != 1 || rec.Holds[0].By != "citizen" {
			t.Errorf("holds %+v", rec.Holds)
		}
	})
}

// TestLateOffer: an INVITE without SDP gets our offer in the 200, and the
// ACK brings the answer (RFC 3261 §13.2.1); so does a re-INVITE.
func TestLateOffer(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", LateOffer: true})
		r.must(err)
		agent := r.answeredBy("101")
		if m := pbxtest.Find(caller.Heard().PCM, briefWords()); !m.Whole() {
			t.Errorf("announcement %+v", m)
		}
		time.Sleep(2 * time.Second)
		for _, c := range []*pbxtest.Call{caller, agent} {
			res, err := c.ReInvite(t.Context(), nil)
			r.must(err)
			if res.Status != 200 || len(res.Body) == 0 {
				t.Errorf("re-INVITE without SDP answered %s", res.Bytes())
			}
			time.Sleep(2 * time.Second)
		}
		since := time.Now().Add(-time.Second)
		hears(t, "caller", caller.Heard().Since(since), phoneHz)
		hears(t, "agent", agent.Heard().Since(since), callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Holds) > 0 {
			t.Errorf("holds %+v", rec.Holds)
		}
	})
}

// TestRefusedOffersInCall: what we cannot take is answered 488 and the call
// goes on as it was (RFC 3261 §14.2).
func TestRefusedOffersInCall(t *testing.T) {
	t.Parallel()
	const head = "v=0\no=- 99 99 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\n"
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(time.Second)
		for _, media := range []string{"m=image 4000 udptl t38\n", "m=video 4000 RTP/AVP 96\na=rtpmap:96 H264/90000\n", "m=audio 4000 RTP/AVP 18\n", "m=audio 0 RTP/AVP 8\n"} {
			body := []byte(strings.ReplaceAll(head+media, "\n", "\r\n"))
			res, err := caller.ReInvite(t.Context(), body)
			r.must(err)
			if res.Status != 488 {
				t.Errorf("%q answered %d", media, res.Status)
			}
			res, err = caller.Request(t.Context(), "UPDATE", body, pbxtest.Field{Name: "Content-Type", Value: "application/sdp"}, pbxtest.Field{Name: "Contact", Value: "<sip:carrier@198.51.100.1:5060>"})
			r.must(err)
			if res.Status != 488 {
				t.Errorf("UPDATE with %q answered %d", media, res.Status)
			}
		}
		since := time.Now()
		time.Sleep(2 * time.Second)
		hears(t, "caller", caller.Heard().Since(since), phoneHz)
		hears(t, "agent", agent.Heard().Since(since), callerHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if len(rec.Holds) > 0 {
			t.Errorf("holds %+v", rec.Holds)
		}
		left, _ := r.lanes(rec)
		sameLength(t, rec, left)
	})
}

// TestVideoBesideAudio: the audio is taken, the video refused with port 0
// (RFC 3264 §6).
func TestVideoBesideAudio(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		sdp := "v=0\no=- 1 1 IN IP4 198.51.100.1\ns=-\nc=IN IP4 198.51.100.1\nt=0 0\nm=audio 4000 RTP/AVP 8\nm=video 4002 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", SDP: []byte(strings.ReplaceAll(sdp, "\n", "\r\n"))})
		r.must(err)
		r.answeredBy("101")
		if got := strings.Join(caller.RemoteSDP().Media, ", "); got != "audio RTP/AVP, video RTP/AVP refused" {
			t.Errorf("answered %q", got)
		}
		caller.Hangup()
		r.only()
	})
}

// TestUpdate: a refresh without SDP, and a hold and resume by UPDATE
// (RFC 3311 §5.2).
func TestUpdate(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		update := func(dir pbxtest.Direction) *pbxtest.Message {
			t.Helper()
			var fields []pbxtest.Field
			var body []byte
			if dir != "" {
				body = []byte(bump(string(caller.LocalSDP()), dir))
				fields = append(fields, pbxtest.Field{Name: "Content-Type", Value: "application/sdp"})
			}
			fields = append(fields, pbxtest.Field{Name: "Contact", Value: "<sip:carrier@198.51.100.1:5060>"})
			res, err := caller.Request(t.Context(), "UPDATE", body, fields...)
			r.must(err)
			if res.Status != 200 || res.Get("Contact") == "" {
				t.Errorf("answered %s", res.Bytes())
			}
			return res
		}
		if res := update(""); len(res.Body) > 0 {
			t.Error("an UPDATE without offer got an answer")
		}
		time.Sleep(time.Second)
		if res := update(pbxtest.Inactive); !strings.Contains(string(res.Body), "a=inactive") {
			t.Errorf("answer %q", res.Body)
		}
		held := time.Now()
		time.Sleep(3 * time.Second)
		if !musicHeard(agent.Heard().Since(held.Add(200 * time.Millisecond))) {
			t.Error("no music")
		}
		if res := update(pbxtest.SendRecv); !strings.Contains(string(res.Body), "a=sendrecv") {
			t.Errorf("answer %q", res.Body)
		}
		resumed := time.Now()
		time.Sleep(2 * time.Second)
		hears(t, "agent", agent.Heard().Since(resumed.Add(100*time.Millisecond)), callerHz)
		caller.Hangup()
		if rec := r.only(); len(rec.Holds) != 1 || rec.Holds[0].By != "citizen" {
			t.Errorf("holds %+v", rec.Holds)
		}
	})
}

// bump gives an SDP another direction and a higher version.
func bump(sdp string, dir pbxtest.Direction) string {
	lines := strings.Split(strings.TrimRight(sdp, "\r\n"), "\r\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "o=") {
			f := strings.Fields(l)
			f[2] += "0"
			lines[i] = strings.Join(f, " ")
		}
		switch l {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
			lines[i] = ""
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "\r\n"), "\r\n\r\n", "\r\n") + "\r\na=" + string(dir) + "\r\n"
}

// TestGlare: a re-INVITE before the ACK of the one before gets 491
// (RFC 3261 §14.2), and the call goes on.
func TestGlare(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, _ := r.talk()
		r.lose(carrierAddr, "ACK ", func(n int) bool { return n == 1 })
		res, err := caller.ReInvite(t.Context(), caller.LocalSDP())
		r.must(err)
		if res.Status != 200 {
			t.Fatalf("answered %d", res.Status)
		}
		second, err := caller.ReInvite(t.Context(), caller.LocalSDP())
		r.must(err)
		if second.Status != 491 {
			t.Errorf("answered %d before the ACK", second.Status)
		}
		time.Sleep(2 * time.Second) // the 200 is sent again, and acknowledged
		third, err := caller.ReInvite(t.Context(), caller.LocalSDP())
		r.must(err)
		if third.Status != 200 {
			t.Errorf("answered %d after the ACK", third.Status)
		}
		time.Sleep(time.Second)
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestReInviteNeverACKed ends the call like any other 2xx without an ACK.
func TestReInviteNeverACKed(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		r.lose(carrierAddr, "ACK ", func(int) bool { return true })
		_, err := caller.ReInvite(t.Context(), caller.LocalSDP())
		r.must(err)
		began := time.Now()
		r.must(caller.WaitEnded(time.Minute))
		r.must(agent.WaitEnded(time.Second))
		if d := time.Since(began); d < 32*time.Second || d > 33*time.Second {
			t.Errorf("ended after %v", d)
		}
		ended(t, r.only(), store.CauseNoAck, store.OutcomeOK)
	})
}

// TestRefreshChangesNothing: a re-INVITE with the same SDP is answered with the
// same bytes, and the voice goes on without a gap (RFC 3264 §8).
func TestRefreshChangesNothing(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, _ := r.talk()
		time.Sleep(2 * time.Second)
		since := time.Now()
		var bodies []string
		for range 3 {
			res, err := caller.ReInvite(t.Context(), caller.LocalSDP())
			r.must(err)
			bodies = append(bodies, string(res.Body))
			time.Sleep(time.Second)
		}
		if bodies[0] != bodies[1] || bodies[1] != bodies[2] {
			t.Errorf("answers %q", bodies)
		}
		if spans := pbxtest.Spans(caller.Heard().Since(since), phoneHz); len(spans) != 1 {
			t.Errorf("heard %v", spans)
		}
		caller.Hangup()
		if rec := r.only(); rec.Recording.Outcome != store.OutcomeOK || len(rec.Holds) > 0 {
			t.Errorf("record %+v", rec)
		}
	})
}
