package desk

import (
	"slices"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// Line is when a queue is open: by its weekly hours and public holidays, which
// are the configuration's, and by the closures and overrides, which are the
// database's. An override goes before a closure, that before a holiday, and
// that before the week.
type Line struct {
	// Name of the [[hours]]; "" if the queue has none, then only exceptions for
	// every queue concern it.
	Name string
	// Week is nil if it is always open.
	Week *Hours
	// Exceptions are asked for at every question; nil is none.
	Exceptions func() store.Exceptions
}

// Rule is what decides whether a line is open.
type Rule string

// The rules, the stronger one first.
const (
	ByOverride Rule = "override"
	ByClosure  Rule = "closure"
	ByHoliday  Rule = "holiday"
	ByWeek     Rule = "week"
)

// Opening is whether a line is open at an instant, and why.
type Opening struct {
	Open bool
	Rule Rule
	// Reason is that of the override or closure, or the holiday's name.
	Reason string
	// Until is the override's or closure's end; zero otherwise.
	Until time.Time
}

// Open reports whether it takes new callers at t.
func (l Line) Open(t time.Time) bool { return l.openWith(l.exceptions(), t).Open }

// At says whether it is open at t, and why.
func (l Line) At(t time.Time) Opening { return l.openWith(l.exceptions(), t) }

func (l Line) exceptions() store.Exceptions {
	if l.Exceptions == nil {
		return store.Exceptions{}
	}
	return l.Exceptions()
}

// concerns reports whether an exception of hours is this line's.
func (l Line) concerns(hours string) bool { return hours == "" || hours == l.Name }

func (l Line) openWith(e store.Exceptions, t time.Time) Opening {
	holds := func(from, until time.Time) bool { return !t.Before(from) && t.Before(until) }
	var override *store.Override
	for i, o := range e.Overrides {
		// That of the name goes before that of every queue.
		if l.concerns(o.Hours) && holds(o.From, o.Until) && (override == nil || o.Hours != "") {
			override = &e.Overrides[i]
		}
	}
	if override != nil {
		return Opening{override.Open, ByOverride, override.Reason, override.Until}
	}
	for _, c := range e.Closures {
		if l.concerns(c.Hours) && holds(c.From, c.Until) {
			return Opening{false, ByClosure, c.Reason, c.Until}
		}
	}
	if l.Week == nil {
		return Opening{Open: true, Rule: ByWeek}
	}
	if l.Week.holidays {
		if name, yes := ordinance.Holiday(ordinance.DayOf(t)); yes {
			return Opening{Rule: ByHoliday, Reason: name}
		}
	}
	return Opening{Open: l.Week.Open(t), Rule: ByWeek}
}

// horizon is how far ahead Next and Closes look, in days.
const horizon = 366

// Next returns the next instant after t at which it opens; false if it does not
// within a year.
func (l Line) Next(t time.Time) (time.Time, bool) { return l.turn(l.exceptions(), t, true) }

// Closes returns the instant at which it closes next; false if it is not open
// at t, or goes on for more than a year.
func (l Line) Closes(t time.Time) (time.Time, bool) {
	e := l.exceptions()
	if !l.openWith(e, t).Open {
		return time.Time{}, false
	}
	return l.turn(e, t, false)
}

// turn returns the first instant after t at which it becomes open or closed.
func (l Line) turn(e store.Exceptions, t time.Time, open bool) (time.Time, bool) {
	var set []time.Time // at which exceptions begin and end
	for _, o := range e.Overrides {
		if l.concerns(o.Hours) {
			set = append(set, o.From, o.Until)
		}
	}
	for _, c := range e.Closures {
		if l.concerns(c.Hours) {
			set = append(set, c.From, c.Until)
		}
	}
	day := ordinance.DayOf(t)
	for range horizon + 1 {
		next := day.Next(1)
		edges := l.Week.edges(day)
		for _, at := range set {
			if !at.Before(day.Start()) && at.Before(next.Start()) {
				edges = append(edges, at)
			}
		}
		slices.SortFunc(edges, time.Time.Compare)
		for _, at := range edges {
			if at.After(t) && l.openWith(e, at).Open == open && l.openWith(e, at.Add(-1)).Open != open {
				return at, true
			}
		}
		day = next
	}
	return time.Time{}, false
}
