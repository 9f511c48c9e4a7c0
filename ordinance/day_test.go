package ordinance

import (
	"encoding/json"
	"testing"
	"time"
)

func TestDayOfIsTheDayInWarsaw(t *testing.T) {
	for _, c := range []struct{ instant, day string }{
		{"2017-06-27T08:15:00Z", "2017-06-27"},
		{"2026-12-31T22:30:00Z", "2026-12-31"},
		{"2026-12-31T23:30:00Z", "2027-01-01"}, // winter, +1
		{"2026-06-30T22:30:00Z", "2026-07-01"}, // summer, +2
		{"2026-06-30T21:59:59Z", "2026-06-30"},
		{"2026-03-29T00:59:59Z", "2026-03-29"},
		{"2026-10-25T22:59:59Z", "2026-10-25"},
		{"2026-10-25T23:00:00Z", "2026-10-26"},
	} {
		at, err := time.Parse(time.RFC3339, c.instant)
		if err != nil {
			t.Fatal(err)
		}
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("far", -11*3600), Warsaw} {
			if got := DayOf(at.In(zone)).String(); got != c.day {
				t.Errorf("DayOf(%s in %v) = %s, want %s", c.instant, zone, got, c.day)
			}
		}
	}
}

func TestDaysLastTwentyThreeToTwentyFiveHours(t *testing.T) {
	want := map[string]time.Duration{"2026-03-29": 23 * time.Hour, "2026-10-25": 25 * time.Hour}
	for d := (Day{2026, time.January, 1}); d.Year == 2026; d = d.Next(1) {
		length := 24 * time.Hour
		if w, ok := want[d.String()]; ok {
			length = w
		}
		if got := d.Next(1).Start().Sub(d.Start()); got != length {
			t.Errorf("%v lasts %v, want %v", d, got, length)
		}
		if DayOf(d.Start()) != d || DayOf(d.Start().Add(-time.Nanosecond)) != d.Next(-1) {
			t.Errorf("%v does not begin at its start", d)
		}
	}
}

func TestParseDay(t *testing.T) {
	for _, s := range []string{"2026-11-23", "2028-02-29", "2000-02-29"} {
		d, err := ParseDay(s)
		if err != nil || d.String() != s {
			t.Errorf("ParseDay(%q) = %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "2026-02-29", "2100-02-29", "2026-13-01", "2026-00-10", "2026-1-1", "20261123",
		"2026-11-23T00:00:00Z", " 2026-11-23", "23.11.2026", "-026-11-23"} {
		if d, err := ParseDay(s); err == nil {
			t.Errorf("ParseDay(%q) = %v, want an error", s, d)
		}
	}
}

func TestNextAndCompareAgree(t *testing.T) {
	d := Day{2027, time.December, 30}
	for n := -800; n <= 800; n++ {
		e := d.Next(n)
		sign := 0
		if n > 0 {
			sign = 1
		} else if n < 0 {
			sign = -1
		}
		if e.Compare(d) != sign || d.Compare(e) != -sign {
			t.Fatalf("%v and %v, %d days apart, compare as %d and %d", e, d, n, e.Compare(d), d.Compare(e))
		}
		if e.Next(-n) != d {
			t.Fatalf("%d days from %v and back is %v", n, d, e.Next(-n))
		}
		if want := time.Weekday((int(d.Weekday()) + n%7 + 7) % 7); e.Weekday() != want {
			t.Fatalf("%v is a %v, want %v", e, e.Weekday(), want)
		}
	}
	if (Day{}).Compare(d) >= 0 {
		t.Error("the zero Day is not before others")
	}
}

func TestDayKeepsItsValueInJSON(t *testing.T) {
	for _, d := range []Day{{}, {2026, time.November, 23}} {
		b, err := json.Marshal(struct{ Day Day }{d})
		if err != nil {
			t.Fatal(err)
		}
		got := struct{ Day Day }{Day{1, 1, 1}}
		if err := json.Unmarshal(b, &got); err != nil || got.Day != d {
			t.Errorf("%v came back as %v from %s (%v)", d, got.Day, b, err)
		}
	}
	var d Day
	if err := json.Unmarshal([]byte(`"2026-02-30"`), &d); err == nil {
		t.Errorf("30 February was read as %v", d)
	}
}
