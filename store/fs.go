package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// fileOps are the package's own operations on files, in one place so that a
// test can fail the n-th of them or look at the folder as a crash there would
// leave it. bbolt has no such seam; it writes through its own.
type fileOps struct {
	create   func(root *os.Root, name string) (*os.File, error) // must not exist
	rewrite  func(root *os.Root, name string) (*os.File, error) // must exist; for writing over it
	write    func(f *os.File, b []byte, off int64) (int, error)
	truncate func(f *os.File, size int64) error
	fsync    func(f *os.File) error
	syncfs   func(f *os.File) error // the whole file system that f is on
	rename   func(root *os.Root, from, to string) error
	unlink   func(root *os.Root, name string) error // a file or an empty folder
	mkdir    func(root *os.Root, name string) error
	// committed comes after each commit of a database, which bbolt writes by
	// itself; nil is nothing.
	committed func()
	isMount   func(f *os.File, name string) (bool, error) // a name below the folder f
}

// osFiles is the operating system.
var osFiles = fileOps{
	create: func(root *os.Root, name string) (*os.File, error) {
		return root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	},
	rewrite: func(root *os.Root, name string) (*os.File, error) {
		return root.OpenFile(name, os.O_WRONLY, 0)
	},
	write:    func(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) },
	truncate: func(f *os.File, size int64) error { return f.Truncate(size) },
	fsync:    func(f *os.File) error { return f.Sync() },
	syncfs:   syncfs,
	rename:   func(root *os.Root, from, to string) error { return root.Rename(from, to) },
	unlink:   func(root *os.Root, name string) error { return root.Remove(name) },
	mkdir:    func(root *os.Root, name string) error { return root.Mkdir(name, 0o700) },
	isMount:  isMount,
}

// makeDir makes a folder; one that is there is as good.
func (s *Store) makeDir(name string) error {
	if err := s.files.mkdir(s.root, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder %s: %w", name, err)
	}
	return nil
}

// syncDir makes the names in a folder durable.
func (s *Store) syncDir(name string) error {
	f, err := s.root.Open(name)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", name, err)
	}
	if err := errors.Join(s.files.fsync(f), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", name, err)
	}
	return nil
}

// list returns the entries of a folder; one that is absent is empty.
func (s *Store) list(name string) ([]fs.DirEntry, error) {
	f, err := s.root.Open(name)
	if notExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return entries, nil
}

// removeTree removes a folder and all in it. It goes on after an error, so that
// one stubborn file does not keep the others, and returns all of them. It stays
// inside the vault and on its file system: a symbolic link is removed and not
// followed, and what is mounted inside is left where it is, with an error.
func (s *Store) removeTree(name string) error {
	info, err := s.root.Lstat(name)
	if notExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("remove %s: it is not a folder", name)
	}
	switch mounted, err := s.files.isMount(s.dir, name); {
	case err != nil:
		return fmt.Errorf("remove %s: %w", name, err)
	case mounted:
		return fmt.Errorf("remove %s: something is mounted there", name)
	}
	entries, err := s.list(name)
	errs := []error{err}
	for _, e := range entries {
		if sub := path.Join(name, e.Name()); e.IsDir() {
			errs = append(errs, s.removeTree(sub))
		} else {
			errs = append(errs, s.remove(sub))
		}
	}
	return errors.Join(append(errs, s.remove(name))...)
}

// remove unlinks a file or an empty folder; an absent one is as good.
func (s *Store) remove(name string) error {
	if err := s.files.unlink(s.root, name); err != nil && !notExist(err) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
