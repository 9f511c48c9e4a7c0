package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"centralka/ordinance"
)

// faults counts the package's file operations and does something at each.
type faults struct {
	n  int
	at func(n int) error // before the n-th operation; an error is its result
	// after, if not nil, comes after each that made, moved or removed a name.
	after func(n int)
}

func (f *faults) done() {
	if f.after != nil {
		f.after(f.n)
	}
}

func (f *faults) ops() *fileOps {
	next := func() error {
		f.n++
		return f.at(f.n)
	}
	ops := osFiles
	ops.create = func(r *os.Root, name string) (*os.File, error) {
		if err := next(); err != nil {
			return nil, err
		}
		defer f.done()
		return osFiles.create(r, name)
	}
	ops.rewrite = func(r *os.Root, name string) (*os.File, error) {
		if err := next(); err != nil {
			return nil, err
		}
		return osFiles.rewrite(r, name)
	}
	ops.write = func(file *os.File, b []byte, off int64) (int, error) {
		if err := next(); err != nil {
			n, _ := osFiles.write(file, b[:len(b)/2], off) // as a full disk does
			return n, err
		}
		return osFiles.write(file, b, off)
	}
	ops.truncate = func(file *os.File, size int64) error {
		return errors.Join(next(), osFiles.truncate(file, size))
	}
	file := func(do func(*os.File) error) func(*os.File) error {
		return func(f *os.File) error {
			if err := next(); err != nil {
				return err
			}
			return do(f)
		}
	}
	named := func(do func(*os.Root, string) error) func(*os.Root, string) error {
		return func(r *os.Root, name string) error {
			if err := next(); err != nil {
				return err
			}
			defer f.done()
			return do(r, name)
		}
	}
	ops.fsync, ops.syncfs = file(osFiles.fsync), file(func(*os.File) error { return nil })
	ops.unlink, ops.mkdir = named(osFiles.unlink), named(osFiles.mkdir)
	ops.rename = func(r *os.Root, from, to string) error {
		if err := next(); err != nil {
			return err
		}
		defer f.done()
		return osFiles.rename(r, from, to)
	}
	return &ops
}

// acked is what the vault acknowledged so far in a script.
type acked struct {
	calls      map[ID]CallRecord
	recordings map[ID][]byte
	blocks     map[ID][]string // of journals
	moved      map[ID]bool
	synced     map[ID]bool // journals of which SyncJournals was told
	doomed     bool        // Sweep returned nil
}

func newAcked() *acked {
	return &acked{map[ID]CallRecord{}, map[ID][]byte{}, map[ID][]string{}, map[ID]bool{}, map[ID]bool{}, false}
}

func (a *acked) clone() *acked {
	b := newAcked()
	for id, rec := range a.calls {
		b.calls[id] = rec
	}
	for id, content := range a.recordings {
		b.recordings[id] = content
	}
	for id, blocks := range a.blocks {
		b.blocks[id] = blocks[:len(blocks):len(blocks)]
	}
	for id := range a.moved {
		b.moved[id] = true
	}
	for id := range a.synced {
		b.synced[id] = true
	}
	b.doomed = a.doomed
	return b
}

