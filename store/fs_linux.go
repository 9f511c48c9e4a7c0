package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncedAsAWhole: one syncfs makes every journal durable, closed ones too.
const syncedAsAWhole = true

func syncfs(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) }

// statfs returns the bytes that we may still use on f's file system and its
// size.
func statfs(f *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, os.NewSyscallError("fstatfs", err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
