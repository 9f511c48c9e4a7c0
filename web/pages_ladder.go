package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// laddersView is /admin/drabinki: the calls of a day, without anybody's number.
type laddersView struct {
	*Form
	Day    string
	Causes []store.Cause // of that day's calls
	Rows   []ladderRow
	Found  int
	Newer  string
	Older  string
}

type ladderRow struct {
	ID        store.ID
	Began     time.Time
	Direction store.CallDirection
	Trunk     string
	Queue     string
	Cause     store.Cause
	SIPStatus int
	Q850      int
	Outcome   store.Outcome
	MOS       float64
}

// failures are the causes that are nobody's wish: of these somebody may ask why.
var failures = []store.Cause{
	store.CauseUnreachable, store.CauseNotFound, store.CauseForbidden, store.CauseNotAcceptable, store.CauseOverload, store.CauseNoAck,
	store.CauseMediaTimeout, store.CauseSessionExpired, store.CauseInterrupted, store.CauseInternal,
}

// Failed tells whether the call or its recording failed.
func (r ladderRow) Failed() bool {
	return slices.Contains(failures, r.Cause) || r.Outcome == store.OutcomeFailed
}

func (s *Staff) laddersPage(x *exchange) error {
	f := &Form{values: x.r.URL.Query()}
	day := f.day("day", ordinance.DayOf(time.Now()))
	v := laddersView{Form: f, Day: day.String()}
	if len(f.Faults) > 0 {
		return s.showStatus(x, http.StatusUnprocessableEntity, "ladders", v)
	}
	if ordinance.Due(day, time.Now()) {
		return store.ErrGone
	}
	cause, number := store.Cause(f.Get("cause")), 1
	if n, err := strconv.Atoi(f.Get("strona")); err == nil && n > 1 && n < 1e6 {
		number = n
	}
	var rows []ladderRow
	for rec, err := range s.cfg.Store.CallsByDay(day, day) {
		if err != nil {
			return err
		}
		if rec.Cause != "" && !slices.Contains(v.Causes, rec.Cause) {
			v.Causes = append(v.Causes, rec.Cause)
		}
		if cause == "" || rec.Cause == cause {
			rows = append(rows, ladderRow{rec.ID, rec.Began, rec.Direction, rec.Trunk, rec.Queue, rec.Cause, rec.SIPStatus, rec.Q850, rec.Recording.Outcome, rec.WorstMOS()})
		}
	}
	slices.Sort(v.Causes)
	slices.Reverse(rows) // newest first
	v.Found = len(rows)
	first := min((number-1)*pageSize, len(rows))
	v.Rows = rows[first:min(first+pageSize, len(rows))]
	at := func(n int) string {
		return "/admin/drabinki?" + url.Values{"day": {v.Day}, "cause": {string(cause)}, "strona": {fmt.Sprint(n)}}.Encode()
	}
	if number > 1 {
		v.Newer = at(number - 1)
	}
	if first+pageSize < len(rows) {
		v.Older = at(number + 1)
	}
	f.values = url.Values{"day": {v.Day}, "cause": {string(cause)}}
	return s.show(x, "ladders", v)
}

// ladderView is /admin/drabinki/{day}/{id}.
type ladderView struct {
	ladderRow
	Day     string
	Known   bool // there is a record
	Ended   time.Time
	Reason  string // of the recording's outcome
	Parties []store.LadderParty
	Lines   []ladderLine
	Cut     int
	Quality []store.Quality
}

// ladderLine is a message in the column of its party.
type ladderLine struct {
	store.LadderLine
	After time.Duration // since the first message
	Cells []ladderCell  // one for each party
}

type ladderCell struct {
	Here  bool
	Party string
}

// Bad tells whether a response refuses; that a password is asked for is no
// refusal.
func (l ladderLine) Bad() bool { return l.Status >= 400 && l.Status != 401 && l.Status != 407 }

// Offset is After as people read it: "+1,234 s".
func (l ladderLine) Offset(decimal string) string {
	ms := l.After.Milliseconds()
	return fmt.Sprintf("+%d%s%03d s", ms/1000, decimal, ms%1000)
}

func (s *Staff) ladderPage(x *exchange) error {
	day, err := x.day("day")
	if err != nil {
		return err
	}
	id, err := x.id("id")
	if err != nil {
		return err
	}
	if ordinance.Due(day, time.Now()) {
		return store.ErrGone
	}
	rec, err := s.cfg.Store.Call(day, id)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	ladder, err := s.cfg.Ladder(day, id)
	if err != nil && (!known || !errors.Is(err, store.ErrNotFound)) {
		return err // a call that is known and has no ladder is shown without one
	}
	err = s.cfg.Store.Audit(store.AuditEvent{
		Actor: x.account.ID, Action: store.ActionLadderOpened, Object: store.ObjectOf(store.ObjectCall, id), Outcome: store.Allowed,
		Details: []store.AuditDetail{store.DetailDay("day", day)},
	})
	if err != nil {
		return err
	}
	v := ladderView{
		ladderRow: ladderRow{id, rec.Began, rec.Direction, rec.Trunk, rec.Queue, rec.Cause, rec.SIPStatus, rec.Q850, rec.Recording.Outcome, rec.WorstMOS()},
		Day:       day.String(), Known: known, Ended: rec.Ended, Reason: rec.Recording.Reason, Parties: ladder.Parties, Cut: ladder.Cut, Quality: rec.Quality,
	}
	for _, l := range ladder.Lines {
		line := ladderLine{LadderLine: l, After: max(l.At.Sub(ladder.Lines[0].At), 0)}
		for _, p := range ladder.Parties {
			line.Cells = append(line.Cells, ladderCell{p.Leg == l.Leg, p.Name})
		}
		v.Lines = append(v.Lines, line)
	}
	return s.show(x, "ladder", v)
}
