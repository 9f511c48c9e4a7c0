package pbxtest

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zaf/g711"
)

func render(s Source, d time.Duration) []int16 {
	pcm := make([]int16, samplesIn(d))
	s(0, pcm)
	return pcm
}

// noise adds white noise at a level in dBFS.
func noise(pcm []int16, dBFS float64) []int16 {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := slices.Clone(pcm)
	amp := 32768 * math.Pow(10, dBFS/20) / math.Sqrt2
	for i := range out {
		out[i] = int16(max(-32768, min(32767, float64(out[i])+rnd.NormFloat64()*amp)))
	}
	return out
}

func throughALaw(pcm []int16) []int16 {
	out := make([]int16, len(pcm))
	for i, s := range pcm {
		out[i] = g711.DecodeAlawFrame(g711.EncodeAlawFrame(s))
	}
	return out
}

func TestPowerAndLevelOfATone(t *testing.T) {
	for _, dBFS := range []float64{-3, -10, -30} {
		pcm := render(ToneOf(440, dBFS), 200*time.Millisecond)
		if p := Power(pcm, 440); math.Abs(p-dBFS) > 0.2 {
			t.Errorf("power %.2f, want %.0f", p, dBFS)
		}
		if l := Level(pcm); math.Abs(l-dBFS) > 0.2 {
			t.Errorf("level %.2f, want %.0f", l, dBFS)
		}
		if p := Power(pcm, 470); p > dBFS-25 {
			t.Errorf("power %.2f at 470 Hz of a tone of 440", p)
		}
	}
	if Level(nil) != quiet || Power(nil, 440) != quiet || Level(make([]int16, 100)) != quiet {
		t.Error("silence has a level")
	}
}

func TestToneIsFoundInNoiseAndNotInOtherThings(t *testing.T) {
	tone := throughALaw(noise(render(Tone(620), time.Second), -25))
	if !ToneAt(tone, 620, 0, time.Second) || ToneAt(tone, 425, 0, time.Second) || ToneAt(tone, 620, 2*time.Second, 3*time.Second) {
		t.Error("wrong about a noisy tone")
	}
	if hz := Dominant(tone, 425, 620, 800); hz != 620 {
		t.Errorf("dominant is %v", hz)
	}
	if hz := Dominant(noise(make([]int16, 8000), -20), 425, 620, 800); hz != 0 {
		t.Errorf("noise is %v Hz", hz)
	}
	mix := render(Tone(620), time.Second)
	for i, s := range render(Tone(425), time.Second) {
		mix[i] += s
	}
	if Dominant(mix, 425, 620) != 0 || !HasTone(mix, 425) || !HasTone(mix, 620) {
		t.Error("wrong about two tones at once")
	}
	speech, err := VoiceOf("agent-hello")
	if err != nil {
		t.Fatal(err)
	}
	if hz := Dominant(speech, 425, 620, 800); hz != 0 {
		t.Errorf("speech is %v Hz", hz)
	}
}

func TestSpansAreWithinFiveMilliseconds(t *testing.T) {
	want := []Span{{0, 300 * time.Millisecond}, {1234 * time.Millisecond, 2345 * time.Millisecond}, {2600 * time.Millisecond, 3 * time.Second}}
	pcm := make([]int16, samplesIn(3*time.Second))
	tone := render(Tone(700), 3*time.Second)
	for _, s := range want {
		copy(pcm[samplesIn(s.From):samplesIn(s.To)], tone[samplesIn(s.From):])
	}
	clear(pcm[samplesIn(1500*time.Millisecond):samplesIn(1540*time.Millisecond)]) // two frames lost
	for _, level := range []float64{quiet, -30} {
		got := Spans(throughALaw(noise(pcm, level)), 700)
		if len(got) != len(want) {
			t.Fatalf("noise %.0f: got %v", level, got)
		}
		for i := range want {
			if (got[i].From-want[i].From).Abs() > 5*time.Millisecond || (got[i].To-want[i].To).Abs() > 5*time.Millisecond {
				t.Errorf("noise %.0f: got %v, want %v", level, got[i], want[i])
			}
		}
	}
	if got := Spans(noise(make([]int16, 8000), -30), 700); got != nil {
		t.Errorf("found %v in noise", got)
	}
}

