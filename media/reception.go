package media

import (
	"encoding/binary"
	"time"
)

// sampleTime is the length of one sample, and of one tick of an RTP timestamp.
const sampleTime = time.Second / SampleRate

// A sequence number outside of this window around the highest one is a restart,
// not loss or reordering (RFC 3550 §A.1).
const (
	maxDropout  = 3000
	maxMisorder = 100
)

// reception keeps what receiver reports are made of: loss and jitter of the
// peer's RTP (RFC 3550 §A.1, §A.3, §A.8). A restarted sequence is taken at once
// instead of after a second packet in line: who may send is settled by address,
// and the voice must not wait.
type reception struct {
	started  bool
	ssrc     uint32
	base     uint64 // extended sequence number of the first packet
	high     uint64 // of the highest one
	received uint64 // since base
	seen     uint64 // bit n: high-n has come

	tally // over all restarts

	expectedPrior, receivedPrior uint64 // at the last report

	transit      uint32 // of the last packet, in ticks
	transitKnown bool
	jitter       uint32 // in sixteenths of a tick
}

// tally is what a reception has counted over its restarts. A restart begins
// lost and twice anew for what follows, so both have a part from before.
type tally struct {
	lostBefore uint64
	late       uint64 // overtaken by a later one, and not there before
	twice      uint64 // had come already
	twiceHere  uint64 // of those, since the last restart
	gaps       uint64 // runs of packets that were missing when the next one came
	jitterSum  uint64 // of jitter in ticks after each timed packet
	jitterN    uint64
	jitterMax  uint32 // ticks
}

// note counts one packet. timed is false if its timestamp is not the time at
// which it was sampled (an RFC 4733 event keeps that of its beginning).
func (r *reception) note(seq uint16, timestamp, ssrc uint32, at time.Duration, timed bool) {
	step := int16(seq - uint16(r.high))
	if !r.started || ssrc != r.ssrc || step > maxDropout || step < -maxMisorder {
		r.restart(seq, ssrc)
	} else {
		r.place(int(step))
	}
	r.received++
	if timed {
		r.time(timestamp, at)
	}
}

// window is how far below the highest number a packet can be told from its
// copy; what comes from further below counts as late.
const window = 64

// place notes a packet step places above the highest one, or below it.
func (r *reception) place(step int) {
	switch below := -step; {
	case step > 0:
		if step > 1 {
			r.gaps++
		}
		r.high += uint64(step)
		r.seen = r.seen<<min(step, window) | 1
	case below < window && r.seen>>below&1 != 0:
		r.twice++
		r.twiceHere++
	default:
		r.late++
		if below < window {
			r.seen |= 1 << below
		}
	}
}

func (r *reception) restart(seq uint16, ssrc uint32) {
	t := r.tally
	t.lostBefore, t.twiceHere = r.lost(), 0
	*r = reception{started: true, ssrc: ssrc, tally: t, jitter: r.jitter, seen: 1}
	// One cycle is added so that nothing below base is negative.
	r.base = 1<<16 + uint64(seq)
	r.high = r.base
}

// time is RFC 3550 §A.8 in its integer form. A difference of over a second is a
// timestamp that jumped, not jitter.
func (r *reception) time(timestamp uint32, at time.Duration) {
	transit := uint32(at/sampleTime) - timestamp
	if r.transitKnown {
		d := int32(transit - r.transit)
		if d < 0 {
			d = -d
		}
		if d >= 0 && d < SampleRate {
			r.jitter += uint32(d) - (r.jitter+8)>>4
			r.jitterSum += uint64(r.jitter >> 4)
			r.jitterN++
			r.jitterMax = max(r.jitterMax, r.jitter>>4)
		}
	}
	r.transit, r.transitKnown = transit, true
}

// lost counts the packets that never came, over all restarts; a copy does not
// make up for one.
func (r *reception) lost() uint64 {
	if !r.started {
		return r.lostBefore
	}
	expected, once := r.high-r.base+1, r.received-r.twiceHere
	return r.lostBefore + max(expected, once) - once
}

// missing is expected less received since the last restart, as reports say it,
// copies counted as received (RFC 3550 §A.3).
func (r *reception) missing() uint64 {
	if !r.started {
		return 0
	}
	if expected := r.high - r.base + 1; expected > r.received {
		return expected - r.received
	}
	return 0
}

// fraction is the fraction lost since the last call, in 1/256 (RFC 3550 §A.3).
func (r *reception) fraction() uint8 {
	expected := r.high - r.base + 1
	expectedNow, receivedNow := expected-r.expectedPrior, r.received-r.receivedPrior
	r.expectedPrior, r.receivedPrior = expected, r.received
	if expectedNow == 0 || receivedNow >= expectedNow {
		return 0
	}
	return uint8(min((expectedNow-receivedNow)<<8/expectedNow, 255))
}

func (r *reception) jitterTime() time.Duration {
	return time.Duration(r.jitter>>4) * sampleTime
}

// meanJitter is the mean of the estimate over all packets.
func (r *reception) meanJitter() time.Duration {
	if r.jitterN == 0 {
		return 0
	}
	return time.Duration(r.jitterSum) * sampleTime / time.Duration(r.jitterN)
}

// keypad turns the packets of RFC 4733 events into single key presses.
type keypad struct {
	known    bool
	ssrc     uint32
	start    uint32 // timestamp of the event
	code     byte
	duration uint16
	ended    bool
}

const keys = "0123456789*#ABCD"

// press reports the key if this packet is the first of its event. Later ones of
// it, the three that end it and stray old ones have a timestamp that is not
// newer. The payload has at least four bytes:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     event     |E|R| volume    |          duration             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
func (k *keypad) press(payload []byte, timestamp, ssrc uint32) (digit byte, pressed bool) {
	code, end := payload[0], payload[1]&0x80 != 0
	duration := binary.BigEndian.Uint16(payload[2:])
	if k.known && ssrc == k.ssrc {
		age := int32(timestamp - k.start)
		if age < 0 {
			return 0, false
		}
		// A key held for over 8 s goes on as a new segment where the old one
		// ended (RFC 4733 §2.5.1.3).
		segment := !k.ended && code == k.code && k.duration == 0xFFFF && age == 0xFFFF
		if age == 0 || segment {
			k.start, k.duration, k.ended = timestamp, duration, k.ended && age == 0 || end
			return 0, false
		}
	}
	*k = keypad{known: true, ssrc: ssrc, start: timestamp, code: code, duration: duration, ended: end}
	if int(code) >= len(keys) {
		return 0, false
	}
	return keys[code], true
}
