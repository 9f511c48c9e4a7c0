package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"go.etcd.io/bbolt"
)

// The master key is an age identity (X25519) in a file of its own, outside the
// vault. It opens the keys of the days, which lie in keys/, each an age file
// to it; a key of a day opens what is sealed to the day. So whoever has the
// vault without this file has sizes and times of recordings, and no word.
//
// centralka.db keeps the public half, so that a vault is never written with
// another key than the one that opened it so far.

var keyMaster = []byte("master")

// masterPath is where the master key lies.
func (cfg Config) masterPath() string {
	if cfg.MasterKey != "" {
		return cfg.MasterKey
	}
	return filepath.Clean(cfg.Dir) + ".key"
}

// openMaster reads the master key and compares it with the one that the vault
// is sealed to. A vault that never was sealed takes the key that is there, or
// gets a new one.
//
// Order: the key's file is durable before the vault names it. A crash between
// leaves a key that the next start takes.
func (s *Store) openMaster() error {
	name := s.cfg.masterPath()
	var sealedTo string
	fresh := true
	err := s.central.view(func(tx *bbolt.Tx) error {
		sealedTo = string(tx.Bucket(bucketMarks).Get(keyMaster))
		k, _ := tx.Bucket(bucketRetention).Cursor().First()
		fresh = k == nil
		return nil
	})
	if err != nil {
		return err
	}
	if sealedTo == "" {
		keys, err := s.list(keysDir)
		if err != nil {
			return err
		}
		switch {
		case !fresh:
			return errors.New("it was written before vaults were sealed, which this version does not read; begin an empty one")
		case len(keys) > 0:
			return errors.New("there are keys of days in it and its centralka.db knows of none: restore it from a backup")
		}
	}
	identity, err := readMaster(name)
	if errors.Is(err, os.ErrNotExist) {
		if sealedTo != "" {
			return fmt.Errorf("the vault is sealed to %s, and the master key is not in %s: put it back; nothing can be read without it", sealedTo, name)
		}
		identity, err = createMaster(name)
	}
	if err != nil {
		return err
	}
	if own := identity.Recipient().String(); sealedTo != "" && own != sealedTo {
		return fmt.Errorf("master key %s is that of %s, and the vault is sealed to %s: put the right one in place", name, own, sealedTo)
	}
	s.master = identity
	if sealedTo != "" {
		return nil
	}
	return s.central.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMarks).Put(keyMaster, []byte(identity.Recipient().String()))
	})
}

// readMaster reads a file as age-keygen writes it, with one identity.
func readMaster(name string) (*age.X25519Identity, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open master key: %w", err)
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open master key: %w", err)
	}
	// Its group may read: the key may be another user's, as systemd's
	// credentials are.
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return nil, fmt.Errorf("master key %s has mode %04o and is open to others: chmod 600 it", name, mode)
	}
	list, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("master key %s is not an age identity, as age-keygen makes it", name) // err may quote the key
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("master key %s holds %d identities, not one", name, len(list))
	}
	identity, ok := list[0].(*age.X25519Identity)
	if !ok {
		return nil, fmt.Errorf("master key %s is not of the kind X25519", name)
	}
	return identity, nil
}

// CheckMasterKey tells what is wrong with the file of a master key. One that is
// not there yet is not wrong.
func CheckMasterKey(name string) error {
	if _, err := readMaster(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// createMaster makes a new master key; there must be none.
func createMaster(name string) (_ *age.X25519Identity, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make the master key (or make it by hand: age-keygen -o %s, readable by this program's user alone): %w", name, err)
		}
	}()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(identityText(identity))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = syncPath(filepath.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(name)) // half a key would bar the next start
	}
	return identity, nil
}

// identityText is an identity as the age tool reads it.
func identityText(identity *age.X25519Identity) string {
	return fmt.Sprintf("# public key: %s\n%s\n", identity.Recipient(), identity)
}

// parseIdentity reads what identityText writes.
func parseIdentity(text string) (*age.X25519Identity, error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return age.ParseX25519Identity(line)
		}
	}
	return nil, errors.New("no identity in it")
}

// syncPath makes the names in a folder outside the vault durable.
func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
