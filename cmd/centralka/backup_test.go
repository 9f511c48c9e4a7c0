package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// TestBackupAndRestore backs a vault up through the running serve and by itself,
// loses it, and restores it: days are written anew when they changed and not
// else, keys in their last days are not in the backup of the keys, and what was
// restored is whole.
func TestBackupAndRestore(t *testing.T) {
	today := ordinance.DayOf(time.Now())
	ending := today // the latest day whose last day comes within a week
	for ordinance.LastDay(ending).Compare(today.Next(store.KeyRest)) >= 0 {
		ending = ending.Next(-1)
	}
	dir, s := vaultWith(t, ending, today.Next(-2), today.Next(-1))
	base := t.TempDir()
	to, keys := filepath.Join(base, "backup"), filepath.Join(base, "keys")
	backup := func(state, want string, flags ...string) {
		t.Helper()
		code, out, errors := call(t, append(append([]string{"backup", "--dir", dir}, flags...), to)...)
		if code != 0 || out != want {
			t.Errorf("%s: %d %s%s, want %s", state, code, out, errors, want)
		}
	}
	c, err := listenControl(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- c.serve() }()
	backup("first", "3 days, 3 of them written anew; 0 that are over removed.\n")
	backup("nothing new", "3 days, 0 of them written anew; 0 that are over removed.\n")
	rec := store.CallRecord{ID: store.NewID(), Day: today, Direction: store.Incoming, Began: today.Start(), Cause: store.CauseAbandoned,
		Caller: store.Party{Number: "+48601234567", Presentation: "allowed"}}
	if err := s.PutCall(rec); err != nil {
		t.Fatal(err)
	}
	backup("a day more", "4 days, 1 of them written anew; 0 that are over removed.\n")
	rec.Revision++
	if err := s.PutCall(rec); err != nil {
		t.Fatal(err)
	}
	if code, _, errors := call(t, "backup", "--dir", dir, "--keys", to); code != 1 || !strings.Contains(errors, "keys belong elsewhere") {
		t.Errorf("keys beside the backup: %d %s", code, errors)
	}
	code, out, errs := call(t, "backup", "--dir", dir, "--keys", keys)
	if code != 0 || !strings.HasPrefix(out, "3 keys, 0 of ended days removed.") {
		t.Errorf("keys: %d %s%s", code, out, errs)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	backup("by itself, one day changed", "4 days, 1 of them written anew; 0 that are over removed.\n")
	stale := filepath.Join(keys, store.BackupKeyName(ending))
	over := filepath.Join(to, filepath.FromSlash(store.BackupDayName(today.Next(-400))))
	for _, name := range []string{stale, over} {
		if err := os.WriteFile(name, []byte("of a day that is over"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	backup("a day that is over", "4 days, 0 of them written anew; 1 that are over removed.\n")
	if code, out, errs = call(t, "backup", "--dir", dir, "--keys", keys); !strings.HasPrefix(out, "3 keys, 1 of ended days removed.") {
		t.Errorf("keys: %d %s%s", code, out, errs)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a key in its last days is still in the backup: %v", err)
	}
	// What lies in the backup tells nothing.
	err = filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if bytes.Contains(text, []byte("601234567")) || bytes.Contains(text, []byte("abandoned")) {
			t.Errorf("%s can be read", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	restored := filepath.Join(base, "restored")
	if code, out, errs := call(t, "restore", "--dir", restored, "--master-key", dir+".key", "--keys", keys, to); code != 0 ||
		out != "3 days restored, 1 without key or copy.\nlost: "+ending.String()+"\n" {
		t.Fatalf("restore: %d %s%s", code, out, errs)
	}
	if code, _, errs := call(t, "restore", "--dir", restored, "--master-key", dir+".key", "--keys", keys, to); code != 1 || !strings.Contains(errs, "not empty") {
		t.Errorf("restore over a vault: %d %s", code, errs)
	}
	if code, out, errs := call(t, "verify", "--dir", restored, "--master-key", dir+".key"); code != 0 || !strings.Contains(out, "2 recordings checked, ") || !strings.Contains(out, " 0 findings") {
		t.Errorf("verify: %d %s%s", code, out, errs)
	}
	again, err := store.Open(store.Config{Dir: restored, MasterKey: dir + ".key"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Find(rec.ID); err != nil || got.Caller.Number != rec.Caller.Number || got.Revision != 1 {
		t.Errorf("restored call %+v, %v", got, err)
	}
	if r, err := again.Reconcile(t.Context()); err != nil || r.Unexplained() != 0 {
		t.Errorf("reconciled %+v, %v", r, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}

	// A damaged copy is named, and does not keep the others.
	damaged := filepath.Join(to, filepath.FromSlash(store.BackupDayName(today.Next(-1))))
	st, err := os.Stat(damaged)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(damaged, st.Size()-100); err != nil {
		t.Fatal(err)
	}
	code, out, errs = call(t, "restore", "--dir", filepath.Join(base, "third"), "--master-key", dir+".key", "--keys", keys, to)
	if code != 1 || !strings.Contains(out, "2 days restored, 2 without") || !strings.Contains(errs, "day "+today.Next(-1).String()) {
		t.Errorf("damaged copy: %d %s%s", code, out, errs)
	}
	// Without the master key there is nothing.
	if code, _, errs := call(t, "restore", "--dir", filepath.Join(base, "fourth"), "--master-key", filepath.Join(base, "none"), "--keys", keys, to); code != 1 || !strings.Contains(errs, "master key") {
		t.Errorf("without master key: %d %s", code, errs)
	}
}
