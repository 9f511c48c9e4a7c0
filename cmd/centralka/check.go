package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"

	"centralka/ordinance"
	"centralka/pbx"
	"centralka/store"
)

// runCheck is the command check: everything that can be known before serving.
// The values in effect go to stdout, as a file that could be used again;
// mistakes and warnings to stderr.
func runCheck(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("check", "Checks a configuration with the files that it names, and prints the values in\neffect, passwords not shown. Mistakes and warnings are one line each.", stderr)
	path := fs.String("config", defaultConfigPath, "configuration `file`")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	cfg, doubts, err := loadConfig(*path)
	for _, d := range doubts {
		fmt.Fprintln(stderr, "warning:", d)
	}
	if err == nil {
		err = checkFiles(*path, cfg)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	if err := errors.Join(writeConfig(stdout, cfg, nil), writeSecrets(stdout, cfg)); err != nil {
		fmt.Fprintln(stderr, "centralka check:", err)
		return exitFailed
	}
	return exitOK
}

// checkFiles reads what the configuration names: announcements and
// certificates.
func checkFiles(path string, cfg Config) error {
	var faults []fault
	bad := func(key string, err error) {
		if err != nil {
			faults = append(faults, fault{file: path, key: key, text: err.Error()})
		}
	}
	if cfg.Announcement.File == "" {
		_, err := ordinance.Statutory()
		bad("announcement", err)
	} else {
		bad("announcement.file", checkAudio(cfg.Announcement.File, cfg.Announcement.SHA256))
	}
	if f := cfg.Announcement.Outgoing; f != "" {
		bad("announcement.outgoing", checkAudio(f, ""))
	}
	for i, n := range cfg.Numbers {
		if n.Announcement != "" {
			bad(fmt.Sprintf("number[%d].announcement", i), checkAudio(n.Announcement, ""))
		}
	}
	for i, q := range cfg.Queues {
		if q.Whisper != "" {
			_, err := pbx.ReadWhisper(q.Whisper)
			bad(fmt.Sprintf("queue[%d].whisper", i), err)
		}
	}
	for _, c := range []struct{ key, certificate, private string }{
		{"sip.certificate", cfg.SIP.Certificate, cfg.SIP.Key},
		{"web.certificate", cfg.Web.Certificate, cfg.Web.Key},
		{"web.public_certificate", cfg.Web.PublicCertificate, cfg.Web.PublicKey},
	} {
		if c.certificate != "" {
			_, err := tls.LoadX509KeyPair(c.certificate, c.private)
			bad(c.key, err)
		}
	}
	if st, err := os.Stat(cfg.Vault.Dir); err == nil && !st.IsDir() {
		bad("vault.dir", fmt.Errorf("%s is not a folder", cfg.Vault.Dir))
	} else if !errors.Is(err, os.ErrNotExist) { // serve makes it
		bad("vault.dir", err)
	}
	bad("vault.master_key", store.CheckMasterKey(cfg.Vault.openConfig(nil).MasterKey))
	return joinFaults(faults)
}

func checkAudio(file, sha256 string) error {
	wav, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := ordinance.CheckAnnouncement(wav, sha256); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
