package pbx_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestOutgoingIsRecorded: left is the citizen at the far end, right the phone;
// the office's number is presented (S1.3-b).
func TestOutgoingIsRecorded(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(2 * time.Second)))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitRinging(time.Second))
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		r.must(out.WaitAnswered(3 * time.Second))
		time.Sleep(5 * time.Second)
		out.Hangup()
		r.must(far.WaitEnded(time.Second))
		invite := far.Invite()
		if to, from, pai := invite.Number(""), invite.Number("From"), invite.Number("P-Asserted-Identity"); to != "+48600100200" || from != "+48914245000" || pai != "+48914245000" {
			t.Errorf("called %q as %q, %q", to, from, pai)
		}
		if strings.Contains(string(invite.Bytes()), "Stanowisko") {
			t.Error("the carrier is told the name of the desk")
		}
		hears(t, "phone", out.Heard().Since(out.At(pbxtest.Answered).Add(100*time.Millisecond)), callerHz, phoneHz)
		hears(t, "far end", far.Heard().PCM, phoneHz, callerHz)
		if m := pbxtest.Find(far.Heard().PCM, briefWords()); m.Similarity > 0.5 {
			t.Error("the called party heard the announcement (S1.4-i)")
		}
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if rec.Direction != store.Outgoing || rec.Extension != "101" || rec.Called != "+48600100200" || rec.Trunk != "operator" || rec.SIPStatus != 200 || rec.Segments[0].Extension != "101" {
			t.Errorf("record %+v", rec)
		}
		left, right := r.lanes(rec)
		sameLength(t, rec, left)
		hears(t, "left lane", left, callerHz, phoneHz)
		hears(t, "right lane", right, phoneHz, callerHz)
	})
}

// TestEarlyMedia: what the far end plays before it answers is heard by the
// phone, and is in no recording; the answer after it is taken.
func TestEarlyMedia(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Early: true, Status: 200, After: 4 * time.Second}))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(10 * time.Second))
		answered := time.Now()
		hears(t, "phone before the answer", out.Heard().Between(answered.Add(-3*time.Second), answered), callerHz)
		r.says("carrier > switch 183 Session Progress (INVITE)", "switch > 101 183 Session Progress (INVITE)", "switch > 101 200 OK (INVITE)")
		time.Sleep(3 * time.Second)
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		hears(t, "far end", far.Heard().Since(answered.Add(100*time.Millisecond)), phoneHz)
		far.Hangup()
		r.must(out.WaitEnded(time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		left, _ := r.lanes(rec)
		sameLength(t, rec, left)
	})
}

// TestRefusalsArePassedOn: the phone is told what the far end said, and the
// record too.
func TestRefusalsArePassedOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		said, told int
		cause      store.Cause
	}{
		{486, 486, store.CauseBusy}, {603, 603, store.CauseDeclined}, {404, 404, store.CauseNotFound}, {480, 480, store.CauseNoAnswer},
		{503, 503, store.CauseUnreachable}, {500, 500, store.CauseUnreachable}, {403, 403, store.CauseForbidden}, {488, 488, store.CauseNotAcceptable},
		{302, 480, store.CauseUnreachable}, {407, 480, store.CauseUnreachable}, {401, 480, store.CauseUnreachable}, {604, 604, store.CauseNotFound},
	} {
		t.Run(strconv.Itoa(c.said), func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				b := pbxtest.Behaviour{Status: c.said, After: 2 * time.Second, Fields: []pbxtest.Field{{Name: "Reason", Value: `Q.850;cause=27;text="x"`}}}
				r.carrier.SetBehaviour(pbxtest.Always(b))
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				r.must(out.WaitEnded(10 * time.Second))
				if e := out.End(); e.Status != c.told || !strings.Contains(e.Reason, "Q.850") {
					t.Errorf("far end said %d, the phone was told %+v", c.said, e)
				}
				rec := r.only()
				ended(t, rec, c.cause, store.OutcomeNone)
				if rec.Q850 != 27 {
					t.Errorf("recorded Q.850 cause %d", rec.Q850)
				}
			})
		})
	}
}

