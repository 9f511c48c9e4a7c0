package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func at(s string) time.Time {
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return v
}

// call makes an ended incoming call.
func call(began time.Time, number string) CallRecord {
	return CallRecord{
		ID: NewID(), Day: ordinance.DayOf(began), Direction: Incoming, Began: began, Ended: began.Add(time.Minute), Cause: CauseHangupCaller, Revision: 1,
		Caller:   Party{Number: ordinance.Number(number), Presentation: "allowed"},
		Segments: []Segment{{Extension: "101", From: began}}, Recording: Recording{Outcome: OutcomeNone},
	}
}

func collect(t *testing.T, seq func(func(CallRecord, error) bool)) []ID {
	t.Helper()
	var out []ID
	for rec, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec.ID)
	}
	return out
}

// TestLookUpsAgainstModel holds every look-up against a plain slice.
func TestLookUpsAgainstModel(t *testing.T) {
	s := open(t, t.TempDir())
	r := rand.New(rand.NewPCG(1, 2))
	base := at("2026-11-20T08:00:00Z")
	var all []CallRecord
	for i := range 900 {
		rec := call(base.Add(time.Duration(r.IntN(4*24*3600))*time.Second+time.Duration(i)), fmt.Sprintf("+4891000%04d", r.IntN(5)))
		rec.Segments[0].Extension = fmt.Sprint(101 + r.IntN(3))
		if i%7 == 0 {
			rec.Recording.Outcome = OutcomeFailed
		}
		all = append(all, rec)
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(all, 100) {
		wg.Go(func() {
			for _, rec := range part {
				open := rec
				open.Cause, open.Revision = "", 0
				if err := s.PutCall(open); err != nil {
					t.Error(err)
				}
				if err := s.PutCall(rec); err != nil {
					t.Error(err)
				}
				if err := s.PutCall(open); err != nil { // late: must change nothing
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b CallRecord) int { return a.Began.Compare(b.Began) })
	model := func(keep func(CallRecord) bool) (out []ID) {
		for _, rec := range all {
			if keep(rec) {
				out = append(out, rec.ID)
			}
		}
		return out
	}
	from, to := ordinance.Day{Year: 2026, Month: 11, Date: 21}, ordinance.Day{Year: 2026, Month: 11, Date: 22}
	in := func(rec CallRecord) bool { return rec.Day == from || rec.Day == to }
	for name, tc := range map[string]struct{ got, want []ID }{
		"day":       {collect(t, s.CallsByDay(from, to)), model(in)},
		"all days":  {collect(t, s.CallsByDay(ordinance.Day{}, ordinance.Day{})), model(func(CallRecord) bool { return true })},
		"number":    {collect(t, s.CallsByNumber("+48910000003", from, to)), model(func(r CallRecord) bool { return in(r) && r.Caller.Number == "+48910000003" })},
		"agent":     {collect(t, s.CallsByAgent("102", from, to)), model(func(r CallRecord) bool { return in(r) && r.Segments[0].Extension == "102" })},
		"incidents": {collect(t, s.Incidents(from, to)), model(func(r CallRecord) bool { return in(r) && r.Recording.Outcome == OutcomeFailed })},
		"prefix":    {collect(t, s.CallsByNumber("+4891000000", from, to)), nil},
	} {
		if !slices.Equal(tc.got, tc.want) {
			t.Errorf("%s: %d calls, want %d", name, len(tc.got), len(tc.want))
		}
	}
	if openCalls, err := s.OpenCalls(); err != nil || len(openCalls) != 0 {
		t.Errorf("open calls %v, %v", openCalls, err)
	}
	if rec, err := s.Find(all[500].ID); err != nil || rec.ID != all[500].ID {
		t.Errorf("find: %v, %v", rec.ID, err)
	}
	if _, err := s.Find(NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("find of a stranger: %v", err)
	}
}

// TestMoveAcrossMidnight: a recording that begins after midnight takes its call
// into the new day, whatever comes late for the old one.
func TestMoveAcrossMidnight(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	rec := call(at("2026-11-22T22:59:50Z"), "+48910000001") // 23:59:50
	rec.Cause = ""
	if err := s.PutCall(rec); err != nil {
		t.Fatal(err)
	}
	from, late := rec.Day, rec
	rec.Day, rec.Revision = rec.Day.Next(1), 2
	if err := s.MoveCall(rec, from); err != nil {
		t.Fatal(err)
	}
	if err := s.PutCall(late); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(from, rec.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the call is still on its old day: %v", err)
	}
	list, err := s.OpenCalls()
	if err != nil || len(list) != 1 || list[0].Day != rec.Day {
		t.Errorf("open calls %v, %v", list, err)
	}
	// A crash between the two writes leaves it twice; the later day wins.
	s.mu.Lock()
	s.moved = map[ID]ordinance.Day{}
	s.mu.Unlock()
	if err := s.PutCall(late); err != nil {
		t.Fatal(err)
	}
	if list, err = s.OpenCalls(); err != nil || len(list) != 1 || list[0].Day != rec.Day {
		t.Errorf("open calls after a crash %v, %v", list, err)
	}
}

func TestJournalRoundTripAndTear(t *testing.T) {
	s := open(t, t.TempDir())
	day, id := ordinance.Day{Year: 2026, Month: 11, Date: 23}, NewID()
	j, err := s.CreateJournal(day, id)
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][]byte
	for i := range 20 {
		b := bytes.Repeat([]byte{byte(i)}, 1+i*37)
		blocks = append(blocks, b)
		if err := j.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SyncJournals(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(nil); err == nil {
		t.Error("an empty block is taken")
	}
	if err := j.Append(make([]byte, MaxBlock+1)); err == nil {
		t.Error("an oversized block is taken")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := s.journalPath(day, id)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Cut anywhere: every block before the cut is read, and the tear is told.
	for cut := len(whole); cut >= 0; cut -= 1 + len(whole)/300 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		good, at := 0, 0
		for _, b := range blocks {
			if at+frameHeader+len(b) > cut {
				break
			}
			at += frameHeader + len(b)
			good++
		}
		n := 0
		var torn *TornError
		for b, err := range s.ReadJournal(day, id) {
			if err != nil {
				if !errors.As(err, &torn) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				break
			}
			if !bytes.Equal(b, blocks[n]) {
				t.Fatalf("cut at %d: block %d differs", cut, n)
			}
			n++
		}
		if n != good || (torn != nil) != (at < cut) || torn != nil && torn.Bytes != int64(cut-at) {
			t.Fatalf("cut at %d: %d blocks and %v, want %d", cut, n, torn, good)
		}
	}
}

// TestDiskFull: an append that fails leaves the journal whole, and appending
// goes on once there is room.
func TestDiskFull(t *testing.T) {
	s := open(t, t.TempDir())
	day, id := ordinance.Day{Year: 2026, Month: 11, Date: 23}, NewID()
	j, err := s.CreateJournal(day, id)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	if err := j.Append([]byte("one")); err != nil {
		t.Fatal(err)
	}
	s.files.write = func(f *os.File, b []byte) (int, error) {
		n, _ := f.Write(b[:len(b)/2])
		return n, full
	}
	for range 3 {
		if err := j.Append([]byte("lost")); !errors.Is(err, full) {
			t.Fatalf("append on a full disk: %v", err)
		}
	}
	if _, err := s.PutFile(day, id, func(w io.Writer) error { _, err := w.Write([]byte("x")); return err }); !errors.Is(err, full) {
		t.Fatalf("put on a full disk: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(s.dayDir(day), "tmp")); err != nil || len(left) != 0 {
		t.Errorf("a failed put leaves %v, %v", left, err)
	}
	s.files.write = realFiles.write
	if err := j.Append([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for b, err := range s.ReadJournal(day, id) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("journal holds %q", got)
	}
}

// record puts a call with a recording whose content is known.
func record(t *testing.T, s *Store, began time.Time, number, content string) CallRecord {
	t.Helper()
	rec := call(began, number)
	f, err := s.PutFile(rec.Day, rec.ID, func(w io.Writer) error { _, err := io.WriteString(w, content); return err })
	if err != nil {
		t.Fatal(err)
	}
	rec.Recording = Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256, Began: began}
	if err := s.CommitRecording(rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func read(s *Store, rec CallRecord) (string, error) {
	c, err := s.OpenRecording(rec.Day, rec.ID)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	return string(b), errors.Join(err, c.Close())
}

func TestVerifyFindsWhatIsWrong(t *testing.T) {
	s := open(t, t.TempDir())
	began := at("2026-11-23T09:00:00Z")
	good, altered, missing := record(t, s, began, "+48910000001", "good"), record(t, s, began.Add(1), "+48910000001", "bad"), record(t, s, began.Add(2), "+48910000001", "gone")
	stray := NewID()
	if _, err := s.PutFile(good.Day, stray, func(w io.Writer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.recordingPath(altered.Day, altered.ID), []byte("Bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.recordingPath(missing.Day, missing.ID)); err != nil {
		t.Fatal(err)
	}
	calls := 0
	report, err := s.Verify(t.Context(), func(done, total int) {
		calls++
		if total != 3 || done != calls {
			t.Errorf("progress %d of %d", done, total)
		}
	})
	if err != nil || report.Checked != 3 || !report.Complete {
		t.Fatalf("%+v, %v", report, err)
	}
	found := map[ID]string{}
	for _, f := range report.Bad {
		found[f.ID] = f.What
	}
	if len(found) != 3 || found[altered.ID] != "altered" || found[missing.ID] != "missing" || found[stray] != "no record" {
		t.Errorf("findings %v", found)
	}
}

// TestSweepTakesExactlyWhatIsDue walks nightly sweeps over the boundary days:
// everything is readable through its last day and gone after it, and nothing of
// number or audio is left in the folder.
func TestSweepTakesExactlyWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		begins := []string{
			"2026-08-27T10:00:00Z", "2026-08-28T10:00:00Z", "2026-08-29T10:00:00Z", "2026-08-30T10:00:00Z", "2026-08-31T10:00:00Z",
			"2026-10-31T10:00:00Z", "2026-12-31T22:30:00Z", "2026-12-31T23:30:00Z", "2026-09-28T10:00:00Z", "2026-10-25T00:30:00Z",
		}
		var recs []CallRecord
		for i, b := range begins {
			recs = append(recs, record(t, s, at(b), fmt.Sprintf("+4891777%04d", i), fmt.Sprintf("phrase-%04d", i)))
		}
		start := ordinance.Day{Year: 2027, Month: 2, Date: 20}
		for d := start; d.Compare(ordinance.Day{Year: 2027, Month: 7, Date: 5}) < 0; d = d.Next(1) {
			now := d.Start()
			preview, err := s.Preview(d)
			if err != nil {
				t.Fatal(err)
			}
			report, err := s.Sweep(context.Background(), now)
			if err != nil {
				t.Fatal(err)
			}
			if len(preview) != len(report.Days) {
				t.Errorf("%v: preview names %d days, the sweep took %v", d, len(preview), report.Days)
			}
			if again, err := s.Sweep(context.Background(), now); err != nil || len(again.Days) != 0 {
				t.Errorf("%v: a second sweep took %v, %v", d, again.Days, err)
			}
			for i, rec := range recs {
				content, err := read(s, rec)
				if due := ordinance.LastDay(rec.Day).Compare(d) < 0; due != errors.Is(err, ErrNotFound) || !due && content != fmt.Sprintf("phrase-%04d", i) {
					t.Fatalf("%v: item of %v (last day %v): %q, %v", d, rec.Day, ordinance.LastDay(rec.Day), content, err)
				}
			}
		}
		if days := s.Days(); len(days) != 0 {
			t.Errorf("days %v are left", days)
		}
		for _, rec := range recs {
			stones, err := s.Tombstones(rec.Day)
			if err != nil || len(stones) == 0 || !stones[0].VerifiedAbsent || stones[0].SHA256 == "" || stones[0].Kind != "recording" {
				t.Errorf("tombstones of %v: %+v, %v", rec.Day, stones, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"91777", "phrase-"} {
			if at := grep(t, dir, word); at != "" {
				t.Errorf("%q is still in %s", word, at)
			}
		}
	})
}

// grep searches every byte of a folder.
func grep(t *testing.T, dir, word string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(b, []byte(word)) || strings.Contains(path, word) {
			found = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSweepSurvivesFaultsAndCrashes fails or cuts off the n-th operation of a
// sweep, for every n; the next start finishes it, and there is one tombstone an
// item.
func TestSweepSurvivesFaultsAndCrashes(t *testing.T) {
	now := at("2027-03-01T05:00:00Z")
	for n := 0; ; n++ {
		dir := t.TempDir()
		s := open(t, dir)
		gone := record(t, s, at("2026-08-31T10:00:00Z"), "+48910000001", "old")
		kept := record(t, s, at("2026-09-01T10:00:00Z"), "+48910000001", "new")
		left := n
		fault := errors.New("injected")
		step := func() error {
			left--
			if left == -1 {
				return fault
			}
			return nil
		}
		s.files.removeAll = func(path string) error {
			if err := step(); err != nil {
				// Half of it is gone already.
				return errors.Join(err, os.Remove(filepath.Join(path, "day.db")))
			}
			return os.RemoveAll(path)
		}
		s.files.sync = func(f *os.File) error {
			if err := step(); err != nil {
				return err
			}
			return f.Sync()
		}
		_, err := s.Sweep(t.Context(), now)
		if left >= 0 {
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				t.Fatal("no operation was counted")
			}
			return
		}
		if !errors.Is(err, fault) {
			t.Fatalf("fault %d: the sweep says %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Sweep(t.Context(), now); err != nil {
			t.Fatalf("fault %d: the next sweep: %v", n, err)
		}
		if _, err := os.Lstat(again.dayDir(gone.Day)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("fault %d: the day's folder is still there", n)
		}
		if stones, err := again.Tombstones(gone.Day); err != nil || len(stones) != 1 {
			t.Errorf("fault %d: tombstones %v, %v", n, stones, err)
		}
		if content, err := read(again, kept); err != nil || content != "new" {
			t.Errorf("fault %d: what is not due reads %q, %v", n, content, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnexplainedStays: a folder that the index does not list is told, and
// never deleted.
func TestUnexplainedStays(t *testing.T) {
	s := open(t, t.TempDir())
	stray := filepath.Join(s.dir, "days", "2020-01-01")
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	report, err := s.Sweep(t.Context(), at("2027-03-01T05:00:00Z"))
	if err != nil || !slices.Equal(report.Unexplained, []string{"2020-01-01"}) {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Errorf("the stray folder: %v", err)
	}
}

func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
}

// TestManyDays opens more days than stay open, from many goroutines.
func TestManyDays(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				if err := s.PutCall(call(at("2026-01-01T12:00:00Z").AddDate(0, 0, (i*7+g)%20), "+48910000001")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(collect(t, s.CallsByDay(ordinance.Day{}, ordinance.Day{}))); n != 160 {
		t.Errorf("%d calls, want 160", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.days) > openDays {
		t.Errorf("%d days are open", len(s.days))
	}
}

// TestRunSweepsNightly: six months of Run in a bubble.
func TestRunSweepsNightly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		rec := record(t, s, began, "+48910000001", "voice")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		deadline := ordinance.Deadline(rec.Day)
		time.Sleep(time.Until(deadline) - time.Second)
		synctest.Wait()
		if content, err := read(s, rec); err != nil || content != "voice" {
			t.Errorf("in its last second: %q, %v", content, err)
		}
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		if _, err := read(s, rec); !errors.Is(err, ErrNotFound) {
			t.Errorf("three minutes after its last day: %v", err)
		}
		stop()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkPutCall(b *testing.B) {
	for _, writers := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, err := Open(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(max(1, writers/2))
			began := at("2026-11-23T09:00:00Z")
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.PutCall(call(began, "+48910000001")); err != nil {
						b.Error(err)
					}
				}
			})
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
