package pbx

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// The bounds of subscriptions to lamps. A phone has at most as many keys.
const (
	maxLamps         = 1000
	maxLampsPerPhone = 100
	maxLampDialogs   = 3 // told of one extension: the message must fit a datagram
	minLampTime      = time.Minute
	maxLampTime      = time.Hour
)

// lampBoard keeps the subscriptions of phones to the calls of other extensions:
// the dialog event package (RFC 4235) with full state, by which lamps light. Its
// goroutine owns them; requests and changes reach it by its mailbox.
//
// A change is told at once, but only one NOTIFY of a subscription is under way at
// a time, so that none overtakes another and no lamp sticks; what changes
// meanwhile is told in the next.
type lampBoard struct {
	s    *Switch
	box  *mailbox[lampEvent]
	subs map[dialogID]*subscription
	// changed: some call has published another state since the last look.
	changed bool
	stop    chan struct{} // closed when the last farewell was answered; nil: not stopping
}

type lampEvent interface{ on(b *lampBoard) }

// subscription is one lamp of one phone.
type subscription struct {
	d       dialog
	by      string // the watching phone's extension
	of      string // whom it watches
	expires time.Time
	version uint32
	told    []byte // the dialogs that were told last
	sending bool
	again   bool   // something is to be told once the NOTIFY under way is answered
	over    string // why it ends, to be told last; "": it goes on
}

func newLampBoard(s *Switch) *lampBoard {
	return &lampBoard{s: s, box: newMailbox[lampEvent](), subs: map[dialogID]*subscription{}}
}

// run serves until ctx is done.
func (b *lampBoard) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer b.box.close()
	for {
		for _, ev := range b.box.take() {
			ev.on(b)
		}
		b.look()
		if b.stop != nil && len(b.subs) == 0 {
			close(b.stop)
			b.stop = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-b.box.wake:
		case <-tick.C:
			b.expire(time.Now())
		}
	}
}

// farewell ends every subscription and waits for d at most.
func (b *lampBoard) farewell(d time.Duration) {
	done := make(chan struct{})
	b.box.post(boardStopping{done})
	select {
	case <-done:
	case <-time.After(d):
	}
}

type boardStopping struct{ done chan struct{} }

func (ev boardStopping) on(b *lampBoard) {
	b.stop = ev.done
	for _, sub := range b.subs {
		b.end(sub, "deactivated")
	}
}

// lampsChanged says that some call has published another state.
type lampsChanged struct{}

func (lampsChanged) on(b *lampBoard) { b.changed = true }

// look tells those who watch an extension whose calls have changed.
func (b *lampBoard) look() {
	if !b.changed {
		return
	}
	b.changed = false
	now := b.calls()
	for _, sub := range b.subs {
		if sub.over == "" && !bytes.Equal(sub.told, describe(now[sub.of], b.s.quiet.has(sub.of))) {
			b.notify(sub)
		}
	}
}

// calls collects the lamps by extension, oldest first.
func (b *lampBoard) calls() map[string][]lamp {
	out := map[string][]lamp{}
	for _, c := range b.s.snapshotCalls() {
		if lamps := c.lamps.Load(); lamps != nil {
			for _, m := range *lamps {
				out[m.ext] = append(out[m.ext], m)
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b lamp) int {
			return cmp.Or(a.since.Compare(b.since), strings.Compare(a.id.localTag, b.id.localTag))
		})
	}
	return out
}

func (b *lampBoard) expire(now time.Time) {
	for _, sub := range b.subs {
		if sub.over == "" && !now.Before(sub.expires) {
			b.end(sub, "timeout")
		}
	}
}

func (b *lampBoard) end(sub *subscription, why string) {
	sub.over = why
	b.notify(sub)
}

// subscribeReceived is a SUBSCRIBE that has passed: a first one of by, or one
// within a dialog.
type subscribeReceived struct {
	req *sip.Request
	tx  *sip.ServerTx
	h   hop
	by  string
}

