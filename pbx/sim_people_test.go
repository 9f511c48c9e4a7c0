package pbx_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
)

// The people of the city: callers, agents, and whoever is called. Errors of what
// they try are part of life there: a call ends while it is put on hold.

// live starts everybody.
func (s *city) live() {
	n := uint64(100)
	act := func(f func(*rand.Rand)) {
		n++
		rng := rand.New(rand.NewPCG(s.seed, n))
		s.actors.Go(func() { f(rng) })
	}
	s.actors.Go(s.progress)
	for _, f := range []func(*rand.Rand){s.citizens, s.crowds, s.reloads, s.faults, s.restarts} {
		act(f)
	}
	for _, c := range s.carriers {
		act(func(rng *rand.Rand) { s.answers(rng, func() *pbxtest.Peer { return c }) })
	}
	for i, e := range s.cfg.Extensions {
		ext, next := e.Number, s.cfg.Extensions[(i+1)%len(s.cfg.Extensions)].Number
		act(func(rng *rand.Rand) {
			s.answers(rng, func() *pbxtest.Peer {
				if p := s.phone(ext); p != nil {
					return p.Peer
				}
				return nil
			})
		})
		act(func(rng *rand.Rand) { s.dials(rng, ext, next) })
		act(func(rng *rand.Rand) { s.watches(rng, ext, next) })
	}
}

// sleep waits, and reports whether the day goes on.
func (s *city) sleep(d time.Duration) bool {
	time.Sleep(min(d, time.Until(s.ends)))
	return time.Now().Before(s.ends)
}

// every draws the time to the next of what happens so often; in a short day it
// happens more often.
func (s *city) every(rng *rand.Rand, mean time.Duration) time.Duration {
	if s.length < time.Hour {
		mean /= 15
	}
	return time.Duration((0.1 + rng.ExpFloat64()) * float64(mean))
}

func (s *city) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did[what]++
}

// phone is the phone of an extension; nil while it is off.
func (s *city) phone(ext string) *pbxtest.Phone {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[ext]
}

// talk draws how long a conversation is: most are short, and some long enough to
// be refreshed several times.
func talk(rng *rand.Rand) time.Duration {
	switch n := rng.IntN(100); {
	case n < 2:
		return time.Duration(150+rng.IntN(400)) * time.Second
	case n < 6:
		return time.Duration(50+rng.IntN(100)) * time.Second
	default:
		return time.Second + time.Duration(rng.ExpFloat64()*float64(7*time.Second))
	}
}

// voice speaks for a moment and then goes silent, as with DTX.
func voice(rng *rand.Rand, hz int) *pbxtest.Voice {
	return &pbxtest.Voice{Say: pbxtest.Tone(hz), Limit: time.Duration(300+rng.IntN(1200)) * time.Millisecond, Deaf: true}
}

var shortSession = []pbxtest.Field{{Name: "Require", Value: "timer"}, {Name: "Session-Expires", Value: "90;refresher=uac"}}

// answer is how somebody answers who can be asked for reliable ringing and a
// session of 90 s. The city is locked.
func (s *city) answer(m *pbxtest.Message, hz int) pbxtest.Behaviour {
	b := pbxtest.AnswerAfter(time.Duration(200+s.rng.IntN(3000)) * time.Millisecond)
	b.Voice = voice(s.rng, hz)
	b.Early = s.rng.IntN(6) == 0
	b.Reliable = s.rng.IntN(4) == 0 && strings.Contains(m.Get("Supported"), "100rel")
	if s.rng.IntN(2) == 0 && strings.Contains(m.Get("Supported"), "timer") {
		b.Fields = shortSession
	}
	return b
}

// desk is what becomes of a call at a desk phone.
func (s *city) desk(m *pbxtest.Message) pbxtest.Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.rng.IntN(100); {
	case n < 5:
		return pbxtest.Reject(486)
	case n < 8:
		return pbxtest.Reject(603)
	case n < 14:
		return pbxtest.RingForEver()
	case n < 15:
		return pbxtest.Reject(500)
	case n < 16:
		return pbxtest.Behaviour{Ignore: true}
	default:
		return s.answer(m, phoneHz)
	}
}

// farEnd is what becomes of a call at a carrier.
func (s *city) farEnd(carrier int, m *pbxtest.Message) pbxtest.Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	if carrier == 0 && s.failing != 0 {
		if s.failing < 0 {
			return pbxtest.Behaviour{Ignore: true}
		}
		return pbxtest.Reject(s.failing)
	}
	switch n := s.rng.IntN(20); {
	case n < 3:
		return pbxtest.Reject(486)
	case n < 4:
		return pbxtest.Reject(404)
	case n < 6:
		return pbxtest.RingForEver()
	default:
		return s.answer(m, callerHz)
	}
}

