//go:build race

package pbx_test

// hourCalls: the race detector makes an hour ten times as long, and finds in a
// part of it what there is to find.
const hourCalls = 120
