package media

import (
	"encoding/binary"
	"errors"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

const (
	// maxTag is the most that SRTP adds to an RTP packet in the suites that we
	// speak, in bytes.
	maxTag = 16
	// maxSent is the longest packet that leaves: maxPacket, protected.
	maxSent = maxPacket + maxTag
	// maxTrailer is the most that SRTCP adds to an RTCP packet: index and tag.
	maxTrailer = srtcpIndex + maxTag
	rtcpHeader = 8 // bytes of the header and first SSRC of an RTCP packet
	srtcpIndex = 4
	// replayWindow is how far behind the newest packet one may come and still be
	// told from a repeated one: more than the relay takes for reordering.
	replayWindow = 128
	// maxSources bounds the SSRCs that a peer uses under one key: the library
	// keeps a state for each for as long as the key lives.
	maxSources = 64
)

// protection is the SRTP of one flow (RFC 3711): the keys, a context for what
// comes and one for what goes, RTP and RTCP alike, and the numbers that were sent.
//
// A context lives as long as its key. It keeps the rollover counter, which
// nothing in a packet tells, so a re-INVITE that brings the same key must leave it
// alone.
type protection struct {
	receiveKey, sendKey Key
	in, out             *srtp.Context
	header              rtp.Header

	source      uint32 // SSRC of the last packet that proved true
	sources     int    // how many SSRCs did
	sourcesRTCP int

	sent sentNumbers
}

// rekey takes the keys of new parameters. What keeps its key is not touched.
func (p *protection) rekey(receive, send Key) {
	if !receive.Equal(p.receiveKey) {
		p.receiveKey, p.in = receive, newContext(receive)
		p.source, p.sources, p.sourcesRTCP = 0, 0, 0
	}
	if !send.Equal(p.sendKey) {
		p.sendKey, p.out = send, newContext(send)
	}
}

// newContext is nil for no key. It cannot fail for one that NewKey or ParseKey
// made; if it did, the nil would let nothing pass.
func newContext(k Key) *srtp.Context {
	if k.suite == NoSuite {
		return nil
	}
	s, b := suites[k.suite], k.Bytes()
	c, err := srtp.CreateContext(b[:s.key], b[s.key:], s.profile,
		srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow))
	if err != nil {
		return nil
	}
	return c
}

// verdict is what becomes of a protected packet.
type verdict uint8

const (
	genuine verdict = iota
	forged          // it was not made with the key
	replayed
)

// judge reads why the library did not open a packet that is whole: it names only
// one of the two reasons that are left.
func judge(err error) verdict {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
		return forged
	}
	return replayed
}

// open turns an SRTP packet into RTP where it lies. What is not genuine has
// changed nothing.
//
// Only genuine packets are opened without allocation: the library makes an
// error for each other one.
func (p *protection) open(b []byte) ([]byte, verdict) {
	if p.receiveKey.suite == NoSuite {
		return b, genuine
	}
	n, err := p.header.Unmarshal(b)
	if p.in == nil || err != nil || len(b) < n+suites[p.receiveKey.suite].tag || p.header.Extension && isCryptex(p.header.ExtensionProfile) {
		return nil, forged
	}
	ssrc, unknown := p.header.SSRC, false
	if p.sources == 0 || ssrc != p.source {
		_, known := p.in.ROC(ssrc)
		if unknown = !known; unknown && p.sources >= maxSources {
			return nil, forged
		}
	}
	plain, err := p.in.DecryptRTP(b, b, &p.header)
	if err != nil {
		return nil, judge(err)
	}
	p.source = ssrc
	if unknown {
		p.sources++
	}
	return plain, genuine
}

// isCryptex tells the header extensions that say that they are encrypted
// (RFC 9335), which SDES cannot agree on.
func isCryptex(profile uint16) bool { return profile == 0xC0DE || profile == 0xC2DE }

// openRTCP turns an SRTCP packet into RTCP where it lies.
func (p *protection) openRTCP(b []byte) ([]byte, verdict) {
	if p.receiveKey.suite == NoSuite {
		return b, genuine
	}
	if p.in == nil || len(b) < rtcpHeader+srtcpIndex+suites[p.receiveKey.suite].tagRTCP || b[0]>>6 != 2 {
		return nil, forged
	}
	ssrc := binary.BigEndian.Uint32(b[4:])
	if _, known := p.in.Index(ssrc); !known && p.sourcesRTCP >= maxSources {
		return nil, forged
	} else if plain, err := p.in.DecryptRTCP(b, b, nil); err != nil {
		return nil, judge(err)
	} else {
		if !known {
			p.sourcesRTCP++
		}
		return plain, genuine
	}
}

// seal turns the RTP packet of n bytes at the front of buf into SRTP and returns
// its length; buf has maxTag bytes of room behind it. 0 means that it must not be
// sent: one number is never used for two packets, because that would give away
// both, and with GCM the key of the authentication (RFC 7714 §8.4). Who relays
// cannot trust what is relayed to keep to that.
func (p *protection) seal(buf []byte, n int) int {
	if p.sendKey.suite == NoSuite {
		return n
	}
	if p.out == nil || !p.sent.first(binary.BigEndian.Uint16(buf[2:])) {
		return 0
	}
	out, err := p.out.EncryptRTP(buf, buf[:n], &p.header)
	if err != nil {
		return 0 // the key is used up, after 2^48 packets
	}
	return len(out)
}

// sealRTCP returns the SRTCP packet of an RTCP packet, nil if there can be none.
func (p *protection) sealRTCP(b []byte) []byte {
	if b == nil || p.sendKey.suite == NoSuite {
		return b
	}
	if p.out == nil {
		return nil
	}
	out, err := p.out.EncryptRTCP(make([]byte, 0, len(b)+maxTrailer), b, nil)
	if err != nil {
		return nil // the key is used up, after 2^31 reports
	}
	return out
}

// sentNumbers knows which of the last 128 sequence numbers were sent.
type sentNumbers struct {
	begun bool
	high  uint16
	lo    uint64 // bit n: high-n was sent
	hi    uint64 // bit n: high-64-n was
}

// first reports whether the number was not sent yet, and notes it. One that is
// too old to tell counts as sent.
func (s *sentNumbers) first(seq uint16) bool {
	step := int(int16(seq - s.high))
	switch {
	case !s.begun:
		*s = sentNumbers{begun: true, high: seq, lo: 1}
		return true
	case step > 0:
		s.shift(step)
		s.high, s.lo = seq, s.lo|1
		return true
	}
	word, at := &s.lo, -step
	if at >= 64 {
		word, at = &s.hi, at-64
	}
	if at >= 64 || *word&(1<<at) != 0 {
		return false
	}
	*word |= 1 << at
	return true
}

func (s *sentNumbers) shift(n int) {
	switch {
	case n >= 128:
		s.lo, s.hi = 0, 0
	case n >= 64:
		s.hi, s.lo = s.lo<<(n-64), 0
	default:
		s.hi, s.lo = s.hi<<n|s.lo>>(64-n), s.lo<<n
	}
}
