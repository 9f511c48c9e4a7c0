package media

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-audio/wav"
	"github.com/zaf/g711"
)

func TestG711(t *testing.T) {
	for i := range 256 {
		b := byte(i)
		if DecodePCMA(b) != g711.DecodeAlawFrame(b) || DecodePCMU(b) != g711.DecodeUlawFrame(b) {
			t.Errorf("byte %#x decodes otherwise", b)
		}
		if DecodePCMA(EncodePCMA(DecodePCMA(b))) != DecodePCMA(b) || DecodePCMU(EncodePCMU(DecodePCMU(b))) != DecodePCMU(b) {
			t.Errorf("byte %#x does not come back", b)
		}
	}
	if encodedZero(PCMA) != EncodePCMA(0) || encodedZero(PCMU) != EncodePCMU(0) {
		t.Errorf("zero is %#x and %#x", EncodePCMA(0), EncodePCMU(0))
	}
}

// wavFile builds a WAV; format is the body of its fmt chunk.
func wavFile(format []byte, chunks ...[]byte) []byte {
	body := []byte("WAVE")
	body = append(body, chunk("fmt ", format)...)
	for _, c := range chunks {
		body = append(body, c...)
	}
	return chunk("RIFF", body)
}

func chunk(id string, body []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(id), uint32(len(body)))
	b = append(b, body...)
	if len(body)%2 == 1 {
		b = append(b, 0)
	}
	return b
}

func wavFormat(encoding, channels uint16, rate uint32, bits uint16) []byte {
	var b []byte
	b = binary.LittleEndian.AppendUint16(b, encoding)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, rate*uint32(channels*bits/8))
	b = binary.LittleEndian.AppendUint16(b, channels*bits/8)
	return binary.LittleEndian.AppendUint16(b, bits)
}

func TestReadPrompt(t *testing.T) {
	samples := make([]int16, 801)
	data := make([]byte, 0, 1602)
	for i := range samples {
		samples[i] = int16(i * 40)
		data = binary.LittleEndian.AppendUint16(data, uint16(samples[i]))
	}
	format := wavFormat(1, 1, 8000, 16)
	for name, file := range map[string][]byte{
		"plain":             wavFile(format, chunk("data", data)),
		"long format chunk": wavFile(append(slices.Clone(format), 0, 0), chunk("data", data)),
		"other chunks":      wavFile(format, chunk("LIST", []byte("INFOx")), chunk("data", data), chunk("junk", []byte("1"))),
	} {
		p, err := ReadPrompt(bytes.NewReader(file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p.Duration() != 801*125*time.Microsecond {
			t.Errorf("%s: lasts %v", name, p.Duration())
		}
		want := NewPrompt(samples)
		if !bytes.Equal(p.alaw, want.alaw) || !bytes.Equal(p.ulaw, want.ulaw) || len(p.alaw) != 801 {
			t.Errorf("%s: other samples", name)
		}
	}
	huge := binary.LittleEndian.AppendUint32([]byte("data"), 0xFFFFFFFE)
	for want, file := range map[string][]byte{
		"not a RIFF WAVE":           []byte("ID3 and so on"),
		"not a RIFF WAVE file":      chunk("RIFF", []byte("AVI something")),
		"want 1 (PCM)":              wavFile(wavFormat(6, 1, 8000, 16), chunk("data", data)),
		"encoding is 0xfffe":        wavFile(wavFormat(0xFFFE, 1, 8000, 16), chunk("data", data)),
		"2 channels":                wavFile(wavFormat(1, 2, 8000, 16), chunk("data", data)),
		"44100 Hz":                  wavFile(wavFormat(1, 1, 44100, 16), chunk("data", data)),
		"8 bits":                    wavFile(wavFormat(1, 1, 8000, 8), chunk("data", data)),
		"no audio":                  wavFile(format, chunk("data", nil)),
		"no data chunk":             wavFile(format),
		"has no format":             chunk("RIFF", append([]byte("WAVE"), chunk("data", data)...)),
		"too short":                 wavFile(format[:14], chunk("data", data)),
		"whole 16-bit":              wavFile(format, chunk("data", data[:801])),
		`cut short: chunk "data"`:   wavFile(format, huge, data),
		"longer than 10m0s":         wavFile(format, chunk("data", make([]byte, 601*8000*2))),
		"WAV is longer than 10m0s":  make([]byte, maxPromptFile+1),
		`cut short: chunk "LIST" h`: wavFile(format, binary.LittleEndian.AppendUint32([]byte("LIST"), 0xFFFFFFFF)),
	} {
		if _, err := ReadPrompt(bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want error with %q, got %v", want, err)
		}
	}
}

func FuzzReadPrompt(f *testing.F) {
	format := wavFormat(1, 1, 8000, 16)
	f.Add(wavFile(format, chunk("data", []byte{1, 2, 3, 4})))
	f.Add(wavFile(format, chunk("LIST", []byte("INFOIART\xff\xff\xff\xff")), chunk("data", []byte{1, 2})))
	f.Add(wavFile(append(slices.Clone(format), 0), chunk("data", []byte{1, 2})))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ReadPrompt(bytes.NewReader(file))
		if err != nil {
			if p != nil {
				t.Fatal("a prompt and an error")
			}
			return
		}
		if p.samples() == 0 || p.samples()*2 > len(file) || len(p.ulaw) != len(p.alaw) {
			t.Fatalf("%d samples of %d bytes", p.samples(), len(file))
		}
		if !plainWAV(file) {
			return
		}
		// An independent reader has to find the same samples.
		d := wav.NewDecoder(bytes.NewReader(file))
		buf, err := d.FullPCMBuffer()
		if err != nil || len(buf.Data) != p.samples() {
			t.Fatalf("go-audio read %v of %d samples, %v", buf, p.samples(), err)
		}
		for i, s := range buf.Data {
			if p.alaw[i] != EncodePCMA(int16(s)) {
				t.Fatalf("sample %d differs", i)
			}
		}
	})
}

