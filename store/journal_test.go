package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"centralka/ordinance"
)

func readAll(t testing.TB, s *Store, day ordinance.Day, id ID) (blocks [][]byte, torn int64) {
	t.Helper()
	for block, err := range s.ReadJournal(day, id) {
		if e, ok := errors.AsType[*TornError](err); ok {
			return blocks, e.Bytes
		}
		must(t, err)
		blocks = append(blocks, bytes.Clone(block))
	}
	return blocks, 0
}

func sameBlocks(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, []byte("|")), bytes.Join(b, []byte("|"))) && len(a) == len(b)
}

func TestJournalKeepsBlocks(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	id := NewID()
	j, err := s.CreateJournal(day1, id)
	must(t, err)
	if _, err := s.CreateJournal(day1, id); !errors.Is(err, os.ErrExist) {
		t.Errorf("second journal of a call: %v", err)
	}
	var want [][]byte
	for _, n := range []int{1, 4000, MaxBlock, 3} {
		block := make([]byte, n)
		block[0] = byte(n)
		must(t, j.Append(block))
		want = append(want, block)
	}
	for _, n := range []int{0, MaxBlock + 1} {
		if j.Append(make([]byte, n)) == nil {
			t.Errorf("Append accepted %d bytes", n)
		}
	}
	if got, torn := readAll(t, s, day1, id); !sameBlocks(got, want) || torn != 0 {
		t.Errorf("while open: %d blocks, %d bytes torn", len(got), torn)
	}
	refs, err := s.Journals()
	must(t, err)
	if len(refs) != 1 || refs[0].ID != id || refs[0].Day != day1 || !refs[0].Open || refs[0].Size < MaxBlock {
		t.Errorf("journals: %+v", refs)
	}
	if s.DropJournal(day1, id) == nil || s.Quarantine(day1, KindJournal, id) == nil {
		t.Error("an open journal was taken away")
	}
	must(t, s.SyncJournals())
	must(t, j.Close())
	must(t, j.Close())
	if err := j.Append([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	must(t, s.Quarantine(day1, KindJournal, id))
	if refs, err := s.Journals(); err != nil || len(refs) != 0 {
		t.Errorf("journals after quarantine: %+v, %v", refs, err)
	}
	for _, err := range s.ReadJournal(day1, id) {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("read of no journal: %v", err)
		}
	}
	must(t, s.DropJournal(day1, id)) // as good as gone
	rec := call(day1, 0)
	rec.ID, rec.Cause = id, ""
	must(t, s.PutCall(rec))
	if s.DropJournal(day1, id) == nil {
		t.Error("journal of an open call was dropped")
	}
}

// sealTest is the seal of one and the same journal, at its beginning.
func sealTest(t testing.TB) *frameSeal {
	t.Helper()
	seal, err := newFrameSeal(make([]byte, 16), make([]byte, journalSalt))
	must(t, err)
	return seal
}

// TestTornJournalKeepsWholeBlocks cuts a journal at every length.
func TestTornJournalKeepsWholeBlocks(t *testing.T) {
	var file []byte
	var ends []int
	seal := sealTest(t)
	for i, n := range []int{5, 30, 1} {
		block := make([]byte, n)
		block[0] = byte(i)
		frame, err := seal.seal(nil, block)
		must(t, err)
		seal.next()
		file = append(file, frame...)
		ends = append(ends, len(file))
	}
	for cut := range len(file) + 1 {
		whole, good := 0, 0
		for _, end := range ends {
			if end <= cut {
				whole, good = whole+1, end
			}
		}
		for _, tail := range [][]byte{nil, make([]byte, 20)} { // zeros, as file systems leave them
			content := append(bytes.Clone(file[:cut]), tail...)
			n, torn := 0, int64(0)
			for block, err := range frames(bytes.NewReader(content), int64(len(content)), sealTest(t)) {
				if e, ok := errors.AsType[*TornError](err); ok {
					torn = e.Bytes
				} else if err != nil || int(block[0]) != n {
					t.Fatalf("cut at %d: block %d is %v, %v", cut, n, block, err)
				} else {
					n++
				}
			}
			if cut < len(file) && len(tail) > 0 && n > whole && bytes.Equal(file[cut:ends[whole]], tail[:ends[whole]-cut]) {
				continue // the cut-off bytes were zeros themselves
			}
			if n != whole || torn != int64(len(content)-good) {
				t.Errorf("cut at %d with %d zeros: %d blocks, %d torn; want %d, %d", cut, len(tail), n, torn, whole, len(content)-good)
			}
		}
	}
}

// TestJournalGoesOnAfterFullDisk lets writes fail at random, with any part of
// the frame written and sometimes without the means to cut it off.
func TestJournalGoesOnAfterFullDisk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	files := osFiles
	full := false
	files.write = func(f *os.File, b []byte, off int64) (int, error) {
		if !full {
			return f.WriteAt(b, off)
		}
		n, err := f.WriteAt(b[:r.IntN(len(b))], off)
		if r.IntN(2) == 0 {
			return n, err // short, without a reason
		}
		return n, syscall.ENOSPC
	}
	files.truncate = func(f *os.File, size int64) error {
		if full && r.IntN(2) == 0 {
			return syscall.EIO
		}
		return f.Truncate(size)
	}
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	id := NewID()
	j, err := s.CreateJournal(day1, id)
	must(t, err)
	var want [][]byte
	for range 200 {
		full = r.IntN(3) == 0
		block := make([]byte, 1+r.IntN(300))
		for i := range block {
			block[i] = byte(r.Uint32())
		}
		if err := j.Append(block); (err != nil) != full {
			t.Fatalf("Append with a full disk %v: %v", full, err)
		}
		if !full {
			want = append(want, block)
		}
		if got, _ := readAll(t, s, day1, id); !sameBlocks(got, want) {
			t.Fatalf("%d blocks, want %d", len(got), len(want))
		}
	}
	full = false
	must(t, j.Append([]byte("last")))
	if got, torn := readAll(t, s, day1, id); len(got) != len(want)+1 || torn != 0 {
		t.Errorf("%d blocks, %d bytes torn", len(got), torn)
	}
	must(t, j.Close())
}

