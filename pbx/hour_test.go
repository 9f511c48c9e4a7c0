//go:build !race

package pbx_test

// hourCalls is how many calls TestHour places.
const hourCalls = 1100
