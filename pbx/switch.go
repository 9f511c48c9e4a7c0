package pbx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/desk"
	"centralka/media"
	"centralka/ordinance"
	"centralka/recorder"
	"centralka/store"
)

// Parts are what a switch is built from and does not own: Run neither starts
// nor stops them, but for the engine, which must run as long as the switch.
type Parts struct {
	Store    *store.Store
	Recorder *recorder.Recorder
	Engine   media.Engine
	Pool     *desk.Pool
	Log      *slog.Logger
	// ListenPacket opens SIP's datagram sockets; nil: real ones.
	ListenPacket ListenPacket
	// Resolver finds the trunks' servers; nil: the system's.
	Resolver Resolver
}

// Switch is the running exchange. Make one with New, then call Run.
type Switch struct {
	log      *slog.Logger
	ctx      context.Context // of Run; for logging
	work     context.Context // of the tasks that Run starts; outlives ctx by the farewells
	store    *store.Store
	recorder *recorder.Recorder
	engine   media.Engine
	pool     *desk.Pool
	resolver Resolver

	end       *endpoint
	guard     *guard
	auth      *authServer
	registrar *registrar
	clerk     *clerk
	scribe    *scribe
	kept      map[string]store.PhoneState // in the vault, by extension; the scribe's
	lines     *lines
	quiet     *quiet
	ladders   *ladders
	lampBoard *lampBoard
	music     *media.Prompt
	ringback  *media.Prompt
	prompts   struct{ closed, busy *media.Prompt }

	cfg  Config // as started; what may change at reload is read by config
	live atomic.Pointer[liveConfig]

	// secret tells whether keys may be said to the peer at a hop.
	secret func(hop) bool

	draining atomic.Bool
	running  atomic.Bool
	counts   counters
	calls    sync.WaitGroup // goroutines of calls
	tasks    sync.WaitGroup // queues, keepers, clerk

	mu      sync.Mutex
	closed  bool // no call begins any more
	byID    map[store.ID]*call
	dialogs map[dialogID]*leg
	pending map[string]bool // INVITEs of calls that are up, by mergeKey
	queues  map[string]*runningQueue
	trunks  []*runningTrunk
}

type runningQueue struct {
	*queue
	cancel context.CancelFunc
}

type runningTrunk struct {
	*trunk
	cancel context.CancelFunc
}

// liveConfig is what SIGHUP may change, with all that is derived from it. It is
// replaced whole.
type liveConfig struct {
	Config
	numbers       map[ordinance.Number]NumberConfig
	extensions    map[string]ExtensionConfig
	hours         map[string]*desk.Hours   // by name
	announcements map[string]*announcement // by NumberConfig.Announcement
	audioErr      error                    // why an announcement cannot be played
	outgoing      *media.Prompt
	whispers      map[string]*media.Prompt // by QueueConfig.Whisper
	whisperErr    error                    // why one cannot be played: its queue does without
	plan          *DialPlan
}

// New builds a switch. It opens no socket; an announcement that cannot be read
// makes it not ready rather than fail, so that the status page can say so.
func New(cfg Config, p Parts) (*Switch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Switch{
		log: p.Log, ctx: context.Background(), store: p.Store, recorder: p.Recorder, engine: p.Engine, pool: p.Pool, cfg: cfg,
		kept: map[string]store.PhoneState{}, byID: map[store.ID]*call{}, dialogs: map[dialogID]*leg{}, pending: map[string]bool{}, queues: map[string]*runningQueue{},
	}
	if s.resolver = p.Resolver; s.resolver == nil {
		s.resolver = net.DefaultResolver
	}
	s.music, s.ringback = media.HoldMusic(), ringback()
	s.secret = func(h hop) bool { return h.transport == "TLS" }
	var err error
	if s.prompts.closed, err = spoken("closed"); err != nil {
		return nil, err
	}
	if s.prompts.busy, err = spoken("busy"); err != nil {
		return nil, err
	}
	live, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	s.live.Store(live)
	if live.whisperErr != nil {
		s.log.Error("agents are not told the queue", "err", live.whisperErr)
	}
	s.guard = newGuard(s.guardConfig(cfg))
	if s.end, err = newEndpoint(cfg.SIP, s.guard, p.ListenPacket, p.Log); err != nil {
		return nil, err
	}
	s.ladders = s.end.ladders
	s.end.serve, s.end.stray = s.serve, s.strayResponse
	s.auth = newAuthServer(authConfig{Realm: s.domain(), Secret: func(user string) (authSecret, bool) {
		secret, ok := s.config().Secrets.Extensions[user]
		return authSecret{Password: secret}, ok
	}})
	s.lines = newLines(func(ext string, delta int) { s.pool.Busy(desk.AgentID(ext), delta) })
	s.quiet = newQuiet()
	s.lampBoard = newLampBoard(s)
	s.clerk = newClerk(p.Store, p.Log)
	s.registrar = newRegistrar(s, s.auth)
	s.scribe = newScribe(s.keep, p.Log)
	s.pool.OnWish(func(id desk.AgentID) { s.scribe.put(string(id)) })
	return s, nil
}

