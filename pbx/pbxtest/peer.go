package pbxtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrClosed ends every wait on a peer that is closed.
var ErrClosed = errors.New("peer is closed")

// Socket is what a peer needs of a datagram socket; *net.UDPConn and
// *PacketConn have it.
type Socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// Listen opens a socket on an address; port 0 picks one.
type Listen func(addr netip.AddrPort) (Socket, error)

// ListenUDP is the Listen of real sockets.
func ListenUDP(addr netip.AddrPort) (Socket, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// PeerConfig describes a peer. Name, Listen, Addr and Switch are needed.
type PeerConfig struct {
	// Name is the peer in ladders, logs and errors: "carrier", "101".
	Name string
	// User is the user part of its Contact; Name if empty.
	User string
	// Listen opens the SIP socket and those of the calls' voices.
	Listen Listen
	// Transport is "tcp" or "tls" for a peer that signals by connections; empty is
	// UDP. Streams opens them, and TLS is for both roles.
	Transport string
	Streams   Streams
	TLS       *tls.Config
	// Addr is where the peer listens; port 0 picks one.
	Addr netip.AddrPort
	// Switch is where it sends requests outside of dialogs.
	Switch netip.AddrPort
	// Username and Password answer digest challenges; no password, no answer.
	Username, Password string
	// Algorithm limits the digest to "MD5" or "SHA-256"; empty takes the
	// strongest that is offered.
	Algorithm string
	// Seed decides tags, branches, SSRCs and all else that is random.
	Seed uint64
	// T1 is the round-trip estimate of RFC 3261 §17.1.1.1; 500 ms if zero.
	T1 time.Duration
	// Voice is for calls that say nothing else.
	Voice Voice
	// Behave decides by the INVITE what becomes of an incoming call; nil rings
	// until a test calls Answer or Reject. It must not use the peer.
	Behave func(invite *Message) Behaviour
	// OnMessage sees each message as it is sent or received, serially. It must
	// not use the peer.
	OnMessage func(Entry)
	// OnRequest sees each new request except ACK and CANCEL first; if it
	// returns true the peer leaves it alone, to be answered with Respond or not
	// at all. It runs on the peer's reader.
	OnRequest func(*Message) bool
	// Large takes requests of any size over UDP: the peer has refused TCP.
	Large bool
	// Forget keeps no log of messages and no ended calls, for long simulations.
	Forget bool
	// Log gets messages at level debug, without numbers; nil discards.
	Log *slog.Logger
}

// Entry is one message in a peer's log.
type Entry struct {
	At      time.Time
	Peer    string // the peer whose log it is
	Local   netip.AddrPort
	Remote  netip.AddrPort
	Out     bool // sent by the peer
	Again   bool // a retransmission
	Message *Message
}

// Peer is a SIP user agent on one socket, under the control of a test. One
// goroutine reads the socket; each call has the goroutines of its voice. All
// methods are safe for concurrent use.
//
// It keeps the timers of RFC 3261 §17 for UDP, and it watches: what a real
// peer could not live with is added to Violations.
type Peer struct {
	cfg   PeerConfig
	sock  Socket
	addr  netip.AddrPort
	began time.Time
	done  chan struct{}
	wg    sync.WaitGroup

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at each change
	rnd        *rand.Rand
	log        []Entry
	violations []string
	clients    map[string]*clientTx
	servers    map[string]*serverTx
	calls      map[string]*Call
	subs       map[string]*Subscription
	incoming   []*Call // not yet taken by WaitCall
	nonces     map[string]int
	behave     func(*Message) Behaviour
	bound      bool // registered once: calls come to our Contact
	closed     bool
}

// NewPeer opens the socket and begins to serve; Close ends it.
func NewPeer(cfg PeerConfig) (*Peer, error) {
	if cfg.User == "" {
		cfg.User = cfg.Name
	}
	if cfg.T1 == 0 {
		cfg.T1 = 500 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	sock, err := cfg.open()
	if err != nil {
		return nil, fmt.Errorf("open peer %s: %w", cfg.Name, err)
	}
	p := &Peer{
		cfg: cfg, sock: sock, began: time.Now(), done: make(chan struct{}), changed: make(chan struct{}),
		clients: map[string]*clientTx{}, servers: map[string]*serverTx{}, calls: map[string]*Call{}, subs: map[string]*Subscription{},
		nonces: map[string]int{}, behave: cfg.Behave,
	}
	p.addr = sock.LocalAddr().(*net.UDPAddr).AddrPort()
	p.addr = netip.AddrPortFrom(p.addr.Addr().Unmap(), p.addr.Port())
	// Two peers with one seed must not draw the same tags and Call-IDs.
	ip := p.addr.Addr().As16()
	p.rnd = rand.New(rand.NewPCG(cfg.Seed, uint64(ip[12])<<40|uint64(ip[13])<<32|uint64(ip[14])<<24|uint64(ip[15])<<16|uint64(p.addr.Port())))
	p.wg.Go(p.read)
	return p, nil
}

// open opens the SIP socket.
func (cfg PeerConfig) open() (Socket, error) {
	switch cfg.Transport {
	case "", "udp":
		return cfg.Listen(cfg.Addr)
	case "tcp":
		return listenStreams(cfg.Streams, nil, cfg.Addr)
	case "tls":
		return listenStreams(cfg.Streams, cfg.TLS, cfg.Addr)
	}
	return nil, fmt.Errorf("transport %q is not known", cfg.Transport)
}

// reliable reports whether nothing is sent again because it may be lost.
func (p *Peer) reliable() bool { return p.cfg.Transport == "tcp" || p.cfg.Transport == "tls" }

// Close silences every call without a BYE, closes the sockets and waits for
// the peer's goroutines.
func (p *Peer) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	p.closed = true
	close(p.done)
	err := p.sock.Close()
	for _, c := range p.calls {
		err = errors.Join(err, c.voice.close())
	}
	p.mu.Unlock()
	p.wg.Wait()
	if err != nil {
		return fmt.Errorf("close peer %s: %w", p.cfg.Name, err)
	}
	return nil
}

// Name is the peer's name.
func (p *Peer) Name() string { return p.cfg.Name }

// Addr is where the peer listens.
func (p *Peer) Addr() netip.AddrPort { return p.addr }

// SetBehaviour replaces Behave for the calls that come from now on.
func (p *Peer) SetBehaviour(behave func(*Message) Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behave = behave
}

// SetOnRequest replaces OnRequest for the requests that come from now on.
func (p *Peer) SetOnRequest(f func(*Message) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.OnRequest = f
}

// Violations lists what the peer has seen that breaks a rule of the protocols,
// with the time since the peer began. A test fails if there is any.
func (p *Peer) Violations() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.violations)
	for _, c := range p.calls {
		all = append(all, c.voice.wrongs()...)
	}
	return all
}

