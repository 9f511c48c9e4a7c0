package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInteropRows holds the table of docs/interop.md against the scenarios: each
// row has one, or another test that exists and the reason; each scenario stands in
// it and names its RFC.
func TestInteropRows(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	files, err := filepath.Glob("../../pbx/testdata/sipp/*.xml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d scenarios (%v)", len(files), err)
	}
	scenarios := map[string]bool{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".xml")
		scenarios[name] = false
		text := read(f)
		comment, _, _ := strings.Cut(text, "-->")
		if !regexp.MustCompile(`RFC \d{4}`).MatchString(comment) || !strings.Contains(text, `<scenario name="`+name+`">`) {
			t.Errorf("%s names no RFC, or not itself", name)
		}
	}
	var tests strings.Builder
	for _, glob := range []string{"*_test.go", "../../pbx/*_test.go"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			tests.WriteString(read(f))
		}
	}
	_, table, found := strings.Cut(read("../../docs/interop.md"), "\n## Row by row\n")
	if !found {
		t.Fatal("no table")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	rows, name := 0, regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.Contains(" trunk phone ", cells[1]) {
			continue
		}
		rows++
		shown := name.FindAllStringSubmatch(cells[3], -1)
		for _, m := range shown {
			if _, ok := scenarios[m[1]]; !ok {
				t.Errorf("%s: no scenario %s", strings.TrimSpace(cells[2]), m[1])
			}
			scenarios[m[1]] = true
		}
		test, why, _ := strings.Cut(cells[4], ": ")
		others := name.FindAllStringSubmatch(test, -1)
		for _, m := range others {
			if !strings.Contains(tests.String(), "func "+m[1]+"(t *testing.T)") {
				t.Errorf("%s: no test %s", strings.TrimSpace(cells[2]), m[1])
			}
		}
		if len(shown) == 0 && (len(others) == 0 || len(why) < 10) {
			t.Errorf("%s: neither a scenario nor a test and the reason", strings.TrimSpace(cells[2]))
		}
	}
	for s, listed := range scenarios {
		if !listed {
			t.Errorf("scenario %s stands in no row", s)
		}
	}
	if rows < 35 {
		t.Errorf("%d rows", rows)
	}
}
