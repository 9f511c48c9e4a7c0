package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"centralka/desk"
	"centralka/media"
	"centralka/pbx"
	"centralka/recorder"
	"centralka/store"
	"centralka/web"
)

// portDrain is how long an RTP port rests before its next call: longer than
// any packet of the last one is on its way.
const portDrain = 5 * time.Second

// system is the running program: what serve and demo start.
type system struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	recorder *recorder.Recorder
	engine   media.Engine
	pool     *desk.Pool
	sw       *pbx.Switch
	status   *http.Server
	statusLn net.Listener
	doors    []*door
	running  atomic.Pointer[runningConfig]
	panics   atomic.Int64 // web requests that an internal error ended
	control  *control
	began    time.Time
	slow     atomic.Pointer[slowFacts]
}

// newSystem opens the vault and the listeners of the status page and builds the
// rest. Nothing serves calls before run.
func newSystem(cfg Config, log *slog.Logger) (_ *system, err error) {
	s := &system{cfg: cfg, log: log, began: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.store, err = store.Open(cfg.Vault.openConfig(log)); err != nil {
		return nil, err
	}
	s.recorder = recorder.New(recorder.Config{Store: s.store, Log: log})
	s.pool = desk.NewPool(log)
	if s.engine, err = newEngine(cfg, log); err != nil {
		return nil, err
	}
	if s.sw, err = pbx.New(cfg.Telephony(), pbx.Parts{Store: s.store, Recorder: s.recorder, Engine: s.engine, Pool: s.pool, Log: log}); err != nil {
		return nil, err
	}
	if s.statusLn, err = net.Listen("tcp", cfg.Web.Status); err != nil {
		return nil, fmt.Errorf("listen for the status page: %w", err)
	}
	s.status = &http.Server{
		Handler:           web.NewStatus(web.StatusConfig{Snapshot: s.snapshot, Version: version()}),
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	if err := s.openDoors(); err != nil {
		return nil, err
	}
	if s.control, err = listenControl(cfg.Vault.Dir, s.store, log); err != nil {
		return nil, err
	}
	return s, nil
}

// newEngine makes the packet loops, or the portable engine where they cannot
// run.
func newEngine(cfg Config, log *slog.Logger) (media.Engine, error) {
	c := media.LoopConfig{
		Addr:    mediaBind(cfg.SIP.Listen),
		PortMin: cfg.RTP.Ports.First, PortMax: cfg.RTP.Ports.Last,
		Drain: portDrain, Timeout: cfg.RTP.Timeout, DSCP: cfg.RTP.DSCP,
		CNAME: cfg.SIP.UserAgent, Log: log,
	}
	engine, err := media.NewLoop(c)
	if err == nil {
		return engine, nil
	}
	log.Warn("calls cost more processor time: the portable media engine runs", "err", err)
	return media.NewPortable(c.Portable())
}

// mediaBind is the address that RTP sockets are bound to: the listeners' one
// address, or any if they have several; with both families a socket serves both.
func mediaBind(listeners []pbx.Listener) netip.Addr {
	addr := listeners[0].Addr.Addr()
	bind := addr
	for _, l := range listeners {
		switch a := l.Addr.Addr(); {
		case a.Is4() != addr.Is4():
			return netip.IPv6Unspecified()
		case a != addr && a.Is4():
			bind = netip.IPv4Unspecified()
		case a != addr:
			bind = netip.IPv6Unspecified()
		}
	}
	return bind
}

// run serves until stop is done, then drains: new calls are refused and calls
// that go on may end by themselves until hurry is done. The order of shutdown
// is this function: calls, recordings, vault, status page.
func (s *system) run(stop, hurry context.Context) error {
	base := context.WithoutCancel(stop)
	engineCtx, stopEngine := context.WithCancel(base)
	recorderCtx, stopRecorder := context.WithCancel(base)
	storeCtx, stopStore := context.WithCancel(base)
	switchCtx, stopSwitch := context.WithCancel(base)
	defer stopEngine()
	defer stopRecorder()
	defer stopStore()
	defer stopSwitch()

	var engine, rec, vault, pages sync.WaitGroup
	fail := make(chan error, 8)
	start := func(wg *sync.WaitGroup, what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				fail <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	start(&vault, "vault", func() error { return s.store.Run(storeCtx) })
	start(&rec, "recorder", func() error { return s.recorder.Run(recorderCtx) })
	start(&engine, "media", func() error { return s.engine.Run(engineCtx) })
	start(&pages, "status page", func() error {
		if err := s.status.Serve(s.statusLn); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	start(&pages, "control socket", s.control.serve)
	for _, d := range s.doors {
		start(&pages, d.name+" pages", d.serve)
	}
	unwatch := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(unwatch) })

	var calls sync.WaitGroup
	start(&calls, "switch", func() error { return s.sw.Run(switchCtx) })

	var err error
	select {
	case <-stop.Done():
		s.log.Info("draining: new calls are refused; a second signal hangs up", "calls", s.sw.Calls())
		s.sw.Drain(hurry)
	case err = <-fail:
		s.log.Error("stopping", "err", err)
	}
	stopSwitch()
	calls.Wait()
	stopEngine()
	engine.Wait()
	stopRecorder()
	rec.Wait() // renders what was recorded
	close(unwatch)
	watch.Wait()
	stopStore()
	vault.Wait()
	err = errors.Join(err, s.close())
	pages.Wait()
	select {
	case late := <-fail:
		err = errors.Join(err, late)
	default:
	}
	return err
}

// close ends what newSystem opened.
func (s *system) close() error {
	var errs []error
	if s.control != nil {
		errs = append(errs, s.control.close())
		s.control = nil
	}
	for _, d := range s.doors {
		errs = append(errs, d.close())
	}
	s.doors = nil
	if s.status != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.status.Shutdown(ctx); err != nil {
			errs = append(errs, s.status.Close())
		}
		s.status = nil
	} else if s.statusLn != nil {
		errs = append(errs, s.statusLn.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
		s.store = nil
	}
	return errors.Join(errs...)
}
