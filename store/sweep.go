package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Tombstone is what stays of an item after its day was swept (S6-f). It names
// no one.
type Tombstone struct {
	ID      ID // of a file not named after an id: from a hash of its name
	Kind    Kind
	Created ordinance.Day
	LastDay ordinance.Day
	Deleted time.Time `json:",omitzero"` // zero: its removal has begun
	Size    int64     `json:",omitempty"`
	SHA256  string    `json:",omitempty"` // of a recording, from its record
	Job     ID        // the sweep that removed it
	// Verified: after the removal the item's folder was looked for and not
	// found.
	Verified bool
}

// SweepReport tells what the sweeps of one day did: those with one cutoff are
// one report.
type SweepReport struct {
	Job    ID
	Cutoff ordinance.Day // days were due whose last day online was before it
	Began  time.Time
	Ended  time.Time
	Days   []SweptDay `json:",omitempty"`
	// Unexplained are the names in days/ that the retention index does not list
	// as kept. They are never removed.
	Unexplained []string `json:",omitempty"`
	// Held says why the guard let nothing be removed that was due (S6-j).
	Held string `json:",omitempty"`
	// Err says what stood in the way, if anything did.
	Err string `json:",omitempty"`
	// Audit is the audit log's newest entry when the report was written.
	Audit AuditHead `json:",omitzero"`
}

// SweptDay is a day that was removed.
type SweptDay struct {
	DueDay
	Tombstones int
	ListSHA256 string    // of what List makes of the tombstones
	Removed    time.Time // its absence was verified
	Late       int       // days after the one on which it was due
	Audit      uint64    // entry of the audit log that says so
}

// sweepScope says which of the due days a sweep takes.
type sweepScope bool

const (
	allDue     sweepScope = false
	onlyDoomed sweepScope = true // those whose removal was begun
)

// Sweep removes every day whose last day online is over at now, and finishes
// removals that an earlier one began. Days that are due and not begun stay, and
// a *HeldError is among the errors, while the guard has a reason to doubt the
// clock (S6-j). It deletes nothing else; days/ is
// searched for folders that the index does not explain, which are reported.
// now must not be in the future: nothing here deletes early (S6-c). The error
// joins what stood in the way; what could be removed has been, and another
// Sweep takes up the rest. ctx is looked at between days.
func (s *Store) Sweep(ctx context.Context, now time.Time) (SweepReport, error) {
	if now.After(time.Now()) {
		return SweepReport{}, fmt.Errorf("sweep of %v: that instant has not come", now)
	}
	return s.sweep(ctx, now, allDue)
}

func (s *Store) sweep(ctx context.Context, now time.Time, scope sweepScope) (SweepReport, error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	report := SweepReport{Job: NewID(), Cutoff: ordinance.DayOf(now), Began: utc(time.Now())}
	due := s.selectLines(func(l retentionLine) bool {
		return l.due(report.Cutoff) && (scope == allDue || l.State == stateDoomed)
	})
	if scope == onlyDoomed && len(due) == 0 {
		return report, nil
	}
	var errs []error
	if held := s.guard(due); held != "" {
		report.Held = held
		due = slices.DeleteFunc(due, func(l retentionLine) bool { return l.State != stateDoomed })
	}
	for _, line := range due {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		swept, err := s.sweepDay(line, report)
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep day %v: %w", line.Day, err))
			continue
		}
		report.Days = append(report.Days, swept)
		s.log.Info("day swept", "day", line.Day, "calls", swept.Calls, "recordings", swept.Recordings)
	}
	unexplained, err := s.unexplained()
	if err != nil {
		errs = append(errs, err)
	}
	report.Unexplained = unexplained
	report.Ended = utc(time.Now())
	if err := errors.Join(errs...); err != nil {
		report.Err = err.Error()
	}
	if err := s.keepReport(report); err != nil {
		errs = append(errs, fmt.Errorf("keep report of sweep %v: %w", report.Job, err))
	}
	if report.Held != "" {
		errs = append(errs, &HeldError{report.Held})
	}
	return report, errors.Join(errs...)
}

// guard tells why the days that are due may not go, "" if they may. Removals
// that were begun are none of its business.
func (s *Store) guard(due []retentionLine) string {
	if !slices.ContainsFunc(due, func(l retentionLine) bool { return l.State != stateDoomed && l.Made }) {
		return ""
	}
	if err := s.beat(time.Now()); err != nil {
		return fmt.Sprintf("the clock could not be noted: %v", err)
	}
	return s.SweepHeld()
}