// script uses every operation that changes the vault, on a day that is due
// and two that are not, and notes what was acknowledged. It goes on after
// errors, as the switch does.
func script(s *Store, a *acked) {
	today := ordinance.DayOf(time.Now())
	due, yesterday := today.Next(-200), today.Next(-1)
	// A recording without a journal: nothing but its own call syncs its day.
	direct, content := call(today.Next(-2), time.Hour), []byte("put at once")
	f, err := s.PutFile(direct.Day, direct.ID, func(w io.Writer) error { _, err := w.Write(content); return err })
	if err == nil {
		direct.Recording = Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256}
		if s.CommitRecording(direct) == nil {
			a.calls[direct.ID], a.recordings[direct.ID] = direct, content
		}
	}
	for i, day := range []ordinance.Day{due, yesterday} {
		plain := call(day, time.Hour)
		if s.PutCall(plain) == nil {
			a.calls[plain.ID] = plain
		}
		rec := call(day, 2*time.Hour)
		rec.Cause = ""
		if s.PutCall(rec) == nil {
			a.calls[rec.ID] = rec
		}
		j, err := s.CreateJournal(day, rec.ID)
		if err != nil {
			continue
		}
		for b := range 3 {
			block := fmt.Sprint("block ", i, b)
			if j.Append([]byte(block)) == nil {
				a.blocks[rec.ID] = append(a.blocks[rec.ID], block)
			}
		}
		if s.SyncJournals() == nil {
			a.synced[rec.ID] = true
		}
		_ = j.Close()
		content := bytes.Repeat([]byte("audio"), 1000)
		f, err := s.PutFile(day, rec.ID, func(w io.Writer) error {
			for part := range slices.Chunk(content, 2000) {
				_, _ = w.Write(part) // a renderer that overlooks errors
			}
			return nil
		})
		if err != nil {
			continue
		}
		rec.Cause, rec.Recording = CauseHangupCaller, Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256}
		if s.CommitRecording(rec) == nil {
			a.calls[rec.ID], a.recordings[rec.ID] = rec, content
			delete(a.blocks, rec.ID)
		}
	}
	late := call(yesterday, 24*time.Hour-time.Second)
	late.Cause = ""
	if s.PutCall(late) == nil {
		a.calls[late.ID] = late
		late.Day = today
		a.moved[late.ID] = true
		_ = s.MoveCall(late, yesterday)
	}
	broken := NewID()
	if j, err := s.CreateJournal(today, broken); err == nil {
		if j.Append([]byte("odd")) == nil {
			_ = j.Close()
			_ = s.Quarantine(today, KindJournal, broken)
		}
	}
	if _, err := s.Sweep(noCancel{}, time.Now()); err == nil {
		a.doomed = true
	}
}

// noCancel is a context that never ends.
type noCancel struct{}

func (noCancel) Deadline() (time.Time, bool) { return time.Time{}, false }
func (noCancel) Done() <-chan struct{}       { return nil }
func (noCancel) Err() error                  { return nil }
func (noCancel) Value(any) any               { return nil }

// sharedKey is the master key of a vault and of its copies beside it.
func sharedKey(dir string) string { return filepath.Join(filepath.Dir(dir), "master.key") }

// inspect opens a vault after a crash or an error and checks that what was
// acknowledged is there and what is destroyed is not.
func inspect(t *testing.T, what, dir string, a *acked) {
	t.Helper()
	s, err := Open(Config{Dir: dir, MasterKey: sharedKey(dir), clock: goodClock()})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer closeTest(t, s)
	check := func(ok bool, format string, args ...any) {
		if !ok {
			t.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
		}
	}
	due := ordinance.DayOf(time.Now()).Next(-200)
	line, _ := s.line(due)
	check(line.State != stateDoomed, "a removal that was begun is not finished by Open")
	check(!a.doomed || line.State == stateGone, "a swept day is back")
	report, err := s.Verify(t.Context(), nil)
	check(err == nil, "verify: %v", err)
	for _, f := range report.Findings {
		check(f.Problem == ProblemOrphan && a.recordings[f.ID] == nil, "finding %+v", f)
	}
	for id, want := range a.calls {
		if want.Day == due && line.State == stateGone {
			continue
		}
		got, err := s.Find(id)
		check(err == nil, "call %v is lost: %v", id, err)
		check(got.Day == want.Day || a.moved[id], "call %v is in %v", id, got.Day)
		check(got.Cause == want.Cause || want.Cause == "", "call %v has cause %q", id, got.Cause)
	}
	for id, want := range a.recordings {
		if rec := a.calls[id]; rec.Day != due || line.State == stateKept {
			c, err := s.OpenRecording(rec.Day, id)
			if check(err == nil, "recording %v is lost: %v", id, err); err != nil {
				continue
			}
			got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
			check(err == nil && bytes.Equal(got, want), "recording %v differs: %v", id, err)
			must(t, c.Close())
		}
	}
	for id, want := range a.blocks {
		rec, err := s.Find(id)
		if err != nil || rec.Recording.SHA256 != "" {
			continue // swept, or committed without an acknowledgement
		}
		got, _ := readAll(t, s, rec.Day, id)
		check(len(got) >= len(want), "journal %v has %d of %d blocks", id, len(got), len(want))
		for i := range min(len(got), len(want)) {
			check(string(got[i]) == want[i], "block %d of journal %v is %q", i, id, got[i])
		}
	}
	seen := map[ID]int{}
	for rec, err := range s.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
		check(err == nil, "calls: %v", err)
		seen[rec.ID]++
		check(seen[rec.ID] == 1, "call %v is there twice", rec.ID)
	}
	keys, err := s.list(keysDir)
	check(err == nil, "keys: %v", err)
	for _, e := range keys {
		day, err := ordinance.ParseDay(strings.TrimSuffix(e.Name(), ".age"))
		l, listed := s.line(day)
		check(err == nil && listed && l.State == stateKept || strings.HasSuffix(e.Name(), ".tmp"), "key %s of a day that is not kept", e.Name())
	}
	for _, l := range s.keptLines() {
		files, err := s.list(dayDir(l.Day) + "/" + tmpDir)
		check(err == nil && len(files) == 0, "temporary files of %v: %v, %v", l.Day, files, err)
	}
	exactStatistics(t, s)
	for range 2 { // the second changes nothing
		swept, err := s.Sweep(noCancel{}, time.Now())
		check(err == nil && len(swept.Unexplained) == 0, "sweep: %+v, %v", swept, err)
	}
	if line, listed := s.line(due); listed {
		check(line.State == stateGone, "due day is %s", line.State)
		_, err := os.Lstat(filepath.Join(dir, dayDir(due)))
		check(errors.Is(err, os.ErrNotExist), "due day's folder: %v", err)
		_, err = os.Lstat(filepath.Join(dir, keyPath(due)))
		check(errors.Is(err, os.ErrNotExist), "due day's key: %v", err)
		stones, err := s.Tombstones(due)
		check(err == nil, "tombstones: %v", err)
		ids := map[string]bool{}
		for _, stone := range stones {
			check(stone.Verified && !stone.Deleted.IsZero() && stone.LastDay == ordinance.LastDay(due), "tombstone %+v", stone)
			ids[stone.ID.String()+string(stone.Kind)] = true
		}
		for id, rec := range a.calls {
			if rec.Day == due {
				check(ids[id.String()+string(KindCall)] || ids[id.String()+string(KindRecording)], "call %v has no tombstone", id)
			}
		}
		swept := 0
		for _, d := range s.LastSweep().Days {
			if d.Day == due {
				swept++
			}
		}
		check(swept == 1, "the day's report names the swept day %d times", swept)
	}
}

