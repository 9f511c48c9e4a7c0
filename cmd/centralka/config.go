package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"centralka/desk"
	"centralka/pbx"
	"centralka/store"
)

// Config is the configuration file, whole. Its comments, and those of the
// sections' types, are the manual: docs/centralka.example.toml is made of them.
type Config struct {
	// Where calls and recordings are kept.
	Vault VaultConfig `toml:"vault"`
	// Where the switch listens and how it names itself.
	SIP pbx.SIPConfig `toml:"sip"`
	// Voice.
	RTP pbx.RTPConfig `toml:"rtp"`
	// A line to a carrier; one section for each.
	Trunks []pbx.TrunkConfig `toml:"trunk"`
	// A number that a trunk delivers; one section for each. Others are answered 404.
	Numbers []pbx.NumberConfig `toml:"number"`
	// What every caller hears before anything else (Zarz. 284/17 §1 ust. 4).
	Announcement pbx.AnnouncementConfig `toml:"announcement"`
	// Where callers wait for an agent; one section for each.
	Queues []pbx.QueueConfig `toml:"queue"`
	// Opening hours, in Warsaw time; one section for each.
	Hours []desk.HoursConfig `toml:"hours"`
	// A desk phone's account; one section for each. Its password stands in the
	// secrets file.
	Extensions []pbx.ExtensionConfig `toml:"extension"`
	// What phones may dial.
	Dial pbx.DialConfig `toml:"dial"`
	// Who is listened to.
	Guard pbx.GuardConfig `toml:"guard"`
	// Web pages, each kind on a listener of its own.
	Web WebConfig `toml:"web"`
	// Passwords, in a file of their own.
	Secrets SecretsConfig `toml:"secrets"`

	passwords pbx.Secrets
}

// VaultConfig is [vault].
type VaultConfig struct {
	// Folder of calls and recordings, on a disk of this machine.
	Dir string `toml:"dir"`
	// File with the key to which the keys of the days are sealed: an age identity,
	// readable by its owner alone. Without it nothing in the vault can be read, so
	// keep a copy in a safe. If there is none when an empty vault is first opened, it
	// is made. A credential of systemd by the name of master.key comes before it.
	MasterKey string `toml:"master_key"`
	// What happens to calls when nothing can be recorded: "continue" without
	// recording and with an alarm, or "refuse" them.
	RecordingFailure string `toml:"recording_failure"`
}

// WebConfig is [web].
type WebConfig struct {
	// Residents: chat, form, declarations. "" is off. Without a certificate of its own
	// it speaks plain HTTP, for a reverse proxy in front of it.
	Public string `toml:"public"`
	// Staff: the console. "" is off. Neither door serves the other's pages, so that
	// they can be in different networks.
	Staff string `toml:"staff"`
	// Administrators: status page, metrics, health; without password, so keep it
	// on loopback or an administrators' network.
	Status string `toml:"status"`
	// Certificate chain of the console, a PEM file; needed unless staff is loopback.
	Certificate string `toml:"certificate"`
	// Private key of the console, a PEM file. Files that change are read anew.
	Key string `toml:"key"`
	// Certificate chain of the residents' pages, a PEM file.
	PublicCertificate string `toml:"public_certificate"`
	// Private key of the residents' pages, a PEM file.
	PublicKey string `toml:"public_key"`
}

// SecretsConfig is [secrets].
type SecretsConfig struct {
	// TOML file, readable by its owner alone (mode 0600): passwords of phones by
	// extension under [extension], of carriers by the trunk's name under [trunk].
	File string `toml:"file"`
}

// DefaultConfig returns what holds where the file says nothing.
func DefaultConfig() Config {
	tel := pbx.DefaultConfig()
	return Config{
		Vault:        VaultConfig{Dir: "/var/lib/centralka", MasterKey: "/etc/centralka/master.key", RecordingFailure: "continue"},
		SIP:          tel.SIP,
		RTP:          tel.RTP,
		Announcement: tel.Announcement,
		Dial:         tel.Dial,
		Guard:        tel.Guard,
		Web:          WebConfig{Public: "127.0.0.1:8080", Staff: "127.0.0.1:8081", Status: "127.0.0.1:8082"},
		Secrets:      SecretsConfig{File: "/etc/centralka/secrets.toml"},
	}
}

