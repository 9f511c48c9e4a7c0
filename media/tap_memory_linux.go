//go:build !race

package media

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// ringMemory is the memory of a tap's ring, taken from the system and given back
// when the tap is garbage. In Go's heap all of it would be in use from the first
// round on, would be cleared whenever it is used again, and would let garbage of
// the same amount lie about; here only the pages that are used count. If the
// system has none to give, Go has.
func ringMemory(t *Tap, n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n)
	}
	// Rings lie side by side; as one huge page all of them would be in use. Where
	// there are no huge pages there is nothing to refuse.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	runtime.AddCleanup(t, func(b []byte) {
		// It fails only for what is not mapped.
		_ = unix.Munmap(b)
	}, b)
	return b
}
