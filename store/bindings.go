package store

import (
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Binding is a registered desk phone, kept so that a restart does not lose it.
type Binding struct {
	Contact   string // URI
	Received  string // address and port that its REGISTER came from
	Transport string // "UDP", "TCP", "TLS"
	CallID    string
	CSeq      uint32
	Expires   time.Time
	UserAgent string `json:",omitempty"`
	Instance  string `json:",omitempty"` // +sip.instance (RFC 5626 §4.1)
}

// PutBindings replaces the bindings of an extension.
func (s *Store) PutBindings(ext string, list []Binding) error {
	v, err := json.Marshal(list)
	if err != nil {
		return err
	}
	err = s.main.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketBindings)
		if len(list) == 0 {
			return b.Delete([]byte(ext))
		}
		return b.Put([]byte(ext), v)
	})
	if err != nil {
		return fmt.Errorf("put bindings of %s: %w", ext, err)
	}
	return nil
}

// Bindings returns the bindings of every extension, expired ones included.
func (s *Store) Bindings() (map[string][]Binding, error) {
	out := map[string][]Binding{}
	err := s.main.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketBindings).ForEach(func(k, v []byte) error {
			var list []Binding
			if err := json.Unmarshal(v, &list); err != nil {
				return fmt.Errorf("bindings of %s: %w", k, err)
			}
			out[string(k)] = list
			return nil
		})
	})
	return out, err
}
