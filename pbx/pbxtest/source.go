package pbxtest

import (
	"embed"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/go-audio/wav"
)

// Source is something to say: it fills out with the samples from number first
// on, counted from when it began, and reports whether there is a voice in
// them (DTX leaves out frames without). It must depend on nothing else, so that
// a speaker may skip frames.
type Source func(first int, out []int16) (voiced bool)

// Tone is a sine of whole Hz at -10 dBFS, for ever.
func Tone(hz int) Source { return ToneOf(hz, -10) }

// ToneOf is a sine of whole Hz at a level in dBFS.
func ToneOf(hz int, dBFS float64) Source {
	// A whole number of Hz repeats after one second.
	table := make([]int16, Rate)
	peak := 32767 * math.Pow(10, dBFS/20)
	for i := range table {
		table[i] = int16(math.Round(peak * math.Sin(2*math.Pi*float64(hz)*float64(i)/Rate)))
	}
	return Loop(table)
}

// Silence is digital silence, which is sent unless DTX is on.
func Silence() Source {
	return func(_ int, out []int16) bool {
		clear(out)
		return false
	}
}

// Once says pcm and then silence.
func Once(pcm []int16) Source {
	return func(first int, out []int16) bool {
		n := 0
		if first < len(pcm) {
			n = copy(out, pcm[first:])
		}
		clear(out[n:])
		return n > 0
	}
}

// Loop says pcm again and again.
func Loop(pcm []int16) Source {
	return func(first int, out []int16) bool {
		for n := 0; n < len(out) && len(pcm) > 0; {
			n += copy(out[n:], pcm[(first+n)%len(pcm):])
		}
		return len(pcm) > 0
	}
}

// Bursts says s for on, is silent for off, and so on: talk for DTX.
func Bursts(s Source, on, off time.Duration) Source {
	talk, period := samplesIn(on), samplesIn(on+off)
	return func(first int, out []int16) bool {
		voiced := s(first, out)
		talking := false
		for i := range out {
			if (first+i)%period >= talk {
				out[i] = 0
			} else {
				talking = voiced
			}
		}
		return talking
	}
}

// Chirp is a sweep of n samples from one frequency to another at -10 dBFS: a
// prompt whose place in time Find tells to the sample.
func Chirp(n int, fromHz, toHz float64) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		t := float64(i) / Rate
		slope := (toHz - fromHz) * Rate / float64(n)
		pcm[i] = int16(10362 * math.Sin(2*math.Pi*(fromHz*t+slope*t*t/2)))
	}
	return pcm
}

//go:embed voices/*.wav
var voices embed.FS

// Voices are the names of the spoken lines, for VoiceOf.
var Voices = []string{
	"caller-id", "caller-waste", "caller-thanks", "agent-hello", "agent-ready", "agent-callback", "resident-yes",
}

// VoiceOf is a spoken Polish line (voices/README.md), 8 kHz mono.
func VoiceOf(name string) ([]int16, error) {
	f, err := voices.Open("voices/" + name + ".wav")
	if err != nil {
		return nil, fmt.Errorf("open spoken line: %w", err)
	}
	defer f.Close()
	rs, ok := f.(io.ReadSeeker)
	if !ok {
		return nil, fmt.Errorf("open spoken line %s: not seekable", name)
	}
	w, err := ReadWAV(rs)
	if err != nil {
		return nil, fmt.Errorf("read spoken line %s: %w", name, err)
	}
	return w.PCM, nil
}

// WAV is a canonical 16-bit PCM file. PCM is interleaved if there are two
// channels.
type WAV struct {
	Rate, Channels int
	PCM            []int16
}

// Duration is how long the file plays.
func (w WAV) Duration() time.Duration {
	if w.Rate*w.Channels == 0 {
		return 0
	}
	return time.Duration(len(w.PCM)/w.Channels) * time.Second / time.Duration(w.Rate)
}

// ReadWAV reads a 16-bit PCM file with a reader that shares no code with the
// recorder.
func ReadWAV(r io.ReadSeeker) (WAV, error) {
	d := wav.NewDecoder(r)
	if !d.IsValidFile() {
		return WAV{}, fmt.Errorf("read WAV: not a valid file")
	}
	if d.BitDepth != 16 || d.WavAudioFormat != 1 {
		return WAV{}, fmt.Errorf("read WAV: %d bits of format %d, want 16 of PCM", d.BitDepth, d.WavAudioFormat)
	}
	buf, err := d.FullPCMBuffer()
	if err != nil {
		return WAV{}, fmt.Errorf("read WAV: %w", err)
	}
	w := WAV{Rate: int(d.SampleRate), Channels: int(d.NumChans), PCM: make([]int16, len(buf.Data))}
	for i, s := range buf.Data {
		w.PCM[i] = int16(s)
	}
	return w, nil
}

// Lanes splits stereo into left and right.
func Lanes(pcm []int16) (left, right []int16) {
	left, right = make([]int16, len(pcm)/2), make([]int16, len(pcm)/2)
	for i := range left {
		left[i], right[i] = pcm[2*i], pcm[2*i+1]
	}
	return left, right
}

func samplesIn(d time.Duration) int { return int(d * Rate / time.Second) }

func timeOf(samples int) time.Duration { return time.Duration(samples) * time.Second / Rate }
