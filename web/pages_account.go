package web

import (
	"net/http"
	"strconv"

	"centralka/store"
)

// startPage leads to what the account may do.
func (s *Staff) startPage(x *exchange) error {
	return s.show(x, "start", nil)
}

// accountView is /konto.
type accountView struct {
	*Form
	Unit     string
	Sessions []store.Session
	Current  store.ID
	History  auditList
}

func (s *Staff) accountPage(x *exchange) error { return s.showAccount(x, http.StatusOK, emptyForm()) }

func (s *Staff) showAccount(x *exchange, status int, f *Form) error {
	unit, err := s.cfg.Store.Unit(x.account.Unit)
	if err != nil {
		return err
	}
	v := accountView{Form: f, Unit: unit.Name, Current: x.session.ID}
	if v.Sessions, err = s.cfg.Store.Sessions(x.account.ID); err != nil {
		return err
	}
	if v.History, err = s.auditList(x, store.AuditFilter{Subject: x.account.ID}, "/konto"); err != nil {
		return err
	}
	return s.showStatus(x, status, "account", v)
}

// changePassword asks for the current password too: who finds a desk unlocked
// must not be able to keep the account. Wrong ones are slowed down.
func (s *Staff) changePassword(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	guess, must := s.mustWait(x, x.account.Login)
	if must {
		f.fault("current", "fault.wait")
		return s.showAccount(x, http.StatusTooManyRequests, f)
	}
	right, err := s.cfg.Store.IsPassword(x.account.ID, f.values.Get("current"))
	if err != nil {
		return err
	}
	if !right {
		f.fault("current", "fault.current")
	} else {
		guess.takeBack()
		if err := s.setPassword(x, f); err != nil {
			return err
		}
	}
	if len(f.Faults) > 0 {
		return s.showAccount(x, http.StatusUnprocessableEntity, f)
	}
	x.redirect("/konto?stan=haslo")
	return nil
}

func (s *Staff) endOwnSession(x *exchange) error {
	id, err := x.id("id")
	if err != nil {
		return err
	}
	list, err := s.cfg.Store.Sessions(x.account.ID)
	if err != nil {
		return err
	}
	for _, o := range list {
		if o.ID == id {
			if err := s.cfg.Store.EndSession(id, x.account.ID); err != nil {
				return err
			}
			x.redirect("/konto?stan=sesja")
			return nil
		}
	}
	return store.ErrNotFound // somebody else's, or over
}

// pageSize is how many lines a list shows at once.
const pageSize = 50

// before reads where a list of the audit log goes on.
func (x *exchange) before() (uint64, error) {
	text := x.r.URL.Query().Get("przed")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, refusal{status: http.StatusBadRequest}
	}
	return n, nil
}
