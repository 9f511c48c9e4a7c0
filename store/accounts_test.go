package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

const goodPassword = "poprawny koń bateria"

// staff adds an account with roles; an administrator is put where one may be.
func staff(t *testing.T, s *Store, login string, roles ...Role) Account {
	t.Helper()
	unit := UnitBOI
	if slices.Contains(roles, RoleAdministrator) {
		unit = UnitInformatics
	}
	a, err := s.AddAccount(Account{Login: login, Name: "Pracownik " + login, Unit: unit, Roles: roles}, goodPassword, ID{})
	must(t, err)
	return a
}

func refused(t *testing.T, err error, field, code string) {
	t.Helper()
	if f, ok := errors.AsType[Fault](err); !ok || f != (Fault{field, code}) {
		t.Errorf("got %v, want %s: %s", err, field, code)
	}
}

// TestAdministratorsOnlyFromInformatics is S2-a, at adding and at changing
// role or unit.
func TestAdministratorsOnlyFromInformatics(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	_, err := s.AddAccount(Account{Login: "adam", Name: "Adam", Unit: UnitBOI, Roles: []Role{RoleAdministrator}}, goodPassword, ID{})
	refused(t, err, "roles", "administrator_outside_informatics")
	_, err = s.AddAccount(Account{Login: "adam", Name: "Adam", Unit: ID{7}}, goodPassword, ID{})
	refused(t, err, "unit", "unknown_unit")
	admin, clerk := staff(t, s, "admin", RoleAdministrator), staff(t, s, "ewa", RoleRegistrar)
	refused(t, s.ChangeAccount(clerk.ID, "Ewa", UnitBOI, []Role{RoleAdministrator}, admin.ID), "roles", "administrator_outside_informatics")
	refused(t, s.ChangeAccount(admin.ID, "Admin", UnitBOI, admin.Roles, admin.ID), "roles", "administrator_outside_informatics")
	if a, err := s.Account(clerk.ID); err != nil || a.Has(RoleAdministrator) {
		t.Errorf("refused, and yet: %+v %v", a, err)
	}
}

// TestSeparatedRoles: the pairs that nobody has together, at adding and at
// changing, and every other pair may be had.
func TestSeparatedRoles(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	both := staff(t, s, "both")
	for _, one := range Roles() {
		for _, other := range Roles() {
			if one >= other {
				continue
			}
			apart := false
			for _, p := range []string{"administrator director", "administrator officer", "administrator registrar", "director officer"} {
				apart = apart || p == string(one)+" "+string(other)
			}
			err := s.ChangeAccount(both.ID, "Ktoś", UnitInformatics, []Role{other, one}, ID{})
			if f, ok := errors.AsType[Fault](err); apart != (ok && strings.HasPrefix(f.Code, "separated_")) || !apart && err != nil {
				t.Errorf("%s with %s: %v, kept apart is %v", one, other, err, apart)
			}
		}
	}
	refused(t, s.ChangeAccount(both.ID, "Ktoś", UnitInformatics, []Role{"owner"}, ID{}), "roles", "unknown_role")
}

// TestLoginIsTakenOnce: whatever its case.
func TestLoginIsTakenOnce(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	staff(t, s, "anna")
	_, err := s.AddAccount(Account{Login: " Anna ", Name: "Druga", Unit: UnitBOI}, goodPassword, ID{})
	refused(t, err, "login", "taken")
	for _, login := range []string{"", "a", "1anna", "anna nowak", "żaneta"} {
		_, err := s.AddAccount(Account{Login: login, Name: "Ktoś", Unit: UnitBOI}, goodPassword, ID{})
		refused(t, err, "login", "not_a_login")
	}
	for password, code := range map[string]string{"krótkie": "too_short", "aaaaaaaaaaaaaaaa": "too_easy", "toania123anna456": "too_easy", strings.Repeat("x y", 400): "too_long"} {
		_, err := s.AddAccount(Account{Login: "anna", Name: "Ktoś", Unit: UnitBOI}, password, ID{})
		refused(t, err, "password", code)
	}
	if a, err := s.AccountByLogin("ANNA"); err != nil || a.Login != "anna" {
		t.Errorf("%v, %v", a, err)
	}
}

