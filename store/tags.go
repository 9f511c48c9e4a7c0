package store

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
)

// Tag says which unit a call concerned, and what about; agents set it at
// wrap-up (S4.3-h).
type Tag struct {
	At    time.Time
	By    string // the agent's phone, or an account
	Unit  ID     `json:",omitzero"`
	Topic string `json:",omitempty"`
}

// maxTopic bounds a topic, in bytes.
const maxTopic = 200

// Tag returns the tag that holds; false if the call has none.
func (rec CallRecord) Tag() (Tag, bool) {
	if n := len(rec.Tags); n > 0 {
		return rec.Tags[n-1], true
	}
	return Tag{}, false
}

// TagCall sets the tag of a call, whether it goes on or has ended; its At is set
// here. Tags before it stay in the record as its trace. A unit must be an active
// one; none says that it was not known.
func (s *Store) TagCall(id ID, tag Tag) error {
	if err := s.tagCall(id, tag); err != nil {
		return fmt.Errorf("tag call %v: %w", id, err)
	}
	return nil
}

func (s *Store) tagCall(id ID, tag Tag) error {
	tag.At, tag.By, tag.Topic = utc(time.Now()), strings.TrimSpace(tag.By), strings.TrimSpace(tag.Topic)
	switch {
	case tag.By == "":
		return errors.New("it lacks who sets it")
	case len(tag.Topic) > maxTopic || !utf8.ValidString(tag.Topic):
		return fmt.Errorf("its topic is longer than %d bytes, or no text", maxTopic)
	case tag.Unit.IsZero() && tag.Topic == "":
		return errors.New("it has neither unit nor topic")
	}
	if !tag.Unit.IsZero() {
		u, err := s.Unit(tag.Unit)
		if err != nil {
			return err
		}
		if !u.Active {
			return fmt.Errorf("unit %q is not active", u.Name)
		}
	}
	rec, err := s.Find(id)
	if err != nil {
		return err
	}
	return s.change(rec.Day, func(tx *bbolt.Tx) error {
		now, err := getCall(tx, id)
		if err != nil {
			return err
		}
		now.Tags = append(now.Tags, tag)
		return putJSON(tx.Bucket(bucketCalls), id[:], now)
	})
}
