package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// vaultWith makes a vault with one recorded call on each of days.
func vaultWith(t *testing.T, days ...ordinance.Day) (dir string, s *store.Store) {
	t.Helper()
	dir = t.TempDir()
	s, err := store.Open(store.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range days {
		rec := store.CallRecord{ID: store.NewID(), Day: d, Direction: store.Incoming, Began: d.Start().Add(10 * time.Hour), Cause: store.CauseHangupCaller}
		file, err := s.PutFile(d, rec.ID, func(w io.Writer) error {
			_, err := w.Write(make([]byte, 1_000_000))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		rec.Recording = store.Recording{Outcome: store.OutcomeOK, Began: rec.Began, Size: file.Size, SHA256: file.SHA256}
		if err := s.CommitRecording(rec); err != nil {
			t.Fatal(err)
		}
	}
	return dir, s
}

// TestCommandsReachTheVault: the same answers whether serve holds the vault or
// nobody does.
func TestCommandsReachTheVault(t *testing.T) {
	may, june := ordinance.Day{Year: 2026, Month: 5, Date: 20}, ordinance.Day{Year: 2026, Month: 6, Date: 20}
	dir, s := vaultWith(t, may, june)
	const preview = "" +
		"         day    last day  calls  recordings    size\n" +
		"  2026-05-20  2026-11-20      1           1  1.0 MB\n" +
		"      1 days                  1           1  1.0 MB\n"
	if err := s.Audit(store.AuditEvent{Action: store.ActionLogin, Outcome: store.Denied}); err != nil {
		t.Fatal(err)
	}
	head, err := s.AuditHead()
	if err != nil {
		t.Fatal(err)
	}
	whole := fmt.Sprintf("2 recordings checked, 1 entries of the audit log followed, 0 findings\naudit head %v\n", head)
	questions := func(state string) {
		t.Helper()
		if code, out, errors := call(t, "verify", "--dir", dir, "--audit-head", head.String()); code != 0 || out != whole {
			t.Errorf("%s: verify with the head: %d\n%s%s", state, code, out, errors)
		}
		other := store.AuditHead{Seq: 1, Hash: store.Digest{1}}
		if code, out, _ := call(t, "verify", "--dir", dir, "--audit-head", other.String()); code != 1 || !strings.Contains(out, "audit log: entry 1 is not the one") {
			t.Errorf("%s: verify with a head of another log: %d\n%s", state, code, out)
		}
		if code, out, errors := call(t, "retention", "preview", "--dir", dir, "--as-of", "2026-11-21"); code != 0 || out != preview {
			t.Errorf("%s: preview: %d\n%s%s\nwant\n%s", state, code, out, errors, preview)
		}
		if code, out, _ := call(t, "retention", "preview", "--dir", dir, "--as-of", "2026-11-20"); code != 0 || out != "The sweep of 2026-11-20 removes nothing.\n" {
			t.Errorf("%s: preview of the last day: %d %s", state, code, out)
		}
		if code, out, errors := call(t, "verify", "--dir", dir); code != 0 || out != whole {
			t.Errorf("%s: verify: %d\n%s%s", state, code, out, errors)
		}
	}

	// Held, and nobody to ask.
	if code, _, errors := call(t, "verify", "--dir", dir); code != 1 || !strings.Contains(errors, "in use") {
		t.Errorf("a held vault without socket: %d %s", code, errors)
	}
	// A serve that was killed has left its socket behind.
	socket := filepath.Join(dir, controlSocket)
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := listenControl(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- c.serve() }()
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v, want mode 0600", st, err)
	}
	questions("through serve")
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	questions("by itself")
}

// TestVerifyReportsWhatIsWrong: a changed recording is named and ends the
// command with 1, through serve and without.
func TestVerifyReportsWhatIsWrong(t *testing.T) {
	dir, s := vaultWith(t, ordinance.Day{Year: 2026, Month: 6, Date: 20})
	var damaged string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".wav.age") {
			damaged = path
		}
		return err
	})
	if err != nil || damaged == "" {
		t.Fatalf("no recording found: %v", err)
	}
	f, err := os.OpenFile(damaged, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	was := make([]byte, 1)
	if _, err := f.ReadAt(was, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{was[0] ^ 1}, 1000); err != nil { // a fixed byte would be the sealed one now and then
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := listenControl(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go c.serve() // its result is looked at in the test above
	id := strings.TrimSuffix(filepath.Base(damaged), ".wav.age")
	want := func(state string) {
		t.Helper()
		code, out, errors := call(t, "verify", "--dir", dir)
		if code != 1 || !strings.Contains(out, "2026-06-20 "+id) || !strings.Contains(out, "1 recordings checked, 0 entries of the audit log followed, 1 findings") {
			t.Errorf("%s: %d\n%s%s", state, code, out, errors)
		}
	}
	want("through serve")
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want("by itself")
}

func TestListenControlSaysWhatIsWrong(t *testing.T) {
	_, err := listenControl(filepath.Join(t.TempDir(), strings.Repeat("long", 40)), nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "control socket") {
		t.Errorf("%v", err)
	}
}

// TestProgress: a line now and then where there is no terminal, a bar that goes
// away on one.
func TestProgress(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	p.show(1, 10) // too soon
	p.last = p.last.Add(-time.Minute)
	p.show(5, 10)
	p.end()
	if b.String() != "5 of 10 (50 %)\n" {
		t.Errorf("log: %q", b.String())
	}
	b.Reset()
	p.terminal, p.last = true, time.Time{}
	p.show(5, 10)
	p.end()
	if want := fmt.Sprintf("\r[%s%s] 5 of 10 (50 %%)\r\033[K", strings.Repeat("#", 15), strings.Repeat(".", 15)); b.String() != want {
		t.Errorf("terminal: %q", b.String())
	}
}

// TestConfirmReachesTheVault: a sweep that is held goes on when an administrator
// confirms through the running serve; there is nothing to confirm if none is
// held.
func TestConfirmReachesTheVault(t *testing.T) {
	dir, s := vaultWith(t, ordinance.DayOf(time.Now()).Next(-300))
	c, err := listenControl(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- c.serve() }()
	held := s.SweepHeld() // a machine of tests may be synchronised or not
	code, out, errors := call(t, "retention", "confirm", "--dir", dir, "--reason", "compared with the clock of the town hall")
	if held == "" && (code != 1 || !strings.Contains(errors, "no sweep is held")) {
		t.Errorf("nothing is held: %d %s%s", code, out, errors)
	}
	if held != "" && (code != 0 || !strings.Contains(out, "Confirmed by ") || !strings.Contains(out, held)) {
		t.Errorf("%s: %d %s%s", held, code, out, errors)
	}
	if held := s.SweepHeld(); held != "" {
		t.Errorf("still held: %s", held)
	}
	if report, err := s.Sweep(t.Context(), time.Now()); err != nil || len(report.Days) != 1 {
		t.Errorf("sweep: %+v, %v", report, err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
