package ordinance

import "time"

// Holiday returns the name of the public holiday that d is, and whether it is
// one: the days off of the Polish act of 18 January 1951 as amended, for the
// years from 2011 on. Easter and the feasts that follow it are computed;
// 24 December is a holiday since 2025.
func Holiday(d Day) (name string, ok bool) {
	for _, h := range fixedHolidays {
		if d.Month == h.month && d.Date == h.date && d.Year >= h.since {
			return h.name, true
		}
	}
	easter := easterSunday(d.Year)
	for _, h := range movableHolidays {
		if d == easter.Next(h.after) {
			return h.name, true
		}
	}
	if d == (Day{2018, time.November, 12}) { // by an act of its own, once
		return "Święto Narodowe z okazji setnej rocznicy odzyskania niepodległości", true
	}
	return "", false
}

// WorkingDay reports whether d is a day from Monday to Friday and no public
// holiday.
func WorkingDay(d Day) bool {
	if w := d.Weekday(); w == time.Saturday || w == time.Sunday {
		return false
	}
	_, holiday := Holiday(d)
	return !holiday
}

var fixedHolidays = []struct {
	month time.Month
	date  int
	since int // year
	name  string
}{
	{time.January, 1, 0, "Nowy Rok"},
	{time.January, 6, 2011, "Święto Trzech Króli"},
	{time.May, 1, 0, "Święto Państwowe"},
	{time.May, 3, 0, "Święto Narodowe Trzeciego Maja"},
	{time.August, 15, 0, "Wniebowzięcie Najświętszej Maryi Panny"},
	{time.November, 1, 0, "Wszystkich Świętych"},
	{time.November, 11, 0, "Narodowe Święto Niepodległości"},
	{time.December, 24, 2025, "Wigilia Bożego Narodzenia"},
	{time.December, 25, 0, "pierwszy dzień Bożego Narodzenia"},
	{time.December, 26, 0, "drugi dzień Bożego Narodzenia"},
}

var movableHolidays = []struct {
	after int // days after Easter Sunday
	name  string
}{
	{0, "pierwszy dzień Wielkiej Nocy"},
	{1, "drugi dzień Wielkiej Nocy"},
	{49, "pierwszy dzień Zielonych Świątek"},
	{60, "dzień Bożego Ciała"},
}

// easterSunday computes the Gregorian Easter: the Sunday after the first
// ecclesiastical full moon on or after 21 March.
func easterSunday(year int) Day {
	golden := year % 19
	century := year / 100
	// Age of the moon (epact) on 21 March's scale, corrected for the leap days
	// that centuries skip and for the drift of the lunar cycle.
	epact := (19*golden + century - century/4 - (8*century+13)/25 + 15) % 30
	if epact == 29 || epact == 28 && golden > 10 { // keeps the full moon before 19 April
		epact--
	}
	fullMoon := Day{year, time.March, 21}.Next(epact)
	return fullMoon.Next(7 - int(fullMoon.Weekday()))
}