func spoken(name string) (*media.Prompt, error) {
	a, err := ordinance.Prompt(name)
	if err != nil {
		return nil, err
	}
	return media.ReadPrompt(bytes.NewReader(a.WAV))
}

// prepare derives what calls need from a configuration.
func prepare(cfg Config) (*liveConfig, error) {
	l := &liveConfig{Config: cfg, numbers: map[ordinance.Number]NumberConfig{}, extensions: map[string]ExtensionConfig{},
		hours: map[string]*desk.Hours{}, announcements: map[string]*announcement{}}
	for _, n := range cfg.Numbers {
		num, ok := ordinance.ParseNumber(n.Match)
		if !ok {
			return nil, fmt.Errorf("number %q is not a telephone number", n.Match)
		}
		l.numbers[num] = n
	}
	for _, e := range cfg.Extensions {
		l.extensions[e.Number] = e
	}
	for _, h := range cfg.Hours {
		hours, err := desk.ParseHours(h)
		if err != nil {
			return nil, fmt.Errorf("hours %q: %w", h.Name, err)
		}
		l.hours[h.Name] = hours
	}
	l.audioErr = l.readAudio()
	if f := cfg.Announcement.Outgoing; f != "" {
		a, err := readAnnouncement(f, "")
		if err != nil {
			l.audioErr = errors.Join(l.audioErr, err)
		} else {
			l.outgoing = a.prompt
		}
	}
	l.whispers = map[string]*media.Prompt{}
	for _, q := range cfg.Queues {
		if q.Whisper == "" || l.whispers[q.Whisper] != nil {
			continue
		}
		p, err := ReadWhisper(q.Whisper)
		if err != nil {
			l.whisperErr = errors.Join(l.whisperErr, fmt.Errorf("queue %s: %w", q.Name, err))
			continue
		}
		l.whispers[q.Whisper] = p
	}
	d := cfg.Dial
	plan, err := newDialPlan(DialRules{OutsidePrefix: d.OutsidePrefix, Emergency: d.Emergency, Allow: d.Allow, Block: d.Block})
	if err != nil {
		return nil, err
	}
	l.plan = plan
	return l, nil
}

// readAudio loads every announcement; a number's own has no hash of its own to
// be held against.
func (l *liveConfig) readAudio() error {
	var errs []error
	main, err := readAnnouncement(l.Announcement.File, l.Announcement.SHA256)
	if err != nil {
		errs = append(errs, err)
	} else {
		l.announcements[""] = main
	}
	for _, n := range l.Numbers {
		if n.Announcement == "" || l.announcements[n.Announcement] != nil {
			continue
		}
		a, err := readAnnouncement(n.Announcement, "")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.announcements[n.Announcement] = a
	}
	return errors.Join(errs...)
}

// maxWhisper bounds what an agent hears while the caller waits.
const maxWhisper = 10 * time.Second

