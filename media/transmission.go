package media

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

const rtpHeader = 12 // bytes of a header without CSRCs and extensions

// maxPacket is the longest packet that we send.
const maxPacket = rtpHeader + MaxPayload

// clockJump is how far a timestamp may part from our clock, between two packets
// in line, before the relay no longer believes it.
const clockJump = 2 * time.Second

// transmission numbers what one stream sends: one SSRC for life, sequence
// numbers without a gap and timestamps that go with the clock, whatever the
// packets' origin (RFC 3550 §5.1).
type transmission struct {
	ssrc uint32
	seq  uint16        // of the newest packet sent
	ts   uint32        // of the newest audio sent
	at   time.Duration // when that was due
	long uint32        // how many samples it had
	mark bool          // the next audio packet begins a talkspurt

	packets, octets uint32        // for sender reports
	last            time.Duration // when anything was sent
	ahead           uint32        // samples that the timestamps are ahead of time, by changes of origin
	debt            uint32        // what that is once the present origin has sent audio
}

// newTransmission draws SSRC, sequence number and timestamp at random; the number
// from the lower half, so that an SRTP receiver that misses the first packets does
// not miss the first wrap with them (RFC 4568 §6.4).
func newTransmission(at time.Duration) transmission {
	return transmission{ssrc: rand.Uint32(), seq: uint16(rand.Uint32()) >> 1, ts: rand.Uint32(), at: at}
}

// resume returns the sequence number and timestamp with which a new origin goes
// on after the last one: the next number, and the time that has passed.
//
// An origin that takes over within a frame begins after that frame, and so ahead
// of time. What it is ahead is given back when there is room: by a prompt, which
// waits, or after a pause. Or a call with many changes would run away from the
// clock.
func (t *transmission) resume(at time.Duration) (seq uint16, ts uint32) {
	t.mark = true
	step, passed := t.now(at)-t.ts, uint32(max(at-t.at, 0)/sampleTime)
	t.debt = t.ahead
	if passed < t.long {
		t.debt += t.long - passed
	} else {
		back := min(t.ahead, passed-t.long)
		t.debt -= back
		step -= back
	}
	return t.seq + 1, t.ts + step
}

// wait is how long a prompt must wait after resume so that it is not ahead of time.
func (t *transmission) wait() time.Duration {
	d := time.Duration(t.debt) * sampleTime
	t.debt = 0
	return d
}

// now is the timestamp for an instant, never inside of what was sent already.
func (t *transmission) now(at time.Duration) uint32 {
	passed := uint32(max(at-t.at, 0) / sampleTime)
	return t.ts + max(passed, t.long)
}

// header writes the 12 bytes in front of a payload of n bytes and counts the
// packet.
func (t *transmission) header(b []byte, payloadType uint8, marker bool, seq uint16, ts uint32, n int) {
	b[0] = 2 << 6
	b[1] = payloadType & 0x7F
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], t.ssrc)
	t.packets++
	t.octets += uint32(n)
}

// newest notes the highest number sent so far. Of an event only the number is
// noted: its timestamp stands still while time goes on.
func (t *transmission) newest(seq uint16) { t.seq = seq }

// audio notes the newest audio packet.
func (t *transmission) audio(ts uint32, at time.Duration, samples int) {
	t.ts, t.at, t.long, t.mark = ts, at, uint32(samples), false
	t.ahead = t.debt
}

// relayMap maps the numbers of one incoming RTP stream to those of an outgoing
// one by two constant differences, so that loss stays loss and reordering
// stays reordering. The differences are drawn anew when the incoming stream
// changes or jumps.
type relayMap struct {
	live  bool
	ssrc  uint32
	turn  uint32 // inbound.turn
	high  uint16 // highest incoming sequence number
	span  int    // how far below high a late packet may be: what was mapped
	ts    uint32 // timestamp of the newest audio in line
	at    time.Duration
	seqs  uint16 // outgoing less incoming sequence number
	ticks uint32 // outgoing less incoming timestamp

	// Packets in line that are left out on purpose (comfort noise, events that
	// the other side cannot take) close up, or they would look like loss. For
	// what comes late from before the newest such run, the old difference holds.
	runLive        bool
	runFrom, runTo uint16
	seqsBefore     uint16
}

// follows reports whether the packet belongs to the mapping.
func (r *relayMap) follows(in *inbound, at time.Duration) bool {
	if !r.live || in.SSRC != r.ssrc || in.turn != r.turn {
		return false
	}
	step := int16(in.Sequence - r.high)
	if step > maxDropout || step < -maxMisorder {
		return false
	}
	if step <= 0 || in.Kind == KindEvent {
		return true
	}
	skew := time.Duration(int32(in.Timestamp-r.ts))*sampleTime - (at - r.at)
	return -clockJump <= skew && skew <= clockJump
}

// begin starts a mapping with this packet.
func (r *relayMap) begin(in *inbound, at time.Duration, seq uint16, ts uint32) {
	*r = relayMap{
		live: true, ssrc: in.SSRC, turn: in.turn,
		high: in.Sequence - 1, ts: in.Timestamp, at: at,
		seqs: seq - in.Sequence, ticks: ts - in.Timestamp,
	}
}

// advance moves the mapping's front to a packet in line.
func (r *relayMap) advance(in *inbound, at time.Duration) {
	step := in.Sequence - r.high
	r.high = in.Sequence
	r.span = min(r.span+int(step), maxMisorder)
	if in.Kind != KindEvent {
		r.ts, r.at = in.Timestamp, at
	}
	if r.runLive && r.high-r.runTo > maxMisorder {
		r.runLive = false
	}
}

// leaveOut closes up over a packet in line to which advance has moved.
func (r *relayMap) leaveOut(seq uint16) {
	if !r.runLive || r.runTo != seq-1 {
		r.runLive, r.runFrom, r.seqsBefore = true, seq, r.seqs
	}
	r.runTo = seq
	r.seqs--
}

// late gives the outgoing number of a packet that is not in line; ok is false
// if there is none: it is from before the mapping, or inside of a run.
func (r *relayMap) late(seq uint16) (out uint16, ok bool) {
	if int(r.high-seq) >= r.span {
		return 0, false
	}
	switch {
	case !r.runLive || int16(seq-r.runTo) > 0:
		return seq + r.seqs, true
	case int16(seq-r.runFrom) < 0:
		return seq + r.seqsBefore, true
	}
	return 0, false
}