func TestFindTellsWhenAPromptWasHeard(t *testing.T) {
	prompt, err := VoiceOf("caller-id")
	if err != nil {
		t.Fatal(err)
	}
	other, err := VoiceOf("agent-callback")
	if err != nil {
		t.Fatal(err)
	}
	heard := make([]int16, samplesIn(12*time.Second))
	copy(heard[8000:], other)
	at := 49_153
	copy(heard[at:], prompt)
	heard = throughALaw(noise(heard, -50))
	m := Find(heard, prompt)
	if m.From != timeOf(at) || !m.Whole() || m.Similarity < 0.97 {
		t.Errorf("found %+v, want at %v", m, timeOf(at))
	}
	chirp := Chirp(8000, 300, 3000)
	if m := Find(throughALaw(append(make([]int16, 4321), chirp...)), chirp); m.From != timeOf(4321) || !m.Whole() || m.Similarity < 0.99 {
		t.Errorf("found the chirp %+v", m)
	}
	if m := Find(heard[:at], prompt); m.Whole() || m.Similarity > 0.5 {
		t.Errorf("found a prompt that is not there: %+v", m)
	}

	// Breaks of every kind are seen.
	gap := slices.Clone(heard)
	clear(gap[at+8000 : at+8160])
	if m := Find(gap, prompt); m.Whole() || m.From != timeOf(at) || len(m.Broken) == 0 || (m.Broken[0].From-time.Second).Abs() > 20*time.Millisecond {
		t.Errorf("a lost frame: %+v", m)
	}
	if m := Find(heard[:at+len(prompt)/2], prompt); m.Whole() {
		t.Errorf("half the prompt is whole: %+v", m)
	}
	if m := Find(heard[at+4000:], prompt); m.Whole() || m.From != timeOf(-4000) {
		t.Errorf("the beginning missed: %+v", m)
	}
	shifted := slices.Concat(heard[:at+16000], make([]int16, 160), heard[at+16000:])
	if m := Find(shifted, prompt); m.Whole() {
		t.Errorf("a pause put into the prompt: %+v", m)
	}
	if m := Find(nil, prompt); m.Whole() {
		t.Error("found in nothing")
	}
}

// TestFindHearsEveryLineWhereverItLies: the search runs in steps of four
// samples; between two of them a voice must not be taken for its neighbour one
// period away.
func TestFindHearsEveryLineWhereverItLies(t *testing.T) {
	for _, name := range Voices {
		line, err := VoiceOf(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 1745; at < 1748; at++ {
			heard := throughALaw(slices.Concat(make([]int16, at), line, make([]int16, Rate)))
			if m := Find(heard, line); m.From != timeOf(at) || !m.Whole() {
				t.Errorf("%s at %v: found at %v, similarity %.2f", name, timeOf(at), m.From, m.Similarity)
			}
		}
	}
}

func TestVoicesAreShortAndLoudEnough(t *testing.T) {
	total := 0
	for _, name := range Voices {
		pcm, err := VoiceOf(name)
		if err != nil {
			t.Fatal(err)
		}
		total += 2*len(pcm) + 44
		if d := timeOf(len(pcm)); d < 1500*time.Millisecond || d > 5*time.Second {
			t.Errorf("%s lasts %v", name, d)
		}
		if l := Level(pcm); l < -30 || l > -10 {
			t.Errorf("%s has level %.1f", name, l)
		}
	}
	if total > 400_000 {
		t.Errorf("the spoken lines are %d bytes together", total)
	}
	if _, err := VoiceOf("nobody"); err == nil {
		t.Error("an unknown voice was found")
	}
}

func TestReadWAVAndLanes(t *testing.T) {
	var b bytes.Buffer
	pcm := []int16{1, -1, 300, -300, 32767, -32768}
	b.WriteString("RIFF")
	binary.Write(&b, binary.LittleEndian, uint32(36+2*len(pcm)))
	b.WriteString("WAVEfmt ")
	binary.Write(&b, binary.LittleEndian, []uint32{16, 2<<16 | 1, 8000, 32000, 16<<16 | 4})
	b.WriteString("data")
	binary.Write(&b, binary.LittleEndian, uint32(2*len(pcm)))
	binary.Write(&b, binary.LittleEndian, pcm)
	w, err := ReadWAV(bytes.NewReader(b.Bytes()))
	if err != nil || w.Rate != 8000 || w.Channels != 2 || !slices.Equal(w.PCM, pcm) {
		t.Fatalf("read %+v: %v", w, err)
	}
	left, right := Lanes(w.PCM)
	if !slices.Equal(left, []int16{1, 300, 32767}) || !slices.Equal(right, []int16{-1, -300, -32768}) {
		t.Errorf("lanes %v %v", left, right)
	}
	if _, err := ReadWAV(bytes.NewReader(b.Bytes()[:20])); err == nil {
		t.Error("a cut file was read")
	}
}

func TestBurstsFallSilentOnTime(t *testing.T) {
	s := Bursts(Tone(500), 200*time.Millisecond, 300*time.Millisecond)
	out := make([]int16, 160)
	for frame := range 100 {
		voiced := s(frame*160, out)
		if want := frame%25 < 10; voiced != want || (Level(out) > -20) != want {
			t.Fatalf("frame %d: voiced %v, level %.0f", frame, voiced, Level(out))
		}
	}
}
