package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

// TestNothingIsFoundAfterTheSweep plants numbers, names, a message and audio
// wherever a day takes them and looks through every byte of the data folder,
// free pages included, before and after the day is swept (S6-d). Then it puts a
// copy of the folder from before back in place: it cannot be played (S6-h).
func TestNothingIsFoundAfterTheSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		dir := s.cfg.Dir
		day := ordinance.DayOf(time.Now())
		number, dialled, name := "+48601234567", "+48915550101", "Zażółć Gęślowska"
		message, audio := []byte("a message that nobody else wrote"), bytes.Repeat([]byte("audio that nobody else said "), 2000)
		var rec CallRecord
		for i := range 300 { // pages that are used, changed and freed
			r := call(day, time.Duration(i)*time.Second)
			r.Caller = Party{Number: ordinance.Number(number), Raw: name, Source: "From", Presentation: "allowed"}
			r.Diverted = ordinance.Number(dialled)
			r.Cause = ""
			must(t, s.PutCall(r))
			r.Cause, r.Revision = CauseHangupCaller, 2
			r.Segments = []Segment{{Number: ordinance.Number(dialled), From: r.Began}}
			must(t, s.PutCall(r))
			rec = r
		}
		rec = record(t, s, rec, audio)
		j, err := s.CreateJournal(day, NewID())
		must(t, err)
		must(t, j.Append(message))
		must(t, j.Close())
		other := record(t, s, call(day.Next(100), 0), []byte("of another day"))
		_, err = s.SearchDigest(day, number)
		must(t, err)
		planted := [][]byte{[]byte(number), []byte(number[3:]), []byte(dialled[3:]), []byte(name), message, audio[:28]}
		must(t, s.retire(day))
		if names := found(t, dir, planted[:4]...); len(names) < 4 {
			t.Fatalf("numbers and names are not where the test looks for them: %q", names)
		}
		if names := found(t, dir, planted[4:]...); len(names) > 0 {
			t.Errorf("message or audio in the clear: %q", names)
		}
		saved := t.TempDir()
		must(t, os.CopyFS(saved, os.DirFS(filepath.Join(dir, daysDir))))
		key, err := os.ReadFile(filepath.Join(dir, keyPath(day)))
		must(t, err)

		time.Sleep(200 * 24 * time.Hour)
		report, err := s.Sweep(t.Context(), time.Now())
		must(t, err)
		if len(report.Days) != 1 || report.Days[0].Calls != 300 {
			t.Fatalf("report %+v", report)
		}
		if names := found(t, dir, append(planted, key[len(key)-64:], []byte(rec.ID.String()))...); len(names) > 1 ||
			len(names) == 1 && !strings.HasSuffix(names[0], centralFile) { // the audit log and nothing else names the id
			t.Errorf("left: %q", names)
		}
		stones, err := s.Tombstones(day)
		must(t, err)
		sum := sha256.Sum256([]byte(List(stones)))
		if swept := report.Days[0]; len(stones) != 301 || swept.ListSHA256 != hex.EncodeToString(sum[:]) || swept.Audit == 0 {
			t.Errorf("%d tombstones, swept %+v", len(stones), swept)
		}
		events := map[Action]int{}
		for e, err := range s.AuditLog(AuditFilter{}) {
			must(t, err)
			events[e.Action]++
		}
		if events[ActionDeletionBegun] != 301 || events[ActionDeleted] != 301 { // 300 calls and their day
			t.Errorf("audit events %v", events)
		}
		if names := found(t, dir, planted...); len(names) > 0 {
			t.Errorf("left: %q", names)
		}

		// A copy of the data from before comes back.
		must(t, os.CopyFS(filepath.Join(dir, dayDir(day)), os.DirFS(filepath.Join(saved, day.String()))))
		closeTest(t, s)
		s = openTest(t, Config{Dir: dir})
		defer closeTest(t, s)
		if c, err := s.OpenRecording(day, rec.ID); err == nil {
			t.Errorf("a swept recording of %d bytes plays again", c.Size())
		}
		if _, err := s.readKey(day); err == nil {
			t.Error("there is a key")
		}
		if names := found(t, dir, planted[4:]...); len(names) > 0 {
			t.Errorf("in the copy: %q", names)
		}
		r, err := s.Reconcile(t.Context())
		must(t, err)
		if r.Unexplained() != 1 || r.Foreign[0] != dayDir(day) {
			t.Errorf("the copy is not noticed: %+v", r)
		}
		c, err := s.OpenRecording(other.Day, other.ID)
		must(t, err)
		must(t, c.Close())
	})
}

