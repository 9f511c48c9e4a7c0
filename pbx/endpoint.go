package pbx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// udpResponseLimit is the largest UDP message that we send. Responses stay on
// their transport whatever their size (RFC 3261 §18.2.2) and may fragment;
// sipgo's own limit would refuse them.
const udpResponseLimit = 65000

// settle sets what sipgo has for the whole process, once: its limit for UDP and
// its log, in which its stream transports write whole messages that they cannot
// read.
var settle = sync.OnceFunc(func() {
	sip.UDPMTUSize = udpResponseLimit + 200
	sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
})

// hop is the way to a peer: transport, our listener's address, theirs.
type hop struct {
	transport string // "UDP", "TCP", "TLS"
	local     netip.AddrPort
	remote    netip.AddrPort
	// name is whom the peer's certificate must name, with TLS.
	name string
	// flow is the far end of the connection that is taken while it lasts, before
	// one to remote.
	flow netip.AddrPort
	// bound: by a connection that there is or not at all. A phone's network lets
	// nobody in (RFC 5626 §5.3).
	bound bool
}

// at reports whether o leads to the same peer.
func (h hop) at(o hop) bool { return h.transport == o.transport && h.remote == o.remote }

// endpoint is the shell around sipgo: listeners with a filter in front of the
// parser, server transactions handed up validated, client transactions whose
// responses are always read. It is safe for concurrent use.
type endpoint struct {
	cfg    SIPConfig
	log    *slog.Logger
	ua     *sipgo.UserAgent
	guard  *guard
	listen ListenPacket
	stream ListenStream
	certs  *certificates
	flows  *flows

	// trunkAt names the trunk server at an address that calls us, for answers to
	// connections that are gone.
	trunkAt func(remote netip.AddrPort) (name string, ok bool)
	// smallOnly are servers that do not take TCP, and until when that is believed.
	smallOnly sync.Map // netip.AddrPort to time.Time
	*tagMaker

	ladders *ladders // sees every message

	// serve gets every validated request other than ACK for a non-2xx; stray
	// gets responses that belong to no transaction (a 2xx sent again), and
	// reports whether somebody takes them.
	serve func(req *sip.Request, tx *sip.ServerTx)
	stray func(res *sip.Response) bool

	// sending is held while sipgo looks for the socket of a new request, and for
	// writing while they are closed: it would open one of its own otherwise, which
	// nobody closes.
	sending sync.RWMutex
	closed  bool

	mu      sync.Mutex
	sockets map[string]net.PacketConn // by local address, for answers below sipgo
	streams map[Listener]net.Listener
	up      map[Listener]error // nil while it serves

	acks acks

	wg sync.WaitGroup
}

// ListenPacket opens a datagram socket; net.ListenPacket with "udp" is one.
type ListenPacket func(addr netip.AddrPort) (net.PacketConn, error)

// sipReadBuffer is asked of the system for a SIP socket, bytes: some thousand
// messages that come at once, such as the phones' answers after a power cut.
const sipReadBuffer = 4 << 20

func listenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	if err := c.SetReadBuffer(sipReadBuffer); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func newEndpoint(cfg SIPConfig, g *guard, p Parts) (*endpoint, error) {
	settle()
	e := &endpoint{
		cfg: cfg, log: p.Log, guard: g, listen: p.ListenPacket, stream: p.ListenStream,
		sockets: map[string]net.PacketConn{}, streams: map[Listener]net.Listener{}, up: map[Listener]error{},
		tagMaker: newTagMaker(), ladders: newLadders(),
	}
	if e.listen == nil {
		e.listen = listenUDP
	}
	if e.stream == nil {
		e.stream = listenTCP
	}
	var err error
	if e.certs, err = newCertificates(filesOf(cfg), p.Log); err != nil {
		return nil, err
	}
	e.flows = newFlows(g, e.certs, p.DialStream, p.Log)
	e.flows.observe, e.flows.tagCancel = e.ladders.observe, e.tagCancel
	quiet := slog.New(muffled{p.Log.Handler()})
	ua, err := sipgo.NewUA(
		sipgo.WithUserAgent(cfg.UserAgent),
		sipgo.WithUserAgentParser(newSIPParser()),
		sipgo.WithUserAgentTransportLayerOptions(
			sip.WithTransportLayerLogger(quiet),
			sip.WithTransportLayerReadFilter(e.filter),
			sip.WithTransportLayerTransports(sip.TransportsConfig{
				TCP: &sip.TransportTCP{DialerCreate: noDialer},
				TLS: &sip.TransportTLS{TransportTCP: &sip.TransportTCP{DialerCreate: noDialer}},
			})),
		sipgo.WithUserAgentTransactionLayerOptions(
			sip.WithTransactionLayerLogger(quiet),
			sip.WithTransactionLayerUnhandledResponseHandler(e.unmatched)),
	)
	if err != nil {
		return nil, fmt.Errorf("start SIP stack: %w", err)
	}
	e.ua = ua
	ua.TransactionLayer().OnRequest(e.receive)
	return e, nil
}

