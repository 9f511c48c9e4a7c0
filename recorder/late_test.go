package recorder

import (
	"math/rand/v2"
	"testing"

	"centralka/media"
)

// TestVoiceReadTooLateIsCounted: a switch that does not get to run reads
// packets seconds late, slower than they come, and then all at once. What loses
// its place in the recording by that is counted to the sample, so that the
// recording does not pass for whole.
func TestVoiceReadTooLateIsCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var in []packetAt
	for n := range int64(1000) {
		sent := n * 20 * millisecond
		late := int64(0)
		switch s := sent / second; {
		case s >= 5 && s < 11:
			late = (sent - 5*second) / 2
		case s >= 11 && s < 14:
			late = 14*second - sent
		}
		payload := make([]byte, media.FrameSamples)
		for i := range payload {
			payload[i] = byte(rng.Uint32()) // A-law has no zero among its samples
		}
		in = append(in, packetAt{sent + late, media.Packet{Kind: media.KindPCMA, Sequence: uint16(n), Timestamp: uint32(n * media.FrameSamples), SSRC: 1, Payload: payload}})
	}
	p := play(t, recordTape([2][]packetAt{in, nil}, nil, 21*second))
	told := 0
	for _, s := range p.lanes[citizen] {
		if s != 0 {
			told++
		}
	}
	sent, lost := len(in)*media.FrameSamples, int(p.counts.Unplaced[citizen])
	missing := sent - told
	if missing < media.SampleRate {
		t.Fatalf("only %d samples are missing: this test does not show what it is for", missing)
	}
	// Steering takes or adds up to two samples a packet, which are not counted.
	if d := missing - lost; lost <= tooMuchUnplaced || d > 2*len(in) || d < -2*len(in) {
		t.Errorf("%d samples are missing, %d are counted", missing, lost)
	}
	if p.counts.Unplaced[office] != 0 {
		t.Errorf("the other lane lost %d samples", p.counts.Unplaced[office])
	}
}
