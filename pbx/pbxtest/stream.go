package pbxtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Streams are how a peer opens TCP: the Net's methods, or TCP of the system.
type Streams struct {
	Listen func(addr netip.AddrPort) (net.Listener, error)
	Dial   func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)
}

// Streamers are the Streams of a Net.
func (n *Net) Streamers() Streams { return Streams{n.ListenStream, n.DialStream} }

// SystemStreams are those of real sockets.
func SystemStreams() Streams {
	return Streams{
		func(addr netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", addr.String()) },
		func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
			return d.DialContext(ctx, "tcp", remote.String())
		},
	}
}

// frame is a message that came by a stream.
type frame struct {
	from netip.AddrPort
	raw  []byte
}

// streamSocket makes connections look like a socket to a peer: it sends to an
// address by the connection that it has with it, and opens one if it has none.
type streamSocket struct {
	streams Streams
	tls     *tls.Config // nil: TCP
	ln      net.Listener
	addr    netip.AddrPort
	frames  chan frame
	done    chan struct{}
	wg      sync.WaitGroup

	mu     sync.Mutex
	links  map[netip.AddrPort]*link
	errs   []error // of connections that could not be made
	pongs  int
	closed bool
}

// link is one connection and what waits to be sent by it.
type link struct {
	to    netip.AddrPort
	conn  net.Conn // nil until it is open
	queue chan []byte
	done  chan struct{}
	once  sync.Once
}

func listenStreams(s Streams, cfg *tls.Config, addr netip.AddrPort) (*streamSocket, error) {
	ln, err := s.Listen(addr)
	if err != nil {
		return nil, err
	}
	sock := &streamSocket{streams: s, tls: cfg, ln: ln, frames: make(chan frame, 256), done: make(chan struct{}), links: map[netip.AddrPort]*link{}}
	sock.addr = ln.Addr().(*net.TCPAddr).AddrPort()
	sock.addr = netip.AddrPortFrom(sock.addr.Addr().Unmap(), sock.addr.Port())
	sock.wg.Go(sock.accept)
	return sock, nil
}

func (s *streamSocket) accept() {
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			return
		}
		remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
		s.wg.Go(func() {
			if s.tls != nil {
				conn = tls.Server(conn, s.tls)
			}
			l := &link{to: remote, conn: conn, queue: make(chan []byte, 256), done: make(chan struct{})}
			s.mu.Lock()
			if s.closed {
				s.mu.Unlock()
				conn.Close()
				return
			}
			s.links[remote] = l
			s.mu.Unlock()
			s.wg.Go(func() { s.read(l) })
			s.write(l)
		})
	}
}

// open is the goroutine of a link that we begin.
func (s *streamSocket) open(l *link) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := s.streams.Dial(ctx, s.addr.Addr(), l.to)
	if err == nil && s.tls != nil {
		secured := tls.Client(conn, s.tls)
		if err = secured.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
		conn = secured
	}
	s.mu.Lock()
	if err == nil && s.closed {
		conn.Close()
		err = net.ErrClosed
	}
	if err != nil {
		s.errs = append(s.errs, err)
		s.mu.Unlock()
		s.drop(l)
		return
	}
	l.conn = conn
	s.mu.Unlock()
	s.wg.Go(func() { s.read(l) })
	s.write(l)
}

func (s *streamSocket) write(l *link) {
	for {
		select {
		case b := <-l.queue:
			if _, err := l.conn.Write(b); err != nil {
				s.drop(l)
				return
			}
		case <-l.done:
			return
		}
	}
}

func (s *streamSocket) read(l *link) {
	defer s.drop(l)
	r := bufio.NewReader(l.conn)
	for {
		raw, err := readMessage(r)
		if err != nil {
			return
		}
		if len(raw) == 2 {
			s.mu.Lock()
			s.pongs++
			s.mu.Unlock()
			continue
		}
		select {
		case s.frames <- frame{l.to, raw}:
		case <-s.done:
			return
		}
	}
}

// readMessage reads one message by its Content-Length, or the CRLF of a pong.
func readMessage(r *bufio.Reader) ([]byte, error) {
	var b bytes.Buffer
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		b.Write(line)
		text := strings.TrimSpace(string(line))
		if text == "" {
			break
		}
		name, value, _ := strings.Cut(text, ":")
		if eq(strings.TrimSpace(name), "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return nil, err
			}
		}
	}
	if b.Len() == 2 {
		return b.Bytes(), nil
	}
	if length < 0 {
		return nil, fmt.Errorf("a message without Content-Length on a stream: %w", errNotSIP)
	}
	_, err := io.CopyN(&b, r, int64(length))
	return b.Bytes(), err
}

func (s *streamSocket) drop(l *link) {
	s.mu.Lock()
	if s.links[l.to] == l {
		delete(s.links, l.to)
	}
	conn := l.conn
	s.mu.Unlock()
	l.once.Do(func() {
		close(l.done)
		if conn != nil {
			conn.Close()
		}
	})
}

// disconnect ends all connections.
func (s *streamSocket) disconnect() {
	s.mu.Lock()
	var all []*link
	for _, l := range s.links {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		s.drop(l)
	}
}

// ReadFromUDPAddrPort returns one message.
func (s *streamSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case f := <-s.frames:
		return copy(b, f.raw), f.from, nil
	case <-s.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToUDPAddrPort sends one message and does not wait.
func (s *streamSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	l := s.links[to]
	if l == nil {
		l = &link{to: to, queue: make(chan []byte, 256), done: make(chan struct{})}
		s.links[to] = l
		s.wg.Go(func() { s.open(l) })
	}
	select {
	case l.queue <- bytes.Clone(b):
		return len(b), nil
	default:
		return 0, errors.New("too much waits to be sent")
	}
}

// LocalAddr is the listener's, in the form of a socket's.
func (s *streamSocket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

// Close ends all.
func (s *streamSocket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	err := s.ln.Close()
	close(s.done)
	s.disconnect()
	s.wg.Wait()
	return err
}

// Disconnect breaks all connections of a peer over TCP or TLS. It opens new ones
// when it sends.
func (p *Peer) Disconnect() {
	if s, ok := p.sock.(*streamSocket); ok {
		s.disconnect()
	}
}

// Refusals lists why connections of the peer could not be made.
func (p *Peer) Refusals() []error {
	s, ok := p.sock.(*streamSocket)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.errs...)
}

// Pongs counts the answers to keep-alives.
func (p *Peer) Pongs() int {
	s, ok := p.sock.(*streamSocket)
	if !ok {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pongs
}