func TestSyncJournalsOncePerCall(t *testing.T) {
	files, syncs := osFiles, 0
	fail := false
	files.syncfs = func(f *os.File) error {
		syncs++
		if fail {
			return syscall.EIO
		}
		return nil
	}
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	must(t, s.SyncJournals())
	var journals []*Journal
	for range 3 {
		j, err := s.CreateJournal(day1, NewID())
		must(t, err)
		journals = append(journals, j)
	}
	must(t, s.SyncJournals())
	must(t, s.SyncJournals()) // nothing new
	for _, j := range journals {
		must(t, j.Append([]byte("x")))
	}
	fail = true
	if s.SyncJournals() == nil {
		t.Error("a failed sync went unnoticed")
	}
	fail = false
	must(t, journals[0].Close())
	must(t, s.SyncJournals()) // what the failed one owes
	if syncedAsAWhole && syncs != 3 {
		t.Errorf("%d syncs, want 3", syncs)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Add(make([]byte, 64))
	f.Add([]byte("\x05\x00\x00\x00....hello"))
	f.Fuzz(func(t *testing.T, content []byte) {
		// Sealed anew, whatever the fuzzer makes begins as a journal.
		seal := sealTest(t)
		for at := 0; at+frameHeader < len(content); {
			n := int(content[at])
			end := at + frameHeader + n + frameTag
			if n == 0 || end > len(content) {
				break
			}
			frame, err := seal.seal(nil, content[at+frameHeader:end-frameTag])
			must(t, err)
			seal.next()
			copy(content[at:end], frame)
			at = end
		}
		used, torn := int64(0), int64(0)
		for block, err := range frames(bytes.NewReader(content), int64(len(content)), sealTest(t)) {
			if torn != 0 {
				t.Fatal("something follows the torn end")
			}
			if e, ok := errors.AsType[*TornError](err); ok {
				torn = e.Bytes
				continue
			}
			if err != nil || len(block) == 0 || len(block) > MaxBlock {
				t.Fatalf("block of %d bytes, %v", len(block), err)
			}
			used += int64(frameHeader + len(block) + frameTag)
		}
		if used+torn != int64(len(content)) {
			t.Fatalf("%d bytes in blocks, %d torn, of %d", used, torn, len(content))
		}
	})
}

func TestPutFileIsWholeOrAbsent(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	id, broken := NewID(), errors.New("broken renderer")
	_, err := s.PutFile(day1, id, func(w io.Writer) error {
		if _, err := w.Write([]byte("half of it")); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("PutFile: %v", err)
	}
	if _, err := s.OpenRecording(day1, id); !errors.Is(err, ErrNotFound) {
		t.Errorf("recording of a broken renderer: %v", err)
	}
	for _, text := range []string{"first", "second and longer"} {
		f, err := s.PutFile(day1, id, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
		must(t, err)
		c, err := s.OpenRecording(day1, id)
		must(t, err)
		got := make([]byte, c.Size())
		_, err = c.ReadAt(got, 0)
		must(t, err)
		must(t, c.Close())
		if string(got) != text || f.Size != int64(len(text)) || len(f.SHA256) != 64 {
			t.Errorf("%q, %+v; want %q", got, f, text)
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, dayDir(day1), tmpDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("temporary files: %v, %v", entries, err)
	}
}

func TestCommitNeedsFileAndClosedJournal(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	rec := call(day1, 0)
	must(t, s.PutCall(rec))
	j, err := s.CreateJournal(day1, rec.ID)
	must(t, err)
	must(t, j.Append([]byte("x")))
	rec.Recording = Recording{Outcome: OutcomeOK, Size: 4, SHA256: "ab"}
	if s.CommitRecording(rec) == nil {
		t.Error("committed while the journal was being written")
	}
	must(t, j.Close())
	if s.CommitRecording(rec) == nil {
		t.Error("committed without a file")
	}
	f, err := s.PutFile(day1, rec.ID, func(w io.Writer) error { _, err := w.Write([]byte("RIFF!")); return err })
	must(t, err)
	if s.CommitRecording(rec) == nil {
		t.Error("committed with a file of another size")
	}
	failed := rec
	failed.Recording = Recording{Outcome: OutcomeFailed, Reason: "disk"}
	must(t, s.CommitRecording(failed))
	if blocks, _ := readAll(t, s, day1, rec.ID); len(blocks) != 1 {
		t.Error("a failed outcome took the journal away")
	}
	rec.Recording.Size, rec.Recording.SHA256 = f.Size, f.SHA256
	for range 2 {
		must(t, s.CommitRecording(rec))
		if refs, err := s.Journals(); err != nil || len(refs) != 0 {
			t.Errorf("journals after commit: %v, %v", refs, err)
		}
	}
	if s.Quarantine(day1, KindRecording, rec.ID) == nil {
		t.Error("a committed recording was put into quarantine")
	}
}