// masterKeyCredential is the name of the master key among systemd's
// credentials.
const masterKeyCredential = "master.key"

// openConfig is how the vault of a configuration is opened.
func (c VaultConfig) openConfig(log *slog.Logger) store.Config {
	key := c.MasterKey
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if name := filepath.Join(dir, masterKeyCredential); fileExists(name) {
			key = name
		}
	}
	return store.Config{Dir: c.Dir, MasterKey: key, Log: log}
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// elementDefaults are the defaults of sections that may be there several times.
func elementDefaults() map[reflect.Type]reflect.Value {
	m := map[reflect.Type]reflect.Value{}
	for _, d := range []any{pbx.DefaultTrunk(), pbx.DefaultQueue(), pbx.DefaultExtension()} {
		m[reflect.TypeOf(d)] = reflect.ValueOf(d)
	}
	return m
}

// Telephony returns the part that the switch reads.
func (c Config) Telephony() pbx.Config {
	return pbx.Config{
		SIP: c.SIP, RTP: c.RTP, Trunks: c.Trunks, Numbers: c.Numbers, Announcement: c.Announcement, Queues: c.Queues,
		Hours: c.Hours, Extensions: c.Extensions, Dial: c.Dial, Guard: c.Guard,
		RefuseUnrecorded: c.Vault.RecordingFailure == "refuse",
		Secrets:          c.passwords,
	}
}

// fault is one mistake in a file. Its text is one line: file:line: key: what is
// wrong.
type fault struct {
	file string
	line int // 0: not known
	key  string
	text string
}

func (f fault) Error() string {
	s := f.file
	if f.line > 0 {
		s += fmt.Sprintf(":%d", f.line)
	}
	if f.key != "" {
		s += ": " + f.key
	}
	return s + ": " + f.text
}

// joinFaults joins faults in the order of the file, nil if there are none.
func joinFaults(list []fault) error {
	slices.SortStableFunc(list, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(list))
	for i, f := range list {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// LoadConfig reads the file and its secrets file and checks everything. Its
// error names every mistake, one a line.
func LoadConfig(path string) (Config, error) {
	cfg, _, err := loadConfig(path)
	return cfg, err
}

// loadConfig is LoadConfig with the warnings besides.
func loadConfig(path string) (Config, []fault, error) {
	cfg := DefaultConfig()
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, nil, fmt.Errorf("read the configuration: %w", err)
	}
	file := parseTOML(path, string(data))
	if faults := file.decode(&cfg); len(faults) > 0 {
		return Config{}, nil, joinFaults(faults)
	}
	cfg.resolve(filepath.Dir(path))
	secrets, err := cfg.readSecrets()
	if err != nil {
		if f, ok := errors.AsType[fault](err); ok {
			return Config{}, nil, f
		}
		return Config{}, nil, fault{path, file.line("secrets.file"), "secrets.file", err.Error()}
	}

	var faults, doubts []fault
	place := func(m pbx.Mistake) fault {
		if key, ok := strings.CutPrefix(m.Key, "secrets."); ok && secrets != nil {
			return fault{cfg.Secrets.File, secrets.line(key), key, m.Text}
		}
		return fault{path, file.line(m.Key), m.Key, m.Text}
	}
	check := func(list *[]fault) func(key, format string, args ...any) {
		return func(key, format string, args ...any) {
			*list = append(*list, place(pbx.Mistake{Key: key, Text: fmt.Sprintf(format, args...)}))
		}
	}
	cfg.validate(check(&faults), check(&doubts))
	tel := cfg.Telephony()
	if err := tel.Validate(); err != nil {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return Config{}, nil, err
		}
		for _, e := range joined.Unwrap() {
			if m, ok := errors.AsType[pbx.Mistake](e); ok {
				faults = append(faults, place(m))
			}
		}
	}
	for _, m := range tel.Warnings() {
		doubts = append(doubts, place(m))
	}
	return cfg, doubts, joinFaults(faults)
}

