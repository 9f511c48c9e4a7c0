package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// File is what PutFile wrote.
type File struct {
	Size   int64  // bytes of what was written, not of the sealed file
	SHA256 string // of what was written, hexadecimal
}

// PutFile seals and stores the recording that write writes, in place of one
// with the same id; size and hash are of what was written. It is there as a whole and durable when PutFile returns nil; after
// an error it is there as a whole or not at all, and no temporary file is.
// Errors of write come back wrapped.
//
// Order: the bytes are on disk before the name is, and the name before we say
// so. A crash before the rename leaves a temporary file, which Open removes;
// one after it leaves a recording that no record speaks of, which the render
// of the same journal will write again. So the record follows
// (CommitRecording) and the journal goes last.
func (s *Store) PutFile(day ordinance.Day, id ID, write func(io.Writer) error) (File, error) {
	file, err := s.putFile(day, id, write)
	if err != nil {
		return File{}, fmt.Errorf("put recording %v of %v: %w", id, day, err)
	}
	return file, nil
}

func (s *Store) putFile(day ordinance.Day, id ID, write func(io.Writer) error) (file File, err error) {
	tmp := path.Join(dayDir(day), tmpDir, NewID().String())
	f, err := s.createTemporary(day, tmp)
	if err != nil {
		return File{}, err
	}
	open := true
	defer func() {
		if err != nil {
			if open {
				err = errors.Join(err, f.Close())
			}
			err = errors.Join(err, s.remove(tmp))
		}
	}()
	key, err := s.dayKey(day)
	if err != nil {
		return File{}, err
	}
	sum := sha256.New()
	w := &sealedFile{hash: sum}
	if w.sealer, err = age.Encrypt(&appendFile{files: &s.files, file: f}, key.Recipient()); err != nil {
		return File{}, err
	}
	// The day is not held while the caller's code runs: a sweep need not wait
	// for it.
	if err := write(w); err != nil {
		return File{}, err
	}
	if err := w.close(); err != nil {
		return File{}, err
	}
	if err := s.files.fsync(f); err != nil {
		return File{}, err
	}
	open = false
	if err := f.Close(); err != nil {
		return File{}, err
	}
	p, err := s.acquire(day, false)
	if err != nil {
		return File{}, err
	}
	defer s.yield(p)
	if err := s.files.rename(s.root, tmp, recordingPath(day, id)); err != nil {
		return File{}, err
	}
	if err := s.syncDir(path.Join(dayDir(day), recordingsDir)); err != nil {
		return File{}, err
	}
	return File{Size: w.size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

func (s *Store) createTemporary(day ordinance.Day, name string) (*os.File, error) {
	p, err := s.acquire(day, true)
	if err != nil {
		return nil, err
	}
	defer s.yield(p)
	return s.files.create(s.root, name)
}

// appendFile writes to a file at its end.
type appendFile struct {
	files *fileOps
	file  *os.File
	size  int64
}

func (w *appendFile) Write(b []byte) (int, error) {
	n, err := w.files.write(w.file, b, w.size)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.size += int64(n)
	return n, err
}

// clearTemporary removes what PutFile had not finished when the last run
// ended.
func (s *Store) clearTemporary(day ordinance.Day) error {
	dir := path.Join(dayDir(day), tmpDir)
	entries, err := s.list(dir)
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, s.remove(path.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// Content is a recording opened for reading, unsealed as it is read. Once the
// day's term is over its reads fail with ErrGone. The one who opened it closes
// it.
type Content struct {
	store *Store
	day   ordinance.Day
	file  *os.File
	plain io.ReaderAt
	size  int64
}

// OpenRecording opens a finished recording.
func (s *Store) OpenRecording(day ordinance.Day, id ID) (*Content, error) {
	c, err := s.openRecording(day, id)
	if err != nil {
		return nil, fmt.Errorf("open recording %v of %v: %w", id, day, err)
	}
	return c, nil
}

func (s *Store) openRecording(day ordinance.Day, id ID) (*Content, error) {
	f, sealed, err := s.openContent(day, recordingPath(day, id))
	if err != nil {
		return nil, err
	}
	c := &Content{store: s, day: day, file: f}
	key, err := s.dayKey(day)
	if err == nil {
		c.plain, c.size, err = age.DecryptReaderAt(f, sealed, key)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

func (s *Store) openContent(day ordinance.Day, name string) (*os.File, int64, error) {
	if err := s.mayRead(day); err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(name)
	if notExist(err) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (s *Store) mayRead(day ordinance.Day) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, listed := s.lines[day]
	switch {
	case s.closed:
		return ErrClosed
	case !listed:
		return errNoDay
	case !s.usable(line):
		return ErrGone
	}
	return nil
}

// Size returns the length of what was put, in bytes.
func (c *Content) Size() int64 { return c.size }

// ReadAt is io.ReaderAt.
func (c *Content) ReadAt(b []byte, off int64) (int, error) {
	if err := c.store.mayRead(c.day); err != nil {
		return 0, err
	}
	if off >= c.size {
		return 0, io.EOF
	}
	n, err := c.plain.ReadAt(b, off)
	if n == len(b) {
		err = nil // as files do, which say EOF for what is missing only
	}
	return n, err
}

// Close closes the file.
func (c *Content) Close() error { return c.file.Close() }

// CommitRecording stores the final record of a call together with what became
// of its recording, in one transaction, and then removes the journal that the
// recording was made from. The file must have been put, the journal closed.
// Doing it again is harmless. If the record names no file (Recording.SHA256 is
// empty) the journal stays, for there may be something in it yet: DropJournal
// and Quarantine are for that.
//
// Order: file, record, journal. Whatever a crash leaves, either the journal is
// there and the recording can be made again, or record and file are durable.
// The removal itself is not synced: a journal that comes back after a loss of
// power is rendered and committed once more.
func (s *Store) CommitRecording(rec CallRecord) error {
	if err := s.commitRecording(rec); err != nil {
		return fmt.Errorf("commit recording %v of %v: %w", rec.ID, rec.Day, err)
	}
	return nil
}

func (s *Store) commitRecording(rec CallRecord) error {
	if rec.Recording.Outcome == "" {
		return errors.New("record has no outcome")
	}
	if s.journalOpen(rec.ID) {
		return errors.New("its journal is still being written")
	}
	hasFile := rec.Recording.SHA256 != ""
	if hasFile {
		c, err := s.openRecording(rec.Day, rec.ID)
		if err != nil {
			return fmt.Errorf("look at its file: %w", err)
		}
		if err := c.Close(); err != nil {
			return fmt.Errorf("look at its file: %w", err)
		}
		if c.Size() != rec.Recording.Size {
			return fmt.Errorf("its file has %d bytes, the record says %d", c.Size(), rec.Recording.Size)
		}
	}
	if err := s.putCall(rec, storeCall); err != nil {
		return err
	}
	if !hasFile {
		return nil
	}
	p, err := s.acquire(rec.Day, false)
	if errors.Is(err, ErrGone) {
		return nil // its day went with the journal
	}
	if err != nil {
		return err
	}
	defer s.yield(p)
	return s.dropJournal(rec.Day, rec.ID)
}

// Kind says what an id of the vault is a file or a record of.
type Kind string

const (
	KindCall      Kind = "call"      // a record without a recording
	KindRecording Kind = "recording" // a record with one, or a recording without record
	KindJournal   Kind = "journal"
	KindOther     Kind = "other" // anything else found in a day's folder
)

// Quarantine moves a journal or recording that cannot be used out of the way,
// within its day: nothing is lost before the day's term.
func (s *Store) Quarantine(day ordinance.Day, kind Kind, id ID) error {
	if err := s.quarantine(day, kind, id); err != nil {
		return fmt.Errorf("quarantine %s %v of %v: %w", kind, id, day, err)
	}
	return nil
}

func (s *Store) quarantine(day ordinance.Day, kind Kind, id ID) error {
	var from string
	switch kind {
	case KindJournal:
		from = journalPath(day, id)
	case KindRecording:
		from = recordingPath(day, id)
	default:
		return errors.New("only journals and recordings are files")
	}
	if kind == KindJournal && s.journalOpen(id) {
		return errors.New("it is still being written")
	}
	p, err := s.acquire(day, false)
	if err != nil {
		return err
	}
	defer s.yield(p)
	if kind == KindRecording {
		var rec CallRecord
		err := p.view(func(tx *bbolt.Tx) (err error) { rec, err = getCall(tx, id); return err })
		if err == nil && rec.Recording.SHA256 != "" {
			return errors.New("a record names it")
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return s.moveToQuarantine(day, from)
}

// moveToQuarantine moves a file of a day that the caller holds.
func (s *Store) moveToQuarantine(day ordinance.Day, from string) error {
	dir := path.Join(dayDir(day), quarantineDir)
	to := path.Join(dir, path.Base(from))
	for n := 1; ; n++ { // never over an earlier one
		if _, err := s.root.Lstat(to); notExist(err) {
			break
		} else if err != nil {
			return err
		}
		to = path.Join(dir, fmt.Sprintf("%d-%s", n, path.Base(from)))
	}
	if err := s.files.rename(s.root, from, to); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNotFound
		}
		return err
	}
	return errors.Join(s.syncDir(dir), s.syncDir(path.Dir(from)))
}