// ReadWhisper reads the file of a QueueConfig.Whisper.
func ReadWhisper(file string) (*media.Prompt, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read whisper: %w", err)
	}
	defer f.Close() // it was only read
	p, err := media.ReadPrompt(f)
	if err == nil && p.Duration() > maxWhisper {
		err = fmt.Errorf("lasts %v, longer than %v", p.Duration(), maxWhisper)
	}
	if err != nil {
		return nil, fmt.Errorf("whisper %s: %w", file, err)
	}
	return p, nil
}

func (s *Switch) config() *liveConfig { return s.live.Load() }

// Run serves until ctx is done, then ends what is left of the calls and
// returns. Call Drain first to let calls finish. The order of shutdown is this
// function.
func (s *Switch) Run(ctx context.Context) error {
	s.ctx = ctx
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.work = work
	if err := s.end.run(work); err != nil {
		stop()
		s.end.close()
		return err
	}
	clerkCtx, stopClerk := context.WithCancel(context.WithoutCancel(ctx))
	defer stopClerk()
	var clerkDone sync.WaitGroup
	clerkDone.Go(func() { s.clerk.run(clerkCtx) })

	s.apply(work)
	if err := s.registrar.load(); err != nil {
		s.log.Error("registrations lost at restart", "err", err)
	}
	if err := s.recall(); err != nil {
		s.log.Error("agents' states lost at restart", "err", err)
	}
	s.tasks.Go(func() { s.scribe.run(work) })
	s.tasks.Go(func() { s.registrar.keep(work, s.cfg.SIP.OptionsInterval) })
	s.tasks.Go(func() { s.watchAudio(work) })
	s.tasks.Go(func() { s.lampBoard.run(work) })
	s.running.Store(true)

	<-ctx.Done()
	s.draining.Store(true)
	s.running.Store(false)
	s.HangUpAll()
	s.waitCalls(5 * time.Second) // for the answers to our BYEs
	s.lampBoard.farewell(time.Second)
	stop()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end.close() // ends transactions, and with them the legs that still wait
	s.calls.Wait()
	s.tasks.Wait()
	stopClerk()
	clerkDone.Wait()
	return nil
}

// waitCalls waits until no call is left, for at most d.
func (s *Switch) waitCalls(d time.Duration) {
	limit := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.Calls() > 0 {
		select {
		case <-limit:
			s.abandonCalls()
			return
		case <-tick.C:
		}
	}
}

// Drain refuses new calls with 503 (but emergency calls) and returns when no
// call is left or ctx is done. Conversations go on to their end; callers whom
// nobody has answered yet hear the closing message, and phones stop ringing for
// them: a stop that waited for the queue would be killed before its end.
func (s *Switch) Drain(ctx context.Context) {
	s.draining.Store(true)
	for _, c := range s.snapshotCalls() {
		c.post(drainBegan{})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for s.Calls() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// HangUpAll ends every call.
func (s *Switch) HangUpAll() {
	for _, c := range s.snapshotCalls() {
		c.post(stopOrdered{})
	}
}

// legsAbandoned ends the wait for peers that do not answer our farewells.
type legsAbandoned struct{}

func (legsAbandoned) on(c *call) {
	for _, l := range c.legs {
		l.ended()
	}
}

func (s *Switch) abandonCalls() {
	for _, c := range s.snapshotCalls() {
		c.post(stopOrdered{})
		c.post(legsAbandoned{})
	}
}

func (s *Switch) snapshotCalls() []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.byID))
}

// Calls counts the calls that are not over.
func (s *Switch) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// Ready reports whether incoming calls are taken; NotReady says why not.
func (s *Switch) Ready() bool { return len(s.NotReady()) == 0 }

// NotReady lists the reasons for which incoming calls are refused now.
func (s *Switch) NotReady() []string {
	var out []string
	if !s.running.Load() {
		out = append(out, "not running")
	}
	if s.draining.Load() {
		out = append(out, "draining")
	}
	if err := s.config().audioErr; err != nil {
		out = append(out, err.Error())
	}
	if err := s.unrecordable(); err != nil {
		out = append(out, "not recording: "+err.Error())
	}
	for _, l := range s.end.down() {
		out = append(out, "listener down: "+l)
	}
	return out
}

