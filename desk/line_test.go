package desk

import (
	"math/rand/v2"
	"testing"
	"time"

	"centralka/store"
)

// TestExceptionsInTheirOrder: override, closure, holiday, week; the override of
// a name before that of every queue.
func TestExceptionsInTheirOrder(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	noon, holiday := at("2026-11-23T11:00:00Z"), at("2026-11-11T11:00:00Z")
	around := func(t time.Time) (from, until time.Time) { return t.Add(-time.Hour), t.Add(time.Hour) }
	closure := func(hours string, t time.Time) store.Closure {
		from, until := around(t)
		return store.Closure{Hours: hours, From: from, Until: until, Reason: "szkolenie"}
	}
	override := func(hours string, open bool, t time.Time) store.Override {
		from, until := around(t)
		return store.Override{Hours: hours, Open: open, From: from, Until: until, Reason: "awaria"}
	}
	for _, tc := range []struct {
		name string
		e    store.Exceptions
		at   time.Time
		want Opening
	}{
		{"week", store.Exceptions{}, noon, Opening{Open: true, Rule: ByWeek}},
		{"night", store.Exceptions{}, noon.Add(12 * time.Hour), Opening{Rule: ByWeek}},
		{"holiday", store.Exceptions{}, holiday, Opening{Rule: ByHoliday, Reason: "Narodowe Święto Niepodległości"}},
		{"closure", store.Exceptions{Closures: []store.Closure{closure("cim", noon)}}, noon, Opening{false, ByClosure, "szkolenie", noon.Add(time.Hour)}},
		{"closure of all", store.Exceptions{Closures: []store.Closure{closure("", noon)}}, noon, Opening{false, ByClosure, "szkolenie", noon.Add(time.Hour)}},
		{"closure of another", store.Exceptions{Closures: []store.Closure{closure("other", noon)}}, noon, Opening{Open: true, Rule: ByWeek}},
		{"closure is over", store.Exceptions{Closures: []store.Closure{closure("cim", noon)}}, noon.Add(time.Hour), Opening{Open: true, Rule: ByWeek}},
		{"override over closure", store.Exceptions{Closures: []store.Closure{closure("cim", noon)}, Overrides: []store.Override{override("cim", true, noon)}}, noon, Opening{true, ByOverride, "awaria", noon.Add(time.Hour)}},
		{"override over holiday", store.Exceptions{Overrides: []store.Override{override("", true, holiday)}}, holiday, Opening{true, ByOverride, "awaria", holiday.Add(time.Hour)}},
		{"the named one", store.Exceptions{Overrides: []store.Override{override("", false, noon), override("cim", true, noon)}}, noon, Opening{true, ByOverride, "awaria", noon.Add(time.Hour)}},
		{"the named one is over", store.Exceptions{Overrides: []store.Override{override("", false, noon), override("cim", true, noon.Add(-2*time.Hour))}}, noon, Opening{false, ByOverride, "awaria", noon.Add(time.Hour)}},
	} {
		l := Line{Name: "cim", Week: hours(t, "mon-fri 07:30-15:30"), Exceptions: func() store.Exceptions { return tc.e }}
		if got := l.At(tc.at); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
	all := store.Exceptions{Closures: []store.Closure{closure("", noon)}}
	always := Line{Exceptions: func() store.Exceptions { return all }}
	if always.Open(noon) || !always.Open(noon.Add(2*time.Hour)) {
		t.Error("a queue without hours is not closed with every queue")
	}
}

// TestTurnsWithExceptions holds Next and Closes against Open asked every minute,
// with random closures and overrides over both days on which the clock changes.
func TestTurnsWithExceptions(t *testing.T) {
	week := hours(t, "mon-fri 07:30-15:30", "sat 20:00-02:30", "sun 02:45-04:00")
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		begin := time.Date(2026, 3, 27, 20, 0, 0, 0, time.UTC)
		if seed%2 == 0 {
			begin = time.Date(2026, 10, 23, 20, 0, 0, 0, time.UTC)
		}
		stretch := func() (from, until time.Time) {
			from = begin.Add(time.Duration(r.IntN(4*24*60)) * time.Minute)
			return from, from.Add(time.Duration(1+r.IntN(900)) * time.Minute)
		}
		var e store.Exceptions
		for range r.IntN(5) {
			from, until := stretch()
			e.Closures = append(e.Closures, store.Closure{Hours: []string{"", "cim", "x"}[r.IntN(3)], From: from, Until: until})
		}
		for _, name := range []string{"", "cim", "x"} {
			if r.IntN(2) == 0 {
				from, until := stretch()
				e.Overrides = append(e.Overrides, store.Override{Hours: name, Open: r.IntN(2) == 0, From: from, Until: until})
			}
		}
		l := Line{Name: "cim", Week: week, Exceptions: func() store.Exceptions { return e }}
		var opens, closes time.Time
		for at := begin.Add(5 * 24 * time.Hour); at.After(begin); at = at.Add(-time.Minute) {
			now, before := l.Open(at), l.Open(at.Add(-time.Minute))
			switch {
			case now && !before:
				opens = at
			case !now && before:
				closes = at
			default:
				continue
			}
			asked := at.Add(-time.Minute)
			if next, ok := l.Next(asked); !opens.IsZero() && (!ok || !next.Equal(opens)) {
				t.Errorf("seed %d: opens after %v: %v %v, want %v", seed, asked, next.UTC(), ok, opens)
			}
			if got, ok := l.Closes(asked); ok != before || before && !closes.IsZero() && !got.Equal(closes) {
				t.Errorf("seed %d: closes after %v: %v %v, want %v", seed, asked, got.UTC(), ok, closes)
			}
		}
	}
}