// plainWAV tells whether a file is a format and a data chunk: what go-audio can
// be trusted with.
func plainWAV(file []byte) bool {
	return len(file) >= 44 && string(file[12:16]) == "fmt " && binary.LittleEndian.Uint32(file[16:]) == 16 &&
		string(file[36:40]) == "data" && binary.LittleEndian.Uint32(file[40:])%2 == 0
}

// TestPromptFrames: a prompt ends in silence, a loop has no seam.
func TestPromptFrames(t *testing.T) {
	samples := make([]int16, 250)
	for i := range samples {
		samples[i] = int16(i * 100)
	}
	p := NewPrompt(samples)
	for _, law := range []Codec{PCMA, PCMU} {
		encode := map[Codec]func(int16) byte{PCMA: EncodePCMA, PCMU: EncodePCMU}[law]
		for _, loop := range []bool{false, true} {
			got := make([]byte, FrameSamples)
			p.frame(got, FrameSamples, law, loop)
			for i, b := range got {
				want := encode(0)
				if at := FrameSamples + i; at < len(samples) || loop {
					want = encode(samples[at%len(samples)])
				}
				if b != want {
					t.Fatalf("law %d, loop %v, sample %d: %#x, want %#x", law, loop, i, b, want)
				}
			}
		}
	}
	short := NewPrompt(samples[:7])
	got := make([]byte, FrameSamples)
	short.frame(got, 3, PCMA, true)
	if got[4] != short.alaw[0] || got[159] != short.alaw[(159+3)%7] {
		t.Error("a loop that is shorter than a frame")
	}
}

func TestReadPromptError(t *testing.T) {
	if _, err := ReadPrompt(brokenReader{}); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("%v", err)
	}
}

type brokenReader struct{ io.Seeker }

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHoldMusic(t *testing.T) {
	p := HoldMusic()
	if p.Duration() < 20*time.Second || p.Duration() > 30*time.Second || p.samples()%FrameSamples != 0 {
		t.Errorf("lasts %v", p.Duration())
	}
	if HoldMusic() != p {
		t.Error("computed twice")
	}
	samples := make([]float64, p.samples())
	var power, peak float64
	for i, b := range p.alaw {
		s := float64(DecodePCMA(b)) / (1 << 15)
		samples[i] = s
		power += s * s
		peak = max(peak, math.Abs(s))
	}
	if level := 10 * math.Log10(power/float64(len(samples))); level < -22.5 || level > -21.5 {
		t.Errorf("level %.1f dBFS", level)
	}
	if peak > 0.5 {
		t.Errorf("peak %.2f", peak)
	}
	// No half second is silent, and none much louder than the whole.
	for at := 0; at < len(samples); at += 4000 {
		var part float64
		for _, s := range samples[at:min(at+4000, len(samples))] {
			part += s * s
		}
		if level := 10 * math.Log10(part/4000); level < -32 || level > -17 {
			t.Errorf("level %.1f dBFS at %v", level, time.Duration(at)*sampleTime)
		}
	}
	// A click is a step that the music itself does not make: none at the seam.
	step := func(i int) float64 { return math.Abs(samples[i] - samples[(i+len(samples)-1)%len(samples)]) }
	var largest float64
	for i := 1; i < len(samples); i++ {
		largest = max(largest, step(i))
	}
	if step(0) > largest/2 {
		t.Errorf("a step of %.3f at the seam, %.3f elsewhere", step(0), largest)
	}
	if largest > 0.25 {
		t.Errorf("a step of %.3f", largest)
	}
}
