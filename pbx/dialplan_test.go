package pbx

import (
	"strings"
	"testing"

	"centralka/ordinance"
)

func dialRules(prefix string) DialRules {
	return DialRules{OutsidePrefix: prefix, Emergency: []string{"112", "997", "998", "999"},
		Allow: []string{"+48", "+49"}, Block: []string{"+4870", "+4830", "+4840"}}
}

func TestDialPlan(t *testing.T) {
	extensions := map[string]bool{"101": true, "112": true, "1120": true, "0997": true, "9112": true}
	isExtension := func(s string) bool { return extensions[s] }
	em := func(n string) route { return route{kind: routeEmergency, number: ordinance.Number(n)} }
	out := func(n string) route { return route{kind: routeOutside, number: ordinance.Number(n)} }
	no := func(n string) route { return route{kind: routeForbidden, number: ordinance.Number(n)} }
	ext := func(n string) route { return route{kind: routeExtension, ext: n} }
	for _, tt := range []struct {
		prefix, dialled string
		want            route
	}{
		// A rule turned 911 into 11 (pocket-dial#241): prefixes never eat an
		// emergency number, extensions never hide one.
		{"9", "112", em("112")},
		{"9", "9112", em("112")},
		{"9", "0112", em("112")},
		{"9", "997", em("997")},
		{"9", "9997", em("997")},
		{"9", "998", em("998")},
		{"9", "1120", ext("1120")},
		{"9", "91120", out("1120")},
		{"9", "97", route{}}, // the prefix and one digit: no number
		{"0", "112", em("112")},
		{"0", "0112", em("112")},
		{"0", "0999", em("999")},
		{"0", "0997", em("997")}, // although an extension has these digits: prefix and 997
		{"9", "0997", ext("0997")},
		{"", "112", em("112")},
		{"", "0112", em("112")},
		{"", "1120", ext("1120")},
		{"", "1121", out("1121")},
		{"0", "1121", route{}},
		{"0", "+48112", em("112")},
		{"0", "0048112", em("112")},
		{"0", "1-1-2", em("112")},
		{"0", "112;phone-context=x", em("112")},

		{"0", "101", ext("101")},
		{"0", "102", route{}},
		{"0", "0914245000", out("+48914245000")},
		{"0", "091 424-50-00", out("+48914245000")},
		{"0", "914245000", route{}},
		{"", "914245000", out("+48914245000")},
		{"9", "9914245000", out("+48914245000")},
		{"0", "+48914245000", out("+48914245000")},
		{"0", "00048914245000", out("+48914245000")},
		{"0", "00049301234567", out("+49301234567")},
		{"0", "004930123456789", out("+4930123456789")},
		{"9", "90049301234567", out("+49301234567")},
		{"0", "019115", out("19115")},
		{"0", "0116111", out("116111")},

		{"0", "0701234567", no("+48701234567")},
		{"0", "+48301234567", no("+48301234567")},
		{"0", "00048401234567", no("+48401234567")},
		{"0", "070123", no("70123")},
		{"0", "00044207946000", no("+44207946000")},
		{"0", "+1900555123", no("+1900555123")},

		{"0", "", route{}},
		{"0", "0", route{}},
		{"0", "00", route{}},
		{"0", "jan", route{}},
		{"0", "0914245000x", route{}},
		{"0", "*8", route{}},
		{"0", "+", route{}},
		{"0", "++48914245000", route{}},
		{"0", strings.Repeat("0", 100), route{}},
	} {
		p, err := newDialPlan(dialRules(tt.prefix))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.resolve(tt.dialled, isExtension); got != tt.want {
			t.Errorf("prefix %q, dialled %q: %+v (%s), want %+v (%s)", tt.prefix, tt.dialled, got, got.number.E164(), tt.want, tt.want.number.E164())
		}
	}
}

// TestEmergencyBeforeEveryRule: with any prefix, any block, any extension.
func TestEmergencyBeforeEveryRule(t *testing.T) {
	for _, prefix := range []string{"", "0", "1", "9", "00", "11", "99", "112"} {
		r := dialRules(prefix)
		r.Allow, r.Block = nil, []string{"+48", "+481", "+489", "+48112"}
		p, err := newDialPlan(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range r.Emergency {
			for _, dialled := range []string{n, prefix + n} {
				got := p.resolve(dialled, func(string) bool { return true })
				if got.kind != routeEmergency || got.number.E164() != n {
					t.Errorf("prefix %q, dialled %q: %+v", prefix, dialled, got)
				}
			}
		}
	}
	// The zero value forbids all outside, but not that.
	p, err := newDialPlan(DialRules{Emergency: []string{"112"}})
	if err != nil {
		t.Fatal(err)
	}
	none := func(string) bool { return false }
	if got := p.resolve("112", none); got.kind != routeEmergency {
		t.Errorf("%+v", got)
	}
	if got := p.resolve("914245000", none); got.kind != routeForbidden {
		t.Errorf("%+v", got)
	}
}

func TestDialRulesChecked(t *testing.T) {
	for key, r := range map[string]DialRules{
		"dial.outside_prefix": {OutsidePrefix: "0#"},
		"dial.emergency":      {Emergency: []string{"+48112"}},
		"dial.allow":          {Allow: []string{"48"}},
		"dial.block":          {Block: []string{"+"}},
	} {
		if _, err := newDialPlan(r); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
