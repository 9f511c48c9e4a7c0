package centralka_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// mayImport says which rooms a room may import; its own folders it always may.
// Tests may import pbx/pbxtest besides.
var mayImport = map[string][]string{
	"":            {},
	"ordinance":   {},
	"media":       {},
	"store":       {"ordinance"},
	"desk":        {"ordinance", "store"},
	"recorder":    {"media", "ordinance", "store"},
	"pbx":         {"media", "recorder", "desk", "ordinance", "store"},
	"pbx/pbxtest": {},
	"chat":        {"desk", "ordinance", "store"},
	"web":         {"pbx", "chat", "desk", "ordinance", "store"},
	"cmd":         {"ordinance", "media", "store", "desk", "recorder", "pbx", "pbx/pbxtest", "chat", "web"},
}

const module = "centralka"

// statements are the ids of the ordinance's statements: per clause the last
// letter that is given out.
var statements = map[string]byte{
	"S0": 'e', "S1.1": 'c', "S1.2": 'c', "S1.3": 'l', "S1.4": 'j', "S1.5": 'j', "S2": 'd', "S3": 'e', "S4.1": 'f', "S4.2": 'g',
	"S4.3": 'h', "S4.4": 'd', "S4.5": 'c', "S4.6": 'g', "S4.7": 'e', "S5": 'h', "S6": 'n', "S7": 'b', "S8": 'a',
}

const annexFields = 20 // ZA-01 to ZA-20

func TestRepositoryRules(t *testing.T) {
	r, err := readRepo(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.goFiles) < 10 {
		t.Fatalf("only %d Go files were found", len(r.goFiles))
	}
	for _, rule := range []struct {
		name  string
		check func(*repo) []string
	}{
		{"imports", importRules},
		{"package docs", packageDocs},
		{"citations", citations},
		{"vocabulary", vocabulary},
		{"ordinance ledger", ordinanceLedger},
		{"RFC ledger", rfcLedger},
		{"links", links},
		{"machine paths", machinePaths},
		{"dependencies", dependencies},
	} {
		t.Run(rule.name, func(t *testing.T) {
			for _, problem := range rule.check(r) {
				t.Error(problem)
			}
		})
	}
}

// repo is the repository as the rules see it.
type repo struct {
	files   map[string][]byte // by slash-separated path
	fset    *token.FileSet
	goFiles map[string]*ast.File
}

func readRepo(fsys fs.FS) (*repo, error) {
	r := &repo{files: map[string][]byte{}, fset: token.NewFileSet(), goFiles: map[string]*ast.File{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "bin" || name == "dist" || name == "demo-recordings" || d.Name() == ".git"):
			return fs.SkipDir
		case !d.Type().IsRegular() || strings.HasSuffix(name, ".test") || strings.HasSuffix(name, ".out") || name == ".git":
			return nil
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		r.files[name] = b
		if strings.HasSuffix(name, ".go") {
			if r.goFiles[name], err = parser.ParseFile(r.fset, name, b, parser.ParseComments|parser.SkipObjectResolution); err != nil {
				return err
			}
		}
		return nil
	})
	return r, err
}

func (r *repo) at(n ast.Node) string {
	p := r.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func folder(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir
	}
	return ""
}

// room names the room of a folder: its first element, but pbx/pbxtest is a
// room of its own.
func room(dir string) string {
	if dir == "pbx/pbxtest" || strings.HasPrefix(dir, "pbx/pbxtest/") {
		return "pbx/pbxtest"
	}
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func importRules(r *repo) (problems []string) {
	for _, name := range sortedNames(r.goFiles) {
		from := room(folder(name))
		allowed, known := mayImport[from]
		if !known {
			problems = append(problems, fmt.Sprintf("%s: there is no room %q", name, from))
			continue
		}
		for _, spec := range r.goFiles[name].Imports {
			dir, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, "`\""), module+"/")
			to := room(dir)
			if !ours || to == from || slices.Contains(allowed, to) || to == "pbx/pbxtest" && strings.HasSuffix(name, "_test.go") {
				continue
			}
			problems = append(problems, fmt.Sprintf("%s: %s must not import %s", r.at(spec), from, to))
		}
	}
	return problems
}

var sentenceEnd = regexp.MustCompile(`[.!?](\s|$)`)

func packageDocs(r *repo) (problems []string) {
	docs := map[string]string{}
	for _, name := range sortedNames(r.goFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if doc := r.goFiles[name].Doc; doc != nil {
			docs[folder(name)] += doc.Text()
		} else {
			docs[folder(name)] += ""
		}
	}
	for _, dir := range sortedNames(docs) {
		if len(sentenceEnd.FindAllString(docs[dir], -1)) < 2 {
			problems = append(problems, fmt.Sprintf("%q: the package doc must say in more than one sentence what the package is, guarantees and does not do", dir))
		}
	}
	return problems
}

var (
	rfcMention = regexp.MustCompile(`(?i)\bRFCs?[^\pL\d]{0,2}\d{3,5}`)
	rfcForm    = regexp.MustCompile(`^RFC \d{3,5}$`)
	// Sections follow the number of their RFC at once; several are listed.
	rfcSection = regexp.MustCompile(`RFC \d{3,5} (§[\w.]*\w,? ?(and |or |to )?)*$`)
	rfcSpelled = regexp.MustCompile(`RFC \d{3,5},? (?i)(section|sect|sec)\b`)
	lawSection = regexp.MustCompile(`Zarz\. 284/17 (§[\w.]+( ust\. \d+)?( pkt \d+)?,? ?(and |or |to )?)*$`)
	statement  = regexp.MustCompile(`\b(S\d+(\.\d+)?-[a-z]{1,2}|ZA-\d\d)\b`)
)

