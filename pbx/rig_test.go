package pbx_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	switchAddr6 = netip.MustParseAddrPort("[2001:db8::10]:5060")
	carrier6    = netip.MustParseAddrPort("[2001:db8:1::1]:5060")
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
	t        *testing.T
	net      *pbxtest.Net
	ladder   *pbxtest.Ladder
	sw       *pbx.Switch
	store    *store.Store
	rec      *recorder.Recorder
	pool     *desk.Pool
	carrier  *pbxtest.Carrier
	phones   map[string]*pbxtest.Phone
	log      *lockedBuffer
	dir      string       // of the vault
	resolver pbx.Resolver // of the trunks' servers; nil: the system's
	// carrierBy and phonesBy are the peers' transports, "tcp" or "tls"; carrierKeys
	// and phoneKeys are for TLS.
	carrierBy, phonesBy     string
	families                bool                // voice by IPv6 as well, by which the carrier comes
	adapt                   []func(*pbx.Config) // what depends on the rig
	large                   bool                // phones take requests of any size over UDP
	carrierKeys, phonesKeys *tls.Config
	before                  int64 // records that were there when the switch was started (again)
	stop                    func()
	lenient                 bool // the peers break rules themselves: what they complain of says nothing
	wrap                    func(media.Engine) media.Engine
	prepare                 func(*pbx.Switch) // may change the switch before it runs
	forget                  bool              // peers keep no log: a long simulation
}

// scenario runs f against a running switch in a bubble of its own, and then
// fails on what peers complained of and on what was left over.
//
// Each edit may change the rig before the switch starts.
func scenario(t *testing.T, cfg pbx.Config, f func(t *testing.T, r *rig), edits ...func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cfg, edits...)
		defer r.finish()
		f(t, r)
	})
}

// briefCity is cityConfig with an announcement of one second, for scenarios
// that are not about it.
func briefCity(t *testing.T, phones ...string) pbx.Config {
	t.Helper()
	cfg := cityConfig(phones...)
	cfg.Announcement.File, cfg.Announcement.SHA256 = writeWAV(t, briefWords())
	return cfg
}

// briefWords is the announcement of briefCity.
func briefWords() []int16 { return pbxtest.Chirp(pbxtest.Rate, 1500, 3000) }

// writeWAV writes a mono WAV of 8 kHz and returns its path and hash.
func writeWAV(t *testing.T, pcm []int16) (path, hash string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "announcement.wav")
	return path, writeWAVAt(t, path, pcm)
}

// writeWAVAt is writeWAV at a path of one's own.
func writeWAVAt(t testing.TB, path string, pcm []int16) (hash string) {
	t.Helper()
	b := wavOf(pcm)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

func wavOf(pcm []int16) []byte {
	var b bytes.Buffer
	n := uint32(2 * len(pcm))
	for _, v := range []any{[]byte("RIFF"), 36 + n, []byte("WAVEfmt "), uint32(16), uint16(1), uint16(1), uint32(8000), uint32(16000),
		uint16(2), uint16(16), []byte("data"), n, pcm} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err) // a bytes.Buffer takes everything
		}
	}
	return b.Bytes()
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
func newRig(t *testing.T, cfg pbx.Config, edits ...func(r *rig)) *rig {
	t.Helper()
	r := &rig{t: t, net: pbxtest.NewNet(1), ladder: pbxtest.NewLadder(), phones: map[string]*pbxtest.Phone{}, log: &lockedBuffer{}}
	r.net.OnPacket(r.ladder.Tap)
	r.ladder.Name(switchAddr, "switch")
	r.ladder.Name(carrierAddr, "carrier")
	r.dir = vaultDir(t)
	for _, edit := range edits {
		edit(r)
	}
	for _, adapt := range r.adapt {
		adapt(&cfg)
	}
	r.startSwitch(cfg, r.dir)
	var err error
	at, listener := carrierAddr, listenerOf(r.carrierBy)
	if r.families {
		at, listener = carrier6, switchAddr6
		r.ladder.Name(switchAddr6, "switch")
		r.ladder.Name(carrier6, "carrier")
	}
	r.carrier, err = pbxtest.NewCarrier(pbxtest.PeerConfig{
		Name: "carrier", Listen: r.net.Listen, Addr: at, Switch: listener, Seed: 7,
		Transport: r.carrierBy, Streams: r.net.Streamers(), TLS: r.carrierKeys,
		Voice: pbxtest.Voice{Say: pbxtest.Tone(callerHz)}, Forget: r.forget,
	})
	r.must(err)
	for i, e := range cfg.Extensions {
		addr := phoneAddr(i)
		r.ladder.Name(addr, e.Number)
		p, err := pbxtest.NewPhone(pbxtest.PeerConfig{
			Name: e.Number, Password: cfg.Secrets.Extensions[e.Number], Listen: r.net.Listen, Addr: addr, Switch: listenerOf(r.phonesBy), Seed: uint64(100 + i),
			Voice:  pbxtest.Voice{Say: pbxtest.Tone(phoneHz + 30*i)},
			Behave: pbxtest.Always(pbxtest.AnswerAfter(3 * time.Second)), Forget: r.forget,
			Large: r.large, Transport: r.phonesBy, Streams: r.net.Streamers(), TLS: r.phonesKeys,
		})
		r.must(err)
		r.phones[e.Number] = p
		r.must(p.Register(t.Context()))
	}
	return r
}