// Messages is a copy of the log, oldest first.
func (p *Peer) Messages() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// Calls counts the calls that have not ended.
func (p *Peer) Calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if c.state != Ended {
			n++
		}
	}
	return n
}

// WaitCall takes the oldest incoming call that nobody took yet, or waits for
// one.
func (p *Peer) WaitCall(timeout time.Duration) (*Call, error) {
	var c *Call
	err := p.wait(timeout, func() bool {
		if len(p.incoming) == 0 {
			return false
		}
		c, p.incoming = p.incoming[0], p.incoming[1:]
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("%s: no call within %v; %s: %w", p.cfg.Name, timeout, p.recent(nil), err)
	}
	return c, nil
}

// WaitMessage returns the first received message for which match is true,
// among those that have come and those to come. match must not use the peer.
func (p *Peer) WaitMessage(timeout time.Duration, match func(*Message) bool) (*Message, error) {
	var found *Message
	next := 0
	err := p.wait(timeout, func() bool {
		for ; next < len(p.log); next++ {
			if e := p.log[next]; !e.Out && match(e.Message) {
				found = e.Message
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("%s: wanted message did not come within %v; %s: %w", p.cfg.Name, timeout, p.recent(nil), err)
	}
	return found, nil
}

// Send writes raw bytes to the switch, well-formed or not.
func (p *Peer) Send(raw []byte) error {
	_, err := p.sock.WriteToUDPAddrPort(raw, p.cfg.Switch)
	return err
}

// NewRequest builds a request to the switch outside of any dialog, complete
// with Via, tags, Call-ID, CSeq and Contact; change what you like before
// Request sends it.
func (p *Peer) NewRequest(method, uri string) *Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newRequest(method, uri)
}

// Request sends a request other than INVITE to the switch, repeats it until
// it is answered and returns the final response. A digest challenge is
// answered once if the peer has a password.
func (p *Peer) Request(ctx context.Context, req *Message) (*Message, error) {
	return p.request(ctx, req, p.cfg.Switch)
}

func (p *Peer) request(ctx context.Context, req *Message, to netip.AddrPort) (*Message, error) {
	p.mu.Lock()
	res, done := (*Message)(nil), false
	challenged := false
	var on func(*Message, bool)
	on = func(m *Message, again bool) {
		switch {
		case again || m != nil && m.Status < 200:
		case m != nil && !challenged && p.canAnswer(m):
			challenged = true
			p.authorize(req, m)
			p.transact(req, to, on)
		default:
			res, done = m, true
		}
	}
	p.transact(req, to, on)
	p.mu.Unlock()
	err := p.waitCtx(ctx, func() bool { return done })
	if err == nil && res == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s not answered: %w", p.cfg.Name, req.Method, err)
	}
	return res, nil
}

// Respond answers a request that OnRequest kept. The To-tag is the same in all
// responses of a dialog.
func (p *Peer) Respond(req *Message, status int, fields ...Field) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	tx := p.servers[serverKey(req, req.Method)]
	if tx == nil {
		return fmt.Errorf("%s: no transaction of this %s", p.cfg.Name, req.Method)
	}
	p.respond(tx, status, nil, fields...)
	return nil
}

// wait waits until cond, called with the peer locked, is true.
func (p *Peer) wait(timeout time.Duration, cond func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.waitCtx(ctx, cond)
}

func (p *Peer) waitCtx(ctx context.Context, cond func() bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !cond() {
		if p.closed {
			return ErrClosed
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		case <-p.done:
		}
		p.mu.Lock()
		if ctx.Err() != nil && !cond() {
			return ctx.Err()
		}
	}
	return nil
}

// recent tells the last messages for an error text.
func (p *Peer) recent(c *Call) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	if c != nil {
		log = c.log
	}
	if len(log) == 0 {
		return "saw nothing"
	}
	var b strings.Builder
	b.WriteString("saw")
	if n := len(log) - 12; n > 0 {
		log = log[n:]
		b.WriteString(" ...")
	}
	for i, e := range log {
		if i > 0 {
			b.WriteByte(',')
		}
		way := "<"
		if e.Out {
			way = ">"
		}
		fmt.Fprintf(&b, " %s%s +%v", way, e.Message, e.At.Sub(p.began).Round(time.Millisecond))
	}
	return b.String()
}

