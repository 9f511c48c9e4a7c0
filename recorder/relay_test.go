//go:build linux && (amd64 || arm64)

package recorder

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// hungDisk takes nothing while it hangs. Whoever waits for it does so in a system
// call, as with a disk, and so keeps a thread.
type hungDisk struct {
	pipe             [2]int // closing the second lets everybody go
	reached, stalled chan struct{}
	once, last       sync.Once
}

func newHungDisk(t *testing.T) *hungDisk {
	d := &hungDisk{reached: make(chan struct{}), stalled: make(chan struct{})}
	if err := syscall.Pipe2(d.pipe[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.heal)
	return d
}

func (d *hungDisk) heal() { d.last.Do(func() { _ = syscall.Close(d.pipe[1]) }) }

func (d *hungDisk) wait() {
	var b [1]byte
	// It ends with the end of the pipe, once healed.
	for {
		if _, err := syscall.Read(d.pipe[0], b[:]); err != syscall.EINTR {
			return
		}
	}
}

// under lets each sync hang, and once stalled is closed every journal.
func (d *hungDisk) under(r *Recorder) {
	create, sync := r.disk.create, r.disk.sync
	r.disk.sync = func() error {
		d.once.Do(func() { close(d.reached) })
		d.wait()
		return sync()
	}
	r.disk.create = func(day ordinance.Day, id store.ID) (journal, error) {
		j, err := create(day, id)
		return &hungJournal{j, d}, err
	}
}

type hungJournal struct {
	journal
	disk *hungDisk
}

func (j *hungJournal) Append(b []byte) error {
	select {
	case <-j.disk.stalled:
		j.disk.wait()
	default:
	}
	return j.journal.Append(b)
}

// TestHangingDiskDoesNotDisturbTheRelay: over real sockets, through the packet
// loop, while a sync and then the journal as well do not return. What is relayed
// is all there and in time; what the rings could not take meanwhile is counted to
// the packet, and the recording is degraded.
func TestHangingDiskDoesNotDisturbTheRelay(t *testing.T) {
	d := newHungDisk(t)
	v := openVault(t, t.TempDir(), d.under)
	t.Cleanup(d.heal) // before the vault is closed
	e, err := media.NewLoop(media.LoopConfig{Addr: netip.MustParseAddr("127.0.0.1"), PortMin: 30200, PortMax: 30299})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	rec := v.call(store.Incoming)
	c := v.Start(rec, time.Now())
	defer func() { // also when the test gives up: the recorder waits for it
		d.heal()
		c.Finish(rec, time.Now())
	}()
	var legs [2]media.Stream
	var peers [2]*net.UDPConn
	for i, tap := range []*media.Tap{c.Citizen(), c.Office()} {
		if peers[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		defer peers[i].Close() // nothing is left to be sent
		if legs[i], err = e.Open(media.StreamConfig{Label: "leg"}); err != nil {
			t.Fatal(err)
		}
		legs[i].Configure(media.Params{Remote: peers[i].LocalAddr().(*net.UDPAddr).AddrPort(), Codec: media.PCMA, PayloadType: 8, Direction: media.SendRecv})
		legs[i].SetTap(tap)
	}
	media.Bridge(legs[0], legs[1])

	var sent uint16
	// talk sends packets one by one, each way, and returns how long each took.
	talk := func(packets int, every time.Duration) (delays []time.Duration) {
		t.Helper()
		p, b := make([]byte, 12+media.FrameSamples), make([]byte, 2048)
		p[0], p[1] = 0x80, 8
		pace := time.NewTicker(every)
		defer pace.Stop()
		for range packets {
			for i, from := range peers {
				binary.BigEndian.PutUint16(p[2:], sent)
				binary.BigEndian.PutUint32(p[4:], uint32(sent)*media.FrameSamples)
				binary.BigEndian.PutUint32(p[8:], uint32(i))
				binary.BigEndian.PutUint16(p[12:], sent)
				at := time.Now()
				if _, err := from.WriteTo(p, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(legs[i].LocalPort())}); err != nil {
					t.Fatal(err)
				}
				to := peers[1-i]
				if err := to.SetReadDeadline(at.Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				n, _, err := to.ReadFrom(b)
				if err != nil {
					t.Fatalf("packet %d: %v", sent, err)
				}
				if n != len(p) || binary.BigEndian.Uint16(b[12:]) != sent {
					t.Fatalf("packet %d came out as %d bytes, number %d", sent, n, binary.BigEndian.Uint16(b[12:]))
				}
				delays = append(delays, time.Since(at))
			}
			sent++
			<-pace.C
		}
		slices.Sort(delays)
		return delays
	}
	// undisturbed: the hanging lasts until it is ended, so whatever waits for the
	// disk waits for ever. The rest is a generous bound for busy machines.
	undisturbed := func(what string, delays []time.Duration) {
		t.Helper()
		p50, p90 := delays[len(delays)/2], delays[len(delays)*9/10]
		t.Logf("%s: p50 %v, p90 %v, max %v", what, p50, p90, delays[len(delays)-1])
		if p50 > media.FrameTime || p90 > 5*media.FrameTime {
			t.Errorf("%s: the relay takes %v, and %v for one in ten", what, p50, p90)
		}
	}
	for hung := false; !hung; {
		undisturbed("disk well", talk(10, media.FrameTime))
		select {
		case <-d.reached:
			hung = true
		default:
		}
	}
	undisturbed("sync hangs", talk(25, media.FrameTime))
	if s := v.Status(); s.Overflowed > 0 {
		t.Errorf("a sync that hangs made rings overflow: %+v", s)
	}
	close(d.stalled)
	undisturbed("journal hangs", talk(600, time.Millisecond))
	d.heal()
	for _, s := range legs {
		s.Close()
	}
	c.Finish(rec, time.Now())
	got := v.ended(c.Day(), rec.ID)
	n := got.Recording.Counts
	if got.Recording.Outcome != store.OutcomeDegraded || got.Recording.Reason == "" {
		t.Errorf("recording %+v", got.Recording)
	}
	for side := range 2 {
		if n.Dropped[side] == 0 || n.Packets[side]+n.Dropped[side] != uint64(sent) {
			t.Errorf("lane %d of %d packets: %+v", side, sent, n)
		}
	}
	if s := v.Status(); s.Overflowed != n.Dropped[0]+n.Dropped[1] {
		t.Errorf("the status has %d packets, the record %d", s.Overflowed, n.Dropped[0]+n.Dropped[1])
	}
}
