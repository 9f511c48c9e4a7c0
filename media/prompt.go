package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Prompt is audio to be sent: 8 kHz mono, encoded once in both laws, so one
// byte per sample and law. It is immutable.
type Prompt struct {
	alaw, ulaw []byte
}

// MaxPrompt is the longest prompt that ReadPrompt takes.
const MaxPrompt = 10 * time.Minute

// maxPromptFile bounds what ReadPrompt reads: the longest prompt and 1 MiB for
// headers and chunks that are not audio.
const maxPromptFile = int64(MaxPrompt/time.Second)*SampleRate*2 + 1<<20

// NewPrompt encodes 8 kHz mono linear samples; it keeps no reference to them.
func NewPrompt(samples []int16) *Prompt {
	p := &Prompt{alaw: make([]byte, len(samples)), ulaw: make([]byte, len(samples))}
	for i, s := range samples {
		p.alaw[i] = EncodePCMA(s)
		p.ulaw[i] = EncodePCMU(s)
	}
	return p
}

// ReadPrompt reads a WAV file from r's position to its end: RIFF WAVE, PCM, 16
// bit, 8000 Hz, mono, not empty and not longer than MaxPrompt. The error says
// which of these does not hold. It never allocates more than a multiple of what
// it could read.
func ReadPrompt(r io.ReadSeeker) (*Prompt, error) {
	file, err := io.ReadAll(io.LimitReader(r, maxPromptFile+1))
	if err != nil {
		return nil, fmt.Errorf("read WAV: %w", err)
	}
	if int64(len(file)) > maxPromptFile {
		return nil, fmt.Errorf("WAV is longer than %v", MaxPrompt)
	}
	pcm, err := wavPCM(file)
	if err != nil {
		return nil, err
	}
	samples := make([]int16, len(pcm)/2)
	if len(samples) > int(MaxPrompt/time.Second)*SampleRate {
		return nil, fmt.Errorf("WAV is longer than %v", MaxPrompt)
	}
	for i := range samples {
		samples[i] = int16(binary.LittleEndian.Uint16(pcm[2*i:]))
	}
	return NewPrompt(samples), nil
}

// wavPCM walks the chunks of a RIFF WAVE file and returns the bytes of its data
// chunk. It is ours because go-audio/wav trusts the sizes it reads: a LIST entry
// of a few bytes makes it allocate 4 GiB. The tests hold the two against each
// other.
func wavPCM(file []byte) ([]byte, error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WAVE" {
		return nil, errors.New("not a RIFF WAVE file")
	}
	rest, formatSeen := file[12:], false
	for len(rest) >= 8 {
		id, size := string(rest[:4]), uint64(binary.LittleEndian.Uint32(rest[4:]))
		body := rest[8:]
		if size > uint64(len(body)) {
			return nil, fmt.Errorf("WAV is cut short: chunk %q has %d of %d bytes", id, len(body), size)
		}
		switch id {
		case "fmt ":
			if err := checkWAVFormat(body[:size]); err != nil {
				return nil, err
			}
			formatSeen = true
		case "data":
			switch {
			case !formatSeen:
				return nil, errors.New("WAV has no format before its data")
			case size == 0:
				return nil, errors.New("WAV has no audio in it")
			case size%2 != 0:
				return nil, fmt.Errorf("WAV data of %d bytes is not whole 16-bit samples", size)
			}
			return body[:size], nil
		}
		// Chunks are padded to an even length; a last one may lack its padding.
		rest = body[min(size+size%2, uint64(len(body))):]
	}
	return nil, errors.New("WAV has no data chunk")
}

func checkWAVFormat(b []byte) error {
	if len(b) < 16 {
		return fmt.Errorf("WAV format chunk of %d bytes is too short", len(b))
	}
	format := binary.LittleEndian.Uint16(b[0:])
	channels := binary.LittleEndian.Uint16(b[2:])
	rate := binary.LittleEndian.Uint32(b[4:])
	bits := binary.LittleEndian.Uint16(b[14:])
	switch {
	case format != 1:
		return fmt.Errorf("WAV encoding is %#x, want 1 (PCM)", format)
	case channels != 1:
		return fmt.Errorf("WAV has %d channels, want 1", channels)
	case rate != SampleRate:
		return fmt.Errorf("WAV sample rate is %d Hz, want %d", rate, SampleRate)
	case bits != 16:
		return fmt.Errorf("WAV has %d bits a sample, want 16", bits)
	}
	return nil
}

// NewPromptPCMA makes a prompt of A-law samples; it keeps no reference to them.
func NewPromptPCMA(alaw []byte) *Prompt {
	p := &Prompt{alaw: slices.Clone(alaw), ulaw: make([]byte, len(alaw))}
	transcode(p.ulaw, alaw, PCMA, PCMU)
	return p
}

// Silent is a prompt of d of silence.
func Silent(d time.Duration) *Prompt { return NewPrompt(make([]int16, d/sampleTime)) }

// JoinPrompts makes one prompt of several, one after the other.
func JoinPrompts(parts ...*Prompt) *Prompt {
	n := 0
	for _, part := range parts {
		n += part.samples()
	}
	p := &Prompt{alaw: make([]byte, 0, n), ulaw: make([]byte, 0, n)}
	for _, part := range parts {
		if part != nil {
			p.alaw, p.ulaw = append(p.alaw, part.alaw...), append(p.ulaw, part.ulaw...)
		}
	}
	return p
}

// Duration is how long the prompt plays.
func (p *Prompt) Duration() time.Duration {
	return time.Duration(p.samples()) * sampleTime
}

// samples is the prompt's length; a nil prompt is empty.
func (p *Prompt) samples() int {
	if p == nil {
		return 0
	}
	return len(p.alaw)
}

// frame fills dst with the samples from position at on, in the given law. Past
// the end it goes on from the start if loop is set, else with silence. The
// prompt must not be empty.
func (p *Prompt) frame(dst []byte, at int, law Codec, loop bool) {
	src := p.ulaw
	if law == PCMA {
		src = p.alaw
	}
	n := copy(dst, src[at:])
	for n < len(dst) {
		if loop {
			n += copy(dst[n:], src)
			continue
		}
		dst[n] = encodedZero(law)
		n++
	}
}

// fade lets the samples in dst, of the given law, rise from silence or fall to it.
func fade(dst []byte, law Codec, rise bool) {
	for i, b := range dst {
		part := int32(2*i + 1)
		if !rise {
			part = int32(2*len(dst)) - part
		}
		if law == PCMA {
			dst[i] = EncodePCMA(int16(int32(DecodePCMA(b)) * part / int32(2*len(dst))))
		} else {
			dst[i] = EncodePCMU(int16(int32(DecodePCMU(b)) * part / int32(2*len(dst))))
		}
	}
}