// noDialer keeps sipgo from opening connections: they are ours to open.
func noDialer(net.Addr) net.Dialer {
	return net.Dialer{Control: func(string, string, syscall.RawConn) error { return errFlowGone }}
}

// run opens the listeners and serves them until ctx is done. A socket that
// fails later is opened again (sipgo ends its reader at any read error). After
// an error close must be called, with ctx done.
func (e *endpoint) run(ctx context.Context) error {
	tp := e.ua.TransportLayer()
	e.wg.Go(func() { e.feedEnded(tp.ServeTCP(e.flows.feeds["TCP"])) })
	e.wg.Go(func() { e.feedEnded(tp.ServeTLS(e.flows.feeds["TLS"])) })
	e.wg.Go(func() { e.certs.keep(ctx) })
	for _, l := range e.cfg.Listen {
		open, err := e.open(l)
		if err != nil {
			return err
		}
		e.setUp(l, nil)
		e.wg.Go(func() { e.supervise(ctx, l, open) })
		if l.Transport == "udp" {
			e.awaitServing(l.Addr)
		}
	}
	return nil
}

// awaitServing returns once the socket on addr is read, which is when sipgo sends
// from it: a request before that would make it open another one.
func (e *endpoint) awaitServing(addr netip.AddrPort) {
	e.mu.Lock()
	c, ok := e.sockets[addr.String()].(*servedSocket)
	e.mu.Unlock()
	if ok {
		<-c.serving
	}
}

// servedSocket tells when sipgo begins to read it, and shows what is sent.
type servedSocket struct {
	net.PacketConn
	begun   sync.Once
	serving chan struct{}
	ladders *ladders
}

func (c *servedSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	c.ladders.observe(true, "UDP", b, time.Now())
	return c.PacketConn.WriteTo(b, to)
}

func (c *servedSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	c.begun.Do(func() { close(c.serving) })
	return c.PacketConn.ReadFrom(b)
}

// open binds l and returns the function that serves it until it is closed.
func (e *endpoint) open(l Listener) (serve func() error, err error) {
	tp := e.ua.TransportLayer()
	if l.Transport == "udp" {
		conn, err := e.listen(l.Addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %v: %w", l, err)
		}
		conn = &servedSocket{PacketConn: conn, serving: make(chan struct{}), ladders: e.ladders}
		e.mu.Lock()
		e.sockets[conn.LocalAddr().String()] = conn
		e.mu.Unlock()
		return func() error { return tp.ServeUDP(conn) }, nil
	}
	ln, err := e.stream(l.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", l, err)
	}
	e.mu.Lock()
	e.streams[l] = ln
	e.mu.Unlock()
	return func() error {
		err := e.flows.accept(l, ln)
		if again := ln.Close(); again != nil && !errors.Is(again, net.ErrClosed) {
			err = errors.Join(err, again)
		}
		return err
	}, nil
}

// feedEnded notes that sipgo takes no connections any more, as it should not
// before the end.
func (e *endpoint) feedEnded(err error) {
	if !errors.Is(err, net.ErrClosed) {
		e.log.Error("SIP stack takes no connections", "err", err)
	}
}

func (e *endpoint) supervise(ctx context.Context, l Listener, serve func() error) {
	for {
		err := serve()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("listener ended")
		}
		e.mu.Lock()
		if l.Transport == "udp" {
			delete(e.sockets, l.Addr.String())
		} else {
			delete(e.streams, l)
		}
		e.mu.Unlock()
		e.setUp(l, err)
		e.log.Error("SIP listener down", "listener", l.String(), "err", err)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			if serve, err = e.open(l); err == nil {
				break
			}
			e.setUp(l, err)
		}
		e.setUp(l, nil)
	}
}

func (e *endpoint) setUp(l Listener, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up[l] = err
}

// down lists the listeners that do not serve.
func (e *endpoint) down() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for l, err := range e.up {
		if err != nil {
			out = append(out, l.String())
		}
	}
	return out
}

// close ends transactions and sockets and waits for their goroutines.
func (e *endpoint) close() {
	e.sending.Lock()
	e.closed = true
	e.sending.Unlock()
	// What was read before has a goroutine of sipgo's by now. Left without the
	// socket it came by, it would open one of its own, which nobody closes.
	time.Sleep(inFlight)
	e.mu.Lock()
	sockets, streams := e.sockets, e.streams
	e.sockets, e.streams = map[string]net.PacketConn{}, map[Listener]net.Listener{}
	e.mu.Unlock()
	for _, c := range sockets {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			e.log.Warn("close SIP socket", "err", err)
		}
	}
	for _, l := range streams {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			e.log.Warn("close SIP listener", "err", err)
		}
	}
	e.flows.close()
	if err := e.ua.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		e.log.Warn("close SIP stack", "err", err)
	}
	e.wg.Wait()
}