// Protocols yields what the sweeps of the days from..to did, a day each, oldest
// first: the data of the protocol of deletion (S6-g). A zero day leaves that
// end open. The list of a swept day's items is Tombstones.
func (s *Store) Protocols(from, to ordinance.Day) (list []SweepReport, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketSweeps).Cursor()
		for k, v := c.Seek([]byte(from.String())); k != nil && (to.IsZero() || string(k) <= to.String()); k, v = c.Next() {
			var r SweepReport
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("of %s: %w", k, err)
			}
			list = append(list, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read protocols of deletion: %w", err)
	}
	return list, nil
}

// LastSweep returns the report of the last sweep, zero if there was none.
func (s *Store) LastSweep() SweepReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastSweep
}

// keepReport stores a report; one of the same cutoff is continued, so that a
// day has one protocol however often the vault was opened on it. The days in
// it are those that bury has entered.
func (s *Store) keepReport(r SweepReport) error {
	var kept SweepReport
	err := s.central.update(func(tx *bbolt.Tx) error {
		old, err := storedReport(tx, r)
		if err != nil {
			return err
		}
		kept = r
		kept.Began, kept.Days = old.Began, old.Days
		if kept.Audit, err = auditHead(tx); err != nil {
			return err
		}
		return putJSON(tx.Bucket(bucketSweeps), []byte(r.Cutoff.String()), kept)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.lastSweep = kept
	s.mu.Unlock()
	return nil
}

// storedReport is what is kept of the sweeps with r's cutoff, or r without its
// days if that is nothing.
func storedReport(tx *bbolt.Tx, r SweepReport) (SweepReport, error) {
	text := tx.Bucket(bucketSweeps).Get([]byte(r.Cutoff.String()))
	if text == nil {
		r.Days = nil
		return r, nil
	}
	var old SweepReport
	if err := json.Unmarshal(text, &old); err != nil {
		return old, fmt.Errorf("report of %v: %w", r.Cutoff, err)
	}
	return old, nil
}

// sweepDay removes one day. Its steps, each durable before the next:
//
//  1. The day is closed to readers and writers of this process, and its line is
//     read anew from the index.
//  2. One transaction: the line says doomed, every item gets a tombstone
//     without a deletion instant. From here on the day will be removed,
//     whatever happens; its items are known though its database goes.
//  3. The day's key is overwritten, unlinked and looked for, keys/ synced. From
//     here on no copy of the day's content can be read.
//  4. The folder is removed, days/ synced, and the folder looked for. If it is
//     there, the day stays doomed.
//  5. One transaction: deletion instant and verification into the tombstones,
//     the day into the protocol, the line says gone.
//
// A crash before 2 leaves a day that is due; one after it a doomed day, with
// which a later sweep goes on at 3. Tombstones are keyed by day, kind and id,
// so nothing done twice is there twice.
func (s *Store) sweepDay(line retentionLine, run SweepReport) (SweptDay, error) {
	day, job := line.Day, run.Job
	line, err := s.listed(day)
	if err != nil {
		return SweptDay{}, err
	}
	if !line.due(run.Cutoff) {
		return SweptDay{}, errors.New("the index does not list it as due")
	}
	if want := ordinance.LastDay(day); line.LastDay != want {
		return SweptDay{}, fmt.Errorf("index says its last day is %v, the ordinance %v", line.LastDay, want)
	}
	s.bar(day, true)
	if err := s.evict(day); err != nil {
		s.log.Error("close a day that is swept", "day", day, "err", err)
	}
	if line.State != stateDoomed {
		if err := s.doom(day, job); err != nil {
			s.bar(day, false)
			return SweptDay{}, fmt.Errorf("journal the intent: %w", err)
		}
	}
	if err := s.destroyKey(day); err != nil {
		return SweptDay{}, err
	}
	if err := s.removeTree(dayDir(day)); err != nil {
		return SweptDay{}, err
	}
	if err := s.syncDir(daysDir); err != nil {
		return SweptDay{}, err
	}
	if _, err := s.root.Lstat(dayDir(day)); !notExist(err) {
		return SweptDay{}, errors.Join(errors.New("its folder is still there"), err)
	}
	return s.bury(day, run)
}

// listed reads a day's line from the index itself.
func (s *Store) listed(day ordinance.Day) (line retentionLine, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucketRetention).Get([]byte(day.String()))
		if text == nil {
			return errNoDay
		}
		return json.Unmarshal(text, &line)
	})
	if err == nil && line.Day != day {
		err = fmt.Errorf("its line speaks of %v", line.Day)
	}
	return line, err
}

// evict closes the day's database and what journals are still open. No holder
// of the day keeps it longer than one operation, so this does not hang.
func (s *Store) evict(day ordinance.Day) error {
	errs := []error{s.retire(day)} // then no one can be making a journal
	for _, j := range s.openJournals() {
		if j.day == day {
			errs = append(errs, j.Close())
		}
	}
	return errors.Join(errs...)
}

