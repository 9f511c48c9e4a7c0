package pbxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// errRefused is what dialling fails with where nobody listens.
var errRefused = errors.New("connection refused")

// streamBuffer is how much one direction of a connection holds unread.
const streamBuffer = 64 << 10

// ListenStream opens a TCP listener of the Net.
func (n *Net) ListenStream(addr netip.AddrPort) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("listen on %v: %w", addr, errInUse)
	}
	l := &streamListener{net: n, addr: addr, conns: make(chan net.Conn, 64), done: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[netip.AddrPort]*streamListener{}
	}
	n.listeners[addr] = l
	return l, nil
}

// DialStream opens a connection from a port of local; it is refused at once where
// nobody listens, and hangs until ctx is done at an address that Blackhole names.
func (n *Net) DialStream(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	l, hole := n.listeners[remote], n.holes[remote]
	n.port++
	from := netip.AddrPortFrom(local, 32768+n.port%28000)
	n.mu.Unlock()
	if hole {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, fmt.Errorf("dial %v: %w", remote, errRefused)
	}
	there, back := newHalf(), newHalf()
	ours := &StreamConn{net: n, local: from, remote: remote, in: back, out: there}
	theirs := &StreamConn{net: n, local: remote, remote: from, in: there, out: back}
	select {
	case l.conns <- theirs:
	case <-l.done:
		return nil, fmt.Errorf("dial %v: %w", remote, errRefused)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams = append(slices.DeleteFunc(n.streams, (*StreamConn).over), ours)
	return ours, nil
}

// Blackhole has connections to addr hang, as a firewall does.
func (n *Net) Blackhole(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.holes == nil {
		n.holes = map[netip.AddrPort]bool{}
	}
	n.holes[addr] = true
}

// CutStreams breaks every connection, at both ends.
func (n *Net) CutStreams() {
	n.mu.Lock()
	all := n.streams
	n.streams = nil
	n.mu.Unlock()
	for _, c := range all {
		c.in.shut()
		c.out.shut()
	}
}

// Streams counts the connections that are open.
func (n *Net) Streams() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams = slices.DeleteFunc(n.streams, (*StreamConn).over)
	return len(n.streams)
}

type streamListener struct {
	net   *Net
	addr  netip.AddrPort
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *streamListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.conns:
				c.(*StreamConn).Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *streamListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// half is one direction of a connection.
type half struct {
	mu      sync.Mutex
	buf     []byte
	closed  bool
	changed chan struct{} // closed and replaced at each change
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

func (h *half) notify() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.notify()
	}
}

// StreamConn is one end of a TCP connection of a Net.
type StreamConn struct {
	net           *Net
	local, remote netip.AddrPort
	in, out       *half

	mu          sync.Mutex
	read, write time.Time
}

func (c *StreamConn) over() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.closed
}

func wait(changed <-chan struct{}, until time.Time) error {
	if until.IsZero() {
		<-changed
		return nil
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

// Read waits for what the other end wrote.
func (c *StreamConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		until := c.read
		c.mu.Unlock()
		c.in.mu.Lock()
		if len(c.in.buf) > 0 {
			n := copy(b, c.in.buf)
			c.in.buf = c.in.buf[n:]
			c.in.notify()
			c.in.mu.Unlock()
			return n, nil
		}
		closed, changed := c.in.closed, c.in.changed
		c.in.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		if err := wait(changed, until); err != nil {
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: err}
		}
	}
}

// Write waits for room in the other end's buffer.
func (c *StreamConn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	if tap := c.net.tap; tap != nil {
		tap(Packet{At: time.Now(), From: c.local, To: c.remote, Payload: slices.Clone(b)})
	}
	c.net.mu.Unlock()
	written := 0
	for {
		c.mu.Lock()
		until := c.write
		c.mu.Unlock()
		c.out.mu.Lock()
		if c.out.closed {
			c.out.mu.Unlock()
			return written, &net.OpError{Op: "write", Net: "tcp", Err: net.ErrClosed}
		}
		if n := min(len(b), streamBuffer-len(c.out.buf)); n > 0 {
			c.out.buf = append(c.out.buf, b[:n]...)
			b = b[n:]
			written += n
			c.out.notify()
		}
		changed := c.out.changed
		c.out.mu.Unlock()
		if len(b) == 0 {
			return written, nil
		}
		if err := wait(changed, until); err != nil {
			return written, &net.OpError{Op: "write", Net: "tcp", Err: err}
		}
	}
}

// Close ends both directions; the other end reads what it has not yet.
func (c *StreamConn) Close() error {
	c.in.shut()
	c.out.shut()
	return nil
}

// LocalAddr is a *net.TCPAddr.
func (c *StreamConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is a *net.TCPAddr.
func (c *StreamConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline is for both directions.
func (c *StreamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline wakes a Read that waits.
func (c *StreamConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.read = t
	c.mu.Unlock()
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.notify()
	return nil
}

// SetWriteDeadline wakes a Write that waits.
func (c *StreamConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.write = t
	c.mu.Unlock()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.notify()
	return nil
}
