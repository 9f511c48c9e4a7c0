package pbx

import (
	"bytes"
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// authSecret is what one user proves to have: the password, or the hashes
// H(user:realm:password) instead of it, in lower case hexadecimal. An empty
// hash means that the user cannot use that algorithm.
type authSecret struct {
	Password    string
	SHA256, MD5 string
}

// authConfig configures an authServer; only Realm and Secret are required.
type authConfig struct {
	Realm string
	// Secret finds a user's secret. It must take about as long for a user that
	// does not exist.
	Secret func(user string) (authSecret, bool)
	// NonceLife is how long a nonce is good for; default 5 minutes. After it a
	// client that knows the password is told stale=true and tries again without
	// asking anybody.
	NonceLife time.Duration
	// Nonces bounds the memory for replay detection; default 4096 nonces.
	Nonces int
}

// authResult is the outcome of verify.
type authResult uint8

const (
	authNone      authResult = iota // no credentials for our realm: challenge
	authOK                          // the user is who it says
	authStale                       // right password, nonce too old or used before: challenge with stale
	authFailed                      // wrong password or no such user; never say which
	authMalformed                   // credentials that cannot be read: 400
)

// authServer checks digest credentials (RFC 7616, RFC 8760, RFC 3261 §22). Its
// methods are safe for concurrent use; it has no goroutine.
//
// Nonces are stateless: a time and a random part under a MAC that also covers
// the source address, so a challenge costs no memory and a flood of them none
// either. What is remembered, in bounded memory, are the nonces that were used
// with a right password, to find replays: by their nonce count within a window,
// as requests over UDP may overtake each other. When that memory overflows the
// oldest nonce goes, and every nonce at least as old that is not remembered
// counts as stale from then on; so overflow costs a round trip, not safety.
type authServer struct {
	cfg authConfig
	key [32]byte

	mu    sync.Mutex
	used  map[string]*list.Element // of *authUse, by nonce
	order *list.List               // oldest use first
	floor time.Time                // newer than every nonce forgotten
}

// authUse is a nonce that was used: the highest count and a window below it.
type authUse struct {
	nonce  string
	issued time.Time
	top    int
	window uint64 // bit i: top-i was seen
}

// newAuthServer draws a fresh key: nonces do not outlive the process.
func newAuthServer(cfg authConfig) *authServer {
	if cfg.NonceLife <= 0 {
		cfg.NonceLife = 5 * time.Minute
	}
	if cfg.Nonces <= 0 {
		cfg.Nonces = 4096
	}
	a := &authServer{cfg: cfg, used: make(map[string]*list.Element), order: list.New()}
	rand.Read(a.key[:]) // never fails (crypto/rand, Go 1.24)
	return a
}

// challenge writes the headers of a 401 (WWW-Authenticate) or 407
// (Proxy-Authenticate): SHA-256 first, then MD5 for the phones that know no
// better, with one nonce (RFC 8760 §2.4); or the algorithms named, for a phone
// that stumbles over those it does not know.
func (a *authServer) challenge(status int, source netip.Addr, stale bool, algorithms ...string) []sip.Header {
	if len(algorithms) == 0 {
		algorithms = []string{"SHA-256", "MD5"}
	}
	name := "WWW-Authenticate"
	if status == 407 {
		name = "Proxy-Authenticate"
	}
	nonce := a.nonce(time.Now(), source)
	var out []sip.Header
	for _, algorithm := range algorithms {
		c := digest.Challenge{Realm: a.cfg.Realm, Nonce: nonce, Stale: stale, Algorithm: algorithm, QOP: []string{"auth"}}
		out = append(out, sip.NewHeader(name, c.String()))
	}
	return out
}

// Layout of a nonce before base64: 8 bytes Unix milliseconds, 8 random, 16 MAC.
const authNonceLen = 32

func (a *authServer) nonce(now time.Time, source netip.Addr) string {
	b := make([]byte, 16, authNonceLen)
	binary.BigEndian.PutUint64(b, uint64(now.UnixMilli()))
	rand.Read(b[8:])
	return base64.RawURLEncoding.EncodeToString(append(b, a.mac(b, source)...))
}

func (a *authServer) mac(b []byte, source netip.Addr) []byte {
	h := hmac.New(sha256.New, a.key[:])
	h.Write(b)
	raw := source.Unmap().As16()
	h.Write(raw[:])
	return h.Sum(nil)[:16]
}

// issued tells when we made a nonce for that source; false if we did not.
func (a *authServer) issued(nonce string, source netip.Addr) (time.Time, bool) {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != authNonceLen || !hmac.Equal(b[16:], a.mac(b[:16], source)) {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))), true
}