// serveSubscribe answers a SUBSCRIBE outside of a dialog (RFC 6665 §4.2.1).
func (s *Switch) serveSubscribe(req *sip.Request, tx *sip.ServerTx, h hop) {
	if s.trunkOf(h.remote) != nil {
		s.end.reply(req, tx, 403, "Forbidden")
		return
	}
	ext, ok := s.authenticate(req, tx, h)
	switch {
	case !ok:
		return
	case !watchesDialogs(req):
		s.end.reply(req, tx, 489, "Bad Event", sip.NewHeader("Allow-Events", "dialog"))
	case req.Contact() == nil:
		s.end.reply(req, tx, 400, "Need exactly one Contact")
	case len(s.registrar.reachable(ext)) == 0:
		s.end.reply(req, tx, 403, "Forbidden")
	case !s.isExtension(userOf(req.Recipient)):
		s.end.reply(req, tx, 404, "Not Found")
	case !s.lampBoard.box.post(subscribeReceived{req, tx, h, ext}):
		s.end.reply(req, tx, 503, "Service Unavailable", sip.NewHeader("Retry-After", "10"))
	}
}

func watchesDialogs(req *sip.Request) bool {
	h := req.GetHeader("Event")
	if h == nil {
		return false
	}
	event, _, _ := strings.Cut(h.Value(), ";")
	return strings.EqualFold(strings.TrimSpace(event), "dialog")
}

func (ev subscribeReceived) on(b *lampBoard) {
	end := b.s.end
	want := maxLampTime
	if h := ev.req.GetHeader("Expires"); h != nil {
		n, err := strconv.ParseUint(strings.TrimSpace(h.Value()), 10, 32)
		if err != nil {
			end.reply(ev.req, ev.tx, 400, "Bad Expires")
			return
		}
		want = time.Duration(n) * time.Second
	}
	if want > 0 && want < minLampTime {
		end.reply(ev.req, ev.tx, 423, "Interval Too Brief", sip.NewHeader("Min-Expires", strconv.Itoa(int(minLampTime/time.Second))))
		return
	}
	want = min(want, maxLampTime)
	sub := ev.known(b)
	if sub == nil {
		return
	}
	sub.expires = time.Now().Add(want)
	if c := ev.req.Contact(); c != nil {
		sub.d.target = *c.Address.Clone()
	}
	res := sip.NewResponseFromRequest(ev.req, 200, "OK", nil)
	res.AppendHeader(end.contact(sub.d.hop, sub.d.local.User))
	res.AppendHeader(sip.NewHeader("Expires", strconv.Itoa(int(want/time.Second))))
	end.respond(ev.tx, res)
	if want == 0 {
		sub.over = "timeout"
	}
	b.notify(sub) // at once, whatever the state (RFC 6665 §4.2.1.2)
}

// known finds the subscription that is renewed, or makes it; nil: it has refused.
func (ev subscribeReceived) known(b *lampBoard) *subscription {
	end := b.s.end
	if tag, ok := ev.req.To().Params.Get("tag"); ok && tag != "" {
		sub := b.subs[dialogID{ev.req.CallID().Value(), tag}]
		from, _ := ev.req.From().Params.Get("tag")
		switch {
		case sub == nil || sub.over != "" || sub.d.remoteTag != from || !watchesDialogs(ev.req):
			end.reply(ev.req, ev.tx, 481, "Subscription Does Not Exist")
		case !sub.d.order(ev.req):
			end.reply(ev.req, ev.tx, 500, "CSeq Out Of Order", sip.NewHeader("Retry-After", "0"))
		default:
			return sub
		}
		return nil
	}
	mine := 0
	for _, sub := range b.subs {
		if sub.by == ev.by {
			mine++
		}
	}
	if b.stop != nil || mine >= maxLampsPerPhone || len(b.subs) >= maxLamps {
		end.reply(ev.req, ev.tx, 503, "Service Unavailable", sip.NewHeader("Retry-After", "60"))
		return nil
	}
	tag := newTag()
	ev.req.To().Params.Add("tag", tag)
	sub := &subscription{d: uasDialog(ev.req, tag, ev.h, true), by: ev.by, of: userOf(ev.req.Recipient)}
	b.subs[sub.d.id] = sub
	return sub
}