// doom is step 2 of sweepDay.
func (s *Store) doom(day ordinance.Day, job ID) error {
	items, t, err := s.items(day)
	if err != nil {
		return err
	}
	st := t.statistics
	return s.changeLineWith(day, func(tx *bbolt.Tx, l *retentionLine) error {
		l.State, l.Job = stateDoomed, job
		l.Calls, l.Recordings, l.Bytes = t.calls(), t.recordings, t.bytes
		if st != nil { // else what was kept when the day was settled stays
			if err := keepStatistics(tx, day, *st); err != nil {
				return err
			}
		}
		for _, item := range items {
			item.Created, item.LastDay, item.Job = day, l.LastDay, job
			if err := putJSON(tx.Bucket(bucketTombstones), tombstoneKey(item), item); err != nil {
				return err
			}
			if err := auditItem(tx, ActionDeletionBegun, item); err != nil {
				return err
			}
		}
		return appendAudit(tx, AuditEvent{
			Action: ActionDeletionBegun, Object: DayObject(day), Outcome: Allowed,
			Details: []AuditDetail{DetailID("job", job), DetailDay("last", l.LastDay), DetailCount("items", len(items))},
		})
	})
}

// auditItem notes one of the two events of an item's deletion (S6-g). What is
// no call and no recording is counted in the event of its day.
func auditItem(tx *bbolt.Tx, action Action, item Tombstone) error {
	if item.Kind != KindCall && item.Kind != KindRecording {
		return nil
	}
	return appendAudit(tx, AuditEvent{Action: action, Object: ObjectOf(ObjectCall, item.ID), Outcome: Allowed,
		Details: []AuditDetail{DetailID("job", item.Job)}})
}

func tombstoneKey(t Tombstone) []byte {
	return append([]byte(t.Created.String()+"/"+string(t.Kind)+"/"), t.ID[:]...)
}

// items lists what a day holds: calls from its database and files from its
// folder. A database that cannot be read does not keep the day from being
// removed; its recordings are then known by their files.
func (s *Store) items(day ordinance.Day) ([]Tombstone, totals, error) {
	found := make(map[string]Tombstone)
	add := func(t Tombstone) {
		if key := string(tombstoneKey(t)); found[key].SHA256 == "" {
			found[key] = t
		}
	}
	t, err := s.recordedItems(day, add)
	if err != nil {
		s.log.Error("database of a due day cannot be read; sweeping it by its files", "day", day, "err", err)
	}
	err = s.walk(dayDir(day), func(name string, info fs.FileInfo) {
		item := Tombstone{Kind: KindOther, Size: info.Size()}
		if id, ok := fileID(path.Base(name), recordingExt); ok {
			item.ID, item.Kind, item.Size = id, KindRecording, plainSize(item.Size)
		} else if id, ok := fileID(path.Base(name), ".journal"); ok {
			item.ID, item.Kind = id, KindJournal
		} else if name == path.Join(dayDir(day), "day.db") {
			return // its calls are listed one by one
		} else {
			sum := sha256.Sum256([]byte(name))
			item.ID = ID(sum[:len(ID{})])
		}
		add(item)
	})
	if err != nil {
		return nil, totals{}, err
	}
	items := make([]Tombstone, 0, len(found))
	for _, item := range found {
		items = append(items, item)
	}
	return items, t, nil
}

// recordedItems reads a day's database, which no one has open. bbolt panics on
// pages that make no sense and reads past the end of a file that was cut: both
// are errors here, because a due day goes whatever state it is in.
func (s *Store) recordedItems(day ordinance.Day, add func(Tombstone)) (t totals, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read it: %v", r)
		}
	}()
	name := path.Join(dayDir(day), "day.db")
	if _, err := s.root.Lstat(name); notExist(err) {
		return totals{}, nil // made by a crash, or not at all
	}
	options := ledgerOptions(s.root)
	options.ReadOnly, options.PreLoadFreelist = true, false
	db, err := bbolt.Open(name, 0o600, options)
	if err != nil {
		return totals{}, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		calls := tx.Bucket(bucketCalls)
		if calls == nil {
			return nil
		}
		t = readTotals(tx)
		if b := tx.Bucket(bucketStatistics); b != nil {
			if st, err := readStatistics(b); err != nil {
				s.log.Error("statistics of a due day cannot be read; those of its settling stay", "day", day, "err", err)
			} else {
				t.statistics = &st
			}
		}
		return calls.ForEach(func(k, v []byte) error {
			item := Tombstone{Kind: KindCall}
			if len(k) != len(item.ID) {
				return fmt.Errorf("key of %d bytes among the calls", len(k))
			}
			item.ID = ID(k)
			var rec CallRecord
			if json.Unmarshal(v, &rec) == nil && rec.Recording.SHA256 != "" {
				item.Kind, item.Size, item.SHA256 = KindRecording, rec.Recording.Size, rec.Recording.SHA256
			}
			add(item)
			return nil
		})
	})
	return t, errors.Join(err, db.Close())
}

