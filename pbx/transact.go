package pbx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"
)

// respond sends res in tx, by the connection that the request came by. Is that
// gone, a trunk gets it by another one (RFC 3261 §18.2.2); nobody else can make
// us call an address of his choice.
func (e *endpoint) respond(tx *sip.ServerTx, res *sip.Response) {
	if res.GetHeader("Server") == nil {
		res.AppendHeader(sip.NewHeader("Server", e.cfg.UserAgent))
	}
	f := flowOf(tx)
	if f == nil || f.alive() {
		err := tx.Respond(res)
		if f == nil || f.alive() {
			if err != nil && !errors.Is(err, sip.ErrTransactionTerminated) && !errors.Is(err, sip.ErrTransactionCanceled) {
				e.log.Debug("send response", "status", res.StatusCode, "err", err)
			}
			return
		}
	}
	if res.StatusCode >= 200 {
		tx.Terminate() // nothing comes by it any more
	}
	name, ok := e.trunkAt(f.remote)
	if !ok {
		return
	}
	h := hop{transport: f.transport, local: f.local, remote: netip.AddrPortFrom(f.remote.Addr(), viaPort(res, f.transport)), name: name}
	e.wg.Go(func() { e.respondAnew(h, res) })
}

func (e *endpoint) respondAnew(h hop, res *sip.Response) {
	f, _, err := e.flows.connect(context.Background(), h)
	if err == nil {
		again := res.Clone()
		again.SetTransport(h.transport)
		again.SetDestination(f.remote.String())
		err = e.send(h.transport, nil, func() error { return e.ua.TransportLayer().WriteMsg(again) })
	}
	if err != nil {
		e.log.Debug("send response by another connection", "status", res.StatusCode, "err", err)
	}
}

// viaPort is the port of the topmost Via's sent-by.
func viaPort(m interface{ Via() *sip.ViaHeader }, transport string) uint16 {
	if v := m.Via(); v != nil && v.Port > 0 && v.Port <= 65535 {
		return uint16(v.Port)
	}
	return defaultPort(transport)
}

func defaultPort(transport string) uint16 {
	if transport == "TLS" {
		return 5061
	}
	return 5060
}

// reply answers req with a status and no body.
func (e *endpoint) reply(req *sip.Request, tx *sip.ServerTx, status int, reason string, headers ...sip.Header) {
	res := sip.NewResponseFromRequest(req, status, reason, nil)
	for _, h := range headers {
		res.AppendHeader(h)
	}
	e.respond(tx, res)
}

// refuseMethod answers a method that is not served here: 405 if it is one of
// SIP's, 501 if nobody knows it (RFC 3261 §8.2.1, §21.5.2).
func (e *endpoint) refuseMethod(req *sip.Request, tx *sip.ServerTx) {
	switch req.Method {
	case sip.REGISTER, sip.SUBSCRIBE, sip.NOTIFY, sip.REFER, sip.MESSAGE, sip.PUBLISH, sip.CANCEL:
		e.reply(req, tx, 405, "Method Not Allowed", sip.NewHeader("Allow", allow))
	default:
		e.reply(req, tx, 501, "Not Implemented", sip.NewHeader("Allow", allow))
	}
}

// address sets where req goes and from which listener it leaves.
func (e *endpoint) address(req *sip.Request, to hop) {
	if req.ContentLength() == nil {
		req.SetBody(nil) // writes Content-Length: 0
	}
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Params: sip.NewParams()}
	via.Params.Add("branch", sip.GenerateBranchN(24))
	via.Params.Add("rport", "") // RFC 3581 §3
	if to.transport == "TLS" && !to.bound && e.certs.own() {
		// The peer may send its own requests by this connection (RFC 5923).
		via.Params.Add("alias", "")
	}
	req.PrependHeader(via)
	e.route(req, to)
}

// route sends an addressed request by to: its Via says so.
func (e *endpoint) route(req *sip.Request, to hop) {
	req.SetTransport(to.transport)
	req.SetDestination(to.remote.String())
	req.Laddr = sip.Addr{}
	if to.transport == "UDP" {
		req.Laddr = sip.Addr{IP: to.local.Addr().AsSlice(), Port: int(to.local.Port())}
	}
	via := req.Via()
	via.Transport, via.Host, via.Port = to.transport, to.local.Addr().String(), int(to.local.Port())
	if host, port, ok := e.advertised(to.local.Addr()); ok {
		via.Host = host
		if port != 0 {
			via.Port = port
		}
	}
}