// verify checks the credentials of a request from source, in Authorization or
// Proxy-Authorization, against its method. user is set for authOK only.
func (a *authServer) verify(req *sip.Request, source netip.Addr) (user string, result authResult) {
	cred, result := a.credentials(req)
	if cred == nil {
		return "", result
	}
	secret, known := a.cfg.Secret(cred.Username)
	want, ok := authResponse(cred, string(req.Method), secret)
	if !known || !ok {
		// The same work for a user that is not there, and never a match.
		decoy := sha256.Sum256(a.key[:])
		want, _ = authResponse(cred, string(req.Method), authSecret{Password: string(decoy[:])})
		known = false
	}
	match := subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(cred.Response))) == 1
	if !match || !known {
		return "", authFailed
	}
	at, ours := a.issued(cred.Nonce, source)
	if age := time.Since(at); !ours || age > a.cfg.NonceLife || age < -time.Second {
		return "", authStale
	}
	count := cred.Nc
	if cred.QOP == "" {
		count = 1 // clients from before qop count nothing: one use
	}
	if !a.use(cred.Nonce, at, count) {
		return "", authStale
	}
	return cred.Username, authOK
}

// credentials finds those for our realm. Another scheme, realm or algorithm is
// as good as none.
func (a *authServer) credentials(req *sip.Request) (*digest.Credentials, authResult) {
	result := authNone
	for _, name := range []string{"Authorization", "Proxy-Authorization"} {
		for _, h := range req.GetHeaders(name) {
			value := authBlanks(h.Value())
			if !digest.IsDigest(value) {
				continue
			}
			c, err := digest.ParseCredentials(value)
			if err != nil {
				result = authMalformed
				continue
			}
			if c.Realm != a.cfg.Realm || (!strings.EqualFold(c.Algorithm, "SHA-256") && !strings.EqualFold(c.Algorithm, "MD5") && c.Algorithm != "") {
				continue
			}
			if c.Userhash || len(c.Username) > 256 || (c.QOP != "" && (!strings.EqualFold(c.QOP, "auth") || c.Nc < 1 || c.Cnonce == "")) || !sameUser(c.URI, req) {
				result = authMalformed
				continue
			}
			return c, authOK
		}
	}
	return nil, result
}

// authBlanks makes tabs spaces, which is all that the parser skips.
func authBlanks(v string) string { return strings.TrimSpace(strings.ReplaceAll(v, "\t", " ")) }

// sameUser compares the digest-uri with the Request-URI (RFC 7616 §3.4.6) in the
// part that decides whom a request is for. Hosts, ports and parameters are
// rewritten on the way, or written differently by phones to begin with; and in a
// REGISTER some phones name the address that they register.
func sameUser(text string, req *sip.Request) bool {
	var u sip.Uri
	if err := sip.ParseUri(strings.TrimSpace(text), &u); err != nil {
		return false
	}
	return req.Method == sip.REGISTER || (u.User == req.Recipient.User && u.Raw() == req.Recipient.Raw())
}

// authResponse computes what the response must be; false if the secret has
// nothing for the algorithm.
func authResponse(c *digest.Credentials, method string, secret authSecret) (string, bool) {
	ha1 := secret.MD5
	if strings.EqualFold(c.Algorithm, "SHA-256") {
		ha1 = secret.SHA256
	}
	if ha1 == "" && secret.Password == "" {
		return "", false
	}
	ch := digest.Challenge{Realm: c.Realm, Nonce: c.Nonce, Algorithm: c.Algorithm}
	if c.QOP != "" {
		ch.QOP = []string{"auth"}
	}
	got, err := digest.Digest(&ch, digest.Options{Method: method, URI: c.URI, Count: c.Nc,
		Username: c.Username, Password: secret.Password, A1: ha1, Cnonce: c.Cnonce})
	if err != nil {
		return "", false
	}
	return got.Response, true
}

