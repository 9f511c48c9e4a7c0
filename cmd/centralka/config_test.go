package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const goodSecrets = "[extension]\n101 = \"correct horse battery\"\n"

// goodConfig is a configuration without mistake; its lines are counted below.
const goodConfig = `[sip]
listen = ["udp://192.0.2.10:5060"]

[[trunk]]
name = "one"
server = "sip.one.example"
from = ["198.51.100.1"]

[[trunk]]
name = "two"  # second
server = "sip.two.example"
from = [
  "198.51.100.2",
]
max_calls = 10

[[extension]]
number = "101"
`

// TestConfigMistakes: every mistake is one line with the file, the line in it,
// the key and what would be right.
func TestConfigMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		want           []string
	}{
		{"unknown key", "server = \"sip.two", "sever = \"sip.two", []string{`centralka.toml:11: trunk[1].sever: unknown key; did you mean "server"?`}},
		{"unknown key, far from all", "max_calls", "colour", []string{"centralka.toml:15: trunk[1].colour: unknown key; known here: name, server"}},
		{"unknown section", "[[extension]]", "[[phone]]", []string{"centralka.toml:17: phone: unknown key; known here: vault, sip"}},
		{"several at once", "max_calls = 10", "max_calls = \"10\"\nsrtp = 1\n[rtp]\ndscp = 1.5\nports = \"1-2\"", []string{
			"centralka.toml:15: trunk[1].max_calls: must be a whole number, not a string (10)",
			"centralka.toml:16: trunk[1].srtp: must be a string in quotes, not a number (1)",
			"centralka.toml:18: rtp.dscp: must be a whole number, not a fraction (1.5)",
			`centralka.toml:19: rtp.ports: "1-2" is not a range`,
		}},
		{"a number for a duration", "[[extension]]", "[rtp]\ntimeout = 60\n[[extension]]", []string{`centralka.toml:18: rtp.timeout: must be a duration in quotes, such as "30s", not a number (60)`}},
		{"no duration", "[[extension]]", "[rtp]\ntimeout = \"60\"\n[[extension]]", []string{`centralka.toml:18: rtp.timeout: "60" is not a duration`}},
		{"an address without transport", "udp://", "", []string{`centralka.toml:2: sip.listen[0]: "192.0.2.10:5060" is not of the form udp://`}},
		{"a single section", "[[extension]]", "[extension]", []string{"centralka.toml:17: extension: must be one section [[extension]] for each"}},
		{"a section for a value", "[sip]", "sip = true\n[sip2]", []string{"centralka.toml:1: sip: must be a section [sip], not true or false (true)", "centralka.toml:2: sip2: unknown key"}},
		{"a list for a value", "\"sip.one.example\"", "[\"sip.one.example\"]", []string{"centralka.toml:6: trunk[0].server: must be a string in quotes, not a list"}},
		{"a bad element of a long list", `"198.51.100.2",`, `"198.51.100.2/33",`, []string{`centralka.toml:12: trunk[1].from[0]: "198.51.100.2/33" is not a network`}},
		{"not TOML", "name = \"two\"", "name = two", []string{"centralka.toml:10: trunk.name: "}},
		{"key twice", "max_calls = 10", "max_calls = 10\nmax_calls = 20", []string{"centralka.toml:16: "}},
		{"wrong against another section", `"198.51.100.2",`, `"198.51.100.1",`, []string{"centralka.toml:12: trunk[1].from[0]: 198.51.100.1 is also in trunk[0].from"}},
		{"no listener", `"udp://192.0.2.10:5060"`, "", []string{"centralka.toml:2: sip.listen: is missing"}},
		{"status off", "[sip]", "[web]\nstatus = \"\"\n[sip]", []string{"centralka.toml:2: web.status: is missing"}},
		{"no address", "[sip]", "[web]\nstatus = \"localhost:1\"\n[sip]", []string{"centralka.toml:2: web.status: \"localhost:1\" is not ADDRESS:PORT"}},
		{"one listener twice", "[sip]", "[web]\nstatus = \"127.0.0.1:8080\"\n[sip]", []string{"centralka.toml:2: web.status: \"127.0.0.1:8080\" is also web.public"}},
		{"console in the open", "[sip]", "[web]\nstaff = \"192.0.2.10:443\"\n[sip]", []string{"centralka.toml:2: web.staff: 192.0.2.10:443 is not loopback and needs"}},
		{"half a certificate", "[sip]", "[web]\nkey = \"key.pem\"\n[sip]", []string{"centralka.toml:1: web.certificate: web.certificate and web.key"}},
		{"recording", "[sip]", "[vault]\nrecording_failure = \"stop\"\n[sip]", []string{"centralka.toml:2: vault.recording_failure: \"stop\" is not known"}},
		{"no vault", "[sip]", "[vault]\ndir = \"\"\n[sip]", []string{"centralka.toml:2: vault.dir: is missing"}},
		{"no master key", "[sip]", "[vault]\nmaster_key = \"\"\n[sip]", []string{"centralka.toml:2: vault.master_key: is missing"}},
		{"master key inside", "[sip]", "[vault]\ndir = \"/srv/vault\"\nmaster_key = \"/srv/vault/keys/master.key\"\n[sip]", []string{"centralka.toml:3: vault.master_key: /srv/vault/keys/master.key is in the vault"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(goodConfig, tc.old, tc.new, 1)
			path := place(t, text, goodSecrets)
			_, err := LoadConfig(path)
			wantLines(t, err, filepath.Dir(path), tc.want)
		})
	}
}

