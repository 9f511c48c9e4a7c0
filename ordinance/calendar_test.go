package ordinance

import (
	"strings"
	"testing"
	"time"
)

func TestEasterSunday(t *testing.T) {
	for _, s := range []string{"2008-03-23", "2011-04-24", "2017-04-16", "2024-03-31", "2025-04-20", "2026-04-05", "2027-03-28",
		"2028-04-16", "2030-04-21", "2038-04-25", "2049-04-18", "2076-04-19", "1981-04-19", "1954-04-18"} {
		want, err := ParseDay(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := easterSunday(want.Year); got != want {
			t.Errorf("Easter of %d is %v, want %v", want.Year, got, want)
		}
	}
}

func TestHolidaysOfWholeYears(t *testing.T) {
	for year, want := range map[int]string{
		2017: "01-01 01-06 04-16 04-17 05-01 05-03 06-04 06-15 08-15 11-01 11-11 12-25 12-26",
		2018: "01-01 01-06 04-01 04-02 05-01 05-03 05-20 05-31 08-15 11-01 11-11 11-12 12-25 12-26",
		2024: "01-01 01-06 03-31 04-01 05-01 05-03 05-19 05-30 08-15 11-01 11-11 12-25 12-26",
		2025: "01-01 01-06 04-20 04-21 05-01 05-03 06-08 06-19 08-15 11-01 11-11 12-24 12-25 12-26",
		2026: "01-01 01-06 04-05 04-06 05-01 05-03 05-24 06-04 08-15 11-01 11-11 12-24 12-25 12-26",
		2027: "01-01 01-06 03-28 03-29 05-01 05-03 05-16 05-27 08-15 11-01 11-11 12-24 12-25 12-26",
		2008: "01-01 03-23 03-24 05-01 05-03 05-11 05-22 08-15 11-01 11-11 12-25 12-26",
	} {
		var got []string
		for d := (Day{year, time.January, 1}); d.Year == year; d = d.Next(1) {
			name, ok := Holiday(d)
			if ok != (name != "") {
				t.Errorf("%v: name %q, holiday %v", d, name, ok)
			}
			if ok {
				got = append(got, d.String()[5:])
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("holidays of %d:\n got %s\nwant %s", year, s, want)
		}
	}
}

func TestHolidayNames(t *testing.T) {
	for day, want := range map[Day]string{
		{2026, time.April, 6}:     "drugi dzień Wielkiej Nocy",
		{2026, time.June, 4}:      "dzień Bożego Ciała",
		{2026, time.December, 24}: "Wigilia Bożego Narodzenia",
		{2024, time.December, 24}: "",
		{2026, time.June, 5}:      "",
	} {
		if got, _ := Holiday(day); got != want {
			t.Errorf("%v is %q, want %q", day, got, want)
		}
	}
}

func TestWorkingDay(t *testing.T) {
	for s, want := range map[string]bool{
		"2026-11-23": true,  // Monday
		"2026-11-21": false, // Saturday
		"2026-11-22": false,
		"2026-11-11": false, // Wednesday, holiday
		"2026-12-24": false, // Thursday, holiday since 2025
		"2024-12-24": true,  // Tuesday, not yet one
		"2026-06-05": true,  // Friday after Corpus Christi
		"2026-04-03": true,  // Good Friday
	} {
		d, err := ParseDay(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := WorkingDay(d); got != want {
			t.Errorf("WorkingDay(%s) = %v, want %v", s, got, want)
		}
	}
}
