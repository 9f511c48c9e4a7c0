package media

import (
	"net/netip"
	"time"
)

// receive judges one datagram of the RTP port. If it returns true, in describes
// a packet that is to be tapped and relayed.
func (f *flow) receive(b []byte, from netip.AddrPort, at time.Duration, in *inbound) bool {
	if !f.configured {
		return false
	}
	from = unmap(from)
	if !f.rtp.admits(from, at) {
		f.count.Foreign++
		return false
	}
	if !soundRTP(b) {
		f.count.Malformed++
		return false
	}
	b, verdict := f.secure.open(b)
	if !f.passes(verdict) {
		return false
	}
	if !f.parse(b, in) {
		f.count.Malformed++
		return false
	}
	f.rtp.take(from, at)
	f.alive(at)
	f.count.Received++
	if !f.greeted {
		f.greeted = true
		f.emit(Heard{From: from})
	}
	f.in.note(in.Sequence, in.Timestamp, in.SSRC, at, in.Kind != KindEvent)
	if !f.hears() {
		f.count.Unheard++
		return false
	}
	switch in.Kind {
	case KindEvent:
		if digit, ok := f.keys.press(in.event, in.Timestamp, in.SSRC); ok {
			f.emit(DigitPressed{Digit: digit})
		}
	case KindPCMA, KindPCMU:
		if len(in.Payload) == 0 { // a keep-alive
			f.count.Unheard++
			return false
		}
	}
	return true
}

// alive notes that something came from the peer.
func (f *flow) alive(at time.Duration) { f.heardAt, f.timedOut = at, false }

// passes counts what SRTP does not let through.
func (f *flow) passes(v verdict) bool {
	switch v {
	case forged:
		f.count.Forged++
	case replayed:
		f.count.Replayed++
	}
	return v == genuine
}

// soundRTP tells whether a datagram can be an RTP packet. The header's parser
// makes an error value for what is cut short; a flood of such packets must not
// feed the collector.
func soundRTP(b []byte) bool {
	return len(b) >= rtpHeader && len(b) < maxDatagram && b[0]>>6 == 2 && len(b) >= rtpHeader+4*int(b[0]&0x0F)
}

// parse reads a sound RTP packet into in; false means that it is none, or of a
// payload type that was not negotiated.
func (f *flow) parse(b []byte, in *inbound) bool {
	n, err := in.header.Unmarshal(b)
	if err != nil {
		return false
	}
	payload := b[n:]
	if in.header.Padding {
		if len(payload) == 0 {
			return false
		}
		pad := int(payload[len(payload)-1])
		if pad == 0 || pad > len(payload) {
			return false
		}
		payload = payload[:len(payload)-pad]
	}
	kind, ok := f.kind(in.header.PayloadType)
	if !ok || len(payload) > MaxPayload || kind == KindEvent && len(payload) < 4 {
		return false
	}
	in.Packet = Packet{
		Kind:      kind,
		Marker:    in.header.Marker,
		Sequence:  in.header.SequenceNumber,
		Timestamp: in.header.Timestamp,
		SSRC:      in.header.SSRC,
		Payload:   payload,
	}
	in.turn, in.event = f.turn, nil
	switch kind {
	case KindEvent:
		in.event, in.Payload = payload, nil
	case KindComfortNoise:
		in.Payload = nil
	}
	return true
}

// kind tells what a payload type stands for. What was negotiated goes before
// the static numbers.
func (f *flow) kind(payloadType uint8) (PacketKind, bool) {
	p := &f.params
	switch {
	case p.EventType != 0 && payloadType == p.EventType:
		return KindEvent, true
	case payloadType == p.PayloadType:
		return kindOf(p.Codec), true
	case payloadType == uint8(PCMU), payloadType == uint8(PCMA):
		return kindOf(Codec(payloadType)), true
	case payloadType == comfortNoiseType:
		return KindComfortNoise, true
	}
	return 0, false
}

func kindOf(c Codec) PacketKind {
	if c == PCMA {
		return KindPCMA
	}
	return KindPCMU
}

func codecOf(k PacketKind) Codec {
	if k == KindPCMA {
		return PCMA
	}
	return PCMU
}
