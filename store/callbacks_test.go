package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
)

// vain is a call whose caller waited d in the queue for nothing.
func vain(day ordinance.Day, offset, d time.Duration, number ordinance.Number) CallRecord {
	rec := call(day, offset)
	rec.Caller = Party{Number: number, Presentation: "allowed"}
	if number == "" {
		rec.Caller.Presentation = "withheld"
	}
	rec.Queue, rec.Queued = "cim", rec.Began.Add(17*time.Second)
	rec.Ended = rec.Queued.Add(d)
	return rec
}

func TestCallbacks(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	const anna, jan, ewa, olga = "+48600100200", "+48600100201", "+48600100202", "+48600100203"
	next := day1.Next(1)
	var lastAnna CallRecord
	for _, rec := range []CallRecord{
		vain(day1, 8*time.Hour, time.Minute, anna),
		vain(day1, 9*time.Hour, 2*time.Minute, jan),
		vain(day1, 10*time.Hour, 3*time.Minute, ewa),
		vain(day1, 11*time.Hour, 3*time.Minute, ""),
		vain(next, 8*time.Hour, 3*time.Minute, olga),
		vain(next, 9*time.Hour, 4*time.Minute, anna),
	} {
		must(t, s.PutCall(rec))
		lastAnna = rec
	}
	hungUp := call(day1, 12*time.Hour) // in the announcement: never waited
	hungUp.Cause = CauseAnnouncementHangup
	must(t, s.PutCall(hungUp))
	again := func(day ordinance.Day, offset time.Duration, d CallDirection, n ordinance.Number, answered bool) {
		t.Helper()
		rec := call(day, offset)
		rec.Direction, rec.Caller.Number, rec.Cause = d, n, CauseNoAnswer
		if d == Outgoing {
			rec.Caller, rec.Called = Party{}, n
		}
		if answered {
			rec.Answered, rec.Cause = rec.Began.Add(10*time.Second), CauseHangupCaller
		}
		must(t, s.PutCall(rec))
	}
	again(day1, 7*time.Hour, Incoming, jan, true)                 // before: says nothing
	again(day1, 10*time.Hour, Outgoing, jan, false)               // an attempt
	again(next, 10*time.Hour, Outgoing, jan, true)                // reached, a day later
	again(day1, 12*time.Hour, Incoming, ewa, true)                // came through
	again(day1, 8*time.Hour+10*time.Minute, Outgoing, anna, true) // but she gave up again since

	list, withheld, err := s.Callbacks(day1, ordinance.Day{})
	must(t, err)
	if withheld != 1 || len(list) != 4 {
		t.Fatalf("%d withheld, %+v", withheld, list)
	}
	want := []Callback{
		{Number: anna, Times: 2, Waited: 4 * time.Minute},
		{Number: olga, Times: 1, Waited: 3 * time.Minute},
		{Number: ewa, Times: 1, Waited: 3 * time.Minute, Done: true, DoneBy: CalledAgain},
		{Number: jan, Times: 1, Waited: 2 * time.Minute, Done: true, DoneBy: CalledBack, Attempts: 1},
	}
	for i, w := range want {
		got := list[i]
		if got.Number != w.Number || got.Times != w.Times || got.Waited != w.Waited || got.Done != w.Done || got.DoneBy != w.DoneBy ||
			got.Attempts != w.Attempts || got.Queue != "cim" {
			t.Errorf("place %d: %+v, want %+v", i, got, w)
		}
	}
	if list[0].Day != next || list[0].Call != lastAnna.ID || list[0].First.Equal(list[0].Last) {
		t.Errorf("%+v", list[0])
	}

	// By hand, and taken back; each note is kept.
	anna0 := func() Callback {
		list, _, err := s.Callbacks(day1, ordinance.Day{})
		must(t, err)
		return list[0]
	}
	must(t, s.MarkCallback(next, lastAnna.ID, "101", true))
	if cb := anna0(); !cb.Done || cb.DoneBy != Marked || cb.By != "101" || cb.DoneAt.IsZero() {
		t.Errorf("marked: %+v", cb)
	}
	must(t, s.MarkCallback(next, lastAnna.ID, "101", false))
	if cb := anna0(); cb.Done {
		t.Errorf("taken back: %+v", cb)
	}
	if marks, err := s.CallbackMarks(next, lastAnna.ID); err != nil || len(marks) != 2 {
		t.Errorf("%+v, %v", marks, err)
	}
	must(t, s.MarkCallback(next, lastAnna.ID, "101", true))
	must(t, s.PutCall(vain(next, 11*time.Hour, time.Minute, anna))) // and in vain again
	if cb := anna0(); cb.Done || cb.Times != 3 {
		t.Errorf("marked, then called in vain again: %+v", cb)
	}
	for _, err := range []error{
		s.MarkCallback(next, NewID(), "101", true),
		s.MarkCallback(day1, hungUp.ID, "101", true),
		s.MarkCallback(next, lastAnna.ID, " ", true),
		s.MarkCallback(day1.Next(9), lastAnna.ID, "101", true),
	} {
		if err == nil {
			t.Error("a mark without a call or without somebody is taken")
		}
	}
}

