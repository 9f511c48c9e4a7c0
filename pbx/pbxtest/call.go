package pbxtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// State is how far a call has come. It only grows.
type State int

const (
	Dialling State = iota // INVITE sent or received
	Ringing               // 180 or 183 sent or received
	Answered              // 2xx sent or received
	Ended                 // refused, cancelled, hung up
)

func (s State) String() string {
	return [...]string{"dialling", "ringing", "answered", "ended"}[s]
}

// End tells why a call ended.
type End struct {
	// Method is BYE or CANCEL, or empty if a final response refused the call.
	Method string
	// ByUs is true if this peer sent it.
	ByUs bool
	// Status is the refusing response's, 0 after BYE.
	Status int
	// Reason is the Reason field (RFC 3326 §2) of what ended it.
	Reason string
}

// CallOptions says how to place a call. Only To is needed.
type CallOptions struct {
	// From is the caller's number; the peer's user if empty. Anonymous hides it
	// as RFC 3323 §4.1.1.3 does.
	From      string
	Anonymous bool
	// To is the called number.
	To string
	// PAI is the number in P-Asserted-Identity, Privacy the value of that field.
	PAI, Privacy string
	// LateOffer sends the INVITE without SDP; the ACK carries the answer.
	LateOffer bool
	// SDP takes the place of our own offer.
	SDP []byte
	// Fields are added to the INVITE; Edit may change it last of all.
	Fields []Field
	Edit   func(*Message)
	// Say is what the caller says, Voice all that concerns its media; the
	// peer's Voice if nil.
	Say   Source
	Voice *Voice
}

// Behaviour is what becomes of an incoming call. The zero value rings for
// ever.
type Behaviour struct {
	// Ring is the time to the 180; negative sends none.
	Ring time.Duration
	// Early sends 183 with SDP instead of the 180 and begins to speak.
	Early bool
	// Reliable sends the 180 or 183 reliably (RFC 3262), and the final response
	// after its PRACK.
	Reliable bool
	// Status is the final response, sent After the INVITE; 0 sends none.
	Status int
	After  time.Duration
	// Fields are added to the final response.
	Fields []Field
	// Ignore answers the INVITE with nothing at all.
	Ignore bool
	// Say and Voice are as in CallOptions.
	Say   Source
	Voice *Voice
}

// AnswerAfter rings at once and answers d after the INVITE.
func AnswerAfter(d time.Duration) Behaviour { return Behaviour{Status: 200, After: d} }

// Reject refuses at once, without ringing: 486 busy, 603 decline, 480 do not
// disturb.
func Reject(status int) Behaviour { return Behaviour{Ring: -1, Status: status} }

// RingForEver rings and never answers.
func RingForEver() Behaviour { return Behaviour{} }

// Always gives every call one behaviour.
func Always(b Behaviour) func(*Message) Behaviour { return func(*Message) Behaviour { return b } }

// Call is one call of a peer, from its INVITE on. Its state is owned by the
// peer.
type Call struct {
	peer     *Peer
	id       string
	outgoing bool
	invite   *Message // the first one, as last sent or received
	voice    *endpoint

	state        State
	at           [Ended + 1]time.Time
	end          End
	cancelling   bool
	localTag     string
	remoteTag    string
	local        string // From or To value of ours, without tag
	remoteParty  string
	target       string // remote target: URI
	routes       []string
	cseq         uint32
	remoteCSeq   uint32
	mine         *clientTx            // our INVITE under way
	theirs       map[uint32]*serverTx // their INVITEs by CSeq
	log          []Entry
	desc         description // of ours, as last sent
	sent         []byte      // the last SDP that we made
	want         Direction   // what we would like; an answer may allow less
	offered      *SDP        // our offer that waits for its answer
	lateAnswer   []byte      // our answer that goes into the ACK
	remote       *SDP        // of theirs, as last received
	remoteBody   string
	keys         map[string][]byte // of ours, by suite
	refused      bool              // we refused an offer after it, which had a version too
	onFinal      func(*Message)    // of a re-INVITE
	answerFields []Field
	reliable     reliable
}

