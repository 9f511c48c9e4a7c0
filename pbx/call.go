package pbx

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
	"centralka/ordinance"
	"centralka/recorder"
	"centralka/store"
)

// call is one call with all its legs. Everything in it is owned by the
// goroutine of run; others reach it by post.
type call struct {
	s      *Switch
	box    *mailbox[event] // shut when run returns
	script script
	rec    store.CallRecord
	legs   []*leg
	// expecting counts the parties that other calls have been asked for; each
	// comes, or word that it does not, and until then the call does not leave.
	expecting int

	// a is the leg that began the call; b the one it talks to, nil until then.
	a, b *leg
	// talking: a and b are bridged, or one of them holds the other.
	talking   bool
	recording *recorder.Recording // nil unless it is recorded
	citizen   *leg                // the recorded call's leg at the trunk
	holder    *leg                // who holds the other, as told to the recorder; nil: nobody
	over      bool                // the cause is set; only farewells remain
	phase     string              // for the status page
	status    atomic.Pointer[CallStatus]
	lamps     atomic.Pointer[[]lamp]
	traces    []legTrace // of every leg that was ever its; guarded by the mutex of ladders
}

// event is something that happened to a call; it is applied on the call's
// goroutine.
type event interface{ on(c *call) }

// script is what a kind of call does when something happens to one of its legs.
type script interface {
	confirmed(l *leg)                     // the ACK of our 2xx came
	noAck(l *leg)                         // it never did
	ringing(l *leg, status int, sdp bool) // a provisional response
	answered(l *leg)                      // a 2xx with a usable answer
	failed(l *leg, status, q850 int)      // the INVITE was refused, or nobody is there
	hungUp(l *leg, q850 int)              // BYE
	cancelled(l *leg)                     // CANCEL of the INVITE that began the call
	mediaChanged(l *leg)                  // re-INVITE or UPDATE: hold, resume, new address
	mediaFailed(l *leg)                   // an answer that cannot be used
	mediaTimedOut(l *leg)
	sessionExpired(l *leg) // its session timer ran out, or its refresh failed
	played(l *leg, p media.Played)
}

// post hands ev to the call; false if the call is over.
func (c *call) post(ev event) bool { return c.box.post(ev) }

// legEvent is an event of one leg. It follows a leg that has moved to another
// call.
type legEvent interface {
	event
	of() *leg
}

// apply lets ev happen, here or where its leg is now.
func (c *call) apply(ev event) {
	if le, ok := ev.(legEvent); ok {
		if l := le.of(); l.home.Load() != c {
			l.post(ev)
			return
		}
	}
	ev.on(c)
}

// messageReceived is a request within a dialog of the call.
type messageReceived struct {
	l   *leg
	req *sip.Request
	tx  *sip.ServerTx
}

func (ev messageReceived) on(*call) { ev.l.receive(ev.req, ev.tx) }
func (ev messageReceived) of() *leg { return ev.l }

// inviteCancelled is a CANCEL that sipgo has answered, and the INVITE with 487.
type inviteCancelled struct {
	l    *leg
	q850 int // of its Reason
}

func (ev inviteCancelled) of() *leg { return ev.l }

func (ev inviteCancelled) on(c *call) {
	if ev.l.state != legInviting {
		return // it crossed our final response, which stands
	}
	if ev.q850 != 0 {
		c.rec.Q850 = ev.q850
	}
	ev.l.ended()
	c.script.cancelled(ev.l)
}

// stopOrdered asks the call to end because the switch does.
type stopOrdered struct{}

func (stopOrdered) on(c *call) { c.end(store.CauseShutdown, nil) }

// run is the call's goroutine: begin sets it going, then it applies what comes
// in until every leg has ended.
func (c *call) run(begin func()) {
	defer c.s.calls.Done()
	defer c.leave()
	c.guarded(begin)
	for {
		for _, ev := range c.box.take() {
			c.guarded(func() { c.apply(ev) })
		}
		if c.over && c.expecting == 0 && c.allEnded() {
			return
		}
		<-c.box.wake
	}
}