// listenerOf is where the switch takes a transport.
func listenerOf(transport string) netip.AddrPort {
	if transport == "tls" {
		return netip.AddrPortFrom(switchAddr.Addr(), 5061)
	}
	return switchAddr
}

// vaultDir is in memory where the system offers that: a bubble's clock stands
// still while a disk syncs, which is what scenarios would spend their time on.
func vaultDir(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "scenario")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// phoneAddr is where the phone of the i-th extension is.
func phoneAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)}), 5060)
}

func (r *rig) startSwitch(cfg pbx.Config, dir string) {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	st, err := store.Open(store.Config{Dir: dir, Log: log})
	r.must(err)
	r.store = st
	r.rec = recorder.New(recorder.Config{Store: st, Log: log})
	r.pool = desk.NewPool(log)
	bind, listen := switchAddr.Addr(), func(a netip.AddrPort) (media.Conn, error) { return r.net.ListenPacket(a) }
	if r.families {
		bind = netip.IPv6Unspecified()
		listen = func(a netip.AddrPort) (media.Conn, error) {
			return r.net.ListenBoth(switchAddr.Addr(), switchAddr6.Addr(), a.Port())
		}
	}
	engine, err := media.NewPortable(media.PortableConfig{
		Listen: listen,
		Addr:   bind, PortMin: cfg.RTP.Ports.First, PortMax: cfg.RTP.Ports.Last, Drain: time.Second, Timeout: cfg.RTP.Timeout, CNAME: "centralka", Log: log,
	})
	r.must(err)
	if r.wrap != nil {
		engine = r.wrap(engine)
	}
	r.sw, err = pbx.New(cfg, pbx.Parts{
		Store: st, Recorder: r.rec, Engine: engine, Pool: r.pool, Log: log, Resolver: r.resolver,
		ListenPacket: func(a netip.AddrPort) (net.PacketConn, error) { return r.net.ListenPacket(a) },
		ListenStream: r.net.ListenStream, DialStream: r.net.DialStream,
	})
	r.must(err)
	if r.prepare != nil {
		r.prepare(r.sw)
	}
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
			if r.lenient {
				break
			}
			r.t.Errorf("%s: %s", p.Name(), v)
		}
	}
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
	if left := r.sw.Leftovers(); left != "" {
		r.t.Errorf("left over: %s", left)
	}
	if n := r.sw.Status().Panics; n != 0 {
		r.t.Errorf("%d panics", n)
	}
	for _, n := range []string{"600100200", "914245000"} {
		if strings.Contains(r.log.String(), n) {
			r.t.Errorf("the log holds a number:\n%s", r.log)
		}
	}
	if r.t.Failed() && testing.Verbose() {
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
	for range 1000 {
		var out []store.CallRecord
		open := 0
		for rec, err := range r.store.CallsByDay(ordinance.Day{}, ordinance.Day{}) {
			r.must(err)
			if rec.Cause == "" || rec.Recording.Outcome == "" {
				open++
			}
			out = append(out, rec)
		}
		var began int64
		for _, n := range r.sw.Status().Began {
			began += n
		}
		if open == 0 && r.sw.Calls() == 0 && int64(len(out)) == began+r.before {
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
	return samples(t, a.WAV)
}

// prompt is one of the messages that are embedded.
func prompt(t *testing.T, name string) []int16 {
	t.Helper()
	a, err := ordinance.Prompt(name)
	if err != nil {
		t.Fatal(err)
	}
	return samples(t, a.WAV)
}

func samples(t *testing.T, file []byte) []int16 {
	t.Helper()
	buf, err := wav.NewDecoder(bytes.NewReader(file)).FullPCMBuffer()
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

// device registers another phone for an extension, at 192.0.2.host.
func (r *rig) device(ext string, host byte) *pbxtest.Phone {
	r.t.Helper()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, host}), 5060)
	name := fmt.Sprintf("%s/%d", ext, host)
	r.ladder.Name(addr, name)
	p, err := pbxtest.NewPhone(pbxtest.PeerConfig{
		Name: name, User: ext, Username: ext, Password: "secret-" + ext, Listen: r.net.Listen, Addr: addr, Switch: switchAddr, Seed: uint64(host),
		Voice: pbxtest.Voice{Say: pbxtest.Tone(phoneHz)}, Behave: pbxtest.Always(pbxtest.AnswerAfter(3 * time.Second)),
	})
	r.must(err)
	r.phones[name] = p
	r.must(p.Register(r.t.Context()))
	return p
}

