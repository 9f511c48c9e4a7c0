package store

import (
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Binding is where a registered phone is reached; the registrar owns it, the
// vault keeps it over a restart.
type Binding struct {
	Contact   string
	Received  string // source address and port of the REGISTER
	Transport string
	CallID    string
	CSeq      uint32
	Expires   time.Time
	UserAgent string `json:",omitempty"`
	Instance  string `json:",omitempty"` // +sip.instance, RFC 5626 §4.1
}

// PutBindings stores the bindings of an extension in place of those before;
// none takes it out.
func (s *Store) PutBindings(ext string, b []Binding) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		if len(b) == 0 {
			return tx.Bucket(bucketBindings).Delete([]byte(ext))
		}
		return putJSON(tx.Bucket(bucketBindings), []byte(ext), b)
	})
	if err != nil {
		return fmt.Errorf("put bindings of extension %q: %w", ext, err)
	}
	return nil
}

// Bindings returns the bindings of all extensions, expired ones too.
func (s *Store) Bindings() (map[string][]Binding, error) {
	all := make(map[string][]Binding)
	err := s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketBindings).ForEach(func(k, v []byte) error {
			var list []Binding
			if err := getJSON(v, &list); err != nil {
				return fmt.Errorf("extension %q: %w", k, err)
			}
			all[string(k)] = list
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read bindings: %w", err)
	}
	return all, nil
}

func getJSON(text []byte, v any) error { return json.Unmarshal(text, v) }
