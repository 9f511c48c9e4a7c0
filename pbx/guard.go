package pbx

import (
	"bytes"
	"container/list"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// guardConfig configures a guard. The zero value lets everybody in at the
// default rate and bans nobody.
type guardConfig struct {
	Trusted []netip.Prefix // never limited, never banned
	Trunks  []netip.Prefix // the same
	Phones  []netip.Prefix // networks from which phones may come; empty = any
	Bans    bool           // ban sources that guess passwords

	Rate     float64 // messages per second of one unknown source; default 20
	Burst    int     // at once; default 100
	Failures int     // wrong passwords until the first ban; default 5
	Sources  int     // sources remembered, in each of two tables; default 8192
}

// Bans double from the first to the last; a day without a wrong password
// forgives all.
const (
	guardFirstBan = 30 * time.Second
	guardLastBan  = 24 * time.Hour
	guardForgive  = 24 * time.Hour
)

// verdict is what to do with a datagram.
type verdict uint8

const (
	verdictAdmit verdict = iota
	verdictDrop          // silently
)

// What counts reports, no addresses among it.
const (
	guardExempt   = "exempt"     // trusted networks, trunks, registered phones
	guardAdmitted = "admitted"   // of others
	guardBanned   = "banned"     // dropped: the source is banned
	guardForeign  = "foreign"    // dropped: not from the phones' networks
	guardScanner  = "scanner"    // dropped: a known scanner
	guardFlooding = "flooding"   // dropped: over the rate
	guardCrowded  = "crowded"    // connections refused: there are enough
	guardBans     = "bans"       // bans imposed
	guardFailures = "failures"   // wrong passwords
	guardActive   = "banned_now" // sources banned now
)

// guard decides by source, before anything is parsed, what deserves work. Its
// methods are safe for concurrent use and bounded in time and memory; it has no
// goroutine and no timer.
//
// Trusted networks, trunks and registered phones always pass and get the answer
// that the RFC wants. Everybody else passes only from the phones' networks,
// within a rate, unless banned or known as a scanner; and is dropped in silence
// otherwise, for an answer is what scanners look for.
//
// A source is an IPv4 address or an IPv6 /64. The addresses of UDP can be
// forged; that a registered phone cannot be banned keeps others from locking it
// out with forged wrong passwords.
type guard struct {
	mu         sync.Mutex
	cfg        guardConfig
	registered map[netip.Addr]bool
	buckets    guardTable[guardBucket]
	offenders  guardTable[guardOffender]
	count      map[string]uint64
	told       time.Time // when the log heard of a ban last
	untold     uint64    // bans since, of sources that the log has not heard of
}

type guardBucket struct {
	tokens float64
	at     time.Time
}

type guardOffender struct {
	failures int
	bans     int // imposed so far
	last     time.Time
	until    time.Time // of the ban
}

func newGuard(cfg guardConfig) *guard {
	cfg = cfg.withDefaults()
	return &guard{cfg: cfg, registered: make(map[netip.Addr]bool), count: make(map[string]uint64),
		buckets: newGuardTable[guardBucket](cfg.Sources), offenders: newGuardTable[guardOffender](cfg.Sources)}
}

func (cfg guardConfig) withDefaults() guardConfig {
	if cfg.Rate <= 0 {
		cfg.Rate = 20
	}
	if cfg.Burst <= 0 {
		cfg.Burst = 100
	}
	if cfg.Failures <= 0 {
		cfg.Failures = 5
	}
	if cfg.Sources <= 0 {
		cfg.Sources = 8192
	}
	return cfg
}

// configure replaces the configuration; bans in force stay, unless bans are
// switched off.
func (g *guard) configure(cfg guardConfig) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cfg = cfg.withDefaults()
}

// admit judges a datagram, or the first bytes of a connection; first may be
// empty, then only the source is judged.
func (g *guard) admit(source netip.AddrPort, first []byte) verdict {
	addr := source.Addr().Unmap().WithZone("")
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.exempt(addr) {
		g.count[guardExempt]++
		return verdictAdmit
	}
	now := time.Now()
	key := guardKey(addr)
	if o := g.offenders.get(key); o != nil && g.cfg.Bans && now.Before(o.until) {
		g.count[guardBanned]++
		return verdictDrop
	}
	// Responses come from wherever we sent a request to.
	if len(g.cfg.Phones) > 0 && !contains(g.cfg.Phones, addr) && !bytes.HasPrefix(first, []byte("SIP/2.0 ")) {
		g.count[guardForeign]++
		return verdictDrop
	}
	if isScanner(first) {
		g.count[guardScanner]++
		return verdictDrop
	}
	b := g.buckets.take(key)
	if b.at.IsZero() {
		b.tokens = float64(g.cfg.Burst)
	}
	b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*g.cfg.Rate, float64(g.cfg.Burst))
	b.at = now
	if b.tokens < 1 {
		g.count[guardFlooding]++
		return verdictDrop
	}
	b.tokens--
	g.count[guardAdmitted]++
	return verdictAdmit
}

// known reports whether addr is a trunk's, a registered phone's or trusted.
func (g *guard) known(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.exempt(addr.Unmap().WithZone(""))
}

// crowded counts a connection that found no room.
func (g *guard) crowded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count[guardCrowded]++
}

// exempt tells whether the source always passes.
func (g *guard) exempt(addr netip.Addr) bool {
	return g.registered[addr] || contains(g.cfg.Trusted, addr) || contains(g.cfg.Trunks, addr)
}

