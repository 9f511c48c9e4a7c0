package store

import (
	"os"
	"strings"
	"time"

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

// isMount tells whether something is mounted on a name below f.
func isMount(f *os.File, name string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return false, os.NewSyscallError("statx", err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// osClock is the kernel's word.
var osClock = clockFacts{
	synchronised: func() bool {
		var t unix.Timex
		state, err := unix.Adjtimex(&t)
		return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	},
	uptime: func() (string, time.Duration, bool) {
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return "", 0, false
		}
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
			return "", 0, false
		}
		return strings.TrimSpace(string(boot)), time.Duration(t.Nano()), true
	},
}
