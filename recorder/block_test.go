package recorder

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"centralka/media"
	"centralka/store"
)

// What is written is read again, in full and in short form.
func TestBlockRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		var w blockWriter
		w.reset()
		var want []item
		at := rng.Int64N(maxOffset / 2)
		seq, stamp := uint16(rng.Uint32()), rng.Uint32()
		for range 40 {
			switch rng.IntN(10) {
			case 0:
				it := item{kind: itemStart, id: store.NewID(), wall: time.Unix(0, rng.Int64()).UTC()}
				w.start(it.id, it.wall)
				want = append(want, it)
			case 1:
				it := item{kind: itemDropped, dropped: [2]uint64{rng.Uint64N(1 << 62), 3}, fails: 4}
				w.dropped(it.dropped, it.fails)
				want = append(want, it)
			case 2:
				it := item{kind: itemKind(rng.IntN(4)) + itemTick, at: rng.Int64N(maxOffset + 1)}
				w.mark(it.kind, it.at)
				want = append(want, it)
			case 3:
				it := item{kind: itemRecord, record: []byte(`{"a":1}`)}
				w.record(it.record)
				want = append(want, it)
			default:
				if rng.IntN(4) == 0 {
					seq, stamp = uint16(rng.Uint32()), rng.Uint32()
				}
				p := media.Packet{Kind: media.PacketKind(rng.IntN(4)), Marker: rng.IntN(2) == 0, Sequence: seq, Timestamp: stamp, SSRC: 7, Payload: bytes.Repeat([]byte{byte(seq)}, 80*rng.IntN(3))}
				at += rng.Int64N(second)
				it := item{kind: itemPacket, lane: rng.IntN(2), at: at, packet: p}
				w.packet(it.lane, &p, at)
				want = append(want, it)
				seq++
				stamp += uint32(len(p.Payload))
			}
		}
		r := blockReader{rest: w.buf}
		for i := range want {
			var got item
			if !r.next(&got) {
				t.Fatalf("item %d: %v", i, r.err)
			}
			x := &want[i]
			p, q := &got.packet, &x.packet
			if got.kind != x.kind || got.at != x.at || got.id != x.id || !got.wall.Equal(x.wall) || got.dropped != x.dropped || got.fails != x.fails ||
				!bytes.Equal(got.record, x.record) || got.lane != x.lane || p.Kind != q.Kind || p.Marker != q.Marker || p.Sequence != q.Sequence ||
				p.Timestamp != q.Timestamp || p.SSRC != q.SSRC || !bytes.Equal(p.Payload, q.Payload) {
				t.Fatalf("item %d is %+v, want %+v", i, got, *x)
			}
		}
		if r.next(new(item)) || r.err != nil {
			t.Fatalf("the block does not end: %v", r.err)
		}
	}
}

// A cut block gives its first items and says that it is cut.
func TestBlockCutAnywhere(t *testing.T) {
	tp := recordTape([2][]packetAt{phoneA().talk(0, 150*millisecond), phoneB().talk(0, 150*millisecond)}, nil, -1)
	whole := tp.blocks[1]
	items := func(b []byte) (n int, err error) {
		r := blockReader{rest: b}
		for r.next(new(item)) {
			n++
		}
		return n, r.err
	}
	all, err := items(whole)
	if err != nil || all != 17 {
		t.Fatalf("%d items, %v", all, err)
	}
	clean := 0
	for n := range whole {
		got, err := items(whole[:n])
		if err == nil {
			clean++
		}
		if got > all || n < len(whole)/2 && got > all/2+1 {
			t.Fatalf("%d bytes give %d items", n, got)
		}
	}
	if clean != all { // at the end of the version byte and of each item but the last
		t.Errorf("%d cuts were not noticed, want %d", clean, all)
	}
}

func TestBlockHoldsHalfASecond(t *testing.T) {
	var w blockWriter
	w.reset()
	if w.full(5 * second) {
		t.Error("an empty block is full")
	}
	w.packet(citizen, &media.Packet{}, 5*second)
	if w.full(5*second+500*millisecond) || !w.full(5*second+501*millisecond) || !w.full(4*second) {
		t.Error("the block is not full after half a second")
	}
	for w.reset(); !w.full(0); {
		w.packet(office, &media.Packet{Payload: make([]byte, media.MaxPayload)}, 0)
	}
	w.record(make([]byte, maxRecord))
	if len(w.buf)+2*media.MaxPayload > 64<<10 {
		t.Errorf("a full block takes %d bytes", len(w.buf))
	}
}

// No block makes the decoder panic, and what it yields is within bounds.
func FuzzBlock(f *testing.F) {
	for _, b := range recordTape([2][]packetAt{phoneA().talk(0, second), nil}, []span{{0, 100}}, second).blocks {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := blockReader{rest: b}
		var it item
		for r.next(&it) {
			if it.kind == itemPacket && (it.at < 0 || it.at > maxOffset || len(it.packet.Payload) > media.MaxPayload) {
				t.Fatalf("packet %+v", it)
			}
		}
	})
}

// No journal makes the renderer panic, and the file is as long as it says.
func FuzzRender(f *testing.F) {
	tp := recordTape([2][]packetAt{phoneA().talk(0, second), phoneB().talk(0, second)}, []span{{100000, 200000}}, second)
	f.Add(bytes.Join(tp.blocks[:4], nil), uint16(300))
	f.Add(tp.blocks[2], uint16(1000))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		// The input becomes blocks of one size; their version byte is put right.
		var tp tape
		for n := int(size) + 1; len(b) > 0; b = b[min(n, len(b)):] {
			tp.blocks = append(tp.blocks, append([]byte{blockVersion}, b[:min(n, len(b))]...))
		}
		o, err := outlineOf(tp.all())
		if err != nil {
			t.Fatal(err)
		}
		// Hours of silence would only make the fuzzing slow.
		if o.last = min(o.last, 20*second); o.end > o.last {
			o.end = o.last
		}
		var w countingWriter
		r, err := render(&w, tp.all(), &o)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(r.duration/time.Microsecond)/sampleMicros*wavFrame + wavHeader; int64(w) != want {
			t.Fatalf("file of %d bytes, want %d", w, want)
		}
	})
}

type countingWriter int64

func (c *countingWriter) Write(b []byte) (int, error) {
	*c += countingWriter(len(b))
	return len(b), nil
}

var _ io.Writer = new(countingWriter)
