package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	bolt "go.etcd.io/bbolt"

	"centralka/ordinance"
)

// MaxBlock is the longest block of a journal, in bytes.
const MaxBlock = 64 << 10

const frameHeader = 8 // length and CRC-32C, both little-endian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is a file that only grows, in self-contained blocks: what a call's
// voice is kept in while the call goes on. Append and Close are for one
// goroutine; SyncJournals may run beside them.
type Journal struct {
	s    *Store
	day  ordinance.Day
	id   ID
	size int64 // up to the last good frame
	torn bool  // bytes of a failed write may follow

	mu sync.Mutex // guards f against Close while it is synced
	f  *os.File
}

// CreateJournal makes the journal of a recording. The day's line and folder are
// made first if they are not there.
func (s *Store) CreateJournal(d ordinance.Day, id ID) (*Journal, error) {
	if err := s.ensureDay(d); err != nil {
		return nil, fmt.Errorf("create journal %v: %w", id, err)
	}
	path := s.journalPath(d, id)
	f, err := s.files.create(path)
	if err != nil {
		return nil, fmt.Errorf("create journal %v: %w", id, err)
	}
	if err := s.syncDir(path); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal %v: %w", id, err), f.Close())
	}
	j := &Journal{s: s, day: d, id: id, f: f}
	s.journals.Store(j, struct{}{})
	return j, nil
}

// Append writes one block. After an error the journal is as it was before, and
// Append may be tried again, when there is room on the disk for example.
func (j *Journal) Append(block []byte) error {
	if len(block) == 0 || len(block) > MaxBlock {
		return fmt.Errorf("append to journal %v: block of %d bytes", j.id, len(block))
	}
	if j.torn {
		if err := j.restore(); err != nil {
			return fmt.Errorf("append to journal %v: %w", j.id, err)
		}
	}
	frame := make([]byte, frameHeader, frameHeader+len(block))
	binary.LittleEndian.PutUint32(frame, uint32(len(block)))
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(block, castagnoli))
	frame = append(frame, block...)
	n, err := j.s.files.write(j.f, frame)
	if err == nil && n < len(frame) {
		err = io.ErrShortWrite
	}
	if err != nil {
		j.torn = true
		return errors.Join(fmt.Errorf("append to journal %v: %w", j.id, err), j.restore())
	}
	j.size += int64(len(frame))
	return nil
}

// restore cuts off what a failed write has left.
func (j *Journal) restore() error {
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	if _, err := j.f.Seek(j.size, io.SeekStart); err != nil {
		return err
	}
	j.torn = false
	return nil
}

// Close makes the journal durable and closes it.
func (j *Journal) Close() error {
	j.s.journals.Delete(j)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	err := errors.Join(j.s.files.sync(j.f), j.f.Close())
	j.f = nil
	if err != nil {
		return fmt.Errorf("close journal %v: %w", j.id, err)
	}
	return nil
}

// SyncJournals makes durable what all open journals hold: one syncfs for all of
// them where the system has it, since they share a file system.
func (s *Store) SyncJournals() error {
	var errs []error
	s.journals.Range(func(k, _ any) bool {
		j := k.(*Journal)
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.f == nil {
			return true
		}
		whole, err := s.syncAll(j.f)
		if err != nil {
			errs = append(errs, fmt.Errorf("sync journals: %w", err))
		}
		return !whole
	})
	return errors.Join(errs...)
}

// JournalRef names a journal on the disk.
type JournalRef struct {
	Day ordinance.Day
	ID  ID
}

// Journals lists the journals of all days.
func (s *Store) Journals() ([]JournalRef, error) {
	var out []JournalRef
	for _, d := range s.Days() {
		entries, err := os.ReadDir(filepath.Join(s.dayDir(d), "journals"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list journals: %w", err)
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".jnl")
			id, err := ParseID(name)
			if !ok || err != nil {
				continue // reported by Verify
			}
			out = append(out, JournalRef{d, id})
		}
	}
	return out, nil
}

// TornError ends the reading of a journal that a crash, or a full disk, cut
// off: so many bytes after the last good block are not readable.
type TornError struct{ Bytes int64 }

func (e *TornError) Error() string {
	return fmt.Sprintf("journal is torn: its last %d bytes are not a whole block", e.Bytes)
}

// ReadJournal yields the blocks of a journal in order. A block is valid until
// the next one. It stops at the first that is not whole, with a *TornError.
func (s *Store) ReadJournal(d ordinance.Day, id ID) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := os.Open(s.journalPath(d, id))
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("journal %v: %w", id, ErrNotFound)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close() // it was only read
		st, err := f.Stat()
		if err != nil {
			yield(nil, err)
			return
		}
		buf := make([]byte, MaxBlock)
		var at int64
		for at < st.Size() {
			var h [frameHeader]byte
			torn := &TornError{st.Size() - at}
			if _, err := io.ReadFull(f, h[:]); err != nil {
				yield(nil, unlessEOF(err, torn))
				return
			}
			n := binary.LittleEndian.Uint32(h[:])
			if n == 0 || n > MaxBlock {
				yield(nil, torn)
				return
			}
			if _, err := io.ReadFull(f, buf[:n]); err != nil {
				yield(nil, unlessEOF(err, torn))
				return
			}
			if crc32.Checksum(buf[:n], castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
				yield(nil, torn)
				return
			}
			at += frameHeader + int64(n)
			if !yield(buf[:n], nil) {
				return
			}
		}
	}
}

