package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Journal is the append-only file of a recording that goes on. It belongs to
// one goroutine, which closes it.
type Journal struct {
	store *Store
	day   ordinance.Day
	id    ID

	mu     sync.Mutex // a sweep or Close of the vault may close the file
	file   *os.File
	seal   *frameSeal
	good   int64 // bytes of the head and whole frames
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
	j, err := s.createJournal(day, id)
	if err != nil {
		return nil, fmt.Errorf("create journal %v of %v: %w", id, day, err)
	}
	s.mu.Lock()
	s.journals[id] = j
	s.mu.Unlock()
	s.unsynced.Store(true)
	return j, nil
}

func (s *Store) createJournal(day ordinance.Day, id ID) (*Journal, error) {
	key, err := s.dayKey(day)
	if err != nil {
		return nil, err
	}
	head, seal, err := newJournalSeal(key.Recipient())
	if err != nil {
		return nil, err
	}
	name := journalPath(day, id)
	f, err := s.files.create(s.root, name)
	if err != nil {
		return nil, err
	}
	n, err := s.files.write(f, head, 0)
	if err == nil && n < len(head) {
		err = io.ErrShortWrite
	}
	if err == nil && !syncedAsAWhole {
		err = s.syncDir(path.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), s.remove(name))
	}
	return &Journal{store: s, day: day, id: id, file: f, seal: seal, good: int64(len(head))}, nil
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
	frame, err := j.seal.seal(j.frame, block)
	if err != nil {
		return fmt.Errorf("append to journal %v: %w", j.id, err)
	}
	j.frame = frame
	n, err := j.store.files.write(j.file, j.frame, j.good)
	if err == nil && n < len(j.frame) {
		err = io.ErrShortWrite
	}
	if err != nil {
		j.ragged = true
		return fmt.Errorf("append to journal %v: %w", j.id, errors.Join(err, j.cut()))
	}
	j.good += int64(len(j.frame))
	j.seal.next()
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
		seal, begin, err := s.openSeal(day, f)
		if err != nil {
			yield(nil, fmt.Errorf("read journal %v of %v: %w", id, day, err))
			return
		}
		if seal == nil {
			yield(nil, &TornError{Bytes: size})
			return
		}
		for block, err := range frames(io.NewSectionReader(f, begin, size-begin), size-begin, seal) {
			if err != nil && !isTorn(err) {
				err = fmt.Errorf("read journal %v of %v: %w", id, day, err)
			}
			if !yield(block, err) {
				return
			}
		}
	}
}

// openSeal reads the head of a journal. One that was cut in its head has no
// seal: a crash came before its first block.
func (s *Store) openSeal(day ordinance.Day, f *os.File) (*frameSeal, int64, error) {
	key, err := s.dayKey(day)
	if err != nil {
		return nil, 0, err
	}
	seal, begin, err := openJournalSeal(io.NewSectionReader(f, 0, maxKeyFile), key)
	if err == nil {
		return seal, begin, nil
	}
	if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
		return nil, 0, err // whole, and of another day
	}
	return nil, 0, nil
}

func isTorn(err error) bool {
	_, ok := errors.AsType[*TornError](err)
	return ok
}

// frames opens size bytes of r; see the frame's picture at MaxBlock.
func frames(r io.Reader, size int64, seal *frameSeal) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		frame := make([]byte, frameHeader, 4096)
		for good := int64(0); good < size; good += int64(len(frame)) {
			frame = frame[:frameHeader]
			_, err := io.ReadFull(in, frame)
			var block []byte
			whole := false
			if err == nil {
				n := int64(binary.LittleEndian.Uint32(frame))
				if n >= 1 && n <= MaxBlock && n <= size-good-frameHeader-frameTag {
					frame = slices.Grow(frame, int(n)+frameTag)[:frameHeader+n+frameTag]
					if _, err = io.ReadFull(in, frame[frameHeader:]); err == nil {
						block, whole = seal.open(frame)
					}
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
			if !yield(block, nil) {
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
