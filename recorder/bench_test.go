package recorder

import (
	"io"
	"testing"
	"time"

	"centralka/media"
)

// BenchmarkRender renders a call of ten minutes in which both sides speak.
func BenchmarkRender(b *testing.B) {
	const length = 600 * second
	tp := recordTape([2][]packetAt{phoneA().talk(0, length), phoneB().talk(0, length)}, nil, length)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		o, err := outlineOf(tp.all())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := render(io.Discard, tp.all(), &o); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/600, "ns/s-of-audio")
}

// BenchmarkBlock encodes what one second of a conversation drains: ns per
// packet, from tap to block.
func BenchmarkBlock(b *testing.B) {
	tap := media.NewTap(ringBytes, time.Now())
	p := media.Packet{Kind: media.KindPCMA, Payload: make([]byte, media.FrameSamples)}
	var w blockWriter
	var out media.Packet
	w.reset()
	b.ReportAllocs()
	for b.Loop() {
		tap.Put(&p)
		p.Sequence++
		p.Timestamp += media.FrameSamples
		tap.Next(&out)
		if w.full(out.Arrival.Microseconds()) {
			w.reset()
		}
		w.packet(citizen, &out, out.Arrival.Microseconds())
	}
}