func unlessEOF(err error, torn *TornError) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return torn
	}
	return err
}

// DropJournal removes the journal of a call that is over and has no recording:
// recovery found nothing in it, or the call was committed already.
func (s *Store) DropJournal(d ordinance.Day, id ID) error {
	rec, err := s.Call(d, id)
	if err != nil {
		return fmt.Errorf("drop journal: %w", err)
	}
	if rec.Cause == "" {
		return fmt.Errorf("drop journal %v: the call is not over", id)
	}
	return s.removeJournal(d, id)
}

func (s *Store) removeJournal(d ordinance.Day, id ID) error {
	path := s.journalPath(d, id)
	if err := s.files.remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove journal %v: %w", id, err)
	}
	return nil
}

// Quarantine sets a journal aside that cannot be read, in the folder of its
// day, with which it goes. Nothing is deleted.
func (s *Store) Quarantine(d ordinance.Day, id ID) error {
	from := s.journalPath(d, id)
	to := filepath.Join(s.dayDir(d), "quarantine", filepath.Base(from))
	if err := s.files.rename(from, to); err != nil {
		return fmt.Errorf("quarantine journal %v: %w", id, err)
	}
	return errors.Join(s.syncDir(from), s.syncDir(to))
}

// File is what PutFile made.
type File struct {
	Size   int64
	SHA256 string
}

// PutFile writes a recording: what write writes becomes the file, whole or not
// at all. It is hashed as it is written. A file of the same id is replaced:
// rendering again after a crash is harmless.
func (s *Store) PutFile(d ordinance.Day, id ID, write func(io.Writer) error) (File, error) {
	fail := func(err error) (File, error) { return File{}, fmt.Errorf("put recording %v: %w", id, err) }
	if err := s.ensureDay(d); err != nil {
		return fail(err)
	}
	tmp := filepath.Join(s.dayDir(d), "tmp", id.String()+".wav")
	if err := s.files.remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	f, err := s.files.create(tmp)
	if err != nil {
		return fail(err)
	}
	h := sha256.New()
	w := &fileWriter{s: s, f: f, hash: h.Write}
	err = write(w)
	if err == nil {
		err = s.files.sync(f)
	}
	err = errors.Join(err, f.Close())
	path := s.recordingPath(d, id)
	if err == nil {
		err = s.files.rename(tmp, path)
	}
	if err != nil {
		if rerr := s.files.remove(tmp); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return fail(err)
	}
	if err := s.syncDir(path); err != nil {
		return fail(err)
	}
	return File{Size: w.size, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

type fileWriter struct {
	s    *Store
	f    *os.File
	hash func([]byte) (int, error)
	size int64
}

func (w *fileWriter) Write(b []byte) (int, error) {
	n, err := w.s.files.write(w.f, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.size += int64(n)
	if _, herr := w.hash(b[:n]); herr != nil {
		err = errors.Join(err, herr)
	}
	return n, err
}

// CommitRecording ends a recorded call: its record with the recording's outcome
// becomes durable in one transaction, then its journal goes. A crash before the
// transaction leaves journal and perhaps file: recovery renders again. One
// after it leaves a journal whose call is committed: recovery commits again,
// which changes nothing, and removes it.
func (s *Store) CommitRecording(rec CallRecord) error {
	if rec.Cause == "" || rec.Recording.Outcome == "" {
		return fmt.Errorf("commit recording %v: the record has no cause or no outcome", rec.ID)
	}
	o, release, err := s.useDay(rec.Day, true)
	if err != nil {
		return fmt.Errorf("commit recording %v: %w", rec.ID, err)
	}
	defer release()
	if err := o.update(func(tx *bolt.Tx) error { return putCall(tx, rec) }); err != nil {
		return fmt.Errorf("commit recording %v: %w", rec.ID, err)
	}
	return s.removeJournal(rec.Day, rec.ID)
}

// Content is a recording open for reading.
type Content struct {
	f    *os.File
	size int64
}

// OpenRecording opens the WAV of a call. It is available through the whole of
// its last day, with no step in between (S6-b).
func (s *Store) OpenRecording(d ordinance.Day, id ID) (*Content, error) {
	s.mu.Lock()
	listed := s.listed[d]
	s.mu.Unlock()
	if !listed {
		return nil, fmt.Errorf("recording %v: %w", id, ErrNotFound)
	}
	f, err := os.Open(s.recordingPath(d, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("recording %v: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open recording %v: %w", id, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open recording %v: %w", id, err), f.Close())
	}
	return &Content{f, st.Size()}, nil
}

// ReadAt reads bytes of the WAV.
func (c *Content) ReadAt(b []byte, off int64) (int, error) { return c.f.ReadAt(b, off) }

// Size is the length of the WAV in bytes.
func (c *Content) Size() int64 { return c.size }

// Close closes it.
func (c *Content) Close() error { return c.f.Close() }

// recordingsOn lists the ids of the recordings in a day's folder, and the names
// of files there that are none.
func (s *Store) recordingsOn(d ordinance.Day) (ids []ID, strange []string, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dayDir(d), "recordings"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".wav")
		id, perr := ParseID(name)
		if !ok || perr != nil {
			strange = append(strange, e.Name())
			continue
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	return ids, strange, nil
}
