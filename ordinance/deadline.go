package ordinance

import "time"

// RetentionMonths is how long recordings and transcripts are kept
// (Zarz. 284/17 §6). It is calendar months, not days: 180 days would delete up
// to four days too early.
const RetentionMonths = 6

// LastDay is the last day on which something made on created is online: the
// same date six calendar months later, or the last day of that month if it is
// shorter (S6-a).
func LastDay(created Day) Day {
	month := int(created.Month) - 1 + RetentionMonths
	year := created.Year + month/12
	m := time.Month(month%12 + 1)
	last := time.Date(year, m+1, 0, 12, 0, 0, 0, time.UTC).Day()
	return Day{year, m, min(created.Date, last)}
}

// Deadline is the instant from which something made on created must be gone:
// the end of its last day in Warsaw.
func Deadline(created Day) time.Time { return LastDay(created).Next(1).Start() }

// Due reports whether something made on created must be gone at now.
func Due(created Day, now time.Time) bool { return LastDay(created).Compare(DayOf(now)) < 0 }
