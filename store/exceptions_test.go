package store

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestExceptionsSurviveRestart: closures and overrides hold at once and after a
// restart, each change describes itself, and taking out works.
func TestExceptionsSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(time.Hour).Round(time.Second)
	closed, err := s.AddClosure(Closure{Hours: "cim", From: from, Until: from.Add(time.Hour), By: " anna ", Reason: "szkolenie"})
	if err != nil {
		t.Fatal(err)
	}
	if closed.Action != "closure.add" || closed.By != "anna" || closed.Reason != "szkolenie" || !strings.Contains(closed.Text, "„cim”") {
		t.Errorf("change %+v", closed)
	}
	if _, err := s.AddClosure(Closure{From: from.Add(-30 * time.Minute), Until: from, By: "anna", Reason: "awaria"}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Override{
		{Open: true, From: from, Until: from.Add(time.Hour), By: "jan", Reason: "dyżur"},
		{Open: false, From: from, Until: from.Add(2 * time.Hour), By: "jan", Reason: "dyżur odwołany"},
		{Hours: "cim", Open: true, From: from, Until: from.Add(time.Hour), By: "jan", Reason: "x"},
	} {
		if _, err := s.SetOverride(o); err != nil {
			t.Fatal(err)
		}
	}
	check := func(s *Store) {
		t.Helper()
		e := s.Exceptions()
		if len(e.Closures) != 2 || e.Closures[0].Hours != "" || e.Closures[1].Hours != "cim" || !e.Closures[1].From.Equal(from) {
			t.Fatalf("closures %+v", e.Closures)
		}
		if len(e.Overrides) != 2 || e.Overrides[0].Hours != "" || e.Overrides[0].Open || e.Overrides[1].Hours != "cim" {
			t.Fatalf("overrides %+v", e.Overrides)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check(s)
	id, err := ParseID(closed.Object)
	if err != nil {
		t.Fatal(err)
	}
	if ch, err := s.RemoveClosure(id, "anna", "pomyłka"); err != nil || ch.Action != "closure.remove" || !strings.Contains(ch.Text, "„cim”") {
		t.Errorf("remove: %+v, %v", ch, err)
	}
	if ch, err := s.ClearOverride("", "jan", "po awarii"); err != nil || ch.Object != ":" {
		t.Errorf("clear: %+v, %v", ch, err)
	}
	if e := s.Exceptions(); len(e.Closures) != 1 || len(e.Overrides) != 1 || e.Overrides[0].Hours != "cim" {
		t.Errorf("left over: %+v", e)
	}
	if _, err := s.RemoveClosure(id, "anna", "jeszcze raz"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a closure that is gone is removed: %v", err)
	}
	if _, err := s.ClearOverride("", "jan", "jeszcze raz"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an override that is gone is cleared: %v", err)
	}
}

func TestExceptionsRefused(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	for want, c := range map[string]Closure{
		"lacks a beginning": {Until: now.Add(time.Hour), By: "a", Reason: "b"},
		"not after":         {From: now.Add(time.Hour), Until: now.Add(time.Hour), By: "a", Reason: "b"},
		"was over":          {From: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour), By: "a", Reason: "b"},
		"who does it":       {From: now, Until: now.Add(time.Hour), By: " ", Reason: "b"},
		"lacks a reason":    {From: now, Until: now.Add(time.Hour), By: "a", Reason: "\n"},
		"longer than":       {From: now, Until: now.Add(time.Hour), By: "a", Reason: strings.Repeat("x", 501)},
	} {
		if _, err := s.AddClosure(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("closure %+v: %v, want %q", c, err, want)
		}
		if _, err := s.SetOverride(Override{From: c.From, Until: c.Until, By: c.By, Reason: c.Reason}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("override %+v: %v, want %q", c, err, want)
		}
	}
	if e := s.Exceptions(); len(e.Closures)+len(e.Overrides) > 0 {
		t.Errorf("refused, and kept: %+v", e)
	}
}

// TestExceptionsConcurrently: what Exceptions says after the last change is what
// the disk says.
func TestExceptionsConcurrently(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := s.AddClosure(Closure{From: time.Now(), Until: time.Now().Add(time.Hour), By: "a", Reason: "b"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Exceptions().Closures); n != 40 {
		t.Errorf("%d closures, want 40", n)
	}
}

func TestUnits(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	put := func(u Unit) Unit {
		t.Helper()
		u, ch, err := s.PutUnit(u, "anna", "zarządzenie")
		if err != nil {
			t.Fatal(err)
		}
		if ch.Object != u.ID.String() || !strings.Contains(ch.Text, u.Name) {
			t.Errorf("change %+v", ch)
		}
		return u
	}
	b := put(Unit{Name: "Wydział Spraw Obywatelskich", Active: true})
	a := put(Unit{Name: " Biuro Architekta Miasta ", Active: true})
	for _, wrong := range []Unit{{Name: ""}, {Name: "biuro obsługi interesantów", Active: true}, {ID: NewID(), Name: "Nowy"}, {Name: strings.Repeat("x", 201)}} {
		if _, _, err := s.PutUnit(wrong, "anna", "x"); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	if _, _, err := s.PutUnit(Unit{Name: "X"}, "", "x"); err == nil {
		t.Error("a change by nobody is taken")
	}
	b.Active = false
	put(b)
	c := put(Unit{Name: "Wydział Spraw Obywatelskich", Active: true}) // the old one is no more
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	units, err := s.Units()
	if err != nil || len(units) != 3+len(foundingUnits) || units[0] != a || units[0].Name != "Biuro Architekta Miasta" {
		t.Errorf("units %+v, %v", units, err)
	}
	if u, err := s.Unit(b.ID); err != nil || u != b {
		t.Errorf("unit %+v, %v", u, err)
	}
	if _, err := s.RemoveUnit(c.ID, "anna", "pomyłka"); err != nil {
		t.Error(err)
	}
	for _, u := range foundingUnits {
		if _, err := s.RemoveUnit(u.ID, "anna", "pomyłka"); err == nil {
			t.Errorf("%s, which the ordinance names, can be removed", u.Name)
		}
	}
	for action, want := range map[Action]int{ActionUnitChanged: 4, ActionUnitRemoved: 1} {
		n := 0
		for _, err := range s.AuditLog(AuditFilter{Action: action}) {
			must(t, err)
			n++
		}
		if n != want {
			t.Errorf("%d entries %s in the audit log, want %d", n, action, want)
		}
	}
	if _, err := s.Unit(c.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed unit: %v", err)
	}
}
