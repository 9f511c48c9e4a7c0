package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"

	"centralka/media"
	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// historyMoment is a local time around which the six-month rule has its corners
// (S0-b).
type historyMoment struct {
	why    string
	month  time.Month
	date   int // 0: the last Sunday of the month
	hour   int
	minute int
}

var historyMoments = []historyMoment{
	{"the end of August: half a year on there is no such date", time.August, 31, 10, 0},
	{"three days before it: four days of August end on one day of February", time.August, 28, 10, 0},
	{"the end of October: April is shorter", time.October, 31, 10, 0},
	{"late on New Year's Eve: another day in UTC an hour later", time.December, 31, 23, 30},
	{"the day of 23 hours", time.March, 0, 12, 0},
	{"the day of 25 hours", time.October, 0, 2, 30},
	{"an ordinary day", time.September, 15, 9, 0},
}

// historyDay is the latest such day that is not after today.
func (m historyMoment) historyDay(today ordinance.Day) time.Time {
	for year := today.Year; ; year-- {
		date := m.date
		if date == 0 {
			last := time.Date(year, m.month+1, 0, 12, 0, 0, 0, ordinance.Warsaw)
			date = last.Day() - int(last.Weekday())
		}
		t := time.Date(year, m.month, date, m.hour, m.minute, 0, 0, ordinance.Warsaw)
		if ordinance.DayOf(t).Compare(today) <= 0 {
			return t
		}
	}
}

// runHistory is demo --history.
func runHistory(dir string, stdout, stderr io.Writer) int {
	if dir == "" {
		fmt.Fprintln(stderr, "centralka demo: --history needs --dir, the folder to fill")
		return exitUsage
	}
	if err := fillHistory(dir, time.Now(), stdout); err != nil {
		fmt.Fprintln(stderr, "centralka demo:", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "\nWhat a sweep will remove: centralka retention preview --dir %s --as-of %v\n", dir, ordinance.DayOf(time.Now()).Next(120))
	return exitOK
}

// fillHistory puts back-dated calls of every kind into the vault at dir, through
// the same calls of store that the switch uses, so that the six-month rule can
// be seen at work without waiting (S0-b). It tells on out what it made.
func fillHistory(dir string, now time.Time, out io.Writer) (err error) {
	st, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	today := ordinance.DayOf(now)
	for _, m := range historyMoments {
		at := m.historyDay(today)
		day := ordinance.DayOf(at)
		made, err := fillDay(st, at)
		switch {
		case errors.Is(err, store.ErrGone):
			fmt.Fprintf(out, "%v  last day %v  removed already, %s\n", day, ordinance.LastDay(day), m.why)
		case err != nil:
			return fmt.Errorf("fill %v: %w", day, err)
		default:
			state := "kept"
			if ordinance.Due(day, now) {
				state = "due: the next sweep removes it"
			}
			fmt.Fprintf(out, "%v  last day %v  %d calls, %s; %s\n", day, ordinance.LastDay(day), made, state, m.why)
		}
	}
	return nil
}

// fillDay makes one call of each kind, a quarter of an hour apart at most, all
// on at's day.
func fillDay(st *store.Store, at time.Time) (made int, err error) {
	base := func(d store.CallDirection, cause store.Cause) store.CallRecord {
		began := at.Add(time.Duration(made) * time.Minute)
		return store.CallRecord{
			ID: store.NewID(), Day: ordinance.DayOf(at), Direction: d, Began: began.UTC(), Ended: began.Add(40 * time.Second).UTC(),
			Cause: cause, Trunk: "operator", Revision: 1,
			Recording: store.Recording{Outcome: store.OutcomeNone, Reason: "no conversation (S1.3-d)"},
		}
	}
	known := func(i int) store.Party {
		n := ordinance.Number(fmt.Sprintf("+4860010%04d", i))
		return store.Party{Number: n, Raw: n.E164(), Source: "P-Asserted-Identity", Presentation: "allowed"}
	}
	withheld := store.Party{Source: "From", Presentation: "withheld"}

	recorded := func(rec store.CallRecord, citizen, office string) error {
		rec.Answered = rec.Began.Add(20 * time.Second)
		rec.Segments = []store.Segment{{Extension: "101", From: rec.Answered, To: rec.Ended}}
		pcm, err := twoLanes(citizen, office)
		if err != nil {
			return err
		}
		file, err := st.PutFile(rec.Day, rec.ID, func(w io.Writer) error { return writeWAV(w, pcm) })
		if err != nil {
			return err
		}
		rec.Recording = store.Recording{
			Outcome: store.OutcomeOK, Began: rec.Answered, Size: file.Size, SHA256: file.SHA256,
			Duration: time.Duration(len(pcm)/2) * time.Second / media.SampleRate,
		}
		made++
		return st.CommitRecording(rec)
	}
	plain := func(rec store.CallRecord) error {
		made++
		return st.PutCall(rec)
	}

	rec := base(store.Incoming, store.CauseHangupCaller)
	rec.Caller, rec.Called, rec.Queue = known(1), "+48914245000", "cim"
	if err := recorded(rec, "caller-id", "agent-hello"); err != nil {
		return made, err
	}
	rec = base(store.Incoming, store.CauseHangupCalled)
	rec.Caller, rec.Called, rec.Queue = withheld, "+48914245000", "cim"
	if err := recorded(rec, "caller-waste", "agent-hello"); err != nil {
		return made, err
	}
	rec = base(store.Outgoing, store.CauseHangupCaller)
	rec.Extension, rec.Called = "101", known(2).Number
	if err := recorded(rec, "resident-yes", "agent-callback"); err != nil {
		return made, err
	}
	rec = base(store.Incoming, store.CauseAnnouncementHangup)
	rec.Caller, rec.Called, rec.Queue = known(3), "+48914245000", "cim"
	if err := plain(rec); err != nil {
		return made, err
	}
	rec = base(store.Incoming, store.CauseAbandoned)
	rec.Caller, rec.Called, rec.Queue = known(4), "+48914245000", "cim"
	if err := plain(rec); err != nil {
		return made, err
	}
	rec = base(store.Internal, store.CauseHangupCaller)
	rec.Trunk, rec.Extension, rec.Called = "", "101", "102"
	rec.Recording.Reason = "internal call (S1.3-e)"
	return made, plain(rec)
}

// twoLanes puts two spoken lines into a stereo recording, one after the other.
func twoLanes(left, right string) ([]int16, error) {
	l, err := pbxtest.VoiceOf(left)
	if err != nil {
		return nil, err
	}
	r, err := pbxtest.VoiceOf(right)
	if err != nil {
		return nil, err
	}
	out := make([]int16, 2*(len(l)+len(r)))
	for i, v := range r {
		out[2*i+1] = v
	}
	for i, v := range l {
		out[2*(len(r)+i)] = v
	}
	return out, nil
}

// writeWAV writes stereo samples as a WAV. The library's encoder wants to seek,
// so it writes to a temporary file first: these are spoken samples of the
// program's own, nobody's conversation.
func writeWAV(w io.Writer, stereo []int16) (err error) {
	f, err := os.CreateTemp("", "centralka-history-*.wav")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	data := make([]int, len(stereo))
	for i, v := range stereo {
		data[i] = int(v)
	}
	enc := wav.NewEncoder(f, media.SampleRate, 16, 2, 1)
	format := &audio.Format{NumChannels: 2, SampleRate: media.SampleRate}
	if err := enc.Write(&audio.IntBuffer{Format: format, Data: data, SourceBitDepth: 16}); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
