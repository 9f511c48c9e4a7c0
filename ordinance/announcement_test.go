package ordinance

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestStatutoryAnnouncement(t *testing.T) {
	a, err := Statutory()
	if err != nil {
		t.Fatal(err)
	}
	if a.Text != AnnouncementText || a.TextSHA256 != AnnouncementTextSHA256 || a.Version == "" {
		t.Errorf("version %q with the text %q", a.Version, a.Text)
	}
	if hexSHA256(a.WAV) != a.AudioSHA256 {
		t.Error("the audio does not have the hash that goes into call records")
	}
	d, err := WAVDuration(a.WAV)
	if err != nil || d < 12*time.Second || d > 25*time.Second || TooShortForText(d) {
		t.Errorf("it takes %v (%v) to speak the text", d, err)
	}
	a.WAV[100]++ // the caller's copy
	if _, err := Statutory(); err != nil {
		t.Errorf("a caller's change reached the embedded audio: %v", err)
	}
}

func TestPrompts(t *testing.T) {
	for _, name := range []string{PromptClosed, PromptBusy} {
		p, err := Prompt(name)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := WAVDuration(p.WAV); err != nil || d < 5*time.Second || d > 20*time.Second {
			t.Errorf("%s takes %v (%v)", name, d, err)
		}
	}
	for _, name := range []string{"", "announcement", "../audio/closed"} {
		if _, err := Prompt(name); err == nil {
			t.Errorf("there is a prompt %q", name)
		}
	}
}

// The recordings are fit for a telephone line: no clipping, one level, quiet
// ends short enough not to be taken for a dead line.
func TestRecordingsAreLevelled(t *testing.T) {
	total := 0
	for _, name := range []string{"announcement", PromptClosed, PromptBusy} {
		a, err := readSpoken(spoken, name)
		if err != nil {
			t.Fatal(err)
		}
		total += len(a.WAV)
		pcm := samplesOf(t, a.WAV)
		var peak, first, last int
		first = -1
		for i, s := range pcm {
			v := int(math.Abs(float64(s)))
			peak = max(peak, v)
			if v > 100 { // -50 dBFS
				last = i
				if first < 0 {
					first = i
				}
			}
		}
		var power, active float64
		for i := 0; i+160 <= len(pcm); i += 160 {
			var p float64
			for _, s := range pcm[i : i+160] {
				p += float64(s) * float64(s) / 160
			}
			if 10*math.Log10(p/(1<<30)+1e-12) > -40 {
				power += p
				active++
			}
		}
		if db := 20 * math.Log10(float64(peak)/(1<<15)); db < -3.5 || db > -2.5 {
			t.Errorf("%s: peak %.1f dBFS", name, db)
		}
		if db := 10 * math.Log10(power/active/(1<<30)); db < -18 || db > -16 {
			t.Errorf("%s: speech at %.1f dBFS", name, db)
		}
		if lead, tail := first/8, (len(pcm)-last)/8; lead < 100 || lead > 300 || tail < 100 || tail > 300 {
			t.Errorf("%s: %d ms of silence before and %d ms after", name, lead, tail)
		}
		if len(a.WAV) > 300_000 {
			t.Errorf("%s: %d bytes", name, len(a.WAV))
		}
	}
	if total > 700_000 {
		t.Errorf("%d bytes of audio in the binary", total)
	}
}

// samplesOf decodes a file whose data chunk comes last, as sox writes it.
func samplesOf(t *testing.T, wav []byte) []int16 {
	t.Helper()
	i := bytes.Index(wav, []byte("data"))
	if i < 0 {
		t.Fatal("no data chunk")
	}
	pcm := make([]int16, len(wav[i+8:])/2)
	if err := binary.Read(bytes.NewReader(wav[i+8:]), binary.LittleEndian, pcm); err != nil {
		t.Fatal(err)
	}
	return pcm
}

