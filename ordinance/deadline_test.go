package ordinance

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// deadlineVectors is the table of Zarz. 284/17 §6 as the project reads it.
var deadlineVectors = []struct{ created, day, last, gone string }{
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
}

func TestDeadlineOfEveryVector(t *testing.T) {
	for _, v := range deadlineVectors {
		created, err := time.Parse(time.RFC3339, v.created)
		if err != nil {
			t.Fatal(err)
		}
		day := DayOf(created)
		if got := day.String(); got != v.day {
			t.Errorf("DayOf(%s) = %s, want %s", v.created, got, v.day)
		}
		if got := LastDay(day).String(); got != v.last {
			t.Errorf("LastDay(%s) = %s, want %s", day, got, v.last)
		}
		if got := Deadline(day).UTC().Format(time.RFC3339); got != v.gone {
			t.Errorf("Deadline(%s) = %s, want %s", day, got, v.gone)
		}
	}
}

// TestDeadlineWhateverTheMachinesZone runs the vectors in processes whose zone
// and zone database are not ours (S0-a).
func TestDeadlineWhateverTheMachinesZone(t *testing.T) {
	for _, zone := range []string{"UTC", "America/St_Johns", "Pacific/Kiritimati"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDeadlineOfEveryVector$", "-test.v")
		cmd.Env = append(os.Environ(), "TZ="+zone, "ZONEINFO=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with TZ=%s: %v\n%s", zone, err, out)
		}
	}
}

// TestDeadlineProperties walks twenty years of days: the last day never comes
// earlier for a later day, keeps the date or is the end of a shorter month, and
// is 181 to 184 days away.
func TestDeadlineProperties(t *testing.T) {
	before := Day{2019, time.December, 31}
	for day := before.Next(1); day.Year < 2040; day = day.Next(1) {
		last := LastDay(day)
		if last.Compare(LastDay(before)) < 0 {
			t.Fatalf("LastDay(%v) = %v, earlier than that of %v", day, last, before)
		}
		if got := (int(last.Month) - int(day.Month) + 12) % 12; got != 6 {
			t.Fatalf("LastDay(%v) = %v, %d months away", day, last, got)
		}
		if last.Date != day.Date && (last.Date > day.Date || last.Next(1).Date != 1) {
			t.Fatalf("LastDay(%v) = %v: neither the same date nor the end of its month", day, last)
		}
		days := 0
		for d := day; d != last; d = d.Next(1) {
			days++
		}
		if days < 181 || days > 184 {
			t.Fatalf("LastDay(%v) = %v, %d days away", day, last, days)
		}
		gone := Deadline(day)
		if DayOf(gone) != last.Next(1) || DayOf(gone.Add(-1)) != last {
			t.Fatalf("Deadline(%v) = %v is not the end of %v", day, gone, last)
		}
		before = day
	}
}
