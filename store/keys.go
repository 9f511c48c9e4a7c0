package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"

	"filippo.io/age"

	"centralka/ordinance"
)

// keysDir holds the keys of the days, outside the folders that they open: a
// copy of days/ is of no use without it, and keys expire by themselves.
const keysDir = "keys"

func keyPath(day ordinance.Day) string { return keysDir + "/" + day.String() + ".age" }

// maxKeyFile bounds a day's key: an age file of one short text.
const maxKeyFile = 4096

// ensureKey makes the key of a day whose line is in the index and whose folder
// is not made. One that the line names is kept, because backups may be sealed
// to it; one that it does not name was left by a crash, has sealed nothing, and
// is replaced.
//
// Order: the key is durable as a whole before the line names it, and the line
// before anything is sealed to it.
func (s *Store) ensureKey(line retentionLine) error {
	if line.Recipient != "" {
		if _, err := s.dayKey(line.Day); err == nil {
			return nil
		}
	}
	identity, err := age.GenerateX25519Identity()
	if err == nil {
		err = s.writeKey(line.Day, identity)
	}
	if err == nil {
		err = s.changeLine(line.Day, func(l *retentionLine) { l.Recipient = identity.Recipient().String() })
	}
	if err != nil {
		return fmt.Errorf("make key of %v: %w", line.Day, err)
	}
	s.mu.Lock()
	s.keys[line.Day] = identity
	s.mu.Unlock()
	return nil
}

func (s *Store) writeKey(day ordinance.Day, identity *age.X25519Identity) (err error) {
	var sealed bytes.Buffer
	if err := sealTo(&sealed, s.master.Recipient(), []byte(identityText(identity))); err != nil {
		return err
	}
	if err := s.makeDir(keysDir); err != nil {
		return err
	}
	tmp := path.Join(keysDir, day.String()+".tmp")
	if err := s.remove(tmp); err != nil { // of a crash
		return err
	}
	f, err := s.files.create(s.root, tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove(tmp))
		}
	}()
	n, err := s.files.write(f, sealed.Bytes(), 0)
	if err == nil && n < sealed.Len() {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = s.files.fsync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.files.rename(s.root, tmp, keyPath(day)); err != nil {
		return err
	}
	return errors.Join(s.syncDir(keysDir), s.syncDir("."))
}

// sealTo writes content as an age file.
func sealTo(w io.Writer, to age.Recipient, content []byte) error {
	sealer, err := age.Encrypt(w, to)
	if err != nil {
		return err
	}
	_, err = sealer.Write(content)
	return errors.Join(err, sealer.Close())
}

// dayKey returns the key of a day that is online.
func (s *Store) dayKey(day ordinance.Day) (*age.X25519Identity, error) {
	s.mu.Lock()
	key, line := s.keys[day], s.lines[day]
	s.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := s.readKey(day)
	if err == nil && key.Recipient().String() != line.Recipient {
		err = fmt.Errorf("it is that of %s, and the day is sealed to %s", key.Recipient(), line.Recipient)
	}
	if err != nil {
		return nil, fmt.Errorf("key of day %v: %w", day, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.usable(s.lines[day]) { // destroyed meanwhile: do not keep it
		return nil, fmt.Errorf("day %v: %w", day, ErrGone)
	}
	s.keys[day] = key
	return key, nil
}

func (s *Store) readKey(day ordinance.Day) (*age.X25519Identity, error) {
	f, err := s.root.Open(keyPath(day))
	if notExist(err) {
		return nil, fmt.Errorf("%s is missing: restore it from a backup of the keys; without it nothing of that day can be read or written", keyPath(day))
	}
	if err != nil {
		return nil, err
	}
	sealed, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return openKey(sealed, s.master)
}

// openKey opens a day's key with the master key.
func openKey(sealed []byte, master age.Identity) (*age.X25519Identity, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), master)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return parseIdentity(string(text))
}

// destroyKey overwrites and unlinks the key of a day and makes sure that it is
// gone. What is sealed to it cannot be read from then on, here or in a backup.
// A key that is not there is as good.
func (s *Store) destroyKey(day ordinance.Day) error {
	s.mu.Lock()
	delete(s.keys, day)
	s.mu.Unlock()
	if err := s.makeDir(keysDir); err != nil {
		return err
	}
	for _, name := range []string{keyPath(day), path.Join(keysDir, day.String()+".tmp")} {
		if err := s.shred(name); err != nil {
			return fmt.Errorf("destroy key of %v: %w", day, err)
		}
	}
	if err := s.syncDir(keysDir); err != nil {
		return fmt.Errorf("destroy key of %v: %w", day, err)
	}
	if _, err := s.root.Lstat(keyPath(day)); !notExist(err) {
		return errors.Join(fmt.Errorf("key of %v is still there", day), err)
	}
	return nil
}

// shred overwrites a file in place with noise, durably, and unlinks it. It is
// for the few hundred bytes of a key: where a disk keeps old blocks all the
// same is told in docs/security.md.
func (s *Store) shred(name string) error {
	info, err := s.root.Lstat(name)
	if notExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		f, err := s.files.rewrite(s.root, name)
		if err != nil {
			return err
		}
		noise := make([]byte, info.Size())
		rand.Read(noise) // never fails (crypto/rand, Go 1.24)
		_, err = s.files.write(f, noise, 0)
		if err == nil {
			err = s.files.fsync(f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return s.remove(name)
}