// otherCarrier is another peer at the carrier's address.
func (r *rig) otherCarrier(port uint16) *pbxtest.Phone {
	return r.peer(fmt.Sprintf("carrier:%d", port), pbxtest.PeerConfig{Addr: netip.AddrPortFrom(carrierAddr.Addr(), port), Voice: pbxtest.Voice{Say: pbxtest.Tone(callerHz)}})
}

// stranger is a peer at the foreign address.
func (r *rig) stranger(user, password string) *pbxtest.Phone {
	addr := netip.AddrPortFrom(foreignAddr.Addr(), uint16(5060+len(r.phones)))
	return r.peer("stranger:"+password, pbxtest.PeerConfig{Addr: addr, User: user, Username: user, Password: password})
}

func (r *rig) peer(name string, cfg pbxtest.PeerConfig) *pbxtest.Phone {
	r.t.Helper()
	cfg.Name, cfg.Listen, cfg.Switch, cfg.Seed = name, r.net.Listen, switchAddr, uint64(cfg.Addr.Port())
	r.ladder.Name(cfg.Addr, name)
	p, err := pbxtest.NewPhone(cfg)
	r.must(err)
	r.phones[name] = p
	return p
}

// behave makes a phone behave one way from now on.
func (r *rig) behave(phone string, b pbxtest.Behaviour) {
	r.phones[phone].SetBehaviour(pbxtest.Always(b))
}

// talk places a call from the trunk and waits until 101 has answered it.
func (r *rig) talk() (caller, agent *pbxtest.Call) {
	r.t.Helper()
	caller = r.call()
	agent = r.answeredBy("101")
	return caller, agent
}

// answeredBy waits until a phone has answered its next call.
func (r *rig) answeredBy(phone string) *pbxtest.Call {
	r.t.Helper()
	c, err := r.phones[phone].WaitCall(2 * time.Minute)
	r.must(err)
	r.must(c.WaitAnswered(time.Minute))
	time.Sleep(10 * time.Millisecond) // no human hangs up in the instant of the answer
	return c
}

// quiet asserts that a phone was never called.
func (r *rig) quiet(phone string) {
	r.t.Helper()
	for _, l := range r.ladder.Lines() {
		if l == "switch > "+phone+" INVITE" {
			r.t.Errorf("%s was called", phone)
			return
		}
	}
}

// count counts the ladder's lines that begin so.
func (r *rig) count(prefix string) int {
	n := 0
	for _, l := range r.ladder.Lines() {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// says asserts that the ladder holds these lines in this order, others between
// them or not.
func (r *rig) says(lines ...string) {
	r.t.Helper()
	at := 0
	for _, l := range r.ladder.Lines() {
		if at < len(lines) && strings.HasPrefix(l, lines[at]) {
			at++
		}
	}
	if at < len(lines) {
		r.t.Errorf("the ladder lacks %q (after %d others)\n%s", lines[at], at, r.ladder)
	}
}

// audioFiles lists what looks like voice anywhere in the vault.
func (r *rig) audioFiles() []string {
	r.t.Helper()
	var out []string
	r.must(filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		key := filepath.Base(filepath.Dir(path)) == "keys" // of the day
		if err == nil && !d.IsDir() && filepath.Ext(path) != ".db" && !key {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// today is the day of all scenarios: bubbles begin at midnight UTC.
func today() ordinance.Day { return ordinance.DayOf(time.Now()) }

// ended asserts how a record ended.
func ended(t *testing.T, rec store.CallRecord, cause store.Cause, outcome store.Outcome) {
	t.Helper()
	if rec.Cause != cause || rec.Recording.Outcome != outcome {
		t.Errorf("ended %q with recording %q (%s), want %q, %q", rec.Cause, rec.Recording.Outcome, rec.Recording.Reason, cause, outcome)
	}
}
