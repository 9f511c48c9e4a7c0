//go:build linux

package main

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"time"
)

// A stamped packet is an RTP packet of 20 ms of A-law whose payload says what
// it is, so that whoever receives it, or finds it in a recording, can tell
// whether it is the right one, unaltered:
//
//	bytes    0..3   edge
//	         4..7   magic
//	         8..11  call, the highest bit telling the speaker (benchSide)
//	        12..15  number of the packet in the call and direction, from 0
//	        16..23  when it was sent, ns since the load's epoch
//	        24..151 noise, the same throughout a direction
//	       152..155 CRC-32C of 4..151
//	       156..159 edge
//
// Between the edges lies the core. On the wire a packet must be whole; in a
// recording the edges may go, since the recorder makes up for a clock that
// drifts, or for packets that are ever later, by single samples between frames.
const (
	benchFrame  = 160 // samples and bytes of a frame
	benchHeader = 12  // bytes of an RTP header
	benchPacket = benchHeader + benchFrame
	benchEdge   = 4
	benchCore   = benchFrame - 2*benchEdge
	benchCRC    = benchCore - 4 // in the core
	benchTime   = 20 * time.Millisecond
)

var (
	benchEdgeBytes  = [benchEdge]byte{0x5D, 0xA7, 0x33, 0xC8}
	benchMagic      = [4]byte{0x9C, 0x35, 0xE1, 0x4A}
	benchCastagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// benchSide is one of the two speakers of a call; also its lane in the
// recording.
type benchSide uint8

const (
	benchCitizen benchSide = 0
	benchOffice  benchSide = 1
)

// benchStamp is what a payload says.
type benchStamp struct {
	call uint32
	side benchSide
	seq  uint32
	sent time.Duration
}

// benchVoice makes the stamped packets of one speaker.
type benchVoice struct {
	stamp  benchStamp // of the next packet
	ts     uint32     // RTP timestamp of packet 0
	rtpSeq uint16     // RTP sequence number of packet 0
	packet [benchPacket]byte
}

func newBenchVoice(call int, side benchSide) benchVoice {
	v := benchVoice{stamp: benchStamp{call: uint32(call), side: side}, ts: rand.Uint32(), rtpSeq: uint16(rand.Uint32())}
	v.packet[0] = 2 << 6
	binary.BigEndian.PutUint32(v.packet[8:], rand.Uint32())
	payload := v.packet[benchHeader:]
	copy(payload, benchEdgeBytes[:])
	copy(payload[benchEdge+benchCore:], benchEdgeBytes[:])
	core := payload[benchEdge : benchEdge+benchCore]
	copy(core, benchMagic[:])
	binary.BigEndian.PutUint32(core[4:], uint32(call)|uint32(side)<<31)
	for i := 20; i < benchCRC; i++ {
		core[i] = byte(rand.Uint32())
	}
	return v
}

// next is the next packet, valid until the next call.
func (v *benchVoice) next(now time.Duration) []byte {
	v.packet[1] = 8 // PCMA (RFC 3551 §6)
	if v.stamp.seq == 0 {
		v.packet[1] |= 0x80
	}
	binary.BigEndian.PutUint16(v.packet[2:], v.rtpSeq+uint16(v.stamp.seq))
	binary.BigEndian.PutUint32(v.packet[4:], v.ts+v.stamp.seq*benchFrame)
	core := v.packet[benchHeader+benchEdge:][:benchCore]
	binary.BigEndian.PutUint32(core[8:], v.stamp.seq)
	binary.BigEndian.PutUint64(core[12:], uint64(now))
	binary.BigEndian.PutUint32(core[benchCRC:], crc32.Checksum(core[:benchCRC], benchCastagnoli))
	v.stamp.seq++
	return v.packet[:]
}

// readBenchStamp reads a core; false means that it is not one of ours, or no
// longer.
func readBenchStamp(core []byte) (benchStamp, bool) {
	if len(core) != benchCore || [4]byte(core) != benchMagic ||
		crc32.Checksum(core[:benchCRC], benchCastagnoli) != binary.BigEndian.Uint32(core[benchCRC:]) {
		return benchStamp{}, false
	}
	who := binary.BigEndian.Uint32(core[4:])
	return benchStamp{
		call: who &^ (1 << 31), side: benchSide(who >> 31),
		seq: binary.BigEndian.Uint32(core[8:]), sent: time.Duration(binary.BigEndian.Uint64(core[12:])),
	}, true
}

// benchWhole tells whether both edges stand round the core at this place.
func benchWhole(b []byte, core int) bool {
	return core >= benchEdge && core+benchCore+benchEdge <= len(b) &&
		[benchEdge]byte(b[core-benchEdge:]) == benchEdgeBytes && [benchEdge]byte(b[core+benchCore:]) == benchEdgeBytes
}

// benchTally judges what one party receives of the other. Its owner is the
// load's loop.
type benchTally struct {
	call uint32
	side benchSide // whom it should hear

	seen       benchSet
	high       uint32
	ssrc       uint32
	seqs       uint16 // RTP sequence number less the packet's own
	ticks      uint32 // RTP timestamp less the packet's own
	count      benchCounts
	numbersSet bool
}

// benchCounts is what became of stamped packets.
type benchCounts struct {
	Sent       uint64 `json:"sent"`
	Received   uint64 `json:"received"` // each once
	Lost       uint64 `json:"lost"`
	Altered    uint64 `json:"altered"` // not, or no longer, a stamped packet
	Crossed    uint64 `json:"crossed"` // of another call, or one's own voice
	Duplicated uint64 `json:"duplicated"`
	Reordered  uint64 `json:"reordered"`
	// Renumbered counts breaks in the RTP numbers that the switch gives: another
	// SSRC, or a sequence number or timestamp out of step with the packets.
	Renumbered uint64 `json:"renumbered"`
	// Unsent counts packets that our own socket refused; they are not in Sent.
	Unsent uint64 `json:"unsent"`
	// Before counts what came before the first stamped packet: music.
	Before uint64 `json:"before"`
}

func (c *benchCounts) add(o benchCounts) {
	c.Sent += o.Sent
	c.Received += o.Received
	c.Lost += o.Lost
	c.Altered += o.Altered
	c.Crossed += o.Crossed
	c.Duplicated += o.Duplicated
	c.Reordered += o.Reordered
	c.Renumbered += o.Renumbered
	c.Unsent += o.Unsent
	c.Before += o.Before
}

// take judges a datagram. ok is true for a packet that was to come, the first
// time that it comes; sent is then when it was sent.
func (t *benchTally) take(b []byte) (sent time.Duration, ok bool) {
	s, ok := benchStamp{}, len(b) == benchPacket && b[0] == 2<<6 && b[1]&0x7F == 8 && benchWhole(b, benchHeader+benchEdge)
	if ok {
		s, ok = readBenchStamp(b[benchHeader+benchEdge:][:benchCore])
	}
	switch {
	case !ok && !t.numbersSet:
		t.count.Before++ // music, until the voice arrives
		return 0, false
	case !ok:
		t.count.Altered++
		return 0, false
	case s.call != t.call || s.side != t.side:
		t.count.Crossed++
		return 0, false
	case !t.seen.add(s.seq):
		t.count.Duplicated++
		return 0, false
	}
	if t.count.Received++; s.seq < t.high {
		t.count.Reordered++
	}
	t.high = max(t.high, s.seq)
	seqs := binary.BigEndian.Uint16(b[2:]) - uint16(s.seq)
	ticks := binary.BigEndian.Uint32(b[4:]) - s.seq*benchFrame
	ssrc := binary.BigEndian.Uint32(b[8:])
	if t.numbersSet && (seqs != t.seqs || ticks != t.ticks || ssrc != t.ssrc) {
		t.count.Renumbered++
	}
	t.seqs, t.ticks, t.ssrc, t.numbersSet = seqs, ticks, ssrc, true
	return s.sent, true
}

// benchSet is a set of packet numbers.
type benchSet []uint64

// add reports whether n was not there yet.
func (s *benchSet) add(n uint32) bool {
	for int(n/64) >= len(*s) {
		*s = append(*s, 0)
	}
	if (*s)[n/64]&(1<<(n%64)) != 0 {
		return false
	}
	(*s)[n/64] |= 1 << (n % 64)
	return true
}

// benchTimes is a histogram of durations from 1 ns to hours whose buckets are
// at most 1/32 wide.
type benchTimes struct {
	buckets [40 * 32]uint64
	n       uint64
	max     time.Duration
}

func (h *benchTimes) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[min(benchBucket(uint64(d)), len(h.buckets)-1)]++
	h.n++
	h.max = max(h.max, d)
}

// benchBucket: below 32 each value has its own; above, the five bits behind
// the leading one choose.
func benchBucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	shift := bits.Len64(v) - 6
	return (shift+1)*32 + int(v>>shift) - 32
}

// quantile is the upper edge of the bucket that holds the q-th part, 0 without
// values.
func (h *benchTimes) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n-1))
	for i, c := range h.buckets {
		if rank < c {
			if i < 32 {
				return time.Duration(i)
			}
			shift := i/32 - 1
			return min(time.Duration((uint64(i%32)+33)<<shift-1), h.max)
		}
		rank -= c
	}
	return h.max
}