// imposed is a ban that authFailed has imposed, for the log.
type imposed struct {
	source netip.Addr // IPv4 address or IPv6 /64
	length time.Duration
	again  bool   // the source was banned before, and told of then
	untold uint64 // bans before this one that nobody was told of
}

// guardTell is the least time between two bans that are told of. A botnet of a
// thousand addresses is a thousand sources, and a log that nobody reads.
const guardTell = 10 * time.Second

// tell decides whether the log hears of a ban: once per source, and not more often
// than guardTell allows. The mutex is held.
func (g *guard) tell(b imposed, now time.Time) (imposed, bool) {
	if b.again || !g.told.IsZero() && now.Sub(g.told) < guardTell {
		if !b.again {
			g.untold++
		}
		return b, false
	}
	b.untold, g.untold, g.told = g.untold, 0, now
	return b, true
}

// authFailed notes a wrong password or unknown user. If that imposes a ban of
// which the log should hear, told is true.
func (g *guard) authFailed(source netip.Addr) (ban imposed, told bool) {
	addr := source.Unmap().WithZone("")
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count[guardFailures]++
	if !g.cfg.Bans || g.exempt(addr) {
		return imposed{}, false
	}
	now := time.Now()
	o := g.offenders.take(guardKey(addr))
	if now.Sub(o.last) > guardForgive {
		*o = guardOffender{}
	}
	o.last = now
	// After a ban one more is enough for the next.
	if o.failures++; o.failures < g.cfg.Failures && o.bans == 0 {
		return imposed{}, false
	}
	if now.Before(o.until) {
		return imposed{}, false // requests that were already under way
	}
	ban = imposed{source: guardKey(addr), length: min(guardFirstBan<<min(o.bans, 16), guardLastBan), again: o.bans > 0}
	o.until = now.Add(ban.length)
	o.bans++
	g.count[guardBans]++
	return g.tell(ban, now)
}

// authSucceeded forgives what the source got wrong before.
func (g *guard) authSucceeded(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offenders.drop(guardKey(source.Unmap().WithZone("")))
}

// setRegistered tells that a phone is registered at the address now, or that the
// last one there is gone. To say it again changes nothing.
func (g *guard) setRegistered(addr netip.Addr, on bool) {
	addr = addr.Unmap().WithZone("")
	g.mu.Lock()
	defer g.mu.Unlock()
	if on {
		g.registered[addr] = true
	} else {
		delete(g.registered, addr)
	}
}

// counts reports, since the start, datagrams by what became of them, bans and
// wrong passwords. The map is the caller's.
func (g *guard) counts() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, now := maps.Clone(g.count), time.Now()
	c[guardActive] = 0
	for e := g.offenders.order.Front(); e != nil; e = e.Next() {
		if now.Before(e.Value.(*guardEntry[guardOffender]).value.until) {
			c[guardActive]++
		}
	}
	return c
}

// guardKey is what a source is known by: whoever has an IPv6 address has a /64.
func guardKey(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

func contains(nets []netip.Prefix, addr netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// guardScanners are names, in lower case, that tools which look for open
// switches give themselves in User-Agent or From.
var guardScanners = [][]byte{
	[]byte("friendly-scanner"), []byte("friendly-request"), []byte("sipvicious"), []byte("sip-scan"), []byte("sipcli"),
	[]byte("sundayddr"), []byte("iwar"), []byte("sivus"), []byte("sipsak"), []byte("siparmyknife"), []byte("vaxsip"),
	[]byte("vaxipuseragent"), []byte("pplsip"), []byte("sip scanner"), []byte("nm@nm"), []byte("smap"), []byte("nmap"),
}

// isScanner looks into the User-Agent and From lines of a message's first bytes.
func isScanner(first []byte) bool {
	first = first[:min(len(first), 2048)]
	for len(first) > 0 {
		line, rest, _ := bytes.Cut(first, []byte{'\n'})
		first = rest
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return false // the head ends here
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		switch name = bytes.TrimSpace(name); {
		case bytes.EqualFold(name, []byte("User-Agent")), bytes.EqualFold(name, []byte("From")), bytes.EqualFold(name, []byte("f")):
			value = bytes.ToLower(value)
			for _, s := range guardScanners {
				if bytes.Contains(value, s) {
					return true
				}
			}
		}
	}
	return false
}

// guardTable keeps the sources seen last, up to a limit.
type guardTable[T any] struct {
	limit int
	index map[netip.Addr]*list.Element // of *guardEntry[T]
	order *list.List                   // longest unseen first
}

type guardEntry[T any] struct {
	key   netip.Addr
	value T
}

func newGuardTable[T any](limit int) guardTable[T] {
	return guardTable[T]{limit: limit, index: make(map[netip.Addr]*list.Element), order: list.New()}
}

// get finds a source without marking it as seen; nil if unknown.
func (t *guardTable[T]) get(key netip.Addr) *T {
	if e := t.index[key]; e != nil {
		return &e.Value.(*guardEntry[T]).value
	}
	return nil
}

// take finds or makes a source's entry and marks it as seen.
func (t *guardTable[T]) take(key netip.Addr) *T {
	if e := t.index[key]; e != nil {
		t.order.MoveToBack(e)
		return &e.Value.(*guardEntry[T]).value
	}
	if len(t.index) >= t.limit {
		old := t.order.Front()
		delete(t.index, t.order.Remove(old).(*guardEntry[T]).key)
	}
	entry := &guardEntry[T]{key: key}
	t.index[key] = t.order.PushBack(entry)
	return &entry.value
}

func (t *guardTable[T]) drop(key netip.Addr) {
	if e := t.index[key]; e != nil {
		t.order.Remove(e)
		delete(t.index, key)
	}
}
