package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// found lists the files under dir that hold any of the texts.
func found(t testing.TB, dir string, texts ...[]byte) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		for _, text := range texts {
			if bytes.Contains(content, text) || strings.Contains(name, string(text)) {
				names = append(names, fmt.Sprintf("%q in %s", text, name))
			}
		}
		return err
	}))
	return names
}

// TestNoPlaintextOnDisk looks into every byte of the vault while a journal is
// written, while a recording is made of it, and afterwards.
func TestNoPlaintextOnDisk(t *testing.T) {
	s := openTest(t, Config{})
	rec := call(day1, time.Hour)
	said := []byte("what was said on the telephone")
	look := func(when string) {
		t.Helper()
		if names := found(t, s.cfg.Dir, said, said[:16]); len(names) > 0 {
			t.Errorf("%s: %q", when, names)
		}
	}
	j, err := s.CreateJournal(day1, rec.ID)
	must(t, err)
	for range 10 {
		must(t, j.Append(said))
	}
	look("journal")
	must(t, j.Close())
	audio := bytes.Repeat(said, 100_000/len(said))
	file, err := s.PutFile(day1, rec.ID, func(w io.Writer) error {
		for part := range slices.Chunk(audio, 1000) {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		look("in the making")
		return nil
	})
	must(t, err)
	look("put")
	rec.Recording = Recording{Outcome: OutcomeOK, Size: file.Size, SHA256: file.SHA256}
	must(t, s.CommitRecording(rec))
	broken := NewID()
	j, err = s.CreateJournal(day1, broken)
	must(t, err)
	must(t, errors.Join(j.Append(said), j.Close(), s.Quarantine(day1, KindJournal, broken)))
	look("committed")
	c, err := s.OpenRecording(day1, rec.ID)
	must(t, err)
	if c.Size() != int64(len(audio)) || file.Size != c.Size() {
		t.Errorf("size %d, %d, want %d", c.Size(), file.Size, len(audio))
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 { // a player jumps about, across the edges of what is sealed together
		off, n := r.Int64N(c.Size()), r.IntN(9000)
		got := make([]byte, n)
		n, err := c.ReadAt(got, off)
		want := audio[off:min(off+int64(len(got)), c.Size())]
		if !bytes.Equal(got[:n], want) || (err == io.EOF) != (n < len(got)) {
			t.Fatalf("%d bytes at %d: %d, %v", len(got), off, n, err)
		}
	}
	if n, err := c.ReadAt(make([]byte, 1), c.Size()+1); n != 0 || err != io.EOF {
		t.Errorf("read behind the end: %d, %v", n, err)
	}
	must(t, c.Close())
	closeTest(t, s)
	look("closed")
}

// frameOffsets are the places at which the frames of a journal begin.
func frameOffsets(t *testing.T, file []byte, s *Store) (offsets []int) {
	t.Helper()
	key, err := s.dayKey(day1)
	must(t, err)
	_, begin, err := openJournalSeal(bytes.NewReader(file), key)
	must(t, err)
	for at := int(begin); at < len(file); at += frameHeader + frameTag + int(binary.LittleEndian.Uint32(file[at:])) {
		offsets = append(offsets, at)
	}
	return offsets
}

// TestFramesKeepTheirPlace: a frame that was moved, doubled, left out, changed
// or brought from another journal does not open, and what stood before does.
func TestFramesKeepTheirPlace(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	var files [2][]byte
	var ids [2]ID
	for i := range files {
		ids[i] = NewID()
		j, err := s.CreateJournal(day1, ids[i])
		must(t, err)
		for b := range 4 {
			must(t, j.Append([]byte(fmt.Sprint("block ", b))))
		}
		must(t, j.Close())
		files[i], err = os.ReadFile(filepath.Join(s.cfg.Dir, journalPath(day1, ids[i])))
		must(t, err)
	}
	at := frameOffsets(t, files[0], s)
	n := at[1] - at[0]
	frame := func(file, i int) []byte { return files[file][at[0]+i*n : at[0]+(i+1)*n] }
	head := files[0][:at[0]]
	flip := func(i int, bit byte) []byte {
		b := bytes.Clone(frame(0, 1))
		b[i] ^= bit
		return b
	}
	for name, c := range map[string]struct {
		want   int
		frames [][]byte
	}{
		"as written":       {4, [][]byte{frame(0, 0), frame(0, 1), frame(0, 2), frame(0, 3)}},
		"cut":              {3, [][]byte{frame(0, 0), frame(0, 1), frame(0, 2), frame(0, 3)[:n-1]}},
		"moved":            {0, [][]byte{frame(0, 1), frame(0, 0), frame(0, 2), frame(0, 3)}},
		"later ones moved": {1, [][]byte{frame(0, 0), frame(0, 2), frame(0, 1), frame(0, 3)}},
		"doubled":          {2, [][]byte{frame(0, 0), frame(0, 1), frame(0, 1), frame(0, 2)}},
		"left out":         {1, [][]byte{frame(0, 0), frame(0, 2), frame(0, 3)}},
		"of another":       {1, [][]byte{frame(0, 0), frame(1, 1), frame(0, 2)}},
		"changed":          {1, [][]byte{frame(0, 0), flip(frameHeader, 1), frame(0, 2)}},
		"number changed":   {1, [][]byte{frame(0, 0), flip(4, 8), frame(0, 2)}},
		"length changed":   {1, [][]byte{frame(0, 0), flip(0, 2), frame(0, 2)}},
		"tag changed":      {1, [][]byte{frame(0, 0), flip(n-1, 0x80), frame(0, 2)}},
	} {
		content := slices.Concat(append([][]byte{head}, c.frames...)...)
		must(t, os.WriteFile(filepath.Join(s.cfg.Dir, journalPath(day1, ids[0])), content, 0o600))
		got, torn := readAll(t, s, day1, ids[0])
		if len(got) != c.want || (torn > 0) != (c.want < 4) {
			t.Errorf("%s: %d blocks, %d bytes torn; want %d blocks", name, len(got), torn, c.want)
		}
	}
	// Cut in its head, by a crash before the first block.
	for _, cut := range []int{0, 1, 30, len(head) - 1} {
		must(t, os.WriteFile(filepath.Join(s.cfg.Dir, journalPath(day1, ids[0])), head[:cut], 0o600))
		if got, torn := readAll(t, s, day1, ids[0]); len(got) != 0 || torn != int64(cut) && cut > 0 {
			t.Errorf("head of %d bytes: %d blocks, %d bytes torn", cut, len(got), torn)
		}
	}
}

// TestNoNonceTwice: a block that follows a failed write is sealed under another
// number, for the failed one may be on the disk.
func TestNoNonceTwice(t *testing.T) {
	files := osFiles
	var written [][]byte
	fail := false
	files.write = func(f *os.File, b []byte, off int64) (int, error) {
		written = append(written, bytes.Clone(b))
		if fail {
			return 0, syscall.EIO
		}
		return f.WriteAt(b, off)
	}
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	j, err := s.CreateJournal(day1, NewID())
	must(t, err)
	written = nil
	for i := range 20 {
		fail = i%3 == 1
		if err := j.Append([]byte{byte(i)}); (err != nil) != fail {
			t.Fatal(err)
		}
	}
	numbers := map[uint32]bool{}
	for _, frame := range written {
		numbers[binary.LittleEndian.Uint32(frame[4:])] = true
	}
	if len(numbers) != 20 {
		t.Errorf("%d numbers for 20 sealings", len(numbers))
	}
	must(t, j.Close())
	if got, torn := readAll(t, s, day1, j.id); len(got) != 13 || torn != 0 {
		t.Errorf("%d blocks, %d bytes torn", len(got), torn)
	}
}

// TestMasterKey: the vault opens with its own master key and no other, and says
// what is wrong.
func TestMasterKey(t *testing.T) {
	base := memoryDir(t)
	dir, name := filepath.Join(base, "vault"), filepath.Join(base, "elsewhere.key")
	s := openTest(t, Config{Dir: dir, MasterKey: name})
	rec := record(t, s, call(day1, time.Hour), []byte("audio"))
	closeTest(t, s)
	info, err := os.Stat(name)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("new master key has mode %v", info.Mode())
	}
	right, err := os.ReadFile(name)
	must(t, err)
	if names := found(t, dir, right[bytes.Index(right, []byte("AGE-SECRET")):]); len(names) > 0 {
		t.Errorf("the master key is in the vault: %q", names)
	}
	other, err := age.GenerateX25519Identity()
	must(t, err)
	write := func(text string, mode os.FileMode) {
		must(t, os.RemoveAll(name))
		must(t, os.WriteFile(name, []byte(text), mode))
		must(t, os.Chmod(name, mode))
	}
	for what, c := range map[string]struct {
		put  func()
		want string
	}{
		"missing":    {func() { must(t, os.Remove(name)) }, "put it back"},
		"another":    {func() { write(identityText(other), 0o600) }, "the vault is sealed to age1"},
		"open":       {func() { write(string(right), 0o644) }, "chmod 600"},
		"group":      {func() { write(string(right), 0o660) }, "chmod 600"},
		"nonsense":   {func() { write("AGE-SECRET-KEY-1NONSENSE\n", 0o600) }, "not an age identity"},
		"two":        {func() { write(string(right)+identityText(other), 0o600) }, "2 identities"},
		"empty":      {func() { write("", 0o600) }, "not an age identity"},
		"its folder": {func() { must(t, errors.Join(os.Remove(name), os.Mkdir(name, 0o700))) }, "master key"},
	} {
		write(string(right), 0o600)
		c.put()
		_, err := Open(Config{Dir: dir, MasterKey: name})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q and no secret", what, err, c.want)
		}
		if what == "missing" {
			if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a new master key was made for a vault that has one: %v", err)
			}
		}
	}
	write(string(right), 0o440) // as a credential lies there
	s = openTest(t, Config{Dir: dir, MasterKey: name})
	c, err := s.OpenRecording(rec.Day, rec.ID)
	must(t, err)
	must(t, c.Close())
	closeTest(t, s)
	// A vault of before it was sealed, and one that lost its database.
	plain := filepath.Join(base, "plain")
	s = openTest(t, Config{Dir: plain, MasterKey: name})
	must(t, s.PutCall(rec))
	closeTest(t, s)
	l, err := openLedger(mustRoot(t, plain), centralFile, centralBuckets, nil)
	must(t, err)
	must(t, errors.Join(l.update(deleteMaster), l.close()))
	if _, err := Open(Config{Dir: plain, MasterKey: name}); err == nil || !strings.Contains(err.Error(), "before vaults were sealed") {
		t.Errorf("plain vault: %v", err)
	}
	must(t, os.Remove(filepath.Join(plain, centralFile)))
	if _, err := Open(Config{Dir: plain, MasterKey: name}); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("vault without its database: %v", err)
	}
	nowhere := filepath.Join(base, "no", "such", "folder")
	if _, err := Open(Config{Dir: filepath.Join(base, "new"), MasterKey: nowhere}); err == nil || !strings.Contains(err.Error(), "age-keygen") {
		t.Errorf("a master key that cannot be made: %v", err)
	}
}

