package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// checkReport is what the check of all recordings and of the audit log found.
type checkReport struct {
	Recordings int             `json:"recordings"`
	Events     uint64          `json:"events"` // entries of the audit log
	Head       store.AuditHead `json:"head"`
	Findings   []string        `json:"findings"` // one line each
}

// checkVault hashes every recording and follows the audit log, which must hold
// the known heads.
func checkVault(ctx context.Context, s *store.Store, known []store.AuditHead, progress func(done, total int)) (checkReport, error) {
	r, err := s.Verify(ctx, progress)
	if err != nil {
		return checkReport{}, err
	}
	log, err := s.VerifyAudit(ctx, known, nil)
	if err != nil {
		return checkReport{}, err
	}
	report := checkReport{Recordings: r.Recordings, Events: log.Events, Head: log.Head}
	if log.Fault != "" {
		report.Findings = append(report.Findings, "audit log: "+log.Fault)
	}
	for _, f := range r.Findings {
		line := fmt.Sprintf("%v %v: %s", f.Day, f.ID, f.Problem)
		if f.Detail != "" {
			line += ": " + f.Detail
		}
		report.Findings = append(report.Findings, line)
	}
	return report, nil
}

// archive is the vault as commands other than serve reach it: through the control
// socket of a running serve, or by themselves.
type archive interface {
	preview(ctx context.Context, asOf ordinance.Day) ([]store.DueDay, error)
	// confirm lets a sweep that is held for its clock go on.
	confirm(ctx context.Context, by, reason string) (store.Confirmation, error)
	check(ctx context.Context, known []store.AuditHead, progress func(done, total int)) (checkReport, error)
	user(ctx context.Context, o userOrder) (userAnswer, error)
	backupSource
	close() error
}

// openVault reaches a vault.
func openVault(cfg store.Config) (archive, error) {
	dir := cfg.Dir
	if _, err := os.Stat(filepath.Join(dir, "centralka.db")); err != nil {
		return nil, fmt.Errorf("there is no vault in %s: %w", dir, err)
	}
	socket := filepath.Join(dir, controlSocket)
	conn, err := net.Dial("unix", socket)
	if err == nil {
		return newRemoteVault(socket), conn.Close()
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("ask the running centralka: %w", err)
	}
	s, err := store.Open(cfg)
	if err != nil {
		return nil, err
	}
	return localVault{s}, nil
}

// localVault holds the vault's lock itself.
type localVault struct{ store *store.Store }

func (v localVault) preview(_ context.Context, asOf ordinance.Day) ([]store.DueDay, error) {
	return v.store.Preview(asOf)
}

func (v localVault) confirm(_ context.Context, by, reason string) (store.Confirmation, error) {
	return v.store.ConfirmClock(by, reason)
}

func (v localVault) check(ctx context.Context, known []store.AuditHead, progress func(done, total int)) (checkReport, error) {
	return checkVault(ctx, v.store, known, progress)
}

func (v localVault) close() error { return v.store.Close() }

// remoteVault asks the running serve.
type remoteVault struct{ client *http.Client }