// guarded applies one event; a panic ends the call with a cause, and what was
// recorded is kept.
func (c *call) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil {
			c.s.counts.panics.Add(1)
			c.s.log.Error("call panicked", "call", c.rec.ID, "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			if in, ok := c.script.(*incoming); ok {
				in.leaveQueue() // nobody waits for a call that is over
			}
			c.script = silentScript{}
			c.end(store.CauseInternal, nil)
		}
	}()
	f()
	c.publish()
}

// leave answers what still waits in the mailbox and takes the call off the
// books.
func (c *call) leave() {
	for _, ev := range c.box.close() {
		if le, ok := ev.(legEvent); ok && le.of().home.Load() != c {
			le.of().post(ev)
			continue
		}
		switch ev := ev.(type) {
		case messageReceived:
			if !ev.req.IsAck() {
				c.s.end.reply(ev.req, ev.tx, 481, "Call/Transaction Does Not Exist")
			}
		case inviteMoved:
			ev.l.answeredLate(ev.res)
		case refusable:
			ev.refuse()
		}
	}
	c.s.clerk.putLadder(c.rec, c.s.ladders.ladder(c))
	c.s.drop(c)
	c.s.ladders.release(c)
}

func (c *call) allEnded() bool {
	for _, l := range c.legs {
		if l.state != legEnded {
			return false
		}
	}
	return true
}

// newLeg adds a leg to the call.
func (c *call) newLeg(label string) *leg {
	l := newLeg(c, label)
	c.legs = append(c.legs, l)
	return l
}

func newLeg(c *call, label string) *leg {
	l := &leg{c: c, label: label}
	l.home.Store(c)
	return l
}

// end gives the call its cause, hangs up every leg and hands the record over.
// Only the first call of end counts. gone is the leg that has left already.
func (c *call) end(cause store.Cause, gone *leg) {
	if c.over {
		return
	}
	c.over = true
	now := time.Now()
	c.rec.Cause = cause
	c.rec.Ended = now
	c.rec.EndStay(now, "")
	row := causes[cause]
	switch st := c.rec.SIPStatus; {
	case st == 0 || st == 401 || st == 407 || st/100 == 3:
		// Challenges and redirections were meant for us, not for who called.
		c.rec.SIPStatus = row.status
	case st != row.status:
		// What the far end said, or a closer reason of our own, is passed on.
		row.status, row.text = st, statusText(st)
	}
	if c.a != nil && c.a.wasAnswered || !c.rec.Answered.IsZero() {
		c.rec.SIPStatus = 200
	}
	if c.rec.Q850 == 0 {
		c.rec.Q850 = row.q850
	}
	if n := len(c.rec.Segments); n > 0 && c.rec.Segments[n-1].To.IsZero() {
		c.rec.Segments[n-1].To = now
	}
	if n := len(c.rec.Holds); n > 0 && c.rec.Holds[n-1].To.IsZero() {
		c.rec.Holds[n-1].To = now
	}
	var headers []sip.Header
	if row.q850 != 0 {
		// What the far end gave as its cause is passed on (RFC 3326 §2).
		headers = append(headers, reasonHeader("Q.850", c.rec.Q850, row.text))
	}
	if row.retryAfter != "" {
		headers = append(headers, sip.NewHeader("Retry-After", row.retryAfter))
	}
	for _, l := range c.legs {
		if l.stream != nil {
			l.stream.SetTap(nil)
		}
	}
	for _, l := range c.legs {
		if l != gone {
			l.hangUp(row.status, row.text, headers...)
		}
	}
	c.finishRecord(now)
	c.s.log.Info("call ended", "call", c.rec.ID, "direction", string(c.rec.Direction), "cause", string(cause),
		"trunk", c.rec.Trunk, "queue", c.rec.Queue, "ext", c.lastExtension(), "began", c.rec.Began, "answered", c.rec.Answered, "ended", now, "mos", c.rec.WorstMOS())
}

func (c *call) lastExtension() string {
	if n := len(c.rec.Segments); n > 0 {
		return c.rec.Segments[n-1].Extension
	}
	return c.rec.Extension
}

// save hands the record's present state to whoever writes it.
func (c *call) save() {
	c.rec.Revision++
	if c.recording != nil {
		c.recording.Update(clone(c.rec))
		return
	}
	c.s.clerk.put(c.rec)
}