// Call places a call to the switch and returns at once.
func (p *Peer) Call(o CallOptions) (*Call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	from := o.From
	if from == "" {
		from = p.cfg.User
	}
	m := p.newRequest("INVITE", fmt.Sprintf("sip:%s@%v", o.To, p.cfg.Switch))
	c, err := p.newCall(m, o.Voice, o.Say)
	if err != nil {
		return nil, err
	}
	c.outgoing = true
	c.localTag = m.FromTag()
	c.local = fmt.Sprintf("<sip:%s@%v>", from, p.host())
	if o.Anonymous {
		c.local = `"Anonymous" <sip:anonymous@anonymous.invalid>`
	}
	c.remoteParty = m.Get("To")
	c.cseq = 1
	m.Set("From", c.local+";tag="+c.localTag)
	m.Add("Allow", allowed)
	if o.PAI != "" {
		m.Add("P-Asserted-Identity", fmt.Sprintf("<sip:%s@%v>", o.PAI, p.host()))
	}
	if o.Privacy != "" {
		m.Add("Privacy", o.Privacy)
	}
	for _, f := range o.Fields {
		m.Add(f.Name, f.Value)
	}
	switch {
	case o.SDP != nil:
		c.setOffer(m, o.SDP)
	case !o.LateOffer:
		c.setOffer(m, c.describe(c.want))
	}
	if o.Edit != nil {
		o.Edit(m)
	}
	c.id = m.CallID()
	p.calls[c.id] = c
	c.sendInvite(m)
	return c, nil
}

func (p *Peer) newCall(invite *Message, v *Voice, say Source) (*Call, error) {
	c := &Call{peer: p, id: invite.CallID(), invite: invite, want: SendRecv, theirs: map[uint32]*serverTx{}}
	c.at[Dialling] = time.Now()
	voice := p.cfg.Voice
	if v != nil {
		voice = *v
	}
	if say != nil {
		voice.Say = say
	}
	var err error
	c.voice, err = newEndpoint(p, voice)
	if err != nil {
		return nil, fmt.Errorf("%s: open the voice of a call: %w", p.cfg.Name, err)
	}
	c.desc = description{
		session: p.rnd.Uint64() >> 16, version: p.rnd.Uint64() >> 40, addr: c.voice.addr,
		codecs: c.voice.cfg.Codecs, ptime: int(c.voice.cfg.Ptime / time.Millisecond),
	}
	if !voice.NoEvents {
		c.desc.event = eventType
	}
	return c, nil
}

// Answer sends 200 to an incoming call, with further header fields.
func (c *Call) Answer(fields ...Field) error {
	return c.finish(200, fields)
}

// Reject refuses an incoming call that was not answered.
func (c *Call) Reject(status int, fields ...Field) error {
	return c.finish(status, fields)
}

func (c *Call) finish(status int, fields []Field) error {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	if c.outgoing || c.state >= Answered {
		return fmt.Errorf("%s: cannot send %d to a call that is %v", c.peer.cfg.Name, status, c.state)
	}
	c.respond(status, fields)
	return nil
}

// Hangup ends the call in the way its state asks for: CANCEL, BYE, or 603 to
// a call that was not answered. It does not wait; a call that has ended stays
// as it is.
func (c *Call) Hangup() {
	p := c.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.state == Ended || p.closed:
	case c.state == Answered:
		c.bye()
	case c.outgoing:
		c.cancel()
	default:
		c.respond(603, nil)
	}
}

// Hold puts the other side on hold by a re-INVITE with sendonly; HoldAs does
// it with any direction, and with c=0.0.0.0 if zero is true.
func (c *Call) Hold(ctx context.Context) error { return c.HoldAs(ctx, SendOnly, false) }

// HoldAs is Hold in another form.
func (c *Call) HoldAs(ctx context.Context, d Direction, zero bool) error {
	return c.offer(ctx, d, zero)
}

// Resume ends a hold.
func (c *Call) Resume(ctx context.Context) error { return c.offer(ctx, SendRecv, false) }

func (c *Call) offer(ctx context.Context, d Direction, zero bool) error {
	c.peer.mu.Lock()
	c.want, c.desc.zeroHold = d, zero
	body := c.describe(d)
	c.peer.mu.Unlock()
	res, err := c.ReInvite(ctx, body)
	if err == nil && res.Status >= 300 {
		err = fmt.Errorf("%s: re-INVITE answered %s", c.peer.cfg.Name, res)
	}
	return err
}

// ReInvite sends an INVITE within the call with that SDP, or without any if it
// is nil, and returns the final response, which it acknowledges.
func (c *Call) ReInvite(ctx context.Context, sdp []byte) (*Message, error) {
	p := c.peer
	p.mu.Lock()
	if c.state != Answered || c.mine != nil && c.mine.final == nil {
		state := c.state
		p.mu.Unlock()
		return nil, fmt.Errorf("%s: cannot re-INVITE a call that is %v", p.cfg.Name, state)
	}
	var res *Message
	done := false
	m := c.newRequest("INVITE")
	m.Add("Allow", allowed)
	if sdp != nil {
		c.setOffer(m, sdp)
	}
	c.onFinal = func(m *Message) { res, done = m, true }
	c.sendInvite(m)
	p.mu.Unlock()
	err := p.waitCtx(ctx, func() bool { return done })
	if err == nil && res == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("%s: re-INVITE not answered; %s: %w", p.cfg.Name, p.recent(c), err)
	}
	return res, nil
}

