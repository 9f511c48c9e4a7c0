package store

import (
	"sync"
	"time"
)

// sightings are when sessions were last seen, in memory: the disk learns of it
// once a minute, not with each request.
type sightings struct {
	mu   sync.Mutex // guards what follows
	last map[ID]sighting
}

type sighting struct{ at, written time.Time }

// newest is when a session was last seen, by memory or by what the disk says.
func (s *sightings) newest(o Session) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.last[o.ID].at; at.After(o.Seen) {
		return at
	}
	return o.Seen
}

// note notes that a session was seen and tells whether the disk should know.
func (s *sightings) note(id ID, now time.Time) (write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[ID]sighting)
	}
	for other, seen := range s.last { // few: those of a working day
		if now.Sub(seen.at) > sessionLimit {
			delete(s.last, other)
		}
	}
	seen := s.last[id]
	if write = now.Sub(seen.written) >= seenEvery; write {
		seen.written = now
	}
	seen.at = now
	s.last[id] = seen
	return write
}