func wantLines(t *testing.T, err error, dir string, want []string) {
	t.Helper()
	if err == nil {
		t.Fatal("it is taken")
	}
	lines := strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d mistakes:\n%s\nwant %d", len(lines), strings.Join(lines, "\n"), len(want))
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("%s\nwant %s…", lines[i], want[i])
		}
	}
}

func TestSecretsMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, secrets string
		want          []string
	}{
		{"missing password", "[trunk]\n", []string{`centralka.toml:18: extension[0].number: "101" has no password`}},
		{"unknown extension", goodSecrets + "109 = \"nobody's secret\"\n", []string{"secrets.toml:3: extension.109: there is no extension"}},
		{"unknown trunk", goodSecrets + "\n[trunk]\nthree = \"carrier's secret\"\n", []string{"secrets.toml:5: trunk.three: there is no trunk"}},
		{"unknown section", "[extensions]\n101 = \"correct horse battery\"\n", []string{`secrets.toml:1: extensions: unknown key; did you mean "extension"?`}},
		{"a number for a password", "[extension]\n101 = 4711\n", []string{"secrets.toml:2: extension.101: must be a string in quotes, not a number"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := place(t, goodConfig, tc.secrets)
			_, err := LoadConfig(path)
			wantLines(t, err, filepath.Dir(path), tc.want)
			if strings.Contains(err.Error(), "secret\"") || strings.Contains(err.Error(), "4711") || strings.Contains(err.Error(), "horse") {
				t.Errorf("a password is in the message: %v", err)
			}
		})
	}
}

func TestSecretsAreForTheOwnerAlone(t *testing.T) {
	path := place(t, goodConfig, goodSecrets)
	secrets := filepath.Join(filepath.Dir(path), "secrets.toml")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(secrets, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Remove(secrets); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "centralka.toml:21: secrets.file: open") {
		t.Errorf("missing file: %v", err)
	}
	// Nobody needs it.
	if err := os.WriteFile(path, []byte("[sip]\nlisten = [\"udp://192.0.2.10:5060\"]\n[secrets]\nfile = \"none.toml\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err != nil {
		t.Errorf("without phones: %v", err)
	}
}

// TestDefaultsOfElements: a key left out of one of several sections has its
// default, whatever the others say.
func TestDefaultsOfElements(t *testing.T) {
	cfg := load(t, goodConfig, goodSecrets)
	if one, two := cfg.Trunks[0], cfg.Trunks[1]; one.MaxCalls != 60 || one.SRTP != "off" || two.MaxCalls != 10 {
		t.Errorf("%+v, %+v", one, two)
	}
	if e := cfg.Extensions[0]; !e.Agent || e.Ready != "on-register" || e.MaxCalls != 2 {
		t.Errorf("%+v", e)
	}
	if cfg.Web.Status != "127.0.0.1:8082" || cfg.Dial.OutsidePrefix != "0" {
		t.Errorf("%+v", cfg)
	}
}

func TestRelativePathsBeginAtTheFile(t *testing.T) {
	path := place(t, "[vault]\ndir = \"data\"\n"+goodConfig, goodSecrets)
	cfg, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "data"); cfg.Vault.Dir != want {
		t.Errorf("%s, want %s", cfg.Vault.Dir, want)
	}
}

func TestKeyLines(t *testing.T) {
	text := strings.Join([]string{
		"a = 1",
		"b.c = '''",
		"x = 2",
		"[no]''' # [no]",
		"",
		"[ s . \"t u\" ]",
		"k = [ # ]",
		"  \"]\", '''",
		"]''', \"\"\"\\\"\"\"\"\"\", ",
		"  { z = 1 },",
		"]",
		"l = 'a\\'",
		"[[e]]",
		"n = \"#\"",
		"[e.sub]",
		"m = 1",
		"[[e]]",
		"n = 2 # [[e]]",
		"[[e.list]]",
		"o = 1",
	}, "\n")
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"a": 1, "b.c": 2, "s.t u": 6, "s.t u.k": 7, "s.t u.l": 12, "e": 13, "e[0]": 13, "e[0].n": 14,
		"e[0].sub": 15, "e[0].sub.m": 16, "e[1]": 17, "e[1].n": 18, "e[1].list": 19, "e[1].list[0]": 19, "e[1].list[0].o": 20}
	if got := keyLines(text); !maps.Equal(got, want) {
		for _, k := range slices.Sorted(maps.Keys(got)) {
			if want[k] != got[k] {
				t.Errorf("%q is on line %d, want %d", k, got[k], want[k])
			}
		}
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// FuzzParseConfig: no text panics or hangs, and every line that is named is one
// of the text.
func FuzzParseConfig(f *testing.F) {
	f.Add(goodConfig)
	f.Add("a.b = '''\n''''' # x\n[[c]]\n[c.d]\ne = { f = [\n1] }")
	f.Add("trunk = [{ name = \"x\" }, { nam = 2 }]")
	f.Fuzz(func(t *testing.T, text string) {
		file := parseTOML("f", text)
		cfg := DefaultConfig()
		faults := file.decode(&cfg)
		for _, fault := range faults {
			if fault.line < 0 || fault.line > strings.Count(text, "\n")+1 {
				t.Fatalf("%v is beyond the text", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		tel := cfg.Telephony()
		_ = tel.Validate()
		tel.Warnings()
		// What is taken reads back as the same.
		again := DefaultConfig()
		shown := show(t, cfg)
		if faults := parseTOML("f", shown).decode(&again); len(faults) > 0 || show(t, again) != shown {
			t.Fatalf("%v: reads back otherwise:\n%s", faults, shown)
		}
	})
}
