package ordinance

import "time"

// retentionMonths is the period of Zarz. 284/17 §6. It is a constant and not a
// setting: no configuration can express a shorter one.
const retentionMonths = 6

// LastDay returns the last day on which what came into being on created is
// kept: six calendar months later, the same date, or the last day of the month
// if it has no such date (Zarz. 284/17 §6; art. 112 KC). It is not
// time.AddDate, which makes 3 March of 31 August and six months.
func LastDay(created Day) Day {
	y, m := created.Year, created.Month+retentionMonths
	if m > time.December {
		y, m = y+1, m-12
	}
	// Day 0 of the following month is the last one of this.
	last := time.Date(y, m+1, 0, 12, 0, 0, 0, time.UTC).Day()
	return Day{y, m, min(created.Date, last)}
}

// Deadline returns the instant from which what came into being on created must
// be gone: the start, in Warsaw, of the day after its LastDay.
func Deadline(created Day) time.Time { return LastDay(created).Next(1).Start() }
