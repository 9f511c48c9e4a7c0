//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
)

// benchDrift is what the switch held of the system early in the measured time,
// when all calls were up, and at its end.
type benchDrift struct {
	First benchHeld `json:"first"`
	Last  benchHeld `json:"last"`
}

type benchHeld struct {
	RSS     int64 `json:"rss_bytes"`
	Files   int   `json:"files"`
	Threads int   `json:"threads"`
}

// benchHeldBy looks at a process.
func benchHeldBy(pid int) (h benchHeld, err error) {
	u, err := benchUsageOf(pid)
	if err != nil {
		return h, err
	}
	h.RSS = u.rss
	for dir, n := range map[string]*int{"fd": &h.Files, "task": &h.Threads} {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/" + dir)
		if err != nil {
			return h, err
		}
		*n = len(entries)
	}
	return h, nil
}

// Bounds of what is no leak: a page of the status is being fetched, a database is
// being written, garbage waits for its collector.
const (
	benchDriftFiles   = 4
	benchDriftThreads = 4
	benchDriftRSS     = 8 << 20
)

// leaks tells what has grown, empty if nothing has.
func (d benchDrift) leaks() string {
	switch {
	case d.Last.Files > d.First.Files+benchDriftFiles:
		return fmt.Sprintf("open files grew from %d to %d", d.First.Files, d.Last.Files)
	case d.Last.Threads > d.First.Threads+benchDriftThreads:
		return fmt.Sprintf("threads grew from %d to %d", d.First.Threads, d.Last.Threads)
	case d.Last.RSS > d.First.RSS+d.First.RSS/4+benchDriftRSS:
		return fmt.Sprintf("memory grew from %.1f to %.1f MB", benchMB(d.First.RSS), benchMB(d.Last.RSS))
	}
	return ""
}
