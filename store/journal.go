package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// A journal is a row of frames, each good by itself:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           length of the block, 1..MaxBlock, little-endian     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        CRC-32C of the length's four bytes and the block       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                             block ...
//
// There is no empty block, so zeros, which a crash may leave at a file's end,
// are not a frame.
const (
	frameHeader = 8
	// MaxBlock is the longest block of a journal, in bytes: a frame is at most
	// 64 KiB.
	MaxBlock = 64<<10 - frameHeader
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frameSum(frame []byte) uint32 {
	sum := crc32.Update(0, castagnoli, frame[:4])
	return crc32.Update(sum, castagnoli, frame[frameHeader:])
}

// Journal is the append-only file of a recording that goes on. It belongs to
// one goroutine, which closes it.
type Journal struct {
	store *Store
	day   ordinance.Day
	id    ID

	mu     sync.Mutex // a sweep or Close of the vault may close the file
	file   *os.File
	good   int64 // bytes of whole frames
	ragged bool  // there may be bytes of a failed write behind them
	frame  []byte
}

// JournalRef names a journal in the vault.
type JournalRef struct {
	Day  ordinance.Day
	ID   ID
	Size int64
	Open bool // being written by this process
}

// TornError is how a journal ends that a crash cut: Bytes of it after the last
// whole block cannot be read.
type TornError struct{ Bytes int64 }

func (e *TornError) Error() string {
	return fmt.Sprintf("journal is torn: last %d bytes are not a whole block", e.Bytes)
}

// CreateJournal makes the journal of a recording, making its day if need be.
// There must be none with that id on that day.
func (s *Store) CreateJournal(day ordinance.Day, id ID) (*Journal, error) {
	p, err := s.acquire(day, true)
	if err != nil {
		return nil, fmt.Errorf("create journal %v of %v: %w", id, day, err)
	}
	defer s.yield(p)
	name := journalPath(day, id)
	f, err := s.files.create(s.root, name)
	if err != nil {
		return nil, fmt.Errorf("create journal %v of %v: %w", id, day, err)
	}
	if !syncedAsAWhole {
		if err := s.syncDir(path.Dir(name)); err != nil {
			return nil, errors.Join(err, f.Close(), s.remove(name))
		}
	}
	j := &Journal{store: s, day: day, id: id, file: f}
	s.mu.Lock()
	s.journals[id] = j
	s.mu.Unlock()
	s.unsynced.Store(true)
	return j, nil
}

// Append writes a block of 1 to MaxBlock bytes with one write call; it is
// durable after the next SyncJournals. After an error nothing of the block is
// in the journal, what was before is, and Append may be called again.
//
// Blocks are written at an offset of our own behind the last whole one. What
// a write that failed left there is cut off at once or, if even that fails,
// before the next block; a reader that comes in between finds a torn end.
func (j *Journal) Append(block []byte) error {
	if len(block) == 0 || len(block) > MaxBlock {
		return fmt.Errorf("append to journal %v: block of %d bytes, not 1 to %d", j.id, len(block), MaxBlock)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return fmt.Errorf("append to journal %v: %w", j.id, fs.ErrClosed)
	}
	if j.ragged {
		if err := j.cut(); err != nil {
			return fmt.Errorf("append to journal %v: %w", j.id, err)
		}
	}
	j.frame = binary.LittleEndian.AppendUint32(j.frame[:0], uint32(len(block)))
	j.frame = append(j.frame, 0, 0, 0, 0)
	j.frame = append(j.frame, block...)
	binary.LittleEndian.PutUint32(j.frame[4:], frameSum(j.frame))
	n, err := j.store.files.write(j.file, j.frame, j.good)
	if err == nil && n < len(j.frame) {
		err = io.ErrShortWrite
	}
	if err != nil {
		j.ragged = true
		return fmt.Errorf("append to journal %v: %w", j.id, errors.Join(err, j.cut()))
	}
	j.good += int64(len(j.frame))
	j.store.unsynced.Store(true)
	return nil
}

func (j *Journal) cut() error {
	if err := j.store.files.truncate(j.file, j.good); err != nil {
		return fmt.Errorf("cut off what a failed write left: %w", err)
	}
	j.ragged = false
	return nil
}

// Close closes the file; a second call does nothing. What was appended is
// durable after the next SyncJournals.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	var err error
	if !syncedAsAWhole {
		err = j.store.files.fsync(j.file) // no later SyncJournals would see it
	}
	err = errors.Join(err, j.file.Close())
	j.file = nil
	j.store.mu.Lock()
	delete(j.store.journals, j.id)
	j.store.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close journal %v: %w", j.id, err)
	}
	return nil
}