// citizens call all day.
func (s *city) citizens(rng *rand.Rand) {
	for s.sleep(s.every(rng, 28*time.Second)) {
		s.citizen(rng)
	}
}

// crowds call all at once.
func (s *city) crowds(rng *rand.Rand) {
	for s.sleep(s.every(rng, 20*time.Minute)) {
		for range 8 + rng.IntN(8) {
			s.citizen(rng)
			time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
		}
	}
}

// citizen places a call and lets it live.
func (s *city) citizen(rng *rand.Rand) {
	rng = rand.New(rand.NewPCG(rng.Uint64(), 0))
	o := pbxtest.CallOptions{From: fmt.Sprintf("+486001%05d", rng.IntN(100000)), To: "+48914245000", Voice: voice(rng, callerHz)}
	switch kind := rng.IntN(20); {
	case kind < 2:
		o.Anonymous, o.Privacy = true, "id"
	case kind < 3:
		o.LateOffer = true
	case kind < 5:
		o.To = "+48914245111" // 101's own
	case kind < 6:
		o.To = "+48914249999" // nobody's
	case kind < 7:
		o.PAI = o.From
		o.Fields = []pbxtest.Field{{Name: "Diversion", Value: "<sip:+48914240000@operator.example>;reason=unconditional"}}
	}
	if rng.IntN(2) == 0 {
		o.Fields = append(o.Fields, sessionFields([]string{"", "uas"}[rng.IntN(2)])...)
	}
	carrier := s.carriers[min(1, rng.IntN(6)/5)]
	call, err := carrier.Call(o)
	s.r.must(err)
	s.mu.Lock()
	s.fromOut++
	s.mu.Unlock()
	s.actors.Go(func() {
		patience := talk(rng) + time.Duration(rng.IntN(20))*time.Second
		if rng.IntN(12) == 0 {
			patience = time.Duration(rng.IntN(1200)) * time.Millisecond // in the announcement
		}
		if rng.IntN(8) == 0 && call.WaitAnswered(patience) == nil {
			s.hold(rng, call, patience/4)
		}
		_ = call.WaitEnded(patience)
		call.Hangup()
	})
}

// hold holds and, unless the call has ended, resumes.
func (s *city) hold(rng *rand.Rand, c *pbxtest.Call, d time.Duration) {
	if c.WaitEnded(d) == nil || c.State() != pbxtest.Answered {
		return
	}
	s.count("hold")
	how := []pbxtest.Direction{pbxtest.SendOnly, pbxtest.Inactive}[rng.IntN(2)]
	if c.HoldAs(s.r.t.Context(), how, rng.IntN(4) == 0) == nil && c.WaitEnded(d) != nil {
		_ = c.Resume(s.r.t.Context())
	}
}

// answers takes the calls of a phone or a carrier and lives them.
func (s *city) answers(rng *rand.Rand, who func() *pbxtest.Peer) {
	for time.Now().Before(s.ends) {
		p := who()
		if p == nil {
			s.sleep(time.Second)
			continue
		}
		c, err := p.WaitCall(min(time.Minute, time.Until(s.ends)+time.Millisecond))
		if err != nil {
			s.sleep(time.Second) // it is switched off, perhaps
			continue
		}
		mine := rand.New(rand.NewPCG(rng.Uint64(), 0))
		s.actors.Go(func() {
			if c.WaitAnswered(time.Minute) == nil {
				s.converse(mine, p, c)
			}
			c.Hangup()
		})
	}
}

// converse is a conversation from the side of whoever was called.
func (s *city) converse(rng *rand.Rand, p *pbxtest.Peer, c *pbxtest.Call) {
	d := talk(rng)
	if c.WaitEnded(d/2) == nil {
		return
	}
	ctx, office := s.r.t.Context(), !slices.Contains(s.carriers, p)
	others := slices.DeleteFunc(slices.Clone(s.cfg.Extensions), func(e pbx.ExtensionConfig) bool { return e.Number == p.Name() })
	other := others[rng.IntN(len(others))].Number
	at := "@centralka.test"
	switch n := rng.IntN(20); {
	case n < 3:
		s.hold(rng, c, d/4)
	case !office:
	case n < 6:
		s.count("blind transfer")
		_, _ = c.Refer(ctx, "sip:"+other+at)
	case n < 7:
		s.count("transfer to outside")
		_, _ = c.Refer(ctx, "sip:0600100200"+at)
	case n < 8:
		s.count("transfer in vain")
		_, _ = c.Refer(ctx, "sip:"+[]string{"777", "0700123456", "00441632960961", "*22"}[rng.IntN(4)]+at)
	case n < 9:
		s.count("referrer leaves")
		_, _ = c.Refer(ctx, "sip:"+other+at)
		_ = c.WaitEnded(time.Duration(rng.IntN(1500)) * time.Millisecond)
		return
	case n < 12:
		s.consult(rng, p, c, other, d/2)
	}
	_ = c.WaitEnded(d / 2)
}

