package pbx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	server trunkServer
	secret string
	calls  atomic.Int64

	mu      sync.Mutex
	targets []*target // the servers, in the order in which they are tried
	located time.Time // when they were
	err     error     // why there are none, or no registration

	registered time.Time     // until when
	granted    time.Duration // the time of that registration
	registrar  hop           // where it is
	regID      string        // its Call-ID and CSeq go on (RFC 3261 §10.2)
	regSeq     uint32
	regLeast   time.Duration // what the registrar asked for with 423
}

// target is one server of a trunk. The trunk's mutex guards it.
type target struct {
	hop      hop
	misses   int
	up       bool
	lastSeen time.Time
	err      error
}

// wayOut is a way to place a call: a trunk, and one of its servers.
type wayOut struct {
	t   *trunk
	hop hop
}

func newTrunk(cfg TrunkConfig, secret string) *trunk {
	server, _ := parseServer(cfg.Server) // Validate has seen it
	return &trunk{cfg: cfg, server: server, secret: secret}
}

// host names the carrier: whom its certificates must name (RFC 5922 §7), whatever
// the names of the servers that stand for it.
func (t *trunk) host() string { return t.server.host }

// domain is the host part of URIs at the server h: the carrier's name, or if it
// has none, that server's address.
func (t *trunk) domain(h hop) string {
	if _, numeric := t.server.addr(); numeric || t.server.host == "" {
		return h.remote.Addr().String()
	}
	return t.server.host
}

// uri addresses user at the server h.
func (t *trunk) uri(user string, h hop) sip.Uri {
	u := sipURI(user, t.domain(h), 0)
	if u.Host == h.remote.Addr().String() {
		u.Port = int(h.remote.Port())
		if h.transport != "UDP" {
			u.UriParams = sip.NewParams()
			u.UriParams.Add("transport", sip.ASCIIToLower(h.transport))
		}
	}
	return u
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

// hops lists the servers that answer, the one first at which we are registered,
// and those that do not. There is at least one if there is no error.
func (t *trunk) hops() (up, down []hop, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.targets {
		switch {
		case !g.up:
			down = append(down, g.hop)
		case g.hop.at(t.registrar):
			up = append([]hop{g.hop}, up...)
		default:
			up = append(up, g.hop)
		}
	}
	switch {
	case len(t.targets) > 0:
		return up, down, nil
	case t.err != nil:
		return nil, nil, t.err
	}
	return nil, nil, errors.New("server not resolved yet")
}

// calleeAt presents an outgoing call to one of the trunk's servers.
func (t *trunk) calleeAt(number ordinance.Number, s *Switch, h hop) callee {
	local := h.local.Addr().String()
	if a, _, ok := s.end.advertised(h.local.Addr()); ok {
		local = a
	}
	user := number.E164()
	from := sipURI(t.cfg.CallerNumber, local, 0)
	if t.cfg.CallerNumber == "" {
		from.User = t.cfg.User
	}
	c := callee{
		uri:  t.uri(user, h),
		hop:  h,
		to:   sipURI(user, t.domain(h), 0),
		from: from,
	}
	if t.cfg.CallerNumber != "" {
		c.headers = append(c.headers, sip.NewHeader("P-Asserted-Identity", "<"+from.String()+">"))
	}
	return c
}

// keep is the trunk's keeper: until ctx is done it finds the servers, asks each
// for signs of life every interval and keeps a registration alive.
func (t *trunk) keep(ctx context.Context, s *Switch, interval time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := interval
		if next <= 0 {
			next = 30 * time.Second
		}
		t.resolve(ctx, s)
		if interval > 0 {
			t.ping(ctx, s)
		} else {
			t.seen(nil)
		}
		if t.cfg.Register {
			t.register(ctx, s)
			t.mu.Lock()
			// A registration that is shorter than the interval must not lapse.
			if t.granted > 0 && time.Until(t.registered) > 0 {
				next = min(next, max(t.granted/4, time.Second))
			}
			t.mu.Unlock()
		}
		timer.Reset(next)
	}
}

// resolve finds the servers anew once in a while. Those that are still there
// keep what is known of them; if the look-up fails, all do.
func (t *trunk) resolve(ctx context.Context, s *Switch) {
	t.mu.Lock()
	fresh := len(t.targets) > 0 && time.Since(t.located) < resolveEvery
	t.mu.Unlock()
	if fresh {
		return
	}
	servers, err := locate(ctx, s.resolver, t.cfg.Server, s.speaks)
	var found []*target
	for _, a := range servers {
		if local, ok := s.listenerFor(a.transport, a.addr.Addr()); ok {
			found = append(found, &target{hop: hop{transport: a.transport, local: local, remote: a.addr, name: t.host()}})
		}
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no listener for the servers of trunk %s", t.cfg.Name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.err = err
		return
	}
	for i, g := range found {
		if old := t.find(g.hop); old != nil {
			found[i] = old
		}
	}
	t.targets, t.located, t.err = found, time.Now(), nil
}

// find is the target at a hop; the mutex is held.
func (t *trunk) find(at hop) *target {
	for _, g := range t.targets {
		if g.hop.at(at) {
			return g
		}
	}
	return nil
}

// seen notes a sign of life of one server, or of all for lack of a way to know.
func (t *trunk) seen(one *target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.targets {
		if one == nil || g == one {
			g.misses, g.up, g.err, g.lastSeen = 0, true, nil, time.Now()
		}
	}
}

func (t *trunk) missed(g *target, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.misses++
	if g.misses >= missesToDown || g.lastSeen.IsZero() {
		g.up, g.err = false, err
	}
}

// suspect puts a server behind the others, which has let a call go unanswered,
// until it gives a sign of life: the next call does not wait for it.
func (t *trunk) suspect(at hop) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.find(at); g != nil {
		g.up, g.err = false, errors.New("a call was not answered")
	}
}

// alive reports whether any server is.
func (t *trunk) alive() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.targets, func(g *target) bool { return g.up })
}

// ping asks every server for a sign of life, all at once. Any answer is one.
func (t *trunk) ping(ctx context.Context, s *Switch) {
	t.mu.Lock()
	targets := slices.Clone(t.targets)
	t.mu.Unlock()
	var asked sync.WaitGroup
	for _, g := range targets {
		asked.Go(func() {
			s.ping(ctx, g.hop, t.uri("", g.hop), func(err error) {
				if err != nil {
					t.missed(g, err)
				} else {
					t.seen(g)
				}
			})
		})
	}
	asked.Wait()
}

// ask sends a request outside of dialogs and waits for its final response.
func (s *Switch) ask(ctx context.Context, req *sip.Request, to hop) (*sip.Response, error) {
	type outcome struct {
		res *sip.Response
		err error
	}
	ch := make(chan outcome, 1)
	done := false
	s.end.transact(req, to, func(res *sip.Response, err error) {
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
	local := sipURI("", s.domain(), 0)
	d := dialog{id: dialogID{newCallID(h.local.Addr().String()), newTag()}, local: local, remote: target, target: target, hop: h}
	req := d.build(sip.OPTIONS, 1)
	req.AppendHeader(s.end.contact(h, ""))
	req.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	s.end.address(req, h)
	limit, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := s.ask(limit, req, h)
	if ctx.Err() == nil {
		on(err)
	}
}