// Request sends any other request within the call and returns its final
// response.
func (c *Call) Request(ctx context.Context, method string, body []byte, fields ...Field) (*Message, error) {
	c.peer.mu.Lock()
	m := c.newRequest(method)
	m.Body = body
	for _, f := range fields {
		m.Add(f.Name, f.Value)
	}
	to := c.next()
	c.peer.mu.Unlock()
	return c.peer.request(ctx, m, to)
}

// WaitRinging waits until the call rings (180 or 183), or has gone further.
func (c *Call) WaitRinging(timeout time.Duration) error { return c.waitFor(Ringing, timeout) }

// WaitAnswered waits for the 2xx.
func (c *Call) WaitAnswered(timeout time.Duration) error { return c.waitFor(Answered, timeout) }

// WaitEnded waits for the end, from either side.
func (c *Call) WaitEnded(timeout time.Duration) error { return c.waitFor(Ended, timeout) }

func (c *Call) waitFor(want State, timeout time.Duration) error {
	err := c.peer.wait(timeout, func() bool { return c.state >= want })
	p := c.peer
	p.mu.Lock()
	state, missed := c.state, err == nil && c.at[want].IsZero()
	p.mu.Unlock()
	if err == nil && missed && want == Ringing && state == Answered {
		return nil // answered without ringing
	}
	if err == nil && missed {
		err = errors.New("it ended")
	}
	if err != nil {
		return fmt.Errorf("%s: call is %v, not %v within %v; %s: %w", p.cfg.Name, state, want, timeout, p.recent(c), err)
	}
	return nil
}

// State is how far the call has come, and At when it reached a state: the zero
// time if it never did.
func (c *Call) State() State {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.state
}

// At is when the call reached a state.
func (c *Call) At(s State) time.Time {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.at[s]
}

// End tells why the call ended; the zero End before.
func (c *Call) End() End {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.end
}

// Invite is the first INVITE, with its last credentials.
func (c *Call) Invite() *Message {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.invite
}

// Log is what was sent and received in the call.
func (c *Call) Log() []Entry {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return slices.Clone(c.log)
}

// RemoteSDP is what the other side last said of its media; nil before.
func (c *Call) RemoteSDP() *SDP {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return c.remote
}

// LocalSDP is what this side last said of its media; nil before.
func (c *Call) LocalSDP() []byte {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return slices.Clone(c.sent)
}

// Say changes what the call says; nil says nothing and sends nothing.
func (c *Call) Say(s Source) { c.voice.say(s, 0) }

// SayFor says it for d of the speaker's time, then sends nothing.
func (c *Call) SayFor(s Source, d time.Duration) { c.voice.say(s, d) }

// SendDTMF presses keys (RFC 4733 §2.3): 100 ms each with 60 ms between.
func (c *Call) SendDTMF(keys string) error { return c.voice.press(keys) }

// ChangeSSRC makes the voice go on as another source with its own sequence and
// timestamps, as a transcoder behind the peer might.
func (c *Call) ChangeSSRC() { c.voice.changeSSRC() }

// Heard is what the ear has heard so far.
func (c *Call) Heard() Heard { return c.voice.heard() }

// MediaAddr is where the call's voice listens for RTP.
func (c *Call) MediaAddr() netip.AddrPort { return c.voice.addr }

// Refer asks the switch to pass the other side on to that URI (RFC 3515) and
// returns the final response; what becomes of it comes by NOTIFY (News).
func (c *Call) Refer(ctx context.Context, to string, fields ...Field) (*Message, error) {
	return c.Request(ctx, "REFER", nil, append([]Field{{"Refer-To", "<" + to + ">"}}, fields...)...)
}

// Replaces is this call as the value of a Replaces field (RFC 3891 §6.1) that
// goes to the switch.
func (c *Call) Replaces() string {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	return fmt.Sprintf("%s;to-tag=%s;from-tag=%s", c.id, c.remoteTag, c.localTag)
}

// News is what the NOTIFYs of a REFER have said so far, each once: "100 active",
// "200 terminated".
func (c *Call) News() []string {
	var news []string
	for _, e := range c.Log() {
		if e.Out || e.Again || e.Message.Method != "NOTIFY" || !strings.HasPrefix(e.Message.Get("Event"), "refer") {
			continue
		}
		_, rest, _ := strings.Cut(string(e.Message.Body), " ")
		status, _, _ := strings.Cut(rest, " ")
		state, _, _ := strings.Cut(e.Message.Get("Subscription-State"), ";")
		news = append(news, status+" "+state)
	}
	return news
}