// walk calls visit for every file under a folder.
func (s *Store) walk(dir string, visit func(name string, info fs.FileInfo)) error {
	entries, err := s.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			if err := s.walk(name, visit); err != nil {
				return err
			}
			continue
		}
		info, err := e.Info()
		if notExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", name, err)
		}
		visit(name, info)
	}
	return nil
}

// bury is step 5 of sweepDay.
func (s *Store) bury(day ordinance.Day, run SweepReport) (SweptDay, error) {
	now, job := utc(time.Now()), run.Job
	var swept SweptDay
	err := s.changeLineWith(day, func(tx *bbolt.Tx, l *retentionLine) error {
		stones, err := readTombstones(tx, day)
		if err != nil {
			return err
		}
		for _, t := range stones {
			t.Deleted, t.Job, t.Verified = now, job, true
			if err := putJSON(tx.Bucket(bucketTombstones), tombstoneKey(t), t); err != nil {
				return err
			}
			if err := auditItem(tx, ActionDeleted, t); err != nil {
				return err
			}
		}
		list := Digest(sha256.Sum256([]byte(List(stones))))
		err = appendAudit(tx, AuditEvent{
			Action: ActionDeleted, Object: DayObject(day), Outcome: Allowed,
			Details: []AuditDetail{DetailID("job", job), DetailCount("items", len(stones)), DetailDigest("list", list)},
		})
		if err != nil {
			return err
		}
		head, err := auditHead(tx)
		if err != nil {
			return err
		}
		l.State, l.Job, l.Removed, l.Made, l.Settled = stateGone, job, now, false, false
		l.Tombstones, l.ListSHA256 = len(stones), list.String()
		late := 0
		for d := l.LastDay.Next(1); d.Compare(run.Cutoff) < 0; d = d.Next(1) {
			late++
		}
		swept = SweptDay{
			DueDay:     DueDay{Day: day, LastDay: l.LastDay, Calls: l.Calls, Recordings: l.Recordings, Bytes: l.Bytes},
			Tombstones: l.Tombstones, ListSHA256: l.ListSHA256, Removed: now, Late: late, Audit: head.Seq,
		}
		report, err := storedReport(tx, run)
		if err != nil {
			return err
		}
		report.Days = append(report.Days, swept)
		if err := putJSON(tx.Bucket(bucketSweeps), []byte(run.Cutoff.String()), report); err != nil {
			return err
		}
		return tx.Bucket(bucketIntegrity).Delete([]byte(day.String()))
	})
	if err != nil {
		return SweptDay{}, fmt.Errorf("write tombstones: %w", err)
	}
	s.bar(day, false) // the line says it now
	return swept, nil
}

// List is what the hash of a day's tombstones is of: a line for each, in the
// order of Tombstones, with kind, id, size and SHA-256.
func List(stones []Tombstone) string {
	var b strings.Builder
	for _, t := range stones {
		fmt.Fprintf(&b, "%s %v %d %s\n", t.Kind, t.ID, t.Size, t.SHA256)
	}
	return b.String()
}

// Tombstones returns what is known of the items of a swept day, in the order of
// kind and id.
func (s *Store) Tombstones(day ordinance.Day) (stones []Tombstone, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		stones, err = readTombstones(tx, day)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tombstones of %v: %w", day, err)
	}
	return stones, nil
}

func readTombstones(tx *bbolt.Tx, day ordinance.Day) (stones []Tombstone, err error) {
	prefix := day.String() + "/"
	c := tx.Bucket(bucketTombstones).Cursor()
	for k, v := c.Seek([]byte(prefix)); len(k) > len(prefix) && string(k[:len(prefix)]) == prefix; k, v = c.Next() {
		var t Tombstone
		if err := json.Unmarshal(v, &t); err != nil {
			return nil, err
		}
		stones = append(stones, t)
	}
	return stones, nil
}

// unexplained lists what is in days/ and not a kept or doomed day.
func (s *Store) unexplained() ([]string, error) {
	entries, err := s.list(daysDir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		day, err := ordinance.ParseDay(e.Name())
		line, listed := s.line(day)
		if err != nil || !listed || line.State == stateGone || !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
