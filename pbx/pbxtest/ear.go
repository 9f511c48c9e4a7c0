package pbxtest

import (
	"math"
	"slices"
	"time"
)

// Ear tools: what is in 8 kHz samples, and when. Levels are in dBFS where a
// full-scale sine is 0.

const quiet = -120.0 // the level of digital silence

// Level is the level of the samples.
func Level(samples []int16) float64 {
	var sum float64
	for _, s := range samples {
		sum += float64(s) * float64(s)
	}
	return level(sum, len(samples))
}

func level(sum float64, n int) float64 {
	if n == 0 || sum == 0 {
		return quiet
	}
	return max(quiet, 10*math.Log10(2*sum/float64(n)/(32768*32768)))
}

// Power is the level of a tone in the samples, by Goertzel's algorithm with a
// Hann window; a sine of full scale gives 0. It tells tones apart that differ
// by more than two periods of the window: 10 Hz in 200 ms.
func Power(samples []int16, hz float64) float64 {
	n := float64(len(samples))
	if n == 0 {
		return quiet
	}
	coeff := 2 * math.Cos(2*math.Pi*hz/Rate)
	var s1, s2 float64
	for i, x := range samples {
		w := 1 - math.Cos(2*math.Pi*(float64(i)+0.5)/n) // mean 1
		s1, s2 = w*float64(x)+coeff*s1-s2, s1
	}
	power := s1*s1 + s2*s2 - coeff*s1*s2
	return max(quiet, 10*math.Log10(power*4/(n*n)/(32768*32768)+1e-12))
}

// HasTone reports whether a tone is clearly there: above -40 dBFS and at least
// a quarter of all energy.
func HasTone(samples []int16, hz float64) bool {
	p := Power(samples, hz)
	return p > -40 && p > Level(samples)-6
}

// ToneAt is HasTone between two times from the beginning; false if there are no
// samples there.
func ToneAt(samples []int16, hz float64, from, to time.Duration) bool {
	i, j := max(samplesIn(from), 0), min(samplesIn(to), len(samples))
	return i < j && HasTone(samples[i:j], hz)
}

// Dominant is the strongest of the candidates, if it is clearly there and 6 dB
// above the others; otherwise 0.
func Dominant(samples []int16, candidates ...float64) float64 {
	best, power, second := 0.0, quiet, quiet
	for _, hz := range candidates {
		switch p := Power(samples, hz); {
		case p > power:
			best, power, second = hz, p, power
		case p > second:
			second = p
		}
	}
	if power < second+6 || !HasTone(samples, best) {
		return 0
	}
	return best
}

// Span is a stretch of samples, in time from their beginning.
type Span struct{ From, To time.Duration }

// Spans finds when a tone was heard, to ±5 ms. Gaps of up to 60 ms (three lost
// frames) do not divide a span, and one shorter than 40 ms does not count; nor
// does what is 6 dB or more below the loudest part, or below -40 dBFS.
func Spans(samples []int16, hz float64) []Span {
	const window, hop = 160, 8 // 20 ms, 1 ms
	if len(samples) < window {
		return nil
	}
	// Amplitude over a sliding window: a complex oscillator and running sums.
	re, im := make([]float64, len(samples)+1), make([]float64, len(samples)+1)
	for i, x := range samples {
		sin, cos := math.Sincos(2 * math.Pi * math.Mod(hz*float64(i), Rate) / Rate)
		re[i+1], im[i+1] = re[i]+float64(x)*cos, im[i]+float64(x)*sin
	}
	// The window may hang over both ends, so that a tone from the first sample
	// on begins at 0.
	amp := make([]float64, 0, len(samples)/hop+1)
	for at := 0; at < len(samples); at += hop {
		i, j := max(at-window/2, 0), min(at+window/2, len(samples))
		amp = append(amp, math.Hypot(re[j]-re[i], im[j]-im[i])*2/window)
	}
	plateau := slices.Clone(amp)
	slices.Sort(plateau)
	half := plateau[max(len(plateau)-20, 0)] / 2 // one louder blip of 20 ms does not decide
	if half < 32768*math.Pow(10, -40.0/20)/2 {
		return nil
	}
	var spans []Span
	on := -1
	for k := 0; k <= len(amp); k++ {
		loud := k < len(amp) && amp[k] >= half*0.999
		if loud == (on >= 0) {
			continue
		}
		at := time.Duration(min(k*hop, len(samples))) * time.Second / Rate
		if loud {
			on = k
			if n := len(spans); n > 0 && at-spans[n-1].To <= 60*time.Millisecond {
				spans[n-1].To = -1 // goes on
			} else {
				spans = append(spans, Span{at, -1})
			}
			continue
		}
		on = -1
		spans[len(spans)-1].To = at
	}
	return slices.DeleteFunc(spans, func(s Span) bool { return s.To-s.From < 40*time.Millisecond })
}