// filter sees raw bytes before sipgo does. It never returns an error: that
// would end the listener. What comes by a stream was cut into messages, judged
// and normalised by its flow.
func (e *endpoint) filter(p sip.TransportReadProps, data []byte) ([]byte, error) {
	src, ok := addrPort(p.RemoteAddr)
	if !ok || e.closing() {
		return nil, nil
	}
	if p.Transport != "UDP" {
		return data, nil
	}
	if e.guard.admit(src, data) != verdictAdmit {
		return nil, nil
	}
	out, kind := normalizeDatagram(data)
	switch kind {
	case textRequest, textResponse:
		e.ladders.observe(false, "UDP", out, time.Now())
		return e.tagCancel(out), nil
	case textMalformed:
		// The parser cannot read it: it is answered as far as it can be salvaged
		// (RFC 4475 §3.1.2), from the socket that it came to.
		out = malformedResponse(data, src)
	}
	if len(out) > 0 {
		e.mu.Lock()
		conn := e.sockets[p.LocalAddr.String()]
		e.mu.Unlock()
		if conn != nil {
			if _, err := conn.WriteTo(out, p.RemoteAddr); err != nil && !errors.Is(err, net.ErrClosed) {
				e.log.Debug("answer below the parser", "err", err)
			}
		}
	}
	return nil, nil
}

// receive is sipgo's handler: one goroutine per new request.
func (e *endpoint) receive(req *sip.Request, tx *sip.ServerTx) {
	materialize(req)
	if req.IsAck() {
		// An ACK for a 2xx is a transaction of its own to sipgo, which would keep
		// it for ever.
		defer tx.Terminate()
	}
	if status, reason, extra := validate(req, requestRules{Extensions: extensions, Own: e.sentBy()}); status != 0 {
		if req.IsAck() {
			return
		}
		res := sip.NewResponseFromRequest(req, status, reason, nil)
		for _, h := range extra {
			res.AppendHeader(h)
		}
		e.respond(tx, res)
		return
	}
	if f := flowOf(tx); f != nil && req.Via().Params.Has("alias") {
		e.flows.alias(f, viaPort(req, f.transport))
	}
	e.serve(req, tx)
}

// materialize makes sipgo parse every header that it parses on first use, so
// that the message can be read from several goroutines afterwards.
func materialize(m lazyMessage) {
	m.CallID()
	m.Via()
	m.From()
	m.To()
	m.CSeq()
	m.MaxForwards()
	m.ContentLength()
	m.ContentType()
	m.Contact()
	m.Route()
	m.RecordRoute()
	m.ReferTo()
	m.ReferredBy()
}

// lazyMessage has sipgo's accessors that parse on first use.
type lazyMessage interface {
	sip.Message
	MaxForwards() *sip.MaxForwardsHeader
	ContentType() *sip.ContentTypeHeader
	Contact() *sip.ContactHeader
	Route() *sip.RouteHeader
	RecordRoute() *sip.RecordRouteHeader
	ReferTo() *sip.ReferToHeader
	ReferredBy() *sip.ReferredByHeader
}

// via returns the hop on which req came.
func via(req *sip.Request, tx *sip.ServerTx) (hop, bool) {
	if f := flowOf(tx); f != nil {
		return hop{transport: f.transport, local: f.local, remote: f.remote, flow: f.remote}, true
	}
	local, ok1 := addrPort(tx.Connection().LocalAddr())
	remote, err := netip.ParseAddrPort(req.Source())
	if !ok1 || err != nil {
		return hop{}, false
	}
	return hop{transport: sip.NetworkToUpper(req.Transport()), local: local, remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())}, true
}

// flowOf is the connection that a transaction came by, nil for a datagram.
func flowOf(tx *sip.ServerTx) *flow {
	if c, ok := tx.Connection().(*sip.TCPConnection); ok {
		f, _ := c.Conn.(*flow)
		return f
	}
	return nil
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	default:
		return ap, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// muffled passes on only warnings of the SIP stack, at debug level: sipgo logs
// unparsable messages whole, numbers and all, at ERROR.
type muffled struct{ slog.Handler }

func (m muffled) Enabled(ctx context.Context, l slog.Level) bool { return false }
func (m muffled) Handle(context.Context, slog.Record) error      { return nil }
func (m muffled) WithAttrs(a []slog.Attr) slog.Handler           { return muffled{m.Handler.WithAttrs(a)} }
func (m muffled) WithGroup(name string) slog.Handler             { return muffled{m.Handler.WithGroup(name)} }