// SyncJournals makes durable all that was appended to any journal before the
// call, with one syncfs where there is such a call. It does nothing if nothing
// was appended. The recorder calls it once a second.
func (s *Store) SyncJournals() error {
	if !s.unsynced.Swap(false) {
		return nil
	}
	var err error
	if syncedAsAWhole {
		err = s.files.syncfs(s.dir)
	} else {
		err = s.fsyncJournals()
	}
	if err != nil {
		s.unsynced.Store(true)
		return fmt.Errorf("sync journals: %w", err)
	}
	return nil
}

func (s *Store) fsyncJournals() error {
	var errs []error
	for _, j := range s.openJournals() {
		j.mu.Lock()
		if j.file != nil {
			errs = append(errs, s.files.fsync(j.file))
		}
		j.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (s *Store) openJournals() (open []*Journal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.journals {
		open = append(open, j)
	}
	return open
}

func (s *Store) journalOpen(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journals[id] != nil
}

// Journals lists the journals of all days, oldest day first: after a start,
// those that the last run did not finish. Files that are not ours are not in
// it; Verify reports them.
func (s *Store) Journals() ([]JournalRef, error) {
	var refs []JournalRef
	for _, day := range s.keptDays(ordinance.Day{}, ordinance.Day{}) {
		entries, err := s.list(path.Join(dayDir(day), journalsDir))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			id, ok := fileID(e.Name(), ".journal")
			if !ok {
				continue
			}
			info, err := e.Info()
			if notExist(err) {
				continue // finished meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("list journals of %v: %w", day, err)
			}
			refs = append(refs, JournalRef{Day: day, ID: id, Size: info.Size(), Open: s.journalOpen(id)})
		}
	}
	slices.SortStableFunc(refs, func(a, b JournalRef) int {
		if c := a.Day.Compare(b.Day); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return refs, nil
}

// fileID reads the id that a file is named after.
func fileID(name, ext string) (ID, bool) {
	stem, ok := strings.CutSuffix(name, ext)
	if !ok {
		return ID{}, false
	}
	id, err := ParseID(stem)
	return id, err == nil && id.String() == stem
}

// ReadJournal yields a journal's blocks in order. Each is valid until the next
// one. If the file ends in something that is not a whole frame, the last thing
// yielded is a *TornError.
func (s *Store) ReadJournal(day ordinance.Day, id ID) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, size, err := s.openContent(day, journalPath(day, id))
		if err != nil {
			yield(nil, fmt.Errorf("read journal %v of %v: %w", id, day, err))
			return
		}
		defer f.Close() // was only read
		for block, err := range frames(io.NewSectionReader(f, 0, size), size) {
			if err != nil && !isTorn(err) {
				err = fmt.Errorf("read journal %v of %v: %w", id, day, err)
			}
			if !yield(block, err) {
				return
			}
		}
	}
}

func isTorn(err error) bool {
	_, ok := errors.AsType[*TornError](err)
	return ok
}

// frames parses size bytes of r; see the frame's picture above.
func frames(r io.Reader, size int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		frame := make([]byte, frameHeader, 4096)
		for good := int64(0); good < size; good += int64(len(frame)) {
			frame = frame[:frameHeader]
			_, err := io.ReadFull(in, frame)
			whole := false
			if err == nil {
				n := int64(binary.LittleEndian.Uint32(frame))
				if n >= 1 && n <= MaxBlock && n <= size-good-frameHeader {
					frame = slices.Grow(frame, int(n))[:frameHeader+n]
					_, err = io.ReadFull(in, frame[frameHeader:])
					whole = err == nil && binary.LittleEndian.Uint32(frame[4:]) == frameSum(frame)
				}
			}
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				yield(nil, err)
				return
			}
			if !whole {
				yield(nil, &TornError{Bytes: size - good})
				return
			}
			if !yield(frame[frameHeader:], nil) {
				return
			}
		}
	}
}

// DropJournal removes a journal that recovery found to hold nothing. It must
// be closed, and so must the call's record, if there is one: what became of
// the recording is on record before the journal goes.
func (s *Store) DropJournal(day ordinance.Day, id ID) error {
	p, err := s.acquire(day, false)
	if err == nil {
		defer s.yield(p)
		var rec CallRecord
		err = p.view(func(tx *bbolt.Tx) (err error) { rec, err = getCall(tx, id); return err })
		switch {
		case err == nil && rec.Cause == "":
			err = errors.New("the call's record is open")
		case err == nil || errors.Is(err, ErrNotFound):
			err = s.dropJournal(day, id)
		}
	}
	if err != nil {
		return fmt.Errorf("drop journal %v of %v: %w", id, day, err)
	}
	return nil
}

func (s *Store) dropJournal(day ordinance.Day, id ID) error {
	if s.journalOpen(id) {
		return errors.New("it is still being written")
	}
	return s.remove(journalPath(day, id))
}