// The rest is called with p.mu held.

func (p *Peer) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// after runs f with the peer locked, unless it is closed by then.
func (p *Peer) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closed {
			f()
			p.notify()
		}
	})
}

func (p *Peer) violate(format string, args ...any) {
	at := time.Since(p.began).Round(time.Millisecond)
	p.violations = append(p.violations, fmt.Sprintf("%s +%v: %s", p.cfg.Name, at, fmt.Sprintf(format, args...)))
}

func (p *Peer) token() string { return fmt.Sprintf("%012x", p.rnd.Uint64()>>16) }

func (p *Peer) contactURI() string {
	uri := fmt.Sprintf("sip:%s@%v", p.cfg.User, p.addr)
	if p.reliable() {
		uri += ";transport=" + p.cfg.Transport
	}
	return uri
}

// host is the address in URIs, which puts IPv6 into brackets.
func (p *Peer) host() string { return hostOf(p.addr.Addr()) }

func hostOf(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

func (p *Peer) via() string {
	if p.reliable() {
		return fmt.Sprintf("SIP/2.0/%s %v;branch=z9hG4bK%s", strings.ToUpper(p.cfg.Transport), p.addr, p.token())
	}
	return fmt.Sprintf("SIP/2.0/UDP %v;branch=z9hG4bK%s;rport", p.addr, p.token())
}

func (p *Peer) newRequest(method, uri string) *Message {
	m := &Message{Method: method, URI: uri}
	m.Add("Via", p.via())
	m.Add("Max-Forwards", "70")
	m.Add("From", fmt.Sprintf("<sip:%s@%v>;tag=%s", p.cfg.User, p.host(), p.token()))
	m.Add("To", "<"+uri+">")
	m.Add("Call-ID", fmt.Sprintf("%s@%v", p.token(), p.addr.Addr()))
	m.Add("CSeq", "1 "+method)
	m.Add("Contact", "<"+p.contactURI()+">")
	return m
}

// write sends a message and logs it.
func (p *Peer) write(m *Message, raw []byte, to netip.AddrPort, again bool) {
	p.record(Entry{At: time.Now(), Peer: p.cfg.Name, Local: p.addr, Remote: to, Out: true, Again: again, Message: m})
	if _, err := p.sock.WriteToUDPAddrPort(raw, to); err != nil && !errors.Is(err, net.ErrClosed) {
		p.violate("cannot send %s to %v: %v", m, to, err)
	}
}

func (p *Peer) record(e Entry) {
	if !p.cfg.Forget {
		p.log = append(p.log, e)
		if c := p.calls[e.Message.CallID()]; c != nil {
			c.log = append(c.log, e)
		}
	}
	p.cfg.Log.Debug("message", "leg", p.cfg.Name, "out", e.Out, "again", e.Again, "message", e.Message.String())
	if p.cfg.OnMessage != nil {
		p.cfg.OnMessage(e)
	}
	p.notify()
}

// forget drops a call that has ended from a peer that keeps no log, when no
// message of it can come any more.
func (p *Peer) forget(c *Call) {
	if !p.cfg.Forget {
		return
	}
	p.after(4*64*p.cfg.T1, func() {
		p.violations = append(p.violations, c.voice.wrongs()...)
		delete(p.calls, c.id)
	})
}

// read is the goroutine of the socket.
func (p *Peer) read() {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := p.sock.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier write
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		p.receive(slices.Clone(buf[:n]), from)
	}
}

func (p *Peer) receive(raw []byte, from netip.AddrPort) {
	if len(strings.Trim(string(raw), "\r\n\x00")) == 0 {
		return // keep-alive
	}
	m, err := ParseMessage(raw)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if err != nil {
		p.violate("%v", err)
		return
	}
	again := p.known(m)
	p.record(Entry{At: time.Now(), Peer: p.cfg.Name, Local: p.addr, Remote: from, Again: again, Message: m})
	if !p.checkMessage(m, raw) {
		return
	}
	if m.Status != 0 {
		p.onResponse(m, raw)
		return
	}
	if m.Method == "ACK" {
		p.onAck(m)
		return
	}
	if tx := p.servers[serverKey(m, m.Method)]; tx != nil {
		p.repeated(tx, raw)
		return
	}
	tx := p.open(m, raw, from)
	if see := p.cfg.OnRequest; see != nil && m.Method != "CANCEL" {
		p.mu.Unlock()
		kept := see(m)
		p.mu.Lock()
		if kept || p.closed {
			return
		}
	}
	p.onRequest(tx)
	p.notify()
}
