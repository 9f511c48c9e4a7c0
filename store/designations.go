package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Scope is the kind of content that a designation opens.
type Scope string

const (
	ScopeRecordings Scope = "recordings" // nagrania
	ScopeChats      Scope = "chats"      // zapisy czatów
	ScopeBoth       Scope = "both"
)

func (c Scope) auditWord() string { return string(c) }

// Designation is a line of the register of employees whom the director has
// designated (Zarz. 284/17 §5 pkt 3, S5-c). A line is never changed and never
// removed; revoking it adds to it.
type Designation struct {
	ID      ID
	Account ID
	From    ordinance.Day
	To      ordinance.Day // last day, inclusive
	Scope   Scope
	Basis   string // the document, in words
	By      ID     // a director
	At      time.Time
	Revoked time.Time `json:",omitzero"`
	// RevokedBy is who revoked it.
	RevokedBy ID `json:",omitzero"`
}

// ValidAt tells whether it holds at an instant.
func (d Designation) ValidAt(now time.Time) bool {
	day := ordinance.DayOf(now)
	return d.Revoked.IsZero() && day.Compare(d.From) >= 0 && day.Compare(d.To) <= 0
}

// Own tells whether a director has designated himself, which is allowed and
// flagged (S3-c).
func (d Designation) Own() bool { return d.Account == d.By }

// Designate enters a designation; its ID, At and By are set here. by must be a
// director.
func (s *Store) Designate(d Designation, by ID) (Designation, error) {
	d.ID, d.By, d.At, d.Revoked, d.RevokedBy = NewID(), by, utc(time.Now()), time.Time{}, ID{}
	d.Basis = strings.TrimSpace(d.Basis)
	var err error
	switch {
	case d.From.IsZero():
		err = Fault{"from", "missing"}
	case d.To.IsZero():
		err = Fault{"to", "missing"}
	case d.To.Compare(d.From) < 0:
		err = Fault{"to", "before_from"}
	case d.Scope != ScopeRecordings && d.Scope != ScopeChats && d.Scope != ScopeBoth:
		err = Fault{"scope", "missing"}
	case d.Basis == "" || !utf8.ValidString(d.Basis) || len(d.Basis) > 500:
		err = Fault{"basis", "missing"}
	default:
		err = s.central.update(func(tx *bbolt.Tx) error {
			if err := mustBeDirector(tx, by); err != nil {
				return err
			}
			if _, err := readAccount(tx, d.Account); err != nil {
				return Fault{"account", "unknown_account"}
			}
			return errors.Join(putDesignation(tx, d), appendAudit(tx, AuditEvent{
				Actor: by, Action: ActionDesignated, Object: ObjectOf(ObjectAccount, d.Account), Outcome: Allowed,
				Details: []AuditDetail{DetailID("designation", d.ID), DetailDay("from", d.From), DetailDay("to", d.To), DetailWord("scope", d.Scope)},
			}))
		})
	}
	if err != nil {
		return Designation{}, fmt.Errorf("designate: %w", err)
	}
	return d, nil
}

func putDesignation(tx *bbolt.Tx, d Designation) error {
	return putJSON(tx.Bucket(bucketDesignations), d.ID[:], d)
}

// RevokeDesignation ends a designation at once. by must be a director.
func (s *Store) RevokeDesignation(id, by ID) error {
	err := s.central.update(func(tx *bbolt.Tx) error {
		if err := mustBeDirector(tx, by); err != nil {
			return err
		}
		var d Designation
		text := tx.Bucket(bucketDesignations).Get(id[:])
		if text == nil {
			return ErrNotFound
		}
		if err := getJSON(text, &d); err != nil {
			return err
		}
		if !d.Revoked.IsZero() {
			return Fault{"designation", "revoked_before"}
		}
		d.Revoked, d.RevokedBy = utc(time.Now()), by
		return errors.Join(putDesignation(tx, d), appendAudit(tx, AuditEvent{
			Actor: by, Action: ActionDesignationRevoked, Object: ObjectOf(ObjectAccount, d.Account), Outcome: Allowed,
			Details: []AuditDetail{DetailID("designation", d.ID)},
		}))
	})
	if err != nil {
		return fmt.Errorf("revoke designation %v: %w", id, err)
	}
	return nil
}

// Designations lists the whole register, newest first.
func (s *Store) Designations() (list []Designation, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		list, err = readDesignations(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read designations: %w", err)
	}
	return list, nil
}

func readDesignations(tx *bbolt.Tx) (list []Designation, err error) {
	err = tx.Bucket(bucketDesignations).ForEach(func(_, v []byte) error {
		var d Designation
		err := getJSON(v, &d)
		list = append(list, d)
		return err
	})
	slices.SortFunc(list, func(a, b Designation) int { return b.At.Compare(a.At) })
	return list, err
}

// MayOpen tells whether an account may open content of a kind, ScopeRecordings
// or ScopeChats, at this moment (Zarz. 284/17 §5): administrators and the head of
// the centre by their role, designated employees, and the director (S3-c), while
// a designation is valid; nobody who is disabled or suspended. It reads what is
// on the disk: ask before each piece of content that is sent, and a revocation
// acts with the next piece.
func (s *Store) MayOpen(account ID, kind Scope) (may bool, err error) {
	now := time.Now()
	err = s.central.view(func(tx *bbolt.Tx) error {
		a, err := readAccount(tx, account)
		if errors.Is(err, ErrNotFound) || err == nil && (a.Disabled || a.Suspended) {
			return nil
		}
		if err != nil {
			return err
		}
		if a.Has(RoleAdministrator, RoleHead) {
			may = true
			return nil
		}
		if !a.Has(RoleDesignated, RoleDirector) {
			return nil
		}
		list, err := readDesignations(tx)
		may = slices.ContainsFunc(list, func(d Designation) bool {
			return d.Account == account && d.ValidAt(now) && (d.Scope == ScopeBoth || d.Scope == kind)
		})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("may account %v open content: %w", account, err)
	}
	return may, nil
}