// resolve makes paths absolute: relative ones begin at the file's folder.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.Vault.Dir, &c.Vault.MasterKey, &c.SIP.Certificate, &c.SIP.Key, &c.Announcement.File, &c.Announcement.Outgoing,
		&c.Web.Certificate, &c.Web.Key, &c.Web.PublicCertificate, &c.Web.PublicKey, &c.Secrets.File}
	for i := range c.Numbers {
		paths = append(paths, &c.Numbers[i].Announcement)
	}
	for i := range c.Queues {
		paths = append(paths, &c.Queues[i].PeriodicFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// readSecrets fills the passwords. A file that nobody needs may be absent; then
// the returned file is nil.
func (c *Config) readSecrets() (*tomlFile, error) {
	needed := len(c.Extensions) > 0 || slices.ContainsFunc(c.Trunks, func(t pbx.TrunkConfig) bool { return t.Register })
	f, err := os.Open(c.Secrets.File)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fault{c.Secrets.File, 0, "", fmt.Sprintf("has mode %04o and can be read by others; chmod 600 it", mode)}
	}
	data, err := os.ReadFile(c.Secrets.File)
	if err != nil {
		return nil, err
	}
	file := parseTOML(c.Secrets.File, string(data))
	file.secret = true
	if faults := file.decode(&c.passwords); len(faults) > 0 {
		return nil, faults[0]
	}
	return file, nil
}

// validate checks the sections that the switch does not read.
func (c *Config) validate(bad, warn func(key, format string, args ...any)) {
	if c.Vault.Dir == "" {
		bad("vault.dir", "is missing")
	}
	if c.Vault.MasterKey == "" {
		bad("vault.master_key", "is missing: it opens the vault")
	} else if inside, err := filepath.Rel(c.Vault.Dir, c.Vault.MasterKey); err == nil && filepath.IsLocal(inside) {
		bad("vault.master_key", "%s is in the vault that it opens: whoever gets the one gets the other", c.Vault.MasterKey)
	}
	if f := c.Vault.RecordingFailure; f != "continue" && f != "refuse" {
		bad("vault.recording_failure", "%q is not known: continue or refuse", f)
	}
	if c.Web.Status == "" {
		bad("web.status", "is missing: without it nobody sees an alarm")
	}
	if (c.Web.Certificate == "") != (c.Web.Key == "") {
		bad("web.certificate", "web.certificate and web.key are given together or not at all")
	}
	if (c.Web.PublicCertificate == "") != (c.Web.PublicKey == "") {
		bad("web.public_certificate", "web.public_certificate and web.public_key are given together or not at all")
	}
	seen := map[string]string{}
	for _, l := range []struct{ key, addr string }{{"web.public", c.Web.Public}, {"web.staff", c.Web.Staff}, {"web.status", c.Web.Status}} {
		if l.addr == "" {
			continue
		}
		ap, err := netip.ParseAddrPort(l.addr)
		if err != nil {
			bad(l.key, "%q is not ADDRESS:PORT with a numeric address", l.addr)
			continue
		}
		if first := seen[l.addr]; first != "" && ap.Port() != 0 {
			bad(l.key, "%q is also %s; each kind of page has a listener of its own", l.addr, first)
		}
		seen[l.addr] = l.key
		switch loopback := ap.Addr().IsLoopback(); {
		case l.key == "web.status" && !loopback:
			warn(l.key, "%s has no password: whoever reaches it sees the state of the switch", l.addr)
		case l.key == "web.staff" && !loopback && c.Web.Certificate == "":
			bad(l.key, "%s is not loopback and needs web.certificate and web.key", l.addr)
		}
	}
}
