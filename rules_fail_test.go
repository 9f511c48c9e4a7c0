package centralka_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// The rules are worth something only if they can fail: each is shown small
// repositories with and without the mistake that it is there to find.
func TestRulesFindMistakes(t *testing.T) {
	const (
		rfcHead = "number\tstatus\ttitle\twhere\ttest\n"
		pkg     = "// Package media moves. It is small.\npackage media\n"
		// Pieces that must not stand in this file as such.
		sect = "\u00a7"
		tmp  = "/" + "tmp/"
	)
	for _, c := range []struct {
		name  string
		check func(*repo) []string
		files map[string]string
		want  []string // parts of the problems, in order
	}{
		{"allowed imports", importRules, map[string]string{
			"pbx/a.go":         `package pbx; import ("fmt"; "centralka/media"; "centralka/store")`,
			"pbx/a_test.go":    `package pbx; import "centralka/pbx/pbxtest"`,
			"cmd/x/main.go":    `package main; import ("centralka/pbx/pbxtest"; "centralka/web")`,
			"web/page/page.go": `package page; import ("centralka/web"; "centralka/chat")`,
			"store/a.go":       "package store; import `centralka/ordinance`",
		}, nil},
		{"forbidden imports", importRules, map[string]string{
			"media/a.go":            `package media; import "centralka/store"`,
			"ordinance/a_test.go":   `package ordinance; import "centralka/store"`,
			"pbx/a.go":              `package pbx; import "centralka/pbx/pbxtest"`,
			"pbx/b.go":              `package pbx; import "centralka/web"`,
			"pbx/pbxtest/a.go":      `package pbxtest; import "centralka/media"`,
			"pbx/pbxtest/a_test.go": `package pbxtest; import "centralka/pbx"`,
			"recorder/a.go":         `package recorder; import "centralka/desk"`,
		}, []string{"media must not import store", "ordinance must not import store", "pbx must not import pbx/pbxtest",
			"pbx must not import web", "pbx/pbxtest must not import media", "pbx/pbxtest must not import pbx",
			"recorder must not import desk"}},
		{"unknown room", importRules, map[string]string{"internal/tool/a.go": "package tool"},
			[]string{`no room "internal"`}},

		{"package docs", packageDocs, map[string]string{
			"media/a.go": pkg, "media/b.go": "package media", "media/c_test.go": "package media_test",
			"store/a.go": "// Package store stores: a, b and c.\npackage store",
			"desk/a.go":  "package desk",
		}, []string{`"desk"`, `"store"`}},

		{"good citations", citations, map[string]string{
			"docs/rfc.tsv":       rfcHead + "3261\tno\tSIP\t-\t-\n",
			"docs/ordinance.tsv": "S1.4-b\n",
			"media/a.go": pkg + "// As RFC 3261 " + sect + "13.3.1.4 and RFC\n// 3261 " + sect + "8.2, " + sect + "9 say (RFC 3261);\n" +
				"// Zarz. 284/17 " + sect + "4 ust. 7 and Zarz. 284/17 " + sect + "1 ust. 3 pkt 1 (S1.4-b).\nvar a = \"RFC3261, " + sect + " 6\"",
		}, nil},
		{"bad citations", citations, map[string]string{
			"docs/rfc.tsv":       rfcHead + "3261\tno\tSIP\t-\t-\n",
			"docs/ordinance.tsv": "S1.4-b\n",
			"media/a.go":         pkg + "// RFC3261 says so.\nvar a int",
			"media/b.go":         pkg + "// See rfc 3261.\nvar b int",
			"media/c.go":         pkg + "// RFC 9999 is unknown here.\nvar c int",
			"media/d.go":         pkg + "// RFC 3261, section 13 says so.\nvar d int",
			"media/e.go":         pkg + "// As " + sect + "13 says.\nvar e int",
			"media/f.go":         pkg + "// As Zarz. 284/17 " + sect + " 4 says, and RFC 3261: " + sect + "5.\nvar f int",
			"media/g.go":         pkg + "var g = \"S9.4-b\" // ZA-21",
		}, []string{`"RFC3261" must be`, `"rfc 3261" must be`, "RFC 9999 has no row", "section is cited as", "needs its document",
			"needs its document", "S9.4-b has no row", "ZA-21 has no row"}},

		{"vocabulary", vocabulary, map[string]string{
			"media/a.go": pkg + "type CallManager struct{ UserData int; rawData int }\ntype database int\nfunc (d database) CallInfos() {}\n" +
				"type Metadata struct{ Database, Informed int }\nvar helper int\nconst HTTPService = 1\ntype R interface{ Wrapper() }",
			"media/a_test.go": "package media\nfunc TestHelper() {}",
		}, []string{`CallManager`, `UserData`, `CallInfos`, `HTTPService`, `Wrapper`}},

		{"links", links, map[string]string{
			"README.md":  "[a](docs/a.md) [b](https://example.org/x) [c](#here) [d](docs) [e](docs/b.md)",
			"docs/a.md":  "[up](../README.md#part) [self](a.md) [no](docs/a.md)",
			"docs/a.txt": "[no](nowhere)",
		}, []string{"README.md: the link to docs/b.md", "docs/a.md: the link to docs/a.md"}},

		{"machine paths", machinePaths, map[string]string{
			"README.md":  "see https://example.org/work/x, a" + tmp + "b and PrivateTmp\nin " + tmp + "x\n",
			"a.bin":      "\x00 " + tmp + "x",
			"media/a.go": pkg + "const a = \"/" + "root/x\"\n",
		}, []string{"README.md:2", "media/a.go:3"}},

		{"dependencies", dependencies, map[string]string{
			"go.mod": "module centralka\n\nrequire (\n\texample.org/used v1.2.3 // indirect\n\texample.org/direct v0.1.0\n" +
				"\texample.org/other v1.0.0 // indirect\n\texample.org/fine v2.0.0\n)\nrequire example.org/single v3.0.0\n",
			"media/a.go":           pkg + `import "example.org/used/sub"`,
			"docs/dependencies.md": "# x\n\n| example.org/fine | v2.0.0 | because |\n| example.org/direct | v0.0.9 | old |\n",
		}, []string{"example.org/direct | v0.1.0", "example.org/single | v3.0.0", "example.org/used | v1.2.3"}},

		{"RFC ledger", rfcLedger, map[string]string{
			"docs/rfc.tsv": rfcHead + "10\tyes\tA\tmedia.F, media.T.M\tmedia.TestF\n20\tyes\tB\tmedia.G\tmedia.F\n20\tno\tC\t-\t-\n" +
				"30\tno\tD\tmedia.F\t-\n40\tmaybe\tE\t-\t-\n50\tno\tF\t-\n60\tpartial\tG\t-\t-\n",
			"media/a.go":      pkg + "func F() {}\ntype T[A any] struct{}\nfunc (t *T[A]) M() {}",
			"media/a_test.go": "package media\nfunc TestF() {}\nfunc TestfOo() {}",
		}, []string{"rfc.tsv:7", "no code media.G", "no test media.F", "20 is no number above", "RFC 30 is not implemented and names",
			`no status "maybe"`, "RFC 60: there is no code -", "RFC 60: there is no test -"}},
		{"ledger without its head", rfcLedger, map[string]string{"docs/rfc.tsv": "number\tstatus\n"}, []string{"must begin with the columns"}},
		{"no ledger", rfcLedger, nil, []string{"must begin with the columns"}},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, c.check, c.files, c.want) })
	}
}

