package pbxtest

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"strings"
)

// Answers to digest challenges (RFC 7616 §3.4, RFC 8760 §2), in arithmetic of
// our own so that it checks the switch's.

type challenge struct {
	realm, nonce, opaque, algorithm string
	qop                             bool
}

func challengeField(status int) (asks, answers string) {
	switch status {
	case 401:
		return "WWW-Authenticate", "Authorization"
	case 407:
		return "Proxy-Authenticate", "Proxy-Authorization"
	}
	return "", ""
}

// challenged picks the strongest challenge that the peer can answer.
func (p *Peer) challenged(m *Message) (challenge, bool) {
	var best challenge
	asks, _ := challengeField(m.Status)
	if asks == "" || p.cfg.Password == "" {
		return best, false
	}
	for _, v := range m.All(asks) {
		scheme, rest, ok := strings.Cut(v, " ")
		if !ok || !eq(scheme, "Digest") {
			continue
		}
		c := challenge{algorithm: "MD5"}
		for _, part := range splitOutside(rest, ',') {
			k, v, _ := strings.Cut(part, "=")
			v = strings.Trim(strings.TrimSpace(v), `"`)
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "realm":
				c.realm = v
			case "nonce":
				c.nonce = v
			case "opaque":
				c.opaque = v
			case "algorithm":
				c.algorithm = strings.ToUpper(v)
			case "qop":
				for _, q := range strings.Split(v, ",") {
					c.qop = c.qop || eq(strings.TrimSpace(q), "auth")
				}
			}
		}
		if c.algorithm != "MD5" && c.algorithm != "SHA-256" || p.cfg.Algorithm != "" && c.algorithm != p.cfg.Algorithm {
			continue
		}
		if best.algorithm == "" || c.algorithm == "SHA-256" {
			best = c
		}
	}
	return best, best.algorithm != ""
}

func (p *Peer) canAnswer(m *Message) bool {
	_, ok := p.challenged(m)
	return ok
}

// authorize makes req anew with the credentials that res asks for: the next
// CSeq and another branch (RFC 3261 §22.2).
func (p *Peer) authorize(req, res *Message) {
	ch, _ := p.challenged(res)
	_, answers := challengeField(res.Status)
	num, _ := req.CSeq()
	num++
	if c := p.calls[req.CallID()]; c != nil {
		c.cseq = max(c.cseq, num)
		num = c.cseq
	}
	req.Set("CSeq", fmt.Sprintf("%d %s", num, req.Method))
	req.Set("Via", p.via())
	p.nonces[ch.nonce]++
	req.Set(answers, p.credentials(ch, req.Method, req.URI, p.nonces[ch.nonce]))
}

func (p *Peer) credentials(ch challenge, method, uri string, count int) string {
	username := p.cfg.Username
	if username == "" {
		username = p.cfg.User
	}
	hash := func(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
	if ch.algorithm == "SHA-256" {
		hash = func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	}
	ha1 := hash(username + ":" + ch.realm + ":" + p.cfg.Password)
	ha2 := hash(method + ":" + uri)
	var b strings.Builder
	fmt.Fprintf(&b, `Digest username="%s", realm="%s", nonce="%s", uri="%s", algorithm=%s`, username, ch.realm, ch.nonce, uri, ch.algorithm)
	if ch.qop {
		cnonce := p.token()
		nc := fmt.Sprintf("%08x", count)
		fmt.Fprintf(&b, `, response="%s", qop=auth, nc=%s, cnonce="%s"`, hash(strings.Join([]string{ha1, ch.nonce, nc, cnonce, "auth", ha2}, ":")), nc, cnonce)
	} else {
		fmt.Fprintf(&b, `, response="%s"`, hash(ha1+":"+ch.nonce+":"+ha2))
	}
	if ch.opaque != "" {
		fmt.Fprintf(&b, `, opaque="%s"`, ch.opaque)
	}
	return b.String()
}
