package pbx

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"centralka/media"
	"centralka/store"
)

// counters are what the switch counts since it started.
type counters struct {
	panics atomic.Int64

	mu     sync.Mutex
	began  map[store.CallDirection]int64
	causes map[store.Cause]int64
	heard  MOSCounts
	told   MOSCounts
}

func (n *counters) begun(d store.CallDirection) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.began == nil {
		n.began = map[store.CallDirection]int64{}
	}
	n.began[d]++
}

func (n *counters) ended(c store.Cause) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.causes == nil {
		n.causes = map[store.Cause]int64{}
	}
	n.causes[c]++
}

// Status is a picture of the switch for administrators. It holds no number and
// no name of a person.
type Status struct {
	NotReady     []string
	Draining     bool
	Announcement AnnouncementStatus
	Trunks       []TrunkStatus
	Phones       []PhoneStatus
	Calls        []CallStatus
	Queues       []QueueStatus
	Began        map[store.CallDirection]int64 // since start
	Causes       map[store.Cause]int64         // since start
	Panics       int64
	Guard        map[string]uint64 // datagrams and requests refused, by reason
	Engine       media.EngineStats
	Lateness     media.Lateness
	TooLate      bool      // calls are refused for it
	Heard, Told  MOSCounts // of legs that have ended since the start
	Certificate  CertificateStatus
	Streams      map[string]int // connections by transport
}

// CertificateStatus describes our certificate for SIP.
type CertificateStatus struct {
	Until time.Time // zero: there is none
	Err   string    // why its files as they are now are not in force
}

// AnnouncementStatus describes the announcement in force.
type AnnouncementStatus struct {
	Version     string
	TextSHA256  string
	AudioSHA256 string
	Duration    time.Duration
	TooShort    bool
	Err         string
}

// TrunkStatus describes a trunk.
type TrunkStatus struct {
	Name       string
	Up         bool
	Calls      int
	MaxCalls   int
	LastSeen   time.Time
	Registered time.Time // until when; zero if it does not register
	Err        string
}

// PhoneStatus describes an extension.
type PhoneStatus struct {
	Extension string
	Devices   int // that can be reached
	Calls     int
	Agent     bool
}

// CallStatus describes a call that is not over.
type CallStatus struct {
	ID        store.ID
	Direction store.CallDirection
	Phase     string
	Began     time.Time
	Since     time.Time // in this phase
	Queued    time.Time // entered the queue; zero if it never did
	Trunk     string
	Queue     string
	Extension string
	Recorded  bool
	Held      bool
	// MOS is the worst estimate of what is heard of a party now; 0: nothing yet.
	MOS    float64
	Voices []VoiceStatus // of the parties whose voice is agreed

	streams []media.Stream
}

// VoiceStatus is how one party of a call speaks.
type VoiceStatus struct {
	Party string // the trunk or the extension
	SRTP  string // the suite; empty: in the clear
}

// QueueStatus describes a queue.
type QueueStatus struct {
	Name    string
	Open    bool
	Waiting int
	Longest time.Duration // the longest wait now
	// Expected is what whoever comes now will wait, guessed from the last answers;
	// zero if nothing can be said.
	Expected time.Duration
}

// publish puts the call's present state where Status finds it.
func (c *call) publish() {
	old := c.status.Load()
	st := CallStatus{
		ID: c.rec.ID, Direction: c.rec.Direction, Phase: c.phase, Began: c.rec.Began, Since: time.Now(), Queued: c.rec.Queued,
		Trunk: c.rec.Trunk, Queue: c.rec.Queue, Extension: c.lastExtension(), Recorded: c.recording != nil, Held: c.holder != nil,
	}
	for _, l := range []*leg{c.a, c.b} {
		if l == nil || l.stream == nil || !l.neg.settled() {
			continue
		}
		v := VoiceStatus{Party: l.ext}
		if l.trunk != nil {
			v.Party = l.trunk.cfg.Name
		}
		if l.neg.encrypted() {
			v.SRTP = l.params.SendKey.Suite().String()
		}
		st.Voices = append(st.Voices, v)
	}
	if c.over {
		st.Phase = phaseEnding
	}
	for _, l := range c.legs {
		if l.stream != nil && l.state == legUp {
			st.streams = append(st.streams, l.stream)
		}
	}
	if old != nil && old.Phase == st.Phase {
		st.Since = old.Since
	}
	c.status.Store(&st)
	c.publishLamps()
}

