package media

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTapOrderAndContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := NewTap(0, time.Now())
		rng := rand.New(rand.NewPCG(1, 2))
		var model []Packet
		var got Packet
		var dropped uint64
		for i := range 20000 {
			if rng.IntN(2) == 0 {
				time.Sleep(time.Millisecond)
				p := Packet{
					Kind: PacketKind(rng.IntN(4)), Marker: rng.IntN(2) == 0, Sequence: uint16(i),
					Timestamp: rng.Uint32(), SSRC: rng.Uint32(), Payload: frames(rng.IntN(MaxPayload+20), byte(i)),
				}
				used := 0
				for _, m := range model {
					used += tapHeader + len(m.Payload)
				}
				fits := len(p.Payload) <= MaxPayload && used+tapHeader+len(p.Payload) <= 4096
				if tap.Put(&p) != fits {
					t.Fatalf("packet %d of %d bytes with %d used: fitted %v", i, len(p.Payload), used, !fits)
				}
				if fits {
					p.Arrival = time.Since(tap.Epoch())
					model = append(model, p)
				} else {
					dropped++
				}
				continue
			}
			ok := tap.Next(&got)
			if ok != (len(model) > 0) {
				t.Fatalf("packet %d: there was one: %v", i, ok)
			}
			if !ok {
				continue
			}
			want := model[0]
			model = model[1:]
			if !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("packet %d: payload differs", i)
			}
			got, want := got, want
			got.Payload, want.Payload = nil, nil
			if got.Kind != want.Kind || got.Marker != want.Marker || got.Sequence != want.Sequence ||
				got.Timestamp != want.Timestamp || got.SSRC != want.SSRC || got.Arrival != want.Arrival {
				t.Fatalf("packet %d: %+v, want %+v", i, got, want)
			}
		}
		if tap.Dropped() != dropped || dropped == 0 {
			t.Errorf("dropped %d, want %d", tap.Dropped(), dropped)
		}
	})
}

// TestTapBetweenGoroutines: one puts, one takes; what arrives is whole and in
// order, and what does not is counted.
func TestTapBetweenGoroutines(t *testing.T) {
	tap := NewTap(1<<14, time.Now())
	const n = 50000
	var both sync.WaitGroup
	ended := make(chan struct{})
	both.Go(func() {
		defer close(ended)
		payload := make([]byte, 160)
		for i := range n {
			for j := range payload {
				payload[j] = byte(i)
			}
			tap.Put(&Packet{Sequence: uint16(i), Timestamp: uint32(i), Payload: payload})
		}
	})
	both.Go(func() {
		var p Packet
		got, last := uint64(0), -1
		for over := false; !over; {
			select {
			case <-ended:
				over = true
			default:
			}
			for tap.Next(&p) {
				got++
				if int(p.Timestamp) <= last || len(p.Payload) != 160 {
					t.Errorf("packet %d of %d bytes after %d", p.Timestamp, len(p.Payload), last)
					return
				}
				last = int(p.Timestamp)
				for _, b := range p.Payload {
					if b != byte(last) {
						t.Errorf("packet %d is torn", last)
						return
					}
				}
			}
		}
		if got+tap.Dropped() != n {
			t.Errorf("%d came and %d were dropped of %d", got, tap.Dropped(), n)
		}
	})
	both.Wait()
}

func TestTapNextReusesPayload(t *testing.T) {
	tap := NewTap(4096, time.Now())
	in, out := Packet{Payload: frames(160, 1)}, Packet{Payload: make([]byte, 0, MaxPayload)}
	if n := testing.AllocsPerRun(1000, func() {
		if !tap.Put(&in) || !tap.Next(&out) {
			t.Fatal("no packet")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A reader that keeps up leaves all but the first pages of the ring untouched:
// they take no memory.
func TestTapKeptEmptyStaysInItsFirstPages(t *testing.T) {
	tap := NewTap(1<<16, time.Now())
	in, out := Packet{Payload: frames(160, 7)}, Packet{}
	for range 1000 {
		for range 20 {
			if !tap.Put(&in) {
				t.Fatal("full")
			}
		}
		for range 20 {
			if !tap.Next(&out) || !bytes.Equal(out.Payload, in.Payload) {
				t.Fatal("not what was put")
			}
		}
	}
	for i, b := range tap.buf[1<<12:] {
		if b != 0 {
			t.Fatalf("byte %d of the ring was used", 1<<12+i)
		}
	}
	if len(tap.buf) != 1<<16 {
		t.Errorf("a ring of %d bytes", len(tap.buf))
	}
}
