package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// runServe is the command serve: the switch, until a signal. The first SIGINT
// or SIGTERM drains, the second hangs up, SIGHUP reads the configuration again.
func runServe(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("serve", "Runs the switch. The first SIGINT or SIGTERM lets calls finish, the second hangs\nup; SIGHUP reads the configuration again.", stderr)
	path := fs.String("config", defaultConfigPath, "configuration `file`")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	cfg, doubts, err := loadConfig(*path)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	sys, err := newSystem(cfg, log)
	if err != nil {
		fmt.Fprintln(stderr, "centralka:", err)
		return 1
	}

	sys.note(cfg, doubts)
	stop, stopNow := context.WithCancel(context.Background())
	defer stopNow()
	hurry, hurryNow := context.WithCancel(context.Background())
	defer hurryNow()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case sig := <-signals:
				switch {
				case sig == syscall.SIGHUP:
					sys.reload(*path)
				case stop.Err() == nil:
					stopNow()
				default:
					hurryNow()
				}
			}
		}
	}()
	log.Info("centralka serves", "version", version(), "listen", fmt.Sprint(cfg.SIP.Listen), "status", "http://"+sys.statusLn.Addr().String()+"/stan")
	if err := sys.run(stop, hurry); err != nil {
		fmt.Fprintln(stderr, "centralka:", err)
		return 1
	}
	log.Info("stopped")
	return 0
}

// reload takes over a changed configuration; a wrong one changes nothing.
func (s *system) reload(path string) {
	cfg, doubts, err := loadConfig(path)
	if err != nil {
		s.log.Error("configuration not reloaded", "err", err)
		return
	}
	restart, err := s.sw.Reload(cfg.Telephony())
	if err != nil {
		s.log.Error("configuration not reloaded", "err", err)
		return
	}
	if cfg.Vault != s.cfg.Vault {
		restart = append(restart, "vault")
	}
	if cfg.Web != s.cfg.Web {
		restart = append(restart, "web")
	}
	s.note(cfg, doubts)
	s.log.Info("configuration reloaded", "needs_restart", restart)
}
