package pbx

import (
	"fmt"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// acks acknowledges copies of final responses to INVITEs of ours that nobody
// else does any more. It is safe for concurrent use.
//
// Of a 2xx: each copy wants an ACK (RFC 3261 §13.2.2.4), also when the call has
// ended meanwhile because the ACK was lost and the BYE was not.
//
// Of a refusal: sipgo answers a copy four seconds late, with the transaction
// locked, so that every further copy holds a goroutine, and the peer repeats
// itself all that time. So its transactions end with the response, and copies
// come here as responses without one.
type acks struct {
	mu      sync.Mutex
	refused map[string]routed // INVITEs by branch
	sent    map[string]routed // ACKs by what ackKey makes of them
}

// routed is a request and the way it went.
type routed struct {
	req *sip.Request
	to  hop
}

// copiesLast is how long copies may come: timers D and M (RFC 3261 §17.1.1.2, RFC
// 6026 §7.2).
const copiesLast = 32 * time.Second

func keepFor(a *acks, table *map[string]routed, key string, req routed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *table == nil {
		*table = map[string]routed{}
	}
	(*table)[key] = req
	time.AfterFunc(copiesLast, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if (*table)[key].req == req.req {
			delete(*table, key)
		}
	})
}

// refusing remembers an INVITE that was refused.
func (a *acks) refusing(invite *sip.Request, to hop) {
	keepFor(a, &a.refused, branchOf(invite), routed{invite, to})
}

// sending remembers the ACK of a 2xx.
func (a *acks) sending(ack *sip.Request, to hop) {
	keepFor(a, &a.sent, ackKey(ack), routed{again(ack), to})
}

// again is a copy to be sent: what is sent belongs to sipgo.
func again(ack *sip.Request) *sip.Request {
	c := ack.Clone()
	c.Laddr = ack.Laddr
	return c
}

// of is the acknowledgement of a copy, nil if res is none: the ACK that was sent
// before, or for a refusal one with the Request-URI, Via and Route of the INVITE
// and the To of the response (RFC 3261 §17.1.1.3). It goes the way of that one.
func (a *acks) of(res *sip.Response) (*sip.Request, hop) {
	if res.CSeq().MethodName != sip.INVITE {
		return nil, hop{}
	}
	a.mu.Lock()
	sent, refused := a.sent[ackKey(res)], a.refused[branchOf(res)]
	a.mu.Unlock()
	invite := refused.req
	switch {
	case res.IsSuccess() && sent.req != nil:
		return again(sent.req), sent.to
	case res.StatusCode < 300 || invite == nil:
		return nil, hop{}
	}
	ack := sip.NewRequest(sip.ACK, *invite.Recipient.Clone())
	ack.AppendHeader(invite.Via().Clone())
	sip.CopyHeaders("Route", invite, ack)
	hops := sip.MaxForwardsHeader(70)
	ack.AppendHeader(&hops)
	ack.AppendHeader(sip.HeaderClone(invite.From()))
	ack.AppendHeader(sip.HeaderClone(res.To()))
	id := *invite.CallID()
	ack.AppendHeader(&id)
	ack.AppendHeader(&sip.CSeqHeader{SeqNo: invite.CSeq().SeqNo, MethodName: sip.ACK})
	ack.SetBody(nil)
	ack.SetTransport(invite.Transport())
	ack.SetDestination(invite.Destination())
	ack.Laddr = invite.Laddr
	return ack, refused.to
}

// branchOf is the branch of the top Via.
func branchOf(m sip.Message) string {
	branch, _ := m.Via().Params.Get("branch")
	return branch
}

// ackKey tells 2xx and ACKs by dialog and CSeq.
func ackKey(m sip.Message) string {
	from, _ := m.From().Params.Get("tag")
	to, _ := m.To().Params.Get("tag")
	return fmt.Sprintf("%s;%s;%s;%d", m.CallID().Value(), from, to, m.CSeq().SeqNo)
}
