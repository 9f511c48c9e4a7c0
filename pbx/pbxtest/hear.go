package pbxtest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/zaf/g711"
)

// Heard is what an ear has heard of a call.
type Heard struct {
	// Start is when the first packet came; PCM begins there, 8 kHz. A sample
	// lies where its RTP timestamp puts it; what never came is zero.
	Start time.Time
	PCM   []int16
	// Last is when the latest packet came.
	Last time.Time
	// Packets counts what came, Duplicates and comfort noise included; Late came
	// behind a later one; Lost never came.
	Packets, Duplicates, Late, Lost, Comfort int
	// Longest is the longest time between two packets.
	Longest time.Duration
	// Unsent counts our own packets that the socket refused.
	Unsent int
	// Keys are the DTMF keys pressed (RFC 4733 §2.3).
	Keys string
	// SSRCs are the sources in the order in which they came.
	SSRCs []uint32
	// Laws are the codecs heard.
	Laws []Codec
}

// TimeOf is when sample i of PCM was heard.
func (h Heard) TimeOf(i int) time.Time {
	return h.Start.Add(time.Duration(i) * time.Second / Rate)
}

// Between is the part of PCM that was heard from one instant to another; time
// before the first or after the last packet is not padded.
func (h Heard) Between(from, to time.Time) []int16 {
	index := func(t time.Time) int {
		return min(max(int(t.Sub(h.Start)*Rate/time.Second), 0), len(h.PCM))
	}
	i, j := index(from), index(to)
	return h.PCM[i:max(i, j)]
}

// Since is the part of PCM heard from an instant on.
func (h Heard) Since(t time.Time) []int16 { return h.Between(t, h.TimeOf(len(h.PCM))) }

const (
	maxDropout  = 3000            // packets skipped at most (RFC 3550 §A.1)
	maxMisorder = 100             // packets behind at most
	maxWrongs   = 50              // violations kept for a call
	maxHeard    = Rate * 3600 * 4 // samples kept for a call
	grace       = 500 * time.Millisecond
)

type wrong struct {
	at   time.Time
	text string
}

// ear judges and decodes what one call receives. The endpoint's lock guards
// it.
type ear struct {
	tolerance time.Duration
	deaf      bool
	unsent    int

	media    media
	before   netip.AddrPort // remote until the last change
	quietBy  time.Time      // from when nothing may come any more
	strange  netip.AddrPort // last stranger that was reported
	h        Heard
	wrong    []wrong
	ssrc     uint32
	top      uint16 // highest sequence
	seen     uint64 // bit i: top-i came
	base     uint32 // timestamp that lies at sample pos
	baseAt   time.Time
	pos      int
	stamp    uint32    // of the latest packet in order
	at       time.Time // its arrival
	key      uint32    // timestamp of the last key
	hasKey   bool
	received int // distinct, of this source
	expected int
}

func (r *ear) complain(at time.Time, format string, args ...any) {
	if len(r.wrong) < maxWrongs {
		r.wrong = append(r.wrong, wrong{at, fmt.Sprintf(format, args...)})
	}
}

// expect takes a new outcome of offer and answer.
func (r *ear) expect(m media) {
	if m.remote != r.media.remote {
		r.before = r.media.remote
	}
	if m.receive {
		r.quietBy = time.Time{}
	} else if r.quietBy.IsZero() {
		r.quietBy = time.Now().Add(grace)
	}
	r.media = m
}

func (r *ear) packet(b []byte, from netip.AddrPort, now time.Time) {
	if len(b) < 12 || b[0]>>6 != 2 {
		r.complain(now, "%d bytes that are not RTP", len(b))
		return
	}
	head := 12 + 4*int(b[0]&15)
	if b[0]&0x10 != 0 && len(b) >= head+4 {
		head += 4 + 4*int(binary.BigEndian.Uint16(b[head+2:]))
	}
	end := len(b)
	if b[0]&0x20 != 0 {
		end -= int(b[end-1])
	}
	if head > end {
		r.complain(now, "RTP packet shorter than its header")
		return
	}
	pt, seq := b[1]&0x7f, binary.BigEndian.Uint16(b[2:])
	stamp, ssrc, payload := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[head:end]
	if m := r.media; m.remote.IsValid() && from != m.remote && from != r.before && from != r.strange {
		r.strange = from
		r.complain(now, "RTP from %v, but the SDP says %v", from, m.remote)
	}
	if !r.quietBy.IsZero() && now.After(r.quietBy) {
		r.complain(now, "RTP although our SDP does not let them send")
		r.quietBy = now.Add(time.Minute) // once a minute is enough
	}
	r.h.Packets++
	if !r.h.Last.IsZero() {
		r.h.Longest = max(r.h.Longest, now.Sub(r.h.Last))
	}
	r.h.Last = now
	event := pt == r.media.event && pt != 0
	if !r.order(seq, ssrc, stamp, now, event) {
		return
	}
	switch {
	case event:
		if len(payload) >= 4 && payload[1]&0x80 != 0 && int(payload[0]) < len(keypad) && (!r.hasKey || stamp != r.key) {
			r.key, r.hasKey = stamp, true
			r.h.Keys += keypad[payload[0] : payload[0]+1]
		}
	case pt == 13:
		r.h.Comfort++
	case pt == uint8(PCMU) || pt == uint8(PCMA):
		if !slices.Contains(r.h.Laws, Codec(pt)) {
			r.h.Laws = append(r.h.Laws, Codec(pt))
		}
		if len(payload) == 0 || len(payload)%80 != 0 || len(payload) > 480 {
			r.complain(now, "RTP payload of %d bytes", len(payload))
		}
		r.decode(Codec(pt), stamp, payload)
	default:
		r.complain(now, "RTP of payload type %d", pt)
	}
}

