package ordinance

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestDeadline is the table of acceptance statement S6-a.
func TestDeadline(t *testing.T) {
	for _, tc := range []struct{ created, day, last, purge string }{
		{"2017-06-27T08:15:00Z", "2017-06-27", "2017-12-27", "2017-12-27T23:00:00Z"},
		{"2026-08-28T10:00:00Z", "2026-08-28", "2027-02-28", "2027-02-28T23:00:00Z"},
		{"2026-08-31T10:00:00Z", "2026-08-31", "2027-02-28", "2027-02-28T23:00:00Z"},
		{"2027-08-31T10:00:00Z", "2027-08-31", "2028-02-29", "2028-02-29T23:00:00Z"},
		{"2026-10-31T10:00:00Z", "2026-10-31", "2027-04-30", "2027-04-30T22:00:00Z"},
		{"2026-12-31T22:30:00Z", "2026-12-31", "2027-06-30", "2027-06-30T22:00:00Z"},
		{"2026-12-31T23:30:00Z", "2027-01-01", "2027-07-01", "2027-07-01T22:00:00Z"},
		{"2026-06-30T22:30:00Z", "2026-07-01", "2027-01-01", "2027-01-01T23:00:00Z"},
		{"2026-04-25T10:00:00Z", "2026-04-25", "2026-10-25", "2026-10-25T23:00:00Z"},
		{"2026-09-28T10:00:00Z", "2026-09-28", "2027-03-28", "2027-03-28T22:00:00Z"},
	} {
		created, err := time.Parse(time.RFC3339, tc.created)
		if err != nil {
			t.Fatal(err)
		}
		// The zone of the instant must not matter (S0-a).
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("far", 14*3600), time.FixedZone("west", -11*3600)} {
			day := DayOf(created.In(zone))
			if day.String() != tc.day {
				t.Errorf("%s: day %s, want %s", tc.created, day, tc.day)
			}
			if last := LastDay(day).String(); last != tc.last {
				t.Errorf("%s: last day %s, want %s", tc.created, last, tc.last)
			}
			purge := Deadline(day)
			if got := purge.UTC().Format(time.RFC3339); got != tc.purge {
				t.Errorf("%s: purge after %s, want %s", tc.created, got, tc.purge)
			}
			if Due(day, purge.Add(-time.Nanosecond)) || !Due(day, purge) {
				t.Errorf("%s: not due exactly from %s on", tc.created, tc.purge)
			}
		}
	}
}

// TestLastDayNeverGoesBack: a later day is never due before an earlier one, and
// the term is never shorter than six months less the clip.
func TestLastDayNeverGoesBack(t *testing.T) {
	prev := Day{}
	for d := (Day{2024, 1, 1}); d.Compare(Day{2033, 1, 1}) < 0; d = d.Next(1) {
		last := LastDay(d)
		if !prev.IsZero() && last.Compare(prev) < 0 {
			t.Fatalf("%v is due on %v, before the day earlier (%v)", d, last, prev)
		}
		if n := int(last.Start().Sub(d.Start()).Hours()/24 + 0.5); n < 181 || n > 184 {
			t.Fatalf("%v is kept %d days, until %v", d, n, last)
		}
		if last.Date != d.Date && last.Next(1).Date != 1 {
			t.Fatalf("%v: %v is neither the same date nor a month's end", d, last)
		}
		prev = last
	}
}

// TestDeadlinesWhateverTheMachinesZone runs the table in processes whose zone
// is not ours (S0-a).
func TestDeadlinesWhateverTheMachinesZone(t *testing.T) {
	for _, zone := range []string{"UTC", "America/St_Johns", "Pacific/Kiritimati"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDeadline$", "-test.v")
		cmd.Env = append(os.Environ(), "TZ="+zone, "ZONEINFO=")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestDeadline") {
			t.Errorf("with TZ=%s: %v\n%s", zone, err, out)
		}
	}
}