// finishRecord hands over the final record: to the recorder if there is a
// recording to be rendered first, else to the clerk.
func (c *call) finishRecord(at time.Time) {
	c.s.counts.ended(c.rec.Cause)
	c.rec.Revision++
	if c.recording != nil {
		c.recording.Finish(clone(c.rec), at)
		return
	}
	if c.rec.Recording.Outcome == "" {
		c.rec.Recording = store.Recording{Outcome: store.OutcomeNone, Reason: c.whyUnrecorded()}
	}
	c.s.clerk.put(c.rec)
}

func (c *call) whyUnrecorded() string {
	switch {
	case c.rec.Direction == store.Internal:
		return "internal call (S1.3-e)"
	case c.rec.Answered.IsZero():
		return "no conversation (S1.3-d)"
	}
	return "not recorded"
}

// converse begins the conversation of a and b: recorded if it crosses a trunk. It
// is an extension's, or that of a number outside if number is set.
func (c *call) converse(b *leg, ext string, number ordinance.Number) {
	now := time.Now()
	c.b = b
	if !c.rec.Answered.IsZero() {
		c.rejoin(b, ext, number) // it came back to its queue
		return
	}
	c.talking = true
	c.phase = phaseTalking
	c.rec.Answered = now
	c.rec.Segments = append(c.rec.Segments, store.Segment{Extension: ext, Number: number, From: now})
	if c.citizen != nil || c.s.config().Dial.RecordInternal {
		c.record(now)
	}
	c.save()
	c.rewire()
	c.s.log.Info("conversation began", "call", c.rec.ID, "direction", string(c.rec.Direction), "ext", ext)
}

// record begins the recording: the citizen's leg on the left, the office's on
// the right; of an internal call the caller's on the left.
func (c *call) record(now time.Time) {
	r := c.s.recorder.Start(c.rec, now)
	c.recording = r
	c.rec.Day = r.Day()
	c.tap(c.a)
	c.tap(c.b)
}

// tap records l, which is c.a or c.b, in its lane.
func (c *call) tap(l *leg) {
	switch {
	case l.stream == nil:
	case l == c.citizen || c.citizen == nil && l == c.a:
		l.stream.SetTap(c.recording.Citizen())
	default:
		l.stream.SetTap(c.recording.Office())
	}
}

// rewire sets what each party of the conversation hears: the other one, or
// music while the other one holds the call.
func (c *call) rewire() {
	if !c.talking || c.a.stream == nil || c.b.stream == nil {
		return
	}
	a, b := c.a, c.b
	switch {
	case a.held && b.held:
		a.stream.Silence()
		b.stream.Silence()
	case a.held:
		a.stream.Silence()
		b.stream.Play(c.s.music, true)
	case b.held:
		b.stream.Silence()
		a.stream.Play(c.s.music, true)
	default:
		media.Bridge(a.stream, b.stream)
	}
	c.noteHold()
}

// noteHold keeps the record's and the recording's idea of hold. While both hold,
// the span is the one's who held first.
func (c *call) noteHold() {
	office := c.a
	if office == c.citizen {
		office = c.b
	}
	holder := c.holder
	switch {
	case holder != nil && holder.held:
	case c.citizen != nil && c.citizen.held:
		holder = c.citizen
	case office.held:
		holder = office
	case c.citizen == nil && c.b.held: // an internal call: both are the office
		holder = c.b
	default:
		holder = nil
	}
	if holder == c.holder {
		return
	}
	for _, l := range []*leg{c.a, c.b} {
		l.muted = holder != nil
		l.apply()
	}
	now := time.Now()
	if c.recording != nil && (holder == nil || c.holder == nil) {
		c.recording.Hold(now, holder != nil)
	}
	if n := len(c.rec.Holds); c.holder != nil && n > 0 {
		c.rec.Holds[n-1].To = now
	}
	if holder != nil {
		by := "office"
		if holder == c.citizen {
			by = "citizen"
		}
		c.rec.Holds = append(c.rec.Holds, store.Hold{By: by, From: now})
	}
	c.holder = holder
	c.save()
}

// silentScript is what remains of a call that panicked: it ends.
type silentScript struct{}

