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

// wait returns how long the next guess has to wait; zero: it may be made.
func (t *throttle) wait(remote, login string) time.Duration {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	longest := time.Duration(0)
	for _, k := range [][sha256.Size]byte{t.key("address", addressOf(remote)), t.key("login", login)} {
		longest = max(longest, t.of[k].next.Sub(now))
	}
	return longest
}

// failed notes a wrong guess.
func (t *throttle) failed(remote, login string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
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
	note := func(k [sha256.Size]byte, free int) {
		g := t.of[k]
		if now.Sub(g.last) > forgetAfter {
			g = guesses{}
		}
		g.wrong, g.last = g.wrong+1, now
		if over := g.wrong - free; over >= 0 {
			g.next = now.Add(min(longestWait, time.Second<<min(over, 20)))
		}
		t.of[k] = g
	}
	note(t.key("address", addressOf(remote)), freeByAddress)
	note(t.key("login", login), freeByLogin)
}

// succeeded forgets the wrong guesses at a login; those of the address stay, or
// one account of one's own would let one guess at others.
func (t *throttle) succeeded(login string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, t.key("login", login))
}
