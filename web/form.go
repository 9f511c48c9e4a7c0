package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"centralka/ordinance"
	"centralka/store"
)

// Form is what was filled in, and what is wrong with it. A page with a form shows
// the faults first, with links to their fields, and keeps the values.
type Form struct {
	values url.Values
	Faults []fieldFault
}

type fieldFault struct {
	Field string
	Key   string // of the sentence
}

// readForm reads the fields that were posted.
func (x *exchange) readForm() (*Form, error) {
	if err := x.r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		}
		return nil, refusal{status: http.StatusBadRequest}
	}
	return &Form{values: x.r.PostForm}, nil
}

// emptyForm holds values that are there before anything is filled in: pairs of
// name and value.
func emptyForm(pairs ...string) *Form {
	f := &Form{values: url.Values{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.values.Add(pairs[i], pairs[i+1])
	}
	return f
}

// Get returns a field without surrounding space.
func (f *Form) Get(name string) string { return strings.TrimSpace(f.values.Get(name)) }

// Has tells whether a field, such as a box of several, has a value.
func (f *Form) Has(name, value string) bool {
	for _, v := range f.values[name] {
		if v == value {
			return true
		}
	}
	return false
}

// day reads a field of a day; an empty one is fallback.
func (f *Form) day(name string, fallback ordinance.Day) ordinance.Day {
	text := f.Get(name)
	if text == "" {
		return fallback
	}
	day, err := ordinance.ParseDay(text)
	if err != nil {
		f.fault(name, "fault.not_a_day")
		return fallback
	}
	return day
}

// Fault returns the key of what is wrong with a field.
func (f *Form) Fault(name string) string {
	for _, e := range f.Faults {
		if e.Field == name {
			return e.Key
		}
	}
	return ""
}

func (f *Form) fault(field, key string) { f.Faults = append(f.Faults, fieldFault{field, key}) }

// took tells whether err is about what was filled in; then it is among the
// faults.
func (f *Form) took(err error) bool {
	var fault store.Fault
	if errors.As(err, &fault) {
		f.fault(fault.Field, "fault."+fault.Code)
		return true
	}
	return false
}

// input is a field as the template draws it.
type input struct {
	Name, Type, Value, Fault, Hint string
	Complete                       string // autocomplete
}

// newInput is for templates: the field of a form, its type, what it is for to a
// password store, and the key of a hint.
func newInput(f *Form, name, kind, complete, hint string) input {
	in := input{Name: name, Type: kind, Fault: f.Fault(name), Hint: hint, Complete: complete}
	if kind != "password" {
		in.Value = f.Get(name)
	}
	return in
}
