package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// followed says how something spoken was heard.
type followed struct {
	from, to time.Duration // in what was heard
	pauses   time.Duration // put into it by a machine that was held up
	lost     time.Duration // of it, never heard
	whole    bool
}

func (m followed) String() string {
	switch {
	case m.to == 0:
		return "not heard at all"
	case !m.whole:
		return seconds(m.lost) + " of it were not heard"
	case m.pauses > 0:
		return fmt.Sprintf("in full, with pauses of %d ms: this machine was held up", m.pauses.Milliseconds())
	}
	return "unbroken"
}

// mostly tells whether a line was understood: of a simulated speaker, too, a
// machine that is held up loses a syllable.
func (m followed) mostly() bool { return m.to > 0 && m.lost*5 < m.to-m.from }

// follow listens for something spoken: all of it must be heard, in its order.
// Pauses may lie between its parts, as the switch puts them there when the
// machine does not let it run for a while.
func follow(heard, prompt []int16) followed {
	const (
		piece = pbxtest.Rate / 2
		least = piece / 4 // a pause within such a piece hides it
		later = pbxtest.Rate
	)
	var m pbxtest.Match
	begin := 0
	for ; begin < min(3*piece, len(prompt)) && m.Similarity < alike; begin += piece {
		m = pbxtest.Find(heard[:min(len(heard), begin+piece+2*later)], prompt[begin:min(begin+piece, len(prompt))])
	}
	if m.Similarity < alike {
		return followed{lost: lengthOf(prompt)}
	}
	// offset is from a sample of the prompt to the one that was heard. If a pause
	// hides the first piece, what is before the pause lies earlier.
	offset := int(m.From*pbxtest.Rate/time.Second) - (begin - piece)
	if begin > piece {
		offset -= later
	}
	var f followed
	hidden, shifts, started := 0, 0, false
	var listen func(i, j int)
	listen = func(i, j int) {
		part := prompt[i:j]
		if pbxtest.Level(part) < quiet {
			return
		}
		for _, slack := range []int{8, later} { // where it must be, or up to a second later
			from := min(max(i+offset, 0), len(heard))
			at := pbxtest.Find(heard[from:max(from, min(j+offset+slack, len(heard)))], part)
			if at.Similarity < alike || at.From < -time.Millisecond {
				continue
			}
			shift := from + int(at.From*pbxtest.Rate/time.Second) - i - offset
			if started && shift > 8 {
				shifts++
				f.pauses += time.Duration(shift) * time.Second / pbxtest.Rate
			}
			if !started || shift > 8 {
				offset += shift
			}
			if !started {
				f.from = time.Duration(offset) * time.Second / pbxtest.Rate
			}
			started = true
			return
		}
		if j-i <= least {
			hidden += j - i
			return
		}
		listen(i, (i+j)/2)
		listen((i+j)/2, j)
	}
	for i := 0; i < len(prompt); i += piece {
		listen(i, min(i+piece, len(prompt)))
	}
	f.to = time.Duration(offset+len(prompt)) * time.Second / pbxtest.Rate
	f.whole = hidden <= shifts*least
	f.lost = time.Duration(hidden) * time.Second / pbxtest.Rate
	return f
}

func understood(said []followed) bool {
	return len(said) > 0 && !slices.ContainsFunc(said, func(m followed) bool { return !m.mostly() })
}

// lineByLine says how lines were heard.
func lineByLine(said []followed) string {
	var faults []string
	var whole time.Duration
	for i, m := range said {
		whole += m.to - m.from
		if !m.whole || m.pauses > 0 {
			faults = append(faults, fmt.Sprintf("line %d: %v", i+1, m))
		}
	}
	if len(faults) > 0 {
		return strings.Join(faults, "; ")
	}
	return fmt.Sprintf("%s, %s, to the last sample", counted(len(said), "line"), seconds(whole))
}

// recordingCopy is a recording that was copied out of the vault.
type recordingCopy struct {
	scene *scene
	rec   store.CallRecord
	file  string
	wav   pbxtest.WAV
	holds []laneLine // what was found in it
}

// laneLine is a line that was found in its lane.
type laneLine struct {
	spoken
	at time.Duration
}

// copyOut copies a recording through the store, and reads the copy back.
func (x *inspection) copyOut(s *scene, rec store.CallRecord) (cp recordingCopy, err error) {
	content, err := x.c.sys.store.OpenRecording(rec.Day, rec.ID)
	if err != nil {
		return cp, fmt.Errorf("open recording %v: %w", rec.ID, err)
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := os.MkdirAll(x.out, 0o700); err != nil {
		return cp, fmt.Errorf("make the folder of the copies: %w", err)
	}
	cp = recordingCopy{scene: s, rec: rec}
	f, err := createUnused(x.out, recordingName(rec.Recording.Began, s))
	if err != nil {
		return cp, fmt.Errorf("copy recording %v: %w", rec.ID, err)
	}
	cp.file = f.Name()
	_, err = io.Copy(f, io.NewSectionReader(content, 0, content.Size()))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		cp.wav, err = pbxtest.ReadWAV(f)
	}
	return cp, errors.Join(err, f.Close())
}

// recordingName names a copy by its time and scene, never by a number.
func recordingName(began time.Time, s *scene) string {
	direction := "incoming"
	if s.outgoing != "" {
		direction = "outgoing"
	}
	return fmt.Sprintf("%s-%s-%s", began.In(ordinance.Warsaw).Format("2006-01-02-150405"), s.name, direction)
}

// createUnused makes name.wav, or name-2.wav and so on if that is there: no
// copy takes the place of another.
func createUnused(dir, name string) (*os.File, error) {
	for n := 1; ; n++ {
		unique := name
		if n > 1 {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		f, err := os.OpenFile(filepath.Join(dir, unique+".wav"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil || !errors.Is(err, os.ErrExist) || n == 1000 {
			return f, err
		}
	}
}

func span(pcm []int16, from, to time.Duration) []int16 {
	index := func(t time.Duration) int { return min(max(int(t*pbxtest.Rate/time.Second), 0), len(pcm)) }
	return pcm[index(from):max(index(to), index(from))]
}
