package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// Names in a backup. Keys have a folder of their own, elsewhere.
const BackupCentralName = centralFile + ".age"

// BackupDayName is the file of a day in a backup.
func BackupDayName(day ordinance.Day) string { return daysDir + "/" + day.String() + ".tar.age" }

// BackupKeyName is the file of a day's key in a backup of the keys.
func BackupKeyName(day ordinance.Day) string { return day.String() + ".age" }

// RestoreConfig says what is restored, and where.
type RestoreConfig struct {
	From      string // the backup
	Keys      string // the backup of the keys
	Dir       string // the vault; absent or empty
	MasterKey string
	// Progress, if not nil, is told how many days of how many are done.
	Progress func(done, total int)
}

// RestoreReport tells what came of it.
type RestoreReport struct {
	Days int
	// Lost are days that were online when the backup was made and of which there
	// is no key or no copy. Those in their last days are among them: their keys
	// are in no backup.
	Lost []ordinance.Day
}

// Restore makes a vault of a backup. Days whose term is over by the index in it
// are not restored, whatever files there are; nor can they be read. The first
// start of the vault sweeps what has become due since.
func Restore(ctx context.Context, cfg RestoreConfig) (report RestoreReport, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore %s: %w", cfg.Dir, err)
		}
	}()
	master, err := readMaster(Config{Dir: cfg.Dir, MasterKey: cfg.MasterKey}.masterPath())
	if err != nil {
		return report, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return report, err
	}
	if names, err := os.ReadDir(cfg.Dir); err != nil || len(names) > 0 {
		return report, errors.Join(errors.New("it is not empty"), err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return report, err
	}
	dir, err := os.Open(cfg.Dir)
	if err != nil {
		return report, errors.Join(err, root.Close())
	}
	r := &restorer{cfg: cfg, master: master, root: root}
	defer func() { err = errors.Join(err, syncfs(dir), dir.Close(), root.Close()) }()
	if err := r.central(); err != nil {
		return report, err
	}
	l, err := openLedger(root, centralFile, centralBuckets, nil)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return r.days(ctx, l)
}

type restorer struct {
	cfg    RestoreConfig
	master *age.X25519Identity
	root   *os.Root
}

// central restores centralka.db and makes the folders.
func (r *restorer) central() error {
	f, err := os.Open(filepath.Join(r.cfg.From, BackupCentralName))
	if err != nil {
		return err
	}
	defer f.Close() // only read
	content, err := age.Decrypt(f, r.master)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.Name(), err)
	}
	if err := writeNew(r.root, centralFile, content); err != nil {
		return fmt.Errorf("from %s: %w", f.Name(), err)
	}
	return errors.Join(r.root.Mkdir(daysDir, 0o700), r.root.Mkdir(keysDir, 0o700))
}

// days restores the days that the index lists as online.
func (r *restorer) days(ctx context.Context, l *ledger) (report RestoreReport, err error) {
	var kept []retentionLine
	err = l.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRetention).ForEach(func(_, v []byte) error {
			var line retentionLine
			if err := json.Unmarshal(v, &line); err != nil {
				return err
			}
			if line.State == stateKept && line.Made {
				kept = append(kept, line)
			}
			return nil
		})
	})
	if err != nil {
		return report, err
	}
	var errs []error
	for i, line := range kept {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		err := r.day(line)
		if err == nil {
			report.Days++
		} else {
			// The day's folder must not be taken for whole: what is there goes
			// again, and the line says that nothing was made.
			if !notExist(err) {
				errs = append(errs, fmt.Errorf("day %v: %w", line.Day, err))
			}
			report.Lost = append(report.Lost, line.Day)
			errs = append(errs, r.root.RemoveAll(dayDir(line.Day)), r.root.RemoveAll(keyPath(line.Day)))
			line.Made, line.Settled, line.Recipient = false, false, ""
			errs = append(errs, l.update(func(tx *bbolt.Tx) error {
				return putJSON(tx.Bucket(bucketRetention), []byte(line.Day.String()), line)
			}))
		}
		if r.cfg.Progress != nil {
			r.cfg.Progress(i+1, len(kept))
		}
	}
	return report, errors.Join(errs...)
}

// day restores one day. A copy or key that is not there is a fs.ErrNotExist.
func (r *restorer) day(line retentionLine) error {
	sealed, err := os.ReadFile(filepath.Join(r.cfg.Keys, BackupKeyName(line.Day)))
	if err != nil {
		return err
	}
	key, err := openKey(sealed, r.master)
	if err != nil {
		return fmt.Errorf("its key: %w", err)
	}
	if key.Recipient().String() != line.Recipient {
		return errors.New("the key in the backup is another day's")
	}
	f, err := os.Open(filepath.Join(r.cfg.From, filepath.FromSlash(BackupDayName(line.Day))))
	if err != nil {
		return err
	}
	defer f.Close() // only read
	content, err := age.Decrypt(f, key)
	if err != nil {
		return err
	}
	for _, sub := range []string{"", journalsDir, recordingsDir, tmpDir, quarantineDir} {
		if err := r.root.Mkdir(path.Join(dayDir(line.Day), sub), 0o700); err != nil {
			return err
		}
	}
	in := tar.NewReader(content)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return unexpected(err)
		}
		sub, name, _ := strings.Cut(h.Name, "/")
		inside := slices.Contains([]string{journalsDir, recordingsDir, quarantineDir}, sub) && name == path.Base(name) && name != "." && name != ".."
		if h.Typeflag != tar.TypeReg || h.Name != "day.db" && !inside {
			return fmt.Errorf("%q does not belong into a backup", h.Name)
		}
		if err := writeNew(r.root, path.Join(dayDir(line.Day), h.Name), in); err != nil {
			return unexpected(err)
		}
	}
	// To the end: what was cut off there is noticed.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return unexpected(err)
	}
	return writeNew(r.root, keyPath(line.Day), strings.NewReader(string(sealed)))
}

// unexpected is an error that is never taken for a file that is not there.
func unexpected(err error) error { return fmt.Errorf("read its copy: %v", err) }

func writeNew(root *os.Root, name string, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
