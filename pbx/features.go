package pbx

import (
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/desk"
	"centralka/media"
	"centralka/store"
)

// feature is what a phone can ask of the switch by dialling a code. It is
// answered, confirmed by beeps, and ended by us.
type feature struct {
	agent bool // only for agents
	apply func(s *Switch, ext string)
	beeps []float64 // Hz: rising for yes, falling for no
}

// features are the codes, next to those of pickup.go. The agent's ones do what
// the console's buttons do.
var features = map[string]feature{
	"*21":  {true, func(s *Switch, ext string) { s.pool.SetReady(desk.AgentID(ext)) }, rising},
	"*22":  away("said"),
	"*221": away("break"),
	"*222": away("meeting"),
	"*223": away("training"),
	"*23":  away("pause"),
	"*24":  {false, func(s *Switch, ext string) { s.setQuiet(ext, true) }, falling},
	"*25":  {false, func(s *Switch, ext string) { s.setQuiet(ext, false) }, rising},
	"*26":  {true, func(s *Switch, ext string) { s.pool.EndWrapUp(desk.AgentID(ext)) }, rising},
	"*27":  {true, func(s *Switch, ext string) { s.pool.ExtendWrapUp(desk.AgentID(ext), moreWrapUp) }, falling},
}

// moreWrapUp is what *27 adds to a rest.
const moreWrapUp = time.Minute

var rising, falling = []float64{660, 880}, []float64{880, 660}

func away(reason string) feature {
	return feature{true, func(s *Switch, ext string) { s.pool.SetAway(desk.AgentID(ext), reason) }, falling}
}

func featureOf(dialled string) (feature, bool) {
	if d, err := url.PathUnescape(dialled); err == nil {
		dialled = d
	}
	f, ok := features[dialled]
	return f, ok
}

// quiet is the extensions that do not want to be disturbed; the scribe keeps
// them over a restart. It is safe for concurrent use.
type quiet struct {
	mu sync.Mutex
	on map[string]bool
}

func newQuiet() *quiet { return &quiet{on: map[string]bool{}} }

func (q *quiet) set(ext string, on bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if on {
		q.on[ext] = true
	} else {
		delete(q.on, ext)
	}
}

func (q *quiet) has(ext string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.on[ext]
}

func (s *Switch) setQuiet(ext string, on bool) {
	s.quiet.set(ext, on)
	s.scribe.put(ext)
}

// keep writes what the vault keeps of ext: its bindings, and what its user wants.
func (s *Switch) keep(ext string) error {
	err := s.registrar.save(ext)
	now := store.PhoneState{Quiet: s.quiet.has(ext), Away: s.pool.Wish(desk.AgentID(ext))}
	if s.kept[ext] == now {
		return err
	}
	if failed := s.store.PutPhone(ext, now); failed != nil {
		return errors.Join(err, failed)
	}
	s.kept[ext] = now
	return err
}

// recall takes over what the users of the extensions wanted when the switch
// stopped.
func (s *Switch) recall() error {
	saved, err := s.store.Phones()
	if err != nil {
		return err
	}
	s.kept = saved
	for ext, p := range saved {
		if !s.isExtension(ext) {
			continue
		}
		s.quiet.set(ext, p.Quiet)
		s.pool.Recall(desk.AgentID(ext), p.Away)
	}
	return nil
}

// engaged reports whether ext takes no call more: it does not want to be
// disturbed, or it is in as many calls as its max_calls allows, c not counted.
func (s *Switch) engaged(ext string, c *call) bool {
	most := s.extension(ext).MaxCalls
	return s.quiet.has(ext) || most > 0 && s.lines.calls(ext, c) >= most
}

// featured is the script of a call to a feature code.
type featured struct {
	*call
	silentScript
	feature feature
	beeps   media.PlayID
}

func (s *Switch) acceptFeature(req *sip.Request, tx *sip.ServerTx, ext string, h hop, f feature) {
	c := s.newCall(store.CallRecord{
		Direction: store.Internal, Extension: ext,
		Caller: store.Party{Raw: ext, Source: "From", Presentation: "allowed"},
	})
	sc := &featured{call: c, feature: f}
	c.script = sc
	a := c.newLeg("a")
	a.ext = ext
	c.a = a
	s.begin(c, a, req, tx, h, true, sc.start)
}

func (c *featured) start() {
	c.phase = phaseSetup
	c.save()
	c.s.lines.add(c.a)
	if c.feature.agent && !c.s.extension(c.a.ext).Agent {
		c.call.end(store.CauseForbidden, nil)
		return
	}
	if status := c.a.accept(); status != 0 {
		c.rec.SIPStatus = status
		c.call.end(store.CauseNotAcceptable, nil)
		return
	}
	c.feature.apply(c.s, c.a.ext)
}

func (c *featured) confirmed(l *leg) {
	c.beeps = l.stream.Play(beeps(c.feature.beeps), false)
}

func (c *featured) played(_ *leg, p media.Played) {
	if c.beeps != 0 && p.Play == c.beeps {
		c.call.end(store.CauseHangupCalled, nil)
	}
}

func (c *featured) noAck(*leg)           { c.call.end(store.CauseNoAck, nil) }
func (c *featured) hungUp(l *leg, _ int) { c.call.end(store.CauseHangupCaller, l) }
func (c *featured) cancelled(l *leg)     { c.call.end(store.CauseCancelled, l) }
func (c *featured) mediaFailed(*leg)     { c.call.end(store.CauseNotAcceptable, nil) }
func (c *featured) mediaTimedOut(*leg)   { c.call.end(store.CauseMediaTimeout, nil) }
