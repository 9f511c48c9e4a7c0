package pbx

import (
	"io"
	"net"
	"sync"
	"time"
)

// maxStreams bounds the TCP and TLS connections of one listener; streamIdle
// closes one on which nothing came for so long. Phones on TCP send keep-alives
// far more often (RFC 5626 §4.4.1).
const (
	maxStreams = 1000
	streamIdle = 15 * time.Minute
)

// boundedListener accepts at most max connections at a time, each with a read
// deadline that every read pushes on: sipgo has no limits of its own.
type boundedListener struct {
	net.Listener
	max  int
	idle time.Duration

	mu   sync.Mutex
	open int
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		full := l.open >= l.max
		if !full {
			l.open++
		}
		l.mu.Unlock()
		if !full {
			return &boundedConn{Conn: c, listener: l}, nil
		}
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
}

type boundedConn struct {
	net.Conn
	listener *boundedListener
	closed   sync.Once
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.listener.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *boundedConn) Close() error {
	c.closed.Do(func() {
		c.listener.mu.Lock()
		c.listener.open--
		c.listener.mu.Unlock()
	})
	return c.Conn.Close()
}

// textListener hands out connections that read whole, normalised messages.
type textListener struct{ net.Listener }

func (l textListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &textConn{Conn: c}, nil
}

// textConn cuts a stream into messages for sipgo's parser. Read is for one
// goroutine.
type textConn struct {
	net.Conn
	text streamText
	left []byte // what did not fit into the last Read
	over bool   // the stream ends after left
	buf  [4096]byte
}

// Read returns whole messages, or a part of one if b is short. Keep-alives and
// what cannot be parsed are answered here; a stream in which no boundary is left
// ends.
func (c *textConn) Read(b []byte) (int, error) {
	for len(c.left) == 0 {
		if c.over {
			return 0, io.EOF
		}
		n, err := c.Conn.Read(c.buf[:])
		if n == 0 && err != nil {
			return 0, err
		}
		src, _ := addrPort(c.RemoteAddr())
		out, reply, ok := c.text.feed(c.buf[:n], src)
		c.left, c.over = out, !ok
		if len(reply) > 0 {
			if _, err := c.Write(reply); err != nil {
				return 0, err
			}
		}
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}
