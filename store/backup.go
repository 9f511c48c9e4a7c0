package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// A backup of a day is a tar of its folder as one age file to the day's
// recipient, so that destroying the day's key makes every copy unreadable:
// recordings, journals, and the numbers and names of its database. Keys are
// backed up apart from that, and expire first. What outlives the days,
// centralka.db, is an age file to the master key.

// DayCopy tells which state of a day a backup holds.
type DayCopy struct {
	Day       ordinance.Day
	Recipient string
	State     Digest // another one whenever anything in the day's folder is
	Bytes     int64  // of the folder's files
}

// KeyCopy is a day's key, sealed to the master key.
type KeyCopy struct {
	Day    ordinance.Day
	Sealed []byte
}

// KeyRest is for how many days of its life a key is not backed up any more: a
// backup of the keys that is kept no longer than this holds no key that is
// destroyed.
const KeyRest = 7

// BackupDays lists the days that are online with their states as they are now,
// oldest first.
func (s *Store) BackupDays() (list []DayCopy, err error) {
	for _, day := range s.keptDays(ordinance.Day{}, ordinance.Day{}) {
		c, err := s.dayCopy(day)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at day %v: %w", day, err)
		}
		list = append(list, c)
	}
	return list, nil
}

func (s *Store) dayCopy(day ordinance.Day) (c DayCopy, err error) {
	err = s.look(day, func(tx *bbolt.Tx) error {
		files, err := s.copied(day)
		if err == nil {
			c = s.stateOf(day, tx, files)
		}
		return err
	})
	return c, err
}

// copiedFile is a file of a day that a backup holds, beside its database.
type copiedFile struct {
	name    string // in the day's folder
	size    int64
	changed time.Time
}

// copied lists what a backup holds.
func (s *Store) copied(day ordinance.Day) (files []copiedFile, err error) {
	for _, sub := range []string{journalsDir, recordingsDir, quarantineDir} {
		entries, err := s.list(path.Join(dayDir(day), sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			info, err := e.Info()
			if notExist(err) || err == nil && !info.Mode().IsRegular() {
				continue // finished meanwhile, or not ours
			}
			if err != nil {
				return nil, err
			}
			files = append(files, copiedFile{path.Join(sub, e.Name()), info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b copiedFile) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

func (s *Store) stateOf(day ordinance.Day, tx *bbolt.Tx, files []copiedFile) DayCopy {
	line, _ := s.line(day)
	c := DayCopy{Day: day, Recipient: line.Recipient, Bytes: tx.Size()}
	sum := sha256.New()
	fmt.Fprintf(sum, "%v %s %d\n", day, line.Recipient, tx.ID())
	for _, f := range files {
		fmt.Fprintf(sum, "%s %d %d\n", f.name, f.size, f.changed.UnixNano())
		c.Bytes += f.size
	}
	c.State = Digest(sum.Sum(nil))
	return c
}

// BackupDay writes a backup of a day to w and tells which state it holds. After
// an error what was written is nothing.
//
// Journals are opened before the database is read, recordings after that: a
// recording that is finished meanwhile is there as journal, as file, or as
// both, and of those a restored vault makes one.
func (s *Store) BackupDay(ctx context.Context, day ordinance.Day, w io.Writer) (c DayCopy, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up day %v: %w", day, err)
		}
	}()
	open := make(map[string]*os.File)
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	before, err := s.copied(day)
	if err != nil {
		return c, err
	}
	for _, f := range before {
		if !strings.HasPrefix(f.name, journalsDir+"/") {
			continue
		}
		file, err := s.root.Open(path.Join(dayDir(day), f.name))
		if err == nil {
			open[f.name] = file
		} else if !notExist(err) {
			return c, err
		}
	}
	// The database goes through memory, so that a slow reader of the backup does
	// not hold the day.
	var db bytes.Buffer
	var files []copiedFile
	err = s.look(day, func(tx *bbolt.Tx) error {
		var err error
		if files, err = s.copied(day); err != nil {
			return err
		}
		c = s.stateOf(day, tx, files)
		_, err = tx.WriteTo(&db)
		return err
	})
	if err != nil {
		return c, err
	}
	for _, f := range before {
		if open[f.name] != nil && !slices.ContainsFunc(files, func(g copiedFile) bool { return g.name == f.name }) {
			files = append(files, f) // finished meanwhile
		}
	}
	to, err := age.ParseX25519Recipient(c.Recipient)
	if err != nil {
		return c, err
	}
	sealer, err := age.Encrypt(w, to)
	if err != nil {
		return c, err
	}
	out := tar.NewWriter(sealer)
	if err := addToTar(out, "day.db", int64(db.Len()), &db); err != nil {
		return c, err
	}
	for _, f := range files {
		if err := errors.Join(ctx.Err(), s.mayRead(day)); err != nil {
			return c, err
		}
		if err := s.addFile(out, day, f, open[f.name]); err != nil {
			return c, err
		}
	}
	return c, errors.Join(out.Close(), sealer.Close())
}

func (s *Store) addFile(out *tar.Writer, day ordinance.Day, f copiedFile, open *os.File) error {
	if open == nil {
		file, err := s.root.Open(path.Join(dayDir(day), f.name))
		if notExist(err) {
			return nil // moved into quarantine, or a journal that is done
		}
		if err != nil {
			return err
		}
		defer file.Close() // only read
		open = file
	}
	info, err := open.Stat()
	if err != nil {
		return err
	}
	return addToTar(out, f.name, info.Size(), io.NewSectionReader(open, 0, info.Size()))
}

func addToTar(out *tar.Writer, name string, size int64, content io.Reader) error {
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}); err != nil {
		return err
	}
	_, err := io.CopyN(out, content, size)
	return err
}

// BackupCentral writes a backup of centralka.db to w.
func (s *Store) BackupCentral(w io.Writer) error {
	sealer, err := age.Encrypt(w, s.master.Recipient())
	if err == nil {
		err = s.central.view(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(sealer)
			return err
		})
		err = errors.Join(err, sealer.Close())
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", centralFile, err)
	}
	return nil
}

// BackupKeys returns the keys of the days that have more than KeyRest days to
// live, as they lie in the vault: sealed to the master key.
func (s *Store) BackupKeys() (list []KeyCopy, err error) {
	from := ordinance.DayOf(time.Now()).Next(KeyRest)
	for _, line := range s.keptLines() {
		if !line.Made || line.LastDay.Compare(from) < 0 {
			continue
		}
		sealed, err := s.root.ReadFile(keyPath(line.Day))
		if err != nil {
			return nil, fmt.Errorf("back up key of %v: %w", line.Day, err)
		}
		list = append(list, KeyCopy{line.Day, sealed})
	}
	return list, nil
}

// Master returns the public half of the master key: it names a vault.
func (s *Store) Master() string { return s.master.Recipient().String() }
