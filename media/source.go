package media

import (
	"net/netip"
	"time"
)

// rebindSilence is how long a source must be silent before another port of the
// same address is taken for it.
const rebindSilence = 2 * time.Second

// source decides whose packets a port takes and knows where to send. The rule,
// in full:
//
//   - the address and port of the peer's SDP always win;
//   - until something was taken, the address that signalling comes from may be
//     taken, on any port (a phone behind NAT);
//   - after two seconds of silence another port of the same address may be
//     taken (a NAT that rebinds); before anything was taken that is the SDP's
//     address (a gateway that sends from another port than it receives on);
//   - nothing else, ever, and what is not taken changes nothing.
//
// RTP and RTCP have one each.
type source struct {
	announced  netip.AddrPort // from the SDP
	signalling netip.Addr
	current    netip.AddrPort // taken; zero until the first packet
	heard      time.Duration  // of the last packet taken, or when the rule was set
}

// expect sets the SDP's address and the signalling address. What was taken is
// forgotten only if the SDP's address changed; expect reports whether it did.
func (s *source) expect(announced netip.AddrPort, signalling netip.Addr, at time.Duration) bool {
	s.signalling = signalling.Unmap()
	announced = unmap(announced)
	if announced == s.announced {
		return false
	}
	s.announced, s.current, s.heard = announced, netip.AddrPort{}, at
	return true
}

// admits tells whether a packet from that address may be taken. It changes
// nothing.
func (s *source) admits(from netip.AddrPort, at time.Duration) bool {
	if from == s.announced || from == s.current {
		return true
	}
	known := s.current
	if !known.IsValid() {
		if from.Addr() == s.signalling {
			return true
		}
		known = s.announced
	}
	return from.Addr() == known.Addr() && at-s.heard >= rebindSilence
}

// take makes from, which admits has let in, the source.
func (s *source) take(from netip.AddrPort, at time.Duration) {
	s.current, s.heard = from, at
}

// target is where to send: back to where packets come from (symmetric RTP),
// before the first one to the SDP's address. It is not valid if the SDP named
// no address that can be sent to (c=0.0.0.0, port 0).
func (s *source) target() (netip.AddrPort, bool) {
	to := s.announced
	if !to.IsValid() || to.Addr().IsUnspecified() || to.Port() == 0 {
		return netip.AddrPort{}, false
	}
	if s.current.IsValid() {
		to = s.current
	}
	return to, true
}

// unmap gives an IPv4 address one form, whichever kind of socket it came from.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
