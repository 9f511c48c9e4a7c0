package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Problem is what an integrity check found wrong.
type Problem string

const (
	ProblemMismatch   Problem = "mismatch"   // size or SHA-256 is not the record's
	ProblemMissing    Problem = "missing"    // the record names a file that is not there
	ProblemOrphan     Problem = "orphan"     // a file that no record names and no journal is about to
	ProblemUnreadable Problem = "unreadable" // the day or the file cannot be read
)

// Finding is one problem. Detail is for people and names no one.
type Finding struct {
	Day     ordinance.Day
	ID      ID `json:",omitzero"`
	Problem Problem
	Detail  string `json:",omitempty"`
}

// DayCheck is the newest result of checking a day.
type DayCheck struct {
	Day        ordinance.Day
	Checked    time.Time
	Recordings int // hashed
	Bytes      int64
	Findings   []Finding `json:",omitempty"`
}

// VerifyReport is the result of checking several days.
type VerifyReport struct {
	Began, Ended time.Time
	Days         int
	Recordings   int
	Bytes        int64
	Findings     []Finding
}

// Verify hashes every recording anew and compares it with its record (S1.3-k);
// it also looks for files without records. progress, if not nil, is told after
// each recording how many of how many are done. The error is about the check
// itself, ctx's among them; what is wrong with recordings is in the report.
func (s *Store) Verify(ctx context.Context, progress func(done, total int)) (VerifyReport, error) {
	return s.verify(ctx, s.keptDays(ordinance.Day{}, ordinance.Day{}), progress)
}

// checkAtNight verifies yesterday and a seventh of the older days, so that
// each recording is hashed on its first night and then once a week, however
// large the vault.
func (s *Store) checkAtNight(ctx context.Context) {
	today := ordinance.DayOf(time.Now())
	days := s.keptDays(ordinance.Day{}, today.Next(-1))
	days = slices.DeleteFunc(days, func(d ordinance.Day) bool {
		return d != today.Next(-1) && d.Weekday() != today.Weekday()
	})
	report, err := s.verify(ctx, days, nil)
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.Error("check integrity", "err", err)
	case len(report.Findings) > 0:
		s.log.Error("integrity check found problems", "findings", len(report.Findings), "recordings", report.Recordings)
	}
}

// Integrity returns the newest result of each day that is kept and was checked,
// oldest first.
func (s *Store) Integrity() (checks []DayCheck, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIntegrity).ForEach(func(k, v []byte) error {
			var c DayCheck
			if err := getJSON(v, &c); err != nil {
				return fmt.Errorf("result of %s: %w", k, err)
			}
			checks = append(checks, c)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("results of integrity checks: %w", err)
	}
	return checks, nil
}

func (s *Store) verify(ctx context.Context, days []ordinance.Day, progress func(done, total int)) (VerifyReport, error) {
	report := VerifyReport{Began: utc(time.Now())}
	total := 0
	for _, day := range days {
		if progress == nil {
			break
		}
		if t, err := s.totals(day); err == nil { // else it is found below
			total += t.recordings
		}
	}
	step := func() {
		report.Recordings++
		if progress != nil {
			progress(report.Recordings, max(total, report.Recordings))
		}
	}
	var checks []DayCheck
	var failed error
	buf := make([]byte, 256<<10)
	for _, day := range days {
		check, err := s.verifyDay(ctx, day, buf, step)
		if errors.Is(err, ErrGone) {
			continue // swept meanwhile
		}
		if err != nil {
			failed = fmt.Errorf("verify %v: %w", day, err)
			break
		}
		checks = append(checks, check)
		report.Days++
		report.Bytes += check.Bytes
		report.Findings = append(report.Findings, check.Findings...)
	}
	report.Ended = utc(time.Now())
	return report, errors.Join(failed, s.keepChecks(checks))
}

func (s *Store) keepChecks(checks []DayCheck) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		for _, c := range checks {
			if line, _ := s.line(c.Day); line.State != stateKept {
				continue
			}
			if err := putJSON(tx.Bucket(bucketIntegrity), []byte(c.Day.String()), c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep results of integrity check: %w", err)
	}
	return nil
}

// verifyDay lists the files before it reads the records: a recording that is
// put meanwhile is then not in the list, one that is committed has a record.
func (s *Store) verifyDay(ctx context.Context, day ordinance.Day, buf []byte, step func()) (DayCheck, error) {
	check := DayCheck{Day: day, Checked: utc(time.Now())}
	find := func(id ID, problem Problem, detail string) {
		check.Findings = append(check.Findings, Finding{day, id, problem, detail})
	}
	if err := s.mayRead(day); err != nil {
		return check, err
	}
	files, journals, err := s.dayFiles(day, find)
	if err != nil {
		return check, err
	}
	for rec, err := range s.scan([]ordinance.Day{day}, bucketTime, nil) {
		if err := ctx.Err(); err != nil {
			return check, err
		}
		if err != nil {
			find(ID{}, ProblemUnreadable, err.Error())
			continue
		}
		if rec.Recording.SHA256 == "" {
			continue
		}
		delete(files, rec.ID)
		n, sum, err := s.hashRecording(ctx, day, rec.ID, buf)
		switch {
		case errors.Is(err, ErrGone) || ctx.Err() != nil:
			return check, err
		case errors.Is(err, ErrNotFound):
			find(rec.ID, ProblemMissing, "")
		case err != nil:
			find(rec.ID, ProblemUnreadable, err.Error())
		case n != rec.Recording.Size:
			find(rec.ID, ProblemMismatch, fmt.Sprintf("%d bytes, the record says %d", n, rec.Recording.Size))
		case sum != rec.Recording.SHA256:
			find(rec.ID, ProblemMismatch, "SHA-256 "+sum)
		}
		check.Recordings++
		check.Bytes += n
		step()
	}
	for id := range files {
		if !journals[id] { // else it is being rendered
			find(id, ProblemOrphan, "")
		}
	}
	return check, nil
}

// dayFiles lists recordings and journals by id; other names are findings.
func (s *Store) dayFiles(day ordinance.Day, find func(ID, Problem, string)) (files, journals map[ID]bool, err error) {
	read := func(sub, ext string) (map[ID]bool, error) {
		entries, err := s.list(path.Join(dayDir(day), sub))
		ids := make(map[ID]bool)
		for _, e := range entries {
			if id, ok := fileID(e.Name(), ext); ok {
				ids[id] = true
			} else {
				find(ID{}, ProblemOrphan, "a file in "+sub+"/ that is not ours")
			}
		}
		return ids, err
	}
	if files, err = read(recordingsDir, recordingExt); err != nil {
		return nil, nil, err
	}
	journals, err = read(journalsDir, ".journal")
	return files, journals, err
}

func (s *Store) hashRecording(ctx context.Context, day ordinance.Day, id ID, buf []byte) (int64, string, error) {
	c, err := s.OpenRecording(day, id)
	if err != nil {
		return 0, "", err
	}
	defer c.Close() // was only read
	sum, n := sha256.New(), int64(0)
	for r := io.NewSectionReader(c, 0, c.Size()); ; {
		if err := ctx.Err(); err != nil {
			return n, "", err
		}
		k, err := r.Read(buf)
		sum.Write(buf[:k])
		n += int64(k)
		if err == io.EOF {
			return n, hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return n, "", err
		}
	}
}
