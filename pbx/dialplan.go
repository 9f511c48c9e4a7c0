package pbx

import (
	"fmt"
	"strings"

	"centralka/ordinance"
)

// DialRules is the [dial] section of the configuration.
type DialRules struct {
	// OutsidePrefix is dialled in front of numbers outside; "" = none.
	OutsidePrefix string
	// Emergency numbers reach the trunk before every rule.
	Emergency []string
	// Allow are prefixes of numbers that may be called, in international form
	// ("+48"). Nothing else may.
	Allow []string
	// Block are prefixes that may not, whatever Allow says.
	Block []string
}

// DialPlan says where a number leads that was dialled on one of our phones. It
// does not change after newDialPlan and is safe for concurrent use.
type DialPlan struct {
	prefix       string
	emergency    map[string]string // as dialled -> number
	trunkPrefix  map[string]string // with the habitual 0 in front
	allow, block []string
}

// routeKind says what a dialled number is.
type routeKind uint8

const (
	routeNotFound  routeKind = iota // 404
	routeEmergency                  // to the trunk, never limited nor blocked
	routeExtension                  // an extension
	routeQueue                      // a queue
	routeOutside                    // to the trunk
	routeForbidden                  // 403
)

// route is where a dialled number leads.
type route struct {
	kind   routeKind
	ext    string           // routeExtension
	queue  string           // routeQueue: its name
	number ordinance.Number // routeEmergency: the short number; routeOutside and routeForbidden: E.164 or a short number
}

// newDialPlan checks the rules; an error names the key.
func newDialPlan(r DialRules) (*DialPlan, error) {
	if !isDigits(r.OutsidePrefix) && r.OutsidePrefix != "" {
		return nil, fmt.Errorf("dial.outside_prefix: %q is not digits", r.OutsidePrefix)
	}
	p := &DialPlan{prefix: r.OutsidePrefix, emergency: make(map[string]string), trunkPrefix: make(map[string]string)}
	for _, n := range r.Emergency {
		if !isDigits(n) || len(n) > 6 {
			return nil, fmt.Errorf("dial.emergency: %q is not a short number", n)
		}
		p.emergency[n] = n
	}
	for _, n := range r.Emergency {
		// A number with the prefix must not hide one without: with the prefix 9
		// and the numbers 97 and 997, 997 is 997.
		if d := r.OutsidePrefix + n; p.emergency[d] == "" {
			p.emergency[d] = n
		}
		p.trunkPrefix["0"+n] = n
	}
	for _, list := range []struct {
		key      string
		from, to *[]string
	}{{"dial.allow", &r.Allow, &p.allow}, {"dial.block", &r.Block, &p.block}} {
		for _, v := range *list.from {
			if !strings.HasPrefix(v, "+") || !isDigits(v[1:]) {
				return nil, fmt.Errorf("%s: %q is not a prefix in international form, like +48", list.key, v)
			}
			*list.to = append(*list.to, v)
		}
	}
	return p, nil
}

// resolve finds the route of what was dialled: the user part of the Request-URI
// or the number of a tel: URI, escapes resolved. In this order:
//
//  1. An emergency number, exactly, with or without the outside prefix. No rule,
//     no extension of the same digits and no limit stands before it.
//  2. An extension, or another number of the office.
//  3. An emergency number with a 0 in front, which decades of office telephones
//     taught people to dial, even if our prefix is another.
//  4. With the outside prefix, or with +: a number outside, allowed or not.
//
// If the prefix is 0, an international number dialled without it ("0044…") is
// taken too, where taking the 0 away gives no number.
func (p *DialPlan) resolve(dialled string, isExtension func(string) bool) route {
	d, _, _ := strings.Cut(dialled, ";") // parameters of the user part
	d = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" .-()/\u00a0", r) {
			return -1
		}
		return r
	}, d)
	if n, ok := p.emergencyNumber(d); ok {
		return route{kind: routeEmergency, number: n}
	}
	if isExtension(d) {
		return route{kind: routeExtension, ext: d}
	}
	if n := p.trunkPrefix[d]; n != "" {
		return route{kind: routeEmergency, number: ordinance.Number(n)}
	}
	n, ok := p.outside(d)
	if !ok {
		return route{}
	}
	if !p.permitted(n) {
		return route{kind: routeForbidden, number: n}
	}
	return route{kind: routeOutside, number: n}
}

// routeOf is where a number leads that a phone dials or passes somebody on to.
func (s *Switch) routeOf(dialled string) route {
	live := s.config()
	r := live.plan.resolve(dialled, func(n string) bool { return s.isExtension(n) || live.queueNumbers[n] != "" })
	if r.kind == routeExtension && live.queueNumbers[r.ext] != "" {
		return route{kind: routeQueue, queue: live.queueNumbers[r.ext]}
	}
	return r
}

// emergencyNumber also knows "+48112" and "0048112": phones that put every
// number into international form do not spare this one.
func (p *DialPlan) emergencyNumber(d string) (ordinance.Number, bool) {
	for _, form := range []string{d, strings.TrimPrefix(d, "+48"), strings.TrimPrefix(d, "0048")} {
		if n := p.emergency[form]; n != "" {
			return ordinance.Number(n), true
		}
	}
	return "", false
}

// outside takes the prefix off and reads the number.
func (p *DialPlan) outside(d string) (ordinance.Number, bool) {
	if strings.HasPrefix(d, "+") {
		return usableNumber(d)
	}
	rest, ok := strings.CutPrefix(d, p.prefix)
	if !ok || !isDigits(d) {
		return "", false
	}
	if n, ok := usableNumber(rest); ok {
		return n, true
	}
	if p.prefix == "0" && strings.HasPrefix(d, "00") {
		return usableNumber(d)
	}
	return "", false
}

// permitted applies block and allow; a short number counts as Polish.
func (p *DialPlan) permitted(n ordinance.Number) bool {
	full := n.E164()
	if !strings.HasPrefix(full, "+") {
		full = "+48" + full
	}
	has := func(list []string) bool {
		for _, prefix := range list {
			if strings.HasPrefix(full, prefix) {
				return true
			}
		}
		return false
	}
	return !has(p.block) && has(p.allow)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
