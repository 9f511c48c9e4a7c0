package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

var keySearch = []byte("search")

// SearchDigest is what the audit log keeps of what somebody searched for on a
// day: a keyed hash. The key is drawn for the day, lies in its folder and goes
// with it, so that after six months nobody can find out by trying numbers; until
// then whoever asks "was this number searched for?" can be answered.
func (s *Store) SearchDigest(day ordinance.Day, what string) (Digest, error) {
	p, err := s.acquire(day, true)
	if err != nil {
		return Digest{}, fmt.Errorf("hash what is searched for: %w", err)
	}
	defer s.yield(p)
	var key []byte
	read := func(tx *bbolt.Tx) error {
		key = append([]byte(nil), tx.Bucket(bucketKeys).Get(keySearch)...)
		return nil
	}
	if err = p.view(read); err == nil && len(key) == 0 {
		err = p.update(func(tx *bbolt.Tx) error {
			if err := read(tx); err != nil || len(key) > 0 {
				return err // somebody else was first
			}
			key = make([]byte, sha256.Size)
			rand.Read(key) // never fails (crypto/rand, Go 1.24)
			return tx.Bucket(bucketKeys).Put(keySearch, key)
		})
	}
	if err != nil {
		return Digest{}, fmt.Errorf("hash what is searched for: %w", err)
	}
	sum := hmac.New(sha256.New, key)
	sum.Write([]byte(what))
	return Digest(sum.Sum(nil)), nil
}
