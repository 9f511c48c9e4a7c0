package pbx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"centralka/ordinance"
	"centralka/store"
)

// A phone that answers a call with 300, 301 or 302 wants it to go elsewhere
// (RFC 3261 §8.1.3.4). That is followed within the rules for calls that its
// extension may place itself: to another extension, or by a trunk to a number
// outside, which counts as a call of the extension that forwards. Never to an
// emergency number, which nobody should reach without wanting it, nor to a phone
// that takes part in the call already; and a few times at most. Only the user part
// of the Contact is looked at, as if it had been dialled: neither its host nor its
// headers (RFC 3261 §19.1.5) choose where our calls go.
//
// What a queue offers is not forwarded: a citizen waits for an agent, not for
// somebody's mobile phone. For the queue, it counts as not taken.

// maxForwards is how often one call is forwarded.
const maxForwards = 3

// forwarding is what sends a call on. A nil one sends nothing.
type forwarding struct {
	by     string           // the extension
	reason string           // of RFC 5806 §4
	count  int              // the how manieth
	number ordinance.Number // outside; empty: an extension
	ways   []wayOut         // that are still to be tried
}

// movedTo reads the Contacts of a 3xx that we may follow, best first. 305 names a
// proxy and 380 another service: neither is somebody to call.
func movedTo(res *sip.Response) []sip.Uri {
	if res.StatusCode != 300 && res.StatusCode != 301 && res.StatusCode != 302 {
		return nil
	}
	type choice struct {
		uri sip.Uri
		q   float64
	}
	var all []choice
	for _, part := range entries(res, "Contact") {
		c := choice{q: 1}
		params := sip.NewParams()
		if _, err := sip.ParseAddressValue(part, &c.uri, &params); err != nil {
			continue
		}
		if m, _ := c.uri.UriParams.Get("method"); m != "" && !strings.EqualFold(m, "INVITE") {
			continue
		}
		if v, ok := params.Get("q"); ok {
			if q, err := strconv.ParseFloat(v, 64); err == nil {
				c.q = q
			}
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	uris := make([]sip.Uri, 0, len(all))
	for _, c := range all {
		uris = append(uris, c.uri)
	}
	return uris
}

// forward ends t, which a phone has redirected to one of uris, and tries that. The
// extension's other devices ring no longer: who forwards means the extension.
func (r *ringing) forward(t *try, uris []sip.Uri) {
	for _, l := range t.legs {
		l.hangUp(487, "Request Terminated")
	}
	t.legs = nil
	t.finish("forwarded")
	if !t.offer.direct {
		return
	}
	next := r.follow(t, uris)
	if next == nil {
		r.c.s.log.Info("not forwarded", "call", r.c.rec.ID, "ext", t.offer.ext)
		return
	}
	r.c.s.log.Info("forwarded", "call", r.c.rec.ID, "ext", t.offer.ext)
	r.tries = append(r.tries, next)
	r.timer.Reset(extensionRing)
	r.dial(next)
}

// follow finds the first of uris that t may be forwarded to; nil: none.
func (r *ringing) follow(t *try, uris []sip.Uri) *try {
	s := r.c.s
	f := &forwarding{by: t.offer.ext, reason: "unconditional", count: 1}
	if t.rang {
		f.reason = "no-answer"
	}
	if t.forwarded != nil {
		f.count = t.forwarded.count + 1
	}
	if f.count > maxForwards {
		return nil
	}
	for _, u := range uris {
		to := s.dialplan().resolve(userOf(u), s.isExtension)
		switch {
		case to.kind == routeExtension && !r.knows(to.ext):
			return &try{offer: s.directOffer(to.ext), ring: store.Ring{Extension: to.ext, From: time.Now()}, forwarded: f}
		case to.kind == routeOutside && s.mayPlace(f.by, to) && s.unrecordable() == nil:
			f.number, f.ways = to.number, s.waysOut(false)
			return &try{offer: offer{direct: true, accept: func() {}, decline: func(string) {}, release: func() {}},
				ring: store.Ring{Number: to.number, From: time.Now()}, forwarded: f}
		}
	}
	return nil
}

// knows reports whether ext was called already, or takes part in the call.
func (r *ringing) knows(ext string) bool {
	for _, t := range r.tries {
		if t.offer.ext == ext {
			return true
		}
	}
	return slices.ContainsFunc(r.c.legs, func(l *leg) bool {
		return l.ext == ext && (l == r.c.a || l == r.c.b) && l.state != legEnding && l.state != legEnded
	})
}

// dialOutside calls the number of t by the next way out.
func (r *ringing) dialOutside(t *try) {
	f, s := t.forwarded, r.c.s
	for len(f.ways) > 0 {
		w := f.ways[0]
		f.ways = f.ways[1:]
		l := r.c.newLeg(r.c.nextLabel())
		l.trunk = w.t
		w.t.take()
		to := w.t.calleeAt(f.number, s, w.hop)
		to.headers = append(to.headers, f.toTrunk(r.c.rec, to)...)
		if err := l.dial(to); err != nil {
			s.log.Warn("trunk not called", "call", r.c.rec.ID, "trunk", w.t.cfg.Name, "err", err)
			l.ended()
			continue
		}
		s.lines.charge(l, f.by)
		t.legs = append(t.legs, l)
		w.patience(l, f.ways)
		return
	}
	t.finish("unreachable")
}

// another reports whether a trunk that has refused with status is worth another
// one's try (RFC 3263 §4.3).
func (f *forwarding) another(status int) bool {
	return f != nil && f.number != "" && len(f.ways) > 0 && (status == 408 || status >= 500 && status < 600)
}

// toPhone tells a phone who has forwarded the call to it (RFC 5806 §4).
func (f *forwarding) toPhone(domain string) []sip.Header {
	if f == nil {
		return nil
	}
	return []sip.Header{sip.NewHeader("Diversion", fmt.Sprintf("<sip:%s@%s>;reason=%s;counter=%d", f.by, domain, f.reason, f.count))}
}

// historyCauses are the causes of RFC 4458 §3 that belong to reasons of
// RFC 5806 §4.
var historyCauses = map[string]int{"unconditional": 302, "no-answer": 408}

// toTrunk tells a carrier, by both headers that carriers read, that the office has
// forwarded a call that was made to one of its numbers. Whoever called the office
// is not told of.
func (f *forwarding) toTrunk(rec store.CallRecord, to callee) []sip.Header {
	office := to.from
	if rec.Direction == store.Incoming && rec.Called != "" {
		office.User = rec.Called.E164()
	}
	return []sip.Header{
		sip.NewHeader("Diversion", fmt.Sprintf("<%s>;reason=%s;counter=%d;privacy=off", office.String(), f.reason, f.count)),
		sip.NewHeader("History-Info", fmt.Sprintf("<%s>;index=1, <%s;cause=%d>;index=1.1;mp=1", office.String(), to.uri.String(), historyCauses[f.reason])),
	}
}
