package centralka_test

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ledger reads a tab-separated table with the given head and reports rows that
// are not of its shape.
func ledger(r *repo, name string, head ...string) (rows [][]string, problems []string) {
	lines := strings.Split(strings.TrimSuffix(string(r.files[name]), "\n"), "\n")
	if lines[0] != strings.Join(head, "\t") {
		return nil, []string{fmt.Sprintf("%s must begin with the columns %s", name, strings.Join(head, ", "))}
	}
	for i, line := range lines[1:] {
		row := strings.Split(line, "\t")
		if len(row) != len(head) || slices.ContainsFunc(row, func(s string) bool { return strings.TrimSpace(s) != s || s == "" }) {
			problems = append(problems, fmt.Sprintf("%s:%d: a row has %d columns, none empty (\"-\" stands for nothing)", name, i+2, len(head)))
			continue
		}
		rows = append(rows, row)
	}
	return rows, problems
}

// named reports which of the comma-separated names of a cell do not exist; an
// empty cell names nothing that could.
func named(cell string, exist map[string]bool) (missing []string) {
	for name := range strings.SplitSeq(cell, ", ") {
		if !exist[name] {
			missing = append(missing, name)
		}
	}
	return missing
}

// ordinanceLedger checks docs/ordinance.tsv: each statement once; done rows
// name code and tests that exist, open rows name neither, and rows that are
// not ours give their reason in place of code.
func ordinanceLedger(r *repo) []string {
	const name = "docs/ordinance.tsv"
	rows, problems := ledger(r, name, "id", "§", "state", "statement", "code", "test")
	code, tests := r.symbols()
	seen := map[string]int{}
	for _, row := range rows {
		id, state, sentence, symbol, test := row[0], row[2], row[3], row[4], row[5]
		seen[id]++
		if !strings.HasSuffix(sentence, ".") {
			problems = append(problems, fmt.Sprintf("%s: %s: the statement is not a sentence", name, id))
		}
		switch state {
		case "done":
			for _, missing := range named(symbol, code) {
				problems = append(problems, fmt.Sprintf("%s: %s: there is no code %s", name, id, missing))
			}
			for _, missing := range named(test, tests) {
				problems = append(problems, fmt.Sprintf("%s: %s: there is no test %s", name, id, missing))
			}
		case "open":
			if symbol != "-" || test != "-" {
				problems = append(problems, fmt.Sprintf("%s: %s is open and names code or a test", name, id))
			}
		case "not ours":
			if symbol == "-" || test != "-" {
				problems = append(problems, fmt.Sprintf("%s: %s is not ours and does not say why in place of code", name, id))
			}
		default:
			problems = append(problems, fmt.Sprintf("%s: %s: there is no state %q", name, id, state))
		}
	}
	expected := map[string]bool{}
	for clause, last := range statements {
		for letter := byte('a'); letter <= last; letter++ {
			expected[fmt.Sprintf("%s-%c", clause, letter)] = true
		}
	}
	for n := range annexFields {
		expected[fmt.Sprintf("ZA-%02d", n+1)] = true
	}
	for _, id := range sortedNames(expected) {
		if seen[id] != 1 {
			problems = append(problems, fmt.Sprintf("%s: %s has %d rows", name, id, seen[id]))
		}
	}
	for _, id := range sortedNames(seen) {
		if !expected[id] {
			problems = append(problems, fmt.Sprintf("%s: there is no statement %s", name, id))
		}
	}
	return problems
}

