package pbx_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"centralka/desk"
	"centralka/media"
	"centralka/ordinance"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/recorder"
	"centralka/store"

	"github.com/go-audio/wav"
)

// The addresses of the simulated city.
var (
	switchAddr  = netip.MustParseAddrPort("192.0.2.10:5060")
	carrierAddr = netip.MustParseAddrPort("198.51.100.1:5060")
	foreignAddr = netip.MustParseAddrPort("203.0.113.66:5060")
)

// The tones by which parties are told apart, Hz.
const (
	callerHz = 425
	phoneHz  = 620 // of 101; 102 has 30 Hz more, and so on
)

// rig is a running switch with everything real but the network, inside a
// bubble.
type rig struct {
	t       *testing.T
	net     *pbxtest.Net
	ladder  *pbxtest.Ladder
	sw      *pbx.Switch
	store   *store.Store
	rec     *recorder.Recorder
	pool    *desk.Pool
	carrier *pbxtest.Carrier
	phones  map[string]*pbxtest.Phone
	log     *lockedBuffer
	stop    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// cityConfig is the configuration of the tests: one trunk, one queue, phones.
func cityConfig(phones ...string) pbx.Config {
	cfg := pbx.DefaultConfig()
	cfg.SIP.Listen = []pbx.Listener{{Transport: "udp", Addr: switchAddr}}
	cfg.SIP.Domain = "centralka.test"
	cfg.RTP.Ports = pbx.PortRange{First: 20000, Last: 21999}
	trunk := pbx.DefaultTrunk()
	trunk.Name, trunk.Server, trunk.CallerNumber = "operator", carrierAddr.String(), "+48914245000"
	trunk.From = []pbx.Source{{Prefix: netip.PrefixFrom(carrierAddr.Addr(), 32)}}
	cfg.Trunks = []pbx.TrunkConfig{trunk}
	cfg.Numbers = []pbx.NumberConfig{{Match: "+48914245000", Target: "queue:cim"}, {Match: "+48914245111", Target: "extension:101"}}
	queue := pbx.DefaultQueue()
	queue.Name, queue.Members = "cim", phones
	cfg.Queues = []pbx.QueueConfig{queue}
	cfg.Secrets.Extensions = map[string]string{}
	for _, p := range phones {
		ext := pbx.DefaultExtension()
		ext.Number, ext.Name = p, "Stanowisko "+p
		cfg.Extensions = append(cfg.Extensions, ext)
		cfg.Secrets.Extensions[p] = "secret-" + p
	}
	return cfg
}

// newRig starts a switch and registers its phones. Call finish at the end.
func newRig(t *testing.T, cfg pbx.Config) *rig {
	t.Helper()
	r := &rig{t: t, net: pbxtest.NewNet(1), ladder: pbxtest.NewLadder(), phones: map[string]*pbxtest.Phone{}, log: &lockedBuffer{}}
	r.net.OnPacket(r.ladder.Tap)
	r.ladder.Name(switchAddr, "switch")
	r.ladder.Name(carrierAddr, "carrier")
	r.startSwitch(cfg, t.TempDir())
	var err error
	r.carrier, err = pbxtest.NewCarrier(pbxtest.PeerConfig{
		Name: "carrier", Listen: r.net.Listen, Addr: carrierAddr, Switch: switchAddr, Seed: 7,
		Voice: pbxtest.Voice{Say: pbxtest.Tone(callerHz)},
	})
	r.must(err)
	for i, e := range cfg.Extensions {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)}), 5060)
		r.ladder.Name(addr, e.Number)
		p, err := pbxtest.NewPhone(pbxtest.PeerConfig{
			Name: e.Number, Password: cfg.Secrets.Extensions[e.Number], Listen: r.net.Listen, Addr: addr, Switch: switchAddr, Seed: uint64(100 + i),
			Voice:  pbxtest.Voice{Say: pbxtest.Tone(phoneHz + 30*i)},
			Behave: pbxtest.Always(pbxtest.AnswerAfter(3 * time.Second)),
		})
		r.must(err)
		r.phones[e.Number] = p
		r.must(p.Register(t.Context()))
	}
	return r
}

