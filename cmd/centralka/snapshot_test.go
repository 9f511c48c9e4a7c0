package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestEveryAlarmHasItsParagraph: an alarm without advice, or advice for an
// alarm that there is not, turns the build red.
func TestEveryAlarmHasItsParagraph(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### ([a-z-]+)$`).FindAllStringSubmatch(string(doc), -1) {
		headings[m[1]] = true
	}
	raised := map[string]bool{}
	f, err := parser.ParseFile(token.NewFileSet(), "snapshot.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "raise" {
			lit, ok := call.Args[1].(*ast.BasicLit)
			if !ok {
				t.Error("an alarm's id is not written out")
				return true
			}
			id, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Error(err)
			}
			raised[id] = true
		}
		return true
	})
	if len(raised) < 5 {
		t.Fatalf("found only %d alarms: this test looks for the wrong thing", len(raised))
	}
	for id := range raised {
		if !headings[id] {
			t.Errorf("alarm %s has no heading in docs/operations.md", id)
		}
	}
	for id := range headings {
		if !raised[id] {
			t.Errorf("docs/operations.md explains %s, which nothing raises", id)
		}
	}
}
