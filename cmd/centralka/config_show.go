package main

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// writeConfig writes cfg as a file that reads back as the same. Sections and
// keys come in the order of the structs. note gives the comment lines of a key
// of a section's type, in the example; nil is none.
func writeConfig(w io.Writer, cfg Config, note func(section reflect.Type, field reflect.StructField, value string) []string) error {
	p := printer{w: w, note: note}
	rv := reflect.ValueOf(cfg)
	for i := range rv.NumField() {
		field := rv.Type().Field(i)
		name := field.Tag.Get("toml")
		switch {
		case name == "":
		case field.Type.Kind() == reflect.Slice:
			for j := range rv.Field(i).Len() {
				p.section(rv.Type(), field, "[["+name+"]]", rv.Field(i).Index(j), j == 0)
			}
		default:
			p.section(rv.Type(), field, "["+name+"]", rv.Field(i), true)
		}
	}
	return p.err
}

type printer struct {
	w    io.Writer
	note func(section reflect.Type, field reflect.StructField, value string) []string
	some bool
	err  error // of the first write that failed
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) section(parent reflect.Type, of reflect.StructField, header string, rv reflect.Value, noted bool) {
	if p.some {
		p.line("")
	}
	p.some = true
	noted = noted && p.note != nil
	if noted {
		for _, l := range p.note(parent, of, "") {
			p.line("# %s", l)
		}
	}
	p.line("%s", header)
	for i := range rv.NumField() {
		field := rv.Type().Field(i)
		name := field.Tag.Get("toml")
		if name == "" {
			continue
		}
		value := tomlValue(rv.Field(i))
		if noted {
			for _, l := range p.note(rv.Type(), field, value) {
				p.line("# %s", l)
			}
		}
		p.line("%s = %s", name, value)
	}
}

// tomlValue writes a value as TOML.
func tomlValue(rv reflect.Value) string {
	switch v := rv.Interface().(type) {
	case time.Duration:
		return tomlString(shortDuration(v))
	case encoding.TextMarshaler:
		b, err := v.MarshalText()
		if err != nil {
			return tomlString(err.Error())
		}
		return tomlString(string(b))
	case string:
		return tomlString(v)
	}
	if rv.Kind() != reflect.Slice {
		return fmt.Sprint(rv.Interface())
	}
	list := make([]string, rv.Len())
	for i := range list {
		list[i] = tomlValue(rv.Index(i))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// tomlString writes a basic string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// shortDuration writes "15m" where time.Duration writes "15m0s".
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// writeSecrets tells which passwords there are, and nothing of them.
func writeSecrets(w io.Writer, cfg Config) error {
	count := func(names map[string]string) string {
		list := make([]string, 0, len(names))
		for name := range names {
			list = append(list, name)
		}
		slices.Sort(list)
		if len(list) == 0 {
			return "none"
		}
		return strconv.Itoa(len(list)) + " (" + strings.Join(list, ", ") + "), not shown"
	}
	_, err := fmt.Fprintf(w, "# passwords of extensions: %s\n# passwords of trunks: %s\n", count(cfg.passwords.Extensions), count(cfg.passwords.Trunks))
	return err
}