// unrecordable is what keeps the recorder from recording, if calls are to be
// refused for it (vault.recording_failure).
func (s *Switch) unrecordable() error {
	if !s.config().RefuseUnrecorded {
		return nil
	}
	return s.recorder.Ready()
}

// serve dispatches a validated request: within a dialog first, then by method
// and source.
func (s *Switch) serve(req *sip.Request, tx *sip.ServerTx) {
	if tag, ok := req.To().Params.Get("tag"); ok && tag != "" && req.Method != sip.CANCEL {
		s.serveInDialog(req, tx, tag)
		return
	}
	h, ok := via(req, tx)
	if !ok {
		s.end.reply(req, tx, 500, "Server Internal Error")
		return
	}
	switch req.Method {
	case sip.ACK:
	case sip.INVITE:
		s.serveInvite(req, tx, h)
	case sip.REGISTER:
		s.serveRegister(req, tx, h)
	case sip.OPTIONS:
		s.end.respond(tx, s.optionsResponse(req))
	case sip.CANCEL, sip.BYE, sip.UPDATE, sip.INFO, sip.PRACK, sip.NOTIFY:
		// Nothing to cancel, end or update (RFC 3261 §9.2, §15.1.2).
		s.end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
	case sip.SUBSCRIBE:
		s.serveSubscribe(req, tx, h)
	case sip.REFER:
		// Nobody makes us call by a REFER alone.
		s.end.reply(req, tx, 403, "Forbidden")
	default:
		s.end.refuseMethod(req, tx)
	}
}

func (s *Switch) serveInDialog(req *sip.Request, tx *sip.ServerTx, tag string) {
	s.mu.Lock()
	l := s.dialogs[dialogID{req.CallID().Value(), tag}]
	s.mu.Unlock()
	if l != nil && l.post(messageReceived{l, req, tx}) {
		return
	}
	if l == nil && req.Method == sip.SUBSCRIBE && s.lampBoard.box.post(subscribeReceived{req: req, tx: tx}) {
		return
	}
	if req.Method == sip.OPTIONS {
		s.end.respond(tx, s.optionsResponse(req))
		return
	}
	if !req.IsAck() {
		s.end.reply(req, tx, 481, "Call/Transaction Does Not Exist")
	}
}

// strayResponse gives a repeated 2xx to its leg, to be acknowledged again; false
// if there is none any more.
func (s *Switch) strayResponse(res *sip.Response) bool {
	materialize(res)
	if !res.IsSuccess() {
		return false
	}
	tag, _ := res.From().Params.Get("tag")
	s.mu.Lock()
	l := s.dialogs[dialogID{res.CallID().Value(), tag}]
	s.mu.Unlock()
	return l != nil && l.post(strayReceived{l, res})
}

func (s *Switch) optionsResponse(req *sip.Request) *sip.Response {
	res := sip.NewResponseFromRequest(req, 200, "OK", nil)
	res.AppendHeader(sip.NewHeader("Allow", allow))
	res.AppendHeader(sip.NewHeader("Supported", supported))
	res.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	res.AppendHeader(sip.NewHeader("Accept-Language", "pl, en"))
	return res
}

func (s *Switch) serveInvite(req *sip.Request, tx *sip.ServerTx, h hop) {
	s.mu.Lock()
	merged := s.pending[mergeKey(req.CallID().Value(), fromTagOf(req), req.CSeq().SeqNo)]
	s.mu.Unlock()
	if merged {
		s.end.reply(req, tx, 482, "Loop Detected")
		return
	}
	if t := s.trunkOf(h.remote); t != nil {
		if req.GetHeader("Replaces") != nil {
			s.end.reply(req, tx, 403, "Forbidden") // nobody outside takes our calls over
			return
		}
		if shortSession(req) {
			s.end.refuseSession(req, tx)
			return
		}
		s.acceptTrunkInvite(req, tx, t, h)
		return
	}
	ext, ok := s.authenticate(req, tx, h)
	if !ok {
		return
	}
	if shortSession(req) {
		s.end.refuseSession(req, tx)
		return
	}
	if fields := req.GetHeaders("Replaces"); len(fields) > 0 {
		s.serveReplaces(req, tx, ext, h, fields)
		return
	}
	if ok, of := pickupCode(userOf(req.Recipient), s.isExtension); ok {
		s.servePickup(req, tx, ext, h, of)
		return
	}
	if f, ok := featureOf(userOf(req.Recipient)); ok {
		s.acceptFeature(req, tx, ext, h, f)
		return
	}
	s.acceptPhoneInvite(req, tx, ext, h)
}