// notify tells the state as it is now.
func (b *lampBoard) notify(sub *subscription) {
	if sub.sending {
		sub.again = true
		return
	}
	sub.sending, sub.again = true, false
	sub.told = describe(b.calls()[sub.of], b.s.quiet.has(sub.of))
	over := sub.over
	state := "terminated;reason=" + over
	if over == "" {
		state = fmt.Sprintf("active;expires=%d", int(time.Until(sub.expires).Round(time.Second)/time.Second))
	}
	req := sub.d.request(sip.NOTIFY)
	req.AppendHeader(b.s.end.contact(sub.d.hop, sub.d.local.User))
	req.AppendHeader(sip.NewHeader("Event", "dialog"))
	req.AppendHeader(sip.NewHeader("Subscription-State", state))
	req.AppendHeader(sip.NewHeader("Content-Type", "application/dialog-info+xml"))
	var body bytes.Buffer
	fmt.Fprintf(&body, "<?xml version=\"1.0\"?>\r\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"%d\" state=\"full\" entity=\"sip:%s@%s\">\r\n",
		sub.version, escaped(sub.of), escaped(b.s.domain()))
	body.Write(sub.told)
	body.WriteString("</dialog-info>\r\n")
	sub.version++
	req.SetBody(body.Bytes())
	to := sub.d.next()
	b.s.end.address(req, to)
	b.s.end.transact(req, to, func(res *sip.Response, err error) {
		b.box.post(notifyAnswered{sub, res, err, over != ""})
	})
}

// notifyAnswered is a response to a NOTIFY, or the end of its transaction.
type notifyAnswered struct {
	sub  *subscription
	res  *sip.Response
	err  error
	last bool
}

func (ev notifyAnswered) on(b *lampBoard) {
	sub := ev.sub
	switch {
	case ev.res == nil && ev.err == nil || ev.res != nil && ev.res.StatusCode < 200:
		return
	case ev.last || ev.res == nil || ev.res.StatusCode >= 300:
		// Told for the last time, or nobody is there who wants to know (RFC 6665
		// §4.2.2).
		if b.subs[sub.d.id] == sub {
			delete(b.subs, sub.d.id)
		}
		return
	}
	sub.sending = false
	if sub.again {
		b.notify(sub)
	}
}

// describe writes the calls of an extension (RFC 4235 §4.1) as the switch sees
// them: what a key sends as Replaces names our side. Nobody's number is told. Who does
// not want to be disturbed is busy for everybody, and is shown so: by a dialog
// that has no name by which it could be taken over.
func describe(lamps []lamp, quiet bool) []byte {
	var out bytes.Buffer
	for _, m := range lamps[:min(len(lamps), maxLampDialogs)] {
		state, direction := "confirmed", "recipient"
		if m.early {
			state = "early"
		}
		if m.placed {
			direction = "initiator"
		}
		fmt.Fprintf(&out, "<dialog id=\"%s\" call-id=\"%s\" local-tag=\"%s\"", m.id.localTag, escaped(m.id.callID), m.id.localTag)
		if m.remote != "" {
			fmt.Fprintf(&out, " remote-tag=\"%s\"", escaped(m.remote))
		}
		fmt.Fprintf(&out, " direction=\"%s\"><state>%s</state></dialog>\r\n", direction, state)
	}
	if quiet {
		out.WriteString("<dialog id=\"do-not-disturb\"><state>confirmed</state></dialog>\r\n")
	}
	return out.Bytes()
}

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