// TestCallbacksGoWithTheirDay: and the notes too.
func TestCallbacksGoWithTheirDay(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	rec := vain(dueDay(), 8*time.Hour, time.Minute, "+48600100200")
	must(t, s.PutCall(rec))
	must(t, s.MarkCallback(rec.Day, rec.ID, "101", true))
	_, err := s.Sweep(noCancel{}, time.Now())
	must(t, err)
	if list, withheld, err := s.Callbacks(ordinance.Day{}, ordinance.Day{}); err != nil || len(list)+withheld > 0 {
		t.Errorf("%+v, %d, %v", list, withheld, err)
	}
	if err := s.MarkCallback(rec.Day, rec.ID, "101", true); !errors.Is(err, ErrGone) {
		t.Errorf("mark of a day that is gone: %v", err)
	}
}

// TestTags: an agent tags a call, later states of its record keep that, and
// what was said before stays as a trace (S4.3-h).
func TestTags(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	unit, _, err := s.PutUnit(Unit{Name: "Wydział Spraw Obywatelskich", Active: true}, "anna", "start")
	must(t, err)
	old, _, err := s.PutUnit(Unit{Name: "Wydział Dawny"}, "anna", "start")
	must(t, err)
	rec := call(day1, 8*time.Hour)
	rec.Cause = ""
	must(t, s.PutCall(rec))
	must(t, s.TagCall(rec.ID, Tag{By: "101", Topic: " dowód osobisty "}))
	rec.Cause, rec.Revision = CauseHangupCaller, 5
	must(t, s.PutCall(rec))
	must(t, s.TagCall(rec.ID, Tag{By: "101", Unit: unit.ID, Topic: "dowód osobisty"}))
	rec.Revision = 6
	must(t, s.CommitRecording(rec))
	got, err := s.Find(rec.ID)
	must(t, err)
	tag, ok := got.Tag()
	if !ok || len(got.Tags) != 2 || got.Tags[0].Topic != "dowód osobisty" || !got.Tags[0].Unit.IsZero() || tag.Unit != unit.ID || tag.At.IsZero() {
		t.Errorf("tags %+v", got.Tags)
	}
	for want, tag := range map[string]Tag{
		"lacks who":   {Topic: "x"},
		"neither":     {By: "101"},
		"not active":  {By: "101", Unit: old.ID},
		"not in":      {By: "101", Unit: NewID()},
		"longer than": {By: "101", Topic: strings.Repeat("x", 201)},
	} {
		if err := s.TagCall(rec.ID, tag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", tag, err, want)
		}
	}
	if err := s.TagCall(NewID(), Tag{By: "101", Topic: "x"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a call that is not there: %v", err)
	}
}
