package pbx

import (
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

var authSource = netip.MustParseAddr("192.0.2.33")

func testAuth() *authServer {
	return newAuthServer(authConfig{Realm: "pbx", Secret: func(user string) (authSecret, bool) {
		switch user {
		case "101":
			return authSecret{Password: "tajne"}, true
		case "102": // hashes only: H("102:pbx:inne")
			return authSecret{SHA256: authHash("SHA-256", "102", "inne"), MD5: authHash("MD5", "102", "inne")}, true
		case "103":
			return authSecret{SHA256: authHash("SHA-256", "103", "x")}, true
		}
		return authSecret{}, false
	}})
}

// authHash computes H(user:realm:password).
func authHash(algorithm, user, password string) string {
	text := []byte(user + ":pbx:" + password)
	if algorithm == "SHA-256" {
		return fmt.Sprintf("%x", sha256.Sum256(text))
	}
	return fmt.Sprintf("%x", md5.Sum(text))
}

func authRegister() *sip.Request {
	return sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: "192.0.2.10"})
}

// challenged is the response with which a server challenges.
func challenged(headers ...sip.Header) *sip.Response {
	status := 401
	if len(headers) > 0 && strings.HasPrefix(headers[0].Name(), "Proxy") {
		status = 407
	}
	res := sip.NewResponse(status, "Unauthorized")
	for _, h := range headers {
		res.AppendHeader(h)
	}
	return res
}

// TestAuthBothSides: our client against our server, over everything they do.
func TestAuthBothSides(t *testing.T) {
	a := testAuth()
	for _, tt := range []struct {
		user, password string
		status         int
		only           string // the one algorithm that is offered
		want           authResult
	}{
		{"101", "tajne", 401, "", authOK},
		{"101", "tajne", 407, "", authOK},
		{"101", "tajne", 401, "MD5", authOK},
		{"102", "inne", 401, "", authOK},
		{"102", "inne", 401, "MD5", authOK},
		{"103", "x", 401, "", authOK},
		{"103", "x", 401, "MD5", authFailed},
		{"101", "falsz", 401, "", authFailed},
		{"101", "", 401, "", authFailed},
		{"999", "tajne", 401, "", authFailed},
		{"", "", 401, "", authFailed},
	} {
		var offered []sip.Header
		for _, h := range a.challenge(tt.status, authSource, false) {
			if tt.only == "" || strings.Contains(h.Value(), "algorithm="+tt.only) {
				offered = append(offered, h)
			}
		}
		req := authRegister()
		if _, result := a.verify(req, authSource); result != authNone {
			t.Errorf("without credentials: %v", result)
		}
		if err := authorize(req, challenged(offered...), tt.user, tt.password); err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		user, result := a.verify(req, authSource)
		if result != tt.want || (result == authOK) != (user == tt.user && user != "") {
			t.Errorf("%+v: %q %v", tt, user, result)
		}
		if tt.only == "" && !strings.Contains(req.String(), "algorithm=SHA-256") {
			t.Errorf("the weaker algorithm was chosen: %s", req)
		}
	}
}

func TestChallengeShape(t *testing.T) {
	h := testAuth().challenge(407, authSource, true)
	if len(h) != 2 || h[0].Name() != "Proxy-Authenticate" {
		t.Fatalf("%v", h)
	}
	for i, algorithm := range []string{"SHA-256", "MD5"} {
		c, err := digest.ParseChallenge(h[i].Value())
		if err != nil || c.Algorithm != algorithm || c.Realm != "pbx" || !c.Stale || len(c.QOP) != 1 || c.QOP[0] != "auth" || c.Nonce == "" {
			t.Errorf("%v: %+v %v", h[i], c, err)
		}
	}
}

