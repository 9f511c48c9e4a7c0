package pbx

import (
	"sync"
	"time"

	"centralka/media"
	"centralka/store"
)

// noteQuality puts the figures of a leg's stream, which is closed, into the
// record of the call that the leg is in. A leg without a packet has none.
func (l *leg) noteQuality(s media.StreamStats) {
	dropped := s.Drops.ByCause()
	if s.Received == 0 && s.Sent == 0 && len(dropped) == 0 {
		return
	}
	q := store.Quality{
		Leg: l.label, Party: l.partyName(),
		Received: s.Received, Lost: s.Lost, Late: s.Late, Duplicate: s.Duplicate, Gaps: s.Gaps,
		JitterMean: s.JitterMean, JitterMax: s.JitterMax, RTT: s.RTT, RTTMax: s.RTTMax, HeardMOS: s.HeardMOS(),
		Sent: s.Sent, RemoteLost: s.RemoteLost, RemoteJitter: s.RemoteJitter, ToldMOS: s.ToldMOS(),
		Dropped: dropped,
	}
	l.c.rec.Quality = append(l.c.rec.Quality, q)
	l.c.s.counts.judged(q)
}

// MOSBounds are the upper bounds by which MOSCounts counts.
var MOSBounds = [...]float64{2, 2.6, 3.1, 3.6, 4.0, 4.3}

// MOSCounts is a histogram of estimates of voice quality.
type MOSCounts struct {
	N   uint64
	Sum float64
	// AtMost counts the estimates that are not above each of MOSBounds.
	AtMost [len(MOSBounds)]uint64
}

func (m *MOSCounts) add(mos float64) {
	if mos == 0 {
		return
	}
	m.N++
	m.Sum += mos
	for i, bound := range MOSBounds {
		if mos <= bound {
			m.AtMost[i]++
		}
	}
}

func (n *counters) judged(q store.Quality) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard.add(q.HeardMOS)
	n.told.add(q.ToldMOS)
}

// judge estimates how the calls sound now, all at the same time: each stream is
// asked, and an engine answers within a turn.
func judge(calls []CallStatus) {
	var asked sync.WaitGroup
	for i := range calls {
		c := &calls[i]
		asked.Go(func() {
			for _, s := range c.streams {
				if mos := s.Stats().HeardMOS(); mos > 0 && (c.MOS == 0 || mos < c.MOS) {
					c.MOS = mos
				}
			}
			c.streams = nil
		})
	}
	asked.Wait()
}

// overloaded tells whether one call more would be too many: for the
// configuration, or for what the media engine has to do. The call that asks is
// counted already. Emergency calls do not ask.
func (s *Switch) overloaded() bool {
	rtp := s.config().RTP
	if rtp.MaxCalls > 0 && s.Calls() > rtp.MaxCalls {
		return true
	}
	return s.late()
}

// late tells whether packets leave later than is allowed.
func (s *Switch) late() bool {
	limit := s.config().RTP.MaxLateness
	return limit > 0 && s.engine.Lateness().Mean > limit
}

// defaultLateness is far below what a jitter buffer of a phone swallows and far
// above what a machine that is not overloaded shows.
const defaultLateness = 40 * time.Millisecond
