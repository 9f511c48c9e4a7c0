package pbx_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestHangupInAnnouncement: whoever does not agree to be recorded hangs up, and
// nothing of the voice is ever written (S1.4-d, S1.3-d).
func TestHangupInAnnouncement(t *testing.T) {
	t.Parallel()
	scenario(t, cityConfig("101", "102"), func(t *testing.T, r *rig) {
		call := r.call()
		r.must(call.WaitAnswered(time.Second))
		var files []string
		for range 50 { // looked for all along: created and deleted counts as created
			time.Sleep(100 * time.Millisecond)
			files = append(files, r.audioFiles()...)
		}
		call.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseAnnouncementHangup, store.OutcomeNone)
		if files = append(files, r.audioFiles()...); len(files) > 0 {
			t.Errorf("files in the vault: %v", files)
		}
		if rec.Announcement == nil || rec.Announcement.Complete || rec.Announcement.Started.IsZero() || len(rec.Rings) > 0 || !rec.Answered.IsZero() {
			t.Errorf("record %+v", rec)
		}
		r.quiet("101")
		r.quiet("102")
		if n := r.sw.Status().Causes[store.CauseAnnouncementHangup]; n != 1 {
			t.Errorf("counted %d times", n)
		}
	})
}

// TestAnnouncementIsNotSkippedByKeys: no key does anything (S1.4-b).
func TestAnnouncementIsNotSkippedByKeys(t *testing.T) {
	t.Parallel()
	scenario(t, cityConfig("101"), func(t *testing.T, r *rig) {
		call := r.call()
		r.must(call.WaitAnswered(time.Second))
		time.Sleep(time.Second)
		r.must(call.SendDTMF("1#*90"))
		_, err := call.Request(t.Context(), "INFO", []byte("Signal=#\r\nDuration=100\r\n"), pbxtest.Field{Name: "Content-Type", Value: "application/dtmf-relay"})
		r.must(err)
		agent := r.answeredBy("101")
		heard := call.Heard()
		played := pbxtest.Find(heard.PCM, announcement(t))
		if !played.Whole() || agent.At(pbxtest.Ringing).Before(heard.Start.Add(played.To-20*time.Millisecond)) {
			t.Errorf("announcement %+v, phone rang %v after it began", played, agent.At(pbxtest.Ringing).Sub(heard.Start))
		}
		call.Hangup()
		r.only()
	})
}

// TestAnnouncementStartsOverAfterHold: only an unbroken play counts (S1.4-b).
func TestAnnouncementStartsOverAfterHold(t *testing.T) {
	t.Parallel()
	for _, hold := range []struct {
		name string
		dir  pbxtest.Direction
		zero bool
	}{{"sendonly", pbxtest.SendOnly, false}, {"inactive", pbxtest.Inactive, false}, {"0.0.0.0", pbxtest.SendRecv, true}} {
		t.Run(hold.name, func(t *testing.T) {
			scenario(t, cityConfig("101"), func(t *testing.T, r *rig) {
				call := r.call()
				r.must(call.WaitAnswered(time.Second))
				time.Sleep(5 * time.Second)
				r.must(call.HoldAs(t.Context(), hold.dir, hold.zero))
				time.Sleep(4 * time.Second)
				r.must(call.Resume(t.Context()))
				resumed := time.Now()
				agent := r.answeredBy("101")
				heard := call.Heard()
				after := heard.Since(resumed)
				played := pbxtest.Find(after, announcement(t))
				if !played.Whole() || played.From > 100*time.Millisecond {
					t.Errorf("after the hold: %+v", played)
				}
				if rang := agent.At(pbxtest.Ringing).Sub(resumed); rang < played.To-20*time.Millisecond {
					t.Errorf("the phone rang %v after the hold, the announcement ended after %v", rang, played.To)
				}
				call.Hangup()
				rec := r.only()
				if rec.Announcement.Started.Before(resumed) || !rec.Announcement.Complete {
					t.Errorf("announcement %+v, resumed %v", rec.Announcement, resumed)
				}
			})
		})
	}
}

// TestAnnouncementOncePerCall: a caller who goes back into the queue does not
// hear it again (S1.4-g), the same caller's next call does (S1.4-b).
func TestAnnouncementOncePerCall(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Queues[0].RingTimeout = 5 * time.Second
	scenario(t, cfg, func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		r.behave("102", pbxtest.RingForEver())
		call := r.call()
		time.Sleep(18 * time.Second)
		if n := r.count("switch > 101 INVITE") + r.count("switch > 102 INVITE"); n < 3 {
			t.Fatalf("%d phones rang", n)
		}
		heard := call.Heard()
		first := pbxtest.Find(heard.PCM, briefWords())
		if !first.Whole() {
			t.Fatalf("first: %+v", first)
		}
		rest := heard.Since(heard.Start.Add(first.To + 100*time.Millisecond))
		if again := pbxtest.Find(rest, briefWords()); again.Similarity > 0.5 {
			t.Errorf("heard again: %+v", again)
		}
		call.Hangup()
		next := r.call()
		time.Sleep(3 * time.Second)
		if again := pbxtest.Find(next.Heard().PCM, briefWords()); !again.Whole() {
			t.Errorf("the next call: %+v", again)
		}
		next.Hangup()
		for _, rec := range r.records() {
			ended(t, rec, store.CauseAbandoned, store.OutcomeNone)
		}
	})
}