// TestSecondTrunk: a trunk that is out of order is not the end; the record of
// the call that came about does not keep its status.
func TestSecondTrunk(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	first := cfg.Trunks[0]
	first.Name, first.Server = "first", "198.51.100.1:5070"
	first.From = []pbx.Source{{Prefix: pbxtest.Host(carrierAddr.Addr()), Port: 5070}}
	cfg.Trunks[0].From = []pbx.Source{{Prefix: pbxtest.Host(carrierAddr.Addr()), Port: 5060}}
	cfg.Trunks = append([]pbx.TrunkConfig{first}, cfg.Trunks...)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		other := r.otherCarrier(5070)
		other.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Early: true, Status: 503, After: time.Second}))
		time.Sleep(31 * time.Second) // until its OPTIONS was answered
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Early: true, Status: 200, After: 3 * time.Second}))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(10 * time.Second))
		answered := time.Now()
		hears(t, "phone before the answer", out.Heard().Between(answered.Add(-2*time.Second), answered), callerHz)
		time.Sleep(2 * time.Second)
		hears(t, "phone", out.Heard().Since(answered.Add(100*time.Millisecond)), callerHz)
		out.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if rec.Trunk != "operator" || rec.SIPStatus != 200 || rec.Q850 != 16 {
			t.Errorf("trunk %q, status %d, Q.850 %d", rec.Trunk, rec.SIPStatus, rec.Q850)
		}
	})
}

// TestEmergency: with and without prefix, with every limit exhausted, while
// draining: they are resolved before any rule.
func TestEmergency(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Dial.MaxOutgoingPerExtension = 1
	cfg.Dial.Block = append(cfg.Dial.Block, "+48")
	cfg.Dial.Allow = nil
	cfg.Trunks[0].MaxCalls = 1
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		go r.sw.Drain(t.Context())
		time.Sleep(10 * time.Millisecond)
		var calls []*pbxtest.Call
		for _, n := range []string{"112", "0112", "999", "0998", "+48997"} {
			out, err := r.phones["101"].Dial(n)
			r.must(err)
			if err := out.WaitAnswered(5 * time.Second); err != nil {
				t.Errorf("%s: %v", n, err)
				continue
			}
			far, err := r.carrier.WaitCall(time.Second)
			r.must(err)
			if got := far.Invite().Number(""); !strings.HasSuffix(n, got) || len(got) != 3 {
				t.Errorf("%s called %q", n, got)
			}
			calls = append(calls, out)
		}
		for _, out := range calls {
			out.Hangup()
		}
		for _, rec := range r.records() {
			if rec.Direction != store.Outgoing || rec.Recording.Outcome != store.OutcomeOK {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// TestForbiddenNumbers: no INVITE reaches the carrier.
func TestForbiddenNumbers(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		for number, want := range map[string]int{
			"0701234567": 403, "0300123456": 403, "0400123456": 403, // premium
			"00044207946000": 403, "+442079460000": 403, "0+4470": 404, // abroad
			"600100200": 404, "12345": 404,
		} {
			out, err := r.phones["101"].Dial(number)
			r.must(err)
			r.must(out.WaitEnded(time.Second))
			if e := out.End(); e.Status != want {
				t.Errorf("%q answered %d, want %d", number, e.Status, want)
			}
		}
		r.quiet("carrier")
		r.records()
	})
}

// TestOutgoingLimit: one call too many at a time.
func TestOutgoingLimit(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		var up []*pbxtest.Call
		for range 2 {
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			r.must(out.WaitAnswered(5 * time.Second))
			up = append(up, out)
		}
		third, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(third.WaitEnded(time.Second))
		if e := third.End(); e.Status != 403 {
			t.Errorf("answered %d", e.Status)
		}
		for _, out := range up {
			out.Hangup()
		}
		time.Sleep(time.Second)
		again, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(again.WaitAnswered(5 * time.Second))
		again.Hangup()
		r.records()
	})
}

// TestInternalCall: bridged both ways, recorded by nobody (S1.3-e).
func TestInternalCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		out, err := r.phones["101"].Dial("102")
		r.must(err)
		other := r.answeredBy("102")
		time.Sleep(3 * time.Second)
		hears(t, "caller", out.Heard().PCM, phoneHz+30)
		hears(t, "called", other.Heard().PCM, phoneHz)
		if from := other.Invite().Number("From"); from != "101" {
			t.Errorf("called by %q", from)
		}
		r.must(other.Hold(t.Context()))
		time.Sleep(time.Second)
		r.must(other.Resume(t.Context()))
		time.Sleep(time.Second)
		other.Hangup()
		r.must(out.WaitEnded(time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeNone)
		if rec.Direction != store.Internal || len(r.audioFiles()) > 0 {
			t.Errorf("record %+v, files %v", rec, r.audioFiles())
		}
		r.quiet("carrier")
	})
}

