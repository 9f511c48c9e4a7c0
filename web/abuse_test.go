package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"centralka/store"
)

// TestRolesDoNotWidenTheAudit: who may see totals of the whole log and entries of
// a part of it sees no entry of another part, on the page or in the file.
func TestRolesDoNotWidenTheAudit(t *testing.T) {
	c := newConsole(t)
	c.signedIn(c.account("obcy", store.RoleAdministrator)) // of another unit; its login is in the log
	for _, role := range []store.Role{store.RoleAgent, store.RoleRegistrar, store.RoleHead, store.RoleDesignated} {
		v := c.signedIn(c.account("sekretarz-"+strings.ReplaceAll(string(role), "_", "-"), store.RoleSecretary, role))
		for _, path := range []string{"/dziennik", "/dziennik.csv"} {
			if res, body := v.get(path); res.StatusCode != 200 || strings.Contains(body, "Pracownik obcy") {
				t.Errorf("secretary and %s: %s answers %d and shows entries of somebody else's", role, path, res.StatusCode)
			}
		}
	}
}

// TestGuessesAtOnce: guesses that are made at the same time are not more than
// those made one after the other.
func TestGuessesAtOnce(t *testing.T) {
	c := newConsole(t)
	a := c.account("anna", store.RoleAgent)
	if err := c.store.ChangePassword(a.ID, testPassword+"!", store.ID{}); err != nil {
		t.Fatal(err)
	}
	token, _, err := c.store.BeginSession(a.ID, store.StagePassword)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	taken := 0
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			v := visitor{c, token}
			res, _ := v.post("/logowanie/rejestracja", "code", "000000")
			mu.Lock()
			defer mu.Unlock()
			switch after, _ := strconv.Atoi(res.Header.Get("Retry-After")); {
			case res.StatusCode == http.StatusUnprocessableEntity:
				taken++
			case res.StatusCode != http.StatusTooManyRequests || after < 1:
				t.Errorf("%d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
			}
		})
	}
	all.Wait()
	if taken > freeByAddress {
		t.Errorf("%d codes were tried at once, %d are free", taken, freeByAddress)
	}
}

// TestWaitIsTold: Retry-After is the whole number of seconds.
func TestWaitIsTold(t *testing.T) {
	c := newConsole(t)
	for i := range freeByAddress + 12 { // over half a minute
		c.staff.throttle.note(c.staff.throttle.keys("192.0.2.1:1234", fmt.Sprint("n", i)))
	}
	v := &visitor{c, ""}
	res, _ := v.post("/logowanie", "login", "anna", "password", "x")
	if after, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || res.StatusCode != 429 || after < 800 {
		t.Errorf("%d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}

// TestDisablingTwice: a form that is sent twice disables, and does not enable again.
func TestDisablingTwice(t *testing.T) {
	c := newConsole(t)
	other := c.account("anna", store.RoleAgent)
	v := c.signedIn(c.account("admin", store.RoleAdministrator))
	path := "/admin/uzytkownicy/" + other.ID.String()
	_, page := v.get(path)
	if !strings.Contains(page, `name="disabled" value="yes"`) {
		t.Error("the form does not say what it wants")
	}
	for range 2 {
		if res, _ := v.post(path+"/stan", "disabled", "yes"); res.StatusCode != http.StatusSeeOther {
			t.Errorf("%d", res.StatusCode)
		}
		if a, err := c.store.Account(other.ID); err != nil || !a.Disabled {
			t.Errorf("the account is enabled: %v", err)
		}
	}
	if res, _ := v.post(path+"/stan", "disabled", "no"); res.StatusCode != http.StatusSeeOther {
		t.Errorf("%d", res.StatusCode)
	}
	if a, err := c.store.Account(other.ID); err != nil || a.Disabled {
		t.Errorf("the account is disabled: %v", err)
	}
	if res, _ := v.post(path + "/stan"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a form that wants nothing: %d", res.StatusCode)
	}
}

// TestNamesAreNoFormulas: what a spreadsheet would run is text in the file.
func TestNamesAreNoFormulas(t *testing.T) {
	c := newConsole(t)
	a := c.account("admin", store.RoleAdministrator)
	if err := c.store.ChangeAccount(a.ID, "=1+1", a.Unit, a.Roles, a.ID); err != nil {
		t.Fatal(err)
	}
	if _, body := c.signedIn(a).get("/dziennik.csv"); strings.Contains(body, ",=1+1,") || !strings.Contains(body, ",'=1+1,") {
		t.Errorf("a formula in\n%s", body)
	}
}