func fromTagOf(req *sip.Request) string {
	tag, _ := req.From().Params.Get("tag")
	return tag
}

// mergeKey is by what a request is known that comes a second time by another
// way, or so late that its transaction is over (RFC 3261 §8.2.2.2).
func mergeKey(callID, fromTag string, seq uint32) string {
	return callID + "\x00" + fromTag + "\x00" + strconv.FormatUint(uint64(seq), 10)
}

func (s *Switch) serveRegister(req *sip.Request, tx *sip.ServerTx, h hop) {
	if s.trunkOf(h.remote) != nil || !s.phoneNetwork(h.remote.Addr()) {
		s.end.reply(req, tx, 403, "Forbidden")
		return
	}
	ext, ok := s.authenticate(req, tx, h)
	if !ok {
		return
	}
	if to := userOf(req.To().Address); to != ext {
		s.end.reply(req, tx, 403, "Forbidden")
		return
	}
	s.registrar.register(req, tx, ext, h)
}

// phoneNetwork reports whether phones may register from addr.
func (s *Switch) phoneNetwork(addr netip.Addr) bool {
	nets := s.config().Guard.Phones
	return len(nets) == 0 || slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// authenticate asks a phone for its password (RFC 3261 §22) and returns its
// extension.
func (s *Switch) authenticate(req *sip.Request, tx *sip.ServerTx, h hop) (ext string, ok bool) {
	source := h.remote.Addr()
	user, result := s.auth.verify(req, source)
	switch result {
	case authOK:
		if from := userOf(req.From().Address); from != user {
			s.end.reply(req, tx, 403, "Forbidden")
			return "", false
		}
		if !s.isExtension(user) {
			s.end.reply(req, tx, 403, "Forbidden")
			return "", false
		}
		s.guard.authSucceeded(source)
		return user, true
	case authMalformed:
		s.end.reply(req, tx, 400, "Bad Credentials")
		return "", false
	case authFailed:
		if ban, told := s.guard.authFailed(source); told {
			s.log.Warn("source banned: it guesses passwords", "source", ban.source, "length", ban.length, "others", ban.untold)
		}
	}
	var algorithms []string // any
	if s.extension(userOf(req.From().Address)).Digest == "md5" {
		algorithms = []string{"MD5"}
	}
	s.end.reply(req, tx, 401, "Unauthorized", s.auth.challenge(401, source, result == authStale, algorithms...)...)
	if req.Method == sip.REGISTER {
		tx.Terminate() // nothing to absorb: hold no memory for strangers
	}
	return "", false
}

func (s *Switch) trunkOf(addr netip.AddrPort) *trunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trunks {
		if t.owns(addr) {
			return t.trunk
		}
	}
	return nil
}

// newCall makes a call with its record; begin starts it.
func (s *Switch) newCall(rec store.CallRecord) *call {
	now := time.Now()
	rec.ID, rec.Began, rec.Day = store.NewID(), now, ordinance.DayOf(now)
	return &call{s: s, box: newMailbox[event](), rec: rec}
}

// begin registers the call of an INVITE and starts its goroutine. The To-tag is
// set on the request itself, so that every response carries the same one, those
// that sipgo makes included.
func (s *Switch) begin(c *call, a *leg, req *sip.Request, tx *sip.ServerTx, h hop, fixed bool, start func()) {
	if s.enrol(c, a, req, tx, h, fixed) {
		s.counts.begun(c.rec.Direction)
		go c.run(start)
	}
}

