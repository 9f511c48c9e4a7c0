package main

import (
	"log/slog"
	"strings"
	"testing"

	"centralka/store"
)

// TestUserCommands: the first administrator is made while serve runs and while
// it does not, and the same rules hold as in the pages.
func TestUserCommands(t *testing.T) {
	dir, s := vaultWith(t)
	c, err := listenControl(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- c.serve() }()
	ok := func(args ...string) string {
		t.Helper()
		code, out, errors := call(t, append(args, "--dir", dir)...)
		if code != 0 {
			t.Errorf("%v: %d %s%s", args, code, out, errors)
		}
		return out
	}
	refuse := func(why string, args ...string) {
		t.Helper()
		if code, out, errors := call(t, append(args, "--dir", dir)...); code == 0 || !strings.Contains(errors, why) {
			t.Errorf("%v: %d %s%s, want …%s…", args, code, out, errors, why)
		}
	}
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	round := func(login string) {
		t.Helper()
		out := ok("user", "add", "--login", login, "--name", "Jan Próbny")
		_, password, found := strings.Cut(strings.TrimSpace(out), "for one login: ")
		if !found || len(password) != 26 {
			t.Errorf("add: %q", out)
		}
		refuse("taken", "user", "add", "--login", login)
		refuse("separated administrator director", "user", "add", "--login", login+"2", "--roles", "administrator,director")
		refuse("administrator outside informatics", "user", "add", "--login", login+"2", "--unit", "biuro obsługi interesantów")
		refuse("there is no unit", "user", "add", "--login", login+"2", "--unit", "Straż")
		refuse("there is no account", "user", "reset", "--login", "nikt")
		refuse("-login is missing", "user", "reset")
		if out := words(ok("user", "list")); !strings.Contains(out, login+" Jan Próbny Wydział Informatyki administrator no second factor yet") {
			t.Errorf("list: %q", out)
		}
		if again := ok("user", "reset", "--login", login); strings.Contains(again, password) || !strings.Contains(again, "for one login: ") {
			t.Errorf("reset: %q", again)
		}
		ok("user", "disable", "--login", login)
		if out := words(ok("user", "list")); !strings.Contains(out, login+" Jan Próbny Wydział Informatyki administrator disabled") {
			t.Errorf("list after disable: %q", out)
		}
		ok("user", "disable", "--undo", "--login", login)
	}
	if out := ok("user", "list"); !strings.HasPrefix(out, "There is no account yet") {
		t.Errorf("list of nobody: %q", out)
	}
	round("pierwszy")
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	account, err := s.AccountByLogin("pierwszy")
	if err != nil || !account.Has(store.RoleAdministrator) || account.Unit != store.UnitInformatics {
		t.Errorf("%+v %v", account, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	round("drugi")
}
