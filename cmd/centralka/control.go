package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// controlSocket is its name in the vault's folder.
const controlSocket = "control.sock"

// progressEvery bounds how often a running check tells where it is.
const progressEvery = 200 * time.Millisecond

// control answers the other commands while serve holds the vault's lock: HTTP
// over a socket that only the vault's owner can open. Each request has a
// goroutine; close waits for them.
type control struct {
	store    *store.Store
	log      *slog.Logger
	ln       net.Listener
	srv      *http.Server
	requests sync.WaitGroup
	stop     context.CancelFunc
}

// checkStep is a line of the answer to a check: where it is, and at the end
// what was found or why it ended early.
type checkStep struct {
	Done   int          `json:"done"`
	Total  int          `json:"total"`
	Report *checkReport `json:"report,omitempty"`
	Err    string       `json:"error,omitempty"`
}

// listenControl opens the socket. The caller holds the vault's lock, so that a
// socket that is there already is a dead one.
func listenControl(dir string, s *store.Store, log *slog.Logger) (*control, error) {
	path := filepath.Join(dir, controlSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Until here the folder's mode 0700 keeps others out.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), ln.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &control{store: s, log: log, ln: ln, stop: stop}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /retention/preview", c.counted(c.servePreview))
	mux.HandleFunc("GET /backup/days", c.counted(c.serveBackupDays))
	mux.HandleFunc("GET /backup/day", c.counted(c.serveBackupDay))
	mux.HandleFunc("GET /backup/central", c.counted(c.serveBackupCentral))
	mux.HandleFunc("GET /backup/keys", c.counted(c.serveBackupKeys))
	mux.HandleFunc("POST /retention/confirm", c.counted(c.serveConfirm))
	mux.HandleFunc("POST /verify", c.counted(c.serveVerify))
	mux.HandleFunc("POST /user", c.counted(c.serveUser))
	c.srv = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return c, nil
}

// serve answers until close.
func (c *control) serve() error {
	if err := c.srv.Serve(c.ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close ends what goes on and removes the socket.
func (c *control) close() error {
	c.stop()
	err := c.srv.Close()
	if e := c.ln.Close(); e != nil && !errors.Is(e, net.ErrClosed) { // if serve never ran
		err = errors.Join(err, e)
	}
	c.requests.Wait()
	return err
}

func (c *control) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		defer c.requests.Done()
		h(w, r)
	}
}

func (c *control) servePreview(w http.ResponseWriter, r *http.Request) {
	asOf, err := ordinance.ParseDay(r.URL.Query().Get("as_of"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	due, err := c.store.Preview(asOf)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(due); err != nil {
		c.log.Warn("control socket: answer cut off", "err", err)
	}
}

func (c *control) serveConfirm(w http.ResponseWriter, r *http.Request) {
	confirmed, err := c.store.ConfirmClock(r.URL.Query().Get("by"), r.URL.Query().Get("reason"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(confirmed); err != nil {
		c.log.Warn("control socket: answer cut off", "err", err)
	}
}

func (c *control) serveVerify(w http.ResponseWriter, r *http.Request) {
	var known []store.AuditHead
	for _, text := range r.URL.Query()["head"] {
		h, err := store.ParseAuditHead(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		known = append(known, h)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	send := func(s checkStep) {
		err := out.Encode(s)
		if err == nil {
			err = flush.Flush()
		}
		if err != nil {
			cancel() // whoever asked has gone
		}
	}
	var last time.Time
	report, err := checkVault(ctx, c.store, known, func(done, total int) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			send(checkStep{Done: done, Total: total})
		}
	})
	if err != nil {
		send(checkStep{Err: err.Error()})
		return
	}
	send(checkStep{Report: &report})
}

func (c *control) serveUser(w http.ResponseWriter, r *http.Request) {
	var o userOrder
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a, err := obey(c.store, o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a); err != nil {
		c.log.Warn("control socket: answer cut off", "err", err)
	}
}
