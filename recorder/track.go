package recorder

import "centralka/media"

// alaw and ulaw decode one byte of G.711 to a linear sample.
var (
	alaw = law(media.DecodePCMA)
	ulaw = law(media.DecodePCMU)
)

func law(decode func(byte) int16) *[256]int16 {
	var t [256]int16
	for i := range t {
		t[i] = decode(byte(i))
	}
	return &t
}

// decoder returns the table of a kind of packet, nil if it stands for silence.
func decoder(k media.PacketKind) *[256]int16 {
	switch k {
	case media.KindPCMA:
		return alaw
	case media.KindPCMU:
		return ulaw
	}
	return nil
}

// unsaid marks samples that no packet has told. Neither law decodes to it.
const unsaid = -1 << 15

// trackSamples is the length of the window in which packets may be placed, a
// power of two: 16 seconds.
const trackSamples = 1 << 17

// track is the part of one lane that can still change: samples from the
// render's floor on, in a ring. Its length is a power of two.
type track struct {
	ring []int16
}

// newTrack makes the track of a recording of total samples.
func newTrack(total int64) track {
	n := int64(1)
	for n < total && n < trackSamples {
		n *= 2
	}
	t := track{make([]int16, n)}
	for i := range t.ring {
		t.ring[i] = unsaid
	}
	return t
}

func (t *track) at(pos int64) *int16 { return &t.ring[pos&int64(len(t.ring)-1)] }

// put decodes payload to pos and after, within [floor, ceiling), a span not
// longer than the ring. It overwrites unless gaps is set: then only samples
// that nothing has told are written. It returns how many samples have no place:
// those outside, and those where two tell different things.
func (t *track) put(pos, floor, ceiling int64, payload []byte, table *[256]int16, gaps bool) (lost int) {
	if pos < floor {
		lost = int(min(floor-pos, int64(len(payload))))
		payload = payload[lost:]
		pos = floor
	}
	if over := pos + int64(len(payload)) - ceiling; over > 0 {
		keep := max(0, int64(len(payload))-over)
		lost += len(payload) - int(keep)
		payload = payload[:keep]
	}
	if gaps {
		for i, b := range payload {
			if s := t.at(pos + int64(i)); *s == unsaid {
				*s = table[b]
			} else if *s != table[b] {
				lost++
			}
		}
		return lost
	}
	for len(payload) > 0 {
		ring := t.ring[pos&int64(len(t.ring)-1):]
		n := min(len(ring), len(payload))
		ring = ring[:n]
		for i, b := range payload[:n] {
			v := table[b]
			if ring[i] != unsaid && ring[i] != v {
				lost++
			}
			ring[i] = v
		}
		payload = payload[n:]
		pos += int64(n)
	}
	return lost
}

// take moves samples from pos on into out; what nothing has told is silence.
func (t *track) take(pos int64, out []int16) {
	for len(out) > 0 {
		ring := t.ring[pos&int64(len(t.ring)-1):]
		n := min(len(ring), len(out))
		for i, s := range ring[:n] {
			if s == unsaid {
				s = 0
			}
			out[i] = s
			ring[i] = unsaid
		}
		out = out[n:]
		pos += int64(n)
	}
}