// consult holds, asks a colleague or somebody outside, and joins the two or
// comes back.
func (s *city) consult(rng *rand.Rand, p *pbxtest.Peer, c *pbxtest.Call, other string, d time.Duration) {
	ctx := s.r.t.Context()
	if rng.IntN(4) == 0 {
		other = "0600100200"
	}
	if c.Hold(ctx) != nil {
		return
	}
	asked, err := p.Call(pbxtest.CallOptions{To: other, Voice: voice(rng, phoneHz)})
	if err != nil {
		return // switched off
	}
	defer asked.Hangup()
	how := "attended transfer"
	if rng.IntN(4) == 0 {
		how, err = "semi-attended transfer", asked.WaitRinging(5*time.Second)
	} else {
		err = asked.WaitAnswered(10 * time.Second)
	}
	if err == nil && asked.WaitEnded(min(d, 10*time.Second)) != nil && rng.IntN(5) != 0 {
		s.count(how)
		if res, err := c.Refer(ctx, "sip:"+other+"@centralka.test?Replaces="+url.QueryEscape(asked.Replaces())); err == nil && res.Status == 202 {
			_ = asked.WaitEnded(10 * time.Second)
			return
		}
	}
	asked.Hangup()
	_ = c.Resume(ctx)
}

// dials lets a phone call whom it likes, and use the codes.
func (s *city) dials(rng *rand.Rand, ext, other string) {
	for s.sleep(s.every(rng, 6*time.Minute)) {
		p := s.phone(ext)
		if p == nil {
			continue
		}
		to := "0600100200"
		switch n := rng.IntN(40); {
		case n < 8:
			to = other
		case n < 14:
			to = "*8"
		case n < 17:
			to = "**" + other
		case n < 20:
			to = []string{"*22", "*221", "*23"}[rng.IntN(3)]
		case n < 21:
			to = "*24"
		case n < 23:
			to = []string{"0700123456", "777", "00441632960961"}[rng.IntN(3)]
		case n < 24:
			to = "112"
		}
		d := talk(rng)
		if !s.dial(rng, p, to, d) {
			continue
		}
		if strings.HasPrefix(to, "*2") { // nobody stays away for ever
			s.sleep(s.every(rng, 2*time.Minute))
			to = "*25"
		}
		if p := s.phone(ext); p != nil && (to == "*25" || rng.IntN(2) == 0) {
			s.dial(rng, p, to, d)
			s.dial(rng, p, "*21", d)
		}
	}
	if p := s.phone(ext); p != nil {
		s.dial(rng, p, "*25", time.Second)
	}
}

// dial places a call and ends it in time; false if the phone is off.
func (s *city) dial(rng *rand.Rand, p *pbxtest.Phone, to string, d time.Duration) bool {
	o := pbxtest.CallOptions{To: to, Voice: voice(rng, phoneHz)}
	if rng.IntN(2) == 0 {
		o.Fields = sessionFields("uas")
	}
	c, err := p.Call(o)
	if err != nil {
		return false
	}
	what := "call to another"
	switch {
	case to[0] == '*':
		what = "code " + to
	case to == "112":
		what = "emergency call"
	case len(to) == 3:
		what = "internal call"
	}
	s.count(what)
	if c.WaitAnswered(8*time.Second) == nil {
		if to[0] == '0' && rng.IntN(3) == 0 {
			s.converse(rng, p.Peer, c)
		}
		_ = c.WaitEnded(d)
	}
	c.Hangup()
	return true
}

// watches lets a phone show a lamp for the calls of another.
func (s *city) watches(rng *rand.Rand, ext, of string) {
	ctx := s.r.t.Context()
	for s.sleep(s.every(rng, 5*time.Minute)) {
		p := s.phone(ext)
		if p == nil {
			continue
		}
		d := time.Duration(60+rng.IntN(300)) * time.Second
		sub, res, err := p.Subscribe(ctx, of, d)
		if err != nil || res.Status != 200 {
			continue // it went off meanwhile
		}
		s.count("lamp")
		for range rng.IntN(3) {
			if !s.sleep(d/2) || s.phone(ext) != p {
				break
			}
			_, _ = sub.Renew(ctx, d)
		}
		switch rng.IntN(3) {
		case 0:
			_, _ = sub.Renew(ctx, 0)
		case 1:
			sub.Forget()
		}
	}
}