// TestPasswords: right, wrong, of nobody, of a disabled account; after a reset
// only the new one, which has to be changed.
func TestPasswords(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	a := staff(t, s, "anna", RoleAgent)
	check := func(login, password string, want error) {
		t.Helper()
		if _, err := s.CheckPassword(login, password); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", login, err, want)
		}
	}
	check("Anna", goodPassword, nil)
	check("anna", goodPassword+".", ErrCredentials)
	check("nikt", goodPassword, ErrCredentials)
	must(t, s.DisableAccount(a.ID, true, ID{9}))
	check("anna", goodPassword, ErrCredentials)
	must(t, s.DisableAccount(a.ID, false, ID{9}))
	check("anna", goodPassword, nil)
	must(t, s.ChangePassword(a.ID, "zupełnie inne hasło", ID{}))
	check("anna", goodPassword, ErrCredentials)
	if st, err := s.Standing(a.ID); err != nil || st.MustChange {
		t.Errorf("after a change of one's own: %+v %v", st, err)
	}
	drawn := DrawPassword()
	must(t, s.ResetAccount(a.ID, drawn, ID{9}))
	check("anna", "zupełnie inne hasło", ErrCredentials)
	check("anna", drawn, nil)
	if st, err := s.Standing(a.ID); err != nil || !st.MustChange || st.Enrolled {
		t.Errorf("after a reset: %+v %v", st, err)
	}
	denied := 0
	for e, err := range s.AuditLog(AuditFilter{Action: ActionLogin, Outcome: Denied}) {
		must(t, err)
		denied++
		if id, ok := e.Object.ID(); ok && id != a.ID {
			t.Errorf("a refusal speaks of %v", id)
		}
	}
	if denied != 5 {
		t.Errorf("%d refusals in the audit log, want 5", denied)
	}
}

// TestNoSecretOnDisk: neither password nor session token can be read from the
// vault's files.
func TestNoSecretOnDisk(t *testing.T) {
	s := openTest(t, Config{})
	s.passwords.memory = 0 // as it is in service
	a := staff(t, s, "anna", RoleAgent)
	token, _, err := s.BeginSession(a.ID, StageFull)
	must(t, err)
	closeTest(t, s)
	b, err := os.ReadFile(filepath.Join(s.cfg.Dir, centralFile))
	must(t, err)
	for what, secret := range map[string]string{"password": goodPassword, "token": token} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the %s is in %s", what, centralFile)
		}
	}
	if !strings.Contains(string(b), "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Error("no hash of argon2id: the test looks in the wrong place")
	}
}

// TestTOTPVectors are those of RFC 6238, Appendix B, for SHA-1.
func TestTOTPVectors(t *testing.T) {
	for at, want := range map[uint64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := fmt.Sprintf("%08d", totp([]byte("12345678901234567890"), at/totpStep)%100_000_000); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
}

// TestSecondFactor: a code of now or of a step beside it is taken, once and
// never one of before; enrolment is complete with the first.
func TestSecondFactor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		defer closeTest(t, s)
		a := staff(t, s, "anna", RoleHead)
		if err := s.CheckCode(a.ID, "000000"); !errors.Is(err, ErrCredentials) {
			t.Errorf("a code without a secret: %v", err)
		}
		first, err := s.OfferSecret(a.ID)
		must(t, err)
		if again, err := s.OfferSecret(a.ID); err != nil || again != first || len(first) != 32 {
			t.Errorf("secret %d characters, then %v (%v)", len(first), again == first, err)
		}
		c, err := s.credentials(a.ID)
		must(t, err)
		code := func(shift int) string {
			step := uint64(time.Now().Unix()/totpStep + int64(shift))
			return fmt.Sprintf("%06d", totp(c.Secret, step)%totpDigits)
		}
		try := func(code string, want error) {
			t.Helper()
			if err := s.CheckCode(a.ID, code); !errors.Is(err, want) {
				t.Errorf("code %s: %v, want %v", code, err, want)
			}
		}
		try(code(-2), ErrCredentials)
		try(code(2), ErrCredentials)
		try("", ErrCredentials)
		try(code(0)[:3]+" "+code(0)[3:], nil)
		try(code(0), ErrCredentials) // a second time
		try(code(-1), ErrCredentials)
		try(code(1), nil)
		if st, err := s.Standing(a.ID); err != nil || !st.Enrolled {
			t.Errorf("enrolled: %+v %v", st, err)
		}
		if _, err := s.OfferSecret(a.ID); !errors.Is(err, ErrCredentials) {
			t.Errorf("the secret is shown after enrolment: %v", err)
		}
		time.Sleep(time.Minute)
		try(code(0), nil)
	})
}

