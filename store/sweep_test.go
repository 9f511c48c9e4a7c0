package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

// TestSweepOfEveryVector keeps a call of each row of the table of Zarz. 284/17
// §6 to the last second of its last day and removes it in the next.
func TestSweepOfEveryVector(t *testing.T) {
	for _, v := range []struct{ created, last, gone string }{
		{"2017-06-27T08:15:00Z", "2017-12-27", "2017-12-27T23:00:00Z"},
		{"2026-08-28T10:00:00Z", "2027-02-28", "2027-02-28T23:00:00Z"},
		{"2026-08-31T10:00:00Z", "2027-02-28", "2027-02-28T23:00:00Z"},
		{"2027-08-31T10:00:00Z", "2028-02-29", "2028-02-29T23:00:00Z"},
		{"2026-10-31T10:00:00Z", "2027-04-30", "2027-04-30T22:00:00Z"},
		{"2026-12-31T22:30:00Z", "2027-06-30", "2027-06-30T22:00:00Z"},
		{"2026-12-31T23:30:00Z", "2027-07-01", "2027-07-01T22:00:00Z"},
		{"2026-06-30T22:30:00Z", "2027-01-01", "2027-01-01T23:00:00Z"},
		{"2026-04-25T10:00:00Z", "2026-10-25", "2026-10-25T23:00:00Z"},
		{"2026-09-28T10:00:00Z", "2027-03-28", "2027-03-28T22:00:00Z"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := openTest(t, Config{})
			defer closeTest(t, s)
			until(t, v.created)
			rec := call(ordinance.DayOf(time.Now()), 0)
			rec.Began = time.Now()
			rec = record(t, s, rec, []byte("until the last day"))
			gone := at(t, v.gone)

			time.Sleep(time.Until(gone.Add(-time.Second)))
			report, err := s.Sweep(t.Context(), time.Now())
			must(t, err)
			if len(report.Days) != 0 {
				t.Fatalf("created %s: swept before the end of its last day", v.created)
			}
			if days, err := s.Preview(ordinance.DayOf(time.Now())); err != nil || len(days) != 0 {
				t.Errorf("preview of its last day: %+v, %v", days, err)
			}
			if days, err := s.Preview(ordinance.DayOf(gone)); err != nil || len(days) != 1 || days[0].LastDay.String() != v.last || days[0].Recordings != 1 {
				t.Errorf("preview of the next day: %+v, %v", days, err)
			}
			if _, err := s.Sweep(t.Context(), gone); err == nil {
				t.Error("a sweep for tomorrow was made today")
			}
			c, err := s.OpenRecording(rec.Day, rec.ID)
			must(t, err)

			time.Sleep(time.Second)
			report, err = s.Sweep(t.Context(), time.Now())
			must(t, err)
			if len(report.Days) != 1 || report.Days[0].Day != rec.Day || report.Days[0].Calls != 1 || report.Days[0].Bytes != 18 {
				t.Fatalf("created %s: report %+v", v.created, report)
			}
			if _, err := c.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrGone) {
				t.Errorf("playback open at the end of the term: %v", err)
			}
			must(t, c.Close())
			expectGone(t, s, rec)
			stones, err := s.Tombstones(rec.Day)
			must(t, err)
			want := Tombstone{
				ID: rec.ID, Kind: KindRecording, Created: rec.Day, LastDay: ordinance.LastDay(rec.Day), Deleted: gone.UTC(),
				Size: 18, SHA256: rec.Recording.SHA256, Job: report.Job, Verified: true,
			}
			if len(stones) != 1 || stones[0] != want {
				t.Errorf("tombstones %+v\nwant %+v", stones, want)
			}
		})
	}
}

func expectGone(t testing.TB, s *Store, rec CallRecord) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(s.cfg.Dir, dayDir(rec.Day))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder of %v: %v", rec.Day, err)
	}
	if _, err := os.Lstat(filepath.Join(s.cfg.Dir, keyPath(rec.Day))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("key of %v: %v", rec.Day, err)
	}
	if _, err := s.Call(rec.Day, rec.ID); !errors.Is(err, ErrGone) {
		t.Errorf("call of %v: %v", rec.Day, err)
	}
	if _, err := s.Find(rec.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("find call of %v: %v", rec.Day, err)
	}
	if _, err := s.OpenRecording(rec.Day, rec.ID); !errors.Is(err, ErrGone) {
		t.Errorf("recording of %v: %v", rec.Day, err)
	}
	if err := s.PutCall(rec); !errors.Is(err, ErrGone) {
		t.Errorf("put into a swept day: %v", err)
	}
}

func at(t testing.TB, instant string) time.Time {
	t.Helper()
	x, err := time.Parse(time.RFC3339, instant)
	must(t, err)
	return x
}

func until(t testing.TB, instant string) {
	t.Helper()
	time.Sleep(time.Until(at(t, instant)))
}

