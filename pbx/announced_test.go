package pbx

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestOnlyTheAnnouncementMakesProofs: a value of type announced is made in
// announcement.go alone, so that no other path leads to an agent (S1.4-b).
func TestOnlyTheAnnouncementMakesProofs(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		n := proofsMade(t, f.Name(), nil)
		if f.Name() == "announcement.go" {
			seen += n
			continue
		}
		if n != 0 {
			t.Errorf("%s makes %d values of type announced", f.Name(), n)
		}
	}
	if seen == 0 {
		t.Error("announcement.go makes no proof: this test looks for the wrong thing")
	}
	if n := proofsMade(t, "bad.go", "package pbx\nfunc f() { q.enter(c, announced{}); var p announced; new(announced) }"); n != 3 {
		t.Errorf("found %d of 3 forged proofs", n)
	}
}

// proofsMade counts composite literals, variables and new of type announced.
// Struct fields, parameters and results only carry one.
func proofsMade(t *testing.T, name string, src any) int {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	is := func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && id.Name == "announced"
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.CompositeLit:
			if node.Type != nil && is(node.Type) {
				n++
			}
		case *ast.ValueSpec:
			if node.Type != nil && is(node.Type) {
				n++
			}
		case *ast.CallExpr:
			if id, ok := node.Fun.(*ast.Ident); ok && id.Name == "new" && len(node.Args) == 1 && is(node.Args[0]) {
				n++
			}
		}
		return true
	})
	return n
}
