package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Exceptions are what departs from the weekly opening hours. The database owns
// them, people make them, and desk.Line reads them for every caller, so that
// a change holds at once.
type Exceptions struct {
	Closures  []Closure  // in the order of From
	Overrides []Override // at most one for each Hours, in their order
}

// Closure is a time in which lines are closed though their week says open. It
// holds no citizen's name or number; neither does its Reason.
type Closure struct {
	ID ID
	// Hours is the name of the [[hours]] that are closed; "" is every queue, also
	// one without hours.
	Hours       string `json:",omitempty"`
	From, Until time.Time
	Reason      string
	By          string // who entered it: an account
	At          time.Time
}

// Override opens or closes lines by hand for a while, whatever closures,
// holidays and week say. There is one for each Hours; that of a name goes
// before that of every queue ("").
type Override struct {
	Hours       string `json:",omitempty"`
	Open        bool
	From, Until time.Time
	Reason      string
	By          string
	At          time.Time
}

// Change describes what somebody has changed in the long-lived database, in
// words that an audit log can keep as they are: Action and Object are fixed
// identifiers, Text is Polish.
type Change struct {
	Action string // "closure.add", "closure.remove", "override.set", "override.clear", "unit.put", "unit.remove"
	Object string // id of the closure, name of the hours (":" is every queue), id of the unit
	By     string
	Reason string
	At     time.Time
	Text   string
}

// audit makes the event that the log keeps of it, without its texts: By is the
// actor if it is an account's id.
func (ch Change) audit(action Action, object AuditObject, details ...AuditDetail) AuditEvent {
	e := AuditEvent{Action: action, Object: object, Outcome: Allowed, Details: details}
	if id, err := ParseID(ch.By); err == nil {
		e.Actor = id
	}
	return e
}

func span(from, until time.Time) []AuditDetail {
	return []AuditDetail{DetailTime("from", from), DetailTime("until", until)}
}

// maxExceptionText bounds reason and account.
const maxExceptionText = 500

// AddClosure enters a closure; its ID and At are set here. A closure that is
// over already is refused.
func (s *Store) AddClosure(c Closure) (Change, error) {
	c.ID, c.At, c.From, c.Until = NewID(), utc(time.Now()), utc(c.From), utc(c.Until)
	if err := checkException(c.From, c.Until, &c.By, &c.Reason); err != nil {
		return Change{}, fmt.Errorf("add closure: %w", err)
	}
	ch := Change{
		Action: "closure.add", Object: c.ID.String(), By: c.By, Reason: c.Reason, At: c.At,
		Text: fmt.Sprintf("zamknięcie: %s, %s", lineName(c.Hours), timeSpan(c.From, c.Until)),
	}
	err := s.changeExceptions(func(tx *bbolt.Tx) error {
		return errors.Join(putJSON(tx.Bucket(bucketClosures), c.ID[:], c), appendAudit(tx, ch.audit(ActionClosureAdded, ObjectOf(ObjectClosure, c.ID), span(c.From, c.Until)...)))
	})
	if err != nil {
		return Change{}, fmt.Errorf("add closure: %w", err)
	}
	return ch, nil
}

// RemoveClosure takes a closure out; by and reason say who does, and why. An id
// that is not there is an ErrNotFound.
func (s *Store) RemoveClosure(id ID, by, reason string) (Change, error) {
	ch := Change{Action: "closure.remove", Object: id.String(), By: by, Reason: reason, At: utc(time.Now())}
	err := checkActor(&ch.By, &ch.Reason)
	if err == nil {
		err = s.changeExceptions(func(tx *bbolt.Tx) error {
			var c Closure
			text := tx.Bucket(bucketClosures).Get(id[:])
			if text == nil {
				return ErrNotFound
			}
			if err := getJSON(text, &c); err != nil {
				return err
			}
			ch.Text = fmt.Sprintf("usunięcie zamknięcia: %s, %s", lineName(c.Hours), timeSpan(c.From, c.Until))
			return errors.Join(tx.Bucket(bucketClosures).Delete(id[:]), appendAudit(tx, ch.audit(ActionClosureRemoved, ObjectOf(ObjectClosure, id), span(c.From, c.Until)...)))
		})
	}
	if err != nil {
		return Change{}, fmt.Errorf("remove closure %v: %w", id, err)
	}
	return ch, nil
}