// TestHalfAYearOfNights runs the vault through seven months with two calls a
// day and asks each noon: is all there that must be, and nothing else?
func TestHalfAYearOfNights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until(t, "2026-07-20T10:00:00Z")
		s := openTest(t, Config{Heartbeat: 12 * time.Hour, OpenDays: 250})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		start := func() { go func() { done <- s.Run(ctx) }() }
		start()
		first := ordinance.DayOf(time.Now())
		var calls []CallRecord
		for day := first; day.Compare(first.Next(212)) < 0; day = day.Next(1) {
			noon := day.Start().Add(12 * time.Hour)
			time.Sleep(time.Until(noon))
			synctest.Wait()
			if day.Date%10 == 1 { // anything from every day to none
				calls = append(calls, record(t, s, call(day, 11*time.Hour), []byte(day.String())))
			}
			if day.Date%3 == 0 {
				rec := call(day, 11*time.Hour)
				must(t, s.PutCall(rec))
				calls = append(calls, rec)
			}
			if day.Date == 15 { // off over three nights: caught up at the next start
				cancel()
				must(t, <-done)
				closeTest(t, s)
				time.Sleep(3 * 24 * time.Hour)
				s = openTest(t, Config{Dir: s.cfg.Dir, Heartbeat: 12 * time.Hour, OpenDays: 250})
				ctx, cancel = context.WithCancel(t.Context())
				start()
				synctest.Wait()
				day = day.Next(3)
			}
			if want := ordinance.DayOf(time.Now()).Next(1).Start().Add(sweepDelay); !s.NextSweep().Equal(want) {
				t.Fatalf("next sweep is %v, want %v", s.NextSweep(), want)
			}
			for len(calls) > 0 && ordinance.LastDay(calls[0].Day).Compare(day) < 0 {
				expectGone(t, s, calls[0])
				if stones, err := s.Tombstones(calls[0].Day); err != nil || len(stones) == 0 || !stones[0].Verified {
					t.Errorf("tombstones of %v: %+v, %v", calls[0].Day, stones, err)
				}
				calls = calls[1:]
			}
			if day.Date%7 == 0 {
				kept := collect(t, s.CallsByDay(ordinance.Day{}, ordinance.Day{}))
				if len(kept) != len(calls) || kept[0].Day != calls[0].Day {
					t.Fatalf("%v: %d calls are kept, want %d", day, len(kept), len(calls))
				}
			}
		}
		if first := calls[0].Day; ordinance.LastDay(first).Compare(s.LastSweep().Cutoff) < 0 {
			t.Errorf("last sweep is of %v", s.LastSweep().Cutoff)
		}
		checks, err := s.Integrity()
		must(t, err)
		checked := 0
		for _, c := range checks {
			checked += c.Recordings
			if len(c.Findings) > 0 || ordinance.DayOf(time.Now()).Start().Sub(c.Checked) > 11*24*time.Hour {
				t.Errorf("check %+v", c)
			}
		}
		if checked == 0 {
			t.Error("no recording was ever checked at night")
		}
		cancel()
		must(t, <-done)
		closeTest(t, s)
	})
}