// rfcLedger checks docs/rfc.tsv: numbers ascend; what is done, in part or
// whole, names code and a test that exist.
func rfcLedger(r *repo) []string {
	const name = "docs/rfc.tsv"
	rows, problems := ledger(r, name, "number", "status", "title", "where", "test")
	code, tests := r.symbols()
	last := 0
	for _, row := range rows {
		number, err := strconv.Atoi(row[0])
		if err != nil || number <= last {
			problems = append(problems, fmt.Sprintf("%s: %s is no number above the one before it", name, row[0]))
		}
		last = number
		switch row[1] {
		case "yes", "partial":
			for _, missing := range named(row[3], code) {
				problems = append(problems, fmt.Sprintf("%s: RFC %s: there is no code %s", name, row[0], missing))
			}
			for _, missing := range named(row[4], tests) {
				problems = append(problems, fmt.Sprintf("%s: RFC %s: there is no test %s", name, row[0], missing))
			}
		case "no":
			if row[3] != "-" || row[4] != "-" {
				problems = append(problems, fmt.Sprintf("%s: RFC %s is not implemented and names code or a test", name, row[0]))
			}
		default:
			problems = append(problems, fmt.Sprintf("%s: RFC %s: there is no status %q", name, row[0], row[1]))
		}
	}
	return problems
}

var (
	mdLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	webLink = regexp.MustCompile(`^([a-z]+:|#)`)
)

func links(r *repo) (problems []string) {
	for _, name := range sortedNames(r.files) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range mdLink.FindAllStringSubmatch(string(r.files[name]), -1) {
			if webLink.MatchString(m[1]) {
				continue
			}
			target, _, _ := strings.Cut(m[1], "#")
			target = path.Join(path.Dir(name), target)
			if !r.exists(target) {
				problems = append(problems, fmt.Sprintf("%s: the link to %s leads nowhere", name, m[1]))
			}
		}
	}
	return problems
}

func (r *repo) exists(target string) bool {
	if _, ok := r.files[target]; ok || target == "." {
		return true
	}
	for name := range r.files {
		if strings.HasPrefix(name, target+"/") {
			return true
		}
	}
	return false
}

// machinePath matches folders of a machine on which somebody works. It is put
// together so that this file does not match.
var machinePath = regexp.MustCompile(`(^|[^A-Za-z0-9_.])/(` + strings.Join([]string{"work", "farm", "root", "home", "tmp"}, "|") + `)/[\w.]`)

func machinePaths(r *repo) (problems []string) {
	for _, name := range sortedNames(r.files) {
		if bytes.IndexByte(r.files[name], 0) >= 0 {
			continue // not text
		}
		n := 0
		for line := range bytes.Lines(r.files[name]) {
			n++
			if m := machinePath.Find(bytes.TrimSpace(line)); m != nil {
				problems = append(problems, fmt.Sprintf("%s:%d: %s… is a path of one machine", name, n, bytes.TrimSpace(m)))
			}
		}
	}
	return problems
}

var goModLine = regexp.MustCompile(`(?m)^(?:require )?\s*([\w.-]+\.[\w.-]+/[^\s]+) (v[^\s]+)( // indirect)?$`)

// dependencies checks that each module that our code imports, or that go.mod
// calls direct, has a row "| module | version |" in docs/dependencies.md.
func dependencies(r *repo) (problems []string) {
	version, direct := map[string]string{}, map[string]bool{}
	for _, m := range goModLine.FindAllStringSubmatch(string(r.files["go.mod"]), -1) {
		version[m[1]] = m[2]
		direct[m[1]] = m[3] == ""
	}
	for _, name := range sortedNames(r.goFiles) {
		for _, spec := range r.goFiles[name].Imports {
			p := strings.Trim(spec.Path.Value, "`\"")
			for mod := range version {
				if p == mod || strings.HasPrefix(p, mod+"/") {
					direct[mod] = true
				}
			}
		}
	}
	for _, mod := range sortedNames(direct) {
		row := fmt.Sprintf("\n| %s | %s |", mod, version[mod])
		if direct[mod] && !bytes.Contains(r.files["docs/dependencies.md"], []byte(row)) {
			problems = append(problems, fmt.Sprintf("docs/dependencies.md has no row that begins %q", strings.TrimSpace(row)))
		}
	}
	return problems
}
