//go:build !race

package media

// raceDetector tells whether the tests run with the race detector.
const raceDetector = false
