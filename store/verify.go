package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"centralka/ordinance"
)

// VerifyReport says what an integrity check found (S1.3-k).
type VerifyReport struct {
	At       time.Time
	Checked  int
	Bad      []VerifyFinding
	Complete bool
}

// VerifyFinding is one recording that is not what its record says.
type VerifyFinding struct {
	Day  ordinance.Day
	ID   ID
	What string // "missing", "altered", "no record", "unknown file NAME"
}

// LastVerify returns what the last integrity check of this run found.
func (s *Store) LastVerify() VerifyReport {
	s.reports.Lock()
	defer s.reports.Unlock()
	return s.reports.verify
}

// Verify hashes every recording again and holds it against its record, both
// ways. progress, if not nil, is told how many of how many are done.
func (s *Store) Verify(ctx context.Context, progress func(done, total int)) (VerifyReport, error) {
	report := VerifyReport{At: time.Now()}
	type item struct {
		day ordinance.Day
		rec CallRecord
	}
	var items []item
	known := map[ID]bool{}
	for rec, err := range s.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
		if err != nil {
			return report, fmt.Errorf("verify: %w", err)
		}
		known[rec.ID] = true
		if rec.Recording.SHA256 != "" {
			items = append(items, item{rec.Day, rec})
		}
	}
	for i, it := range items {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		what, err := s.verifyOne(it.rec)
		if err != nil {
			return report, fmt.Errorf("verify recording %v: %w", it.rec.ID, err)
		}
		if what != "" {
			report.Bad = append(report.Bad, VerifyFinding{it.day, it.rec.ID, what})
		}
		report.Checked++
		if progress != nil {
			progress(i+1, len(items))
		}
	}
	for _, d := range s.Days() {
		ids, strange, err := s.recordingsOn(d)
		if err != nil {
			return report, fmt.Errorf("verify: %w", err)
		}
		for _, id := range ids {
			if !known[id] {
				// It may have been put since; its record follows in a moment.
				if _, err := s.Call(d, id); errors.Is(err, ErrNotFound) {
					report.Bad = append(report.Bad, VerifyFinding{d, id, "no record"})
				}
			}
		}
		for _, name := range strange {
			report.Bad = append(report.Bad, VerifyFinding{Day: d, What: "unknown file " + name})
		}
	}
	report.Complete = true
	s.reports.Lock()
	s.reports.verify = report
	s.reports.Unlock()
	return report, nil
}

func (s *Store) verifyOne(rec CallRecord) (what string, err error) {
	c, err := s.OpenRecording(rec.Day, rec.ID)
	if errors.Is(err, ErrNotFound) {
		if _, err := s.Call(rec.Day, rec.ID); errors.Is(err, ErrNotFound) {
			return "", nil // its day was swept meanwhile
		}
		return "missing", nil
	}
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(c, 0, c.Size()))
	if err := errors.Join(err, c.Close()); err != nil {
		return "", err
	}
	if hex.EncodeToString(h.Sum(nil)) != rec.Recording.SHA256 {
		return "altered", nil
	}
	return "", nil
}
