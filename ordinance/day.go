package ordinance

import (
	"cmp"
	"fmt"
	"time"
	_ "time/tzdata" // the same days on every machine (S0-a)
)

// Warsaw is the zone of every wall-clock rule of the ordinance. It comes from
// the tzdata embedded in the binary if the system has none.
var Warsaw = mustWarsaw()

func mustWarsaw() *time.Location {
	loc, err := time.LoadLocation("Europe/Warsaw")
	if err != nil {
		panic("embedded tzdata has no Europe/Warsaw: " + err.Error())
	}
	return loc
}

// Day is a calendar day in Warsaw. The zero Day is no day.
type Day struct {
	Year  int
	Month time.Month
	Date  int
}

// DayOf returns the Warsaw day that contains t.
func DayOf(t time.Time) Day {
	y, m, d := t.In(Warsaw).Date()
	return Day{y, m, d}
}

// ParseDay reads YYYY-MM-DD and refuses days that the calendar does not have.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Day{}, fmt.Errorf("%q is not a day of the form YYYY-MM-DD", s)
	}
	y, m, d := t.Date()
	return Day{y, m, d}, nil
}

// String returns YYYY-MM-DD.
func (d Day) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Date) }

// IsZero reports whether d is the zero Day.
func (d Day) IsZero() bool { return d == Day{} }

// Start returns the instant at which d begins in Warsaw; d.Next(1).Start() is
// its end. Days last 23, 24 or 25 hours.
func (d Day) Start() time.Time { return time.Date(d.Year, d.Month, d.Date, 0, 0, 0, 0, Warsaw) }

// Next returns the day n days after d; n may be negative.
func (d Day) Next(n int) Day {
	y, m, dd := time.Date(d.Year, d.Month, d.Date+n, 12, 0, 0, 0, time.UTC).Date()
	return Day{y, m, dd}
}

// Compare returns -1, 0 or +1 as d is before, the same as or after e. The zero
// Day is before every other.
func (d Day) Compare(e Day) int {
	return cmp.Or(cmp.Compare(d.Year, e.Year), cmp.Compare(d.Month, e.Month), cmp.Compare(d.Date, e.Date))
}

// Weekday returns the day of the week.
func (d Day) Weekday() time.Weekday {
	return time.Date(d.Year, d.Month, d.Date, 12, 0, 0, 0, time.UTC).Weekday()
}

// MarshalText writes YYYY-MM-DD, and nothing for the zero Day.
func (d Day) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (d *Day) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*d = Day{}
		return nil
	}
	*d, err = ParseDay(string(b))
	return err
}
