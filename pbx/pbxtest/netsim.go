package pbxtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// errInUse and errAddr are what a bind can fail with; nobody branches on them.
var (
	errInUse = errors.New("address already in use")
	errAddr  = errors.New("not a specified address")
)

// queueBytes is how much may wait unread in a socket, as in a kernel's receive
// buffer; what comes on top is dropped.
const queueBytes = 1 << 20

// Net is a network of IPv4 and IPv6 in memory, with no way from one to the
// other. It has no goroutines: a datagram lies in the receiver's queue with the
// time at which it may be read, and a reader waits on channels and timers only,
// so a Net works inside a testing/synctest bubble (make it inside the bubble) and
// costs nothing while idle.
//
// Loss and delay are drawn from one generator per flow (source and destination
// address and port), seeded from the Net's seed: the same packets on a flow
// meet the same fate whatever the other flows do. Methods are safe for
// concurrent use.
type Net struct {
	seed uint64

	mu    sync.Mutex
	conns map[netip.AddrPort]*PacketConn
	// Of TCP: who listens, what is open, where connections hang, the last port.
	listeners map[netip.AddrPort]*streamListener
	streams   []*StreamConn
	holes     map[netip.AddrPort]bool
	port      uint16
	flows     map[[2]netip.AddrPort]*flow
	rules     []rule
	drop      func(src, dst netip.AddrPort, payload []byte) bool
	tap       func(Packet)
	seq       uint64
	ports     map[netip.Addr]uint16 // the next one to pick, by address
}

// Impairment is what a path does to datagrams. The zero value is a perfect
// path. Probabilities are 0..1.
type Impairment struct {
	Loss      float64
	Duplicate float64
	// Reorder holds a datagram back by ReorderBy, so that later ones overtake it.
	Reorder float64
	// ReorderBy is 30 ms if zero: longer than one frame of voice.
	ReorderBy time.Duration
	// Delay holds for each datagram; up to Jitter, evenly spread, is added
	// without changing the order.
	Delay, Jitter time.Duration
	// Match limits the impairment to some datagrams, such as IsSIP or IsRTP;
	// nil means all. It must not use the Net.
	Match func(src, dst netip.AddrPort, payload []byte) bool
}

// Packet is one datagram as the tap of a Net sees it, at the time it was sent.
type Packet struct {
	At       time.Time
	From, To netip.AddrPort
	Payload  []byte // the tap's own copy
	Dropped  bool   // lost by an impairment or the drop hook
}

type rule struct {
	from, to netip.Prefix
	Impairment
}

type flow struct {
	rnd  *rand.Rand
	last time.Time // when the last datagram in order arrives
}

// NewNet makes an empty network. The seed decides every random loss and delay.
func NewNet(seed uint64) *Net {
	return &Net{seed: seed, conns: map[netip.AddrPort]*PacketConn{}, flows: map[[2]netip.AddrPort]*flow{}, ports: map[netip.Addr]uint16{}}
}

// IsSIP and IsRTP tell signalling from media by the first byte; RTCP counts as
// RTP.
func IsSIP(_, _ netip.AddrPort, payload []byte) bool {
	return len(payload) > 0 && payload[0] < 0x80
}

// IsRTP is the other half of IsSIP.
func IsRTP(src, dst netip.AddrPort, payload []byte) bool { return !IsSIP(src, dst, payload) }

