package media

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/pion/rtcp"
)

// reportEvery is the mean time between two reports (RFC 3550 §6.2).
const reportEvery = 5 * time.Second

// maxRoundTrip bounds a believable round trip.
const maxRoundTrip = time.Minute

// reporting is the RTCP side of a flow (RFC 3550 §6). With two parties there is
// no bandwidth to share out, so the interval is five seconds times a random
// factor and is not reconsidered; as it is not, it lacks the compensation of
// RFC 3550 §6.3.1 too.
type reporting struct {
	next time.Duration
	sent bool // we have sent RTCP

	heard   bool // a sender report came; what follows is of the last one
	sender  uint32
	ntp     uint32 // middle 32 bits
	heardAt time.Duration

	rtt, rttMax, jitter time.Duration
	loss                float64
	lost                uint64 // in all
	told                bool   // the peer has reported on our RTP
}

// reportInterval draws the time to the next report.
func reportInterval() time.Duration {
	return reportEvery/2 + rand.N(reportEvery)
}

// receiveRTCP judges one datagram of the RTCP port.
func (f *flow) receiveRTCP(b []byte, from netip.AddrPort, at time.Duration) {
	if !f.configured {
		return
	}
	from = unmap(from)
	if !f.rtcp.admits(from, at) {
		f.count.Foreign++
		return
	}
	b, verdict := f.secure.openRTCP(b)
	if !f.passes(verdict) {
		return
	}
	if !wellFormedRTCP(b) {
		f.count.Malformed++
		return
	}
	f.rtcp.take(from, at)
	f.alive(at)
	for len(b) > 0 {
		var p []byte
		p, b = nextRTCP(b)
		switch p[1] {
		case typeSR:
			var sr rtcp.SenderReport
			if sr.Unmarshal(p) == nil {
				r := &f.reports
				r.heard, r.sender, r.ntp, r.heardAt = true, sr.SSRC, uint32(sr.NTPTime>>16), at
				f.reported(sr.Reports, at)
			}
		case typeRR:
			var rr rtcp.ReceiverReport
			if rr.Unmarshal(p) == nil {
				f.reported(rr.Reports, at)
			}
		}
	}
}

// Packet types (RFC 3550 §12.1). The others are of no use here and are not
// parsed, so what they hold cannot spoil the reports beside them.
const (
	typeSR = 200
	typeRR = 201
)

// wellFormedRTCP applies the checks of RFC 3550 §A.2: a report comes first, the
// version is right and the lengths add up.
func wellFormedRTCP(b []byte) bool {
	if len(b) < 8 || b[1] != typeSR && b[1] != typeRR {
		return false
	}
	for len(b) > 0 {
		var p []byte
		if p, b = nextRTCP(b); p == nil {
			return false
		}
	}
	return true
}

// nextRTCP cuts the first packet off a compound one; it is nil if there is none.
func nextRTCP(b []byte) (packet, rest []byte) {
	if len(b) < 4 || b[0]>>6 != 2 {
		return nil, nil
	}
	n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
	if n > len(b) {
		return nil, nil
	}
	return b[:n], b[n:]
}

// reported takes what the peer says of our RTP.
func (f *flow) reported(blocks []rtcp.ReceptionReport, at time.Duration) {
	for _, b := range blocks {
		if b.SSRC != f.out.ssrc {
			continue
		}
		r := &f.reports
		r.told = true
		r.loss = float64(b.FractionLost) / 256
		if b.TotalLost < 1<<23 { // else it is negative: copies (RFC 3550 §6.4.1)
			r.lost = uint64(b.TotalLost)
		}
		r.jitter = time.Duration(b.Jitter) * sampleTime
		if b.LastSenderReport == 0 {
			continue
		}
		// RFC 3550 §6.4.1: the round trip is A - LSR - DLSR, in 1/65536 s.
		trip := int32(uint32(f.ntpTime(at)>>16) - b.LastSenderReport - b.Delay)
		if d := time.Duration(trip) * time.Second >> 16; d >= 0 && d < maxRoundTrip {
			r.rtt, r.rttMax = d, max(r.rttMax, d)
		}
	}
}

// ntpTime is an instant as an NTP timestamp (RFC 3550 §4), by the wall clock of
// the epoch, so that it never steps.
func (f *flow) ntpTime(at time.Duration) uint64 {
	const since1900 = 2208988800
	t := f.epoch.Add(at)
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// report returns the compound packet that is due, or nil.
func (f *flow) report(at time.Duration) ([]byte, error) {
	if !f.configured || at < f.reports.next {
		return nil, nil
	}
	f.reports.next = at + reportInterval()
	if _, ok := f.rtcp.target(); !ok {
		return nil, nil
	}
	f.reports.sent = true
	return f.sealed(f.compound(at))
}

// sealed makes the datagram of a compound packet, SRTCP if that was agreed.
func (f *flow) sealed(packets []rtcp.Packet) ([]byte, error) {
	b, err := rtcp.Marshal(packets)
	if err != nil {
		return nil, err
	}
	return f.secure.sealRTCP(b), nil
}

// goodbye returns the packet that ends the stream, or nil if we never sent RTP
// or RTCP (RFC 3550 §6.3.7).
func (f *flow) goodbye(at time.Duration) ([]byte, error) {
	if _, ok := f.rtcp.target(); !ok || !f.configured || !f.reports.sent && f.out.packets == 0 {
		return nil, nil
	}
	return f.sealed(append(f.compound(at), &rtcp.Goodbye{Sources: []uint32{f.out.ssrc}}))
}

// compound is a report and our name.
func (f *flow) compound(at time.Duration) []rtcp.Packet {
	var blocks []rtcp.ReceptionReport
	if f.in.started && f.in.received != f.in.receivedPrior {
		blocks = append(blocks, f.receptionReport(at))
	}
	name := rtcp.NewCNAMESourceDescription(f.out.ssrc, f.cname)
	// RFC 3550 §6.4: a sender is who has sent since the last report but one.
	if f.out.packets > 0 && at-f.out.last < 2*reportEvery {
		return []rtcp.Packet{&rtcp.SenderReport{
			SSRC:        f.out.ssrc,
			NTPTime:     f.ntpTime(at),
			RTPTime:     f.out.ts + uint32((at-f.out.at)/sampleTime),
			PacketCount: f.out.packets,
			OctetCount:  f.out.octets,
			Reports:     blocks,
		}, name}
	}
	return []rtcp.Packet{&rtcp.ReceiverReport{SSRC: f.out.ssrc, Reports: blocks}, name}
}

func (f *flow) receptionReport(at time.Duration) rtcp.ReceptionReport {
	in, r := &f.in, &f.reports
	b := rtcp.ReceptionReport{
		SSRC:               in.ssrc,
		TotalLost:          uint32(min(in.missing(), 1<<23-1)),
		FractionLost:       in.fraction(),
		LastSequenceNumber: uint32(in.high - 1<<16),
		Jitter:             in.jitter >> 4,
	}
	if r.heard && r.sender == in.ssrc {
		b.LastSenderReport = r.ntp
		b.Delay = uint32(int64((at-r.heardAt)/time.Microsecond) << 16 / 1e6)
	}
	return b
}
