package media

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// PacketKind says what the payload of a tapped packet is.
type PacketKind uint8

const (
	KindPCMU         PacketKind = iota // G.711 µ-law samples
	KindPCMA                           // G.711 A-law samples
	KindComfortNoise                   // RFC 3389; stands for silence
	KindEvent                          // RFC 4733; stands for silence
)

// Packet is one RTP packet as it was received, reduced to what a recording
// needs.
type Packet struct {
	Kind      PacketKind
	Marker    bool
	Sequence  uint16
	Timestamp uint32
	SSRC      uint32
	// Arrival is the monotonic time since the tap's epoch.
	Arrival time.Duration
	// Payload is the RTP payload without padding; empty for KindComfortNoise
	// and KindEvent.
	Payload []byte
}

// MaxPayload is the longest payload that a tap takes, in bytes: 100 ms of
// G.711 and some.
const MaxPayload = 1024

const tapHeader = 2 + 1 + 1 + 2 + 4 + 4 + 8 // length, kind, marker, sequence, timestamp, SSRC, arrival

// Tap is a ring of packets between one packet loop, which calls Put, and one
// reader, which calls Next. Put never waits and never allocates: if the ring
// is full it counts the packet as dropped.
//
// At most one goroutine may Put and one may Next at a time; a Stream's SetTap
// makes that hold when a tap passes from one stream to the next.
//
// head and tail count bytes since the beginning; byte n lies at n less origin,
// modulo the ring's size. Whenever Put finds the ring empty it makes that place
// the ring's first: so a reader that keeps up lets only the ring's first pages
// be used, and the rest of it takes no memory until it is needed (ringMemory).
type Tap struct {
	epoch   time.Time
	buf     []byte // length is a power of two
	head    atomic.Uint64
	tail    atomic.Uint64
	origin  atomic.Uint64 // written by Put, while the ring is empty
	dropped atomic.Uint64
}

// NewTap makes a tap with a ring of at least size bytes; a 20 ms G.711 packet
// takes 182. Arrival times count from epoch, which must carry a monotonic
// reading.
func NewTap(size int, epoch time.Time) *Tap {
	n := 4096
	for n < size {
		n *= 2
	}
	t := &Tap{epoch: epoch}
	t.buf = ringMemory(t, n)
	return t
}

// Epoch is the instant from which Arrival counts.
func (t *Tap) Epoch() time.Time { return t.epoch }

// Put copies p into the ring and reports whether it fitted. p.Arrival is
// overwritten with the time since the epoch.
func (t *Tap) Put(p *Packet) bool {
	n := tapHeader + len(p.Payload)
	head, tail := t.head.Load(), t.tail.Load()
	if len(p.Payload) > MaxPayload || uint64(n) > uint64(len(t.buf))-(head-tail) {
		t.dropped.Add(1)
		return false
	}
	origin := t.origin.Load()
	if head == tail {
		origin = head
		t.origin.Store(origin) // before head, by which the reader learns of it
	}
	p.Arrival = time.Since(t.epoch)
	var h [tapHeader]byte
	binary.LittleEndian.PutUint16(h[0:], uint16(len(p.Payload)))
	h[2] = byte(p.Kind)
	if p.Marker {
		h[3] = 1
	}
	binary.LittleEndian.PutUint16(h[4:], p.Sequence)
	binary.LittleEndian.PutUint32(h[6:], p.Timestamp)
	binary.LittleEndian.PutUint32(h[10:], p.SSRC)
	binary.LittleEndian.PutUint64(h[14:], uint64(p.Arrival))
	t.copyIn(head-origin, h[:])
	t.copyIn(head-origin+tapHeader, p.Payload)
	t.head.Store(head + uint64(n))
	return true
}

// Next takes the oldest packet out of the ring; it reports false if there is
// none. p.Payload is reused if it has room (MaxPayload is always enough).
func (t *Tap) Next(p *Packet) bool {
	tail := t.tail.Load()
	if tail == t.head.Load() {
		return false
	}
	origin := t.origin.Load()
	var h [tapHeader]byte
	t.copyOut(h[:], tail-origin)
	n := int(binary.LittleEndian.Uint16(h[0:]))
	p.Kind = PacketKind(h[2])
	p.Marker = h[3] == 1
	p.Sequence = binary.LittleEndian.Uint16(h[4:])
	p.Timestamp = binary.LittleEndian.Uint32(h[6:])
	p.SSRC = binary.LittleEndian.Uint32(h[10:])
	p.Arrival = time.Duration(binary.LittleEndian.Uint64(h[14:]))
	if cap(p.Payload) < n {
		p.Payload = make([]byte, 0, MaxPayload)
	}
	p.Payload = p.Payload[:n]
	t.copyOut(p.Payload, tail-origin+tapHeader)
	t.tail.Store(tail + tapHeader + uint64(n))
	return true
}

// Dropped counts packets that found the ring full or were too long.
func (t *Tap) Dropped() uint64 { return t.dropped.Load() }

func (t *Tap) copyIn(at uint64, b []byte) {
	i := int(at & uint64(len(t.buf)-1))
	n := copy(t.buf[i:], b)
	copy(t.buf, b[n:])
}

func (t *Tap) copyOut(b []byte, at uint64) {
	i := int(at & uint64(len(t.buf)-1))
	n := copy(b, t.buf[i:])
	copy(b[n:], t.buf)
}
