//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zaf/g711"

	"centralka/ordinance"
	"centralka/store"
)

// benchLengthSlack is how far a recording's length may be from the
// conversation's, by the switch's own record of it and by our watch.
const (
	benchLengthSlack = 40 * time.Millisecond
	benchWatchSlack  = 500 * time.Millisecond
)

// benchRecordings is what the vault holds of the calls.
type benchRecordings struct {
	OK      int    `json:"ok"`      // complete, of the right length
	Bad     int    `json:"bad"`     // missing, not ok, or of another length
	Frames  uint64 `json:"frames"`  // stamped frames that were sent
	Found   uint64 `json:"found"`   // of those, unaltered in the right lane
	Trimmed uint64 `json:"trimmed"` // of those, without samples at an edge: steered
	Strange uint64 `json:"strange"` // of another call or the other lane, or twice
	Dropped uint64 `json:"dropped"` // by the recorder's own count
	// Off is how far a lane's frames lie from where their RTP timestamps put
	// them, at most; Length how far the length is from the conversation's.
	Off    time.Duration `json:"off_ns"`
	Length time.Duration `json:"length_off_ns"`
	Bytes  int64         `json:"bytes"`

	problems []string
}

// checkRecordings opens the vault, which the switch has left, and looks for
// every frame that was sent.
func (c *benchCity) checkRecordings() (r benchRecordings, err error) {
	vault, err := store.Open(store.Config{Dir: c.vault(), MasterKey: c.masterKey()})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	records := make([]*store.CallRecord, c.calls)
	for rec, err := range vault.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
		if err != nil {
			return r, err
		}
		i := benchCallOf(rec.Caller.Number.E164())
		if i < 0 || i >= c.calls || records[i] != nil {
			r.problem(0, "%v: a record of no call of ours, or a second one", rec.ID)
			continue
		}
		records[i] = &rec
	}
	law := benchInverse()
	for i, rec := range records {
		if rec == nil {
			r.problem(i, "there is no record")
			continue
		}
		r.check(vault, i, rec, &c.talks[i], law)
	}
	r.Bad = c.calls - r.OK
	return r, nil
}

func (r *benchRecordings) problem(call int, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("call %d: ", call)+fmt.Sprintf(format, args...))
}

// check judges one call's recording.
func (r *benchRecordings) check(vault *store.Store, i int, rec *store.CallRecord, talk *benchTalk, law map[int16]byte) {
	for side, p := range talk.parties {
		if p != nil {
			r.Frames += p.tally.count.Sent
		}
		r.Dropped += rec.Recording.Counts.Dropped[side]
	}
	if o := rec.Recording.Outcome; o != store.OutcomeOK {
		r.problem(i, "outcome %q: %s, counts %+v, cause %s", o, rec.Recording.Reason, rec.Recording.Counts, rec.Cause)
		return
	}
	lanes, err := benchLanes(vault, rec, law)
	if err != nil {
		r.problem(i, "%v", err)
		return
	}
	length := time.Duration(len(lanes[0])) * time.Second / 8000
	off := (length - rec.Ended.Sub(rec.Answered)).Abs()
	r.Length = max(r.Length, off)
	r.Bytes += rec.Recording.Size
	good := true
	if off > benchLengthSlack {
		r.problem(i, "recording of %v, conversation of %v", length, rec.Ended.Sub(rec.Answered))
		good = false
	}
	if d := (length - talk.over.Sub(talk.answered)).Abs(); d > benchWatchSlack {
		r.problem(i, "recording of %v, by our watch the conversation took %v", length, talk.over.Sub(talk.answered))
		good = false
	}
	for side, lane := range lanes {
		f := benchSearch(lane, uint32(i), benchSide(side))
		r.Found += f.own
		r.Trimmed += f.trimmed
		r.Strange += f.strange
		r.Off = max(r.Off, f.off)
		if sent := talk.parties[side].tally.count.Sent; f.own != sent || f.strange > 0 {
			r.problem(i, "lane %d holds %d of %d frames, and %d that belong elsewhere", side, f.own, sent, f.strange)
			good = false
		}
	}
	if good {
		r.OK++
	}
}

// benchFound is what a lane holds.
type benchFound struct {
	own, trimmed, strange uint64
	off                   time.Duration
}

// benchSearch finds stamped frames in a lane of A-law: how many of this
// speaker, each once, how many of them without their edges, how many of others,
// and how far the frames lie from an even grid.
func benchSearch(lane []byte, call uint32, side benchSide) (f benchFound) {
	var seen benchSet
	var grid, low, high int
	for at := 0; ; at++ {
		next := bytes.Index(lane[at:], benchMagic[:])
		if next < 0 || at+next+benchCore > len(lane) {
			f.off = time.Duration(high-low) * time.Second / 8000
			return f
		}
		at += next
		s, ok := readBenchStamp(lane[at:][:benchCore])
		switch {
		case !ok:
			continue
		case s.call != call || s.side != side || !seen.add(s.seq):
			f.strange++
		default:
			if !benchWhole(lane, at) {
				f.trimmed++
			}
			place := at - int(s.seq)*benchFrame
			if f.own++; f.own == 1 {
				grid = place
			}
			low, high = min(low, place-grid), max(high, place-grid)
		}
		at += benchCore - 1
	}
}

// benchLanes reads a recording as the A-law that it was made of: citizen,
// office. Samples that A-law does not have become zero.
func benchLanes(vault *store.Store, rec *store.CallRecord, law map[int16]byte) (lanes [2][]byte, err error) {
	c, err := vault.OpenRecording(rec.Day, rec.ID)
	if err != nil {
		return lanes, err
	}
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	if err = errors.Join(err, c.Close()); err != nil {
		return lanes, err
	}
	le := binary.LittleEndian
	if len(b) < 44 || string(b[:4]) != "RIFF" || string(b[8:16]) != "WAVEfmt " || string(b[36:40]) != "data" ||
		le.Uint16(b[20:]) != 1 || le.Uint16(b[22:]) != 2 || le.Uint32(b[24:]) != 8000 || le.Uint16(b[34:]) != 16 ||
		int(le.Uint32(b[40:])) != len(b)-44 || (len(b)-44)%4 != 0 {
		return lanes, fmt.Errorf("recording %v is not a stereo WAV of 8 kHz and 16 bits", rec.ID)
	}
	for b = b[44:]; len(b) > 0; b = b[4:] {
		lanes[0] = append(lanes[0], law[int16(le.Uint16(b))])
		lanes[1] = append(lanes[1], law[int16(le.Uint16(b[2:]))])
	}
	return lanes, nil
}

// benchInverse maps samples to the A-law codes that stand for them; each
// stands for one (ITU-T G.711).
func benchInverse() map[int16]byte {
	m := make(map[int16]byte, 256)
	for c := range 256 {
		m[g711.DecodeAlawFrame(uint8(c))] = byte(c)
	}
	return m
}
