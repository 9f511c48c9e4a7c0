package web

import (
	"net/http"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// designationsView is /nadzor/wyznaczenia.
type designationsView struct {
	*Form
	Lines    []designationLine
	Accounts []store.Account // who may be designated: an active account of the roles for it
	Content  []store.Account // who may open content now or has been kept from it
	Scopes   []store.Scope
}

type designationLine struct {
	store.Designation
	Name, ByName, RevokedName string
	Valid                     bool
}

func (s *Staff) designationsPage(x *exchange) error {
	return s.showDesignations(x, http.StatusOK, emptyForm("from", ordinance.DayOf(time.Now()).String()))
}

func (s *Staff) showDesignations(x *exchange, status int, f *Form) error {
	v := designationsView{Form: f, Scopes: []store.Scope{store.ScopeRecordings, store.ScopeChats, store.ScopeBoth}}
	list, err := s.cfg.Store.Designations()
	if err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	now := time.Now()
	for _, d := range list {
		v.Lines = append(v.Lines, designationLine{d, names[d.Account], names[d.By], names[d.RevokedBy], d.ValidAt(now)})
	}
	accounts, err := s.cfg.Store.Accounts()
	if err != nil {
		return err
	}
	for _, a := range accounts {
		if !a.Disabled && a.Has(store.RoleDesignated, store.RoleDirector) {
			v.Accounts = append(v.Accounts, a)
		}
		if !a.Disabled && len(rightsOf(a, mayOpen)) > 0 {
			v.Content = append(v.Content, a)
		}
	}
	return s.showStatus(x, status, "designations", v)
}

func (s *Staff) designate(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	d := store.Designation{Scope: store.Scope(f.Get("scope")), Basis: f.Get("basis")}
	if id, err := store.ParseID(f.Get("account")); err == nil {
		d.Account = id
	} else {
		f.fault("account", "fault.unknown_account")
	}
	for _, field := range []struct {
		name string
		day  *ordinance.Day
	}{{"from", &d.From}, {"to", &d.To}} {
		if *field.day, err = ordinance.ParseDay(f.Get(field.name)); err != nil {
			f.fault(field.name, "fault.not_a_day")
		}
	}
	if len(f.Faults) == 0 {
		if _, err := s.cfg.Store.Designate(d, x.account.ID); err != nil && !f.took(err) {
			return err
		}
	}
	if len(f.Faults) > 0 {
		return s.showDesignations(x, http.StatusUnprocessableEntity, f)
	}
	x.redirect("/nadzor/wyznaczenia?stan=zapisano")
	return nil
}

func (s *Staff) revoke(x *exchange) error {
	id, err := x.id("id")
	if err != nil {
		return err
	}
	err = s.cfg.Store.RevokeDesignation(id, x.account.ID)
	if f := emptyForm(); f.took(err) {
		return refusal{status: http.StatusConflict, key: f.Faults[0].Key}
	}
	if err != nil {
		return err
	}
	x.redirect("/nadzor/wyznaczenia?stan=odwolano")
	return nil
}

// suspend takes away or gives back an account's access to content.
func (s *Staff) suspend(x *exchange) error {
	id, err := store.ParseID(x.r.PostFormValue("account"))
	if err != nil {
		return store.ErrNotFound
	}
	if err := s.cfg.Store.SuspendAccess(id, x.r.PostFormValue("suspended") == "yes", x.account.ID); err != nil {
		return err
	}
	x.redirect("/nadzor/wyznaczenia?stan=zapisano")
	return nil
}
