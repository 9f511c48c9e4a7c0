package recorder

import (
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"time"

	"centralka/media"
	"centralka/store"
)

const (
	// settle is how far behind the journal's present the file is written, in
	// microseconds: packets of a network that stalled for less are still placed.
	settle = 8_000_000
	// chunkSamples are written at once.
	chunkSamples = 8192
	peakColumns  = 1200

	wavHeader = 44
	wavFrame  = 4 // bytes of one sample of both lanes
)

// span is a stretch of time, in microseconds since the beginning.
type span struct{ from, to int64 }

// outline is what the first pass over a journal finds, everything but audio.
type outline struct {
	id      store.ID
	wall    time.Time // of the beginning; zero if the journal does not tell
	record  []byte    // JSON, nil if the journal does not tell
	end     int64     // of the conversation, -1 if the journal was cut before
	last    int64     // the last moment that the journal knows of
	holds   []span
	dropped [2]uint64
	fails   uint64
	torn    int64  // bytes that could not be read
	packets uint64 // kept in the journal
}

// length is that of the conversation, in microseconds.
func (o *outline) length() int64 {
	if o.end >= 0 {
		return o.end
	}
	return o.last
}

// outlineOf reads a journal's marks. Damage is counted; only a journal that
// cannot be read at all is an error.
func outlineOf(blocks iter.Seq2[[]byte, error]) (outline, error) {
	o := outline{end: -1}
	held := int64(-1)
	for block, err := range blocks {
		if err != nil {
			if torn, ok := errors.AsType[*store.TornError](err); ok {
				o.torn += torn.Bytes
				break
			}
			return o, err
		}
		r := blockReader{rest: block}
		var it item
		for r.next(&it) {
			switch it.kind {
			case itemStart:
				o.id, o.wall = it.id, it.wall
			case itemRecord:
				o.record = append([]byte(nil), it.record...)
			case itemDropped:
				o.dropped, o.fails = it.dropped, it.fails
			case itemPacket:
				o.packets++
				o.last = max(o.last, it.at+int64(len(it.packet.Payload))*sampleMicros)
			case itemTick:
				o.last = max(o.last, it.at)
			case itemHold:
				if o.last = max(o.last, it.at); held < 0 {
					held = it.at
				}
			case itemResume:
				if o.last = max(o.last, it.at); held >= 0 {
					o.holds = append(o.holds, span{held, max(held, it.at)})
					held = -1
				}
			case itemEnd:
				o.last = max(o.last, it.at)
				o.end = it.at
			}
		}
		if r.err != nil {
			o.torn += int64(len(r.rest))
		}
	}
	o.last = min(o.last, maxOffset)
	if held >= 0 {
		o.holds = append(o.holds, span{held, max(held, o.length())})
	}
	return o, nil
}

// rendered is what the second pass tells beside the file that it writes.
type rendered struct {
	duration time.Duration
	counts   store.RecordingCounts
	peaks    [2][]byte
}

// render writes the journal as a WAV file to w: 8 kHz, 16 bits, left citizen,
// right office. It is a pure function of the blocks and their outline; the
// file's length is the outline's, to the sample.
func render(w io.Writer, blocks iter.Seq2[[]byte, error], o *outline) (rendered, error) {
	m := newMixer(w, o)
	var lanes [2]lane
	for side := range lanes {
		lanes[side] = lane{out: m, side: side}
		for _, h := range o.holds {
			lanes[side].cuts = append(lanes[side].cuts, h.to)
		}
	}
	for block, err := range blocks {
		if err != nil {
			if _, ok := errors.AsType[*store.TornError](err); ok {
				break
			}
			return rendered{}, err
		}
		r := blockReader{rest: block}
		var it item
		for r.next(&it) {
			switch it.kind {
			case itemPacket:
				lanes[it.lane].packet(&it.packet, it.at)
			case itemTick:
				lanes[citizen].advance(it.at)
				lanes[office].advance(it.at)
			}
		}
		m.flush((min(lanes[citizen].now, lanes[office].now) - settle) / sampleMicros)
		if m.err != nil {
			return rendered{}, m.err
		}
	}
	out := rendered{duration: time.Duration(m.total*sampleMicros) * time.Microsecond}
	out.counts.TornBytes = o.torn
	out.counts.WriteFails = o.fails
	out.counts.Dropped = o.dropped
	for side := range lanes {
		l := &lanes[side]
		l.finish()
		out.counts.Packets[side] = l.counts.packets
		out.counts.Duplicate[side] = l.counts.duplicate
		out.counts.Reordered[side] = l.counts.reordered
		out.counts.Unplaced[side] = l.counts.unplaced
		// What we dropped ourselves leaves the same gaps as the network's loss.
		if l.counts.lost > o.dropped[side] {
			out.counts.Lost[side] = l.counts.lost - o.dropped[side]
		}
	}
	m.flush(m.total)
	out.peaks = m.peaks
	return out, m.err
}

