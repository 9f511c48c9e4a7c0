package store

import (
	"os"
	"path/filepath"
)

// files are the operations by which the package changes the disk, apart from
// bbolt's own: one place in which tests inject faults.
type files struct {
	mkdir  func(path string) error
	create func(path string) (*os.File, error)
	write  func(f *os.File, b []byte) (int, error)
	sync   func(f *os.File) error
	rename func(from, to string) error
	remove func(path string) error
	// removeAll removes a folder and all in it.
	removeAll func(path string) error
}

var realFiles = files{
	mkdir: func(path string) error { return os.Mkdir(path, 0o700) },
	create: func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	},
	write:     func(f *os.File, b []byte) (int, error) { return f.Write(b) },
	sync:      func(f *os.File) error { return f.Sync() },
	rename:    os.Rename,
	remove:    os.Remove,
	removeAll: os.RemoveAll,
}

// syncDir makes the entries of the folder that holds path durable.
func (s *Store) syncDir(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = s.files.sync(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
