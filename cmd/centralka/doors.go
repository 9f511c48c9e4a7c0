package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"centralka/pbx"
	"centralka/web"
)

// maxConnections bounds those of a door at a time; more wait.
const maxConnections = 512

// door is a listener of pages, with or without TLS.
type door struct {
	name string
	srv  *http.Server
	ln   net.Listener
}

// runningConfig is what the console shows of the configuration: what runs now.
type runningConfig struct {
	telephony pbx.Config
	doubts    []string
}

// note takes over a configuration that runs from now on.
func (s *system) note(cfg Config, doubts []fault) {
	r := runningConfig{telephony: cfg.Telephony()}
	for _, d := range doubts {
		r.doubts = append(r.doubts, d.Error())
	}
	s.running.Store(&r)
}

// openDoors opens the listeners of the console and of the residents' pages, those
// that are configured.
func (s *system) openDoors() error {
	s.note(s.cfg, nil)
	w := s.cfg.Web
	staff := web.NewStaff(web.StaffConfig{
		Store: s.store, Secure: w.Certificate != "", Panics: &s.panics, Log: s.log, Snapshot: s.snapshot, Ladder: s.sw.Ladder,
		Telephony: func() pbx.Config { return s.running.Load().telephony },
		Doubts:    func() []string { return s.running.Load().doubts },
	})
	public := web.NewPublic(web.PublicConfig{Panics: &s.panics, Log: s.log})
	for _, d := range []struct {
		name, addr, chain, key string
		pages                  http.Handler
	}{
		{"staff", w.Staff, w.Certificate, w.Key, staff},
		{"public", w.Public, w.PublicCertificate, w.PublicKey, public},
	} {
		if d.addr == "" {
			continue
		}
		opened, err := openDoor(d.name, d.addr, d.chain, d.key, d.pages, s.log)
		if err != nil {
			return fmt.Errorf("listen for the %s pages: %w", d.name, err)
		}
		s.doors = append(s.doors, opened)
	}
	return nil
}

func openDoor(name, addr, chain, key string, pages http.Handler, log *slog.Logger) (*door, error) {
	var settings *tls.Config
	if chain != "" {
		c, err := web.ReadCertificate(chain, key, log)
		if err != nil {
			return nil, err
		}
		settings = c.Config()
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &door{name: name, ln: netutil.LimitListener(ln, maxConnections), srv: &http.Server{
		Handler: pages, TLSConfig: settings,
		// An answer's own deadline is the door's: streams take longer than pages.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		// What a client's TLS or HTTP does wrong is its own affair, and its address is
		// not logged.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}}, nil
}

// serve answers until close.
func (d *door) serve() error {
	err := error(nil)
	if d.srv.TLSConfig != nil {
		err = d.srv.ServeTLS(d.ln, "", "")
	} else {
		err = d.srv.Serve(d.ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close lets requests in progress end within a second.
func (d *door) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := d.srv.Shutdown(ctx)
	if err != nil {
		err = d.srv.Close()
	}
	if e := d.ln.Close(); e != nil && !errors.Is(e, net.ErrClosed) { // if serve never ran
		err = errors.Join(err, e)
	}
	return err
}
