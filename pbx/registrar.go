package pbx

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/store"
)

// The bounds of a registration (RFC 3261 §10.3).
const (
	minExpires     = 60 * time.Second
	maxExpires     = time.Hour
	defaultExpires = time.Hour
)

// binding is one registered device: where a phone can be reached.
type binding struct {
	ext       string
	uri       sip.Uri
	hop       hop // the way its REGISTER came: right through any NAT
	callID    string
	seq       uint32
	expires   time.Time
	userAgent string
	instance  string
	misses    int
	suspended bool // it has let a call go unanswered, and gave no sign of life since
}

func (b binding) contact() string { return b.uri.String() }

// registrar keeps the bindings of desk phones (RFC 3261 §10) across restarts.
// It is safe for concurrent use; its goroutine drops what expires and asks
// phones for signs of life.
type registrar struct {
	s    *Switch
	auth *authServer

	mu       sync.Mutex
	bindings map[string][]binding // by extension; only put changes a list
	from     map[netip.Addr]int   // how many of them are at an address
	lost     []string             // extensions of which a connection ended lately
	changed  chan struct{}
}

func newRegistrar(s *Switch, auth *authServer) *registrar {
	return &registrar{s: s, auth: auth, bindings: map[string][]binding{}, from: map[netip.Addr]int{}, changed: make(chan struct{}, 1)}
}

// load takes the bindings that were in force when the switch stopped.
func (r *registrar) load() error {
	saved, err := r.s.store.Bindings()
	if err != nil {
		return fmt.Errorf("read registrations: %w", err)
	}
	for ext, list := range saved {
		if !r.s.isExtension(ext) {
			continue
		}
		var next []binding
		for _, b := range list {
			var u sip.Uri
			remote, err := netip.ParseAddrPort(b.Received)
			if err != nil || sip.ParseUri(b.Contact, &u) != nil || !time.Now().Before(b.Expires) {
				continue
			}
			if b.Transport != "UDP" {
				continue // its connection is gone; the phone will come again
			}
			local, ok := r.s.listenerFor(b.Transport, remote.Addr())
			if !ok {
				continue
			}
			next = append(next, binding{
				ext: ext, uri: u, hop: hop{transport: b.Transport, local: local, remote: remote, bound: true}, callID: b.CallID, seq: b.CSeq,
				expires: b.Expires, userAgent: b.UserAgent, instance: b.Instance,
			})
		}
		r.mu.Lock()
		r.put(ext, next)
		r.mu.Unlock()
		r.announce(ext)
	}
	return nil
}

// put replaces the bindings of ext and tells the guard which addresses have
// phones by now, whether they answer or not: one that is slow to answer must not
// be locked out meanwhile. The mutex is held.
func (r *registrar) put(ext string, next []binding) {
	old := r.bindings[ext]
	r.bindings[ext] = next
	for _, b := range next {
		addr := b.hop.remote.Addr()
		if r.from[addr]++; r.from[addr] == 1 {
			r.s.guard.setRegistered(addr, true)
		}
	}
	for _, b := range old {
		addr := b.hop.remote.Addr()
		if r.from[addr]--; r.from[addr] == 0 {
			delete(r.from, addr)
			r.s.guard.setRegistered(addr, false)
		}
	}
}

