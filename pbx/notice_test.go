package pbx

import (
	"slices"
	"testing"
	"time"
)

func TestNoticeWords(t *testing.T) {
	b, err := newPhrasebook()
	if err != nil {
		t.Fatal(err)
	}
	for wait, want := range map[time.Duration]string{
		-time.Second: "wait-less", 0: "wait-less", 59 * time.Second: "wait-less", time.Minute: "wait-1", 61 * time.Second: "wait-2", 2 * time.Minute: "wait-2",
		29*time.Minute + time.Second: "wait-30", 30 * time.Minute: "wait-30", 30*time.Minute + 1: "wait-more", 5 * time.Hour: "wait-more",
	} {
		if got := b.wait(wait); !slices.Equal(got, []string{"wait", want, ""}) {
			t.Errorf("%v is %v", wait, got)
		}
	}
	for place, want := range map[int][]string{1: {"place", "place-1", ""}, 50: {"place", "place-50", ""}, 51: {"place-more", ""}, 400: {"place-more", ""}} {
		if got := b.place(place); !slices.Equal(got, want) {
			t.Errorf("%d is %v", place, got)
		}
	}
	for place := range 60 {
		for minutes := range 40 {
			for _, name := range append(b.place(place+1), b.wait(time.Duration(minutes)*time.Minute)...) {
				if b.pieces[name] == nil {
					t.Fatalf("no piece %q", name)
				}
			}
		}
	}
}

func TestNoticesFallDue(t *testing.T) {
	start := time.Date(2025, 3, 3, 9, 0, 0, 0, time.UTC)
	var last time.Time
	ask := func(at, every time.Duration) (bool, time.Duration) {
		return due(&last, start.Add(5*time.Second), every, start.Add(at))
	}
	for _, c := range []struct {
		at, every time.Duration
		yes       bool
		next      time.Duration
	}{
		{time.Second, 0, false, time.Hour},
		{time.Second, 20 * time.Second, false, 4 * time.Second},
		{6 * time.Second, 20 * time.Second, true, 19 * time.Second},
		{7 * time.Second, 20 * time.Second, false, 18 * time.Second},
		{25 * time.Second, 20 * time.Second, true, 20 * time.Second},
		{10 * time.Minute, 20 * time.Second, true, 20 * time.Second}, // once, not for all that was missed
		{10*time.Minute + time.Second, 20 * time.Second, false, 19 * time.Second},
		{10*time.Minute + time.Second, 0, false, time.Hour},
	} {
		if yes, next := ask(c.at, c.every); yes != c.yes || next != c.next {
			t.Errorf("at %v every %v: %v, next in %v", c.at, c.every, yes, next)
		}
	}
}
