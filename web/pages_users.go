package web

import (
	"net/http"

	"centralka/store"
)

// usersView is /admin/uzytkownicy.
type usersView struct{ Users []userRow }

type userRow struct {
	store.Account
	UnitName string
	Enrolled bool
}

func (s *Staff) usersPage(x *exchange) error {
	accounts, err := s.cfg.Store.Accounts()
	if err != nil {
		return err
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	var v usersView
	for _, a := range accounts {
		st, err := s.cfg.Store.Standing(a.ID)
		if err != nil {
			return err
		}
		v.Users = append(v.Users, userRow{a, names[a.Unit], st.Enrolled})
	}
	return s.show(x, "users", v)
}

// userView is an account's form, and that of a new one.
type userView struct {
	*Form
	Account  store.Account
	Enrolled bool
	Units    []store.Unit
	Roles    []store.Role
	Self     bool
	Password string // drawn, shown once
	Sessions []store.Session
}

func (s *Staff) showUser(x *exchange, status int, name string, v userView) error {
	units, err := s.cfg.Store.Units()
	if err != nil {
		return err
	}
	for _, u := range units {
		if u.Active || u.ID == v.Account.Unit {
			v.Units = append(v.Units, u)
		}
	}
	v.Roles = store.Roles()
	return s.showStatus(x, status, name, v)
}

func (s *Staff) newUserPage(x *exchange) error {
	return s.showUser(x, http.StatusOK, "newuser", userView{Form: emptyForm()})
}

// filledIn is the account that a form describes.
func filledIn(f *Form) store.Account {
	a := store.Account{Login: f.Get("login"), Name: f.Get("name")}
	if unit, err := store.ParseID(f.Get("unit")); err == nil {
		a.Unit = unit
	}
	for _, r := range f.values["roles"] {
		a.Roles = append(a.Roles, store.Role(r))
	}
	return a
}

// addUser makes an account and shows its password, this once.
func (s *Staff) addUser(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	password := store.DrawPassword()
	a, err := s.cfg.Store.AddAccount(filledIn(f), password, x.account.ID)
	if err != nil {
		if f.took(err) {
			return s.showUser(x, http.StatusUnprocessableEntity, "newuser", userView{Form: f})
		}
		return err
	}
	return s.showStatus(x, http.StatusOK, "password", userView{Form: f, Account: a, Password: password})
}

// user reads the account that the path names.
func (s *Staff) user(x *exchange) (userView, error) {
	id, err := x.id("id")
	if err != nil {
		return userView{}, err
	}
	v := userView{Self: id == x.account.ID}
	if v.Account, err = s.cfg.Store.Account(id); err != nil {
		return v, err
	}
	st, err := s.cfg.Store.Standing(id)
	if err != nil {
		return v, err
	}
	v.Enrolled = st.Enrolled
	v.Sessions, err = s.cfg.Store.Sessions(id)
	pairs := []string{"name", v.Account.Name, "unit", v.Account.Unit.String()}
	for _, r := range v.Account.Roles {
		pairs = append(pairs, "roles", string(r))
	}
	v.Form = emptyForm(pairs...)
	return v, err
}

func (s *Staff) userPage(x *exchange) error {
	v, err := s.user(x)
	if err != nil {
		return err
	}
	return s.showUser(x, http.StatusOK, "user", v)
}

func (s *Staff) changeUser(x *exchange) error {
	v, err := s.user(x)
	if err != nil {
		return err
	}
	if v.Form, err = x.readForm(); err != nil {
		return err
	}
	a := filledIn(v.Form)
	if err := s.cfg.Store.ChangeAccount(v.Account.ID, a.Name, a.Unit, a.Roles, x.account.ID); err != nil {
		if v.took(err) {
			return s.showUser(x, http.StatusUnprocessableEntity, "user", v)
		}
		return err
	}
	x.redirect("/admin/uzytkownicy/" + v.Account.ID.String() + "?stan=zapisano")
	return nil
}

func (s *Staff) resetUser(x *exchange) error {
	v, err := s.user(x)
	if err != nil {
		return err
	}
	v.Password = store.DrawPassword()
	if err := s.cfg.Store.ResetAccount(v.Account.ID, v.Password, x.account.ID); err != nil {
		return err
	}
	return s.show(x, "password", v)
}

// disableUser disables or enables, as the form says: one that is sent twice does
// not undo itself. Nobody disables himself, so that one administrator remains.
func (s *Staff) disableUser(x *exchange) error {
	v, err := s.user(x)
	if err != nil {
		return err
	}
	if v.Self {
		return refusal{status: http.StatusConflict, key: "error.self"}
	}
	want := x.r.PostFormValue("disabled")
	if want != "yes" && want != "no" {
		return refusal{status: http.StatusBadRequest}
	}
	if err := s.cfg.Store.DisableAccount(v.Account.ID, want == "yes", x.account.ID); err != nil {
		return err
	}
	x.redirect("/admin/uzytkownicy/" + v.Account.ID.String() + "?stan=zapisano")
	return nil
}

// unitsView is /admin/jednostki.
type unitsView struct {
	*Form
	Units []store.Unit
	Fixed map[store.ID]bool
	Bad   store.ID // whose form has the fault; zero: the new one's
}

func (s *Staff) unitsPage(x *exchange) error {
	return s.showUnits(x, http.StatusOK, unitsView{Form: emptyForm()})
}

func (s *Staff) showUnits(x *exchange, status int, v unitsView) (err error) {
	if v.Units, err = s.cfg.Store.Units(); err != nil {
		return err
	}
	v.Fixed = map[store.ID]bool{store.UnitInformatics: true, store.UnitBOI: true}
	return s.showStatus(x, status, "units", v)
}

func (s *Staff) addUnit(x *exchange) error { return s.putUnit(x, store.Unit{Active: true}) }

func (s *Staff) changeUnit(x *exchange) error {
	id, err := x.id("id")
	if err != nil {
		return err
	}
	u, err := s.cfg.Store.Unit(id)
	if err != nil {
		return err
	}
	if x.r.PostFormValue("active") == "no" {
		u.Active = false
	} else if x.r.PostFormValue("active") == "yes" {
		u.Active = true
	}
	return s.putUnit(x, u)
}

func (s *Staff) putUnit(x *exchange, u store.Unit) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	if f.Get("name") != "" || u.Name == "" {
		u.Name = f.Get("name")
	}
	if u.Name == "" || len(u.Name) > 200 {
		f.fault("name", "fault.not_a_name")
		return s.showUnits(x, http.StatusUnprocessableEntity, unitsView{Form: f, Bad: u.ID})
	}
	if _, _, err := s.cfg.Store.PutUnit(u, x.account.ID.String(), "—"); err != nil {
		if f.took(err) {
			return s.showUnits(x, http.StatusUnprocessableEntity, unitsView{Form: f, Bad: u.ID})
		}
		return err
	}
	x.redirect("/admin/jednostki?stan=zapisano")
	return nil
}
