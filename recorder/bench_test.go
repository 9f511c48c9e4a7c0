package recorder

import (
	"io"
	"testing"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
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

// BenchmarkDrain brings 200 ms of a conversation from the taps into a journal
// that costs nothing.
func BenchmarkDrain(b *testing.B) {
	r := &Recorder{disk: disk{create: func(ordinance.Day, store.ID) (journal, error) { return noJournal{}, nil }}}
	c := r.Start(store.CallRecord{ID: store.NewID()}, time.Now())
	p := media.Packet{Kind: media.KindPCMA, Payload: make([]byte, media.FrameSamples)}
	const packets = 20
	b.ReportAllocs()
	for b.Loop() {
		for range packets / 2 {
			c.Citizen().Put(&p)
			c.Office().Put(&p)
			p.Sequence++
			p.Timestamp += media.FrameSamples
		}
		c.drain()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
}

type noJournal struct{}

func (noJournal) Append([]byte) error { return nil }
func (noJournal) Close() error        { return nil }

// Draining allocates nothing per packet.
func TestDrainAllocatesNothingPerPacket(t *testing.T) {
	r := &Recorder{disk: disk{create: func(ordinance.Day, store.ID) (journal, error) { return noJournal{}, nil }}}
	c := r.Start(store.CallRecord{ID: store.NewID()}, time.Now())
	p := media.Packet{Kind: media.KindPCMA, Payload: make([]byte, media.FrameSamples)}
	drain := func(packets int) float64 {
		return testing.AllocsPerRun(100, func() {
			for range packets {
				c.Citizen().Put(&p)
				p.Sequence++
			}
			c.drain()
		})
	}
	drain(100)
	if few, most := drain(1), drain(100); most > few || few > 4 {
		t.Errorf("%v allocations for a packet, %v for a hundred", few, most)
	}
}