// use notes that a nonce was used with a count; false if it was before, or is so
// old that this cannot be told.
func (a *authServer) use(nonce string, issued time.Time, count int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.used[nonce]
	if e == nil {
		if !issued.After(a.floor) {
			return false
		}
		for len(a.used) >= a.cfg.Nonces {
			old := a.order.Remove(a.order.Front()).(*authUse)
			delete(a.used, old.nonce)
			if old.issued.After(a.floor) {
				a.floor = old.issued
			}
		}
		a.used[nonce] = a.order.PushBack(&authUse{nonce, issued, count, 1})
		a.forget()
		return true
	}
	u := e.Value.(*authUse)
	switch back := u.top - count; {
	case back < 0:
		u.window = u.window<<min(uint(-back), 64) | 1
		u.top = count
	case back >= 64 || u.window&(1<<back) != 0:
		return false
	default:
		u.window |= 1 << back
	}
	return true
}

// forget drops nonces from the front that are past their life anyway.
func (a *authServer) forget() {
	for e := a.order.Front(); e != nil; e = a.order.Front() {
		u := e.Value.(*authUse)
		if time.Since(u.issued) <= a.cfg.NonceLife {
			return
		}
		a.order.Remove(e)
		delete(a.used, u.nonce)
	}
}

// Why authorize cannot answer a challenge.
var (
	errAuthNoChallenge = errors.New("no challenge that can be answered")
	errAuthRejected    = errors.New("the credentials were rejected")
)

// authorize answers the challenges of a 401 or 407 in a request that is to be
// sent again: for each realm the strongest algorithm that we know gets its
// Authorization or Proxy-Authorization, replacing one of before. The caller then
// gives the request its next CSeq and a new branch (RFC 3261 §22.2).
//
// It returns errAuthRejected if a realm challenges credentials that req already
// carried for it, unless it says that only the nonce was stale; how often stale
// is believed is the caller's decision (once is enough).
func authorize(req *sip.Request, res *sip.Response, user, password string) error {
	from, to := "WWW-Authenticate", "Authorization"
	switch res.StatusCode {
	case 401:
	case 407:
		from, to = "Proxy-Authenticate", "Proxy-Authorization"
	default:
		return fmt.Errorf("authorize after %d: %w", res.StatusCode, errAuthNoChallenge)
	}
	var realms []*digest.Challenge
	for _, h := range res.GetHeaders(from) {
		c, err := digest.ParseChallenge(authBlanks(h.Value()))
		if err != nil || authStrength(c) == 0 {
			continue
		}
		known := false
		for i, r := range realms {
			if r.Realm == c.Realm {
				known = true
				if authStrength(c) > authStrength(r) {
					realms[i] = c
				}
			}
		}
		if !known && len(realms) < 8 {
			realms = append(realms, c)
		}
	}
	if len(realms) == 0 {
		return errAuthNoChallenge
	}
	var keep []sip.Header
	for _, h := range req.GetHeaders(to) {
		replaced := false
		if c, err := digest.ParseCredentials(authBlanks(h.Value())); err == nil {
			for _, r := range realms {
				if r.Realm != c.Realm {
					continue
				}
				if !r.Stale {
					return fmt.Errorf("realm %.80q: %w", r.Realm, errAuthRejected)
				}
				replaced = true
			}
		}
		if !replaced {
			keep = append(keep, h)
		}
	}
	var added []sip.Header
	for _, c := range realms {
		cred, err := digest.Digest(c, digest.Options{Method: string(req.Method), URI: req.Recipient.String(), Count: 1,
			Username: user, Password: password,
			GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(req.Body())), nil }})
		if err != nil {
			return fmt.Errorf("answer challenge of realm %.80q: %w", c.Realm, err)
		}
		added = append(added, sip.NewHeader(to, cred.String()))
	}
	for req.RemoveHeader(to) {
	}
	for _, h := range append(keep, added...) {
		req.AppendHeader(h)
	}
	return nil
}

// authStrength orders the challenges that we can answer; 0: not at all. It also
// brings qop lists with spaces into the form that the arithmetic expects.
func authStrength(c *digest.Challenge) int {
	for i := range c.QOP {
		c.QOP[i] = strings.ToLower(strings.TrimSpace(c.QOP[i]))
	}
	if c.Nonce == "" || !digest.CanDigest(c) {
		return 0
	}
	switch strings.ToUpper(c.Algorithm) {
	case "SHA-512-256":
		return 3
	case "SHA-256":
		return 2
	case "MD5", "":
		return 1
	}
	return 0
}
