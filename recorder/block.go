package recorder

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"centralka/media"
	"centralka/store"
)

// blockVersion is the first byte of every block (docs/journal-format.md).
const blockVersion = 1

// maxOffset bounds every time offset of a journal, in microseconds: no
// recording is longer than a day, and its WAV stays below the 4 GiB that a
// RIFF header can tell.
const maxOffset = int64(24 * time.Hour / time.Microsecond)

// blockLimit is the size at which the writer begins a new block; one more
// packet, and the largest record, still fit into the 64 KiB of a frame.
const blockLimit = 32 << 10

// maxRecord is the longest call record that a journal's first block carries.
const maxRecord = 16 << 10

// itemKind is the tag of an item in a block. A tag with the high bit set is a
// packet whose other bits are the flags below.
type itemKind uint8

const (
	itemStart   itemKind = 1 // call id, wall clock of the beginning
	itemTick    itemKind = 2 // all that arrived before stands above
	itemHold    itemKind = 3 // both lanes fall silent
	itemResume  itemKind = 4 // hold is over
	itemEnd     itemKind = 5 // the conversation ended
	itemDropped itemKind = 6 // what was lost on the way, sums since the beginning
	itemRecord  itemKind = 7 // the call record as of the beginning, JSON
	itemPacket  itemKind = 0x80
)

const (
	packetOffice = 0x40      // lane: clear citizen, set office
	packetMarker = 0x20      // RTP marker bit
	packetKind   = 0x18      // media.PacketKind, shifted by 3
	packetNext   = 0x04      // follows the lane's packet before it in this block
	packetZero   = 0x03      // must be zero
	packetHead   = 2 + 4 + 4 // sequence, timestamp, SSRC of a packet in full
)

// item is one decoded item; which fields count depends on kind. Slices alias
// the block.
type item struct {
	kind    itemKind
	at      int64 // microseconds since the beginning: tick, hold, resume, end, packet
	id      store.ID
	wall    time.Time
	dropped [2]uint64
	fails   uint64
	record  []byte
	lane    int
	packet  media.Packet
}

// chain is what the short form of a packet refers to: the one before it in the
// same block and lane.
type chain struct {
	known     bool
	sequence  uint16
	timestamp uint32
	ssrc      uint32
	at        int64
	length    int
}

// blockWriter builds one block after the other in a reused buffer.
type blockWriter struct {
	buf     []byte
	chains  [2]chain
	packets [2]uint64 // in the block
	oldest  int64     // arrival of its first packet
}

func (w *blockWriter) reset() {
	w.buf = append(w.buf[:0], blockVersion)
	w.chains = [2]chain{}
	w.packets = [2]uint64{}
}

// empty reports whether the block has no items.
func (w *blockWriter) empty() bool { return len(w.buf) <= 1 }

// full reports whether a packet that arrived at the given offset belongs into
// a block of its own: blocks hold at most half a second.
func (w *blockWriter) full(at int64) bool {
	return len(w.buf) >= blockLimit ||
		w.packets != [2]uint64{} && (at-w.oldest > maxBlock || w.oldest-at > maxBlock)
}

func (w *blockWriter) start(id store.ID, wall time.Time) {
	w.buf = append(w.buf, byte(itemStart))
	w.buf = append(w.buf, id[:]...)
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(wall.UnixNano()))
}

func (w *blockWriter) record(json []byte) {
	w.buf = append(w.buf, byte(itemRecord))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(json)))
	w.buf = append(w.buf, json...)
}

func (w *blockWriter) mark(kind itemKind, at int64) {
	w.buf = append(w.buf, byte(kind))
	w.buf = binary.AppendUvarint(w.buf, uint64(clampOffset(at)))
}

func (w *blockWriter) dropped(n [2]uint64, fails uint64) {
	w.buf = append(w.buf, byte(itemDropped))
	for _, v := range [...]uint64{n[citizen], n[office], fails} {
		w.buf = binary.AppendUvarint(w.buf, v)
	}
}