func newRemoteVault(socket string) remoteVault {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return remoteVault{&http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// ask makes a request; the caller closes the answer's body.
func (v remoteVault) ask(ctx context.Context, method, path string) (io.ReadCloser, error) {
	return v.request(ctx, method, path, nil)
}

// tell posts something; the caller closes the answer's body.
func (v remoteVault) tell(ctx context.Context, path string, what io.Reader) (io.ReadCloser, error) {
	return v.request(ctx, http.MethodPost, path, what)
}

func (v remoteVault) request(ctx context.Context, method, path string, content io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://centralka"+path, content)
	if err != nil {
		return nil, err
	}
	resp, err := v.send(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// send makes a request; an answer that is not OK is an error.
func (v remoteVault) send(req *http.Request) (*http.Response, error) {
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the running centralka: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.Join(fmt.Errorf("ask the running centralka: %s: %s", resp.Status, strings.TrimSpace(string(text))), err, resp.Body.Close())
	}
	return resp, nil
}

func (v remoteVault) preview(ctx context.Context, asOf ordinance.Day) ([]store.DueDay, error) {
	body, err := v.ask(ctx, http.MethodGet, "/retention/preview?as_of="+url.QueryEscape(asOf.String()))
	if err != nil {
		return nil, err
	}
	defer body.Close() // only read
	var due []store.DueDay
	if err := json.NewDecoder(body).Decode(&due); err != nil {
		return nil, fmt.Errorf("ask the running centralka: %w", err)
	}
	return due, nil
}

func (v remoteVault) confirm(ctx context.Context, by, reason string) (c store.Confirmation, err error) {
	form := url.Values{"by": {by}, "reason": {reason}}
	body, err := v.ask(ctx, http.MethodPost, "/retention/confirm?"+form.Encode())
	if err != nil {
		return c, err
	}
	defer body.Close() // only read
	if err := json.NewDecoder(body).Decode(&c); err != nil {
		return c, fmt.Errorf("ask the running centralka: %w", err)
	}
	return c, nil
}

func (v remoteVault) check(ctx context.Context, known []store.AuditHead, progress func(done, total int)) (checkReport, error) {
	query := url.Values{}
	for _, h := range known {
		query.Add("head", h.String())
	}
	body, err := v.ask(ctx, http.MethodPost, "/verify?"+query.Encode())
	if err != nil {
		return checkReport{}, err
	}
	defer body.Close() // only read
	for dec := json.NewDecoder(body); ; {
		var step checkStep
		switch err := dec.Decode(&step); {
		case err != nil:
			return checkReport{}, fmt.Errorf("the running centralka did not finish: %w", err)
		case step.Err != "":
			return checkReport{}, errors.New(step.Err)
		case step.Report != nil:
			return *step.Report, nil
		}
		progress(step.Done, step.Total)
	}
}

func (v remoteVault) close() error {
	v.client.CloseIdleConnections()
	return nil
}

// vaultFlags are the flags by which a command finds the vault.
type vaultFlags struct{ config, dir, key *string }

func addVaultFlags(fs *flag.FlagSet) vaultFlags {
	return vaultFlags{
		config: fs.String("config", defaultConfigPath, "configuration `file`"),
		dir:    fs.String("dir", "", "the vault's `folder`, instead of the configuration's"),
		key:    fs.String("master-key", "", "with -dir: the master key's `file`; DIR.key if it is not given"),
	}
}

// find tells which vault the flags name.
func (f vaultFlags) find() (store.Config, error) {
	log := slog.New(slog.DiscardHandler)
	if *f.dir != "" {
		return store.Config{Dir: *f.dir, MasterKey: *f.key, Log: log}, nil
	}
	cfg, err := LoadConfig(*f.config)
	return cfg.Vault.openConfig(log), err
}

func untilInterrupt() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// withVault runs what with the vault that the flags name, until an interrupt.
func withVault(flags vaultFlags, stderr io.Writer, what func(ctx context.Context, v archive) error) int {
	cfg, err := flags.find()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	ctx, cancel := untilInterrupt()
	defer cancel()
	v, err := openVault(cfg)
	if err == nil {
		err = errors.Join(what(ctx, v), v.close())
	}
	if err != nil {
		fmt.Fprintln(stderr, "centralka:", err)
		return exitFailed
	}
	return exitOK
}

// runPreview is the command retention preview (S0-b).
func runPreview(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("retention preview", "Lists the days that the sweep of a day will remove, with what they hold now.\nIt removes nothing. A running centralka is asked; otherwise the vault is opened.", stderr)
	vault := addVaultFlags(fs)
	asOf := fs.String("as-of", ordinance.DayOf(time.Now()).String(), "`day` of the sweep, YYYY-MM-DD")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	day, err := ordinance.ParseDay(*asOf)
	if err != nil {
		fmt.Fprintln(stderr, "centralka retention preview: -as-of:", err)
		return exitUsage
	}
	return withVault(vault, stderr, func(ctx context.Context, v archive) error {
		due, err := v.preview(ctx, day)
		if err != nil {
			return err
		}
		return writePreview(stdout, day, due)
	})
}

// runConfirm is the command retention confirm (S6-j).
func runConfirm(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("retention confirm", "Confirms that the clock is right, so that a sweep that is held for it goes on.\nLook at another clock first. Who confirmed, and why, is kept and printed.", stderr)
	vault := addVaultFlags(fs)
	reason := fs.String("reason", "", "`why` the clock is right although it was moved or is not synchronised")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	if strings.TrimSpace(*reason) == "" {
		fmt.Fprintln(stderr, "centralka retention confirm: -reason is missing")
		return exitUsage
	}
	by := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	return withVault(vault, stderr, func(ctx context.Context, v archive) error {
		c, err := v.confirm(ctx, by, *reason)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "Confirmed by %s at %s: %s.\nThe sweep goes on.\n", c.By, c.At.In(ordinance.Warsaw).Format("2006-01-02 15:04:05"), c.Held)
		return err
	})
}

func writePreview(w io.Writer, asOf ordinance.Day, due []store.DueDay) error {
	if len(due) == 0 {
		_, err := fmt.Fprintf(w, "The sweep of %v removes nothing.\n", asOf)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "day\tlast day\tcalls\trecordings\tsize\t\n")
	var sum store.DueDay
	for _, d := range due {
		fmt.Fprintf(tw, "%v\t%v\t%d\t%d\t%s\t\n", d.Day, d.LastDay, d.Calls, d.Recordings, megabytes(d.Bytes))
		sum.Calls += d.Calls
		sum.Recordings += d.Recordings
		sum.Bytes += d.Bytes
	}
	fmt.Fprintf(tw, "%d days\t\t%d\t%d\t%s\t\n", len(due), sum.Calls, sum.Recordings, megabytes(sum.Bytes))
	return tw.Flush()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// runVerify is the command verify (S1.3-k).
func runVerify(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("verify", "Hashes every recording again and compares it with its record; looks for files\nwithout record; follows the audit log and names its first bad place. A running\ncentralka is asked; otherwise the vault is opened. Ends with 1 if anything is\nnot as recorded.", stderr)
	vault := addVaultFlags(fs)
	var known []store.AuditHead
	fs.Func("audit-head", "`NUMBER:SHA256` of the audit log as it was logged or printed on a day; it must still be there; may be given several times", func(text string) error {
		h, err := store.ParseAuditHead(text)
		known = append(known, h)
		return err
	})
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	bad := 0
	code := withVault(vault, stderr, func(ctx context.Context, v archive) error {
		bar := newProgress(stderr)
		report, err := v.check(ctx, known, bar.show)
		bar.end()
		if err != nil {
			return err
		}
		bad = len(report.Findings)
		for _, f := range report.Findings {
			fmt.Fprintln(stdout, f)
		}
		_, err = fmt.Fprintf(stdout, "%d recordings checked, %d entries of the audit log followed, %d findings\naudit head %v\n", report.Recordings, report.Events, bad, report.Head)
		return err
	})
	if code == exitOK && bad > 0 {
		return exitFailed
	}
	return code
}
