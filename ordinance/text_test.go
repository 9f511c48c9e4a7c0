package ordinance

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTextsAreTheOrdinancesOwn(t *testing.T) {
	source, err := os.ReadFile("text/zarzadzenie-284-17.pl.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hexSHA256(source), "3e3d6ed508f674e5d16e97af5c961b758bf156ab78803d4ce0c789c70694309a"; got != want {
		t.Errorf("the source text was changed: SHA-256 %s, want %s", got, want)
	}
	law := strings.Join(strings.Fields(string(source)), " ")
	for _, c := range []struct {
		name, text, clause, hash, want string
		runes, bytes                   int
	}{
		{"announcement", AnnouncementText, "4. Każde przychodzące połączenie telefoniczne poprzedzone jest komunikatem o treści:",
			AnnouncementTextSHA256, "714e8d5385100c6ab9a94a4bed222ed6489d17a821495152f424ff9319b72291", 245, 258},
		{"chat notice", ChatNotice, "5. Każdy czat poprzedzony jest komunikatem o treści:",
			ChatNoticeSHA256, "6fd923f7510bb0ce8ece3e1448efc8630ed5cf5583e3d8603f2603349100d40a", 317, 329},
	} {
		if c.hash != c.want || hexSHA256([]byte(c.text)) != c.want {
			t.Errorf("%s: SHA-256 %s, constant %s, want %s", c.name, hexSHA256([]byte(c.text)), c.hash, c.want)
		}
		if r, b := utf8.RuneCountInString(c.text), len(c.text); r != c.runes || b != c.bytes {
			t.Errorf("%s: %d runes and %d bytes, want %d and %d", c.name, r, b, c.runes, c.bytes)
		}
		if !strings.Contains(law, c.clause+" „"+c.text+"”.") {
			t.Errorf("%s: not found under its clause in the source text", c.name)
		}
		if strings.Contains(c.text, ", prosimy") {
			t.Errorf("%s: has a comma before prosimy that the ordinance does not have", c.name)
		}
	}
}

// The ordinance dates the act on data protection differently in its preamble
// and in the chat notice. Neither is ever made to agree with the other.
func TestDatesOfTheActDisagreeAsInTheSource(t *testing.T) {
	source, err := os.ReadFile("text/zarzadzenie-284-17.pl.txt")
	if err != nil {
		t.Fatal(err)
	}
	law := strings.Join(strings.Fields(string(source)), " ")
	if !strings.Contains(law, "ustawy z dnia 26 sierpnia 1997 r.") || !strings.Contains(ChatNotice, "z dnia 29 sierpnia 1997 r.") {
		t.Error("a slip of the source was corrected")
	}
}
