package web

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"centralka/store"
)

var (
	saidInTemplate = regexp.MustCompile(`\{\{-?\s*t "([^"]+)"|\(t "([^"]+)"|\{\{template "input" \(input \.Form "([^"]+)" "[^"]*" "[^"]*" "([^"]*)"\)`)
	codeInTemplate = regexp.MustCompile(`\{\{.*?\}\}|<[^>]*>`)
)

// TestCatalogues: both languages have the same keys, every key that a template
// says is there, and no template has words of its own.
func TestCatalogues(t *testing.T) {
	pl, en := readWords(polishLang), readWords(englishLang)
	for key := range pl {
		if !en.has(key) {
			t.Errorf("%s is Polish only", key)
		}
	}
	for key, p := range en {
		if !pl.has(key) {
			t.Errorf("%s is English only", key)
		}
		if p.many == "" && key != "layout.otherPrefix" {
			t.Errorf("%s is empty in English", key)
		}
	}
	want := func(key, who string) {
		t.Helper()
		if key != "" && !pl.has(key) {
			t.Errorf("%s says %q, which is in no catalogue", who, key)
		}
	}
	for _, pattern := range []string{"templates/layout.html", "templates/parts.html", "templates/error.html", "templates/staff/*.html", "templates/public/*.html"} {
		names, err := fs.Glob(embedded, pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			b, err := fs.ReadFile(embedded, name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range saidInTemplate.FindAllStringSubmatch(string(b), -1) {
				want(m[1], name)
				want(m[2], name)
				want(m[4], name)
				if m[3] != "" {
					want("field."+m[3], name)
				}
			}
			bare := codeInTemplate.ReplaceAllString(string(b), "")
			if i := strings.IndexFunc(bare, unicode.IsLetter); i >= 0 {
				t.Errorf("%s has words of its own: …%.40q…", name, bare[i:])
			}
		}
	}
	for _, a := range store.Actions() {
		want("action."+string(a), "the audit log")
	}
	for _, r := range store.Roles() {
		want("role."+string(r), "an account")
	}
	for _, cause := range []store.Cause{
		store.CauseHangupCaller, store.CauseHangupCalled, store.CauseAnnouncementHangup, store.CauseAbandoned, store.CauseCancelled, store.CauseBusy,
		store.CauseNoAnswer, store.CauseDeclined, store.CauseUnreachable, store.CauseQueueTimeout, store.CauseClosed, store.CauseNotFound,
		store.CauseForbidden, store.CauseNotAcceptable, store.CauseOverload, store.CauseNoAck, store.CauseMediaTimeout, store.CauseSessionExpired,
		store.CauseShutdown, store.CauseInterrupted, store.CauseInternal,
	} {
		want("cause."+string(cause), "a call")
		want("why."+string(cause), "a call")
	}
	for _, m := range menu {
		want(m.key, "the menu")
		if m.path != "/" {
			want("start."+m.path, "the start page")
		}
	}
}

// TestPolishCounts: one, few and many.
func TestPolishCounts(t *testing.T) {
	w := readWords(polishLang)
	var got []string
	for _, n := range []int{0, 1, 2, 4, 5, 11, 12, 14, 21, 22, 25, 112, 122} {
		got = append(got, strings.TrimSpace(w.say("account.sessionsCaption", n)))
	}
	want := []string{"0 czynnych sesji", "1 czynna sesja", "2 czynne sesje", "4 czynne sesje", "5 czynnych sesji", "11 czynnych sesji", "12 czynnych sesji",
		"14 czynnych sesji", "21 czynnych sesji", "22 czynne sesje", "25 czynnych sesji", "112 czynnych sesji", "122 czynne sesje"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestEnglishPages: the same pages under /en/, with links that stay there.
func TestEnglishPages(t *testing.T) {
	c := newConsole(t)
	v := c.signedIn(c.account("admin", store.RoleAdministrator))
	for path, words := range map[string]string{"/en": "Logged in as", "/en/konto": "My account", "/en/admin/telefony": "Stanowisko 1", "/en/godziny": "Opening hours"} {
		res, body := v.get(path)
		if res.StatusCode != 200 || !strings.Contains(body, `<html lang="en">`) || !strings.Contains(body, words) || !strings.Contains(body, `href="/en/konto"`) {
			t.Errorf("%s: %d\n%s", path, res.StatusCode, body)
		}
		if strings.Contains(body, "tajne-haslo-telefonu") {
			t.Errorf("%s shows a telephone's password", path)
		}
	}
}
