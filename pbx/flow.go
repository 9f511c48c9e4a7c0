package pbx

import (
	"bytes"
	"crypto/x509"
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

// The patience with a connection.
const (
	// handshakeTime bounds TCP's and TLS's together, both ways: less than
	// routePatience, so that the next server is tried in time.
	handshakeTime = 4 * time.Second
	// wholeMessageTime is how long a message may take that has begun: who sends
	// half of one does not hold memory for long.
	wholeMessageTime = 10 * time.Second
	// strangerIdle is how long somebody unknown may say nothing.
	strangerIdle = 30 * time.Second
	// knownIdle is that time for trunks and registered phones, which may be
	// silent between two registrations. Dead hosts are found by TCP's keep-alive.
	knownIdle = maxExpires + 5*time.Minute
	// writeTime is how long the peer may leave what we send in the way.
	writeTime = 10 * time.Second
	// writeQueue is how much may wait for it, in bytes.
	writeQueue = 512 << 10
	// flushTime is how long a connection that ends may take to say the rest.
	flushTime = 2 * time.Second
)

var (
	errSlowReader = errors.New("the peer does not read")
	errFlowGone   = errors.New("its connection is gone")
)

// flow is a TCP or TLS connection that carries SIP in both directions, whoever
// opened it. sipgo reads it as a net.Conn: whole, normalised messages only, of
// which the guard lets each in by itself. Writing never waits: a goroutine
// of the flow's writes, and ends the flow when the peer does not read.
//
// Read is for one goroutine; the rest is safe for concurrent use.
type flow struct {
	table     *flows
	transport string // "TCP" or "TLS"
	conn      net.Conn
	local     netip.AddrPort // the listener by which the peer knows us
	remote    netip.AddrPort
	dialed    bool // by us
	// peer are the certificates that the peer has proved to own, verified against
	// the roots; nil: none.
	peer []*x509.Certificate

	text    streamText
	left    []byte // what did not fit into the last Read
	over    bool   // the stream ends after left
	spoken  bool   // a message was admitted
	heard   time.Time
	started time.Time // when the message began that is not whole yet
	buf     [4096]byte

	begun   sync.Once
	serving chan struct{} // closed when sipgo reads: it sends by this flow from then on

	mu     sync.Mutex
	queue  [][]byte
	queued int
	ending bool
	poke   chan struct{} // one token: there is something to write, or it ends
	done   chan struct{} // closed when nothing more can be sent
}

func newFlow(table *flows, transport string, conn net.Conn, local, remote netip.AddrPort) *flow {
	return &flow{
		table: table, transport: transport, conn: conn, local: local, remote: remote, heard: time.Now(),
		serving: make(chan struct{}), poke: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (f *flow) key() flowKey { return flowKey{f.transport, f.remote} }

// LocalAddr is that of the listener, also if we opened the connection from
// another port: it is what the peer's requests and ours are said to come by.
func (f *flow) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(f.local) }

// RemoteAddr is the peer's end.
func (f *flow) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.remote) }

// SetDeadline and the like do nothing: the flow keeps its own.
func (f *flow) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (f *flow) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (f *flow) SetWriteDeadline(time.Time) error { return nil }

// Read returns whole messages, or a part of one if b is short. Keep-alives
// (RFC 5626 §4.4.1) and what cannot be parsed are answered here; a stream in
// which no boundary is left ends.
func (f *flow) Read(b []byte) (int, error) {
	f.begun.Do(func() { close(f.serving) })
	for len(f.left) == 0 {
		if f.over {
			f.end()
			return 0, io.EOF
		}
		if err := f.receive(); err != nil {
			f.end()
			return 0, err
		}
	}
	n := copy(b, f.left)
	f.left = f.left[n:]
	return n, nil
}

