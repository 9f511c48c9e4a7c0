package main

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"centralka/desk"
	"centralka/pbx"
)

var update = flag.Bool("update", false, "write docs/centralka.example.toml anew")

const examplePath = "../../docs/centralka.example.toml"

// exampleConfig is the office of the example: one trunk, one number, one queue
// with its hours, two phones.
func exampleConfig() Config {
	c := DefaultConfig()
	c.SIP.Listen = []pbx.Listener{
		{Transport: "udp", Addr: netip.MustParseAddrPort("192.0.2.10:5060")},
		{Transport: "tcp", Addr: netip.MustParseAddrPort("192.0.2.10:5060")},
	}
	trunk := pbx.DefaultTrunk()
	trunk.Name, trunk.Server, trunk.CallerNumber = "operator", "sip.operator.example", "+48914245000"
	trunk.From = []pbx.Source{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Prefix: netip.MustParsePrefix("203.0.113.7/32"), Port: 5080}}
	c.Trunks = []pbx.TrunkConfig{trunk}
	c.Numbers = []pbx.NumberConfig{{Match: "+48914245000", Target: "queue:cim"}}
	queue := pbx.DefaultQueue()
	queue.Name, queue.Members, queue.Hours = "cim", []string{"101", "102"}, "cim"
	c.Queues = []pbx.QueueConfig{queue}
	c.Hours = []desk.HoursConfig{{Name: "cim", Week: []string{"mon-fri 07:30-15:30"}, Holidays: "pl"}}
	for _, number := range []string{"101", "102"} {
		e := pbx.DefaultExtension()
		e.Number, e.Name = number, "Stanowisko "+number[2:]
		c.Extensions = append(c.Extensions, e)
	}
	c.Guard.Phones = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	return c
}

// fieldDocs reads the doc comments of all struct fields of a folder's files, by
// "Type.Field".
func fieldDocs(t *testing.T, docs map[string]string, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, id := range field.Names {
						docs[f.Name.Name+"."+spec.Name.Name+"."+id.Name] = field.Doc.Text()
					}
				}
			}
			return true
		})
	}
}

// example makes the example file.
func example(t *testing.T) []byte {
	t.Helper()
	docs := map[string]string{}
	for _, dir := range []string{".", "../../pbx", "../../desk"} {
		fieldDocs(t, docs, dir)
	}
	defaults := map[reflect.Type]reflect.Value{}
	rv := reflect.ValueOf(DefaultConfig())
	for i := range rv.NumField() {
		defaults[rv.Type().Field(i).Type] = rv.Field(i)
	}
	for typ, def := range elementDefaults() {
		defaults[typ] = def
	}
	var b bytes.Buffer
	b.WriteString("# Configuration of centralka, with every key. Made from the program's doc comments\n" +
		"# by: go test ./cmd/centralka -run TestExampleFile -update\n" +
		"#\n" +
		"# Keys that are left out have their default. Relative paths begin at this file's\n" +
		"# folder. Durations are written \"20s\", \"15m\", \"1h30m\".\n" +
		"# centralka check --config FILE finds mistakes; SIGHUP reads the file again.\n\n")
	err := writeConfig(&b, exampleConfig(), func(section reflect.Type, field reflect.StructField, value string) []string {
		doc := strings.TrimSpace(docs[section.String()+"."+field.Name])
		if doc == "" {
			t.Errorf("%v.%s has no doc comment", section, field.Name)
		}
		lines := strings.Split(doc, "\n")
		if def, ok := defaults[section]; ok && value != "" {
			if d := tomlValue(def.FieldByName(field.Name)); d != value {
				if d != `""` && d != "[]" {
					lines = append(lines, "Default: "+d)
				}
			}
		}
		return lines
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestExampleFile: the example in docs is what the doc comments say, holds
// every key, loads, and means what it says.
func TestExampleFile(t *testing.T) {
	want := example(t)
	if *update {
		if err := os.WriteFile(examplePath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/centralka.example.toml is not what the doc comments say: go test ./cmd/centralka -run TestExampleFile -update")
	}

	cfg := load(t, string(got), "[extension]\n101 = \"correct horse battery\"\n102 = \"staple correct horse\"\n")
	cfg.Secrets = exampleConfig().Secrets
	if shown, want := show(t, cfg), show(t, exampleConfig()); shown != want {
		t.Errorf("the example loads as\n%s\nwant\n%s", shown, want)
	}
	tel := cfg.Telephony()
	for _, w := range tel.Warnings() {
		t.Error("warning:", w)
	}
}

// TestDocsLoad: the configuration that the README shows loads too.
func TestDocsLoad(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Fatal("the README shows no configuration")
	}
	for _, block := range blocks {
		load(t, string(block[1]), "[extension]\n101 = \"correct horse battery\"\n")
	}
}

// TestInstallPageLoads: the page that leads to a first call shows one
// configuration with one of two trunks, and the secrets; each way loads without
// a warning.
func TestInstallPageLoads(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of configuration, want the file, two trunks and the secrets", len(blocks))
	}
	file, secrets := string(blocks[0][1]), string(blocks[3][1])
	for i, trunk := range []string{string(blocks[1][1]), string(blocks[2][1])} {
		of := secrets
		if !strings.Contains(trunk, "register = true") {
			of, _, _ = strings.Cut(secrets, "[trunk]")
		}
		tel := load(t, file+trunk, of).Telephony()
		for _, w := range tel.Warnings() {
			t.Errorf("trunk %d: %v", i, w)
		}
		if len(tel.Trunks) != 1 || tel.Trunks[0].Register != (i == 0) {
			t.Errorf("trunk %d: %+v", i, tel.Trunks)
		}
	}
}

func show(t *testing.T, cfg Config) string {
	t.Helper()
	var b strings.Builder
	if err := writeConfig(&b, cfg, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// load loads a configuration with its secrets from a folder of its own.
func load(t *testing.T, config, secrets string) Config {
	t.Helper()
	cfg, _, err := loadConfig(place(t, config, secrets))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// place writes the two files and returns the configuration's path.
func place(t *testing.T, config, secrets string) string {
	t.Helper()
	dir := t.TempDir()
	secretsPath := filepath.Join(dir, "secrets.toml")
	if strings.Contains(config, "/etc/centralka/secrets.toml\"") {
		config = strings.ReplaceAll(config, "/etc/centralka/secrets.toml", secretsPath)
	} else {
		config += "\n[secrets]\nfile = \"secrets.toml\"\n"
	}
	for name, text := range map[string]string{filepath.Join(dir, "centralka.toml"): config, secretsPath: secrets} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "centralka.toml")
}