// TestSweepStaysInside: a symbolic link is not followed, and what is mounted is
// left, with an error; the key is gone all the same.
func TestSweepStaysInside(t *testing.T) {
	files := osFiles
	files.isMount = func(_ *os.File, name string) (bool, error) { return strings.HasSuffix(name, "/mounted"), nil }
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	today := ordinance.DayOf(time.Now())
	kept := record(t, s, call(today, 0), []byte("kept"))
	linked, mounted, replaced := today.Next(-300), today.Next(-301), today.Next(-302)
	for _, day := range []ordinance.Day{linked, mounted, replaced} {
		record(t, s, call(day, 0), []byte("due"))
	}
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("not ours"), 0o600))
	in := func(day ordinance.Day, name string) string { return filepath.Join(s.cfg.Dir, dayDir(day), name) }
	must(t, os.Symlink(filepath.Dir(outside), in(linked, "out")))
	must(t, os.Symlink("../../"+today.String(), in(linked, "recordings/day")))
	must(t, os.Mkdir(in(mounted, "mounted"), 0o700))
	must(t, os.WriteFile(in(mounted, "mounted/precious"), nil, 0o600))
	must(t, s.retire(replaced))
	must(t, os.RemoveAll(in(replaced, "")))
	must(t, os.Symlink(today.String(), in(replaced, "")))
	report, err := s.Sweep(t.Context(), time.Now())
	if err == nil || len(report.Days) != 1 || report.Days[0].Day != linked ||
		!strings.Contains(err.Error(), "something is mounted") || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("report %+v, %v", report, err)
	}
	for _, name := range []string{outside, in(mounted, "mounted/precious"), in(replaced, "")} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}
	c, err := s.OpenRecording(kept.Day, kept.ID)
	must(t, err)
	must(t, c.Close())
	for _, day := range []ordinance.Day{mounted, replaced} {
		if line, _ := s.line(day); line.State != stateDoomed {
			t.Errorf("%v is %s", day, line.State)
		}
		if _, err := s.root.Lstat(keyPath(day)); !notExist(err) {
			t.Errorf("key of %v: %v", day, err)
		}
	}
	must(t, os.RemoveAll(in(mounted, "mounted")))
	must(t, os.Remove(in(replaced, "")))
	s.files.isMount = isMount
	if _, err := s.Sweep(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	if n := len(s.LastSweep().Days); n != 3 {
		t.Errorf("%d days in the day's report", n)
	}
}

// TestSweepByTheIndexItself: what memory says is not enough.
func TestSweepByTheIndexItself(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	rec := record(t, s, call(ordinance.DayOf(time.Now()), 0), []byte("text"))
	s.mu.Lock()
	line := s.lines[rec.Day]
	line.LastDay = rec.Day.Next(-1)
	s.lines[rec.Day] = line
	s.mu.Unlock()
	if report, err := s.Sweep(t.Context(), time.Now()); err == nil || len(report.Days) > 0 {
		t.Errorf("swept what the index does not list as due: %+v, %v", report, err)
	}
	if _, err := s.Call(rec.Day, rec.ID); err != nil {
		t.Error(err)
	}
}

// TestReconcile: files against index both ways, and nothing is lost by it.
func TestReconcile(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	day := ordinance.DayOf(time.Now()).Next(-3)
	put := func() ID {
		id := NewID()
		_, err := s.PutFile(day, id, func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err })
		must(t, err)
		return id
	}
	look := func(missing, orphans int, foreign ...string) {
		t.Helper()
		r, err := s.Reconcile(t.Context())
		must(t, err)
		if r.Missing != missing || r.Orphans != orphans || fmt.Sprint(r.Foreign) != fmt.Sprint(foreign) || r.Unexplained() != missing+orphans+len(foreign) {
			t.Errorf("reconciled %+v, want %d missing, %d orphans, foreign %q", r, missing, orphans, foreign)
		}
		if kept, err := s.Reconciled(); err != nil || kept.Unexplained() != r.Unexplained() || !kept.At.Equal(r.At) {
			t.Errorf("kept %+v, %v", kept, err)
		}
	}
	old := func(name string) {
		t.Helper()
		at := time.Now().Add(-2 * orphanAge)
		must(t, os.Chtimes(filepath.Join(s.cfg.Dir, name), at, at))
	}
	good := record(t, s, call(day, 0), []byte("good"))
	old(recordingPath(day, good.ID))
	look(0, 0)
	fresh, orphan, rendering := put(), put(), put()
	j, err := s.CreateJournal(day, rendering)
	must(t, err)
	must(t, j.Close())
	old(recordingPath(day, orphan))
	old(recordingPath(day, rendering))
	broken := NewID() // the recorder's own doing, with a record of its own
	j, err = s.CreateJournal(day, broken)
	must(t, err)
	must(t, j.Close())
	must(t, s.Quarantine(day, KindJournal, broken))
	look(0, 1)
	for id, want := range map[ID]bool{fresh: true, rendering: true, good.ID: true, orphan: false} {
		_, err := s.root.Lstat(recordingPath(day, id))
		if (err == nil) != want {
			t.Errorf("%v: %v", id, err)
		}
	}
	if _, err := s.root.Lstat(dayDir(day) + "/" + quarantineDir + "/" + orphan.String() + recordingExt); err != nil {
		t.Error(err)
	}
	stray := dayDir(day) + "/" + recordingsDir + "/stray.txt"
	must(t, os.WriteFile(filepath.Join(s.cfg.Dir, stray), nil, 0o600))
	old(stray)
	must(t, os.WriteFile(filepath.Join(s.cfg.Dir, dayDir(day), "copy.db"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(s.cfg.Dir, keysDir, "2001-01-01.age"), nil, 0o600))
	look(0, 2, "keys/2001-01-01.age", dayDir(day)+"/copy.db")
	must(t, s.root.Remove(recordingPath(day, good.ID)))
	must(t, s.root.Remove(keyPath(day)))
	look(2, 2, "keys/2001-01-01.age", dayDir(day)+"/copy.db")
}

// BenchmarkSweep removes a day of 10,000 recorded calls: one operation is the
// whole sweep.
func BenchmarkSweep(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := openTest(b, Config{Dir: filepath.Join(b.TempDir(), "vault")}) // a real disk
		day := ordinance.DayOf(time.Now()).Next(-200)
		fillDay(b, s, day, 10_000)
		b.StartTimer()
		report, err := s.Sweep(b.Context(), time.Now())
		must(b, err)
		b.StopTimer()
		if report.Days[0].Recordings != 10_000 {
			b.Fatalf("report %+v", report)
		}
		closeTest(b, s)
		b.StartTimer()
	}
}