// receive reads once and keeps what may go on in left.
func (f *flow) receive() error {
	limit := f.patience()
	if err := f.conn.SetReadDeadline(limit); err != nil {
		return err
	}
	n, err := f.conn.Read(f.buf[:])
	if n == 0 {
		if errors.Is(err, os.ErrDeadlineExceeded) && f.patience().After(limit) {
			return nil // somebody that is known by now
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	f.heard = time.Now()
	out, reply, ok := f.text.feed(f.buf[:n], f.remote, func(msg []byte) ([]byte, bool) {
		f.started = time.Time{}
		// What answers us on a connection of ours was asked for.
		asked := f.dialed && bytes.HasPrefix(msg, []byte("SIP/2.0 "))
		admitted := asked || f.table.guard.admit(f.remote, msg) == verdictAdmit
		f.spoken = f.spoken || admitted
		if !admitted {
			return nil, false
		}
		f.table.observe(false, f.transport, msg, f.heard)
		return f.table.tagCancel(msg), true
	})
	f.left, f.over = out, !ok
	switch {
	case !f.text.partial():
		f.started = time.Time{}
	case f.started.IsZero():
		f.started = f.heard
	}
	if len(reply) > 0 {
		_, err := f.Write(reply)
		return err
	}
	return nil
}

// patience is until when the peer may say nothing.
func (f *flow) patience() time.Time {
	idle := strangerIdle
	if f.dialed || f.spoken && f.table.guard.known(f.remote.Addr()) {
		idle = knownIdle
	}
	limit := f.heard.Add(idle)
	if !f.started.IsZero() {
		if whole := f.started.Add(wholeMessageTime); whole.Before(limit) {
			return whole
		}
	}
	return limit
}

// Write puts b into the queue of what is sent.
func (f *flow) Write(b []byte) (int, error) {
	f.mu.Lock()
	if f.ending {
		f.mu.Unlock()
		return 0, net.ErrClosed
	}
	if f.queued+len(b) > writeQueue {
		f.mu.Unlock()
		f.end()
		return 0, errSlowReader
	}
	f.queue = append(f.queue, slices.Clone(b))
	f.queued += len(b)
	f.mu.Unlock()
	f.table.observe(true, f.transport, b, time.Now())
	f.wake()
	return len(b), nil
}

func (f *flow) wake() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// Close ends the flow after what is in the queue.
func (f *flow) Close() error {
	f.end()
	return nil
}

// end takes the flow out of use. Its writer sends the rest and closes.
func (f *flow) end() {
	f.mu.Lock()
	first := !f.ending
	f.ending = true
	f.mu.Unlock()
	if first {
		f.table.remove(f)
		close(f.done)
		f.wake()
	}
}

func (f *flow) alive() bool {
	select {
	case <-f.done:
		return false
	default:
		return true
	}
}

// write is the writer's goroutine. It closes the connection at the end.
func (f *flow) write() {
	var last time.Time // until when the rest may be sent
	for {
		<-f.poke
		for {
			f.mu.Lock()
			chunks, ending := f.queue, f.ending
			f.queue, f.queued = nil, 0
			f.mu.Unlock()
			if ending && last.IsZero() {
				last = time.Now().Add(flushTime)
			}
			if len(chunks) == 0 {
				if ending {
					f.close()
					return
				}
				break
			}
			limit := time.Now().Add(writeTime)
			if !last.IsZero() {
				limit = last
			}
			if err := f.send(chunks, limit); err != nil {
				f.end()
				f.close()
				return
			}
		}
	}
}

func (f *flow) send(chunks [][]byte, limit time.Time) error {
	if err := f.conn.SetWriteDeadline(limit); err != nil {
		return err
	}
	for _, b := range chunks {
		if _, err := f.conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (f *flow) close() {
	if err := f.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		f.table.log.Debug("close SIP connection", "err", err)
	}
}

// vouches tells whether the peer has proved to be name (RFC 5922 §7.2).
func (f *flow) vouches(name string) bool {
	return len(f.peer) > 0 && certifies(f.peer[0], name)
}

func (f *flow) String() string { return fmt.Sprintf("%s %v", f.transport, f.remote) }
