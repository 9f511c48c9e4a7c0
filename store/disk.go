package store

import (
	"fmt"
	"io/fs"
	"time"

	"centralka/ordinance"
)

// DiskUsage is what the status page shows of the vault's disk. Nothing in this
// package acts on it: a full disk deletes nothing (S6-b).
type DiskUsage struct {
	Free, Total uint64     // bytes of the file system, free for us
	Days        []DayUsage // the last seven days and today, as far as the vault has them
	// DaysLeft is for how many days Free lasts at the average of the Days
	// before today, or of today if there are none; -1 if that is not known.
	// Days that the sweep will free are not counted.
	DaysLeft int
}

// DayUsage is the size of a day's folder.
type DayUsage struct {
	Day   ordinance.Day
	Bytes int64
}

// usageAge is for how long the folders are not measured again.
const usageAge = time.Minute

// Disk measures the disk now and the days at most a minute ago.
func (s *Store) Disk() (DiskUsage, error) {
	free, total, err := statfs(s.dir)
	if err != nil {
		return DiskUsage{}, fmt.Errorf("measure disk: %w", err)
	}
	s.mu.Lock()
	usage, fresh := s.usage, !s.measured.IsZero() && time.Since(s.measured) < usageAge
	s.mu.Unlock()
	if !fresh {
		if usage, err = s.measureDays(ordinance.DayOf(time.Now())); err != nil {
			return DiskUsage{}, fmt.Errorf("measure days: %w", err)
		}
		s.mu.Lock()
		s.usage, s.measured = usage, time.Now()
		s.mu.Unlock()
	}
	usage.Free, usage.Total = free, total
	usage.DaysLeft = daysLeft(free, usage.Days, ordinance.DayOf(time.Now()))
	return usage, nil
}

func (s *Store) measureDays(today ordinance.Day) (u DiskUsage, err error) {
	for _, day := range s.keptDays(today.Next(-7), today) {
		d := DayUsage{Day: day}
		err := s.walk(dayDir(day), func(_ string, info fs.FileInfo) { d.Bytes += info.Size() })
		if err != nil {
			return DiskUsage{}, err
		}
		u.Days = append(u.Days, d)
	}
	return u, nil
}

func daysLeft(free uint64, days []DayUsage, today ordinance.Day) int {
	var sum, n, now int64
	for _, d := range days {
		if d.Day == today {
			now = d.Bytes
		} else {
			sum, n = sum+d.Bytes, n+1
		}
	}
	if n == 0 {
		sum, n = now, 1
	}
	if sum == 0 {
		return -1
	}
	return int(float64(free) / (float64(sum) / float64(n)))
}
