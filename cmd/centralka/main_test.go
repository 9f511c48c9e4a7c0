package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"centralka/ordinance"
)

// call runs the program with args.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args   string
		code   int
		out    string // in stdout
		errors string // in stderr
	}{
		{"", 2, "", "Usage: centralka COMMAND"},
		{"help", 0, "retention preview", ""},
		{"--help", 0, "hash every recording", ""},
		{"sevre", 2, "", `there is no command "sevre"`},
		{"retention", 2, "", "say what of retention: centralka retention preview, centralka retention confirm"},
		{"retention sweep", 2, "", "say what of retention"},
		{"version", 0, "centralka ", ""},
		{"version now", 2, "", `"now" is no flag`},
		{"check -h", 0, "", "Usage: centralka check [flags]"},
		{"check -konfig x", 2, "", "flag provided but not defined"},
		{"serve -konfig x", 2, "", "flag provided but not defined"},
		{"check -config /nonexistent/centralka.toml", 1, "", "read the configuration: open /nonexistent"},
		{"backup", 2, "", "name one folder"},
		{"backup -dir /nonexistent /tmp", 1, "", "there is no vault in /nonexistent"},
		{"restore /tmp", 2, "", "-keys is missing"},
		{"retention confirm", 2, "", "-reason is missing"},
		{"retention preview -as-of 2026-02-30", 2, "", "is not a day"},
		{"verify -dir /nonexistent", 1, "", "there is no vault in /nonexistent"},
	} {
		code, out, errors := call(t, strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errors, tc.errors) || tc.errors == "" && errors != "" {
			t.Errorf("centralka %s: %d\n%s%s", tc.args, code, out, errors)
		}
	}
}

// TestEveryCommandTellsItsFlags: -h ends with 0 and a usage line, whoever
// wrote the command.
func TestEveryCommandTellsItsFlags(t *testing.T) {
	for _, c := range commands() {
		code, _, errors := call(t, append(strings.Fields(c.name), "-h")...)
		if code != 0 || !strings.Contains(errors, "centralka "+c.name) {
			t.Errorf("centralka %s -h: %d\n%s", c.name, code, errors)
		}
	}
}

// TestCheckShowsWhatHolds: what check prints is a configuration that means the
// same, and no password is in it.
func TestCheckShowsWhatHolds(t *testing.T) {
	path := place(t, goodConfig, goodSecrets)
	code, out, errors := call(t, "check", "-config", path)
	if code != 0 {
		t.Fatalf("%d\n%s", code, errors)
	}
	if strings.Contains(out+errors, "horse") {
		t.Error("a password is shown")
	}
	for _, want := range []string{"# passwords of extensions: 1 (101), not shown", "timeout = \"1m\"", "[guard]"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if !strings.Contains(errors, "warning: "+path+": number: there is none") {
		t.Errorf("no warning that there are no numbers:\n%s", errors)
	}
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, again, errors := call(t, "check", "-config", path); code != 0 || again != out {
		t.Errorf("%d\n%s\nshown, and shown again:\n%s\n%s", code, errors, out, again)
	}
}

// TestCheckReadsTheFiles: a wrong WAV, a missing one, a certificate that is
// none.
func TestCheckReadsTheFiles(t *testing.T) {
	prompt, err := ordinance.Prompt(ordinance.PromptClosed)
	if err != nil {
		t.Fatal(err)
	}
	good := hex.EncodeToString(func() []byte { s := sha256.Sum256(prompt.WAV); return s[:] }())
	for _, tc := range []struct{ name, config, want string }{
		{"good", "[announcement]\nfile = \"good.wav\"\nsha256 = \"" + good + "\"\n", ""},
		{"altered", "[announcement]\nfile = \"good.wav\"\nsha256 = \"" + strings.Repeat("ab", 32) + "\"\n", `announcement\.file: .*good\.wav: nagranie zostało zmienione`},
		{"missing", "[announcement]\nfile = \"none.wav\"\nsha256 = \"" + good + "\"\n", `announcement\.file: open .*none\.wav`},
		{"no WAV", "[announcement]\noutgoing = \"centralka.toml\"\n", `announcement\.outgoing: .*centralka\.toml: `},
		{"no certificate", "[web]\ncertificate = \"good.wav\"\nkey = \"good.wav\"\n", `web\.certificate: tls: `},
		{"no folder", "[vault]\ndir = \"good.wav\"\n", `vault\.dir: .*good\.wav is not a folder`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := place(t, tc.config+goodConfig, goodSecrets)
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "good.wav"), prompt.WAV, 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, errors := call(t, "check", "-config", path)
			if tc.want == "" && code != 0 || tc.want != "" && (code != 1 || !regexp.MustCompile(tc.want).MatchString(errors)) {
				t.Errorf("%d\n%s", code, errors)
			}
		})
	}
}