// sentBy lists what our own Via fields say, by which a request of ours is known
// that came back.
func (e *endpoint) sentBy() []string {
	var out []string
	for _, l := range e.cfg.Listen {
		host, port, fixed := e.advertised(l.Addr.Addr())
		if !fixed {
			host = l.Addr.Addr().String()
		}
		if port == 0 || !fixed {
			port = int(l.Addr.Port())
		}
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return out
}

// advertised returns sip.advertise as host and port (0: the listener's), if it
// is a name or an address of the same family as the listener's.
func (e *endpoint) advertised(local netip.Addr) (host string, port int, ok bool) {
	host = e.cfg.Advertise
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.Atoi(p)
		if err != nil {
			return "", 0, false
		}
		host, port = h, n
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() != local.Is4() {
		return "", 0, false
	}
	return host, port, host != ""
}

// contact is our Contact for messages that leave through to.
func (e *endpoint) contact(to hop, user string) *sip.ContactHeader {
	u := sip.Uri{Scheme: "sip", User: user, Host: to.local.Addr().String(), Port: int(to.local.Port())}
	if host, port, ok := e.advertised(to.local.Addr()); ok {
		u.Host = host
		if port != 0 {
			u.Port = port
		}
	}
	if to.transport != "UDP" {
		u.UriParams = sip.NewParams()
		u.UriParams.Add("transport", sip.ASCIIToLower(to.transport))
	}
	return &sip.ContactHeader{Address: u}
}

// transact sends req, which address has prepared for to, as a client transaction
// and calls on for each response, provisional ones included, from a goroutine of
// its own; the last call has a nil response and says how the transaction ended:
// nil after a final response.
func (e *endpoint) transact(req *sip.Request, to hop, on func(res *sip.Response, err error)) {
	e.wg.Go(func() {
		e.fit(req, &to)
		if e.exchange(req, to, false, on) {
			e.exchange(req, to, true, on)
		}
	})
}

// exchange is one attempt at transact. It returns true, without having called
// on, if the connection was lost under a request on which nothing came back and
// a new one is worth a try: the peer may have closed it long ago. The request is
// the same, so that whoever got it twice takes it for a retransmission.
func (e *endpoint) exchange(req *sip.Request, to hop, last bool, on func(res *sip.Response, err error)) (again bool) {
	var lost <-chan struct{}
	fresh := true
	if to.transport != "UDP" {
		f, opened, err := e.flows.connect(context.Background(), to)
		if err != nil {
			on(nil, fmt.Errorf("send %s: %w", req.Method, err))
			return false
		}
		lost, fresh = f.done, opened
		req.SetDestination(f.remote.String())
	}
	again = !fresh && !last && !to.bound
	var tx *sip.ClientTx
	err := e.send(to.transport, req, func() (err error) {
		tx, err = e.ua.TransactionLayer().Request(context.Background(), req)
		return err
	})
	if err != nil {
		if again && !e.closing() {
			return true
		}
		on(nil, fmt.Errorf("send %s: %w", req.Method, err))
		return false
	}
	answered, final := false, false
	tx.OnRetransmission(func(res *sip.Response) {
		e.unmatched(res)
	})
	for {
		select {
		case res := <-tx.Responses():
			if err := validateResponse(res); err != nil {
				e.log.Debug("response dropped", "err", err)
				continue
			}
			materialize(res)
			answered, final = true, final || res.StatusCode >= 200
			if res.StatusCode >= 300 && req.IsInvite() {
				e.acks.refusing(req, to) // sipgo has acknowledged it once
				tx.Terminate()
			}
			on(res, nil)
			if final && !req.IsInvite() {
				// Later copies of the response are nobody's business; sipgo
				// absorbs them until its timer K.
				e.drain(tx)
				on(nil, nil)
				return false
			}
		case <-lost:
			lost = nil
			if answered {
				continue // the rest may come by another connection (RFC 3261 §18.2.2)
			}
			tx.Terminate()
			if again && !e.closing() {
				return true
			}
			on(nil, fmt.Errorf("send %s: %w", req.Method, errFlowGone))
			return false
		case <-tx.Done():
			err := tx.Err()
			if final || err == nil {
				err = nil
			}
			on(nil, err)
			return false
		}
	}
}

// Requests that do not fit into a packet (RFC 3261 §18.1.1).
const (
	largestDatagram = 1300
	// smallOnlyFor is how long a server is believed to take no TCP.
	smallOnlyFor = 10 * time.Minute
)

// fit has a request that is too large for UDP go by TCP, if the peer takes that,
// and by UDP all the same if not (RFC 3261 §18.1.1). The dialog stays where it
// is: only the Via tells.
func (e *endpoint) fit(req *sip.Request, to *hop) {
	if to.transport != "UDP" {
		return
	}
	large := to.overTCP(e.cfg.Listen)
	if large != nil && len(req.String()) > largestDatagram && !e.refusesTCP(to.remote) {
		if _, _, err := e.flows.connect(context.Background(), *large); err == nil {
			*to = *large
			e.route(req, *to)
			return
		}
		e.smallOnly.Store(to.remote, time.Now().Add(smallOnlyFor))
	}
	if req.Transport() != to.transport {
		e.route(req, *to) // a request that went by TCP before
	}
}

// overTCP is the same way by TCP; nil for a phone, which is not called by
// connections of ours, and without a listener.
func (h hop) overTCP(listen []Listener) *hop {
	if h.bound {
		return nil
	}
	for _, l := range listen {
		if l.Transport == "tcp" && l.Addr.Addr().Is4() == h.local.Addr().Is4() {
			return &hop{transport: "TCP", local: l.Addr, remote: h.remote}
		}
	}
	return nil
}

func (e *endpoint) refusesTCP(remote netip.AddrPort) bool {
	until, ok := e.smallOnly.Load(remote)
	if ok && time.Now().After(until.(time.Time)) {
		e.smallOnly.Delete(remote)
		return false
	}
	return ok
}

// unmatched takes a response that belongs to no transaction any more.
func (e *endpoint) unmatched(res *sip.Response) {
	if validateResponse(res) == nil && !e.stray(res) {
		if ack, to := e.acks.of(res); ack != nil {
			e.deliverACK(ack, to)
		}
	}
}

// drain reads a finished transaction's channel until it terminates, as sipgo
// requires, without holding up the caller.
func (e *endpoint) drain(tx *sip.ClientTx) {
	e.wg.Go(func() {
		for {
			select {
			case <-tx.Responses():
			case <-tx.Done():
				return
			}
		}
	})
}

// inFlight is how long close lets requests be taken up that were read before.
const inFlight = 50 * time.Millisecond

func (e *endpoint) closing() bool {
	e.sending.RLock()
	defer e.sending.RUnlock()
	return e.closed
}

// send does the sending of a request or response, unless the socket that it
// should leave from is closed.
func (e *endpoint) send(transport string, req *sip.Request, do func() error) error {
	e.sending.RLock()
	defer e.sending.RUnlock()
	if e.closed {
		return net.ErrClosed
	}
	if transport == "UDP" {
		e.mu.Lock()
		_, open := e.sockets[req.Laddr.String()]
		e.mu.Unlock()
		if !open {
			return fmt.Errorf("no socket on %s: %w", req.Laddr.String(), net.ErrClosed)
		}
	}
	return do()
}

// sendACK sends an ACK for a 2xx, which is no transaction (RFC 3261 §13.2.2.4).
func (e *endpoint) sendACK(req *sip.Request, to hop) {
	e.acks.sending(req, to)
	e.deliverACK(req, to)
}

func (e *endpoint) deliverACK(req *sip.Request, to hop) {
	if to.transport == "UDP" {
		e.writeACK(req, to.transport)
		return
	}
	// Before what the caller sends next, if that can be.
	if f := e.flows.find(to); f != nil {
		req.SetDestination(f.remote.String())
		if e.writeACK(req, to.transport) {
			return
		}
	}
	again := req.Clone() // the caller keeps req, to send it again
	e.wg.Go(func() {
		f, _, err := e.flows.connect(context.Background(), to)
		if err != nil {
			e.log.Debug("send ACK", "err", err)
			return
		}
		again.SetDestination(f.remote.String())
		e.writeACK(again, to.transport)
	})
}

func (e *endpoint) writeACK(req *sip.Request, transport string) bool {
	err := e.send(transport, req, func() error { return e.ua.TransportLayer().WriteMsg(req) })
	if err != nil {
		e.log.Debug("send ACK", "err", err)
	}
	return err == nil
}
