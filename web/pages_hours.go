package web

import (
	"net/http"
	"time"

	"centralka/desk"
	"centralka/ordinance"
	"centralka/store"
)

// hoursView is /godziny.
type hoursView struct {
	*Form
	Lines     []hoursLine
	Closures  []closureRow
	Overrides []overrideRow
	Names     []string // of the hours; the empty one, which is all of them, is not among them
}

type hoursLine struct {
	desk.HoursConfig
	desk.Opening
	Next time.Time // when it opens, or closes
}

type closureRow struct {
	store.Closure
	ByName string
}

type overrideRow struct {
	store.Override
	ByName string
}

func (s *Staff) hoursPage(x *exchange) error {
	return s.showHours(x, http.StatusOK, emptyForm())
}

func (s *Staff) showHours(x *exchange, status int, f *Form) error {
	now := time.Now()
	v := hoursView{Form: f}
	names, err := s.names()
	if err != nil {
		return err
	}
	by := func(account string) string {
		if id, err := store.ParseID(account); err == nil {
			return names[id]
		}
		return account
	}
	for _, cfg := range s.cfg.Telephony().Hours {
		week, err := desk.ParseHours(cfg)
		if err != nil {
			return err // the configuration was checked
		}
		line := desk.Line{Name: cfg.Name, Week: week, Exceptions: s.cfg.Store.Exceptions}
		row := hoursLine{HoursConfig: cfg, Opening: line.At(now)}
		if row.Open {
			row.Next, _ = line.Closes(now)
		} else {
			row.Next, _ = line.Next(now)
		}
		v.Lines, v.Names = append(v.Lines, row), append(v.Names, cfg.Name)
	}
	e := s.cfg.Store.Exceptions()
	for _, c := range e.Closures {
		if c.Until.After(now) {
			v.Closures = append(v.Closures, closureRow{c, by(c.By)})
		}
	}
	for _, o := range e.Overrides {
		if o.Until.After(now) {
			v.Overrides = append(v.Overrides, overrideRow{o, by(o.By)})
		}
	}
	return s.showStatus(x, status, "hours", v)
}

// moment reads a field of day and time, which is Warsaw's.
func (f *Form) moment(name string) time.Time {
	t, err := time.ParseInLocation("2006-01-02T15:04", f.Get(name), ordinance.Warsaw)
	if err != nil {
		f.fault(name, "fault.not_a_time")
	}
	return t
}

// stretch checks what closures and overrides have in common; prefix is that of
// the form's fields.
func (f *Form) stretch(prefix string, from, until time.Time) {
	if len(f.Faults) == 0 && !until.After(from) {
		f.fault(prefix+"until", "fault.before_from")
	} else if len(f.Faults) == 0 && !until.After(time.Now()) {
		f.fault(prefix+"until", "fault.over")
	}
	if reason := f.Get(prefix + "reason"); reason == "" || len(reason) > 500 {
		f.fault(prefix+"reason", "fault.no_reason")
	}
}

func (s *Staff) hoursOf(f *Form, name string) string {
	hours := f.Get(name)
	for _, cfg := range s.cfg.Telephony().Hours {
		if hours == cfg.Name {
			return hours
		}
	}
	if hours != "" {
		f.fault(name, "fault.unknown_hours")
	}
	return ""
}

func (s *Staff) addClosure(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	c := store.Closure{Hours: s.hoursOf(f, "closure_hours"), From: f.moment("closure_from"), Until: f.moment("closure_until"), Reason: f.Get("closure_reason"), By: x.account.ID.String()}
	f.stretch("closure_", c.From, c.Until)
	if len(f.Faults) == 0 {
		if _, err := s.cfg.Store.AddClosure(c); err != nil {
			return err
		}
		x.redirect("/godziny?stan=zapisano")
		return nil
	}
	return s.showHours(x, http.StatusUnprocessableEntity, f)
}

func (s *Staff) removeClosure(x *exchange) error {
	id, err := x.id("id")
	if err != nil {
		return err
	}
	if _, err := s.cfg.Store.RemoveClosure(id, x.account.ID.String(), "—"); err != nil {
		return err
	}
	x.redirect("/godziny?stan=usunieto")
	return nil
}

// setOverride opens or closes from now on, until an instant that has to be given:
// an override that nobody thinks of must not stay.
func (s *Staff) setOverride(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	o := store.Override{Hours: s.hoursOf(f, "override_hours"), Open: f.Get("override_open") == "open", From: time.Now(), Until: f.moment("override_until"), Reason: f.Get("override_reason"), By: x.account.ID.String()}
	if how := f.Get("override_open"); how != "open" && how != "closed" {
		f.fault("override_open", "fault.missing")
	}
	f.stretch("override_", o.From, o.Until)
	if len(f.Faults) == 0 {
		if _, err := s.cfg.Store.SetOverride(o); err != nil {
			return err
		}
		x.redirect("/godziny?stan=zapisano")
		return nil
	}
	return s.showHours(x, http.StatusUnprocessableEntity, f)
}

func (s *Staff) clearOverride(x *exchange) error {
	if _, err := s.cfg.Store.ClearOverride(x.r.PostFormValue("hours"), x.account.ID.String(), "—"); err != nil {
		return err
	}
	x.redirect("/godziny?stan=usunieto")
	return nil
}
