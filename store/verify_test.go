package store

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestVerifyFindsEveryProblem(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	put := func(text string) CallRecord { return record(t, s, call(day1, time.Hour), []byte(text)) }
	good, flipped, cut, missing := put("good"), put("flipped"), put("cut short"), put("missing")
	other, longer := put("another"), put("longer")
	want := map[ID]Problem{
		flipped.ID: ProblemUnreadable, cut.ID: ProblemUnreadable, missing.ID: ProblemMissing,
		other.ID: ProblemMismatch, longer.ID: ProblemMismatch,
	}
	at := func(rec CallRecord) string { return filepath.Join(s.cfg.Dir, recordingPath(rec.Day, rec.ID)) }
	sealed, err := os.ReadFile(at(flipped))
	must(t, err)
	sealed[len(sealed)-1] ^= 1
	must(t, os.WriteFile(at(flipped), sealed, 0o600))
	must(t, os.Truncate(at(cut), int64(len(sealed))-3))
	for rec, text := range map[ID]string{other.ID: "anothes", longer.ID: "longer than it was"} { // sealed as it should be
		_, err := s.PutFile(day1, rec, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
		must(t, err)
	}
	must(t, os.Remove(at(missing)))
	write := func(w io.Writer) error { _, err := w.Write([]byte("x")); return err }
	orphan := NewID()
	_, err = s.PutFile(day1.Next(1), orphan, write)
	must(t, err)
	want[orphan] = ProblemOrphan
	rendering := NewID() // has its journal still: not an orphan
	j, err := s.CreateJournal(day1, rendering)
	must(t, err)
	must(t, j.Close())
	_, err = s.PutFile(day1, rendering, write)
	must(t, err)

	done, total := 0, 0
	report, err := s.Verify(t.Context(), func(d, n int) { done, total = d, n })
	must(t, err)
	if done != 6 || total != 6 || report.Recordings != 6 || report.Days != 2 {
		t.Errorf("%d of %d, report %+v", done, total, report)
	}
	if len(report.Findings) != len(want) {
		t.Errorf("findings %+v", report.Findings)
	}
	for _, f := range report.Findings {
		if want[f.ID] != f.Problem {
			t.Errorf("finding %+v, want %v", f, want[f.ID])
		}
	}
	checks, err := s.Integrity()
	must(t, err)
	if len(checks) != 2 || len(checks[0].Findings) != 5 || checks[0].Day != good.Day || len(checks[1].Findings) != 1 {
		t.Errorf("kept results %+v", checks)
	}
	must(t, s.Quarantine(day1.Next(1), KindRecording, orphan))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Verify: %v", err)
	}
}
