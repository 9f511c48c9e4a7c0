package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// TestHistoryShowsTheSixMonthRule fills a vault as `demo --history` does and
// lets previews and a sweep say what they must (S0-b).
func TestHistoryShowsTheSixMonthRule(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	var said bytes.Buffer
	if err := fillHistory(dir, now, &said); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "last day"); n != len(historyMoments) {
		t.Fatalf("%d lines:\n%s", n, said.String())
	}
	st, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	days := map[ordinance.Day]int{}
	withheld := 0
	for rec, err := range st.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
		if err != nil {
			t.Fatal(err)
		}
		days[rec.Day]++
		if !rec.Caller.Identifiable() && rec.Direction == store.Incoming {
			withheld++
		}
	}
	if len(days) != len(historyMoments) || withheld != len(historyMoments) {
		t.Errorf("%d days, %d withheld callers, want %d of each", len(days), withheld, len(historyMoments))
	}
	for day, n := range days {
		last := ordinance.LastDay(day)
		for asOf, want := range map[ordinance.Day]bool{last: false, last.Next(1): true} {
			due, err := st.Preview(asOf)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, d := range due {
				if d.Day == day {
					found = true
					if d.Calls != n || d.Recordings != 3 {
						t.Errorf("%v: preview counts %d calls and %d recordings, want %d and 3", day, d.Calls, d.Recordings, n)
					}
				}
			}
			if found != want {
				t.Errorf("%v (last day %v): due on %v is %v, want %v", day, last, asOf, found, want)
			}
		}
	}
	if held := st.SweepHeld(); held != "" { // a machine of tests need not be synchronised
		if _, err := st.ConfirmClock("test", "the test looks at no date but its own"); err != nil {
			t.Error(err)
		}
	}
	if report, err := st.Sweep(t.Context(), now); err != nil {
		t.Errorf("sweep %+v: %v", report, err)
	}
	for day := range days {
		calls := 0
		for _, err := range st.CallsByDay(day, day) {
			if err != nil {
				t.Fatal(err)
			}
			calls++
		}
		if gone := ordinance.Due(day, now); gone != (calls == 0) {
			t.Errorf("%v: %d calls after the sweep, due %v", day, calls, gone)
		}
	}
}

func TestHistoryDays(t *testing.T) {
	today := ordinance.Day{Year: 2026, Month: 11, Date: 23}
	want := []string{"2026-08-31T10:00:00+02:00", "2026-08-28T10:00:00+02:00", "2026-10-31T10:00:00+01:00", "2025-12-31T23:30:00+01:00", "2026-03-29T12:00:00+02:00", "2026-10-25T02:30:00", "2026-09-15T09:00:00+02:00"}
	for i, m := range historyMoments {
		if got := m.historyDay(today).Format(time.RFC3339); !strings.HasPrefix(got, want[i]) {
			t.Errorf("%s: %s, want %s", m.why, got, want[i])
		}
	}
}
