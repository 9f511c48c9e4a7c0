package store

import (
	"encoding/binary"
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

// Outage is a time in which the vault was not open, or was and Run did not
// mark it. It explains a gap to the guard of the sweep.
type Outage struct {
	From, To time.Time
	Orderly  bool // began with Close, not with a crash
}

// Outages returns all of them, oldest first.
func (s *Store) Outages() (list []Outage, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOutages).ForEach(func(_, v []byte) error {
			var o Outage
			if err := getJSON(v, &o); err != nil {
				return err
			}
			list = append(list, o)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read outages: %w", err)
	}
	return list, nil
}

// aliveMark is the newest sign of life.
type aliveMark struct {
	At      time.Time
	Stopped bool `json:",omitempty"`
}

var keyAlive = []byte("alive")

func (s *Store) markStart(now time.Time) error {
	return s.central.update(func(tx *bbolt.Tx) error {
		if text := tx.Bucket(bucketMarks).Get(keyAlive); text != nil {
			var last aliveMark
			if err := getJSON(text, &last); err != nil {
				return err
			}
			key := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
			o := Outage{From: last.At, To: utc(now), Orderly: last.Stopped}
			if err := putJSON(tx.Bucket(bucketOutages), key, o); err != nil {
				return err
			}
		}
		return putJSON(tx.Bucket(bucketMarks), keyAlive, aliveMark{At: utc(now)})
	})
}

func (s *Store) beat(now time.Time) error { return s.mark(aliveMark{At: utc(now)}) }
func (s *Store) markStop(now time.Time) error {
	return s.mark(aliveMark{At: utc(now), Stopped: true})
}

func (s *Store) mark(m aliveMark) error {
	return s.central.update(func(tx *bbolt.Tx) error {
		return putJSON(tx.Bucket(bucketMarks), keyAlive, m)
	})
}

func getJSON(text []byte, v any) error { return json.Unmarshal(text, v) }
