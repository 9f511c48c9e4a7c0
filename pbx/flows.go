package pbx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The limits of connections that others open.
const (
	maxFlows = 2000
	// maxStrangers of them may belong to nobody that is known, so that whoever
	// opens many leaves room for trunks and phones.
	maxStrangers = 1000
	// maxPerSource bounds one unknown source. Phones behind one address are known
	// as soon as the first of them has registered.
	maxPerSource = 64
)

// ListenStream opens a TCP listener; net.Listen is one.
type ListenStream func(addr netip.AddrPort) (net.Listener, error)

// DialStream opens a TCP connection from a local address of any port.
type DialStream func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)

// keepAlive finds hosts that are gone within two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

func listenTCP(addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	return lc.Listen(context.Background(), "tcp", addr.String())
}

func dialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", remote.String())
}

// flowKey names a flow by its far end.
type flowKey struct {
	transport string
	remote    netip.AddrPort
}

// flows are the connections that are up, and the only way to get one. sipgo has
// connections from here alone: those that were accepted and those that we open
// are handed to it in the same way. It is safe for concurrent use.
type flows struct {
	log   *slog.Logger
	guard *guard
	certs *certificates
	dial  DialStream
	feeds map[string]*feed
	// observe sees each message; tagCancel may alter one that came.
	observe   func(sent bool, transport string, b []byte, at time.Time)
	tagCancel func(b []byte) []byte
	// gone is told of each flow that has ended. It must not block.
	gone func(*flow)

	mu        sync.Mutex
	up        map[flowKey]*flow
	aliases   map[flowKey]*flow // by the address that the peer listens on (RFC 5923)
	opening   map[opening]chan struct{}
	accepted  int
	strangers int
	perSource map[netip.Addr]int // of strangers
	closed    bool

	wg sync.WaitGroup
}

// opening is a connection that is being made.
type opening struct {
	key  flowKey
	name string
}

func newFlows(g *guard, certs *certificates, dial DialStream, log *slog.Logger) *flows {
	if dial == nil {
		dial = dialTCP
	}
	return &flows{
		log: log, guard: g, certs: certs, dial: dial, feeds: map[string]*feed{"TCP": newFeed(), "TLS": newFeed()},
		up: map[flowKey]*flow{}, aliases: map[flowKey]*flow{}, opening: map[opening]chan struct{}{}, perSource: map[netip.Addr]int{},
	}
}

// feed hands connections to sipgo as if it had accepted them.
type feed struct {
	conns chan net.Conn
	over  chan struct{}
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), over: make(chan struct{})} }

// Accept waits for the next connection.
func (l *feed) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

// Close does nothing: flows.close ends the feed.
func (l *feed) Close() error { return nil }

// Addr satisfies sipgo, which wants a port.
func (l *feed) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 5060} }

// accept serves a listener until it fails or is closed. It does not wait for
// anybody's handshake.
func (t *flows) accept(l Listener, ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		remote, ok := addrPort(conn.RemoteAddr())
		if !ok {
			return errors.Join(fmt.Errorf("accept from %v", conn.RemoteAddr()), conn.Close())
		}
		release, ok := t.enter(remote)
		if !ok {
			t.discard(conn)
			continue
		}
		t.wg.Go(func() {
			defer release()
			t.welcome(l, conn, remote)
		})
	}
}

// enter counts a connection in, or says that there are enough.
func (t *flows) enter(remote netip.AddrPort) (release func(), ok bool) {
	if t.guard.admit(remote, nil) != verdictAdmit {
		return nil, false
	}
	source, known := guardKey(remote.Addr().Unmap()), t.guard.known(remote.Addr())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.accepted >= maxFlows || !known && (t.strangers >= maxStrangers || t.perSource[source] >= maxPerSource) {
		t.guard.crowded()
		return nil, false
	}
	t.accepted++
	if !known {
		t.strangers++
		t.perSource[source]++
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.accepted--
		if !known {
			t.strangers--
			if t.perSource[source]--; t.perSource[source] == 0 {
				delete(t.perSource, source)
			}
		}
	}, true
}

// welcome makes a flow of an accepted connection and returns when it has ended.
func (t *flows) welcome(l Listener, conn net.Conn, remote netip.AddrPort) {
	f := newFlow(t, "TCP", conn, l.Addr, remote)
	if l.Transport == "tls" {
		secured := tls.Server(conn, t.certs.server())
		if err := handshake(context.Background(), secured); err != nil {
			t.log.Debug("TLS handshake", "err", err)
			t.discard(conn)
			return
		}
		f.transport, f.conn = "TLS", secured
		f.peer = t.certs.verified(secured.ConnectionState().PeerCertificates)
	}
	if err := t.adopt(f); err != nil {
		t.discard(f.conn)
		return
	}
	f.write()
}

func handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

func (t *flows) discard(conn net.Conn) {
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.log.Debug("close SIP connection", "err", err)
	}
}

