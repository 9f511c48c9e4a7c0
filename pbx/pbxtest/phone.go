package pbxtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Carrier is the far end of the trunk: it places calls with the caller's
// identity as carriers give it, and takes the switch's calls into the world as
// Behave says. A trunk is known by its address; with a password in its
// PeerConfig it registers like a phone. It also accepts a REGISTER.
type Carrier struct{ *Peer }

// NewCarrier opens a carrier.
func NewCarrier(cfg PeerConfig) (*Carrier, error) {
	p, err := NewPeer(cfg)
	if err != nil {
		return nil, err
	}
	return &Carrier{p}, nil
}

// Phone is a desk phone: a peer that registers. Its User is its extension.
type Phone struct {
	*Peer
	register *Message // the last REGISTER; the same Call-ID throughout
	until    time.Time
	stop     chan struct{} // ends the refreshing
}

// NewPhone opens a phone, which is not registered yet.
func NewPhone(cfg PeerConfig) (*Phone, error) {
	p, err := NewPeer(cfg)
	if err != nil {
		return nil, err
	}
	return &Phone{Peer: p}, nil
}

// Dial calls a number with the phone's own identity.
func (p *Phone) Dial(number string) (*Call, error) { return p.Call(CallOptions{To: number}) }

// Register binds the phone for an hour and refreshes the binding at half of
// the time that the registrar grants, until Unregister or Close.
func (p *Phone) Register(ctx context.Context) error { return p.RegisterFor(ctx, time.Hour) }

// RegisterFor is Register with a time of one's own, whole seconds.
func (p *Phone) RegisterFor(ctx context.Context, expires time.Duration) error {
	granted, err := p.bind(ctx, expires)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil || p.closed {
		return nil // the refreshing goes on
	}
	stop := make(chan struct{})
	p.stop = stop
	p.wg.Go(func() { p.refresh(stop, expires, granted) })
	return nil
}

// Unregister removes the binding.
func (p *Phone) Unregister(ctx context.Context) error {
	p.mu.Lock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.mu.Unlock()
	_, err := p.bind(ctx, 0)
	return err
}

// Registered is until when the phone is bound; the zero time if it is not.
func (p *Phone) Registered() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.until
}

// refresh is the goroutine of a registered phone.
func (p *Phone) refresh(stop chan struct{}, expires, granted time.Duration) {
	for {
		timer := time.NewTimer(granted / 2)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return
		case <-p.done:
			timer.Stop()
			return
		}
		again, err := p.bind(context.Background(), expires) // ends by timer F or with the peer
		if err != nil {
			p.mu.Lock()
			if !p.closed {
				p.violate("registration not refreshed: %v", err)
			}
			p.mu.Unlock()
			return
		}
		granted = again
	}
}

// bind sends one REGISTER and returns the time that was granted.
func (p *Phone) bind(ctx context.Context, expires time.Duration) (time.Duration, error) {
	p.mu.Lock()
	m := p.register
	if m == nil {
		m = p.newRequest("REGISTER", "sip:"+p.cfg.Switch.String())
		aor := fmt.Sprintf("<sip:%s@%v>", p.cfg.User, hostOf(p.cfg.Switch.Addr()))
		m.Set("From", aor+";tag="+p.token())
		m.Set("To", aor)
		p.register = m
	} else {
		num, _ := m.CSeq()
		m = m.clone()
		m.Set("Via", p.via())
		m.Set("CSeq", fmt.Sprintf("%d REGISTER", num+1))
		// Credentials of an old nonce are not sent ahead: the registrar asks.
		m.Set("Authorization", "")
		p.register = m
	}
	m.Set("Expires", strconv.Itoa(int(expires/time.Second)))
	p.mu.Unlock()
	res, err := p.Request(ctx, m)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
	if res.Status != 200 {
		return 0, fmt.Errorf("%s: REGISTER answered %s", p.cfg.Name, res)
	}
	if expires == 0 {
		return 0, nil
	}
	granted, ok := p.granted(res)
	if !ok {
		p.violate("%s does not name our Contact with its time", res)
		return 0, fmt.Errorf("%s: REGISTER answered %s without our binding", p.cfg.Name, res)
	}
	if granted > expires {
		p.violate("%s grants %v, asked for %v", res, granted, expires)
	}
	p.until = time.Now().Add(granted)
	p.bound = true
	return granted, nil
}

// granted finds our binding in the response (RFC 3261 §10.3 step 8).
func (p *Phone) granted(res *Message) (time.Duration, bool) {
	for _, field := range res.All("Contact") {
		for _, c := range splitOutside(field, ',') {
			if !strings.EqualFold(uriOf(c), p.contactURI()) {
				continue
			}
			seconds := param(c, "expires")
			if seconds == "" {
				seconds = res.Get("Expires")
			}
			n, err := strconv.Atoi(seconds)
			return time.Duration(n) * time.Second, err == nil && n > 0
		}
	}
	return 0, false
}