// TestNonces: their life, their source, their use.
func TestNonces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testAuth()
		c, err := digest.ParseChallenge(a.challenge(401, authSource, false)[0].Value())
		if err != nil {
			t.Fatal(err)
		}
		send := func(nc int, source netip.Addr) authResult {
			cred, err := digest.Digest(c, digest.Options{Method: "REGISTER", URI: "sip:192.0.2.10", Count: nc, Username: "101", Password: "tajne"})
			if err != nil {
				t.Fatal(err)
			}
			req := authRegister()
			req.AppendHeader(sip.NewHeader("Authorization", cred.String()))
			_, result := a.verify(req, source)
			return result
		}
		for _, step := range []struct {
			nc   int
			want authResult
		}{{1, authOK}, {1, authStale}, {3, authOK}, {2, authOK}, {2, authStale}, {100, authOK}, {36, authStale}, {37, authOK}, {99, authOK}, {99, authStale}} {
			if got := send(step.nc, authSource); got != step.want {
				t.Errorf("count %d: %v, want %v", step.nc, got, step.want)
			}
		}
		if got := send(200, netip.MustParseAddr("192.0.2.34")); got != authStale {
			t.Errorf("another source: %v", got)
		}
		time.Sleep(5*time.Minute + time.Second)
		if got := send(300, authSource); got != authStale {
			t.Errorf("too old: %v", got)
		}
		if c.Nonce = "AAAA" + c.Nonce[4:]; send(1, authSource) != authStale {
			t.Error("a nonce of somebody's own making")
		}
		if b := testAuth(); b.key == a.key {
			t.Error("two servers share a key")
		}
	})
}

// TestReplayMemoryIsBounded: what was forgotten cannot be replayed.
func TestReplayMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := testAuth()
		a.cfg.Nonces = 10
		var requests []*sip.Request
		for range 40 {
			time.Sleep(10 * time.Millisecond)
			req := authRegister()
			if err := authorize(req, challenged(a.challenge(401, authSource, false)...), "101", "tajne"); err != nil {
				t.Fatal(err)
			}
			if _, result := a.verify(req, authSource); result != authOK {
				t.Fatalf("%v", result)
			}
			requests = append(requests, req)
		}
		if len(a.used) != 10 || a.order.Len() != 10 {
			t.Errorf("%d nonces kept", len(a.used))
		}
		for i, req := range requests {
			if _, result := a.verify(req, authSource); result != authStale {
				t.Errorf("replay of %d: %v", i, result)
			}
		}
		time.Sleep(6 * time.Minute)
		if !a.use("x", time.Now(), 1) || len(a.used) != 1 {
			t.Errorf("%d kept past their life", len(a.used))
		}
	})
}

func TestCredentialsOfOthers(t *testing.T) {
	a := testAuth()
	for value, want := range map[string]authResult{
		"NoOneKnowsThisScheme opaque-data=here": authNone,
		"Basic MTAxOnRham5l":                    authNone,
		`Digest username="101", realm="elsewhere", nonce="n", uri="sip:192.0.2.10", response="00"`:                                  authNone,
		`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00", algorithm=MD5-sess`:                    authNone,
		`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00"`:                                        authFailed,
		"Digest\tusername=\"101\",\trealm=\"pbx\", nonce=\"n\", uri=\"sip:192.0.2.10\", response=\"\"":                              authFailed,
		`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00", qop=auth, nc=-1, cnonce="x"`:           authMalformed,
		`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00", qop=auth-int, nc=00000001, cnonce="x"`: authMalformed,
		`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00", userhash=true`:                         authMalformed,
		`Digest username="101", realm="pbx", nonce="n", response="00"`:                                                              authMalformed,
		`Digest username="101`: authMalformed,
		`Digest `:              authNone,
	} {
		req := authRegister()
		req.AppendHeader(sip.NewHeader("Authorization", value))
		if _, got := a.verify(req, authSource); got != want {
			t.Errorf("%s: %v, want %v", value, got, want)
		}
	}
	// Credentials for one number do not dial another.
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", User: "102", Host: "192.0.2.10"})
	if err := authorize(req, challenged(a.challenge(407, authSource, false)...), "101", "tajne"); err != nil {
		t.Fatal(err)
	}
	req.Recipient.User = "0700123456"
	if _, result := a.verify(req, authSource); result != authMalformed {
		t.Errorf("another number: %v", result)
	}
	req.Recipient.User = "102"
	req.Method = sip.MESSAGE
	if _, result := a.verify(req, authSource); result != authFailed {
		t.Errorf("another method: %v", result)
	}
}

// TestOldClientWithoutQop: the arithmetic from before qop, but each nonce once.
func TestOldClientWithoutQop(t *testing.T) {
	a := testAuth()
	c, err := digest.ParseChallenge(a.challenge(401, authSource, false)[1].Value())
	if err != nil {
		t.Fatal(err)
	}
	c.QOP = nil
	cred, err := digest.Digest(c, digest.Options{Method: "REGISTER", URI: "sip:192.0.2.10", Username: "101", Password: "tajne"})
	if err != nil {
		t.Fatal(err)
	}
	req := authRegister()
	req.AppendHeader(sip.NewHeader("Authorization", cred.String()))
	if _, result := a.verify(req, authSource); result != authOK {
		t.Errorf("first: %v", result)
	}
	if _, result := a.verify(req, authSource); result != authStale {
		t.Errorf("second: %v", result)
	}
}

