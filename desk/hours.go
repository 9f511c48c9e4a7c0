package desk

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"centralka/ordinance"
)

// HoursConfig is one [[hours]]: when a queue is open, in Warsaw time.
type HoursConfig struct {
	// Name, used by queues.
	Name string `toml:"name"`
	// Opening times: "mon-fri 07:30-15:30", "sat 09:00-12:00". A day may have
	// several; 24:00 is its end. "fri 22:00-06:00" goes on into Saturday. A holiday
	// is closed from midnight to midnight, whatever the days beside it say.
	Week []string `toml:"week"`
	// Calendar of public holidays on which it is closed: "pl" or "" for none.
	Holidays string `toml:"holidays"`
}

// Hours is when a queue is open by the week and the holidays. It is immutable.
// What the office decides besides is Line's.
type Hours struct {
	week     [7][]span // by time.Weekday, in order, not overlapping
	holidays bool
}

// span is a stretch of a day in minutes of wall-clock time; to may be 1440.
type span struct{ from, to int }

var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday,
	"thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// ParseHours reads a configuration; its errors say what would be right.
func ParseHours(cfg HoursConfig) (*Hours, error) {
	h := &Hours{}
	switch cfg.Holidays {
	case "pl":
		h.holidays = true
	case "":
	default:
		return nil, fmt.Errorf("holidays %q: only \"pl\" or \"\" (none) is known", cfg.Holidays)
	}
	for _, line := range cfg.Week {
		if err := h.add(line); err != nil {
			return nil, fmt.Errorf("week %q: %w", line, err)
		}
	}
	for d := range h.week {
		slices.SortFunc(h.week[d], func(a, b span) int { return a.from - b.from })
		for i := 1; i < len(h.week[d]); i++ {
			if h.week[d][i].from < h.week[d][i-1].to {
				return nil, fmt.Errorf("week: times on %v overlap", time.Weekday(d))
			}
		}
	}
	return h, nil
}

func (h *Hours) add(line string) error {
	days, times, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return fmt.Errorf("want days and times, such as \"mon-fri 07:30-15:30\"")
	}
	first, last, ranged := strings.Cut(strings.ToLower(days), "-")
	if !ranged {
		last = first
	}
	from, ok1 := weekdays[first]
	to, ok2 := weekdays[last]
	if !ok1 || !ok2 {
		return fmt.Errorf("%q: days are mon, tue, wed, thu, fri, sat, sun", days)
	}
	begin, end, ok := strings.Cut(strings.TrimSpace(times), "-")
	if !ok {
		return fmt.Errorf("%q: times are of the form 07:30-15:30", times)
	}
	a, err := minutes(begin)
	if err != nil {
		return err
	}
	b, err := minutes(end)
	if err != nil {
		return err
	}
	if b == a || a == 24*60 && b == 0 {
		return fmt.Errorf("%q ends where it begins; a whole day is 00:00-24:00", times)
	}
	for d := from; ; d = (d + 1) % 7 {
		if b > a {
			h.week[d] = append(h.week[d], span{a, b})
		} else {
			next := (d + 1) % 7
			if a < 24*60 {
				h.week[d] = append(h.week[d], span{a, 24 * 60})
			}
			if b > 0 {
				h.week[next] = append(h.week[next], span{0, b})
			}
		}
		if d == to {
			return nil
		}
	}
}

// minutes reads HH:MM up to 24:00 as minutes of the day.
func minutes(s string) (int, error) {
	hh, mm, ok := strings.Cut(strings.TrimSpace(s), ":")
	h, err1 := strconv.ParseUint(hh, 10, 8)
	m, err2 := strconv.ParseUint(mm, 10, 8)
	if !ok || len(mm) != 2 || err1 != nil || err2 != nil || m > 59 || h*60+m > 24*60 {
		return 0, fmt.Errorf("%q is not a time of the day from 00:00 to 24:00", s)
	}
	return int(h*60 + m), nil
}

// Open reports whether the week has it open at t.
func (h *Hours) Open(t time.Time) bool {
	day := ordinance.DayOf(t)
	local := t.In(ordinance.Warsaw)
	m := local.Hour()*60 + local.Minute()
	return slices.ContainsFunc(h.spans(day), func(s span) bool { return s.from <= m && m < s.to })
}

// spans are the opening times of a day: none on a holiday.
func (h *Hours) spans(day ordinance.Day) []span {
	if h.holidays {
		if _, yes := ordinance.Holiday(day); yes {
			return nil
		}
	}
	return h.week[day.Weekday()]
}

// edges are the instants of a day at which Open may turn, in order: its
// beginning, and those at which its wall clock shows an opening or closing
// time, or jumps. In the night in which summer time ends a time is shown twice;
// in the one in which it begins a time may be skipped.
func (h *Hours) edges(day ordinance.Day) []time.Time {
	begin, end := day.Start(), day.Next(1).Start()
	edges := []time.Time{begin}
	if h == nil { // always open
		return edges
	}
	_, early := begin.Zone() // seconds east of UTC
	_, late := end.Zone()
	if _, jump := begin.ZoneBounds(); early != late {
		edges = append(edges, jump)
	}
	midnight := time.Date(day.Year, day.Month, day.Date, 0, 0, 0, 0, time.UTC)
	for _, s := range h.spans(day) {
		for _, m := range []int{s.from, s.to} {
			wall := midnight.Add(time.Duration(m) * time.Minute)
			for _, offset := range []int{early, late} {
				if at := wall.Add(-time.Duration(offset) * time.Second); at.After(begin) && at.Before(end) {
					edges = append(edges, at)
				}
			}
		}
	}
	slices.SortFunc(edges, time.Time.Compare)
	return edges
}
