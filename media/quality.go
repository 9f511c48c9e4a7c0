package media

import (
	"math"
	"time"
)

// Constants of the E-model (ITU-T G.107) at its default values, for G.711.
const (
	// defaultR is R0 - Is: what is left for the network to take from when all
	// parameters of the terminals are the defaults.
	defaultR = 93.2
	// robustness is Bpl of G.711 with packet loss concealment (ITU-T G.113,
	// appendix I), which desk phones and gateways have. Without it, it is 4.3.
	robustness = 25.1
)

// MOS estimates how a listener would judge a connection, 1 (bad) to 4.4 (as good
// as G.711 gets), by the E-model of ITU-T G.107 for G.711 with default
// terminals. loss is the fraction of packets that never came, 0..1; burst is the
// mean length of a run of lost packets over that of independent losses (BurstR,
// 1 if unknown); delay is one way, mouth to ear. Echo is not in it: nobody can
// hear it from here.
func MOS(loss, burst float64, delay time.Duration) float64 {
	ppl := 100 * min(max(loss, 0), 1)
	r := defaultR - delayImpairment(delay) - 95*ppl/(ppl/max(burst, 1)+robustness)
	return opinion(r)
}

// delayImpairment is Idd (ITU-T G.107, 7.4): nothing up to 100 ms.
func delayImpairment(delay time.Duration) float64 {
	ms := float64(delay) / float64(time.Millisecond)
	if ms <= 100 {
		return 0
	}
	x := math.Log2(ms / 100)
	return 25 * (math.Pow(1+math.Pow(x, 6), 1./6) - 3*math.Pow(1+math.Pow(x/3, 6), 1./6) + 2)
}

// opinion turns a rating factor into a mean opinion score (ITU-T G.107 annex B).
func opinion(r float64) float64 {
	switch {
	case r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6)
}

// HeardMOS estimates the quality of what came from the peer, 0 if nothing has.
func (s StreamStats) HeardMOS() float64 {
	once := s.Received - min(s.Duplicate, s.Received)
	if once == 0 {
		return 0
	}
	loss := float64(s.Lost) / float64(s.Lost+once)
	burst := 1.
	if s.Gaps > 0 && s.Lost > 0 && loss < 1 {
		// Runs that reordering has closed again make it smaller than it was.
		burst = float64(s.Lost) / float64(s.Gaps) * (1 - loss)
	}
	return MOS(loss, burst, oneWay(s.RTT, s.JitterMean))
}

// ToldMOS estimates the quality of what the peer got from us, by its own reports;
// 0 if it makes none.
func (s StreamStats) ToldMOS() float64 {
	if !s.Reported || s.Sent == 0 {
		return 0
	}
	return MOS(min(float64(s.RemoteLost)/float64(s.Sent), 1), 1, oneWay(s.RTT, s.RemoteJitter))
}

// oneWay is the delay from a party's mouth to our ear: half the round trip, one
// packet, and a jitter buffer of twice the jitter, at least another packet.
func oneWay(rtt, jitter time.Duration) time.Duration {
	return rtt/2 + FrameTime + max(2*jitter, FrameTime)
}
