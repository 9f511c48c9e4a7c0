package store

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"centralka/ordinance"
)

// DiskUsage says how much room the vault has.
type DiskUsage struct {
	Free, Total int64 // bytes of the file system, free for us
	// PerDay is the average of recordings of the last seven days that had any.
	PerDay int64
	// DaysLeft is how long Free lasts at that rate; -1 if it cannot be told.
	DaysLeft int
}

// Disk measures the room. Running out of it never deletes anything (S6-b).
func (s *Store) Disk() (DiskUsage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return DiskUsage{}, fmt.Errorf("measure disk: %w", err)
	}
	u := DiskUsage{Free: int64(st.Bavail) * st.Bsize, Total: int64(st.Blocks) * st.Bsize, DaysLeft: -1}
	today := ordinance.DayOf(time.Now())
	days := int64(0)
	for _, d := range s.daysBetween(today.Next(-7), today.Next(-1)) {
		var sum int64
		for rec, err := range s.CallsByDay(d, d) {
			if err != nil {
				return u, err
			}
			sum += rec.Recording.Size
		}
		if sum > 0 {
			u.PerDay += sum
			days++
		}
	}
	if days > 0 {
		u.PerDay /= days
		u.DaysLeft = int(u.Free / u.PerDay)
	}
	return u, nil
}
