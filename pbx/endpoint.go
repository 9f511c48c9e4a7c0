package pbx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// udpResponseLimit is the largest UDP message that we send. Responses stay on
// their transport whatever their size (RFC 3261 §18.2.2) and may fragment;
// sipgo's own limit would refuse them.
const udpResponseLimit = 65000

// raiseUDPLimit lifts sipgo's limit, which is the process's, once.
var raiseUDPLimit = sync.OnceFunc(func() { sip.UDPMTUSize = udpResponseLimit + 200 })

// hop is the way to a peer: transport, our listener's address, theirs.
type hop struct {
	transport string // "UDP", "TCP", "TLS"
	local     netip.AddrPort
	remote    netip.AddrPort
}

// endpoint is the shell around sipgo: listeners with a filter in front of the
// parser, server transactions handed up validated, client transactions whose
// responses are always read. It is safe for concurrent use.
type endpoint struct {
	cfg    SIPConfig
	log    *slog.Logger
	ua     *sipgo.UserAgent
	guard  *guard
	listen ListenPacket
	tlsCfg *tls.Config
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
	streams []net.Listener
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

func newEndpoint(cfg SIPConfig, g *guard, listen ListenPacket, log *slog.Logger) (*endpoint, error) {
	if listen == nil {
		listen = listenUDP
	}
	raiseUDPLimit()
	e := &endpoint{
		cfg: cfg, log: log, guard: g, listen: listen, tagMaker: newTagMaker(),
		sockets: map[string]net.PacketConn{}, up: map[Listener]error{}, ladders: newLadders(),
	}
	if cfg.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("load sip.certificate: %w", err)
		}
		e.tlsCfg = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	quiet := slog.New(muffled{log.Handler()})
	ua, err := sipgo.NewUA(
		sipgo.WithUserAgent(cfg.UserAgent),
		sipgo.WithUserAgentParser(newSIPParser()),
		sipgo.WithUserAgenTLSConfig(e.tlsCfg),
		sipgo.WithUserAgentTransportLayerOptions(
			sip.WithTransportLayerLogger(quiet),
			sip.WithTransportLayerReadFilter(e.filter)),
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

// run opens the listeners and serves them until ctx is done. A socket that
// fails later is opened again (sipgo ends its reader at any read error). After
// an error close must be called, with ctx done.
func (e *endpoint) run(ctx context.Context) error {
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
	ln, err := net.Listen("tcp", l.Addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", l, err)
	}
	ln = &boundedListener{Listener: ln, max: maxStreams, idle: streamIdle}
	if l.Transport == "tls" {
		ln = tls.NewListener(ln, e.tlsCfg)
	}
	ln = textListener{ln}
	e.mu.Lock()
	e.streams = append(e.streams, ln)
	e.mu.Unlock()
	if l.Transport == "tls" {
		return func() error { return tp.ServeTLS(ln) }, nil
	}
	return func() error { return tp.ServeTCP(ln) }, nil
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
		delete(e.sockets, l.Addr.String())
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
	e.sockets, e.streams = map[string]net.PacketConn{}, nil
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
	if err := e.ua.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		e.log.Warn("close SIP stack", "err", err)
	}
	e.wg.Wait()
}

// filter sees raw bytes before sipgo does. It never returns an error: that
// would end the listener. What comes by a stream was cut into messages and
// normalised by its textConn.
func (e *endpoint) filter(p sip.TransportReadProps, data []byte) ([]byte, error) {
	src, ok := addrPort(p.RemoteAddr)
	if !ok || e.closing() {
		return nil, nil
	}
	if e.guard.admit(src, data) != verdictAdmit {
		return nil, nil
	}
	if p.Transport != "UDP" {
		return e.tagCancel(data), nil
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

// respond sends res in tx.
func (e *endpoint) respond(tx *sip.ServerTx, res *sip.Response) {
	if res.GetHeader("Server") == nil {
		res.AppendHeader(sip.NewHeader("Server", e.cfg.UserAgent))
	}
	if err := tx.Respond(res); err != nil && !errors.Is(err, sip.ErrTransactionTerminated) && !errors.Is(err, sip.ErrTransactionCanceled) {
		e.log.Debug("send response", "status", res.StatusCode, "err", err)
	}
}

// reply answers req with a status and no body.
func (e *endpoint) reply(req *sip.Request, tx *sip.ServerTx, status int, reason string, headers ...sip.Header) {
	res := sip.NewResponseFromRequest(req, status, reason, nil)
	for _, h := range headers {
		res.AppendHeader(h)
	}
	e.respond(tx, res)
}

// refuseMethod answers a method that is not served here: 405 if it is one of
// SIP's, 501 if nobody knows it (RFC 3261 §8.2.1, §21.5.2).
func (e *endpoint) refuseMethod(req *sip.Request, tx *sip.ServerTx) {
	switch req.Method {
	case sip.REGISTER, sip.SUBSCRIBE, sip.NOTIFY, sip.REFER, sip.MESSAGE, sip.PUBLISH, sip.CANCEL:
		e.reply(req, tx, 405, "Method Not Allowed", sip.NewHeader("Allow", allow))
	default:
		e.reply(req, tx, 501, "Not Implemented", sip.NewHeader("Allow", allow))
	}
}

// address sets where req goes and from which listener it leaves.
func (e *endpoint) address(req *sip.Request, to hop) {
	if req.ContentLength() == nil {
		req.SetBody(nil) // writes Content-Length: 0
	}
	req.SetTransport(to.transport)
	req.SetDestination(to.remote.String())
	if to.transport == "UDP" {
		req.Laddr = sip.Addr{IP: to.local.Addr().AsSlice(), Port: int(to.local.Port())}
	}
	via := &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: to.transport,
		Host: to.local.Addr().String(), Port: int(to.local.Port()),
		Params: sip.NewParams(),
	}
	if host, port, ok := e.advertised(); ok {
		via.Host = host
		if port != 0 {
			via.Port = port
		}
	}
	via.Params.Add("branch", sip.GenerateBranchN(24))
	via.Params.Add("rport", "") // RFC 3581 §3
	req.PrependHeader(via)
}

// sentBy lists what our own Via fields say, by which a request of ours is known
// that came back.
func (e *endpoint) sentBy() []string {
	host, port, fixed := e.advertised()
	var out []string
	for _, l := range e.cfg.Listen {
		if !fixed {
			host = l.Addr.Addr().String()
		}
		if port == 0 || !fixed {
			port = int(l.Addr.Port())
		}
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return out
}

// advertised returns sip.advertise as host and port (0: the listener's).
func (e *endpoint) advertised() (host string, port int, ok bool) {
	if e.cfg.Advertise == "" {
		return "", 0, false
	}
	if h, p, err := net.SplitHostPort(e.cfg.Advertise); err == nil {
		n, err := strconv.Atoi(p)
		return h, n, err == nil
	}
	return e.cfg.Advertise, 0, true
}

// contact is our Contact for messages that leave through to.
func (e *endpoint) contact(to hop, user string) *sip.ContactHeader {
	u := sip.Uri{Scheme: "sip", User: user, Host: to.local.Addr().String(), Port: int(to.local.Port())}
	if host, port, ok := e.advertised(); ok {
		u.Host = host
		if port != 0 {
			u.Port = port
		}
	}
	if to.transport != "UDP" {
		u.UriParams = sip.NewParams()
		u.UriParams.Add("transport", sip.ASCIIToLower(to.transport))
	}
	return &sip.ContactHeader{Address: u}
}

// transact sends req as a client transaction and calls on for each response,
// provisional ones included, from a goroutine of its own; the last call has a
// nil response and says how the transaction ended: nil after a final response.
func (e *endpoint) transact(req *sip.Request, on func(res *sip.Response, err error)) {
	e.wg.Go(func() {
		var tx *sip.ClientTx
		err := e.send(req, func() (err error) {
			tx, err = e.ua.TransactionLayer().Request(context.Background(), req)
			return err
		})
		if err != nil {
			on(nil, fmt.Errorf("send %s: %w", req.Method, err))
			return
		}
		final := false
		tx.OnRetransmission(func(res *sip.Response) {
			e.unmatched(res)
		})
		for {
			select {
			case res := <-tx.Responses():
				if err := validateResponse(res); err != nil {
					e.log.Debug("response dropped", "err", err)
					continue
				}
				materialize(res)
				final = final || res.StatusCode >= 200
				if res.StatusCode >= 300 && req.IsInvite() {
					e.acks.refusing(req) // sipgo has acknowledged it once
					tx.Terminate()
				}
				on(res, nil)
				if final && !req.IsInvite() {
					// Later copies of the response are nobody's business; sipgo
					// absorbs them until its timer K.
					e.drain(tx)
					on(nil, nil)
					return
				}
			case <-tx.Done():
				err := tx.Err()
				if final || err == nil {
					err = nil
				}
				on(nil, err)
				return
			}
		}
	})
}

// unmatched takes a response that belongs to no transaction any more.
func (e *endpoint) unmatched(res *sip.Response) {
	if validateResponse(res) == nil && !e.stray(res) {
		if ack := e.acks.of(res); ack != nil {
			e.writeACK(ack)
		}
	}
}

// drain reads a finished transaction's channel until it terminates, as sipgo
// requires, without holding up the caller.
func (e *endpoint) drain(tx *sip.ClientTx) {
	e.wg.Go(func() {
		for {
			select {
			case <-tx.Responses():
			case <-tx.Done():
				return
			}
		}
	})
}

// inFlight is how long close lets requests be taken up that were read before.
const inFlight = 50 * time.Millisecond

func (e *endpoint) closing() bool {
	e.sending.RLock()
	defer e.sending.RUnlock()
	return e.closed
}

// send does the sending of a request, unless the socket that it should leave
// from is closed.
func (e *endpoint) send(req *sip.Request, do func() error) error {
	e.sending.RLock()
	defer e.sending.RUnlock()
	if e.closed {
		return net.ErrClosed
	}
	if req.Transport() == "UDP" {
		e.mu.Lock()
		_, open := e.sockets[req.Laddr.String()]
		e.mu.Unlock()
		if !open {
			return fmt.Errorf("no socket on %s: %w", req.Laddr.String(), net.ErrClosed)
		}
	}
	return do()
}

// sendACK sends an ACK for a 2xx, which is no transaction (RFC 3261 §13.2.2.4).
func (e *endpoint) sendACK(req *sip.Request) {
	e.acks.sending(req)
	e.writeACK(req)
}

func (e *endpoint) writeACK(req *sip.Request) {
	if err := e.send(req, func() error { return e.ua.TransportLayer().WriteMsg(req) }); err != nil {
		e.log.Debug("send ACK", "err", err)
	}
}

// via returns the hop on which req came.
func via(req *sip.Request, tx *sip.ServerTx) (hop, bool) {
	local, ok1 := addrPort(tx.Connection().LocalAddr())
	remote, err := netip.ParseAddrPort(req.Source())
	if !ok1 || err != nil {
		return hop{}, false
	}
	return hop{transport: sip.NetworkToUpper(req.Transport()), local: local, remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())}, true
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