// SetOverride opens or closes o.Hours from o.From until o.Until, in place of the
// override that it had; At is set here.
func (s *Store) SetOverride(o Override) (Change, error) {
	o.At, o.From, o.Until = utc(time.Now()), utc(o.From), utc(o.Until)
	if err := checkException(o.From, o.Until, &o.By, &o.Reason); err != nil {
		return Change{}, fmt.Errorf("set override of hours %q: %w", o.Hours, err)
	}
	what := "zamknięcie ręczne"
	if o.Open {
		what = "otwarcie ręczne"
	}
	ch := Change{
		Action: "override.set", Object: overrideKey(o.Hours), By: o.By, Reason: o.Reason, At: o.At,
		Text: fmt.Sprintf("%s: %s, %s", what, lineName(o.Hours), timeSpan(o.From, o.Until)),
	}
	err := s.changeExceptions(func(tx *bbolt.Tx) error {
		action := ActionOverrideClosed
		if o.Open {
			action = ActionOverrideOpened
		}
		return errors.Join(putJSON(tx.Bucket(bucketOverrides), []byte(ch.Object), o), appendAudit(tx, ch.audit(action, AuditObject{}, span(o.From, o.Until)...)))
	})
	if err != nil {
		return Change{}, fmt.Errorf("set override of hours %q: %w", o.Hours, err)
	}
	return ch, nil
}

// ClearOverride takes the override of hours out; without one it is an
// ErrNotFound.
func (s *Store) ClearOverride(hours, by, reason string) (Change, error) {
	ch := Change{
		Action: "override.clear", Object: overrideKey(hours), By: by, Reason: reason, At: utc(time.Now()),
		Text: "koniec sterowania ręcznego: " + lineName(hours),
	}
	err := checkActor(&ch.By, &ch.Reason)
	if err == nil {
		err = s.changeExceptions(func(tx *bbolt.Tx) error {
			if tx.Bucket(bucketOverrides).Get([]byte(ch.Object)) == nil {
				return ErrNotFound
			}
			return errors.Join(tx.Bucket(bucketOverrides).Delete([]byte(ch.Object)), appendAudit(tx, ch.audit(ActionOverrideCleared, AuditObject{})))
		})
	}
	if err != nil {
		return Change{}, fmt.Errorf("clear override of hours %q: %w", hours, err)
	}
	return ch, nil
}

// Exceptions returns closures and overrides, past ones too, without asking the
// disk. The slices are the store's: do not change them.
func (s *Store) Exceptions() Exceptions {
	if e := s.exceptions.Load(); e != nil {
		return *e
	}
	return Exceptions{}
}

// changeExceptions does do, and then has Exceptions say what the disk says.
func (s *Store) changeExceptions(do func(*bbolt.Tx) error) error {
	s.exceptionMu.Lock()
	defer s.exceptionMu.Unlock()
	if err := s.central.update(do); err != nil {
		return err
	}
	return s.loadExceptions()
}

func (s *Store) loadExceptions() error {
	var e Exceptions
	err := s.central.view(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketClosures).ForEach(func(k, v []byte) error {
			var c Closure
			if err := getJSON(v, &c); err != nil {
				return fmt.Errorf("closure %x: %w", k, err)
			}
			e.Closures = append(e.Closures, c)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketOverrides).ForEach(func(k, v []byte) error {
			var o Override
			if err := getJSON(v, &o); err != nil {
				return fmt.Errorf("override %q: %w", k, err)
			}
			e.Overrides = append(e.Overrides, o)
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read closures and overrides: %w", err)
	}
	slices.SortFunc(e.Closures, func(a, b Closure) int { return a.From.Compare(b.From) })
	slices.SortFunc(e.Overrides, func(a, b Override) int { return strings.Compare(a.Hours, b.Hours) })
	s.exceptions.Store(&e)
	return nil
}

// checkException refuses a stretch that is none, or is over, and changes
// without somebody who made them for a reason.
func checkException(from, until time.Time, by, reason *string) error {
	switch {
	case from.IsZero() || until.IsZero():
		return errors.New("it lacks a beginning or an end")
	case !until.After(from):
		return fmt.Errorf("it ends at %v, not after its beginning %v", until, from)
	case !until.After(time.Now()):
		return fmt.Errorf("it was over at %v", until)
	}
	return checkActor(by, reason)
}

func checkActor(by, reason *string) error {
	*by, *reason = strings.TrimSpace(*by), strings.TrimSpace(*reason)
	switch {
	case *by == "":
		return errors.New("it lacks who does it")
	case *reason == "":
		return errors.New("it lacks a reason")
	case len(*by) > maxExceptionText || len(*reason) > maxExceptionText:
		return fmt.Errorf("its texts are longer than %d bytes", maxExceptionText)
	}
	return nil
}

// everyLine is the key of the override of every queue: a bbolt key is not empty.
// The name of hours is one printed word without colons; it is not this one.
const everyLine = ":"

func overrideKey(hours string) string {
	if hours == "" {
		return everyLine
	}
	return hours
}

func lineName(hours string) string {
	if hours == "" {
		return "wszystkie kolejki"
	}
	return "godziny „" + hours + "”"
}

// timeSpan is in Warsaw time.
func timeSpan(from, until time.Time) string {
	const form = "2006-01-02 15:04"
	return "od " + from.In(ordinance.Warsaw).Format(form) + " do " + until.In(ordinance.Warsaw).Format(form)
}
