package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// bucketLadders holds what went over the wire for each call: id -> Ladder.
var bucketLadders = []byte("ladders")

// Ladder is the SIP messages of one call in the order in which they crossed
// our sockets, for the administrator who asks why a call failed. It names no
// one: numbers are masked, and it goes with its day.
type Ladder struct {
	// Parties are the columns beside our own, in the order of their first message.
	Parties []LadderParty
	Lines   []LadderLine
	// Cut is how many messages were left out in the middle of a long dialog.
	Cut int `json:",omitempty"`
}

// LadderParty is a peer: a trunk by its name or a phone by its extension.
type LadderParty struct {
	Leg  string // as in the log: "a", "b1", …
	Name string
}

// LadderLine is one message, or a copy of one sent again.
type LadderLine struct {
	At        time.Time
	Leg       string
	Sent      bool   // by us; else received
	Transport string // "UDP", "TCP", "TLS"
	// Method of a request, or of the request that a response answers.
	Method string
	Status int    `json:",omitempty"` // of a response
	Text   string `json:",omitempty"` // reason phrase, or the masked Request-URI
	CSeq   uint32
	// Notes are what else decides a call's fate: the voice offered or answered,
	// Reason, Retry-After, Session-Expires, Refer-To, …
	Notes  []string `json:",omitempty"`
	Repeat bool     `json:",omitempty"` // byte for byte what went before
}

// PutLadder stores a call's ladder in the call's day, in place of the one
// before, and returns when that is durable.
func (s *Store) PutLadder(day ordinance.Day, id ID, ladder Ladder) error {
	p, err := s.acquire(day, true)
	if err == nil {
		defer s.yield(p)
		err = p.update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(bucketLadders), id[:], ladder) })
	}
	if err != nil {
		return fmt.Errorf("put ladder of call %v of %v: %w", id, day, err)
	}
	return nil
}

// Ladder returns the ladder of a call. The error is ErrNotFound if there is
// none, ErrGone once the day's term is over.
func (s *Store) Ladder(day ordinance.Day, id ID) (ladder Ladder, err error) {
	err = s.look(day, func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucketLadders).Get(id[:])
		if text == nil {
			return ErrNotFound
		}
		return json.Unmarshal(text, &ladder)
	})
	if errors.Is(err, errNoDay) {
		err = ErrNotFound
	}
	if err != nil {
		return Ladder{}, fmt.Errorf("ladder of call %v of %v: %w", id, day, err)
	}
	return ladder, nil
}
