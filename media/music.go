package media

import (
	"math"
	"sync"
)

// HoldMusic is the music that callers hear while they wait: a calm piece of our
// own, so that no licence is due. It lasts 28 s, loops without a seam and is
// computed at the first call, which takes some tens of milliseconds.
func HoldMusic() *Prompt { return holdMusic() }

var holdMusic = sync.OnceValue(func() *Prompt { return NewPrompt(composeHoldMusic()) })

// The piece: seven bars of four seconds. In each a chord swells and fades under
// its neighbours, and a few soft bell tones wander over it. All of it lies where
// a telephone carries sound (300-3400 Hz) or has partials there.
const (
	musicBar   = 4 * SampleRate // samples
	musicLevel = -22.0          // dBFS, RMS
)

// Pitches are semitones from A4 = 440 Hz.
var musicChords = [][]float64{
	{-9, -5, -2, 2, 7},    // C  E  G  B  E
	{-12, -5, -2, 0, 7},   // A  E  G  A  E
	{-16, -9, -4, 0, 3},   // F  C  F  A  C
	{-14, -7, -2, 2, 5},   // G  D  G  B  D
	{-17, -10, -5, -2, 2}, // E  B  E  G  B
	{-16, -9, -5, 0, 3},   // F  C  E  A  C
	{-14, -9, -2, 0, 5},   // G  C  G  A  D
}

// musicMelody holds, per bar, the bell tones as beat (0-7, eighths of a bar) and
// pitch.
var musicMelody = [][][2]float64{
	{{0, 10}, {3, 7}, {5, 2}},
	{{1, 3}, {4, 7}},
	{{0, 8}, {2, 7}, {5, 3}},
	{{1, 5}, {4, 2}, {6, 5}},
	{{0, 7}, {3, 2}},
	{{1, 3}, {3, 7}, {6, 8}},
	{{0, 5}, {4, 7}},
}

// composeHoldMusic renders the piece into a ring: what rings on past the end
// sounds on at the beginning, so the loop has no seam to click at.
func composeHoldMusic() []int16 {
	ring := make([]float64, len(musicChords)*musicBar)
	for bar, chord := range musicChords {
		start := bar * musicBar
		for i, pitch := range chord {
			// Two voices a fraction of a Hertz apart make the pad breathe.
			f := frequency(pitch)
			gain := 0.20 / (1 + 0.25*float64(i))
			pad := tone{start: start - musicBar/2, length: 2 * musicBar, swell: true}
			pad.addTo(ring, f-0.15, gain)
			pad.addTo(ring, f+0.17, gain)
			pad.addTo(ring, 2*f, gain*0.30)
			pad.addTo(ring, 3*f, gain*0.08)
		}
		for _, note := range musicMelody[bar] {
			f := frequency(note[1])
			bell := tone{start: start + int(note[0]*musicBar/8), length: 3 * SampleRate}
			bell.addTo(ring, f, 0.16)
			bell.addTo(ring, 2*f, 0.05)
			bell.addTo(ring, 3.01*f, 0.015)
		}
	}
	return levelled(ring, musicLevel)
}

func frequency(semitones float64) float64 { return 440 * math.Exp2(semitones/12) }

// tone is where a note lies and how it grows and fades.
type tone struct {
	start, length int  // samples
	swell         bool // slow raised cosine; else struck, and dying away
}

// addTo adds a sine of the given frequency and gain to the ring.
func (n tone) addTo(ring []float64, hertz, gain float64) {
	if hertz >= 3400 {
		return
	}
	// A rotating pointer is some ten times cheaper than a sine per sample and
	// exact enough over a few seconds.
	re, im := 1.0, 0.0
	dim, dre := math.Sincos(2 * math.Pi * hertz / SampleRate)
	env := n.envelope()
	for i, at := 0, (n.start+len(ring))%len(ring); i < n.length; i++ {
		ring[at] += gain * env(i) * im
		re, im = re*dre-im*dim, re*dim+im*dre
		if at++; at == len(ring) {
			at = 0
		}
	}
}

// envelope is 0 at both ends of the note.
func (n tone) envelope() func(i int) float64 {
	if n.swell {
		re, im := 1.0, 0.0
		dim, dre := math.Sincos(2 * math.Pi / float64(n.length))
		return func(int) float64 {
			e := (1 - re) / 2
			re, im = re*dre-im*dim, re*dim+im*dre
			return e
		}
	}
	const attack = SampleRate / 50
	decay, fall := 1.0, math.Exp(-1/(0.55*SampleRate))
	return func(i int) float64 {
		decay *= fall
		e := decay
		if i < attack {
			e *= float64(i) / attack
		}
		if left := n.length - i; left < attack {
			e *= float64(left) / attack
		}
		return e
	}
}

// levelled scales samples to an RMS level in dBFS.
func levelled(ring []float64, dBFS float64) []int16 {
	var power float64
	for _, s := range ring {
		power += s * s
	}
	gain := math.Pow(10, dBFS/20) * (1 << 15) / math.Sqrt(power/float64(len(ring)))
	out := make([]int16, len(ring))
	for i, s := range ring {
		out[i] = int16(max(math.MinInt16, min(math.MaxInt16, math.Round(s*gain))))
	}
	return out
}
