package ordinance

import (
	"log/slog"
	"strings"
)

// Number is a telephone number in E.164 form ("+48914245000"), or a short
// number ("112", an extension). The empty Number means that it is not known.
// It masks itself wherever it is printed or logged; E164 gives the digits, and
// so does its JSON form, in which it is stored.
type Number string

// E164 returns the digits, unmasked.
func (n Number) E164() string { return string(n) }

// String returns the number with its middle digits hidden: "+48 91 *** ** 12".
func (n Number) String() string {
	s := string(n)
	switch {
	case s == "":
		return ""
	case len(s) < 7:
		return strings.Repeat("*", len(s))
	case strings.HasPrefix(s, "+48") && len(s) == 12:
		return s[:3] + " " + s[3:5] + " *** ** " + s[10:]
	}
	return s[:3] + strings.Repeat("*", len(s)-5) + s[len(s)-2:]
}

// GoString masks the number in %#v, too.
func (n Number) GoString() string { return n.String() }

// LogValue keeps numbers out of logs.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.String()) }

// ParseNumber brings a number as people and carriers write it into one form
// (S4.2-d): spaces, hyphens, dots, parentheses and slashes are dropped; a
// leading "00" becomes "+"; nine digits are Polish, with or without "48" or the
// old trunk prefix "0" in front. Numbers of up to six digits stay as they are
// (short numbers, extensions). More than nine digits without any prefix are
// taken as international, as carriers send them.
//
// It reports false for everything else: words such as "anonymous", feature
// codes, too few or too many digits, seven or eight digits without a prefix
// (local numbers of the time before 2005, which belong to no one now).
// ParseNumber of a result is that result.
func ParseNumber(raw string) (Number, bool) {
	var b strings.Builder
	for _, r := range raw {
		switch {
		case r >= '0' && r <= '9', r == '+' && b.Len() == 0:
			b.WriteRune(r)
		case strings.ContainsRune(separators, r):
		default:
			return "", false
		}
	}
	s := b.String()
	digits := strings.TrimPrefix(s, "+")
	switch {
	case digits == "":
		return "", false
	case digits != s:
	case strings.HasPrefix(s, "00"):
		digits = s[2:]
	case len(s) <= 6:
		return Number(s), true
	case len(s) == 9 && s[0] != '0':
		digits = "48" + s
	case len(s) == 10 && s[0] == '0':
		digits = "48" + s[1:]
	case len(s) < 9:
		return "", false
	}
	if len(digits) == 12 && strings.HasPrefix(digits, "480") {
		digits = "48" + digits[3:] // "+48 (0) 91 …"
	}
	if len(digits) < 7 || len(digits) > 15 || digits[0] == '0' {
		return "", false
	}
	return Number("+" + digits), true
}

// separators are what people put between digits, pasted dashes and no-break
// spaces included.
const separators = " \t.-()/\u00a0\u2009\u202f\u2010\u2011\u2013"
