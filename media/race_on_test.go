//go:build race

package media

// raceDetector tells whether the tests run with the race detector. It has the
// compiler keep on the heap what otherwise lies on the stack: then counts of
// allocations tell nothing about the program as it is delivered.
const raceDetector = true
