package media

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// ether is a network in memory. Reads from it block durably, so that it works
// in a synctest bubble; a datagram arrives at once or, if the receiver's queue
// is full or absent, never.
type ether struct {
	mu    sync.Mutex
	socks map[netip.AddrPort]*etherConn
	// fail, if set, makes writes to that address fail.
	fail atomic.Pointer[netip.AddrPort]
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

type etherConn struct {
	ether  *ether
	addr   netip.AddrPort
	queue  chan datagram
	closed chan struct{}
}

func newEther() *ether { return &ether{socks: make(map[netip.AddrPort]*etherConn)} }

func (e *ether) listen(addr netip.AddrPort) (Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.socks[addr] != nil {
		return nil, fmt.Errorf("listen %v: %w", addr, syscall.EADDRINUSE)
	}
	c := &etherConn{ether: e, addr: addr, queue: make(chan datagram, 256), closed: make(chan struct{})}
	e.socks[addr] = c
	return c, nil
}

func (c *etherConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-c.queue:
		return copy(b, d.b), d.from, nil
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (c *etherConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if bad := c.ether.fail.Load(); bad != nil && *bad == to {
		return 0, syscall.ENOBUFS
	}
	c.ether.mu.Lock()
	defer c.ether.mu.Unlock()
	if peer := c.ether.socks[to]; peer != nil {
		select {
		case peer.queue <- datagram{append([]byte(nil), b...), c.addr}:
		default:
		}
	}
	return len(b), nil
}

func (c *etherConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }
func (c *etherConn) LocalAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.addr) }

func (c *etherConn) Close() error {
	c.ether.mu.Lock()
	defer c.ether.mu.Unlock()
	if c.ether.socks[c.addr] != c {
		return errors.New("closed twice")
	}
	delete(c.ether.socks, c.addr)
	close(c.closed)
	return nil
}

// loopback gives each test process addresses of its own in 127.0.0.0/8, so that
// the ports of tests that run side by side do not meet.
func loopback(host byte) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&0x7F), byte(pid), host})
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(100 * time.Second):
		t.Fatalf("nothing came: %s", what)
		panic("unreachable")
	}
}

// until waits for something that no event tells of.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !happened() {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
		<-time.After(100 * time.Microsecond)
	}
}
