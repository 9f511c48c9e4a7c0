package pbx_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// How long a day TestDay has, and what is drawn for it. `make sim` asks for 24
// hours and another seed each time; a seed fixes what the city does, not the
// order in which goroutines run, so a failure may need several runs.
var (
	simLength = flag.Duration("sim.length", 3*time.Minute, "simulated time of TestDay")
	simSeed   = flag.Uint64("sim.seed", 284, "seed of TestDay")
)

// TestDay is a busy day of the contact centre in one bubble: callers of all
// kinds, agents who hold, pass on, pick up, go away and come back, phones that
// restart, carriers that fail, a network that loses, repeats and reorders,
// configurations that are reloaded, sessions of 90 s. What holds at its end:
//
//   - no call, dialog, stream, port, journal, subscription or reservation is
//     left, and no peer thinks that it is in a call;
//   - every call that was placed has one record, with one cause and one outcome;
//   - the announcement ended before a phone rang and before anything was recorded
//     (S1.4-c);
//   - each answered call across a trunk has one file as long as its conversation,
//     and there is no other file.
//
// No goroutine is left, or the bubble would not end.
func TestDay(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102", "103", "104", "105", "106")
	cfg.RTP.Timeout = 0 // voices are limited
	cfg.SIP.OptionsInterval = time.Minute
	cfg.Dial.MaxOutgoingPerExtension = 1
	cfg.Queues[0].Members = cfg.Queues[0].Members[:5]
	cfg.Queues[0].RingTimeout = 5 * time.Second
	cfg.Queues[0].MaxWait = 25 * time.Second
	cfg.Queues[0].MaxLength = 6
	cfg.Queues[0].WrapUp = 2 * time.Second
	cfg.Queues[0].AutoAwayAfter = 4
	second := cfg.Trunks[0]
	second.Name, second.Server = "second", secondAddr.String()
	second.From = []pbx.Source{{Prefix: netip.PrefixFrom(secondAddr.Addr(), 32)}}
	cfg.Trunks = append(cfg.Trunks, second)
	t.Logf("%v with -sim.seed %d", *simLength, *simSeed)
	scenario(t, cfg, func(t *testing.T, r *rig) {
		newCity(r, cfg, *simLength, *simSeed).day()
	}, func(r *rig) { r.forget = true })
}

var secondAddr = netip.MustParseAddrPort("198.51.100.2:5060")

// city is what goes on around the switch until a time.
type city struct {
	r        *rig
	cfg      pbx.Config
	length   time.Duration
	began    time.Time
	ends     time.Time
	realtime time.Time
	seed     uint64
	carriers []*pbxtest.Peer
	actors   sync.WaitGroup

	mu      sync.Mutex
	devices map[string]*pbxtest.Phone // the ones that are switched on
	retired []*pbxtest.Phone          // and those that were
	rng     *rand.Rand                // of behaviours, which peers ask for
	failing int                       // status with which the first carrier refuses; -1: silent
	did     map[string]int
	fromOut int // calls that carriers have placed
}

func newCity(r *rig, cfg pbx.Config, length time.Duration, seed uint64) *city {
	s := &city{r: r, cfg: cfg, length: length, began: time.Now(), ends: time.Now().Add(length), realtime: wallClock(), seed: seed,
		devices: map[string]*pbxtest.Phone{}, rng: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{}}
	second := r.peer("second", pbxtest.PeerConfig{Addr: secondAddr, Voice: pbxtest.Voice{Say: pbxtest.Tone(callerHz)}, Forget: true})
	s.carriers = []*pbxtest.Peer{r.carrier.Peer, second.Peer}
	for i, c := range s.carriers {
		c.SetBehaviour(func(m *pbxtest.Message) pbxtest.Behaviour { return s.farEnd(i, m) })
	}
	for _, e := range cfg.Extensions {
		p := r.phones[e.Number]
		delete(r.phones, e.Number) // the city closes them
		s.devices[e.Number] = p
		p.SetBehaviour(s.desk)
	}
	return s
}

