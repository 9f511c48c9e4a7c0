package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"centralka/store"
)

// userOrder is what the commands user add, list, reset and disable ask of the
// vault, through the control socket or of its files.
type userOrder struct {
	Do    string   `json:"do"` // add, list, reset, disable, enable
	Login string   `json:"login,omitempty"`
	Name  string   `json:"name,omitempty"`
	Unit  string   `json:"unit,omitempty"` // its name
	Roles []string `json:"roles,omitempty"`
}

// userAnswer is what comes of it.
type userAnswer struct {
	Users    []userLine `json:"users,omitempty"`
	Password string     `json:"password,omitempty"` // drawn; shown once
}

type userLine struct {
	Login    string   `json:"login"`
	Name     string   `json:"name"`
	Unit     string   `json:"unit"`
	Roles    []string `json:"roles"`
	Disabled bool     `json:"disabled"`
	Enrolled bool     `json:"enrolled"`
}

// obey does what is ordered. The audit log names no account as the one who did
// it: whoever may open the vault's files has given the order.
func obey(s *store.Store, o userOrder) (a userAnswer, err error) {
	switch o.Do {
	case "list":
		a.Users, err = userLines(s)
		return a, err
	case "add":
		unit, err := unitNamed(s, o.Unit)
		if err != nil {
			return a, err
		}
		account := store.Account{Login: o.Login, Name: o.Name, Unit: unit}
		for _, r := range o.Roles {
			account.Roles = append(account.Roles, store.Role(r))
		}
		a.Password = store.DrawPassword()
		_, err = s.AddAccount(account, a.Password, store.ID{})
		return a, err
	}
	account, err := s.AccountByLogin(o.Login)
	if errors.Is(err, store.ErrNotFound) {
		return a, fmt.Errorf("there is no account %q", o.Login)
	}
	if err != nil {
		return a, err
	}
	switch o.Do {
	case "reset":
		a.Password = store.DrawPassword()
		return a, s.ResetAccount(account.ID, a.Password, store.ID{})
	case "disable", "enable":
		return a, s.DisableAccount(account.ID, o.Do == "disable", store.ID{})
	}
	return a, fmt.Errorf("%q is no order", o.Do)
}

func unitNamed(s *store.Store, name string) (store.ID, error) {
	units, err := s.Units()
	if err != nil {
		return store.ID{}, err
	}
	var names []string
	for _, u := range units {
		if strings.EqualFold(u.Name, strings.TrimSpace(name)) {
			return u.ID, nil
		}
		names = append(names, u.Name)
	}
	return store.ID{}, fmt.Errorf("there is no unit %q; there are: %s", name, strings.Join(names, ", "))
}

func userLines(s *store.Store) (lines []userLine, err error) {
	accounts, err := s.Accounts()
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		unit, err := s.Unit(a.Unit)
		if err != nil {
			return nil, err
		}
		st, err := s.Standing(a.ID)
		if err != nil {
			return nil, err
		}
		line := userLine{Login: a.Login, Name: a.Name, Unit: unit.Name, Disabled: a.Disabled, Enrolled: st.Enrolled}
		for _, r := range a.Roles {
			line.Roles = append(line.Roles, string(r))
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func (v localVault) user(_ context.Context, o userOrder) (userAnswer, error) { return obey(v.store, o) }

func (v remoteVault) user(ctx context.Context, o userOrder) (a userAnswer, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	body, err := v.tell(ctx, "/user", strings.NewReader(string(text)))
	if err != nil {
		return a, err
	}
	defer body.Close() // only read
	if err := json.NewDecoder(body).Decode(&a); err != nil {
		return a, fmt.Errorf("ask the running centralka: %w", err)
	}
	return a, nil
}

// runUser makes the command user DO: with order's flags filled in, what it asks
// for is done and told.
func runUser(do, about string) func(args []string, stdout, stderr io.Writer) int {
	return func(args []string, stdout, stderr io.Writer) int {
		fs := newFlags("user "+do, about+" A running centralka is asked; otherwise the\nvault is opened.", stderr)
		vault := addVaultFlags(fs)
		o := userOrder{Do: do}
		if do != "list" {
			fs.StringVar(&o.Login, "login", "", "the `name` to log in with")
		}
		roles := ""
		switch do {
		case "add":
			fs.StringVar(&o.Name, "name", "", "first name and surname")
			fs.StringVar(&o.Unit, "unit", "Wydział Informatyki", "organisational `unit`")
			fs.StringVar(&roles, "roles", string(store.RoleAdministrator), "`roles`, separated by commas: "+roleNames())
		case "disable":
			fs.BoolFunc("undo", "let the account log in again", func(string) error { o.Do = "enable"; return nil })
		}
		if code, ok := parseFlags(fs, args, stderr); !ok {
			return code
		}
		if do != "list" && o.Login == "" {
			fmt.Fprintf(stderr, "centralka user %s: -login is missing\n", do)
			return exitUsage
		}
		o.Name, o.Roles = cmp.Or(o.Name, o.Login), strings.FieldsFunc(roles, func(r rune) bool { return r == ',' || r == ' ' })
		return withVault(vault, stderr, func(ctx context.Context, v archive) error {
			a, err := v.user(ctx, o)
			if err != nil {
				return err
			}
			return tellUser(stdout, o, a)
		})
	}
}

func roleNames() string {
	var names []string
	for _, r := range store.Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

func tellUser(w io.Writer, o userOrder, a userAnswer) error {
	switch {
	case a.Password != "":
		_, err := fmt.Fprintf(w, "password of %s, for one login: %s\n", o.Login, a.Password)
		return err
	case o.Do != "list":
		_, err := fmt.Fprintf(w, "%s: done\n", o.Login)
		return err
	case len(a.Users) == 0:
		_, err := fmt.Fprintln(w, "There is no account yet; centralka user add makes one.")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "login\tname\tunit\troles\tstate")
	for _, u := range a.Users {
		state := "active"
		if u.Disabled {
			state = "disabled"
		} else if !u.Enrolled {
			state = "no second factor yet"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", u.Login, u.Name, u.Unit, strings.Join(u.Roles, ", "), state)
	}
	return tw.Flush()
}
