package main

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// tomlFile is a parsed file that knows on which line each key stands. The
// library parses; the values are put into structs here, so that every mistake
// is found at once and with its line, also in one of several [[sections]], and
// so that nothing is converted silently (a bare 60 is not 60 nanoseconds).
type tomlFile struct {
	name   string
	secret bool // values are passwords and are not repeated in errors
	tree   map[string]any
	lines  map[string]int // by key as Mistake names it: trunk[0].from
	err    *fault         // it is not TOML
}

func parseTOML(name, text string) *tomlFile {
	f := &tomlFile{name: name}
	if _, err := toml.Decode(text, &f.tree); err != nil {
		f.err = &fault{file: name, text: err.Error()}
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
			f.err.line, f.err.key, f.err.text = pe.Position.Line, pe.LastKey, pe.Message
		}
		return f
	}
	f.lines = keyLines(text)
	return f
}

// line returns the line of a key, or of the nearest one above it; 0 if there is
// none.
func (f *tomlFile) line(key string) int {
	for key != "" {
		if n, ok := f.lines[key]; ok {
			return n
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}

// decode puts the file's values over what the struct that dst points to holds.
func (f *tomlFile) decode(dst any) []fault {
	if f.err != nil {
		return []fault{*f.err}
	}
	d := decoder{tomlFile: f, defaults: elementDefaults()}
	d.table("", f.tree, reflect.ValueOf(dst).Elem())
	return d.faults
}

type decoder struct {
	*tomlFile
	defaults map[reflect.Type]reflect.Value
	faults   []fault
}

func (d *decoder) bad(key, format string, args ...any) {
	d.faults = append(d.faults, fault{d.name, d.line(key), key, fmt.Sprintf(format, args...)})
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// table decodes a TOML table into a struct.
func (d *decoder) table(key string, tree map[string]any, rv reflect.Value) {
	fields := map[string]reflect.Value{}
	var known []string
	for i := range rv.NumField() {
		if name := rv.Type().Field(i).Tag.Get("toml"); name != "" {
			fields[name] = rv.Field(i)
			known = append(known, name)
		}
	}
	for name, v := range tree {
		if field, ok := fields[name]; ok {
			d.value(join(key, name), v, field)
			continue
		}
		hint := "known here: " + strings.Join(known, ", ")
		if near := nearest(name, known); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		d.bad(join(key, name), "unknown key; %s", hint)
	}
}

// value decodes one value.
func (d *decoder) value(key string, v any, rv reflect.Value) {
	if u, ok := rv.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := v.(string); !ok {
			d.mismatch(key, "a string", v)
		} else if err := u.UnmarshalText([]byte(s)); err != nil {
			d.bad(key, "%v", err)
		}
		return
	}
	if rv.Type() == reflect.TypeFor[time.Duration]() {
		s, ok := v.(string)
		dur, err := time.ParseDuration(s)
		switch {
		case !ok:
			d.mismatch(key, `a duration in quotes, such as "30s"`, v)
		case err != nil:
			d.bad(key, `%q is not a duration such as "30s", "15m" or "1h30m"`, s)
		default:
			rv.SetInt(int64(dur))
		}
		return
	}
	switch rv.Kind() {
	case reflect.String:
		if s, ok := v.(string); ok {
			rv.SetString(s)
		} else {
			d.mismatch(key, "a string in quotes", v)
		}
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			rv.SetBool(b)
		} else {
			d.mismatch(key, "true or false", v)
		}
	case reflect.Int:
		if n, ok := v.(int64); ok {
			rv.SetInt(n)
		} else {
			d.mismatch(key, "a whole number", v)
		}
	case reflect.Slice:
		d.slice(key, v, rv)
	case reflect.Map:
		d.passwords(key, v, rv)
	case reflect.Struct:
		if tree, ok := v.(map[string]any); ok {
			d.table(key, tree, rv)
		} else {
			d.mismatch(key, "a section ["+key+"]", v)
		}
	default:
		panic("a configuration struct has a field of type " + rv.Type().String())
	}
}

func (d *decoder) slice(key string, v any, rv reflect.Value) {
	var list []any
	elem := rv.Type().Elem()
	switch v := v.(type) {
	case []any:
		list = v
	case []map[string]any:
		for _, tree := range v {
			list = append(list, tree)
		}
	default:
		if elem.Kind() == reflect.Struct && d.defaultOf(elem).IsValid() {
			d.mismatch(key, "one section [["+key+"]] for each", v)
		} else {
			d.mismatch(key, "a list in brackets", v)
		}
		return
	}
	rv.Set(reflect.MakeSlice(rv.Type(), len(list), len(list)))
	for i, e := range list {
		if def := d.defaultOf(elem); def.IsValid() {
			rv.Index(i).Set(def)
		}
		d.value(key+"["+strconv.Itoa(i)+"]", e, rv.Index(i))
	}
}

// defaultOf returns the default of an element that is a section, or the zero
// Value.
func (d *decoder) defaultOf(elem reflect.Type) reflect.Value {
	if def, ok := d.defaults[elem]; ok {
		return def
	}
	if _, text := reflect.New(elem).Interface().(encoding.TextUnmarshaler); elem.Kind() == reflect.Struct && !text {
		return reflect.Zero(elem)
	}
	return reflect.Value{}
}

// passwords decodes a table of any keys.
func (d *decoder) passwords(key string, v any, rv reflect.Value) {
	tree, ok := v.(map[string]any)
	if !ok {
		d.mismatch(key, "a section ["+key+"]", v)
		return
	}
	m := map[string]string{}
	for name, v := range tree {
		if s, ok := v.(string); ok {
			m[name] = s
		} else {
			d.mismatch(join(key, name), "a string in quotes", v)
		}
	}
	rv.Set(reflect.ValueOf(m))
}

func (d *decoder) mismatch(key, want string, v any) {
	got := ""
	switch v.(type) {
	case string:
		got = "a string"
	case int64:
		got = "a number"
	case float64:
		got = "a fraction"
	case bool:
		got = "true or false"
	case []any:
		got = "a list"
	case map[string]any, []map[string]any:
		got = "a section"
	default:
		got = "a date"
	}
	if shown := fmt.Sprint(v); !d.secret && len(shown) < 30 && !strings.HasPrefix(got, "a section") {
		got += " (" + shown + ")"
	}
	d.bad(key, "must be %s, not %s", want, got)
}

// nearest returns the known name that is at most two edits away, or "".
func nearest(name string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if n := edits(name, k); n < at && n < len(k) {
			best, at = k, n
		}
	}
	return best
}

// edits counts the letters to insert, delete or replace (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
