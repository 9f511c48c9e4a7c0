//go:build interop

package main_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-audio/wav"

	"centralka/ordinance"
	"centralka/store"
)

const sampleRate = 8000

// sine is a tone at half of full scale.
func sine(hz int, length time.Duration) []int16 {
	out := make([]int16, int(length.Seconds()*sampleRate))
	for i := range out {
		out[i] = int16(math.Round(16383 * math.Sin(2*math.Pi*float64(hz)*float64(i)/sampleRate)))
	}
	return out
}

func pcmBytes(samples []int16) []byte {
	b := make([]byte, 0, 2*len(samples))
	for _, s := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(s))
	}
	return b
}

// writeTone writes a WAV, 8 kHz mono 16 bit.
func writeTone(t *testing.T, path string, hz int, length time.Duration) {
	t.Helper()
	data := pcmBytes(sine(hz, length))
	var b []byte
	u32 := func(n int) { b = binary.LittleEndian.AppendUint32(b, uint32(n)) }
	u16 := func(n int) { b = binary.LittleEndian.AppendUint16(b, uint16(n)) }
	b = append(b, "RIFF"...)
	u32(36 + len(data))
	b = append(b, "WAVEfmt "...)
	u32(16)
	u16(1) // PCM
	u16(1) // mono
	u32(sampleRate)
	u32(2 * sampleRate)
	u16(2)
	u16(16)
	b = append(b, "data"...)
	u32(len(data))
	if err := os.WriteFile(path, append(b, data...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keptCalls is the store of a switch that has stopped.
type keptCalls struct {
	t     *testing.T
	store *store.Store
	calls []store.CallRecord
}

// open stops the switch and reads its records of today, and of yesterday if a
// test ran over midnight.
func (r *rig) open() *keptCalls {
	r.t.Helper()
	select {
	case <-r.proc.done:
		r.ended()
	default:
		r.stop()
	}
	s, err := store.Open(store.Config{Dir: r.vault(), MasterKey: r.masterKey(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatalf("open the vault: %v", err)
	}
	r.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.t.Errorf("close the vault: %v", err)
		}
	})
	v := &keptCalls{t: r.t, store: s}
	now := time.Now()
	yesterday, today := ordinance.DayOf(now.Add(-10*time.Minute)), ordinance.DayOf(now)
	for call, err := range s.CallsByDay(yesterday, today) {
		if err != nil {
			r.t.Fatalf("read the calls: %v", err)
		}
		v.calls = append(v.calls, call)
	}
	return v
}

// only returns the single call that there should be.
func (v *keptCalls) only() store.CallRecord {
	v.t.Helper()
	if len(v.calls) != 1 {
		v.t.Fatalf("%d call records, want 1: %+v", len(v.calls), v.calls)
	}
	return v.calls[0]
}

// copyOut copies a recording out of the vault.
func (v *keptCalls) copyOut(call store.CallRecord) string {
	v.t.Helper()
	r, err := v.store.OpenRecording(call.Day, call.ID)
	if err != nil {
		v.t.Fatalf("open recording: %v", err)
	}
	defer r.Close()
	path := filepath.Join(v.t.ArtifactDir(), "recording-"+call.ID.String()+".wav")
	f, err := os.Create(path)
	if err != nil {
		v.t.Fatal(err)
	}
	if _, err := io.Copy(f, io.NewSectionReader(r, 0, r.Size())); err != nil {
		v.t.Fatalf("copy recording: %v", err)
	}
	if err := f.Close(); err != nil {
		v.t.Fatal(err)
	}
	return path
}

// noAudio asserts that the vault holds no sound of the call, nor ever a journal.
func (v *keptCalls) noAudio(call store.CallRecord) {
	v.t.Helper()
	if call.Recording.Outcome != store.OutcomeNone || call.Recording.Reason == "" || call.Recording.Size != 0 {
		v.t.Errorf("recording = %+v, want outcome none with a reason", call.Recording)
	}
	if r, err := v.store.OpenRecording(call.Day, call.ID); err == nil {
		r.Close()
		v.t.Error("there is a recording of a call that must have none")
	}
}

// recorded asserts the outcome and that the file is as long as the
// conversation (S1.3-a), and returns a copy.
func (v *keptCalls) recorded(call store.CallRecord, want store.Outcome) string {
	v.t.Helper()
	if call.Recording.Outcome != want {
		v.t.Fatalf("recording outcome %q (%s), want %q", call.Recording.Outcome, call.Recording.Reason, want)
	}
	path := v.copyOut(call)
	w := readWAV(v.t, path)
	if d := w.length() - call.Recording.Duration; d.Abs() > time.Millisecond {
		v.t.Errorf("file of %v, its record says %v", w.length(), call.Recording.Duration)
	}
	talk := call.Ended.Sub(call.Answered)
	if want == store.OutcomeOK && (w.length()-talk).Abs() > 500*time.Millisecond {
		v.t.Errorf("recording of %v for a conversation of %v", w.length(), talk)
	}
	return path
}

// stereo is a WAV as go-audio/wav reads it: lanes citizen and office, or one.
type stereo struct {
	lanes [][]float64
}

func readWAV(t *testing.T, path string) stereo {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := wav.NewDecoder(f)
	if !d.IsValidFile() {
		t.Fatalf("%s is no WAV: %v", path, d.Err())
	}
	buf, err := d.FullPCMBuffer()
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	if d.SampleRate != sampleRate || d.BitDepth != 16 {
		t.Fatalf("%s: %d Hz, %d bit; want 8000 Hz, 16 bit", path, d.SampleRate, d.BitDepth)
	}
	n := int(d.NumChans)
	w := stereo{lanes: make([][]float64, n)}
	for i, s := range buf.Data {
		w.lanes[i%n] = append(w.lanes[i%n], float64(s)/32768)
	}
	return w
}

func (w stereo) length() time.Duration {
	return time.Duration(len(w.lanes[0])) * time.Second / sampleRate
}

// level is the amplitude of a tone in a lane between two instants; a tone of
// this package's has 0.5. It is the median: a busy machine holds up a peer's
// packets.
func (w stereo) level(lane, hz int, from, to time.Duration) float64 {
	l := w.levels(lane, hz, from, to)
	if len(l) == 0 {
		return 0
	}
	return l[len(l)/2]
}

// loudest is the largest amplitude of a tone anywhere in a lane.
func (w stereo) loudest(lane, hz int) float64 {
	l := w.levels(lane, hz, 0, w.length())
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1]
}

// levels are the amplitudes of a tone in windows of 100 ms, sorted (Goertzel
// behind a Hann window). The recorder may move a sample between packets, which a
// longer window would take for weakness.
func (w stereo) levels(lane, hz int, from, to time.Duration) []float64 {
	const window = sampleRate / 10
	at := func(d time.Duration) int {
		return min(max(0, int(d.Seconds()*sampleRate)), len(w.lanes[lane]))
	}
	c := 2 * math.Cos(2*math.Pi*float64(hz)/sampleRate)
	var levels []float64
	for i := at(from); i+window <= at(to); i += window {
		var s1, s2 float64
		for k, x := range w.lanes[lane][i : i+window] {
			hann := 1 - math.Cos(2*math.Pi*float64(k)/window)
			s1, s2 = x*hann+c*s1-s2, s1
		}
		levels = append(levels, 2*math.Sqrt(max(0, s1*s1+s2*s2-c*s1*s2))/window)
	}
	slices.Sort(levels)
	return levels
}

var soxRMS = regexp.MustCompile(`RMS\s+amplitude:\s+([0-9.]+)`)

// soxLevel is the RMS that sox measures in one channel (from 1) of a file in a
// band of ±60 Hz around hz, or in the whole band if hz is 0.
func soxLevel(t *testing.T, path string, channel, hz int, from, to time.Duration) float64 {
	t.Helper()
	args := []string{path, "-n", "remix", strconv.Itoa(channel), "trim", seconds(from), "=" + seconds(to)}
	if hz != 0 {
		args = append(args, "sinc", fmt.Sprintf("%d-%d", hz-60, hz+60))
	}
	out, err := exec.Command("sox", append(args, "stat")...).CombinedOutput()
	m := soxRMS.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("sox %v: %v\n%s", args, err, out)
	}
	rms, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return rms
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// assertLanes asserts by both readers that the citizen's tone is in the left
// lane and only there, and the office's in the right, between two instants, or
// the file's end.
func assertLanes(t *testing.T, path string, citizen, office int, from, to time.Duration) {
	t.Helper()
	w := readWAV(t, path)
	if len(w.lanes) != 2 {
		t.Fatalf("%s has %d channels, want 2", path, len(w.lanes))
	}
	if to = min(to, w.length()-100*time.Millisecond); to-from < 500*time.Millisecond {
		t.Fatalf("%s is %v long, too short to judge from %v", path, w.length(), from)
	}
	for lane, own := range []int{citizen, office} {
		for _, hz := range []int{citizen, office, toneAnnouncement} {
			got, rms := w.level(lane, hz, from, to), soxLevel(t, path, lane+1, hz, from, to)
			t.Logf("channel %d, %d Hz: amplitude %.4f (go-audio), RMS %.4f (sox)", lane+1, hz, got, rms)
			if hz == own && (got < 0.4 || rms < 0.1) {
				t.Errorf("channel %d: its own tone of %d Hz is too weak", lane+1, hz)
			}
			if hz != own && (got > 0.01 || rms > 0.02) {
				t.Errorf("channel %d: a foreign tone of %d Hz", lane+1, hz)
			}
		}
	}
}

// assertHears asserts that a mono file has one tone and not the other somewhere
// within it.
func assertHears(t *testing.T, path string, hz, not int) {
	t.Helper()
	w := readWAV(t, path)
	best, worst := 0.0, 0.0
	const window = 400 * time.Millisecond
	for at := time.Duration(0); at+window <= w.length(); at += window / 2 {
		best = max(best, w.level(0, hz, at, at+window))
		if not != 0 {
			worst = max(worst, w.level(0, not, at, at+window))
		}
	}
	t.Logf("%s, %v: %d Hz up to %.3f, %d Hz up to %.3f", filepath.Base(path), w.length(), hz, best, not, worst)
	if best < 0.4 {
		t.Errorf("a tone of %d Hz was never heard (best %.3f)", hz, best)
	}
	if worst > 0.02 {
		t.Errorf("a tone of %d Hz was heard (%.3f)", not, worst)
	}
}