func TestStatutoryFailsClosed(t *testing.T) {
	manifest, err := spoken.ReadFile("audio/announcement.json")
	if err != nil {
		t.Fatal(err)
	}
	wav, err := spoken.ReadFile("audio/announcement.wav")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := spoken.ReadFile("audio/closed.json")
	if err != nil {
		t.Fatal(err)
	}
	closedWAV, err := spoken.ReadFile("audio/closed.wav")
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Clone(wav)
	altered[len(altered)/2] ^= 1
	edit := func(old, new string) []byte {
		out := bytes.Replace(manifest, []byte(old), []byte(new), 1)
		if bytes.Equal(out, manifest) {
			t.Fatalf("the manifest has no %q", old)
		}
		return out
	}
	for _, c := range []struct {
		name     string
		manifest []byte
		wav      []byte
		want     string // "" = accepted
	}{
		{"as shipped", manifest, wav, ""},
		{"no manifest", nil, wav, "nie można odczytać manifestu"},
		{"no audio", manifest, nil, "nie można odczytać nagrania"},
		{"one bit of audio", manifest, altered, "nagranie zostało zmienione"},
		{"truncated audio", manifest, wav[:len(wav)-1], "nagranie zostało zmienione"},
		{"another text", edit("prosimy o przerwanie", "prosimy nie przerywać"), wav, "tekst nie zgadza się z manifestem"},
		{"another text hash", edit(AnnouncementTextSHA256, strings.Repeat("0", 64)), wav, "tekst nie zgadza się z manifestem"},
		{"no audio hash", edit(`"audio_sha256"`, `"audio_sha"`), wav, "niepełny"},
		{"half a manifest", manifest[:len(manifest)/2], wav, "uszkodzony"},
		{"a consistent manifest of another text", bytes.Replace(closed, []byte("closed.wav"), []byte("announcement.wav"), 1),
			closedWAV, "innego tekstu niż zarządzenie"},
	} {
		fsys := fstest.MapFS{}
		if c.manifest != nil {
			fsys["audio/announcement.json"] = &fstest.MapFile{Data: c.manifest}
		}
		if c.wav != nil {
			fsys["audio/announcement.wav"] = &fstest.MapFile{Data: c.wav}
		}
		a, err := statutory(fsys)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "komunikat § 1 ust. 4: ")):
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		case c.want != "" && (a.WAV != nil || a.Text != ""):
			t.Errorf("%s: something to play was returned with the error", c.name)
		}
	}
}

func TestCheckAnnouncement(t *testing.T) {
	good := wavFile(1, 1, 8000, 16, 16000)
	for _, c := range []struct {
		name, hash string
		wav        []byte
		want       string
	}{
		{"one second", "", good, ""},
		{"with its hash", hexSHA256(good), good, ""},
		{"with its hash in capitals and spaces", " " + strings.ToUpper(hexSHA256(good)) + "\n", good, ""},
		{"with another hash", strings.Repeat("ab", 32), good, "zostało zmienione"},
		{"one sample short", "", wavFile(1, 1, 8000, 16, 15998), "co najmniej 1 s"},
		{"empty", "", wavFile(1, 1, 8000, 16, 0), "co najmniej 1 s"},
		{"16 kHz", "", wavFile(1, 1, 16000, 16, 32000), "16000 Hz"},
		{"44.1 kHz", "", wavFile(1, 1, 44100, 16, 88200), "44100 Hz"},
		{"stereo", "", wavFile(1, 2, 8000, 16, 32000), "mono"},
		{"8 bits", "", wavFile(1, 1, 8000, 8, 16000), "8 bitów"},
		{"A-law", "", wavFile(6, 1, 8000, 16, 16000), "PCM"},
		{"nothing", "", nil, "nie jest plikiem WAV"},
		{"an MP3", "", []byte("ID3\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "nie jest plikiem WAV"},
		{"cut off", "", good[:len(good)-2], "ucięty"},
		{"header only", "", good[:12], "opisu formatu"},
		{"no audio", "", good[:36], "nie zawiera dźwięku"},
		{"unknown chunk of odd length before", "", bytes.Replace(good, []byte("data"), []byte("LIST\x03\x00\x00\x00abc\x00data"), 1), ""},
		{"a byte after the end", "", append(bytes.Clone(good), 0), ""},
	} {
		err := CheckAnnouncement(c.wav, c.hash)
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// wavFile builds a file with size bytes of silence.
func wavFile(tag, channels uint16, rate uint32, bits uint16, size int) []byte {
	b := []byte("RIFF....WAVEfmt ")
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(36+size))
	b = le.AppendUint32(b, 16)
	b = le.AppendUint16(b, tag)
	b = le.AppendUint16(b, channels)
	b = le.AppendUint32(b, rate)
	b = le.AppendUint32(b, rate*uint32(channels*bits/8))
	b = le.AppendUint16(b, channels*bits/8)
	b = le.AppendUint16(b, bits)
	b = append(b, "data"...)
	b = le.AppendUint32(b, uint32(size))
	return append(b, make([]byte, size)...)
}

func TestTooShortForText(t *testing.T) {
	for d, want := range map[time.Duration]bool{time.Second: true, 8 * time.Second: true, 15 * time.Second: false, 40 * time.Second: false} {
		if TooShortForText(d) != want {
			t.Errorf("TooShortForText(%v) = %v", d, !want)
		}
	}
}

func FuzzWAVDuration(f *testing.F) {
	f.Add(wavFile(1, 1, 8000, 16, 160))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEfmt \xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, wav []byte) {
		if d, err := WAVDuration(wav); err == nil && (d < 0 || d > time.Duration(len(wav))*time.Second/(2*8000)) {
			t.Errorf("%d bytes last %v", len(wav), d)
		}
	})
}
