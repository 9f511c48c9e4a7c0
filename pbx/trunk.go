package pbx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/ordinance"
)

// missesToDown is how many OPTIONS in a row a peer may leave unanswered before
// it counts as down; one lost ping is no reason to stop calling.
const missesToDown = 3

// pingTimeout is how long an answer to OPTIONS is waited for: four
// transmissions.
const pingTimeout = 8 * time.Second

// trunk is a line to a carrier. Its keeper goroutine resolves the server's
// name, asks for signs of life and registers; the rest is safe for concurrent
// use.
type trunk struct {
	cfg    TrunkConfig
	secret string
	calls  atomic.Int64

	mu         sync.Mutex
	hop        hop // where calls are sent; remote is zero while unknown
	misses     int
	up         bool
	lastSeen   time.Time
	registered time.Time // until when
	err        error     // why it is not usable
}

func newTrunk(cfg TrunkConfig, secret string) *trunk {
	return &trunk{cfg: cfg, secret: secret}
}

// owns reports whether a request from addr is this trunk's.
func (t *trunk) owns(addr netip.AddrPort) bool {
	for _, s := range t.cfg.From {
		if s.Contains(addr) {
			return true
		}
	}
	return false
}

// admit takes one of the trunk's calls, if there is one left.
func (t *trunk) admit() bool {
	return t.cfg.MaxCalls <= 0 || t.calls.Load() <= int64(t.cfg.MaxCalls)
}

func (t *trunk) take() { t.calls.Add(1) }
func (t *trunk) give() { t.calls.Add(-1) }

// usable reports whether calls can be sent, and roughly why not.
func (t *trunk) usable() (hop, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hop.remote.IsValid() {
		if t.err != nil {
			return hop{}, t.err
		}
		return hop{}, errors.New("server not resolved yet")
	}
	return t.hop, nil
}

// callee presents an outgoing call to the trunk.
func (t *trunk) callee(number ordinance.Number, s *Switch) (callee, error) {
	h, err := t.usable()
	if err != nil {
		return callee{}, err
	}
	host, port := h.remote.Addr().String(), int(h.remote.Port())
	local := h.local.Addr().String()
	if a, _, ok := s.end.advertised(); ok {
		local = a
	}
	user := number.E164()
	from := sipURI(t.cfg.CallerNumber, local, 0)
	if t.cfg.CallerNumber == "" {
		from.User = t.cfg.User
	}
	c := callee{
		uri:  sipURI(user, host, port),
		hop:  h,
		to:   sipURI(user, host, 0),
		from: from,
	}
	if t.cfg.CallerNumber != "" {
		c.headers = append(c.headers, sip.NewHeader("P-Asserted-Identity", "<"+from.String()+">"))
	}
	return c, nil
}

// keep is the trunk's keeper: until ctx is done it resolves the server, sends
// OPTIONS every interval and keeps a registration alive.
func (t *trunk) keep(ctx context.Context, s *Switch, interval time.Duration) {
	check := interval
	if check <= 0 {
		check = 30 * time.Second
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := t.resolve(ctx, s); err != nil {
			t.fail(err)
		} else {
			if t.cfg.Register {
				t.register(ctx, s)
			}
			if interval > 0 {
				t.ping(ctx, s)
			} else {
				t.seen()
			}
		}
		timer.Reset(check)
	}
}

// resolve finds the server's address: numeric, host:port, or by SRV
// (RFC 3263 §4.2).
func (t *trunk) resolve(ctx context.Context, s *Switch) error {
	host, port, err := net.SplitHostPort(t.cfg.Server)
	if err != nil {
		host, port = t.cfg.Server, ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n := uint16(5060)
	if port != "" {
		v, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return fmt.Errorf("trunk server %q: bad port", t.cfg.Server)
		}
		n = uint16(v)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if port == "" {
			if _, srv, err := net.DefaultResolver.LookupSRV(ctx, "sip", "udp", host); err == nil && len(srv) > 0 {
				host, n = srv[0].Target, srv[0].Port
			}
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return fmt.Errorf("resolve trunk server %q: %w", t.cfg.Server, err)
		}
		addr = ips[0]
	}
	remote := netip.AddrPortFrom(addr.Unmap(), n)
	local, ok := s.listenerFor("UDP", remote.Addr())
	if !ok {
		return fmt.Errorf("no UDP listener for trunk %s", t.cfg.Name)
	}
	t.mu.Lock()
	t.hop = hop{transport: "UDP", local: local, remote: remote}
	t.mu.Unlock()
	return nil
}