// mixer writes the two tracks as interleaved samples, silent on hold, and
// gathers their peaks.
type mixer struct {
	w       io.Writer
	err     error
	tracks  [2]track
	floor   int64 // what lies before is written
	total   int64 // samples of the file
	holds   []span
	peaks   [2][]byte
	column  int64
	columns int64
	samples [2][]int16
	bytes   []byte
}

func newMixer(w io.Writer, o *outline) *mixer {
	m := &mixer{w: w, total: clampOffset(o.length()) / sampleMicros}
	m.columns = min(peakColumns, m.total)
	for side := range m.tracks {
		m.tracks[side] = newTrack(m.total)
		m.samples[side] = make([]int16, chunkSamples)
		m.peaks[side] = make([]byte, m.columns)
	}
	for _, h := range o.holds {
		m.holds = append(m.holds, span{h.from / sampleMicros, h.to / sampleMicros})
	}
	m.bytes = make([]byte, 0, chunkSamples*wavFrame)
	_, m.err = w.Write(appendWAVHeader(nil, m.total))
	return m
}

// appendWAVHeader appends the header of a file of that many samples in both
// lanes: RIFF, a PCM "fmt " chunk, "data" (docs/recording-format.md).
func appendWAVHeader(b []byte, samples int64) []byte {
	le := binary.LittleEndian
	size := uint32(samples * wavFrame)
	b = append(b, "RIFF"...)
	b = le.AppendUint32(b, wavHeader-8+size)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)
	b = le.AppendUint16(b, 1) // PCM
	b = le.AppendUint16(b, 2) // lanes
	b = le.AppendUint32(b, media.SampleRate)
	b = le.AppendUint32(b, media.SampleRate*wavFrame)
	b = le.AppendUint16(b, wavFrame)
	b = le.AppendUint16(b, 16) // bits
	b = append(b, "data"...)
	return le.AppendUint32(b, size)
}

// put writes a payload into a lane; see track.put.
func (m *mixer) put(side int, pos int64, payload []byte, table *[256]int16, gaps bool) (lost int) {
	end := min(pos+int64(len(payload)), m.total)
	if end > m.floor+trackSamples {
		m.flush(end - trackSamples + chunkSamples)
	}
	return m.tracks[side].put(pos, m.floor, m.total, payload, table, gaps)
}

// bridge fills a hole that steering opened with the sample before it.
func (m *mixer) bridge(side int, pos, n int64) {
	for ; n > 0; n-- {
		if pos > m.floor && pos < min(m.total, m.floor+trackSamples) {
			if t := &m.tracks[side]; *t.at(pos) == unsaid {
				*t.at(pos) = *t.at(pos - 1)
			}
		}
		pos++
	}
}

// flush writes up to a position, in whole chunks but for the file's end.
func (m *mixer) flush(to int64) {
	to = min(to, m.total)
	for m.err == nil && m.floor < to {
		n := min(m.total-m.floor, chunkSamples)
		if n > to-m.floor {
			return
		}
		left, right := m.samples[citizen][:n], m.samples[office][:n]
		m.tracks[citizen].take(m.floor, left)
		m.tracks[office].take(m.floor, right)
		for _, h := range m.holds {
			from, till := max(h.from-m.floor, 0), min(h.to-m.floor, n)
			if from < till {
				clear(left[from:till])
				clear(right[from:till])
			}
		}
		m.peak(left, right)
		b := m.bytes[:n*wavFrame]
		for i := range left {
			binary.LittleEndian.PutUint32(b[i*wavFrame:], uint32(uint16(left[i]))|uint32(uint16(right[i]))<<16)
		}
		_, m.err = m.w.Write(b)
		m.floor += n
	}
}

// peak enters samples from floor on into the columns that they belong to.
func (m *mixer) peak(left, right []int16) {
	for i, n := int64(0), int64(len(left)); i < n; {
		end := min(((m.column+1)*m.total+m.columns-1)/m.columns-m.floor, n)
		for side, samples := range [2][]int16{left, right} {
			high, low := int16(0), int16(0) // decoded G.711 is never -32768
			for _, s := range samples[i:end] {
				high, low = max(high, s), min(low, s)
			}
			p := &m.peaks[side][m.column]
			*p = max(*p, byte(max(high, -low)>>7))
		}
		if i = end; i < n {
			m.column++
		}
	}
}