// TestUnexplainedIsNeverRemoved: the sweep deletes what its index lists.
func TestUnexplainedIsNeverRemoved(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	old := ordinance.DayOf(time.Now()).Next(-300)
	rec := record(t, s, call(old, 0), []byte("x"))
	for _, name := range []string{"2001-01-01", "lost+found"} {
		must(t, os.MkdirAll(filepath.Join(s.cfg.Dir, daysDir, name, "recordings"), 0o700))
	}
	report, err := s.Sweep(t.Context(), time.Now())
	must(t, err)
	expectGone(t, s, rec)
	if fmt.Sprint(report.Unexplained) != "[2001-01-01 lost+found]" {
		t.Errorf("unexplained: %v", report.Unexplained)
	}
	// A swept day that comes back, say from a backup, is not explained either.
	must(t, os.Mkdir(filepath.Join(s.cfg.Dir, dayDir(old)), 0o700))
	report, err = s.Sweep(t.Context(), time.Now())
	must(t, err)
	if len(report.Unexplained) != 3 || len(report.Days) != 0 {
		t.Errorf("report %+v", report)
	}
	if last := s.LastSweep(); len(last.Days) != 1 || last.Job != report.Job {
		t.Errorf("the day's report %+v", last)
	}
	for _, name := range report.Unexplained {
		if _, err := os.Stat(filepath.Join(s.cfg.Dir, daysDir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestSweepOfADayInUse: open journals, open calls and recordings in the making
// neither hold up the sweep nor survive it.
func TestSweepOfADayInUse(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	rec := call(ordinance.DayOf(time.Now()).Next(-300), 0)
	rec.Cause = ""
	must(t, s.PutCall(rec))
	j, err := s.CreateJournal(rec.Day, rec.ID)
	must(t, err)
	must(t, j.Append([]byte("x")))
	_, err = s.PutFile(rec.Day, rec.ID, func(io.Writer) error {
		_, err := s.Sweep(t.Context(), time.Now())
		return err
	})
	if !errors.Is(err, ErrGone) {
		t.Errorf("PutFile across a sweep: %v", err)
	}
	expectGone(t, s, rec)
	if j.Append([]byte("y")) == nil {
		t.Error("journal of a swept day takes blocks")
	}
	if _, err := s.CreateJournal(rec.Day, NewID()); !errors.Is(err, ErrGone) {
		t.Errorf("new journal of a swept day: %v", err)
	}
	stones, err := s.Tombstones(rec.Day)
	must(t, err)
	kinds := map[Kind]int{}
	for _, stone := range stones {
		kinds[stone.Kind]++
	}
	if kinds[KindCall] != 1 || kinds[KindJournal] != 1 || kinds[KindOther] != 1 || len(stones) != 3 {
		t.Errorf("tombstones %+v", stones)
	}
}

// TestDamagedDayIsSweptAllTheSame: the law does not wait for a database that
// can be read.
func TestDamagedDayIsSweptAllTheSame(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, db string){
		"cut":       func(t *testing.T, db string) { must(t, os.Truncate(db, 2*4096)) },
		"empty":     func(t *testing.T, db string) { must(t, os.Truncate(db, 0)) },
		"no header": func(t *testing.T, db string) { overwrite(t, db, 0, 2*4096) },
		"no pages":  func(t *testing.T, db string) { overwrite(t, db, 2*4096, 1<<20) },
		"absent":    func(t *testing.T, db string) { must(t, os.Remove(db)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, Config{})
			rec := record(t, s, call(ordinance.DayOf(time.Now()).Next(-300), 0), []byte("text"))
			db := filepath.Join(s.cfg.Dir, dayDir(rec.Day), "day.db")
			must(t, s.retire(rec.Day))
			damage(t, db)
			if _, err := s.Sweep(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			expectGone(t, s, rec)
			stones, err := s.Tombstones(rec.Day)
			must(t, err)
			if len(stones) != 1 || stones[0].ID != rec.ID || stones[0].Size != 4 || !stones[0].Verified {
				t.Errorf("tombstones %+v", stones)
			}
			closeTest(t, s)
		})
	}
}

func overwrite(t *testing.T, name string, from, to int64) {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(t, err)
	garbage := make([]byte, min(to, info.Size())-from)
	for i := range garbage {
		garbage[i] = 0xA5
	}
	_, err = f.WriteAt(garbage, from)
	must(t, errors.Join(err, f.Close()))
}

// TestIndexAgainstTheOrdinance: a line that is not what the rule says stops
// the sweep of its day.
func TestIndexAgainstTheOrdinance(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	rec := record(t, s, call(ordinance.DayOf(time.Now()).Next(-20), 0), []byte("text"))
	must(t, s.changeLine(rec.Day, func(l *retentionLine) { l.LastDay = rec.Day }))
	report, err := s.Sweep(t.Context(), time.Now())
	if err == nil || len(report.Days) != 0 || s.LastSweep().Err == "" {
		t.Errorf("swept by a wrong index: %+v, %v", report, err)
	}
	if _, err := s.Find(rec.ID); err != nil {
		t.Error(err)
	}
}

// TestFullDiskDeletesNothing: with a disk that takes not one byte more, nights
// go by and everything that is in its term stays and reads at once (S6-b).
func TestFullDiskDeletesNothing(t *testing.T) {
	files, full, unlinked := osFiles, false, 0
	files.write = func(f *os.File, b []byte, off int64) (int, error) {
		if full {
			return 0, syscall.ENOSPC
		}
		return f.WriteAt(b, off)
	}
	files.unlink = func(root *os.Root, name string) error {
		unlinked++
		return root.Remove(name)
	}
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	today := ordinance.DayOf(time.Now())
	rec := CallRecord{ID: NewID(), Day: today, Began: today.Start().UTC(), Direction: Incoming, Cause: CauseHangupCaller}
	voice := []byte("a voice on its first day")
	rec = record(t, s, rec, voice)
	full, unlinked = true, 0
	if _, err := s.PutFile(today, NewID(), func(w io.Writer) error { _, err := w.Write(voice); return err }); err == nil {
		t.Fatal("the disk is not full")
	}
	unlinked = 0 // the file that did not fit
	for range 3 {
		if report, err := s.Sweep(t.Context(), time.Now()); err != nil || len(report.Days) != 0 {
			t.Errorf("sweep on a full disk: %+v, %v", report, err)
		}
	}
	c, err := s.OpenRecording(today, rec.ID)
	must(t, err)
	got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	must(t, errors.Join(err, c.Close()))
	if string(got) != string(voice) || unlinked != 0 {
		t.Errorf("read %q; %d files were removed", got, unlinked)
	}
}