// wallClock is the time outside of the bubble.
func wallClock() time.Time {
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		return time.Time{}
	}
	return time.Unix(tv.Unix())
}

// day lets the city live and judges what it leaves.
func (s *city) day() {
	r := s.r
	r.net.OnPacket(nil) // the ladder of a day is long
	r.net.Impair(pbxtest.Any, pbxtest.Any, pbxtest.Impairment{Loss: 0.02, Duplicate: 0.02, Reorder: 0.01, Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond})
	s.live()
	s.actors.Wait()
	r.net.Impair(pbxtest.Any, pbxtest.Any, pbxtest.Impairment{})
	r.net.Drop(nil)
	for range 2 { // what still rang at closing time
		for _, p := range s.peers() {
			for c, err := p.WaitCall(0); err == nil; c, err = p.WaitCall(0) {
				c.Hangup()
			}
		}
		time.Sleep(time.Minute)
	}
	for _, p := range s.peers() {
		if n := p.Calls(); n != 0 {
			r.t.Errorf("%s thinks that it is in %d calls", p.Name(), n)
		}
	}
	recs := r.records()
	s.ledger(recs)
	s.nothingLeft()
	time.Sleep(7 * time.Minute) // the last transactions, and lamps that nobody put out
	s.close()
	if r.t.Failed() {
		r.t.Logf("run it again with -sim.length %v -sim.seed %d", s.length, s.seed)
	}
}

func (s *city) peers() []*pbxtest.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	peers := slices.Clone(s.carriers)
	for _, ext := range slices.Sorted(maps.Keys(s.devices)) {
		peers = append(peers, s.devices[ext].Peer)
	}
	return peers
}

// close ends the phones and reports what they complained of.
func (s *city) close() {
	for _, p := range s.devices {
		s.r.must(p.Close())
		s.retired = append(s.retired, p)
	}
	for _, p := range s.retired {
		for _, v := range p.Violations() {
			if !excused(v) {
				s.r.t.Errorf("%s: %s", p.Name(), v)
			}
		}
	}
}

// excused reports whether a phone complains of what it has forgotten itself when
// it was switched off, or of a NOTIFY that another has overtaken on the way.
func excused(violation string) bool {
	for _, of := range []string{"in a dialog that does not exist", "belongs to no request of ours", "for no INVITE", "NOTIFY has CSeq"} {
		if strings.Contains(violation, of) {
			return true
		}
	}
	return false
}

// nothingLeft asserts that a switch without calls holds nothing of them.
func (s *city) nothingLeft() {
	r := s.r
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		st := r.rec.Status()
		if st.Active == 0 && st.Rendering == 0 {
			break
		}
		if time.Now().After(deadline) {
			r.t.Errorf("the recorder still has %d conversations and %d to render", st.Active, st.Rendering)
			break
		}
	}
	if st := r.rec.Status(); st.Alarm || st.Overflowed+st.Unwritten+st.WriteFails != 0 {
		r.t.Errorf("the recorder: %+v", st)
	}
	journals, err := r.store.Journals()
	r.must(err)
	if len(journals) != 0 {
		r.t.Errorf("%d journals are left", len(journals))
	}
	for _, a := range r.pool.Snapshot() {
		if a.State != desk.Ready && a.State != desk.Away {
			r.t.Errorf("agent %s is %v", a.ID, a.State)
		}
	}
	st := r.sw.Status()
	if n := st.Engine.Streams; n != 0 {
		r.t.Errorf("%d streams are left", n)
	}
	for _, trunk := range st.Trunks {
		if trunk.Calls != 0 {
			r.t.Errorf("trunk %s counts %d calls", trunk.Name, trunk.Calls)
		}
	}
	for _, phone := range st.Phones {
		if phone.Calls != 0 {
			r.t.Errorf("phone %s counts %d calls", phone.Extension, phone.Calls)
		}
	}
	time.Sleep(2 * time.Second) // until a port may be used again
	for _, addr := range r.net.Bound(switchAddr.Addr()) {
		if addr != switchAddr {
			r.t.Errorf("port %d is left open", addr.Port())
		}
	}
}

