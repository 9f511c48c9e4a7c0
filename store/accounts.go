package store

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
)

// Buckets of centralka.db that hold the staff.
var (
	bucketAccounts     = []byte("accounts")     // id -> Account
	bucketLogins       = []byte("logins")       // login -> id
	bucketCredentials  = []byte("credentials")  // id -> credentials
	bucketSessions     = []byte("sessions")     // hash of token -> Session
	bucketDesignations = []byte("designations") // id -> Designation
	staffBuckets       = [][]byte{bucketAccounts, bucketLogins, bucketCredentials, bucketSessions, bucketDesignations}
)

// Role is what an account may do; an account can have several. Residents have
// no account.
type Role string

const (
	RoleAgent         Role = "agent"         // konsultant CIM
	RoleHead          Role = "head"          // kierownik CIM
	RoleDesignated    Role = "designated"    // wyznaczony pracownik BOI; content only with a designation that is valid
	RoleRegistrar     Role = "registrar"     // rejestrator BOI
	RoleDirector      Role = "director"      // dyrektor BOI
	RoleOfficer       Role = "officer"       // ABI, later IOD
	RoleUnitHead      Role = "unit_head"     // kierownik wydziału
	RoleAdministrator Role = "administrator" // Wydział Informatyki, Zarz. 284/17 §2
	RoleSecretary     Role = "secretary"     // sekretarz miasta
)

var roles = []Role{RoleAgent, RoleHead, RoleDesignated, RoleRegistrar, RoleDirector, RoleOfficer, RoleUnitHead, RoleAdministrator, RoleSecretary}

// Roles lists every role that an account can have.
func Roles() []Role { return slices.Clone(roles) }

func (r Role) auditWord() string { return string(r) }

// Units that the ordinance names; every vault has them. They can be renamed and
// not removed.
var (
	UnitInformatics = ID{15: 1} // Wydział Informatyki, Zarz. 284/17 §2
	UnitBOI         = ID{15: 2} // Biuro Obsługi Interesantów, Zarz. 284/17 §3
)

var foundingUnits = []Unit{
	{ID: UnitInformatics, Name: "Wydział Informatyki", Active: true},
	{ID: UnitBOI, Name: "Biuro Obsługi Interesantów", Active: true},
}

// Account is a member of the staff who can log in.
type Account struct {
	ID       ID
	Login    string
	Name     string
	Unit     ID
	Roles    []Role
	Disabled bool `json:",omitempty"`
	// Suspended: the director has taken away access to content (S3-d).
	Suspended bool `json:",omitempty"`
	Created   time.Time
}

// Has tells whether the account has one of the roles.
func (a Account) Has(some ...Role) bool {
	return slices.ContainsFunc(some, func(r Role) bool { return slices.Contains(a.Roles, r) })
}

// opensContent tells whether one of the account's roles may lead to content;
// S5-f asks more of such accounts.
func (a Account) opensContent() bool { return a.Has(RoleHead, RoleDesignated, RoleAdministrator) }

// Fault is why an account or designation is refused: a field and a code, for
// which pages have words.
type Fault struct{ Field, Code string }

func (f Fault) Error() string { return f.Field + ": " + strings.ReplaceAll(f.Code, "_", " ") }

// separated are the roles that nobody has together: who runs the machine decides
// nothing and supervises nobody, and who gives the first opinion does not decide.
var separated = [][2]Role{
	{RoleAdministrator, RoleDirector}, {RoleAdministrator, RoleOfficer}, {RoleAdministrator, RoleRegistrar}, {RoleOfficer, RoleDirector},
}

var loginForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{1,39}$`)

// tidy brings an account into its stored form and checks what can be checked
// without the others.
func (a *Account) tidy() error {
	a.Login, a.Name = strings.ToLower(strings.TrimSpace(a.Login)), strings.TrimSpace(a.Name)
	a.Roles = slices.Compact(slices.Sorted(slices.Values(a.Roles)))
	if !loginForm.MatchString(a.Login) {
		return Fault{"login", "not_a_login"}
	}
	if a.Name == "" || !utf8.ValidString(a.Name) || len(a.Name) > 200 {
		return Fault{"name", "not_a_name"}
	}
	for _, r := range a.Roles {
		if !slices.Contains(roles, r) {
			return Fault{"roles", "unknown_role"}
		}
	}
	for _, pair := range separated {
		if a.Has(pair[0]) && a.Has(pair[1]) {
			return Fault{"roles", "separated_" + string(pair[0]) + "_" + string(pair[1])}
		}
	}
	if a.Has(RoleAdministrator) && a.Unit != UnitInformatics {
		return Fault{"roles", "administrator_outside_informatics"} // Zarz. 284/17 §2
	}
	return nil
}

// AddAccount makes an account with a password that has to be changed at the
// first login. by is who does it; zero is the program's own command.
func (s *Store) AddAccount(a Account, password string, by ID) (Account, error) {
	a.ID, a.Created, a.Disabled, a.Suspended = NewID(), utc(time.Now()), false, false
	err := a.tidy()
	if err == nil {
		err = checkPassword(password, a.Login)
	}
	if err != nil {
		return Account{}, fmt.Errorf("add account: %w", err)
	}
	c := credentials{Hash: s.passwords.hash(password), MustChange: true}
	err = s.central.update(func(tx *bbolt.Tx) error {
		logins := tx.Bucket(bucketLogins)
		if logins.Get([]byte(a.Login)) != nil {
			return Fault{"login", "taken"}
		}
		if err := checkUnit(tx, a.Unit); err != nil {
			return err
		}
		e := AuditEvent{Actor: by, Action: ActionAccountAdded, Object: ObjectOf(ObjectAccount, a.ID), Outcome: Allowed, Details: roleDetails(nil, a.Roles)}
		e.Details = append(e.Details, DetailID("unit", a.Unit))
		return errors.Join(logins.Put([]byte(a.Login), a.ID[:]), putAccount(tx, a), putJSON(tx.Bucket(bucketCredentials), a.ID[:], c), appendAudit(tx, e))
	})
	if err != nil {
		return Account{}, fmt.Errorf("add account: %w", err)
	}
	return a, nil
}

func checkUnit(tx *bbolt.Tx, id ID) error {
	text := tx.Bucket(bucketUnits).Get(id[:])
	if text == nil {
		return Fault{"unit", "unknown_unit"}
	}
	return nil
}

// roleDetails say which roles were given and taken.
func roleDetails(before, after []Role) (list []AuditDetail) {
	for _, r := range roles {
		switch had, has := slices.Contains(before, r), slices.Contains(after, r); {
		case !had && has:
			list = append(list, DetailWord("role_given", r))
		case had && !has:
			list = append(list, DetailWord("role_taken", r))
		}
	}
	return list
}

// ChangeAccount gives an account another name, unit and roles. What it may do
// changes with the next request of its holder.
func (s *Store) ChangeAccount(id ID, name string, unit ID, roles []Role, by ID) error {
	return s.changeAccount(id, func(tx *bbolt.Tx, a *Account) (AuditEvent, error) {
		before := *a
		a.Name, a.Unit, a.Roles = name, unit, slices.Clone(roles)
		if err := a.tidy(); err != nil {
			return AuditEvent{}, err
		}
		e := AuditEvent{Actor: by, Action: ActionAccountChanged, Details: roleDetails(before.Roles, a.Roles)}
		if before.Unit != a.Unit {
			e.Details = append(e.Details, DetailID("unit", a.Unit))
		}
		return e, checkUnit(tx, a.Unit)
	})
}

// DisableAccount ends an account's sessions and keeps it from logging in, or
// lets it log in again. Accounts are never removed: the audit log names them.
func (s *Store) DisableAccount(id ID, disabled bool, by ID) error {
	return s.changeAccount(id, func(tx *bbolt.Tx, a *Account) (AuditEvent, error) {
		e := AuditEvent{Actor: by, Action: ActionAccountEnabled}
		if a.Disabled = disabled; disabled {
			e.Action = ActionAccountDisabled
			return e, endSessions(tx, func(o Session) bool { return o.Account == id })
		}
		return e, nil
	})
}

// SuspendAccess takes away an account's access to content at once, or gives it
// back (S3-d). by must be a director.
func (s *Store) SuspendAccess(id ID, suspended bool, by ID) error {
	return s.changeAccount(id, func(tx *bbolt.Tx, a *Account) (AuditEvent, error) {
		e := AuditEvent{Actor: by, Action: ActionAccessRestored}
		if a.Suspended = suspended; suspended {
			e.Action = ActionAccessSuspended
		}
		return e, mustBeDirector(tx, by)
	})
}

func mustBeDirector(tx *bbolt.Tx, by ID) error {
	a, err := readAccount(tx, by)
	if err == nil && (a.Disabled || !a.Has(RoleDirector)) {
		err = Fault{"by", "not_a_director"}
	}
	return err
}

// changeAccount changes an account and appends the event in one transaction.
func (s *Store) changeAccount(id ID, change func(*bbolt.Tx, *Account) (AuditEvent, error)) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		a, err := readAccount(tx, id)
		if err != nil {
			return err
		}
		e, err := change(tx, &a)
		if err != nil {
			return err
		}
		e.Object, e.Outcome = ObjectOf(ObjectAccount, id), Allowed
		return errors.Join(putAccount(tx, a), appendAudit(tx, e))
	})
	if err != nil {
		return fmt.Errorf("change account %v: %w", id, err)
	}
	return nil
}

func putAccount(tx *bbolt.Tx, a Account) error { return putJSON(tx.Bucket(bucketAccounts), a.ID[:], a) }

func readAccount(tx *bbolt.Tx, id ID) (a Account, err error) {
	text := tx.Bucket(bucketAccounts).Get(id[:])
	if text == nil {
		return a, ErrNotFound
	}
	return a, getJSON(text, &a)
}

// Account returns one, ErrNotFound if there is none.
func (s *Store) Account(id ID) (a Account, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		a, err = readAccount(tx, id)
		return err
	})
	if err != nil {
		return Account{}, fmt.Errorf("account %v: %w", id, err)
	}
	return a, nil
}

// AccountByLogin returns one, ErrNotFound if there is none.
func (s *Store) AccountByLogin(login string) (a Account, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		id := tx.Bucket(bucketLogins).Get([]byte(strings.ToLower(strings.TrimSpace(login))))
		if len(id) != len(ID{}) {
			return ErrNotFound
		}
		a, err = readAccount(tx, ID(id))
		return err
	})
	if err != nil {
		return Account{}, fmt.Errorf("account by login: %w", err)
	}
	return a, nil
}

// Accounts lists all of them by name.
func (s *Store) Accounts() (list []Account, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketAccounts).ForEach(func(_, v []byte) error {
			var a Account
			err := getJSON(v, &a)
			list = append(list, a)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	slices.SortFunc(list, func(a, b Account) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return list, nil
}

// foundUnits makes the units that the ordinance names, where they are not.
func (s *Store) foundUnits() error {
	missing := func(tx *bbolt.Tx) (list []Unit) {
		for _, u := range foundingUnits {
			if tx.Bucket(bucketUnits).Get(u.ID[:]) == nil {
				list = append(list, u)
			}
		}
		return list
	}
	var list []Unit
	err := s.central.view(func(tx *bbolt.Tx) error {
		list = missing(tx)
		return nil
	})
	if err != nil || len(list) == 0 {
		return err
	}
	return s.central.update(func(tx *bbolt.Tx) error {
		for _, u := range missing(tx) {
			if err := putJSON(tx.Bucket(bucketUnits), u.ID[:], u); err != nil {
				return err
			}
		}
		return nil
	})
}
