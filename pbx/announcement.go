package pbx

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// announced proves that the announcement was played to one caller from its
// first frame to its last without a break (Zarz. 284/17 §1 ust. 4). Only
// whoever holds one can ring a phone for an incoming call. A test sees to it
// that no other file makes one.
type announced struct{ play store.AnnouncementPlay }

// announcement is an audio that may be played to incoming callers.
type announcement struct {
	prompt      *media.Prompt
	version     string
	textSHA256  string
	audioSHA256 string
	// short: the audio is too short to hold the text in force; shown, not
	// refused.
	short bool
}

// readAnnouncement loads the WAV at file, or the embedded recording of the text
// in force if file is empty, and checks it against its hash.
func readAnnouncement(file, wantSHA256 string) (*announcement, error) {
	law, err := ordinance.Statutory()
	if err != nil {
		return nil, err
	}
	a := &announcement{version: law.Version, textSHA256: law.TextSHA256, audioSHA256: law.AudioSHA256}
	wav := law.WAV
	if file != "" {
		if wav, err = os.ReadFile(file); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("brak pliku komunikatu %s", file)
			}
			return nil, fmt.Errorf("nie można odczytać komunikatu: %w", err)
		}
		if err := ordinance.CheckAnnouncement(wav, wantSHA256); err != nil {
			return nil, fmt.Errorf("komunikat %s: %w", file, err)
		}
		a.audioSHA256 = fmt.Sprintf("%x", sha256.Sum256(wav))
	}
	if a.prompt, err = media.ReadPrompt(bytes.NewReader(wav)); err != nil {
		return nil, fmt.Errorf("komunikat: %w", err)
	}
	a.short = ordinance.TooShortForText(a.prompt.Duration())
	return a, nil
}

// announcing plays the announcement to one caller. The call's goroutine owns
// it.
type announcing struct {
	what *announcement
	play store.AnnouncementPlay
	id   media.PlayID
	on   bool
}

// begin plays the announcement from its first frame, if the caller can hear it
// now.
func (p *announcing) begin(l *leg) {
	if l.params.Direction&media.SendOnly == 0 {
		return // held: begin again when it ends
	}
	p.play = store.AnnouncementPlay{
		Version:     p.what.version,
		TextSHA256:  p.what.textSHA256,
		AudioSHA256: p.what.audioSHA256,
		Started:     time.Now(),
	}
	p.on = true
	p.id = l.stream.Play(p.what.prompt, false)
}

// heard takes the end of a play. The proof is made here and nowhere else.
func (p *announcing) heard(ev media.Played) (proof announced, ok bool) {
	if !p.on || ev.Play != p.id {
		return announced{}, false
	}
	p.on = false
	p.play.Ended = ev.At
	p.play.Complete = ev.Complete
	if !ev.Complete {
		return announced{}, false
	}
	return announced{play: p.play}, true
}
