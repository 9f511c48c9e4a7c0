package media

import "time"

// forward writes what this flow's peer is to get of a packet that another flow
// received, and returns its length; 0 means nothing. buf holds maxSent bytes.
func (f *flow) forward(in *inbound, at time.Duration, buf []byte) int {
	if f.mode != relaying {
		f.count.Unclaimed++
		return 0
	}
	r, t := &f.relay, &f.out
	// Comfort noise is relayed as what it stands for, silence.
	omit := in.Kind == KindComfortNoise || in.Kind == KindEvent && f.params.EventType == 0
	if !f.speaks() {
		if omit {
			f.count.Omitted++
		} else {
			f.count.Unsent++
		}
		r.live = false // the pause must not look like loss
		return 0
	}
	if !r.follows(in, at) {
		if omit {
			f.count.Omitted++
			r.live = false
			return 0
		}
		seq, ts := t.resume(at)
		r.begin(in, at, seq, ts)
	}
	if int16(in.Sequence-r.high) <= 0 {
		return f.forwardLate(in, omit, buf)
	}
	r.advance(in, at)
	if omit {
		f.count.Omitted++
		r.leaveOut(in.Sequence)
		t.mark = t.mark || in.Kind == KindComfortNoise
		return 0
	}
	seq, ts := in.Sequence+r.seqs, in.Timestamp+r.ticks
	t.newest(seq)
	t.last = at
	if in.Kind == KindEvent {
		return f.write(in, seq, ts, in.Marker, buf)
	}
	n := f.write(in, seq, ts, in.Marker || t.mark, buf)
	t.audio(ts, at, len(in.Payload))
	return n
}

// forwardLate is forward for a packet that was overtaken.
func (f *flow) forwardLate(in *inbound, omit bool, buf []byte) int {
	if omit {
		f.count.Omitted++
		return 0
	}
	seq, ok := f.relay.late(in.Sequence)
	if !ok {
		f.count.Overtaken++
		return 0
	}
	return f.write(in, seq, in.Timestamp+f.relay.ticks, in.Marker, buf)
}

// write puts a packet together for the peer: its payload type, its law.
func (f *flow) write(in *inbound, seq uint16, ts uint32, marker bool, buf []byte) int {
	f.count.Sent++
	if in.Kind == KindEvent {
		n := copy(buf[rtpHeader:], in.event)
		f.out.header(buf, f.params.EventType, marker, seq, ts, n)
		return f.seal(buf, rtpHeader+n)
	}
	n := len(in.Payload)
	transcode(buf[rtpHeader:], in.Payload, codecOf(in.Kind), f.params.Codec)
	f.out.header(buf, f.params.PayloadType, marker, seq, ts, n)
	return f.seal(buf, rtpHeader+n)
}

// seal makes SRTP of the packet if that was agreed. What must not be sent was not:
// 0 is returned.
func (f *flow) seal(buf []byte, n int) int {
	sealed := f.secure.seal(buf, n)
	if sealed == 0 {
		f.count.Sent--
		f.count.Unsent++
	}
	return sealed
}

// frame writes the prompt's next frame if it is due and returns its length, or
// 0. buf holds maxSent bytes.
func (f *flow) frame(at time.Duration, buf []byte) int {
	p, t := &f.play, &f.out
	if f.mode != playing || !p.seated {
		return 0
	}
	due := p.due()
	late := at - due
	if late < 0 {
		return 0
	}
	if !p.loop && p.at >= p.prompt.samples() {
		f.end(true, due)
		return 0
	}
	if late > catchUp {
		if late > standstill && !p.loop {
			f.breakOff(due)
			return 0
		}
		p.seated = false
		f.seat(at)
		due = at
	}
	seq, ts := t.seq+1, p.ts+uint32(p.n)*FrameSamples
	t.header(buf, f.params.PayloadType, t.mark, seq, ts, FrameSamples)
	p.prompt.frame(buf[rtpHeader:rtpHeader+FrameSamples], p.at, f.params.Codec, p.loop)
	t.newest(seq)
	t.last = at
	t.audio(ts, due, FrameSamples)
	p.n++
	p.at += FrameSamples
	if p.loop {
		p.at %= p.prompt.samples()
	}
	f.count.Sent++
	sealed := f.seal(buf, rtpHeader+FrameSamples)
	if sealed == 0 && !p.loop {
		f.breakOff(due)
	}
	return sealed
}
