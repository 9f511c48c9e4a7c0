//go:build linux

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
)

// benchPackets returns a speaker's first n packets.
func benchPackets(call int, side benchSide, n int) [][]byte {
	v := newBenchVoice(call, side)
	var packets [][]byte
	for i := range n {
		packets = append(packets, slices.Clone(v.next(time.Duration(i)*benchTime)))
	}
	return packets
}

func TestBenchTallyNoticesWhatHappenedToPackets(t *testing.T) {
	type change func(packets [][]byte) [][]byte
	swapSSRC := func(p [][]byte) [][]byte {
		for _, b := range p[5:] {
			binary.BigEndian.PutUint32(b[8:], 1)
		}
		return p
	}
	for _, c := range []struct {
		name   string
		change change
		want   benchCounts
	}{
		{"nothing", func(p [][]byte) [][]byte { return p }, benchCounts{Received: 10}},
		{"loss", func(p [][]byte) [][]byte { return slices.Delete(p, 3, 5) }, benchCounts{Received: 8}},
		{"music first", func(p [][]byte) [][]byte { return slices.Insert(p, 0, make([]byte, benchPacket)) }, benchCounts{Received: 10, Before: 1}},
		{"music later", func(p [][]byte) [][]byte { return slices.Insert(p, 4, make([]byte, benchPacket)) }, benchCounts{Received: 10, Altered: 1}},
		{"cut short", func(p [][]byte) [][]byte { p[9] = p[9][:100]; return p }, benchCounts{Received: 9, Altered: 1}},
		{"another call", func(p [][]byte) [][]byte { return append(p, benchPackets(8, benchOffice, 1)...) }, benchCounts{Received: 10, Crossed: 1}},
		{"an echo", func(p [][]byte) [][]byte { return append(p, benchPackets(7, benchCitizen, 1)...) }, benchCounts{Received: 10, Crossed: 1}},
		{"twice", func(p [][]byte) [][]byte { return append(p, p[2]) }, benchCounts{Received: 10, Duplicated: 1}},
		{"another order", func(p [][]byte) [][]byte { p[2], p[3] = p[3], p[2]; return p }, benchCounts{Received: 10, Reordered: 1}},
		{"another SSRC", swapSSRC, benchCounts{Received: 10, Renumbered: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tally := benchTally{call: 7, side: benchOffice}
			for _, b := range c.change(benchPackets(7, benchOffice, 10)) {
				tally.take(b)
			}
			if tally.count != c.want {
				t.Errorf("%+v, want %+v", tally.count, c.want)
			}
		})
	}
}

func TestBenchTallyNoticesEveryAlteredByte(t *testing.T) {
	packet := benchPackets(1, benchCitizen, 1)[0]
	for at := benchHeader; at < benchPacket; at++ {
		tally := benchTally{call: 1, side: benchCitizen, numbersSet: true}
		b := slices.Clone(packet)
		b[at] ^= 0x01
		if _, ok := tally.take(b); ok || tally.count.Altered != 1 {
			t.Errorf("byte %d: %+v", at, tally.count)
		}
	}
}

// benchLaneOf is what a recorder makes of packets that begin at a sample.
func benchLaneOf(begin int, packets [][]byte) []byte {
	b := slices.Repeat([]byte{0xD5}, begin)
	for _, p := range packets {
		b = append(b, p[benchHeader:]...)
	}
	return append(b, slices.Repeat([]byte{0xD5}, 77)...)
}

func TestBenchSearchFindsFramesInLanes(t *testing.T) {
	packets := benchPackets(3, benchCitizen, 20)
	whole := benchLaneOf(1234, packets)
	if f := benchSearch(whole, 3, benchCitizen); f != (benchFound{own: 20}) {
		t.Errorf("whole: %+v", f)
	}
	if f := benchSearch(whole, 3, benchOffice); f != (benchFound{strange: 20}) {
		t.Errorf("the other lane: %+v", f)
	}
	if f := benchSearch(whole, 4, benchCitizen); f != (benchFound{strange: 20}) {
		t.Errorf("another call: %+v", f)
	}
	quiet := slices.Clone(whole)
	copy(quiet[1234+5*benchFrame:], slices.Repeat([]byte{0xD5}, benchFrame))
	if f := benchSearch(quiet, 3, benchCitizen); f != (benchFound{own: 19}) {
		t.Errorf("a frame silent: %+v", f)
	}
	steered := slices.Delete(slices.Clone(whole), 1234+8*benchFrame-2, 1234+8*benchFrame)
	if f := benchSearch(steered, 3, benchCitizen); f != (benchFound{own: 20, trimmed: 1, off: 250 * time.Microsecond}) {
		t.Errorf("two samples steered away: %+v", f)
	}
	if f := benchSearch(append(whole, whole...), 3, benchCitizen); f.own != 20 || f.strange != 20 {
		t.Errorf("twice: %+v", f)
	}
	law := benchInverse()
	if len(law) != 256 {
		t.Errorf("%d samples stand for the 256 codes of A-law", len(law))
	}
}

func TestBenchTimesQuantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var h benchTimes
	if h.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(1) << rnd.IntN(35)
		d += time.Duration(rnd.Int64N(int64(d)))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.99, 0.999, 1} {
		want := all[int(q*float64(len(all)-1))]
		if got := h.quantile(q); got < want || float64(got) > float64(want)*(1+1.0/32)+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.max != all[len(all)-1] {
		t.Errorf("max %v, want %v", h.max, all[len(all)-1])
	}
}

// benchCrookedRelay stands for a switch that is not honest: it swaps the two parties'
// packets as it should, but loses, alters, repeats and crosses some of them. It
// returns when both have sent the wanted number.
func benchCrookedRelay(c *net.UDPConn, parties [2]netip.AddrPort, want uint32) error {
	buf := make([]byte, 2048)
	var got [2]uint32
	for got[0] < want || got[1] < want {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		side := slices.Index(parties[:], from)
		if got[side]++; got[side] > want {
			continue
		}
		to, times := parties[1-side], 1
		switch got[side] {
		case 2:
			times = 0
		case 4:
			buf[100]++
		case 6:
			times = 2
		case 8:
			to = from
		}
		for range times {
			if _, err := c.WriteToUDPAddrPort(buf[:n], to); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestBenchLoadCatchesACrookedRelay(t *testing.T) {
	load, err := newBenchLoad()
	if err != nil {
		t.Fatal(err)
	}
	stop, ran := make(chan struct{}), make(chan error, 1)
	go func() { ran <- load.run(stop) }()
	loopback := netip.MustParseAddr("127.0.0.1")
	var parties [2]*benchParty
	for i := range parties {
		s, err := load.listen(netip.AddrPortFrom(loopback, 0))
		if err != nil {
			t.Fatal(err)
		}
		parties[i] = s.(*benchParty)
		if load.party(parties[i].addr) != parties[i] {
			t.Errorf("party %d is not found by its address", i)
		}
	}
	relay, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if err := relay.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	at := relay.LocalAddr().(*net.UDPAddr).AddrPort()
	load.measure(true)
	load.converse(7, parties, [2]netip.AddrPort{at, at})
	const each = 10
	if err := benchCrookedRelay(relay, [2]netip.AddrPort{parties[0].addr, parties[1].addr}, each); err != nil {
		t.Fatal(err)
	}
	load.hush()
	// Of ten: one lost, one altered, one repeated, one crossed.
	want := benchCounts{Received: 2 * (each - 3), Altered: 2, Duplicated: 2, Crossed: 2}
	var got benchCounts
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if got = load.sum(); got.Received == want.Received && got.Crossed == want.Crossed && got.Duplicated == want.Duplicated {
			break
		}
	}
	if got.Sent < 2*each || got.Lost != got.Sent-got.Received {
		t.Errorf("%d sent, %d lost", got.Sent, got.Lost)
	}
	got.Sent, got.Lost = 0, 0
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if p := load.picture(); p.got != want.Received || p.delay.n != p.got || p.delay.max <= 0 || p.lateness.n != p.sent {
		t.Errorf("picture: %d got, %d delays up to %v, %d sent, %d latenesses", p.got, p.delay.n, p.delay.max, p.sent, p.lateness.n)
	}
	if err := parties[0].Close(); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := parties[1].Close(); err != nil {
		t.Errorf("closing after the loop: %v", err)
	}
	if err := relay.Close(); err != nil {
		t.Error(err)
	}
}

func TestBenchConfigurationIsAccepted(t *testing.T) {
	city, err := newBenchCity(t.TempDir(), 30, nil)
	if err != nil {
		t.Fatal(err)
	}
	path, err := city.configure()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Extensions) != 30 || len(cfg.Queues) != 1 || len(cfg.Queues[0].Members) != 30 || cfg.Queues[0].MaxLength != 0 {
		t.Errorf("%d extensions, queues %+v", len(cfg.Extensions), cfg.Queues)
	}
	wav, err := os.ReadFile(cfg.Announcement.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := ordinance.CheckAnnouncement(wav, cfg.Announcement.SHA256); err != nil {
		t.Error(err)
	}
	for _, i := range []int{0, 29, 1999} {
		if got := benchCallOf(benchCaller(i)); got != i {
			t.Errorf("call of the caller of call %d is %d", i, got)
		}
	}
	if got := benchCallOf("+48914245000"); got != -1 {
		t.Errorf("call of a stranger is %d", got)
	}
}

func TestBenchFailsForEachFault(t *testing.T) {
	for name, spoil := range map[string]func(*benchResult){
		"nothing relayed": func(r *benchResult) { r.Packets.Received = 0 },
		"lost":            func(r *benchResult) { r.Packets.Lost = 1 },
		"altered":         func(r *benchResult) { r.Packets.Altered = 1 },
		"another call":    func(r *benchResult) { r.Packets.Crossed = 1 },
		"twice":           func(r *benchResult) { r.Packets.Duplicated = 1 },
		"recordings":      func(r *benchResult) { r.Recordings.Bad = 1 },
		"files leak":      func(r *benchResult) { r.Drift.Last.Files = 100 },
		"threads leak":    func(r *benchResult) { r.Drift.Last.Threads = 100 },
		"memory leaks":    func(r *benchResult) { r.Drift.Last.RSS = 100 << 20 },
	} {
		r := benchResult{benchFigures: benchFigures{Packets: benchCounts{Sent: 5, Received: 5}}, Config: benchFlags{Calls: 1}}
		if r.judge(); len(r.Failures) != 0 {
			t.Fatalf("a good run fails: %v", r.Failures)
		}
		spoil(&r)
		if r.judge(); len(r.Failures) != 1 {
			t.Errorf("%s: failures %v", name, r.Failures)
		}
		var b strings.Builder
		if err := r.print(&b); err != nil || !strings.Contains(b.String(), "FAILED") {
			t.Errorf("%s: the table does not say so (%v)\n%s", name, err, &b)
		}
	}
}

func TestBenchDoesNotBlameTheSwitchForABusyMachine(t *testing.T) {
	r := benchResult{benchFigures: benchFigures{Packets: benchCounts{Sent: 5, Received: 4, Lost: 1}, LoadHeldUp: time.Second}, Config: benchFlags{Calls: 1}}
	if r.judge(); len(r.Failures) != 2 || !strings.Contains(r.Failures[1], "held up for 1s") {
		t.Errorf("failures: %q", r.Failures)
	}
	r = benchResult{benchFigures: benchFigures{Packets: benchCounts{Sent: 5, Received: 5}, LoadHeldUp: time.Second}, Config: benchFlags{Calls: 1}}
	if r.judge(); len(r.Failures) != 0 {
		t.Errorf("being held up without loss fails: %q", r.Failures)
	}
}

func TestBenchReadsTheKernelsBooks(t *testing.T) {
	u, err := benchUsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.cpu <= 0 || u.rss <= 1<<20 || u.anon <= 0 || u.anon > u.rss {
		t.Errorf("usage of this process: %+v", u)
	}
	if h, err := benchHeldBy(os.Getpid()); err != nil || h.RSS <= 0 || h.Files < 3 || h.Threads < 1 {
		t.Errorf("this process holds %+v, %v", h, err)
	}
	if m, err := benchThisMachine(); err != nil || m.Cores < 1 || !strings.HasPrefix(m.Kernel, "Linux ") {
		t.Errorf("machine %+v, %v", m, err)
	}

	// A socket that nobody reads overflows; on an address of its own.
	at := netip.AddrFrom4([4]byte{127, 250, byte(rand.IntN(256)), byte(1 + rand.IntN(250))})
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 20000)))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := c.WriteToUDPAddrPort(make([]byte, 1000), c.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
			t.Fatal(err)
		}
	}
	drops, err := benchDrops()
	if err != nil {
		t.Fatal(err)
	}
	if n := drops[netip.AddrPortFrom(at, 20000)]; n == 0 || n > 100 {
		t.Errorf("%d of 100 datagrams dropped", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