func (silentScript) confirmed(l *leg)          { l.hangUp(500, "Server Internal Error") }
func (silentScript) noAck(l *leg)              { l.hangUp(500, "Server Internal Error") }
func (silentScript) ringing(*leg, int, bool)   {}
func (silentScript) answered(l *leg)           { l.hangUp(500, "Server Internal Error") }
func (silentScript) failed(*leg, int, int)     {}
func (silentScript) hungUp(*leg, int)          {}
func (silentScript) cancelled(*leg)            {}
func (silentScript) mediaChanged(*leg)         {}
func (silentScript) mediaFailed(*leg)          {}
func (silentScript) mediaTimedOut(*leg)        {}
func (silentScript) played(*leg, media.Played) {}

// causeRow is how a cause is told to the peers.
type causeRow struct {
	status     int // for an INVITE that was not answered
	text       string
	q850       int
	retryAfter string
}

// causes maps each cause to SIP and Q.850 (ITU-T Q.850 table 1). It is the one
// place where that is decided.
var causes = map[store.Cause]causeRow{
	store.CauseHangupCaller:       {487, "Request Terminated", 16, ""},
	store.CauseHangupCalled:       {480, "Temporarily Unavailable", 16, ""},
	store.CauseAnnouncementHangup: {487, "Request Terminated", 16, ""},
	store.CauseAbandoned:          {487, "Request Terminated", 16, ""},
	store.CauseCancelled:          {487, "Request Terminated", 16, ""},
	store.CauseBusy:               {486, "Busy Here", 17, ""},
	store.CauseNoAnswer:           {480, "Temporarily Unavailable", 19, ""},
	store.CauseDeclined:           {603, "Decline", 21, ""},
	store.CauseUnreachable:        {480, "Temporarily Unavailable", 20, ""},
	store.CauseQueueTimeout:       {480, "Temporarily Unavailable", 16, ""},
	store.CauseClosed:             {480, "Temporarily Unavailable", 16, ""},
	store.CauseNotFound:           {404, "Not Found", 1, ""},
	store.CauseForbidden:          {403, "Forbidden", 21, ""},
	store.CauseNotAcceptable:      {488, "Not Acceptable Here", 88, ""},
	store.CauseOverload:           {503, "Service Unavailable", 42, "5"},
	store.CauseNoAck:              {408, "Request Timeout", 102, ""},
	store.CauseMediaTimeout:       {480, "Temporarily Unavailable", 102, ""},
	store.CauseSessionExpired:     {480, "Temporarily Unavailable", 102, ""},
	store.CauseShutdown:           {503, "Service Unavailable", 41, "10"},
	store.CauseInterrupted:        {500, "Server Internal Error", 41, ""},
	store.CauseInternal:           {500, "Server Internal Error", 41, ""},
}

// statusText is the reason phrase of a status that is passed on.
func statusText(status int) string {
	if text, ok := statusTexts[status]; ok {
		return text
	}
	switch status / 100 {
	case 4:
		return "Request Failure"
	case 5:
		return "Server Failure"
	}
	return "Global Failure"
}

var statusTexts = map[int]string{
	404: "Not Found", 408: "Request Timeout", 410: "Gone", 415: "Unsupported Media Type", 480: "Temporarily Unavailable",
	484: "Address Incomplete", 486: "Busy Here", 488: "Not Acceptable Here", 500: "Server Internal Error",
	502: "Bad Gateway", 503: "Service Unavailable", 504: "Server Time-out", 600: "Busy Everywhere", 603: "Decline",
	604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}

// causeOf reads the cause of a refused INVITE.
func causeOf(status int) store.Cause {
	switch status {
	case 486, 600:
		return store.CauseBusy
	case 480, 487:
		return store.CauseNoAnswer
	case 404, 410, 484, 604:
		return store.CauseNotFound
	case 403:
		return store.CauseForbidden
	case 603, 607:
		return store.CauseDeclined
	case 488, 606, 415:
		return store.CauseNotAcceptable
	}
	return store.CauseUnreachable
}

// nextLabel names the next leg at the far side.
func (c *call) nextLabel() string { return "b" + strconv.Itoa(len(c.legs)) }