// TestAnnouncementMissingOrAltered: fail closed, say so, and come back when it
// is repaired (S1.4-f).
func TestAnnouncementMissingOrAltered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(file string, whole []byte) error
	}{
		{"missing", func(file string, _ []byte) error { return os.Remove(file) }},
		{"altered", func(file string, whole []byte) error {
			b := append([]byte(nil), whole...)
			b[len(b)/2] ^= 0x40
			return os.WriteFile(file, b, 0o600)
		}},
		{"empty", func(file string, _ []byte) error { return os.WriteFile(file, nil, 0o600) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := briefCity(t, "101")
			whole, err := os.ReadFile(cfg.Announcement.File)
			if err != nil {
				t.Fatal(err)
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.must(c.damage(cfg.Announcement.File, whole))
				time.Sleep(61 * time.Second)
				if st := r.sw.Status(); r.sw.Ready() || len(st.NotReady) == 0 || st.Announcement.Err == "" {
					t.Fatalf("ready: %v, status %+v", r.sw.Ready(), st.Announcement)
				}
				call := r.call()
				r.must(call.WaitEnded(time.Second))
				if end := call.End(); end.Status != 503 {
					t.Errorf("answered %d", end.Status)
				}
				res, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status == 503 })
				r.must(err)
				if after := res.Get("Retry-After"); after == "" || len(after) > 2 || after > "10" && len(after) == 2 {
					t.Errorf("Retry-After %q", after)
				}
				ended(t, r.only(), store.CauseOverload, store.OutcomeNone)
				r.quiet("101")

				r.must(os.WriteFile(cfg.Announcement.File, whole, 0o600))
				time.Sleep(61 * time.Second)
				if !r.sw.Ready() {
					t.Fatalf("not ready after the repair: %v", r.sw.NotReady())
				}
				again, _ := r.talk()
				again.Hangup()
				r.records()
			})
		})
	}
}

// TestReloadRepairsAnnouncement: SIGHUP does not wait for the minute; a reload
// with a bad file changes nothing (S1.4-f).
func TestReloadRepairsAnnouncement(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	broken := cfg
	broken.Announcement.SHA256 = strings.Repeat("0", 64)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		if _, err := r.sw.Reload(broken); err == nil {
			t.Error("a reload took an announcement with a wrong hash")
		}
		if !r.sw.Ready() {
			t.Error("a refused reload made the switch not ready")
		}
		r.must(os.Remove(cfg.Announcement.File))
		time.Sleep(61 * time.Second)
		if r.sw.Ready() {
			t.Fatal("ready without an announcement")
		}
		repaired := cfg
		repaired.Announcement.File, repaired.Announcement.SHA256 = writeWAV(t, briefWords())
		_, err := r.sw.Reload(repaired)
		r.must(err)
		if !r.sw.Ready() {
			t.Errorf("not ready after the reload: %v", r.sw.NotReady())
		}
	})
}

// TestNumberWithItsOwnAnnouncement: and one that leads to an extension.
func TestNumberWithItsOwnAnnouncement(t *testing.T) {
	t.Parallel()
	own := pbxtest.Chirp(2*pbxtest.Rate, 800, 1300)
	cfg := briefCity(t, "101", "102")
	cfg.Numbers[1].Announcement, _ = writeWAV(t, own)
	cfg.Queues[0].Members = []string{"102"}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
		r.must(err)
		agent := r.answeredBy("101")
		heard := call.Heard()
		played := pbxtest.Find(heard.PCM, own)
		if !played.Whole() || agent.At(pbxtest.Ringing).Before(heard.Start.Add(played.To-20*time.Millisecond)) {
			t.Errorf("own announcement: %+v", played)
		}
		if statutory := pbxtest.Find(heard.PCM, briefWords()); statutory.Similarity > 0.5 {
			t.Errorf("the common announcement: %+v", statutory)
		}
		time.Sleep(2 * time.Second)
		agent.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
		if rec.Queue != "" || rec.Segments[0].Extension != "101" {
			t.Errorf("record %+v", rec)
		}
		r.quiet("102")
	})
}

// TestExtensionWithoutPhone: the caller of a number that leads to an extension
// nobody is at hears the closing message.
func TestExtensionWithoutPhone(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.must(r.phones["101"].Unregister(t.Context()))
		call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
		r.must(err)
		r.must(call.WaitEnded(time.Minute))
		if m := pbxtest.Find(call.Heard().PCM, prompt(t, "busy")); !m.Whole() {
			t.Errorf("closing message: %+v", m)
		}
		ended(t, r.only(), store.CauseUnreachable, store.OutcomeNone)
	})
}