// Status takes the picture.
func (s *Switch) Status() Status {
	live := s.config()
	st := Status{
		NotReady: s.NotReady(), Draining: s.draining.Load(), Panics: s.counts.panics.Load(),
		Guard: s.guard.counts(), Engine: s.engine.Stats(), Lateness: s.engine.Lateness(), TooLate: s.late(),
		Began: map[store.CallDirection]int64{}, Causes: map[store.Cause]int64{},
	}
	if a := live.announcements[""]; a != nil {
		st.Announcement = AnnouncementStatus{Version: a.version, TextSHA256: a.textSHA256, AudioSHA256: a.audioSHA256, Duration: a.prompt.Duration(), TooShort: a.short}
	}
	if live.audioErr != nil {
		st.Announcement.Err = live.audioErr.Error()
	}
	st.Streams = s.end.flows.count()
	var err error
	if st.Certificate.Until, err = s.end.certs.until(); err != nil {
		st.Certificate.Err = err.Error()
	}
	s.counts.mu.Lock()
	for d, n := range s.counts.began {
		st.Began[d] = n
	}
	for c, n := range s.counts.causes {
		st.Causes[c] = n
	}
	st.Heard, st.Told = s.counts.heard, s.counts.told
	s.counts.mu.Unlock()

	for _, c := range s.snapshotCalls() {
		if cs := c.status.Load(); cs != nil && cs.Phase != phaseEnding {
			st.Calls = append(st.Calls, *cs)
		}
	}
	judge(st.Calls)
	sort.Slice(st.Calls, func(i, j int) bool { return st.Calls[i].Began.Before(st.Calls[j].Began) })

	s.mu.Lock()
	trunks := append([]*runningTrunk(nil), s.trunks...)
	queues := make([]*queue, 0, len(s.queues))
	for _, q := range s.queues {
		queues = append(queues, q.queue)
	}
	s.mu.Unlock()
	for _, t := range trunks {
		st.Trunks = append(st.Trunks, t.status())
	}
	now := time.Now()
	for _, q := range queues {
		cfg := q.config()
		qs := QueueStatus{Name: cfg.Name, Open: s.line(cfg).Open(now)}
		for _, c := range st.Calls {
			if c.Queue == cfg.Name && (c.Phase == phaseQueued || c.Phase == phaseRinging) {
				qs.Waiting++
				qs.Longest = max(qs.Longest, now.Sub(c.Queued))
			}
		}
		qs.Expected, _ = q.expect(qs.Waiting + 1)
		st.Queues = append(st.Queues, qs)
	}
	sort.Slice(st.Queues, func(i, j int) bool { return st.Queues[i].Name < st.Queues[j].Name })
	for ext, cfg := range live.extensions {
		st.Phones = append(st.Phones, PhoneStatus{Extension: ext, Devices: len(s.registrar.reachable(ext)), Calls: s.lines.busy(ext), Agent: cfg.Agent})
	}
	sort.Slice(st.Phones, func(i, j int) bool { return st.Phones[i].Extension < st.Phones[j].Extension })
	return st
}

func (t *trunk) status() TrunkStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := TrunkStatus{Name: t.cfg.Name, Calls: int(t.calls.Load()), MaxCalls: t.cfg.MaxCalls}
	for _, g := range t.targets {
		st.Up = st.Up || g.up
		if g.lastSeen.After(st.LastSeen) {
			st.LastSeen = g.lastSeen
		}
		if g.err != nil && st.Err == "" {
			st.Err = fmt.Sprintf("%v: %v", g.hop.remote, g.err)
		}
	}
	if t.cfg.Register {
		st.Registered = t.registered
	}
	if t.err != nil {
		st.Err = t.err.Error()
	}
	return st
}
