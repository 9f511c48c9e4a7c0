//go:build !linux || race

package media

// ringMemory is the memory of a tap's ring.
func ringMemory(_ *Tap, n int) []byte { return make([]byte, n) }
