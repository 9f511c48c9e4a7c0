package pbx

import (
	"math"
	"slices"
	"sync"

	"centralka/media"
)

// ringback is the tone that a Polish caller hears while somebody's telephone
// rings: 425 Hz, one second of every five (ITU-T E.180). It is for callers who have
// been answered, by us, and for phones that could not tell otherwise; a phone that
// gets 180 makes its own.
var ringback = sync.OnceValue(func() *media.Prompt {
	return media.NewPrompt(append(tone(425, media.SampleRate), make([]int16, 4*media.SampleRate)...))
})

// tone is n samples of a frequency, faded in and out so that nothing clicks.
func tone(hz float64, n int) []int16 {
	const (
		edge  = media.SampleRate / 100
		level = 0.2 * math.MaxInt16
	)
	pcm := make([]int16, n)
	for i := range pcm {
		gain := min(1, float64(min(i, n-i))/edge)
		pcm[i] = int16(level * gain * math.Sin(2*math.Pi*hz*float64(i)/media.SampleRate))
	}
	return pcm
}

// beeps is a short tone per frequency, with a pause before each and at the end.
func beeps(hz []float64) *media.Prompt {
	pause := make([]int16, media.SampleRate/5)
	pcm := slices.Clone(pause)
	for _, f := range hz {
		pcm = append(append(pcm, tone(f, media.SampleRate/4)...), pause...)
	}
	return media.NewPrompt(pcm)
}