// TestInternalCallRecordedIfAsked: the switch of S1.3-e, off by default.
func TestInternalCallRecordedIfAsked(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Dial.RecordInternal = true
	scenario(t, cfg, func(t *testing.T, r *rig) {
		out, err := r.phones["101"].Dial("102")
		r.must(err)
		other := r.answeredBy("102")
		time.Sleep(3 * time.Second)
		out.Hangup()
		r.must(other.WaitEnded(time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		left, right := r.lanes(rec)
		hears(t, "left lane", left, phoneHz, phoneHz+30)
		hears(t, "right lane", right, phoneHz+30, phoneHz)
	})
}

// TestInternalCallFails: busy, nobody there, no such extension, given up.
func TestInternalCallFails(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102", "103"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.Reject(486))
		r.must(r.phones["103"].Unregister(t.Context()))
		for number, want := range map[string]int{"102": 486, "103": 480, "104": 404} {
			out, err := r.phones["101"].Dial(number)
			r.must(err)
			r.must(out.WaitEnded(time.Second))
			if e := out.End(); e.Status != want {
				t.Errorf("%s answered %d, want %d", number, e.Status, want)
			}
		}
		r.behave("102", pbxtest.RingForEver())
		out, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(out.WaitRinging(time.Second))
		out.Hangup()
		r.must(out.WaitEnded(time.Second))
		time.Sleep(time.Millisecond)
		r.says("101 > switch CANCEL", "switch > 102 CANCEL")
		left, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(left.WaitEnded(time.Minute))
		if e := left.End(); e.Status != 480 {
			t.Errorf("rang out with %d", e.Status)
		}
		r.records()
	})
}

// TestWhoMayCall: a password, and nobody else's name.
func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		other, err := r.phones["101"].Call(pbxtest.CallOptions{From: "102", To: "0600100200"})
		r.must(err)
		r.must(other.WaitEnded(time.Second))
		if e := other.End(); e.Status != 403 {
			t.Errorf("another's name answered %d", e.Status)
		}
		thief := r.stranger("101", "guessed")
		out, err := thief.Call(pbxtest.CallOptions{From: "101", To: "0600100200"})
		r.must(err)
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status != 401 {
			t.Errorf("a wrong password answered %d", e.Status)
		}
		nobody := r.stranger("101", "")
		out, err = nobody.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"})
		r.must(err)
		r.must(out.WaitEnded(time.Second))
		if e := out.End(); e.Status != 401 {
			t.Errorf("a stranger who is no trunk answered %d", e.Status)
		}
		r.quiet("carrier")
		r.quiet("101")
		if recs := r.records(); len(recs) != 0 {
			t.Errorf("records %+v", recs)
		}
	})
}

// TestOutgoingAnnouncement: if it is switched on the called party hears it
// before the conversation, which is recorded from then on (S1.4-i).
func TestOutgoingAnnouncement(t *testing.T) {
	t.Parallel()
	words := pbxtest.Chirp(2*pbxtest.Rate, 900, 1400)
	cfg := briefCity(t, "101")
	cfg.Announcement.Outgoing, _ = writeWAV(t, words)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		r.must(out.WaitAnswered(5 * time.Second))
		time.Sleep(5 * time.Second)
		heard := far.Heard()
		m := pbxtest.Find(heard.PCM, words)
		if !m.Whole() {
			t.Errorf("announcement %+v", m)
		}
		hears(t, "far end", heard.Since(heard.Start.Add(m.To+100*time.Millisecond)), phoneHz)
		out.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		if rec.Recording.Began.Before(heard.Start.Add(m.To - 40*time.Millisecond)) {
			t.Errorf("recorded from %v, the announcement ended at %v", rec.Recording.Began, heard.Start.Add(m.To))
		}
	})
}

// TestTrunkAsksForPassword: a challenge to the INVITE and to the BYE is
// answered, once.
func TestTrunkAsksForPassword(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Trunks[0].User, cfg.Secrets.Trunks = "city", map[string]string{"operator": "trunk-secret"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		asked := 0
		r.carrier.SetBehaviour(func(m *pbxtest.Message) pbxtest.Behaviour {
			if m.Get("Proxy-Authorization") == "" {
				asked++
				return pbxtest.Behaviour{Ring: -1, Status: 407, Fields: []pbxtest.Field{{Name: "Proxy-Authenticate", Value: `Digest realm="operator", nonce="abc", algorithm=MD5, qop="auth"`}}}
			}
			return pbxtest.AnswerAfter(time.Second)
		})
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		if err := out.WaitAnswered(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		r.carrier.SetBehaviour(nil)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		out.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}