func (r *rig) startSwitch(cfg pbx.Config, dir string) {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	st, err := store.Open(store.Config{Dir: dir, Log: log})
	r.must(err)
	r.store = st
	r.rec = recorder.New(recorder.Config{Store: st, Log: log})
	r.pool = desk.NewPool(log)
	engine, err := media.NewPortable(media.PortableConfig{
		Listen: func(a netip.AddrPort) (media.Conn, error) { return r.net.ListenPacket(a) },
		Addr:   switchAddr.Addr(), PortMin: cfg.RTP.Ports.First, PortMax: cfg.RTP.Ports.Last, Drain: time.Second, Timeout: cfg.RTP.Timeout, CNAME: "centralka", Log: log,
	})
	r.must(err)
	r.sw, err = pbx.New(cfg, pbx.Parts{
		Store: st, Recorder: r.rec, Engine: engine, Pool: r.pool, Log: log,
		ListenPacket: func(a netip.AddrPort) (net.PacketConn, error) { return r.net.ListenPacket(a) },
	})
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ectx, ecancel := context.WithCancel(context.Background())
	rctx, rcancel := context.WithCancel(context.Background())
	var swg, ewg, rwg sync.WaitGroup
	errs := make(chan error, 3)
	rwg.Go(func() { errs <- r.rec.Run(rctx) })
	ewg.Go(func() { errs <- engine.Run(ectx) })
	swg.Go(func() { errs <- r.sw.Run(ctx) })
	for !r.sw.Ready() {
		time.Sleep(time.Millisecond)
	}
	r.stop = func() {
		cancel()
		swg.Wait()
		if n := engine.Stats().Streams; n != 0 {
			r.t.Errorf("%d streams are left open", n)
		}
		ecancel()
		ewg.Wait()
		rcancel()
		rwg.Wait()
		for range 3 {
			if err := <-errs; err != nil {
				r.t.Error(err)
			}
		}
	}
}

// finish closes everything and fails on what peers complained of.
func (r *rig) finish() {
	r.t.Helper()
	r.stop()
	peers := []*pbxtest.Peer{r.carrier.Peer}
	for _, p := range r.phones {
		peers = append(peers, p.Peer)
	}
	for _, p := range peers {
		if err := p.Close(); err != nil {
			r.t.Error(err)
		}
		for _, v := range p.Violations() {
			r.t.Errorf("%s: %s", p.Name(), v)
		}
	}
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
	for _, n := range []string{"600100200", "914245000"} {
		if strings.Contains(r.log.String(), n) {
			r.t.Errorf("the log holds a number:\n%s", r.log)
		}
	}
	if r.t.Failed() {
		r.t.Logf("%s\n%s", r.ladder, r.log)
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s\n%s", err, r.ladder, r.log)
	}
}

// call places a call from the trunk.
func (r *rig) call() *pbxtest.Call {
	r.t.Helper()
	c, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"})
	r.must(err)
	return c
}

// records returns all call records; it waits until every one of them is
// complete.
func (r *rig) records() []store.CallRecord {
	r.t.Helper()
	for range 200 {
		var out []store.CallRecord
		open := 0
		for rec, err := range r.store.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
			r.must(err)
			if rec.Cause == "" || rec.Recording.Outcome == "" {
				open++
			}
			out = append(out, rec)
		}
		if open == 0 && r.sw.Calls() == 0 {
			return out
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatalf("calls do not end\n%s\n%s", r.ladder, r.log)
	return nil
}

// only returns the one record there is.
func (r *rig) only() store.CallRecord {
	r.t.Helper()
	recs := r.records()
	if len(recs) != 1 {
		r.t.Fatalf("%d records, want 1: %+v", len(recs), recs)
	}
	return recs[0]
}

// lanes reads a recording through an independent reader: citizen, office.
func (r *rig) lanes(rec store.CallRecord) (citizen, office []int16) {
	r.t.Helper()
	c, err := r.store.OpenRecording(rec.Day, rec.ID)
	r.must(err)
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	r.must(errors.Join(err, c.Close()))
	d := wav.NewDecoder(bytes.NewReader(b))
	buf, err := d.FullPCMBuffer()
	r.must(err)
	if d.SampleRate != 8000 || d.NumChans != 2 || d.BitDepth != 16 {
		r.t.Fatalf("WAV of %d Hz, %d channels, %d bits", d.SampleRate, d.NumChans, d.BitDepth)
	}
	pcm := make([]int16, len(buf.Data))
	for i, v := range buf.Data {
		pcm[i] = int16(v)
	}
	return pbxtest.Lanes(pcm)
}

// announcement is the statutory recording as samples.
func announcement(t *testing.T) []int16 {
	t.Helper()
	a, err := ordinance.Statutory()
	if err != nil {
		t.Fatal(err)
	}
	buf, err := wav.NewDecoder(bytes.NewReader(a.WAV)).FullPCMBuffer()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]int16, len(buf.Data))
	for i, v := range buf.Data {
		out[i] = int16(v)
	}
	return out
}

// hears asserts that samples hold a tone and none of the others.
func hears(t *testing.T, who string, samples []int16, want float64, not ...float64) {
	t.Helper()
	if !pbxtest.HasTone(samples, want) {
		t.Errorf("%s does not hear %.0f Hz (%d samples, level %.0f dBFS)", who, want, len(samples), pbxtest.Level(samples))
	}
	for _, hz := range not {
		if p := pbxtest.Power(samples, hz); p > -50 {
			t.Errorf("%s hears %.0f Hz at %.0f dBFS", who, hz, p)
		}
	}
}

func hasLine(lines []string, want string) bool { return slices.Contains(lines, want) }
