package ordinance

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestParseNumber(t *testing.T) {
	for raw, want := range map[string]string{
		// One subscriber in Szczecin, in the notations of people and carriers.
		"+48914245000":                "+48914245000",
		"+48 91 424 50 00":            "+48914245000",
		"0048914245000":               "+48914245000",
		"0048 91 4245000":             "+48914245000",
		"48914245000":                 "+48914245000",
		"914245000":                   "+48914245000",
		"91 424-50-00":                "+48914245000",
		"(91) 4245000":                "+48914245000",
		"091 424 50 00":               "+48914245000",
		"+48 (0) 91 42 45000":         "+48914245000",
		"0048 0 914245000":            "+48914245000",
		" +48 914 245 000":            "+48914245000",
		"(+48) 91.424.50.00":          "+48914245000",
		"91/424–50–00":                "+48914245000",
		"91\u00a0424\u202f50\u201100": "+48914245000",

		"601 234 567":       "+48601234567",
		"+49 30 1234567":    "+49301234567",
		"0049301234567":     "+49301234567",
		"49301234567":       "+49301234567",
		"+1 (212) 555-0100": "+12125550100",
		"+2901234":          "+2901234", // St Helena: among the shortest there are

		// Short numbers and extensions.
		"112": "112", "19115": "19115", "116 123": "116123", "101": "101", "0": "0", "7": "7",
	} {
		if got, ok := ParseNumber(raw); !ok || got.E164() != want {
			t.Errorf("ParseNumber(%q) = %q, %v, want %q", raw, got.E164(), ok, want)
		}
	}
}

func TestParseNumberRefusesWhatIsNoNumber(t *testing.T) {
	for _, raw := range []string{
		"", " ", "+", "++48914245000", "+48+914245000", "48+914245000", "-", "()",
		"anonymous", "Anonymous", "unavailable", "restricted", "withheld", "unknown", "zastrzeżony",
		"*97", "#31#914245000", "914245000;ext=5", "914245000x12", "sip:914245000", "tel:+48914245000",
		"4245000", "42450000", // local, without an area code
		"+112", "00112", "+0914245000", "000914245000", "012345678",
		"+1234567890123456", "12345678901234567890123456789",
		"９１４２４５０００", "91424500\x00", "\xff914245000",
	} {
		if got, ok := ParseNumber(raw); ok || got != "" {
			t.Errorf("ParseNumber(%q) = %q, %v, want none", raw, got.E164(), ok)
		}
	}
}

var canonical = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|[0-9]{1,6})$`)

func FuzzParseNumber(f *testing.F) {
	for _, s := range []string{"+48 91 424 50 00", "0048914245000", "(91) 4245000", "112", "anonymous", "+480480123456", "0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		n, ok := ParseNumber(raw)
		if !ok {
			if n != "" {
				t.Fatalf("ParseNumber(%q) refused and returned %q", raw, n.E164())
			}
			return
		}
		if !canonical.MatchString(n.E164()) {
			t.Fatalf("ParseNumber(%q) = %q, which is not canonical", raw, n.E164())
		}
		if again, ok := ParseNumber(n.E164()); !ok || again != n {
			t.Fatalf("ParseNumber(%q) = %q, and of that %q, %v", raw, n.E164(), again.E164(), ok)
		}
		if masked := n.String(); strings.Contains(masked, n.E164()) {
			t.Fatalf("%q is shown as %q", n.E164(), masked)
		}
	})
}

func TestNumberMasksItself(t *testing.T) {
	for n, want := range map[Number]string{
		"":              "",
		"101":           "***",
		"116123":        "******",
		"+48914245012":  "+48 91 *** ** 12",
		"+49301234567":  "+49*******67",
		"+2901234":      "+29***34",
		"+480914245012": "+48********12",
	} {
		if got := n.String(); got != want {
			t.Errorf("%q is shown as %q, want %q", n.E164(), got, want)
		}
	}
}

func TestNumberDoesNotReachALog(t *testing.T) {
	n := Number("+48914245012")
	type party struct{ Number Number }
	var b bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("call", "from", n)
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("call", "party", party{n})
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q"} {
		fmt.Fprintf(&b, verb+" "+verb+"\n", n, party{n})
	}
	if strings.Contains(b.String(), "4245") {
		t.Errorf("digits in:\n%s", b.String())
	}
}