// packet appends p, which arrived at the given offset. A packet that carries
// on where the lane's last one ended leaves out what that one tells.
func (w *blockWriter) packet(lane int, p *media.Packet, at int64) {
	if w.packets == [2]uint64{} {
		w.oldest = at
	}
	w.packets[lane]++
	tag := byte(itemPacket) | byte(p.Kind)<<3&packetKind
	if lane == office {
		tag |= packetOffice
	}
	if p.Marker {
		tag |= packetMarker
	}
	c := &w.chains[lane]
	if c.known && p.SSRC == c.ssrc && p.Sequence == c.sequence+1 && len(p.Payload) == c.length &&
		p.Timestamp == c.timestamp+uint32(c.length) && at >= c.at {
		w.buf = append(w.buf, tag|packetNext)
		w.buf = binary.AppendUvarint(w.buf, uint64(at-c.at))
	} else {
		w.buf = append(w.buf, tag)
		w.buf = binary.AppendUvarint(w.buf, uint64(at))
		w.buf = binary.BigEndian.AppendUint16(w.buf, p.Sequence)
		w.buf = binary.BigEndian.AppendUint32(w.buf, p.Timestamp)
		w.buf = binary.BigEndian.AppendUint32(w.buf, p.SSRC)
		w.buf = binary.AppendUvarint(w.buf, uint64(len(p.Payload)))
	}
	w.buf = append(w.buf, p.Payload...)
	*c = chain{true, p.Sequence, p.Timestamp, p.SSRC, at, len(p.Payload)}
}

func clampOffset(at int64) int64 { return min(max(at, 0), maxOffset) }

// blockReader takes a block apart. Damaged blocks end in err, never in a
// panic.
type blockReader struct {
	rest    []byte
	chains  [2]chain
	started bool
	err     error
}

// next reads the next item into it; it reports false at the end of the block
// or at damage, which err tells.
func (r *blockReader) next(it *item) bool {
	if !r.started {
		r.started = true
		if len(r.rest) == 0 || r.rest[0] != blockVersion {
			r.err = fmt.Errorf("block does not begin with version %d", blockVersion)
			return false
		}
		r.rest = r.rest[1:]
	}
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	tag := r.rest[0]
	r.rest = r.rest[1:]
	it.kind = itemKind(tag)
	if tag&byte(itemPacket) != 0 {
		it.kind = itemPacket
		r.packet(tag, it)
		return r.err == nil
	}
	switch it.kind {
	case itemStart:
		b := r.take(uint64(len(it.id) + 8))
		if r.err == nil {
			copy(it.id[:], b)
			it.wall = time.Unix(0, int64(binary.BigEndian.Uint64(b[len(it.id):]))).UTC()
		}
	case itemTick, itemHold, itemResume, itemEnd:
		it.at = r.offset(0)
	case itemDropped:
		it.dropped[citizen], it.dropped[office], it.fails = r.uvarint(), r.uvarint(), r.uvarint()
	case itemRecord:
		it.record = r.take(r.uvarint())
	default:
		r.err = fmt.Errorf("block has an item of unknown kind %#x", tag)
	}
	return r.err == nil
}

func (r *blockReader) packet(tag byte, it *item) {
	it.lane = citizen
	if tag&packetOffice != 0 {
		it.lane = office
	}
	c := &r.chains[it.lane]
	p := &it.packet
	p.Kind = media.PacketKind(tag & packetKind >> 3)
	p.Marker = tag&packetMarker != 0
	if tag&packetZero != 0 {
		r.err = fmt.Errorf("block has a packet of unknown form %#x", tag)
		return
	}
	var length uint64
	if tag&packetNext != 0 {
		if !c.known {
			r.err = fmt.Errorf("block has a packet that follows none")
			return
		}
		it.at = r.offset(c.at)
		p.Sequence, p.Timestamp, p.SSRC = c.sequence+1, c.timestamp+uint32(c.length), c.ssrc
		length = uint64(c.length)
	} else {
		it.at = r.offset(0)
		if b := r.take(packetHead); r.err == nil {
			p.Sequence = binary.BigEndian.Uint16(b)
			p.Timestamp = binary.BigEndian.Uint32(b[2:])
			p.SSRC = binary.BigEndian.Uint32(b[6:])
		}
		length = r.uvarint()
		if length > media.MaxPayload && r.err == nil {
			r.err = fmt.Errorf("block has a payload of %d bytes", length)
		}
	}
	p.Payload = r.take(length)
	p.Arrival = time.Duration(it.at) * time.Microsecond
	*c = chain{true, p.Sequence, p.Timestamp, p.SSRC, it.at, len(p.Payload)}
}

// offset reads microseconds counted from base.
func (r *blockReader) offset(base int64) int64 {
	v := r.uvarint()
	if r.err == nil && v > uint64(maxOffset-base) {
		r.err = fmt.Errorf("block has an offset of more than %v", time.Duration(maxOffset)*time.Microsecond)
	}
	if r.err != nil {
		return 0
	}
	return base + int64(v)
}

func (r *blockReader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > math.MaxInt64 {
		r.err = fmt.Errorf("block has a number that is cut off or too large")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *blockReader) take(n uint64) []byte {
	if r.err != nil {
		return nil
	}
	if n > uint64(len(r.rest)) {
		r.err = fmt.Errorf("block is cut off: %d bytes wanted, %d left", n, len(r.rest))
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}