// Any matches every address in Impair.
var Any = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// Host is the prefix of one address, for Impair.
func Host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Impair applies im to datagrams that go from one network to another, in this
// direction only. Of several rules that match, the one set last holds; the zero
// Impairment makes a path perfect again.
func (n *Net) Impair(from, to netip.Prefix, im Impairment) {
	if im.ReorderBy == 0 {
		im.ReorderBy = 30 * time.Millisecond
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rules = append(n.rules, rule{from.Masked(), to.Masked(), im})
}

// Drop sets a hook that loses the datagrams for which it returns true, before
// any impairment; nil removes it. Calls are serial. It must not use the Net nor
// keep payload.
func (n *Net) Drop(hook func(src, dst netip.AddrPort, payload []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop = hook
}

// OnPacket sets a tap that sees every datagram as it is sent, serially and in
// order; nil removes it. It must not use the Net.
func (n *Net) OnPacket(tap func(Packet)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tap = tap
}

// ListenPacket opens a socket on addr, which must name an address; port 0 picks
// a free one from 49152, in turn, as one that was closed a moment ago may still
// be sent to.
func (n *Net) ListenPacket(addr netip.AddrPort) (*PacketConn, error) {
	if !addr.IsValid() || addr.Addr().IsUnspecified() || addr.Addr().Is4In6() {
		return nil, fmt.Errorf("listen on %v: %w", addr, errAddr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Port() == 0 {
		const first, count = 49152, 65536 - 49152
		for range count {
			a := netip.AddrPortFrom(addr.Addr(), first+n.ports[addr.Addr()])
			n.ports[addr.Addr()] = (n.ports[addr.Addr()] + 1) % count
			if n.conns[a] == nil {
				addr = a
				break
			}
		}
		if addr.Port() == 0 {
			return nil, fmt.Errorf("listen on %v: %w", addr, errInUse)
		}
	}
	if n.conns[addr] != nil {
		return nil, fmt.Errorf("listen on %v: %w", addr, errInUse)
	}
	c := &PacketConn{net: n, addr: addr, poke: make(chan struct{}, 1)}
	n.conns[addr] = c
	return c, nil
}

// ListenBoth opens one socket on a port of an IPv4 and an IPv6 address, as one on
// any address is for a host that has both. It sends from that of the receiver's
// family.
func (n *Net) ListenBoth(v4, v6 netip.Addr, port uint16) (*PacketConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &PacketConn{net: n, addr: netip.AddrPortFrom(v4, port), also: netip.AddrPortFrom(v6, port), poke: make(chan struct{}, 1)}
	if !v4.Is4() || !v6.Is6() || port == 0 {
		return nil, fmt.Errorf("listen on %v and %v: %w", c.addr, c.also, errAddr)
	}
	if n.conns[c.addr] != nil || n.conns[c.also] != nil {
		return nil, fmt.Errorf("listen on %v and %v: %w", c.addr, c.also, errInUse)
	}
	n.conns[c.addr], n.conns[c.also] = c, c
	return c, nil
}

// Listen is ListenPacket in the form that peers take.
func (n *Net) Listen(addr netip.AddrPort) (Socket, error) {
	c, err := n.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Bound lists the sockets that are open on an address, by port.
func (n *Net) Bound(addr netip.Addr) []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	var bound []netip.AddrPort
	for a := range n.conns {
		if a.Addr() == addr {
			bound = append(bound, a)
		}
	}
	slices.SortFunc(bound, netip.AddrPort.Compare)
	return bound
}

// send carries one datagram. A destination where nobody listens swallows it,
// as the Internet does, and so does one of another family.
func (n *Net) send(src, dst netip.AddrPort, b []byte) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	payload := slices.Clone(b)
	lost, copies, at, ordered := n.fate(src, dst, payload, now)
	if n.tap != nil {
		n.tap(Packet{At: now, From: src, To: dst, Payload: slices.Clone(payload), Dropped: lost})
	}
	to := n.conns[dst]
	if lost || to == nil || src.Addr().Is4() != dst.Addr().Is4() {
		return
	}
	if f := n.flow(src, dst); ordered {
		if at.Before(f.last) {
			at = f.last
		}
		f.last = at
	}
	for range copies {
		n.seq++
		to.put(datagram{at: at, seq: n.seq, from: src, payload: payload})
	}
}

// fate draws always the same number of random values, so that changing one
// probability leaves the fate of the others alone.
func (n *Net) fate(src, dst netip.AddrPort, payload []byte, now time.Time) (lost bool, copies int, at time.Time, ordered bool) {
	if n.drop != nil && n.drop(src, dst, payload) {
		return true, 0, now, true
	}
	for i := len(n.rules) - 1; i >= 0; i-- {
		r := &n.rules[i]
		if !r.from.Contains(src.Addr()) || !r.to.Contains(dst.Addr()) || r.Match != nil && !r.Match(src, dst, payload) {
			continue
		}
		rnd := n.flow(src, dst).rnd
		loss, dup, late, jitter := rnd.Float64(), rnd.Float64(), rnd.Float64(), rnd.Float64()
		copies, ordered = 1, true
		if dup < r.Duplicate {
			copies = 2
		}
		at = now.Add(r.Delay + time.Duration(jitter*float64(r.Jitter)))
		if late < r.Reorder {
			at, ordered = at.Add(r.ReorderBy), false
		}
		return loss < r.Loss, copies, at, ordered
	}
	return false, 1, now, true
}

func (n *Net) flow(src, dst netip.AddrPort) *flow {
	key := [2]netip.AddrPort{src, dst}
	f := n.flows[key]
	if f == nil {
		h := fnv.New64a()
		for _, a := range key {
			h.Write(binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port()))
		}
		f = &flow{rnd: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.flows[key] = f
	}
	return f
}

// PacketConn is a socket of a Net. It has the methods of net.PacketConn and
// those of *net.UDPConn that an RTP engine needs. Writes never wait.
type PacketConn struct {
	net  *Net
	addr netip.AddrPort
	also netip.AddrPort // of IPv6, if addr is of IPv4 and the socket has both
	poke chan struct{}  // something changed; one token

	mu       sync.Mutex
	queue    []datagram // by time, then by order of sending
	bytes    int
	deadline time.Time
	closed   bool
}

type datagram struct {
	at      time.Time
	seq     uint64
	from    netip.AddrPort
	payload []byte
}

func (c *PacketConn) put(d datagram) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.bytes+len(d.payload) > queueBytes {
		return
	}
	i := len(c.queue)
	for i > 0 && c.queue[i-1].at.After(d.at) {
		i--
	}
	c.queue = slices.Insert(c.queue, i, d)
	c.bytes += len(d.payload)
	c.wake()
}

func (c *PacketConn) wake() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// next takes a datagram that may be read now; otherwise it tells how long
// there is to wait, where 0 means until something changes.
func (c *PacketConn) next() (d datagram, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		c.wake() // for the next of several readers
		return d, 0, net.ErrClosed
	case !c.deadline.IsZero() && !c.deadline.After(now):
		c.wake()
		return d, 0, os.ErrDeadlineExceeded
	case len(c.queue) > 0 && !c.queue[0].at.After(now):
		d = c.queue[0]
		c.queue[0] = datagram{}
		c.queue = c.queue[1:]
		c.bytes -= len(d.payload)
		if len(c.queue) > 0 {
			c.wake()
		}
		return d, 0, nil
	}
	if len(c.queue) > 0 {
		wait = c.queue[0].at.Sub(now)
	}
	if until := c.deadline.Sub(now); !c.deadline.IsZero() && (wait == 0 || until < wait) {
		wait = until
	}
	return d, wait, nil
}

// ReadFromUDPAddrPort reads one datagram; what does not fit into b is lost.
func (c *PacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		d, wait, err := c.next()
		if err != nil {
			return 0, netip.AddrPort{}, &net.OpError{Op: "read", Net: "udp", Addr: c.LocalAddr(), Err: err}
		}
		if d.payload != nil {
			return copy(b, d.payload), d.from, nil
		}
		if wait == 0 {
			<-c.poke
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ReadFrom is ReadFromUDPAddrPort with a *net.UDPAddr.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteToUDPAddrPort sends one datagram.
func (c *PacketConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: c.LocalAddr(), Err: net.ErrClosed}
	}
	if b == nil {
		b = []byte{}
	}
	src, dst := c.addr, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if c.also.IsValid() && dst.Addr().Is6() {
		src = c.also
	}
	c.net.send(src, dst, b)
	return len(b), nil
}

// WriteTo is WriteToUDPAddrPort for a *net.UDPAddr.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: errAddr}
	}
	return c.WriteToUDPAddrPort(b, a.AddrPort())
}

// LocalAddr is the *net.UDPAddr that the socket is bound to.
func (c *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// SetReadDeadline wakes readers at t with os.ErrDeadlineExceeded; the zero time
// means never.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	c.wake()
	return nil
}

// SetDeadline is SetReadDeadline, since writes never wait.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writes never wait.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer do nothing; callers of a *net.UDPConn use
// them.
func (c *PacketConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing.
func (c *PacketConn) SetWriteBuffer(int) error { return nil }

// Close frees the address and ends all reads with net.ErrClosed.
func (c *PacketConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.queue = nil
	delete(c.net.conns, c.addr)
	delete(c.net.conns, c.also)
	c.wake()
	return nil
}
