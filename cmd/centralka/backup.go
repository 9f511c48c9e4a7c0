package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// manifestName is the file in a backup that tells what the others hold.
const manifestName = "manifest.json"

// manifest lists the days in a backup. It names no one.
type manifest struct {
	Master string               `json:"master"` // the vault's
	Made   time.Time            `json:"made"`
	Days   map[string]copiedDay `json:"days"`
}

type copiedDay struct {
	State  string `json:"state"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// backupSource is where a backup comes from: a vault, open here or in the
// running serve. What it writes is sealed already.
type backupSource interface {
	backupDays(ctx context.Context) (list []store.DayCopy, master string, err error)
	backupDay(ctx context.Context, day ordinance.Day, w io.Writer) (store.DayCopy, error)
	backupCentral(ctx context.Context, w io.Writer) error
	backupKeys(ctx context.Context) ([]store.KeyCopy, error)
}

// backupReport tells what a backup did.
type backupReport struct{ days, written, removed int }

// backupTo brings the backup in dir up to date: days that changed are written
// anew, those that are no more online are removed. centralka.db comes last, so
// that its index knows every day that is there.
func backupTo(ctx context.Context, v backupSource, dir string, progress func(done, total int)) (r backupReport, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "days"), 0o700); err != nil {
		return r, err
	}
	days, master, err := v.backupDays(ctx)
	if err != nil {
		return r, err
	}
	m, err := readManifest(dir)
	if err != nil {
		return r, err
	}
	if m.Master != "" && m.Master != master {
		return r, fmt.Errorf("%s holds the backup of another vault (%s)", dir, m.Master)
	}
	m.Master = master
	var done, total int64
	for _, d := range days {
		total += d.Bytes
	}
	online := make(map[string]bool)
	for _, d := range days {
		name := d.Day.String()
		online[name] = true
		file := filepath.Join(dir, filepath.FromSlash(store.BackupDayName(d.Day)))
		if st, err := os.Stat(file); err != nil || st.Size() != m.Days[name].Size || m.Days[name].State != d.State.String() {
			var state store.DayCopy
			sum, size, err := writeWhole(file, func(w io.Writer) (err error) {
				state, err = v.backupDay(ctx, d.Day, w)
				return err
			})
			if err != nil {
				return r, err
			}
			m.Days[name] = copiedDay{state.State.String(), size, sum}
			if err := m.write(dir); err != nil {
				return r, err
			}
			r.written++
		}
		r.days++
		done += d.Bytes
		progress(int(done/1e6), int(total/1e6))
	}
	if r.removed, err = removeOver(dir, online, m); err != nil {
		return r, err
	}
	central := func(w io.Writer) error { return v.backupCentral(ctx, w) }
	if _, _, err := writeWhole(filepath.Join(dir, store.BackupCentralName), central); err != nil {
		return r, err
	}
	m.Made = time.Now().UTC().Round(0)
	return r, m.write(dir)
}

// removeOver removes the copies of days that are not online any more, which
// nobody can read.
func removeOver(dir string, online map[string]bool, m manifest) (removed int, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "days"))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		day, err := ordinance.ParseDay(strings.TrimSuffix(e.Name(), ".tar.age"))
		if err != nil || online[day.String()] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, "days", e.Name())); err != nil {
			return removed, err
		}
		delete(m.Days, day.String())
		removed++
	}
	return removed, nil
}

func readManifest(dir string) (m manifest, err error) {
	m.Days = make(map[string]copiedDay)
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read %s: %w", filepath.Join(dir, manifestName), err)
	}
	return m, nil
}

func (m manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	_, _, err = writeWhole(filepath.Join(dir, manifestName), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	return err
}

// writeWhole puts what write writes in place of a file, durably and as a whole
// or not at all.
func writeWhole(name string, write func(io.Writer) error) (sum string, size int64, err error) {
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", 0, err
	}
	hash := sha256.New()
	err = write(io.MultiWriter(f, hash))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name+".tmp", name)
	} else {
		err = errors.Join(err, os.Remove(name+".tmp"))
	}
	if err == nil {
		err = syncFolder(filepath.Dir(name))
	}
	return hex.EncodeToString(hash.Sum(nil)), size, err
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// backupKeysTo brings the backup of the keys in dir up to date: a key in its last
// days, and one that is destroyed, is overwritten and removed.
func backupKeysTo(ctx context.Context, v backupSource, dir string) (kept, removed int, err error) {
	if _, err := os.Stat(filepath.Join(dir, store.BackupCentralName)); err == nil {
		return 0, 0, fmt.Errorf("%s holds a backup of the vault; keys belong elsewhere, or they are of no use", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, err
	}
	keys, err := v.backupKeys(ctx)
	if err != nil {
		return 0, 0, err
	}
	names := make(map[string]bool)
	for _, k := range keys {
		name := store.BackupKeyName(k.Day)
		names[name] = true
		_, _, err := writeWhole(filepath.Join(dir, name), func(w io.Writer) error {
			_, err := w.Write(k.Sealed)
			return err
		})
		if err != nil {
			return 0, 0, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), ".age")
		if _, err := ordinance.ParseDay(stem); !ok || err != nil || names[e.Name()] {
			continue
		}
		if err := shred(filepath.Join(dir, e.Name())); err != nil {
			return len(keys), removed, err
		}
		removed++
	}
	return len(keys), removed, syncFolder(dir)
}

// shred overwrites a small file and removes it.
func shred(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		noise := make([]byte, st.Size())
		rand.Read(noise) // never fails (crypto/rand, Go 1.24)
		_, err = f.Write(noise)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(name))
}

// runBackup is the command backup.
func runBackup(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("backup", "Brings the backup in the folder DIR up to date while the switch runs: days that\nchanged are written anew, each sealed to its own key. With -keys it is the keys\nthat are backed up, without those in their last seven days: keep them in another\nplace, and no copy of them for longer than seven days.\n\nUsage: centralka backup [flags] DIR", stderr)
	vault := addVaultFlags(fs)
	keys := fs.Bool("keys", false, "back up the keys of the days, not the days")
	dir, code, ok := parseFolder(fs, args, stderr)
	if !ok {
		return code
	}
	return withVault(vault, stderr, func(ctx context.Context, v archive) error {
		if *keys {
			kept, removed, err := backupKeysTo(ctx, v, dir)
			if err != nil {
				return fmt.Errorf("back up the keys: %w", err)
			}
			_, err = fmt.Fprintf(stdout, "%d keys, %d of ended days removed. Keep no copy of this folder for longer than %d days.\n", kept, removed, store.KeyRest)
			return err
		}
		bar := newProgress(stderr)
		r, err := backupTo(ctx, v, dir, bar.show)
		bar.end()
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		_, err = fmt.Fprintf(stdout, "%d days, %d of them written anew; %d that are over removed.\n", r.days, r.written, r.removed)
		return err
	})
}

// runRestore is the command restore.
func runRestore(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("restore", "Makes a vault of the backup in the folder DIR, which is only read. The vault's\nfolder must be absent or empty, the master key in place.\n\nUsage: centralka restore [flags] DIR", stderr)
	vault := addVaultFlags(fs)
	keys := fs.String("keys", "", "`folder` of the backup of the keys")
	dir, code, ok := parseFolder(fs, args, stderr)
	if !ok {
		return code
	}
	if *keys == "" {
		fmt.Fprintln(stderr, "centralka restore: -keys is missing: without keys nothing can be read")
		return exitUsage
	}
	cfg, err := vault.find()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	ctx, cancel := untilInterrupt()
	defer cancel()
	bar := newProgress(stderr)
	r, err := store.Restore(ctx, store.RestoreConfig{From: dir, Keys: *keys, Dir: cfg.Dir, MasterKey: cfg.MasterKey, Progress: bar.show})
	bar.end()
	fmt.Fprintf(stdout, "%d days restored, %d without key or copy.\n", r.Days, len(r.Lost))
	for _, d := range r.Lost {
		fmt.Fprintf(stdout, "lost: %v\n", d)
	}
	if err != nil {
		fmt.Fprintln(stderr, "centralka:", err)
		return exitFailed
	}
	return exitOK
}
