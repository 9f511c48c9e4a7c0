package ordinance

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

//go:embed audio/*.wav audio/*.al audio/*.json
var spoken embed.FS

// Announcement is a text together with its recording. Calls keep its version
// and both hashes (S1.4-e). The bytes of WAV belong to the caller.
type Announcement struct {
	Version     string
	Text        string
	TextSHA256  string // of Text in UTF-8, lower-case hexadecimal
	WAV         []byte // 8 kHz, mono, 16-bit PCM
	AudioSHA256 string // of the whole file WAV, lower-case hexadecimal
}

// Statutory returns the announcement that precedes every incoming call
// (Zarz. 284/17 §1 ust. 4) with its embedded recording. Text and audio are
// checked against their manifest, and the text against
// AnnouncementTextSHA256, at every call. While it returns an error, incoming
// calls must not be connected (S1.4-f); the error is in Polish, for the status
// page and the console.
func Statutory() (Announcement, error) { return statutory(spoken) }

func statutory(fsys fs.FS) (Announcement, error) {
	a, err := readSpoken(fsys, "announcement")
	if err != nil {
		return Announcement{}, fmt.Errorf("komunikat § 1 ust. 4: %w", err)
	}
	if a.TextSHA256 != AnnouncementTextSHA256 {
		return Announcement{}, fmt.Errorf("komunikat § 1 ust. 4: manifest dotyczy innego tekstu niż zarządzenie: skrót %s zamiast %s",
			a.TextSHA256, AnnouncementTextSHA256)
	}
	return a, nil
}

// The prompts that the switch speaks besides the announcement.
const (
	PromptClosed = "closed" // outside office hours
	PromptBusy   = "busy"   // the queue is full, or the caller waited too long
)

// Prompt returns one of the embedded prompts, checked as Statutory does. A
// missing prompt does not stop calls.
func Prompt(name string) (Announcement, error) {
	if name != PromptClosed && name != PromptBusy {
		return Announcement{}, fmt.Errorf("zapowiedź %q: nie ma takiej", name)
	}
	a, err := readSpoken(spoken, name)
	if err != nil {
		return Announcement{}, fmt.Errorf("zapowiedź %q: %w", name, err)
	}
	return a, nil
}

// readSpoken reads NAME.json and the audio that it names, and verifies both
// hashes.
func readSpoken(fsys fs.FS, name string) (Announcement, error) {
	raw, err := fs.ReadFile(fsys, "audio/"+name+".json")
	if err != nil {
		return Announcement{}, fmt.Errorf("nie można odczytać manifestu: %w", err)
	}
	var m struct {
		Version     string `json:"version"`
		Text        string `json:"text"`
		TextSHA256  string `json:"text_sha256"`
		Audio       string `json:"audio"`
		AudioSHA256 string `json:"audio_sha256"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return Announcement{}, fmt.Errorf("manifest %s.json jest uszkodzony: %w", name, err)
	}
	if m.Version == "" || m.Text == "" || m.Audio == "" || m.AudioSHA256 == "" {
		return Announcement{}, fmt.Errorf("manifest %s.json jest niepełny", name)
	}
	if got := hexSHA256([]byte(m.Text)); got != m.TextSHA256 {
		return Announcement{}, fmt.Errorf("tekst nie zgadza się z manifestem: skrót %s zamiast %s", got, m.TextSHA256)
	}
	wav, err := fs.ReadFile(fsys, "audio/"+m.Audio)
	if err != nil {
		return Announcement{}, fmt.Errorf("nie można odczytać nagrania: %w", err)
	}
	if err := CheckAnnouncement(wav, m.AudioSHA256); err != nil {
		return Announcement{}, err
	}
	return Announcement{m.Version, m.Text, m.TextSHA256, wav, m.AudioSHA256}, nil
}

// CheckAnnouncement reports, in Polish, why wav cannot serve as an
// announcement: it must be 8 kHz mono 16-bit PCM of at least one second, and
// have the hash wantSHA256 unless that is empty. It does not judge what is
// said; see TooShortForText.
func CheckAnnouncement(wav []byte, wantSHA256 string) error {
	if wantSHA256 != "" {
		if got := hexSHA256(wav); !strings.EqualFold(got, strings.TrimSpace(wantSHA256)) {
			return fmt.Errorf("nagranie zostało zmienione: skrót SHA-256 %s zamiast %s", got, wantSHA256)
		}
	}
	d, err := WAVDuration(wav)
	if err != nil {
		return err
	}
	if d < time.Second {
		return fmt.Errorf("nagranie trwa %v, a musi trwać co najmniej 1 s", d)
	}
	return nil
}

// fastestSpeech is faster than anyone reads an announcement aloud, in runes a
// second; a newsreader speaks Polish at some 15.
const fastestSpeech = 22

// TooShortForText reports that a recording of length d cannot hold the whole of
// AnnouncementText. It is a warning for the status page; it does not refuse
// the recording, as nobody but a listener can tell what it says.
func TooShortForText(d time.Duration) bool {
	return d < time.Duration(len([]rune(AnnouncementText)))*time.Second/fastestSpeech
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