// TestDayKey: a day whose key is missing or another's is shut, and says so.
func TestDayKey(t *testing.T) {
	s := openTest(t, Config{})
	rec := record(t, s, call(day1, time.Hour), []byte("audio"))
	must(t, s.PutCall(call(day1.Next(1), time.Hour)))
	closeTest(t, s)
	own := filepath.Join(s.cfg.Dir, keyPath(day1))
	right, err := os.ReadFile(own)
	must(t, err)
	foreign, err := os.ReadFile(filepath.Join(s.cfg.Dir, keyPath(day1.Next(1))))
	must(t, err)
	if bytes.Equal(right, foreign) {
		t.Fatal("two days have one key")
	}
	for what, want := range map[string]string{"missing": "restore it from a backup of the keys", "foreign": "the day is sealed to", "damaged": "key of day"} {
		switch what {
		case "missing":
			must(t, os.Remove(own))
		case "foreign":
			must(t, os.WriteFile(own, foreign, 0o600))
		case "damaged":
			must(t, os.WriteFile(own, right[:len(right)-1], 0o600))
		}
		s = openTest(t, Config{Dir: s.cfg.Dir})
		if _, err := s.OpenRecording(day1, rec.ID); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: open: %v", what, err)
		}
		if _, err := s.CreateJournal(day1, NewID()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: journal: %v", what, err)
		}
		if _, err := s.Call(day1, rec.ID); err != nil {
			t.Errorf("%s: a record needs no key: %v", what, err)
		}
		report, err := s.Verify(t.Context(), nil)
		if err != nil || len(report.Findings) != 1 || report.Findings[0].Problem != ProblemUnreadable {
			t.Errorf("%s: verify: %+v, %v", what, report, err)
		}
		closeTest(t, s)
	}
}