func TestAuthorize(t *testing.T) {
	ch := func(realm, algorithm, nonce, more string) sip.Header {
		return sip.NewHeader("WWW-Authenticate", fmt.Sprintf(`Digest realm=%q, nonce=%q, algorithm=%s%s`, realm, nonce, algorithm, more))
	}
	req := authRegister()
	if err := authorize(req, challenged(), "u", "p"); !errors.Is(err, errAuthNoChallenge) {
		t.Errorf("no challenge: %v", err)
	}
	if err := authorize(req, sip.NewResponse(403, "Forbidden"), "u", "p"); !errors.Is(err, errAuthNoChallenge) {
		t.Errorf("403: %v", err)
	}
	if err := authorize(req, challenged(ch("a", "MD5-sess", "1", ""), sip.NewHeader("WWW-Authenticate", "Basic x"), ch("a", "TIGER", "1", "")), "u", "p"); !errors.Is(err, errAuthNoChallenge) {
		t.Errorf("unknown algorithms: %v", err)
	}

	// Two realms, several algorithms each, qop as a list with spaces.
	err := authorize(req, challenged(ch("a", "MD5", "1", ""), ch("a", "SHA-256", "2", `, qop="auth-int, auth"`), ch("b", "MD5", "3", `, opaque="o"`), ch("a", "MD5", "4", "")), "u", "p")
	if err != nil {
		t.Fatal(err)
	}
	got := req.GetHeaders("Authorization")
	if len(got) != 2 {
		t.Fatalf("%v", got)
	}
	for i, want := range []digest.Credentials{{Realm: "a", Nonce: "2", QOP: "auth", Nc: 1}, {Realm: "b", Nonce: "3", Opaque: "o"}} {
		c, err := digest.ParseCredentials(got[i].Value())
		if err != nil || c.Realm != want.Realm || c.Nonce != want.Nonce || c.QOP != want.QOP || c.Opaque != want.Opaque || c.URI != "sip:192.0.2.10" || c.Username != "u" {
			t.Errorf("%d: %+v %v", i, c, err)
		}
	}
	// Stale replaces only its realm's; not stale is a wrong password.
	if err := authorize(req, challenged(ch("a", "SHA-256", "5", `, stale=TRUE, qop="auth"`)), "u", "p"); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(req.GetHeaders("Authorization"))
	if n := len(req.GetHeaders("Authorization")); n != 2 || !strings.Contains(text, `nonce="5"`) || !strings.Contains(text, `nonce="3"`) || strings.Contains(text, `nonce="2"`) {
		t.Errorf("stale: %s", text)
	}
	if err := authorize(req, challenged(ch("a", "SHA-256", "6", "")), "u", "p"); !errors.Is(err, errAuthRejected) {
		t.Errorf("rejected: %v", err)
	}
}

// FuzzAuth: no panic on any credentials or challenge, and none but the right
// ones are let in.
func FuzzAuth(f *testing.F) {
	a := testAuth()
	f.Add(`Digest username="101", realm="pbx", nonce="n", uri="sip:192.0.2.10", response="00", qop=auth, nc=00000001, cnonce="x"`)
	f.Add(`Digest realm="a", nonce="1", algorithm=SHA-256, qop="auth-int"`)
	f.Fuzz(func(t *testing.T, value string) {
		req := authRegister()
		req.AppendHeader(sip.NewHeader("Authorization", value))
		if user, result := a.verify(req, authSource); result == authOK || user != "" {
			t.Fatalf("%q was let in as %q", value, user)
		}
		req = authRegister()
		if authorize(req, challenged(sip.NewHeader("WWW-Authenticate", value)), "u", "p") == nil && len(req.GetHeaders("Authorization")) != 1 {
			t.Fatalf("no credentials for %q", value)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	a := testAuth()
	c, err := digest.ParseChallenge(a.challenge(401, authSource, false)[0].Value())
	if err != nil {
		b.Fatal(err)
	}
	cred, err := digest.Digest(c, digest.Options{Method: "REGISTER", URI: "sip:192.0.2.10", Count: 1, Username: "101", Password: "tajne"})
	if err != nil {
		b.Fatal(err)
	}
	req := authRegister()
	req.AppendHeader(sip.NewHeader("Authorization", cred.String()))
	b.ReportAllocs()
	for b.Loop() {
		a.verify(req, authSource)
	}
}