func (t *trunk) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	t.up = false
}

func (t *trunk) seen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.misses, t.up, t.err, t.lastSeen = 0, true, nil, time.Now()
}

func (t *trunk) missed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.misses++
	if t.misses >= missesToDown || t.lastSeen.IsZero() {
		t.up, t.err = false, err
	}
}

// ping asks for a sign of life. Any answer is one.
func (t *trunk) ping(ctx context.Context, s *Switch) {
	h, err := t.usable()
	if err != nil {
		return
	}
	s.ping(ctx, h, sipURI("", h.remote.Addr().String(), int(h.remote.Port())), func(err error) {
		if err != nil {
			t.missed(err)
		} else {
			t.seen()
		}
	})
}

// register refreshes the registration when less than half of it is left
// (RFC 3261 §10.2).
func (t *trunk) register(ctx context.Context, s *Switch) {
	const want = 600 * time.Second
	t.mu.Lock()
	until := t.registered
	h := t.hop
	t.mu.Unlock()
	if time.Until(until) > want/2 {
		return
	}
	expires, err := s.registerAt(ctx, h, t.cfg, t.secret, want)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.err = fmt.Errorf("register trunk %s: %w", t.cfg.Name, err)
		s.log.Warn("trunk registration refused", "trunk", t.cfg.Name, "err", err)
		return
	}
	t.registered = time.Now().Add(expires)
	s.log.Log(ctx, slog.LevelInfo, "trunk registered", "trunk", t.cfg.Name, "expires", expires)
}

// registerAt sends one REGISTER, with credentials if asked, and returns the
// granted time.
func (s *Switch) registerAt(ctx context.Context, h hop, cfg TrunkConfig, secret string, want time.Duration) (time.Duration, error) {
	host := h.remote.Addr().String()
	aor := sipURI(cfg.User, host, 0)
	callID := newCallID(h.local.Addr().String())
	tag := newTag()
	build := func(seq uint32) *sip.Request {
		d := dialog{id: dialogID{callID, tag}, local: aor, remote: aor, target: sipURI("", host, int(h.remote.Port())), hop: h}
		req := d.build(sip.REGISTER, seq)
		req.AppendHeader(s.end.contact(h, cfg.User))
		req.AppendHeader(sip.NewHeader("Expires", strconv.Itoa(int(want/time.Second))))
		s.end.address(req, h)
		return req
	}
	req := build(1)
	res, err := s.ask(ctx, req)
	if err == nil && (res.StatusCode == 401 || res.StatusCode == 407) {
		req = build(2)
		if err := authorize(req, res, cfg.User, secret); err != nil {
			return 0, err
		}
		res, err = s.ask(ctx, req)
	}
	if err != nil {
		return 0, err
	}
	if !res.IsSuccess() {
		return 0, fmt.Errorf("status %d", res.StatusCode)
	}
	granted := want
	if h := res.GetHeader("Expires"); h != nil {
		if n, err := strconv.Atoi(h.Value()); err == nil && n > 0 {
			granted = time.Duration(n) * time.Second
		}
	}
	if c := res.Contact(); c != nil {
		if v, ok := c.Params.Get("expires"); ok {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				granted = time.Duration(n) * time.Second
			}
		}
	}
	return granted, nil
}

// ask sends a request outside of dialogs and waits for its final response.
func (s *Switch) ask(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	type outcome struct {
		res *sip.Response
		err error
	}
	ch := make(chan outcome, 1)
	done := false
	s.end.transact(req, func(res *sip.Response, err error) {
		if done || res != nil && res.StatusCode < 200 {
			return
		}
		if res == nil && err == nil {
			return
		}
		done = true
		ch <- outcome{res, err}
	})
	select {
	case o := <-ch:
		return o.res, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ping sends OPTIONS and reports whether anything answered (RFC 3261 §11).
func (s *Switch) ping(ctx context.Context, h hop, target sip.Uri, on func(error)) {
	local := sipURI(s.cfg.SIP.UserAgent, s.domain(), 0)
	d := dialog{id: dialogID{newCallID(h.local.Addr().String()), newTag()}, local: local, remote: target, target: target, hop: h}
	req := d.build(sip.OPTIONS, 1)
	req.AppendHeader(s.end.contact(h, ""))
	req.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	s.end.address(req, h)
	limit, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := s.ask(limit, req)
	if ctx.Err() == nil {
		on(err)
	}
}