// TestSessions: idle limits by role, the absolute limit, the end at disabling,
// revocation, and one at a time where content may be opened.
func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		defer closeTest(t, s)
		head, agent := staff(t, s, "head", RoleHead), staff(t, s, "agent", RoleAgent)
		begin := func(a Account, stage Stage) (string, Session) {
			token, session, err := s.BeginSession(a.ID, stage)
			must(t, err)
			return token, session
		}
		alive := func(what, token string, active, want bool) {
			t.Helper()
			_, a, err := s.Session(token, active)
			if want && (err != nil || a.ID.IsZero()) || !want && !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: %v, want alive %v", what, err, want)
			}
		}
		h, _ := begin(head, StageFull)
		a, _ := begin(agent, StageFull)
		alive("a token of nobody", "x", true, false)
		for range 3 {
			time.Sleep(9 * time.Minute)
			alive("a head who works", h, true, true)
		}
		time.Sleep(9 * time.Minute)
		alive("a page that refreshes itself", h, false, true)
		time.Sleep(time.Minute)
		alive("a head after ten idle minutes", h, true, false)
		alive("an agent after ten idle minutes", a, true, true)
		time.Sleep(time.Hour)
		alive("an agent after an idle hour", a, true, false)

		a, _ = begin(agent, StageFull)
		for range 24 {
			time.Sleep(30*time.Minute - time.Second)
			alive("an agent who works", a, true, true)
		}
		time.Sleep(time.Minute)
		alive("an agent after twelve hours", a, true, false)

		half, _ := begin(agent, StagePassword)
		time.Sleep(passwordLimit)
		alive("half a login after ten minutes", half, true, false)

		a, one := begin(agent, StageFull)
		b, two := begin(agent, StageFull)
		alive("an agent's first of two", a, true, true)
		if list, err := s.Sessions(agent.ID); err != nil || len(list) != 2 {
			t.Errorf("%d sessions, %v", len(list), err)
		}
		must(t, s.EndSession(one.ID, head.ID))
		alive("a revoked one", a, true, false)
		alive("the other", b, true, true)
		must(t, s.EndSession(two.ID, agent.ID))
		if err := s.EndSession(two.ID, agent.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("ended twice: %v", err)
		}
		h, _ = begin(head, StageFull)
		h2, _ := begin(head, StageFull)
		alive("a head's first of two", h, true, false)
		alive("a head's second", h2, true, true)
		must(t, s.DisableAccount(head.ID, true, ID{9}))
		alive("of a disabled account", h2, true, false)
		if _, _, err := s.BeginSession(head.ID, StageFull); !errors.Is(err, ErrCredentials) {
			t.Errorf("begun by a disabled account: %v", err)
		}
	})
}

// TestRolesActAtOnce: what is taken from an account is gone with its next
// request.
func TestRolesActAtOnce(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	a := staff(t, s, "anna", RoleAgent, RoleRegistrar)
	token, _, err := s.BeginSession(a.ID, StageFull)
	must(t, err)
	must(t, s.ChangeAccount(a.ID, a.Name, a.Unit, []Role{RoleAgent}, ID{9}))
	_, now, err := s.Session(token, true)
	must(t, err)
	if now.Has(RoleRegistrar) || !now.Has(RoleAgent) {
		t.Errorf("roles %v", now.Roles)
	}
	var details []string
	for e, err := range s.AuditLog(AuditFilter{Subject: a.ID, Action: ActionAccountChanged}) {
		must(t, err)
		for _, d := range e.Details {
			details = append(details, d.Key()+"="+d.Value())
		}
	}
	if strings.Join(details, " ") != "role_taken=registrar" {
		t.Errorf("audit says %q", details)
	}
}