// register answers a REGISTER from an authenticated phone.
func (r *registrar) register(req *sip.Request, tx *sip.ServerTx, ext string, h hop) {
	end := r.s.end
	limit := r.s.extension(ext).Contacts
	want := defaultExpires
	if h := req.GetHeader("Expires"); h != nil {
		n, err := strconv.ParseUint(strings.TrimSpace(h.Value()), 10, 32)
		if err != nil {
			end.reply(req, tx, 400, "Bad Expires")
			return
		}
		want = time.Duration(n) * time.Second
	}
	var contacts []sip.ContactHeader
	star := false
	for _, h := range req.GetHeaders("Contact") {
		for _, part := range splitList(h.Value()) {
			if part == "*" {
				star = true
				continue
			}
			var c sip.ContactHeader
			c.Params = sip.NewParams()
			name, err := sip.ParseAddressValue(part, &c.Address, &c.Params)
			if err != nil || c.Address.Scheme != "sip" && c.Address.Scheme != "sips" {
				end.reply(req, tx, 400, "Bad Contact")
				return
			}
			c.DisplayName = name
			contacts = append(contacts, c)
		}
	}
	if star && (len(contacts) > 0 || want != 0) {
		end.reply(req, tx, 400, "Bad Contact") // RFC 3261 §10.3 step 6
		return
	}
	callID, seq := req.CallID().Value(), req.CSeq().SeqNo
	ua := ""
	if h := req.GetHeader("User-Agent"); h != nil {
		ua = h.Value()
	}

	r.mu.Lock()
	now := time.Now()
	next := dropExpired(r.bindings[ext], now)
	if star {
		// RFC 3261 §10.3 step 6: a late copy of an old request removes nothing.
		for _, b := range next {
			if b.callID == callID && seq <= b.seq {
				r.mu.Unlock()
				end.reply(req, tx, 500, "CSeq Out Of Order")
				return
			}
		}
		next = nil
	}
	for _, c := range contacts {
		life := want
		if v, ok := c.Params.Get("expires"); ok {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				n = uint64(defaultExpires / time.Second)
			}
			life = time.Duration(n) * time.Second
		}
		if life > 0 && life < minExpires {
			r.mu.Unlock()
			end.reply(req, tx, 423, "Interval Too Brief", sip.NewHeader("Min-Expires", strconv.Itoa(int(minExpires/time.Second))))
			return
		}
		life = min(life, maxExpires)
		b := binding{ext: ext, uri: c.Address, hop: h, callID: callID, seq: seq, expires: now.Add(life), userAgent: ua}
		b.instance, _ = c.Params.Get("+sip.instance")
		at := indexOf(next, b)
		if at >= 0 && next[at].callID == callID && seq <= next[at].seq {
			r.mu.Unlock()
			end.reply(req, tx, 500, "CSeq Out Of Order") // RFC 3261 §10.3 step 7
			return
		}
		switch {
		case life == 0 && at >= 0:
			next = append(next[:at], next[at+1:]...)
		case life == 0:
		case at >= 0:
			next[at] = b
		case limit > 0 && len(next) >= limit:
			// The device that has been silent longest gives way: a phone that lost
			// its power and got another address must not lock itself out.
			sort.Slice(next, func(i, j int) bool { return next[i].expires.Before(next[j].expires) })
			next = append(next[1:], b)
		default:
			next = append(next, b)
		}
	}
	r.put(ext, next)
	saved := append([]binding(nil), next...)
	r.mu.Unlock()

	if len(contacts) > 0 || star {
		r.announce(ext)
		r.s.scribe.put(ext)
	}
	res := sip.NewResponseFromRequest(req, 200, "OK", nil)
	for _, b := range saved {
		c := &sip.ContactHeader{Address: *b.uri.Clone(), Params: sip.NewParams()}
		c.Params.Add("expires", strconv.Itoa(int(time.Until(b.expires).Round(time.Second)/time.Second)))
		res.AppendHeader(c)
	}
	res.AppendHeader(sip.NewHeader("Date", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")))
	end.respond(tx, res)
	r.poke()
}

func indexOf(list []binding, b binding) int {
	for i, o := range list {
		if o.contact() == b.contact() || b.instance != "" && o.instance == b.instance {
			return i
		}
	}
	return -1
}

func dropExpired(list []binding, now time.Time) []binding {
	var out []binding
	for _, b := range list {
		if now.Before(b.expires) {
			out = append(out, b)
		}
	}
	return out
}

// save stores the bindings that ext has by now. Only the scribe calls it.
func (r *registrar) save(ext string) error {
	r.mu.Lock()
	list := slices.Clone(r.bindings[ext])
	r.mu.Unlock()
	out := make([]store.Binding, 0, len(list))
	for _, b := range list {
		out = append(out, store.Binding{
			Contact: b.contact(), Received: b.hop.remote.String(), Transport: b.hop.transport,
			CallID: b.callID, CSeq: b.seq, Expires: b.expires, UserAgent: b.userAgent, Instance: b.instance,
		})
	}
	return r.s.store.PutBindings(ext, out)
}

// announce tells the desk who is there.
func (r *registrar) announce(ext string) { r.s.setAvailable(ext, len(r.reachable(ext)) > 0) }

// reachable returns the devices of an extension that can be called now.
func (r *registrar) reachable(ext string) []binding {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []binding
	now := time.Now()
	for _, b := range r.bindings[ext] {
		if now.Before(b.expires) && b.alive() && (b.hop.transport == "UDP" || r.s.end.flows.find(b.hop) != nil) {
			out = append(out, b)
		}
	}
	return out
}

// moved finds the connection by which a device of ext is reached now that was
// reached by old: the same host and transport.
func (r *registrar) moved(ext string, old hop) (hop, bool) {
	for _, b := range r.reachable(ext) {
		if b.hop.transport == old.transport && b.hop.remote.Addr() == old.remote.Addr() && r.s.end.flows.find(b.hop) != nil {
			return b.hop, true
		}
	}
	return hop{}, false
}

// flowGone drops the bindings of a connection that has ended: nobody can be
// called by it (RFC 5626 §5.3).
func (r *registrar) flowGone(f *flow) {
	r.mu.Lock()
	var lost []string
	for ext, list := range r.bindings {
		kept := slices.DeleteFunc(slices.Clone(list), func(b binding) bool { return b.hop.transport == f.transport && b.hop.remote == f.remote })
		if len(kept) < len(list) {
			r.put(ext, kept)
			lost = append(lost, ext)
		}
	}
	r.lost = append(r.lost, lost...)
	r.mu.Unlock()
	if len(lost) > 0 {
		r.poke()
	}
}

func (r *registrar) poke() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// settleLost saves and announces the extensions that lost a connection.
func (r *registrar) settleLost() {
	r.mu.Lock()
	lost := r.lost
	r.lost = nil
	r.mu.Unlock()
	for _, ext := range lost {
		r.s.log.Info("phone's connection ended", "ext", ext)
		r.s.scribe.put(ext)
		r.announce(ext)
	}
}

func (b binding) alive() bool { return b.misses < missesToDown && !b.suspended }

// suspend takes a device out that has answered a call with nothing at all, not
// even 100 Trying: no call is offered to it until it answers an OPTIONS or
// registers anew.
func (r *registrar) suspend(b binding) {
	r.mu.Lock()
	for i := range r.bindings[b.ext] {
		if m := &r.bindings[b.ext][i]; m.contact() == b.contact() && m.callID == b.callID && m.seq == b.seq {
			m.suspended = true
		}
	}
	r.mu.Unlock()
	r.announce(b.ext)
}

// knows reports whether a device of ext is registered from that address.
func (r *registrar) knows(addr netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range r.bindings {
		for _, b := range list {
			if b.hop.remote == addr {
				return true
			}
		}
	}
	return false
}

// keep drops what expires, and pings every device each interval, until ctx is
// done.
func (r *registrar) keep(ctx context.Context, interval time.Duration) {
	const sweep = 5 * time.Second
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	var nextPing, nextLook time.Time
	var pings sync.WaitGroup
	defer pings.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-tick.C:
		}
		r.settleLost()
		for _, ext := range r.expire(time.Now()) {
			r.s.log.Log(ctx, slog.LevelInfo, "registration expired", "ext", ext)
			r.announce(ext)
		}
		now := time.Now()
		all := interval > 0 && !now.Before(nextPing)
		if all {
			nextPing = now.Add(interval)
		}
		look := !now.Before(nextLook)
		if look {
			nextLook = now.Add(suspendedLook)
		}
		for _, b := range r.all() {
			if all || look && b.suspended {
				pings.Go(func() {
					r.s.ping(ctx, b.hop, b.uri, func(err error) { r.answered(b, err == nil) })
				})
			}
		}
	}
}

// suspendedLook is how often a suspended device is asked whether it is there
// again, whatever sip.options_interval says.
const suspendedLook = 10 * time.Second

func (r *registrar) all() []binding {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []binding
	for _, list := range r.bindings {
		out = append(out, list...)
	}
	return out
}

// expire drops dead bindings and returns the extensions that lost one.
func (r *registrar) expire(now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for ext, list := range r.bindings {
		if live := dropExpired(list, now); len(live) < len(list) {
			r.put(ext, live)
			out = append(out, ext)
		}
	}
	return out
}

// answered counts unanswered OPTIONS of one device.
func (r *registrar) answered(b binding, ok bool) {
	r.mu.Lock()
	moved := false
	for i := range r.bindings[b.ext] {
		m := &r.bindings[b.ext][i]
		if m.contact() != b.contact() {
			continue
		}
		was := m.alive()
		if ok {
			m.misses, m.suspended = 0, false
		} else {
			m.misses++
		}
		moved = moved || was != m.alive()
	}
	r.mu.Unlock()
	if moved {
		r.announce(b.ext)
	}
}