// TestCrashAroundEveryOperation takes a copy of the vault before each file
// operation of the script and after each that changed a folder, which is what
// kill -9 there would leave, and inspects all of them.
func TestCrashAroundEveryOperation(t *testing.T) {
	base := memoryDir(t)
	dir := filepath.Join(base, "vault")
	a := newAcked()
	type moment struct {
		what, dir string
		acked     *acked
	}
	var moments []moment
	keep := func(what string) error {
		m := moment{what, filepath.Join(base, fmt.Sprint(len(moments))), a.clone()}
		moments = append(moments, m)
		return os.CopyFS(m.dir, os.DirFS(dir))
	}
	f := &faults{}
	f.at = func(n int) error { return keep(fmt.Sprint("crash before operation ", n)) }
	f.after = func(n int) { must(t, keep(fmt.Sprint("crash after operation ", n))) }
	s := openTest(t, Config{Dir: dir, MasterKey: sharedKey(dir), files: f.ops()})
	script(s, a)
	f.at, f.after = func(int) error { return nil }, nil
	closeTest(t, s)
	if len(moments) < 80 || !a.doomed || len(a.recordings) != 3 {
		t.Fatalf("%d moments, acknowledged %+v", len(moments), a)
	}
	for _, m := range moments {
		inspect(t, m.what, m.dir, m.acked)
	}
	inspect(t, "at the end", dir, a)
}

// TestErrorAtEveryOperation fails each file operation of the script, once or
// from there on, lets the script go on, and inspects the vault.
func TestErrorAtEveryOperation(t *testing.T) {
	count, base := 0, memoryDir(t)
	for fail := 1; ; fail++ {
		for _, lasting := range []bool{false, true} {
			f := &faults{}
			f.at = func(n int) error {
				if n == fail || lasting && n > fail {
					return []error{syscall.ENOSPC, syscall.EIO}[fail%2]
				}
				return nil
			}
			dir, a := filepath.Join(base, fmt.Sprint(fail, lasting)), newAcked()
			s, err := Open(Config{Dir: dir, MasterKey: sharedKey(dir), files: f.ops(), clock: goodClock()})
			if err == nil {
				script(s, a)
				must(t, s.abandon())
			}
			inspect(t, fmt.Sprintf("error at operation %d, lasting %v", fail, lasting), dir, a)
			count = f.n
		}
		if fail > count && fail > 60 {
			return
		}
	}
}