// order keeps the sequence and the timeline; it reports false for a packet
// that came before.
func (r *ear) order(seq uint16, ssrc, stamp uint32, now time.Time, event bool) bool {
	if len(r.h.SSRCs) == 0 || ssrc != r.ssrc {
		if len(r.h.SSRCs) > 0 {
			r.complain(now, "SSRC changed")
		} else {
			r.h.Start = now
		}
		r.h.SSRCs = append(r.h.SSRCs, ssrc)
		r.ssrc = ssrc
		r.restart(seq, stamp, now)
		return true
	}
	d := int(int16(seq - r.top))
	switch {
	case d > 0 && d < maxDropout:
		r.seen = r.seen<<d | 1
		r.top = seq
		r.expected += d
		r.received++
		if event {
			return true // its timestamp is the start of the key
		}
		said := time.Duration(int32(stamp-r.stamp)) * time.Second / Rate
		passed := now.Sub(r.at)
		if off := said - passed; off <= r.tolerance && off >= -r.tolerance {
			// Small steps must not add up either; clocks differ by 0.1 % at most.
			said = time.Duration(int32(stamp-r.base)) * time.Second / Rate
			passed = now.Sub(r.baseAt)
		}
		if off := said - passed; off.Abs() > r.tolerance+passed/1000 {
			r.complain(now, "RTP timestamp moved by %v in %v", said.Round(time.Millisecond), passed.Round(time.Millisecond))
			r.anchor(stamp, now)
		}
		r.stamp, r.at = stamp, now
		return true
	case d <= 0 && -d < 64 && r.seen>>(-d)&1 != 0:
		r.h.Duplicates++
		return false
	case d <= 0 && -d < maxMisorder:
		if -d < 64 {
			r.seen |= 1 << -d
		}
		if off := int32(stamp - r.stamp); !event && (off > 0 || off < -5*Rate) {
			r.complain(now, "RTP timestamp of a late packet is off by %v", timeOf(int(off)).Round(time.Millisecond))
			return false
		}
		r.h.Late++
		r.received++
		return true
	}
	r.complain(now, "RTP sequence jumped by %d", d)
	r.restart(seq, stamp, now)
	return true
}

func (r *ear) restart(seq uint16, stamp uint32, now time.Time) {
	r.top, r.seen = seq, 1
	r.expected++
	r.received++
	r.stamp, r.at = stamp, now
	r.anchor(stamp, now)
}

// anchor lays a timestamp on the sample of its arrival, behind what was heard.
func (r *ear) anchor(stamp uint32, now time.Time) {
	r.base, r.baseAt = stamp, now
	r.pos = max(len(r.h.PCM), int(now.Sub(r.h.Start)*Rate/time.Second))
}

func (r *ear) decode(law Codec, stamp uint32, payload []byte) {
	at := r.pos + int(int32(stamp-r.base))
	if r.deaf || at < 0 || at+len(payload) > maxHeard {
		return
	}
	if n := at + len(payload) - len(r.h.PCM); n > 0 {
		r.h.PCM = append(r.h.PCM, make([]int16, n)...)
	}
	for i, b := range payload {
		if law == PCMU {
			r.h.PCM[at+i] = g711.DecodeUlawFrame(b)
		} else {
			r.h.PCM[at+i] = g711.DecodeAlawFrame(b)
		}
	}
}

func (r *ear) snapshot() Heard {
	h := r.h
	h.Unsent = r.unsent
	h.Lost = r.expected - r.received
	h.PCM, h.SSRCs, h.Laws = slices.Clone(h.PCM), slices.Clone(h.SSRCs), slices.Clone(h.Laws)
	return h
}