// TestPlainSize holds the arithmetic against age itself.
func TestPlainSize(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	must(t, err)
	for _, n := range []int{1, 4, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		var sealed bytes.Buffer
		must(t, sealTo(&sealed, key.Recipient(), make([]byte, n)))
		if got := plainSize(int64(sealed.Len())); got != int64(n) {
			t.Errorf("%d bytes sealed to %d: %d", n, sealed.Len(), got)
		}
	}
	if got := plainSize(10); got != 0 {
		t.Errorf("a stub: %d", got)
	}
}

func mustRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root
}

// BenchmarkAppend is half a second of one call into a journal.
func BenchmarkAppend(b *testing.B) {
	s := openTest(b, Config{})
	defer closeTest(b, s)
	j, err := s.CreateJournal(ordinance.DayOf(time.Now()), NewID())
	must(b, err)
	block := make([]byte, 8200)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		if j.good > 64<<20 {
			j.good = 1 << 10
		}
		must(b, j.Append(block))
	}
	must(b, j.Close())
}

// BenchmarkSealFrame is the sealing of that alone.
func BenchmarkSealFrame(b *testing.B) {
	seal := sealTest(b)
	block, frame := make([]byte, 8200), []byte(nil)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		frame, _ = seal.seal(frame, block)
	}
}

// BenchmarkCreateJournal draws a key and wraps it to the day.
func BenchmarkCreateJournal(b *testing.B) {
	s := openTest(b, Config{})
	defer closeTest(b, s)
	day := ordinance.DayOf(time.Now())
	for b.Loop() {
		j, err := s.CreateJournal(day, NewID())
		must(b, err)
		must(b, j.Close())
	}
}

func deleteMaster(tx *bbolt.Tx) error { return tx.Bucket(bucketMarks).Delete(keyMaster) }