// ledger holds the records against the calls that were placed, and against the
// recordings that there are.
func (s *city) ledger(recs []store.CallRecord) {
	t := s.r.t
	directions, causes, outcomes := map[store.CallDirection]int{}, map[store.Cause]int{}, map[store.Outcome]int{}
	var talked time.Duration
	moved, held := 0, 0
	for _, rec := range recs {
		directions[rec.Direction]++
		causes[rec.Cause]++
		outcomes[rec.Recording.Outcome]++
		s.announced(rec)
		if d := s.recording(rec); d > 0 {
			talked += d
			moved += min(1, len(rec.Segments)-1)
			held += min(1, len(rec.Holds))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d calls %v, causes %v, outcomes %v; %v recorded, of these %d passed on, %d held; done %v", len(recs), directions, causes, outcomes,
		talked.Round(time.Second), moved, held, s.did)
	if directions[store.Incoming] != s.fromOut {
		t.Errorf("%d records of %d calls that carriers have placed", directions[store.Incoming], s.fromOut)
	}
	if outcomes[store.OutcomeOK] == 0 || outcomes[store.OutcomeFailed] != 0 || causes[store.CauseAbandoned] == 0 || moved == 0 || held == 0 {
		t.Errorf("the day was not mixed enough, or recordings failed")
	}
}

// announced asserts that the announcement came first.
func (s *city) announced(rec store.CallRecord) {
	t := s.r.t
	if rec.Cause == "" || rec.Recording.Outcome == "" || rec.Ended.Before(rec.Began) {
		t.Errorf("record %+v", rec)
	}
	if rec.Direction != store.Incoming {
		return
	}
	a := rec.Announcement
	if a == nil || !a.Complete {
		if len(rec.Rings) > 0 || !rec.Queued.IsZero() || rec.Recording.Outcome != store.OutcomeNone {
			t.Errorf("not announced, yet %+v", rec)
		}
		return
	}
	for _, ring := range rec.Rings {
		if ring.From.Before(a.Ended) || ring.Result == "" || ring.To.Before(ring.From) {
			t.Errorf("announced until %v, ring %+v", a.Ended, ring)
		}
	}
	if began := rec.Recording.Began; !began.IsZero() && began.Before(a.Ended) || rec.Ended.Before(a.Ended) {
		t.Errorf("announced until %v, recorded from %v", a.Ended, began)
	}
}

// recording asserts that there is a file if and only if there ought to be one,
// and returns its length.
func (s *city) recording(rec store.CallRecord) time.Duration {
	t, got := s.r.t, rec.Recording
	file, err := s.r.store.OpenRecording(rec.Day, rec.ID)
	if err == nil {
		if size := file.Size(); size != got.Size {
			t.Errorf("a file of %d bytes, its record says %d", size, got.Size)
		}
		s.r.must(file.Close())
	}
	if due := !rec.Answered.IsZero() && rec.Direction != store.Internal; due != (err == nil) || due != (got.Outcome != store.OutcomeNone) {
		t.Errorf("answered %v, %s, outcome %q (%s), file %v", rec.Answered, rec.Direction, got.Outcome, got.Reason, err)
		return 0
	}
	if err != nil {
		if got.Reason == "" || got.Size != 0 {
			t.Errorf("no file, and the record says %+v", got)
		}
		return 0
	}
	talk := rec.Ended.Sub(got.Began) // an internal call may have been passed on to outside
	if late := got.Began.Sub(rec.Answered); (got.Duration-talk).Abs() > 40*time.Millisecond || rec.Direction == store.Incoming && late > 40*time.Millisecond {
		got.Peaks = [2][]byte{}
		t.Errorf("answered %v, ended %v, a file of %v: %+v", rec.Answered, rec.Ended, got.Duration, got)
	}
	if got.Outcome == store.OutcomeDegraded && got.Counts.Lost == [2]uint64{} {
		t.Errorf("degraded for no reason: %+v", got)
	}
	for i, seg := range rec.Segments {
		if seg.To.Before(seg.From) || i > 0 && seg.From.Before(rec.Segments[i-1].To) || seg.To.After(rec.Ended) {
			t.Errorf("segments overlap or are open: %+v", rec.Segments)
		}
	}
	return got.Duration
}

// progress tells how far a long day is.
func (s *city) progress() {
	step := time.Hour
	for s.sleep(step) {
		s.mu.Lock()
		placed := s.fromOut
		s.mu.Unlock()
		st := s.r.sw.Status()
		s.r.t.Logf("%v of %v simulated, %v passed: %d calls from outside, %d up, %d recorded, %d waiting", time.Since(s.began).Round(time.Minute), s.length,
			wallClock().Sub(s.realtime).Round(time.Second), placed, len(st.Calls), s.r.rec.Status().Outcomes[store.OutcomeOK], st.Queues[0].Waiting)
	}
}

// reloads hands the switch another configuration now and then.
func (s *city) reloads(rng *rand.Rand) {
	for s.sleep(s.every(rng, 15*time.Minute)) {
		cfg := s.cfg
		cfg.Numbers = append(slices.Clone(cfg.Numbers), pbx.NumberConfig{Match: fmt.Sprintf("+4891424%04d", rng.IntN(4000)), Target: "queue:cim"})
		cfg.Queues = slices.Clone(cfg.Queues)
		cfg.Queues[0].Members = slices.Clone(cfg.Queues[0].Members)
		rng.Shuffle(5, func(i, j int) { m := cfg.Queues[0].Members; m[i], m[j] = m[j], m[i] })
		restart, err := s.r.sw.Reload(cfg)
		s.r.must(errors.Join(err))
		if len(restart) != 0 {
			s.r.t.Errorf("a restart is wanted for %v", restart)
		}
		s.count("reload")
	}
}

// faults makes the first carrier fail for some minutes, or the whole network for
// some seconds.
func (s *city) faults(rng *rand.Rand) {
	for s.sleep(s.every(rng, 12*time.Minute)) {
		if rng.IntN(4) == 0 {
			s.count("outage of the network")
			s.r.net.Drop(func(_, _ netip.AddrPort, _ []byte) bool { return true })
			time.Sleep(time.Duration(1+rng.IntN(6)) * time.Second)
			s.r.net.Drop(nil)
			continue
		}
		s.count("failure of a carrier")
		s.setFailing([]int{503, 500, 408, -1}[rng.IntN(4)])
		s.sleep(s.every(rng, 3*time.Minute))
		s.setFailing(0)
	}
}

func (s *city) setFailing(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = status
}

// restarts switches phones off without a goodbye, and on again.
func (s *city) restarts(rng *rand.Rand) {
	for s.sleep(s.every(rng, 20*time.Minute)) {
		i := rng.IntN(len(s.cfg.Extensions))
		e := s.cfg.Extensions[i]
		s.mu.Lock()
		old := s.devices[e.Number]
		delete(s.devices, e.Number)
		s.retired = append(s.retired, old)
		s.mu.Unlock()
		s.r.must(old.Close())
		time.Sleep(time.Duration(2+rng.IntN(20)) * time.Second)
		p, err := pbxtest.NewPhone(pbxtest.PeerConfig{
			Name: e.Number, Password: s.cfg.Secrets.Extensions[e.Number], Listen: s.r.net.Listen, Addr: phoneAddr(i), Switch: switchAddr, Seed: rng.Uint64(),
			Behave: s.desk, Forget: true,
		})
		s.r.must(err)
		s.r.must(p.Register(s.r.t.Context()))
		s.mu.Lock()
		s.devices[e.Number] = p
		s.mu.Unlock()
		s.count("restart of a phone")
	}
}