// TestWhoMayOpenContent is S5-a and S5-c as the store decides it, with days,
// revocation and suspension at once.
func TestWhoMayOpenContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		defer closeTest(t, s)
		by := map[Role]Account{}
		for _, r := range Roles() {
			by[r] = staff(t, s, strings.ReplaceAll(string(r), "_", "-"), r)
		}
		director := by[RoleDirector]
		may := func(what string, a Account, kind Scope, want bool) {
			t.Helper()
			if got, err := s.MayOpen(a.ID, kind); err != nil || got != want {
				t.Errorf("%s: %v (%v), want %v", what, got, err, want)
			}
		}
		for r, a := range by {
			may(string(r), a, ScopeRecordings, r == RoleHead || r == RoleAdministrator)
		}
		may("nobody", Account{ID: ID{1}}, ScopeRecordings, false)
		today := ordinance.DayOf(time.Now())
		give := func(a Account, from, to ordinance.Day, scope Scope) Designation {
			t.Helper()
			d, err := s.Designate(Designation{Account: a.ID, From: from, To: to, Scope: scope, Basis: "pismo BOI.1.2026"}, director.ID)
			must(t, err)
			return d
		}
		clerk := by[RoleDesignated]
		give(clerk, today.Next(-9), today.Next(-1), ScopeBoth)
		may("designated until yesterday", clerk, ScopeRecordings, false)
		d := give(clerk, today, today.Next(1), ScopeRecordings)
		may("designated for recordings", clerk, ScopeRecordings, true)
		may("the same, for a chat", clerk, ScopeChats, false)
		give(by[RoleAgent], today, today, ScopeBoth)
		may("an agent with a designation and without the role", by[RoleAgent], ScopeRecordings, false)
		own := give(director, today, today.Next(30), ScopeBoth)
		may("a director who designated himself", director, ScopeChats, true)
		if !own.Own() || d.Own() {
			t.Error("a designation of oneself is not told apart")
		}
		must(t, s.SuspendAccess(clerk.ID, true, director.ID))
		may("suspended", clerk, ScopeRecordings, false)
		must(t, s.SuspendAccess(clerk.ID, false, director.ID))
		may("restored", clerk, ScopeRecordings, true)
		must(t, s.SuspendAccess(by[RoleAdministrator].ID, true, director.ID))
		may("a suspended administrator", by[RoleAdministrator], ScopeRecordings, false)
		must(t, s.RevokeDesignation(d.ID, director.ID))
		may("revoked", clerk, ScopeRecordings, false)
		refused(t, s.RevokeDesignation(d.ID, director.ID), "designation", "revoked_before")
		d = give(clerk, today, today.Next(1), ScopeBoth)
		time.Sleep(36 * time.Hour)
		may("on the last day", clerk, ScopeChats, true)
		time.Sleep(24 * time.Hour)
		may("after the last day", clerk, ScopeChats, false)

		list, err := s.Designations()
		if err != nil || len(list) != 5 {
			t.Errorf("%d lines in the register, %v: its history is not whole", len(list), err)
		}
		_, err = s.Designate(Designation{Account: clerk.ID, From: today, To: today, Scope: ScopeBoth, Basis: "x"}, by[RoleHead].ID)
		refused(t, err, "by", "not_a_director")
		refused(t, s.SuspendAccess(clerk.ID, true, by[RoleAdministrator].ID), "by", "not_a_director")
		refused(t, s.RevokeDesignation(d.ID, by[RoleAdministrator].ID), "by", "not_a_director")
		for field, bad := range map[string]Designation{
			"to":      {Account: clerk.ID, From: today, To: today.Next(-1), Scope: ScopeBoth, Basis: "x"},
			"scope":   {Account: clerk.ID, From: today, To: today, Basis: "x"},
			"basis":   {Account: clerk.ID, From: today, To: today, Scope: ScopeBoth, Basis: " "},
			"account": {Account: ID{1}, From: today, To: today, Scope: ScopeBoth, Basis: "x"},
		} {
			_, err := s.Designate(bad, director.ID)
			if f, ok := errors.AsType[Fault](err); !ok || f.Field != field {
				t.Errorf("%s: %v", field, err)
			}
		}
		if c := verified(t, s); c.Fault != "" {
			t.Errorf("audit: %+v", c)
		}
	})
}
