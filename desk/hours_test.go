package desk

import (
	"strings"
	"testing"
	"time"
)

func hours(t *testing.T, week ...string) *Hours {
	t.Helper()
	h, err := ParseHours(HoursConfig{Name: "cim", Week: week, Holidays: "pl"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestOpen: wall-clock time in Warsaw, whatever zone the instant is in
// (fusionpbx#1587 evaluated hours in UTC).
func TestOpen(t *testing.T) {
	h := hours(t, "mon-fri 07:30-15:30", "sun 01:00-04:00")
	for _, tc := range []struct {
		at   string
		want bool
	}{
		{"2026-11-23T06:29:59Z", false}, // 07:29:59 in winter
		{"2026-11-23T06:30:00Z", true},
		{"2026-11-23T14:29:59Z", true},
		{"2026-11-23T14:30:00Z", false},
		{"2026-07-20T05:29:59Z", false}, // 07:29:59 in summer
		{"2026-07-20T05:30:00Z", true},
		{"2026-07-20T13:30:00Z", false},
		{"2026-11-21T10:00:00Z", false}, // Saturday
		{"2026-12-24T10:00:00Z", false}, // holiday since 2025
		{"2024-12-24T10:00:00Z", true},  // and not before
		{"2026-04-06T10:00:00Z", false}, // Easter Monday
		{"2026-06-04T10:00:00Z", false}, // Corpus Christi
		{"2026-03-29T00:30:00Z", true},  // 01:30, the clock jumps at 02:00
		{"2026-03-29T01:30:00Z", true},  // 03:30
		{"2026-03-29T02:00:00Z", false}, // 04:00
		{"2026-10-25T00:30:00Z", true},  // 02:30 the first time
		{"2026-10-25T01:30:00Z", true},  // 02:30 again
		{"2026-10-25T03:00:00Z", false}, // 04:00
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Open(at); got != tc.want {
			t.Errorf("open at %s: %v, want %v", tc.at, got, tc.want)
		}
	}
}

func TestNextAndCloses(t *testing.T) {
	h := hours(t, "mon-fri 07:30-15:30")
	at := time.Date(2026, 12, 23, 20, 0, 0, 0, time.UTC)
	next, ok := line(h).Next(at)
	// 24 December to 27 December are holidays and a weekend.
	if want := "2026-12-28T06:30:00Z"; !ok || next.UTC().Format(time.RFC3339) != want {
		t.Errorf("next opening %v, want %s", next.UTC(), want)
	}
	closes, ok := line(h).Closes(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC))
	if want := "2026-11-23T14:30:00Z"; !ok || closes.UTC().Format(time.RFC3339) != want {
		t.Errorf("closes %v, want %s", closes.UTC(), want)
	}
	if _, ok := line(h).Closes(at); ok {
		t.Error("closes while it is closed")
	}
	never := hours(t)
	if at, ok := line(never).Next(at); ok {
		t.Errorf("hours without a line open at %v", at)
	}
	always := hours(t, "mon-sun 00:00-24:00")
	if !always.Open(time.Date(2026, 11, 23, 22, 59, 59, 0, time.UTC)) {
		t.Error("00:00-24:00 is closed at 23:59:59")
	}
}

// line is hours without exceptions.
func line(h *Hours) Line { return Line{Name: "cim", Week: h} }

// TestNight: times over midnight go on into the next day, but a holiday is
// closed from midnight to midnight.
func TestNight(t *testing.T) {
	h := hours(t, "mon-fri 22:00-06:00")
	for _, tc := range []struct {
		at   string
		want bool
	}{
		{"2026-11-23T20:59:59Z", false}, // Monday 21:59:59
		{"2026-11-23T21:00:00Z", true},
		{"2026-11-23T23:00:00Z", true}, // midnight
		{"2026-11-24T04:59:59Z", true},
		{"2026-11-24T05:00:00Z", false},
		{"2026-11-28T04:59:59Z", true}, // Saturday: Friday's night
		{"2026-11-28T22:00:00Z", false},
		{"2026-11-10T22:30:00Z", true},  // the eve of 11 November
		{"2026-11-10T23:00:00Z", false}, // the holiday
		{"2026-11-11T22:00:00Z", false},
		{"2026-11-11T23:00:00Z", true}, // its night's second half
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Open(at); got != tc.want {
			t.Errorf("open at %s: %v, want %v", tc.at, got, tc.want)
		}
	}
}

// TestTurnsAgreeWithOpen holds Next and Closes against Open asked every minute,
// over both days on which the clock changes and over holidays, for times that
// the clock skips or shows twice, meet at midnight, or end in the jump.
func TestTurnsAgreeWithOpen(t *testing.T) {
	lines := [][]string{
		{"mon-fri 07:30-15:30"},
		{"sun 02:00-02:30", "sun 02:45-04:00"},
		{"sun 02:30-03:00"},
		{"sat 20:00-24:00", "sun 00:00-02:30", "mon-sun 18:00-19:00"},
		{"mon-sun 00:00-24:00"},
		{"sun 22:00-24:00", "mon 00:00-06:00"},
		{"sun 22:00-24:00", "mon 00:30-01:00"},
		{"fri-sun 22:00-06:00"},
		{"sat 20:00-02:30", "sun 03:00-04:00", "wed-thu 18:00-00:00"},
	}
	for _, begin := range []time.Time{
		time.Date(2026, 3, 27, 20, 0, 0, 0, time.UTC),
		time.Date(2026, 10, 23, 20, 0, 0, 0, time.UTC),
		time.Date(2026, 12, 23, 20, 0, 0, 0, time.UTC),
	} {
		for _, week := range lines {
			h := hours(t, week...)
			end := begin.Add(4 * 24 * time.Hour)
			// The turns that Open shows, from the last to the first.
			var opens, closes time.Time
			for at := end; at.After(begin); at = at.Add(-time.Minute) {
				now, before := h.Open(at), h.Open(at.Add(-time.Minute))
				switch {
				case now && !before:
					opens = at
				case !now && before:
					closes = at
				default:
					continue
				}
				asked := at.Add(-time.Minute)
				if next, ok := line(h).Next(asked); !opens.IsZero() && (!ok || !next.Equal(opens)) {
					t.Errorf("%v: opens after %v: %v %v, want %v", week, asked, next.UTC(), ok, opens)
				}
				if got, ok := line(h).Closes(asked); ok != before || before && !got.Equal(closes) {
					t.Errorf("%v: closes after %v: %v %v, want %v", week, asked, got.UTC(), ok, closes)
				}
			}
		}
	}
	always := hours(t, "mon-sun 00:00-24:00")
	always.holidays = false
	if at, ok := line(always).Closes(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)); ok {
		t.Errorf("closes at %v, though it is always open", at)
	}
	if at, ok := line(always).Next(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)); ok {
		t.Errorf("opens at %v, though it is always open", at)
	}
	// Open on every day but holidays: weeks may pass before it closes.
	christmas, ok := line(hours(t, "mon-sun 00:00-24:00")).Closes(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC))
	if want := "2026-12-23T23:00:00Z"; !ok || christmas.UTC().Format(time.RFC3339) != want {
		t.Errorf("closes %v, want %s", christmas.UTC(), want)
	}
}

func TestHoursMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"mon":                    "days and times",
		"mo-fr 07:30-15:30":      "days are",
		"mon 07:30":              "form 07:30-15:30",
		"mon 07:30-25:00":        "time of the day",
		"mon 7:3-15:30":          "time of the day",
		"mon 08:00-08:00":        "ends where",
		"mon 24:00-00:00":        "ends where",
		"mon -1:00-08:00":        "time of the day",
		"mon +7:00-08:00":        "time of the day",
		"mon-fri 07:30-15:30 ąę": "time of the day",
	} {
		_, err := ParseHours(HoursConfig{Week: []string{line}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", line, err, want)
		}
	}
	if _, err := ParseHours(HoursConfig{Week: []string{"mon 08:00-12:00", "mon-fri 11:00-15:00"}}); err == nil {
		t.Error("overlapping times are taken")
	}
	if _, err := ParseHours(HoursConfig{Holidays: "de"}); err == nil {
		t.Error("unknown holidays are taken")
	}
}
