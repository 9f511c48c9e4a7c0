package store

import (
	"fmt"

	"go.etcd.io/bbolt"
)

// PhoneState is what the user of an extension wants of its phones, kept over a
// restart: the desk and the switch own it.
type PhoneState struct {
	Quiet bool   `json:",omitempty"` // does not want to be disturbed
	Away  string `json:",omitempty"` // why its agent takes no calls; empty: takes them
}

// PutPhone stores the state of an extension in place of the one before.
func (s *Store) PutPhone(ext string, p PhoneState) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		return putJSON(tx.Bucket(bucketPhones), []byte(ext), p)
	})
	if err != nil {
		return fmt.Errorf("put state of extension %q: %w", ext, err)
	}
	return nil
}

// Phones returns the state of every extension that has one.
func (s *Store) Phones() (map[string]PhoneState, error) {
	all := make(map[string]PhoneState)
	err := s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketPhones).ForEach(func(k, v []byte) error {
			var p PhoneState
			if err := getJSON(v, &p); err != nil {
				return fmt.Errorf("extension %q: %w", k, err)
			}
			all[string(k)] = p
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read states of extensions: %w", err)
	}
	return all, nil
}