// adopt makes f known and has sipgo read it; the caller runs its writer.
func (t *flows) adopt(f *flow) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return net.ErrClosed
	}
	if t.up[f.key()] != nil {
		t.mu.Unlock()
		return fmt.Errorf("%v: there is a connection with it", f)
	}
	t.up[f.key()] = f
	t.mu.Unlock()
	select {
	case t.feeds[f.transport].conns <- f:
		return nil
	case <-t.feeds[f.transport].over:
		t.remove(f)
		return net.ErrClosed
	}
}

// remove forgets a flow that ends.
func (t *flows) remove(f *flow) {
	t.mu.Lock()
	if t.up[f.key()] == f {
		delete(t.up, f.key())
	}
	for k, o := range t.aliases {
		if o == f {
			delete(t.aliases, k)
		}
	}
	t.mu.Unlock()
	t.gone(f)
}

// alias notes that requests to port of the peer may use f (RFC 5923): only with
// a certificate, which connect holds against the name that it looks for.
func (t *flows) alias(f *flow, port uint16) {
	if f.transport != "TLS" || len(f.peer) == 0 || !f.alive() {
		return
	}
	key := flowKey{f.transport, netip.AddrPortFrom(f.remote.Addr(), port)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.aliases[key] == nil && t.up[f.key()] == f {
		t.aliases[key] = f
	}
}

// find returns the flow by which h is reached without opening one, nil if there
// is none: first the one that h came by.
func (t *flows) find(h hop) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.flow.IsValid() {
		if f := t.up[flowKey{h.transport, h.flow}]; f != nil {
			return f
		}
	}
	key := flowKey{h.transport, h.remote}
	if f := t.up[key]; f != nil && (h.bound || h.transport != "TLS" || h.name == "" || f.vouches(h.name)) {
		return f
	}
	if f := t.aliases[key]; f != nil && h.name != "" && f.vouches(h.name) {
		return f
	}
	return nil
}

// connect returns the flow to h, and opens one if there is none and h may be
// called. fresh: it was opened just now. With TLS the peer is the one that h
// names (RFC 5922 §7).
func (t *flows) connect(ctx context.Context, h hop) (f *flow, fresh bool, err error) {
	o := opening{flowKey{h.transport, h.remote}, h.name}
	for {
		if f := t.find(h); f != nil {
			return f, false, nil
		}
		if h.bound {
			return nil, false, errFlowGone
		}
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, false, net.ErrClosed
		}
		wait := t.opening[o]
		if wait == nil {
			wait = make(chan struct{})
			t.opening[o] = wait
			t.mu.Unlock()
			f, err = t.open(ctx, h)
			t.mu.Lock()
			delete(t.opening, o)
			t.mu.Unlock()
			close(wait)
			return f, true, err
		}
		t.mu.Unlock()
		select {
		case <-wait:
			if t.find(h) == nil {
				return nil, false, fmt.Errorf("connect to %v: %w", h.remote, errFlowGone)
			}
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// open dials h.
func (t *flows) open(ctx context.Context, h hop) (*flow, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	// A connection that took this address without being it makes room.
	t.mu.Lock()
	wrong := t.up[flowKey{h.transport, h.remote}]
	t.mu.Unlock()
	if wrong != nil {
		if wrong.dialed {
			return nil, fmt.Errorf("the server at %v has no certificate for %q", h.remote, h.name)
		}
		wrong.end()
	}
	conn, err := t.dial(ctx, h.local.Addr(), h.remote)
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", h.remote, err)
	}
	f := newFlow(t, h.transport, conn, h.local, h.remote)
	f.dialed = true
	if h.transport == "TLS" {
		secured := tls.Client(conn, t.certs.client(h.name))
		if err := handshake(ctx, secured); err != nil {
			t.discard(conn)
			return nil, fmt.Errorf("TLS with %v: %w", h.remote, err)
		}
		f.conn, f.peer = secured, secured.ConnectionState().PeerCertificates
	}
	if err := t.adopt(f); err != nil {
		t.discard(f.conn)
		return nil, err
	}
	t.wg.Go(f.write)
	select {
	case <-f.serving:
		return f, nil
	case <-ctx.Done():
		f.end()
		return nil, ctx.Err()
	}
}

// count says how many flows there are.
func (t *flows) count() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := map[string]int{"TCP": 0, "TLS": 0}
	for k := range t.up {
		n[k.transport]++
	}
	return n
}

// close ends every flow and waits for their goroutines; listeners are closed
// before.
func (t *flows) close() {
	t.mu.Lock()
	t.closed = true
	var all []*flow
	for _, f := range t.up {
		all = append(all, f)
	}
	t.mu.Unlock()
	for _, f := range all {
		f.end()
	}
	for _, l := range t.feeds {
		close(l.over)
	}
	t.wg.Wait()
}
