package pbx

import (
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