// citations checks the form of what comments cite, and that the RFCs and
// statements have their rows.
func citations(r *repo) (problems []string) {
	rfcs, ids := column(r.files["docs/rfc.tsv"]), column(r.files["docs/ordinance.tsv"])
	for _, name := range sortedNames(r.goFiles) {
		for _, group := range r.goFiles[name].Comments {
			text := strings.Join(strings.Fields(group.Text()), " ")
			where := r.at(group)
			for _, m := range rfcMention.FindAllString(text, -1) {
				if number := strings.TrimPrefix(m, "RFC "); !rfcForm.MatchString(m) {
					problems = append(problems, fmt.Sprintf("%s: %q must be written as RFC nnnn", where, m))
				} else if !rfcs[number] {
					problems = append(problems, fmt.Sprintf("%s: RFC %s has no row in docs/rfc.tsv", where, number))
				}
			}
			for _, m := range rfcSpelled.FindAllString(text, -1) {
				problems = append(problems, fmt.Sprintf("%s: %q: a section is cited as RFC nnnn §x", where, m))
			}
			for i := range text {
				if strings.HasPrefix(text[i:], "§") && !rfcSection.MatchString(text[:i]) && !lawSection.MatchString(text[:i]) {
					problems = append(problems, fmt.Sprintf("%s: a § needs its document in front: RFC nnnn §x or Zarz. 284/17 §n: …%.60s", where, text[max(0, i-20):]))
					break
				}
			}
		}
		if name == "rules_test.go" || name == "rules_fail_test.go" {
			continue
		}
		for _, id := range statement.FindAllString(string(r.files[name]), -1) {
			if !ids[id] {
				problems = append(problems, fmt.Sprintf("%s: statement %s has no row in docs/ordinance.tsv", name, id))
			}
		}
	}
	return problems
}

// column is the set of values of a table's first column.
func column(tsv []byte) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(string(tsv)) {
		first, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		set[first] = true
	}
	return set
}

var forbiddenWords = []string{"Manager", "Helper", "Util", "Common", "Info", "Data", "Service", "Impl", "Wrapper"}

// vocabulary refuses exported names with words that say nothing. A word counts
// whole: Database and Metadata are words of their own.
func vocabulary(r *repo) (problems []string) {
	for _, name := range sortedNames(r.goFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, d := range declared(r.goFiles[name]) {
			for _, word := range words(d.name) {
				if ast.IsExported(d.name) && slices.Contains(forbiddenWords, strings.TrimSuffix(word, "s")) {
					problems = append(problems, fmt.Sprintf("%s: %s: %q says nothing; name what it is", r.at(d.node), d.name, word))
				}
			}
		}
	}
	return problems
}

func words(identifier string) (out []string) {
	start := 0
	runes := []rune(identifier)
	for i := 1; i <= len(runes); i++ {
		if i == len(runes) || unicode.IsUpper(runes[i]) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			out = append(out, string(runes[start:i]))
			start = i
		}
	}
	return out
}

// declaration is one name that a file declares at its top level. In full it is
// how ledgers write it: Name, or Type.Name of methods and fields.
type declaration struct {
	name, full string
	node       ast.Node
}

func declared(f *ast.File) (out []declaration) {
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			full := decl.Name.Name
			if decl.Recv != nil && len(decl.Recv.List) == 1 {
				full = receiver(decl.Recv.List[0].Type) + "." + full
			}
			out = append(out, declaration{decl.Name.Name, full, decl})
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						out = append(out, declaration{n.Name, n.Name, n})
					}
				case *ast.TypeSpec:
					out = append(out, declaration{spec.Name.Name, spec.Name.Name, spec})
					var members *ast.FieldList
					switch t := spec.Type.(type) {
					case *ast.StructType:
						members = t.Fields
					case *ast.InterfaceType:
						members = t.Methods
					default:
						continue
					}
					for _, m := range members.List {
						for _, n := range m.Names {
							out = append(out, declaration{n.Name, spec.Name.Name + "." + n.Name, n})
						}
					}
				}
			}
		}
	}
	return out
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// symbols are all names declared in the repository as ledgers write them: the
// folder, a dot, and the name: pbx.Call.run, cmd/centralka.main. Tests are
// those of _test.go files.
func (r *repo) symbols() (code, tests map[string]bool) {
	code, tests = map[string]bool{}, map[string]bool{}
	for name, f := range r.goFiles {
		dir := folder(name)
		if dir == "" {
			dir = module
		}
		for _, d := range declared(f) {
			if !strings.HasSuffix(name, "_test.go") {
				code[dir+"."+d.full] = true
			} else if _, isFunc := d.node.(*ast.FuncDecl); isFunc && testName.MatchString(d.full) {
				tests[dir+"."+d.full] = true
			}
		}
	}
	return code, tests
}

var testName = regexp.MustCompile(`^(Test|Fuzz|Example)([A-Z]\w*)?$`)