func expect(t *testing.T, check func(*repo) []string, files map[string]string, want []string) {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	r, err := readRepo(fsys)
	if err != nil {
		t.Fatal(err)
	}
	got := check(r)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("not found: %s", want[i])
		case i >= len(want):
			t.Errorf("found besides: %s", got[i])
		case !strings.Contains(got[i], want[i]):
			t.Errorf("found %q, want one with %q", got[i], want[i])
		}
	}
}

func TestOrdinanceLedgerRuleFindsMistakes(t *testing.T) {
	// A complete ledger, in which single rows are then replaced.
	var ids []string
	for _, clause := range sortedNames(statements) {
		for letter := byte('a'); letter <= statements[clause]; letter++ {
			ids = append(ids, fmt.Sprintf("%s-%c", clause, letter))
		}
	}
	for n := range annexFields {
		ids = append(ids, fmt.Sprintf("ZA-%02d", n+1))
	}
	if len(ids) != 137 {
		t.Errorf("the ordinance has 137 statements, the rules know %d", len(ids))
	}
	for _, c := range []struct {
		name, id, row string
		want          []string
	}{
		{"complete", "", "", nil},
		{"done", "S6-a", "S6-a\t6\tdone\tIt is.\tmedia.F\tmedia.TestF, media.FuzzF\n", nil},
		{"done by code that is a test", "S6-a", "S6-a\t6\tdone\tIt is.\tmedia.TestF\tmedia.TestF\n", []string{"no code media.TestF"}},
		{"done without code", "S6-a", "S6-a\t6\tdone\tIt is.\t-\tmedia.TestF\n", []string{"no code -"}},
		{"done without test", "S6-a", "S6-a\t6\tdone\tIt is.\tmedia.F\t-\n", []string{"no test -"}},
		{"done with a test that is gone", "S6-a", "S6-a\t6\tdone\tIt is.\tmedia.F\tmedia.TestG\n", []string{"no test media.TestG"}},
		{"done with something in a test file", "S6-a", "S6-a\t6\tdone\tIt is.\tmedia.F\tmedia.TestVar\n", []string{"no test media.TestVar"}},
		{"open with a test", "S6-a", "S6-a\t6\topen\tIt is.\t-\tmedia.TestF\n", []string{"S6-a is open and names"}},
		{"not ours", "S6-a", "S6-a\t6\tnot ours\tIt is.\ta matter of the archive\t-\n", nil},
		{"not ours without reason", "S6-a", "S6-a\t6\tnot ours\tIt is.\t-\t-\n", []string{"does not say why"}},
		{"no such state", "S6-a", "S6-a\t6\tpartly\tIt is.\t-\t-\n", []string{`no state "partly"`}},
		{"no sentence", "S6-a", "S6-a\t6\topen\tit\t-\t-\n", []string{"not a sentence"}},
		{"missing", "S6-a", "", []string{"S6-a has 0 rows"}},
		{"twice", "S6-a", "S6-a\t6\topen\tIt is.\t-\t-\nS6-a\t6\topen\tIt is.\t-\t-\n", []string{"S6-a has 2 rows"}},
		{"unknown", "S6-a", "S6-a\t6\topen\tIt is.\t-\t-\nS6-z\t6\topen\tIt is.\t-\t-\n", []string{"no statement S6-z"}},
		{"empty cell", "S6-a", "S6-a\t6\topen\tIt is.\t\t-\n", []string{"none empty", "S6-a has 0 rows"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString("id\t§\tstate\tstatement\tcode\ttest\n")
			for _, id := range ids {
				if id == c.id {
					b.WriteString(c.row)
				} else {
					fmt.Fprintf(&b, "%s\t1\topen\tIt is so.\t-\t-\n", id)
				}
			}
			expect(t, ordinanceLedger, map[string]string{
				"docs/ordinance.tsv": b.String(),
				"media/a.go":         "package media\nfunc F() {}",
				"media/a_test.go":    "package media\nfunc TestF() {}\nfunc FuzzF() {}\nvar TestVar int",
			}, c.want)
		})
	}
}
