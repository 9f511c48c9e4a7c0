package pbx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// register keeps us registered at the first server that answers: anew when less
// than half of the time is left (RFC 3261 §10.2), and at once somewhere else
// when the server of the registration is down.
func (t *trunk) register(ctx context.Context, s *Switch) {
	t.mu.Lock()
	var at *target
	for _, g := range t.targets {
		if g.up && at == nil {
			at = g
		}
	}
	if at == nil && len(t.targets) > 0 {
		at = t.targets[0]
	}
	if old := t.find(t.registrar); old != nil && old.up && time.Until(t.registered) > t.granted/2 {
		at = nil
	}
	if t.regID == "" && at != nil {
		t.regID = newCallID(at.hop.local.Addr().String())
	}
	t.mu.Unlock()
	if at == nil {
		return
	}
	expires, err := s.registerAt(ctx, at.hop, t)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.err = fmt.Errorf("register trunk %s: %w", t.cfg.Name, err)
		s.log.Warn("trunk registration refused", "trunk", t.cfg.Name, "err", err)
		return
	}
	t.err = nil
	t.registered, t.granted, t.registrar = time.Now().Add(expires), expires, at.hop
	s.log.Log(ctx, slog.LevelInfo, "trunk registered", "trunk", t.cfg.Name, "expires", expires)
}

// registerAt registers at one server and returns the granted time. Credentials
// are sent when asked for, and again if only their nonce was stale (RFC 7616
// §3.3); a time that is too short for the registrar is raised.
func (s *Switch) registerAt(ctx context.Context, h hop, t *trunk) (time.Duration, error) {
	want := max(600*time.Second, t.regLeast)
	aor := sipURI(t.cfg.User, t.domain(h), 0)
	tag := newTag()
	build := func() *sip.Request {
		t.regSeq++ // the keeper alone registers
		d := dialog{id: dialogID{t.regID, tag}, local: aor, remote: aor, target: t.uri("", h), hop: h}
		req := d.build(sip.REGISTER, t.regSeq)
		req.AppendHeader(s.end.contact(h, t.cfg.User))
		req.AppendHeader(sip.NewHeader("Expires", strconv.Itoa(int(want/time.Second))))
		s.end.address(req, h)
		return req
	}
	res, err := s.ask(ctx, build(), h)
	authorized := false
	for asked := 0; err == nil && !res.IsSuccess() && asked < 4; asked++ {
		challenged := res.StatusCode == 401 || res.StatusCode == 407
		switch {
		case challenged && authorized && !staleNonce(res):
			return 0, errors.New("the password is refused")
		case challenged:
			authorized = true
		case res.StatusCode == 423 && leastExpires(res) > want:
			want, authorized = leastExpires(res), false
			t.regLeast = want
		default:
			return 0, fmt.Errorf("status %d", res.StatusCode)
		}
		req := build()
		if challenged {
			if err := authorize(req, res, t.cfg.User, t.secret); err != nil {
				return 0, err
			}
		}
		res, err = s.ask(ctx, req, h)
	}
	if err != nil {
		return 0, err
	}
	if !res.IsSuccess() {
		return 0, fmt.Errorf("status %d", res.StatusCode)
	}
	granted := want
	if h := res.GetHeader("Expires"); h != nil {
		if n, err := strconv.Atoi(h.Value()); err == nil && n > 0 {
			granted = time.Duration(n) * time.Second
		}
	}
	if c := res.Contact(); c != nil {
		if v, ok := c.Params.Get("expires"); ok {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				granted = time.Duration(n) * time.Second
			}
		}
	}
	return granted, nil
}

// leastExpires is what a 423 asks for, of a sane size (RFC 3261 §10.2.8).
func leastExpires(res *sip.Response) time.Duration {
	if h := res.GetHeader("Min-Expires"); h != nil {
		if d, ok := deltaSeconds(h.Value()); ok && d <= 24*time.Hour {
			return d
		}
	}
	return 0
}

// staleNonce tells whether a challenge refuses only the nonce.
func staleNonce(res *sip.Response) bool {
	for _, name := range []string{"WWW-Authenticate", "Proxy-Authenticate"} {
		for _, h := range res.GetHeaders(name) {
			if strings.Contains(strings.ToLower(strings.ReplaceAll(h.Value(), `"`, "")), "stale=true") {
				return true
			}
		}
	}
	return false
}
