package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Reconciliation is what came of holding the files of the vault against its
// index, both ways. It deletes nothing.
type Reconciliation struct {
	At      time.Time
	Days    int
	Records int // that name a recording
	// Missing are recordings that a record names and that are not there, and
	// days without their folder or key.
	Missing int
	// Orphans are files that no record explains. They lie in the quarantine of
	// their day, until that goes.
	Orphans int
	// Foreign are the names in days/, keys/ and the folders of days that the
	// index does not list as kept.
	Foreign []string `json:",omitempty"`
	// Err says what could not be looked at.
	Err string `json:",omitempty"`
}

// Unexplained is the one number: zero says that all is there that must be, and
// nothing else.
func (r Reconciliation) Unexplained() int { return r.Missing + r.Orphans + len(r.Foreign) }

// orphanAge is how old a file must be to be an orphan: a recording is put
// before its record says so.
const orphanAge = time.Hour

var keyReconciled = []byte("reconciled")

// Reconcile holds files against index: names only, nothing is read or hashed
// (that is Verify). What lies among the recordings and is not explained is moved
// into the quarantine of its day. The result is kept.
func (s *Store) Reconcile(ctx context.Context) (r Reconciliation, err error) {
	r.At = utc(time.Now())
	errs := []error{s.foreignNames(&r)}
	for _, line := range s.keptLines() {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if !line.Made {
			continue
		}
		r.Days++
		switch err := s.reconcileDay(line.Day, &r); {
		case errors.Is(err, ErrGone): // swept meanwhile
		case notExist(err):
			r.Missing++ // its folder or database
		case err != nil:
			errs = append(errs, fmt.Errorf("day %v: %w", line.Day, err))
		}
	}
	err = errors.Join(errs...)
	if err != nil {
		err = fmt.Errorf("reconcile files and index: %w", err)
		r.Err = err.Error()
	}
	keep := s.central.update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(bucketMarks), keyReconciled, r) })
	return r, errors.Join(err, keep)
}

// Reconciled returns the newest result, zero if there is none.
func (s *Store) Reconciled() (r Reconciliation, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		if text := tx.Bucket(bucketMarks).Get(keyReconciled); text != nil {
			return getJSON(text, &r)
		}
		return nil
	})
	return r, err
}

func (s *Store) foreignNames(r *Reconciliation) error {
	days, err := s.unexplained()
	for _, name := range days {
		r.Foreign = append(r.Foreign, path.Join(daysDir, name))
	}
	keys, listErr := s.list(keysDir)
	for _, e := range keys {
		stem, ok := strings.CutSuffix(e.Name(), ".age")
		if !ok {
			stem, ok = strings.CutSuffix(e.Name(), ".tmp") // in the making
		}
		day, err := ordinance.ParseDay(stem)
		line, listed := s.line(day)
		if !ok || err != nil || !listed || line.State == stateGone || !e.Type().IsRegular() {
			r.Foreign = append(r.Foreign, path.Join(keysDir, e.Name()))
		}
	}
	return errors.Join(err, listErr)
}

// ours are the names in a day's folder.
var ours = []string{"day.db", journalsDir, recordingsDir, tmpDir, quarantineDir}

func (s *Store) reconcileDay(day ordinance.Day, r *Reconciliation) error {
	dir := dayDir(day)
	// Files first: what is committed meanwhile then has both, file and record.
	files, err := s.list(path.Join(dir, recordingsDir))
	if err != nil {
		return err
	}
	journals, err := s.list(path.Join(dir, journalsDir))
	if err != nil {
		return err
	}
	named := make(map[ID]bool)
	for rec, err := range s.scan([]ordinance.Day{day}, bucketTime, nil) {
		if err != nil {
			return err
		}
		if rec.Recording.SHA256 == "" {
			continue
		}
		r.Records++
		named[rec.ID] = true
		if _, err := s.root.Lstat(recordingPath(day, rec.ID)); notExist(err) {
			if err := s.mayRead(day); err != nil {
				return err
			}
			r.Missing++
		} else if err != nil {
			return err
		}
	}
	if _, err := s.root.Lstat(keyPath(day)); notExist(err) {
		r.Missing++
	} else if err != nil {
		return err
	}
	if err := s.mayRead(day); err != nil {
		return err
	}
	writing := make(map[ID]bool)
	for _, e := range journals {
		if id, ok := fileID(e.Name(), ".journal"); ok {
			writing[id] = true
		}
	}
	var errs []error
	for _, e := range files {
		if id, ok := fileID(e.Name(), recordingExt); ok && (named[id] || writing[id]) {
			continue
		}
		if err := s.quarantineOrphan(day, e); err != nil {
			errs = append(errs, err)
		}
	}
	names, err := s.list(dir)
	errs = append(errs, err)
	for _, e := range names {
		if !slices.Contains(ours, e.Name()) {
			r.Foreign = append(r.Foreign, path.Join(dir, e.Name()))
		}
	}
	kept, err := s.list(path.Join(dir, quarantineDir))
	errs = append(errs, err)
	for _, e := range kept {
		if !strings.HasSuffix(e.Name(), ".journal") { // these have a record that says what became of them
			r.Orphans++
		}
	}
	return errors.Join(errs...)
}

func (s *Store) quarantineOrphan(day ordinance.Day, e fs.DirEntry) error {
	info, err := e.Info()
	if notExist(err) {
		return nil // moved meanwhile
	}
	if err != nil {
		return err
	}
	if time.Since(info.ModTime()) < orphanAge {
		return nil // may be about to get its record
	}
	s.log.Error("a file that no record explains goes into quarantine", "day", day, "file", e.Name())
	id, ok := fileID(e.Name(), recordingExt)
	if ok {
		return s.quarantine(day, KindRecording, id)
	}
	p, err := s.acquire(day, false)
	if err != nil {
		return err
	}
	defer s.yield(p)
	return s.moveToQuarantine(day, path.Join(dayDir(day), recordingsDir, e.Name()))
}
