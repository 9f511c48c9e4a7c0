package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll makes the whole file system durable that f is on; whole is true, so
// that one call serves all journals.
func (s *Store) syncAll(f *os.File) (whole bool, err error) {
	return true, unix.Syncfs(int(f.Fd()))
}