// Match is where a prompt lies in what was heard.
type Match struct {
	// From and To are the prompt's first and last sample, in time from the
	// beginning of what was heard; From is negative if the beginning was missed.
	From, To time.Duration
	// Similarity is the normalised correlation of the two, 0..1; the same prompt
	// through G.711 has more than 0.99.
	Similarity float64
	// Broken are the parts of the prompt that were not heard, or not as they
	// are, in the prompt's time.
	Broken []Span
}

// Whole reports whether the prompt was heard in full and unbroken.
func (m Match) Whole() bool { return m.Similarity > 0.95 && len(m.Broken) == 0 }

// Find looks for a prompt (at least 100 ms of something other than a steady
// tone) in what was heard and says when and how well it was heard. Without it,
// Similarity is low and the times mean nothing.
func Find(heard, prompt []int16) Match {
	const factor, anchor, anchors = 4, 512, 3 // search at 2 kHz with 256 ms
	p := decimate(prompt, factor)
	starts := loudest(p, min(anchor, len(p)), anchors)
	best, found := Match{}, false
	// Half a step apart, or a prompt that lies between two steps sounds less
	// like itself than like its neighbour one period of the voice away.
	for _, phase := range [...]int{0, factor / 2} {
		h := decimate(heard[min(phase, len(heard)):], factor)
		for _, start := range starts {
			piece := p[start:min(start+anchor, len(p))]
			at, ok := correlate(h, piece)
			if !ok {
				continue
			}
			// To the sample, over a second of the prompt from the anchor.
			from, n := start*factor, min(Rate, len(prompt)-start*factor)
			coarse, top, offset := at*factor+phase-from, -2.0, 0
			for d := -2 * factor; d <= 2*factor; d++ {
				if s := similarity(heard, prompt[from:from+n], coarse+d+from); s > top {
					top, offset = s, coarse+d
				}
			}
			if m := match(heard, prompt, offset); !found || m.Similarity > best.Similarity {
				best, found = m, true
			}
		}
	}
	return best
}

// match compares with the prompt laid at an offset, in blocks of 20 ms.
func match(heard, prompt []int16, offset int) Match {
	const block = 160
	m := Match{From: timeOf(offset), To: timeOf(offset + len(prompt)), Similarity: max(0, similarity(heard, prompt, offset))}
	for i := 0; i < len(prompt); i += block {
		part := prompt[i:min(i+block, len(prompt))]
		if Level(part) < -45 || similarity(heard, part, offset+i) > 0.7 {
			continue
		}
		span := Span{timeOf(i), timeOf(i + len(part))}
		if n := len(m.Broken); n > 0 && m.Broken[n-1].To == span.From {
			m.Broken[n-1].To = span.To
		} else {
			m.Broken = append(m.Broken, span)
		}
	}
	return m
}

// similarity is the normalised correlation of prompt with heard from at on;
// what lies outside of heard is silence.
func similarity(heard, prompt []int16, at int) float64 {
	var xy, xx, yy float64
	for i, p := range prompt {
		y := float64(p)
		yy += y * y
		if k := at + i; k >= 0 && k < len(heard) {
			x := float64(heard[k])
			xx += x * x
			xy += x * y
		}
	}
	if xx == 0 || yy == 0 {
		return 0
	}
	return xy / math.Sqrt(xx*yy)
}

// decimate averages runs of samples, a crude low-pass that is enough to search.
func decimate(pcm []int16, factor int) []float32 {
	out := make([]float32, len(pcm)/factor)
	for i := range out {
		var sum int32
		for _, s := range pcm[i*factor : (i+1)*factor] {
			sum += int32(s)
		}
		out[i] = float32(sum)
	}
	return out
}

// loudest returns the starts of up to k windows, spread over p, each the
// loudest of its part.
func loudest(p []float32, n, k int) []int {
	if n == 0 {
		return nil
	}
	sums := make([]float64, len(p)+1)
	for i, x := range p {
		sums[i+1] = sums[i] + float64(x)*float64(x)
	}
	var starts []int
	last := len(p) - n
	for part := range k {
		from, to := part*(last+1)/k, (part+1)*(last+1)/k
		best, at := -1.0, -1
		for i := from; i < to; i++ {
			if e := sums[i+n] - sums[i]; e > best {
				best, at = e, i
			}
		}
		if at >= 0 {
			starts = append(starts, at)
		}
	}
	return starts
}

// correlate finds where a piece fits best, by its normalised correlation.
func correlate(h, piece []float32) (at int, ok bool) {
	n := len(piece)
	if n == 0 || len(h) < n {
		return 0, false
	}
	var energy float64
	for _, x := range h[:n] {
		energy += float64(x) * float64(x)
	}
	best := 0.0
	for i := 0; ; i++ {
		if energy > float64(n) {
			var dot float32
			w := h[i : i+n]
			for j, x := range piece {
				dot += x * w[j]
			}
			if s := float64(dot) / math.Sqrt(energy); dot > 0 && s > best {
				best, at, ok = s, i, true
			}
		}
		if i+n >= len(h) {
			return at, ok
		}
		energy += float64(h[i+n])*float64(h[i+n]) - float64(h[i])*float64(h[i])
	}
}