// enrol makes the dialog of an INVITE known, and c with it unless it is nil: then
// the leg joins a call that there is already. It reports false if it has refused.
func (s *Switch) enrol(c *call, a *leg, req *sip.Request, tx *sip.ServerTx, h hop, fixed bool) bool {
	tag := s.end.toTag(req.CallID().Value(), fromTagOf(req), req.CSeq().SeqNo)
	req.To().Params.Add("tag", tag)
	a.d = uasDialog(req, tag, h, fixed)
	a.invite, a.inviteTx, a.state = req, tx, legInviting
	a.mergeKey = mergeKey(a.d.id.callID, a.d.remoteTag, req.CSeq().SeqNo)
	s.mu.Lock()
	if s.pending[a.mergeKey] { // the two came at the same time
		s.mu.Unlock()
		s.end.reply(req, tx, 482, "Loop Detected")
		return false
	}
	if s.closed {
		s.mu.Unlock()
		s.end.reply(req, tx, 503, "Service Unavailable", sip.NewHeader("Retry-After", "10"))
		return false
	}
	if c != nil {
		s.calls.Add(1)
		s.byID[c.rec.ID] = c
		s.ladders.take(c, a)
	}
	s.dialogs[a.d.id] = a
	s.pending[a.mergeKey] = true
	s.mu.Unlock()
	if a.trunk != nil {
		a.trunk.take()
	}
	s.end.respond(tx, sip.NewResponseFromRequest(req, 100, "Trying", nil))
	if !tx.OnCancel(func(cancel *sip.Request) { a.post(inviteCancelled{a, q850(cancel)}) }) {
		a.post(inviteCancelled{l: a})
	}
	return true
}

// remember makes a UAC leg reachable by messages of its dialog.
func (s *Switch) remember(l *leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialogs[l.d.id] = l
}

// forget undoes what begin, remember and lines did for l.
func (s *Switch) forget(l *leg) {
	s.mu.Lock()
	if s.dialogs[l.d.id] == l {
		delete(s.dialogs, l.d.id)
	}
	if l.mergeKey != "" {
		delete(s.pending, l.mergeKey)
	}
	s.mu.Unlock()
	if l.trunk != nil {
		l.trunk.give()
	}
	s.lines.drop(l)
}

func (s *Switch) drop(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.rec.ID)
	s.lampBoard.box.post(lampsChanged{})
}

func (s *Switch) number(n ordinance.Number) (NumberConfig, bool) {
	cfg, ok := s.config().numbers[n]
	return cfg, ok && n != ""
}

func (s *Switch) announcementFor(n NumberConfig) *announcement {
	return s.config().announcements[n.Announcement]
}

func (s *Switch) outgoingNotice() *media.Prompt { return s.config().outgoing }

func (s *Switch) dialplan() *DialPlan { return s.config().plan }

func (s *Switch) isExtension(n string) bool {
	_, ok := s.config().extensions[n]
	return ok
}

func (s *Switch) extension(n string) ExtensionConfig { return s.config().extensions[n] }

func (s *Switch) extensionName(n string) string { return s.extension(n).Name }

func (s *Switch) queue(name string) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.queues[name]; r != nil {
		return r.queue
	}
	return nil
}

// directOffer is an extension called for itself, not through a queue: nothing
// is reserved.
func (s *Switch) directOffer(ext string) offer {
	return offer{ext: ext, direct: true, accept: func() {}, decline: func(string) {}, release: func() {}}
}

func (s *Switch) setAvailable(ext string, on bool) { s.pool.Available(desk.AgentID(ext), on) }

// domain is the registrar's realm.
func (s *Switch) domain() string {
	if s.cfg.SIP.Domain != "" {
		return s.cfg.SIP.Domain
	}
	return s.cfg.SIP.Listen[0].Addr.Addr().String()
}

// listenerFor returns the listener from which addr is reached.
func (s *Switch) listenerFor(transport string, addr netip.Addr) (netip.AddrPort, bool) {
	for _, l := range s.cfg.SIP.Listen {
		if sip.NetworkToUpper(l.Transport) == transport && l.Addr.Addr().Is4() == addr.Is4() {
			return l.Addr, true
		}
	}
	return netip.AddrPort{}, false
}
