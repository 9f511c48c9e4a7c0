package ordinance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// WAVDuration returns the length of an 8 kHz mono 16-bit PCM WAV file, the only
// kind that is played to callers. Of other files it reports in Polish what is
// wrong with them. It reads chunks in any order and skips those that it does
// not know; a data chunk that claims more than the file holds is refused, so
// that a truncated copy is not played.
func WAVDuration(wav []byte) (time.Duration, error) {
	if len(wav) < 12 || string(wav[0:4]) != "RIFF" || string(wav[8:12]) != "WAVE" {
		return 0, errors.New("nagranie nie jest plikiem WAV")
	}
	var haveFormat bool
	var samples int64 = -1
	for rest := wav[12:]; len(rest) >= 8; {
		id, size := string(rest[:4]), uint64(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if size > uint64(len(rest)) {
			return 0, fmt.Errorf("plik WAV jest ucięty: część %q ma mieć %d bajtów, jest %d", id, size, len(rest))
		}
		switch id {
		case "fmt ":
			if err := checkFormat(rest[:size]); err != nil {
				return 0, err
			}
			haveFormat = true
		case "data":
			samples = int64(size / 2)
		}
		rest = rest[size:]
		if size%2 == 1 && len(rest) > 0 { // chunks are padded to even length
			rest = rest[1:]
		}
	}
	switch {
	case !haveFormat:
		return 0, errors.New("plik WAV nie zawiera opisu formatu")
	case samples < 0:
		return 0, errors.New("plik WAV nie zawiera dźwięku")
	}
	return time.Duration(samples) * time.Second / sampleRate, nil
}

const sampleRate = 8000 // of telephony, in Hz

// checkFormat reads a fmt chunk: format tag, channels, rate, bytes a second,
// block size, bits a sample.
func checkFormat(b []byte) error {
	if len(b) < 16 {
		return errors.New("plik WAV ma uszkodzony opis formatu")
	}
	tag := binary.LittleEndian.Uint16(b[0:])
	channels := binary.LittleEndian.Uint16(b[2:])
	rate := binary.LittleEndian.Uint32(b[4:])
	bits := binary.LittleEndian.Uint16(b[14:])
	switch {
	case tag != 1:
		return fmt.Errorf("nagranie ma format nr %d, a musi mieć format PCM (nr 1)", tag)
	case rate != sampleRate:
		return fmt.Errorf("nagranie ma częstotliwość próbkowania %d Hz, a musi mieć %d Hz", rate, sampleRate)
	case channels != 1:
		return fmt.Errorf("nagranie ma liczbę kanałów %d, a musi mieć jeden (mono)", channels)
	case bits != 16:
		return fmt.Errorf("nagranie ma %d bitów na próbkę, a musi mieć 16", bits)
	}
	return nil
}
