package ordinance

import (
	"log/slog"
	"strings"
)

// Number is a telephone number in E.164 form ("+48914245000"), or a short
// number ("112", an extension). The empty Number means that it is not known.
// It masks itself wherever it is printed or logged; E164 gives the digits.
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

// LogValue keeps numbers out of logs.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.String()) }

// ParseNumber brings a number as people and carriers write it into one form:
// spaces, dots, hyphens, parentheses and slashes are dropped; "00" and a bare
// "48" in front of nine digits become "+", nine digits are Polish. Numbers of
// up to six digits stay as they are (short numbers). It reports false for
// anything else.
func ParseNumber(raw string) (Number, bool) {
	var b strings.Builder
	for i, r := range raw {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == '+' && i == 0:
			b.WriteRune(r)
		case strings.ContainsRune(" .-()/\u00a0", r):
		default:
			return "", false
		}
	}
	s := b.String()
	digits := strings.TrimPrefix(s, "+")
	if len(digits) == 0 || len(digits) > 20 {
		return "", false
	}
	switch {
	case strings.HasPrefix(s, "+"):
		// already international
	case strings.HasPrefix(s, "00"):
		digits = s[2:]
	case len(s) <= 6:
		return Number(s), true
	case len(s) == 9 && s[0] != '0':
		digits = "48" + s
	case len(s) == 11 && strings.HasPrefix(s, "48"):
	case len(s) == 10 && s[0] == '0': // old trunk prefix
		digits = "48" + s[1:]
	default:
		// A national number of unknown shape: kept as international digits.
	}
	if len(digits) < 7 || len(digits) > 15 || digits[0] == '0' {
		return "", false
	}
	return Number("+" + digits), true
}
