package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"
)

// Unit is an organisational unit of the office, such as calls are tagged with.
// People and units are the database's. A unit that is no longer there becomes
// inactive and keeps its line: old calls name it.
type Unit struct {
	ID     ID
	Name   string
	Active bool
}

// PutUnit stores a unit: a new one, which gets an ID, if u.ID is zero. A name
// that another active unit has is refused.
func (s *Store) PutUnit(u Unit, by, reason string) (Unit, Change, error) {
	u.Name = strings.TrimSpace(u.Name)
	fresh := u.ID.IsZero()
	if fresh {
		u.ID = NewID()
	}
	ch := Change{Action: "unit.put", Object: u.ID.String(), By: by, Reason: reason, At: utc(time.Now())}
	err := checkActor(&ch.By, &ch.Reason)
	switch {
	case err != nil:
	case u.Name == "" || !utf8.ValidString(u.Name) || len(u.Name) > 200:
		err = fmt.Errorf("%q is not a name of 1 to 200 bytes", u.Name)
	default:
		err = s.central.update(func(tx *bbolt.Tx) error {
			units, err := readUnits(tx)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(units, func(o Unit) bool { return o.ID == u.ID })
			if at < 0 && !fresh {
				return ErrNotFound
			}
			if u.Active && slices.ContainsFunc(units, func(o Unit) bool {
				return o.ID != u.ID && o.Active && strings.EqualFold(o.Name, u.Name)
			}) {
				return Fault{"name", "taken"}
			}
			state := map[bool]string{true: "czynna", false: "nieczynna"}
			ch.Text = fmt.Sprintf("jednostka „%s” (%s)", u.Name, state[u.Active])
			if at >= 0 {
				ch.Text += fmt.Sprintf(", przedtem „%s” (%s)", units[at].Name, state[units[at].Active])
			}
			return errors.Join(putJSON(tx.Bucket(bucketUnits), u.ID[:], u), appendAudit(tx, ch.audit(ActionUnitChanged, ObjectOf(ObjectUnit, u.ID))))
		})
	}
	if err != nil {
		return Unit{}, Change{}, fmt.Errorf("put unit: %w", err)
	}
	return u, ch, nil
}

// Units lists the units by name, inactive ones too.
func (s *Store) Units() (units []Unit, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		units, err = readUnits(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read units: %w", err)
	}
	return units, nil
}

// Unit returns one.
func (s *Store) Unit(id ID) (u Unit, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		text := tx.Bucket(bucketUnits).Get(id[:])
		if text == nil {
			return ErrNotFound
		}
		return getJSON(text, &u)
	})
	if err != nil {
		return Unit{}, fmt.Errorf("unit %v: %w", id, err)
	}
	return u, nil
}

// RemoveUnit takes a unit out that was entered by mistake; one that calls are
// tagged with is better made inactive.
func (s *Store) RemoveUnit(id ID, by, reason string) (Change, error) {
	ch := Change{Action: "unit.remove", Object: id.String(), By: by, Reason: reason, At: utc(time.Now())}
	err := checkActor(&ch.By, &ch.Reason)
	if err == nil {
		err = s.central.update(func(tx *bbolt.Tx) error {
			text := tx.Bucket(bucketUnits).Get(id[:])
			if text == nil {
				return ErrNotFound
			}
			var u Unit
			if err := getJSON(text, &u); err != nil {
				return err
			}
			if slices.ContainsFunc(foundingUnits, func(o Unit) bool { return o.ID == id }) {
				return Fault{"unit", "named_by_the_ordinance"}
			}
			ch.Text = fmt.Sprintf("usunięcie jednostki „%s”", u.Name)
			return errors.Join(tx.Bucket(bucketUnits).Delete(id[:]), appendAudit(tx, ch.audit(ActionUnitRemoved, ObjectOf(ObjectUnit, id))))
		})
	}
	if err != nil {
		return Change{}, fmt.Errorf("remove unit %v: %w", id, err)
	}
	return ch, nil
}

func readUnits(tx *bbolt.Tx) (units []Unit, err error) {
	err = tx.Bucket(bucketUnits).ForEach(func(k, v []byte) error {
		if len(k) != len(ID{}) {
			return errors.New("a key is no id")
		}
		var u Unit
		if err := getJSON(v, &u); err != nil {
			return fmt.Errorf("unit %x: %w", k, err)
		}
		units = append(units, u)
		return nil
	})
	slices.SortFunc(units, func(a, b Unit) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return units, err
}
