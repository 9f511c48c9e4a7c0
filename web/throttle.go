package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// throttle slows down those who guess passwords: after some wrong guesses from
// an address, or at a login, the next must wait, each time twice as long. What
// it knows are salted hashes in memory; no address is stored or logged (S1.2-c).
type throttle struct {
	salt []byte
	mu   sync.Mutex // guards what follows
	of   map[[sha256.Size]byte]guesses
}

type guesses struct {
	wrong int
	next  time.Time // not before
	last  time.Time
}

// free is how many wrong guesses cost nothing: few from one address, more at one
// login, so that nobody locks a colleague out by a handful of guesses.
const (
	freeByAddress = 5
	freeByLogin   = 20
	longestWait   = 15 * time.Minute
	forgetAfter   = time.Hour
	maxGuessers   = 10_000
)

func newThrottle() *throttle {
	salt := make([]byte, 32)
	rand.Read(salt) // never fails (crypto/rand, Go 1.24)
	return &throttle{salt: salt, of: make(map[[sha256.Size]byte]guesses)}
}

func (t *throttle) key(kind, text string) [sha256.Size]byte {
	h := hmac.New(sha256.New, t.salt)
	h.Write([]byte(kind + "\x00" + text))
	return [sha256.Size]byte(h.Sum(nil))
}

// addressOf is the network that guesses are counted for: an IPv4 address, or
// the 64 bits of IPv6 that one subscriber has.
func addressOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := ap.Addr().Unmap()
	if addr.Is6() {
		return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
	}
	return addr.String()
}

// guess is one that is being made. It counts as wrong from its beginning, so that
// guesses made at once are not free of each other.
type guess struct {
	of    *throttle
	keys  [2][sha256.Size]byte
	until [2]time.Time // the waits that it set
}

func (t *throttle) keys(remote, login string) [2][sha256.Size]byte {
	return [2][sha256.Size]byte{t.key("address", addressOf(remote)), t.key("login", login)}
}

// begin lets a guess be made, or returns how long the next one has to wait.
func (t *throttle) begin(remote, login string) (g guess, wait time.Duration) {
	keys, now := t.keys(remote, login), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		wait = max(wait, t.of[k].next.Sub(now))
	}
	if wait > 0 {
		return g, wait
	}
	return t.note(keys), 0
}

// note counts a guess; t.mu is held.
func (t *throttle) note(keys [2][sha256.Size]byte) guess {
	now := time.Now()
	if len(t.of) >= maxGuessers {
		for k, g := range t.of {
			if now.Sub(g.last) > forgetAfter {
				delete(t.of, k)
			}
		}
	}
	if len(t.of) >= maxGuessers { // a flood: forget at random rather than grow
		for k := range t.of {
			delete(t.of, k)
			break
		}
	}
	made := guess{of: t, keys: keys}
	for i, free := range [2]int{freeByAddress, freeByLogin} {
		g := t.of[keys[i]]
		if now.Sub(g.last) > forgetAfter {
			g = guesses{}
		}
		g.wrong, g.last = g.wrong+1, now
		if over := g.wrong - free; over >= 0 {
			g.next = now.Add(min(longestWait, time.Second<<min(over, 20)))
		}
		made.until[i] = g.next
		t.of[keys[i]] = g
	}
	return made
}

// takeBack is for a guess that was not wrong: it has not been made. Wrong ones
// of before stay, those of its address above all, or one account of one's own
// would let one guess at others.
func (g guess) takeBack() {
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	for i, k := range g.keys {
		o, known := g.of.of[k]
		if !known {
			continue
		}
		o.wrong = max(0, o.wrong-1)
		if o.next.Equal(g.until[i]) {
			o.next = time.Time{}
		}
		g.of.of[k] = o
	}
}

// succeeded forgets the wrong guesses at a login, whose holder is there.
func (t *throttle) succeeded(login string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, t.key("login", login))
}
