//go:build !linux

package store

import (
	"errors"
	"os"
)

// syncedAsAWhole: without syncfs each journal is synced by itself.
const syncedAsAWhole = false

func syncfs(f *os.File) error { return f.Sync() }

func statfs(f *os.File) (free, total uint64, err error) {
	return 0, 0, errors.ErrUnsupported
}
