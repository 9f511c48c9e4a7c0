package web

import (
	"net/http"
	"net/url"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// callbackDays is how far back the list of callers goes if nobody says.
const callbackDays = 7

// callbacksView is /oddzwonienia.
type callbacksView struct {
	*Form
	From, To   string
	Open, Done []callbackRow
	Withheld   int
}

type callbackRow struct {
	store.Callback
	ByName string // of who marked it
}

// Shown is the number in full: who may see the page is to dial it.
func (c callbackRow) Shown() string { return c.Number.E164() }

func (s *Staff) callbacksPage(x *exchange) error {
	f := &Form{values: x.r.URL.Query()}
	today := ordinance.DayOf(time.Now())
	from, to := f.day("from", today.Next(-callbackDays)), f.day("to", today)
	if len(f.Faults) == 0 && to.Compare(from) < 0 {
		f.fault("to", "fault.before_from")
	}
	v := callbacksView{Form: f, From: from.String(), To: to.String()}
	if len(f.Faults) > 0 {
		return s.showStatus(x, http.StatusUnprocessableEntity, "callbacks", v)
	}
	f.values = url.Values{"from": {v.From}, "to": {v.To}}
	list, withheld, err := s.cfg.Store.Callbacks(from, to)
	if err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	v.Withheld = withheld
	for _, cb := range list {
		row := callbackRow{cb, cb.By}
		if id, err := store.ParseID(cb.By); err == nil {
			row.ByName = names[id]
		}
		if cb.Done {
			v.Done = append(v.Done, row)
		} else {
			v.Open = append(v.Open, row)
		}
	}
	// Numbers are shown, so that they were is noted before they are.
	err = s.cfg.Store.Audit(store.AuditEvent{
		Actor: x.account.ID, Action: store.ActionCallbacksListed, Outcome: store.Allowed,
		Details: []store.AuditDetail{store.DetailDay("from", from), store.DetailDay("to", to), store.DetailCount("entries", len(list))},
	})
	if err != nil {
		return err
	}
	return s.show(x, "callbacks", v)
}

// markCallback notes that a caller was called back, or takes the note back. The
// mark is in the call's day and the event in the long-lived database, so the
// event comes first: a mark without one cannot be.
func (s *Staff) markCallback(x *exchange) error {
	day, err := x.day("day")
	if err != nil {
		return err
	}
	id, err := x.id("id")
	if err != nil {
		return err
	}
	f, err := x.readForm()
	if err != nil {
		return err
	}
	rec, err := s.cfg.Store.Call(day, id)
	if err != nil {
		return err
	}
	if !rec.Unserved() {
		return refusal{status: http.StatusConflict, key: "error.served"}
	}
	done := f.Get("done") != "no"
	action, told := store.ActionCallbackMarked, "oddzwoniono"
	if !done {
		action, told = store.ActionCallbackUnmarked, "cofnieto"
	}
	err = s.cfg.Store.Audit(store.AuditEvent{
		Actor: x.account.ID, Action: action, Object: store.ObjectOf(store.ObjectCall, id), Outcome: store.Allowed,
		Details: []store.AuditDetail{store.DetailDay("day", day)},
	})
	if err != nil {
		return err
	}
	if err := s.cfg.Store.MarkCallback(day, id, x.account.ID.String(), done); err != nil {
		return err
	}
	back := url.Values{"stan": {told}}
	for _, name := range []string{"from", "to"} { // the list as it was
		if d, err := ordinance.ParseDay(f.Get(name)); err == nil {
			back.Set(name, d.String())
		}
	}
	x.redirect("/oddzwonienia?" + back.Encode())
	return nil
}
