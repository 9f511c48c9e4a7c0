package pbx

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// allow names the methods that we serve (RFC 3261 §20.5). UPDATE must be in
// it: carriers refresh sessions by it only if it is (RFC 3311 §4).
const allow = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK, REFER, NOTIFY, SUBSCRIBE"

// supported names the extensions that we have (RFC 3261 §20.37).
const supported = "100rel, replaces, timer"

// supportedByPhones is what we tell a phone that we call.
const supportedByPhones = "replaces, timer"

// extensions are those that a request may require.
var extensions = []string{"100rel", "replaces", "timer"}

// dialogID names a dialog at our side: Call-ID and our tag.
type dialogID struct{ callID, localTag string }

// dialog is the state of RFC 3261 §12 for one dialog. The call's goroutine
// owns it.
type dialog struct {
	id        dialogID
	remoteTag string
	local     sip.Uri // our URI: From of what we send
	localName string
	remote    sip.Uri // theirs: To of what we send
	remName   string
	target    sip.Uri   // where requests are addressed: the peer's Contact
	routes    []sip.Uri // route set, in the order in which it is sent
	localSeq  uint32
	remoteSeq uint32
	hasRemote bool // remoteSeq is set
	hop       hop
	// fixed keeps requests on the hop that the peer's messages come from: a
	// phone, which may be behind NAT.
	fixed bool
}

// uasDialog begins a dialog from an INVITE that came by h (RFC 3261 §12.1.1). tag is the
// To-tag that we gave it.
func uasDialog(req *sip.Request, tag string, h hop, fixed bool) dialog {
	d := dialog{
		id:        dialogID{req.CallID().Value(), tag},
		local:     *req.To().Address.Clone(),
		localName: req.To().DisplayName,
		remote:    *req.From().Address.Clone(),
		remName:   req.From().DisplayName,
		remoteSeq: req.CSeq().SeqNo,
		hasRemote: true,
		localSeq:  newSeq(),
		hop:       h,
		fixed:     fixed,
	}
	d.remoteTag, _ = req.From().Params.Get("tag")
	if c := req.Contact(); c != nil {
		d.target = *c.Address.Clone()
	} else {
		d.target = d.remote
	}
	d.routes = routeSet(req.GetHeaders("Record-Route"), false)
	return d
}

// confirm takes the peer's side from a response to our INVITE (RFC 3261 §12.1.2). It is
// right for provisional responses with a tag and for the 2xx, which wins.
func (d *dialog) confirm(res *sip.Response) {
	d.remoteTag, _ = res.To().Params.Get("tag")
	if c := res.Contact(); c != nil {
		d.target = *c.Address.Clone()
	}
	d.routes = routeSet(res.GetHeaders("Record-Route"), true)
}

// routeSet reads Record-Route headers; the UAC takes them in reverse order
// (RFC 3261 §12.1.1, §12.1.2).
func routeSet(headers []sip.Header, reverse bool) []sip.Uri {
	var out []sip.Uri
	for _, h := range headers {
		for _, part := range splitList(h.Value()) {
			var u sip.Uri
			params := sip.NewParams()
			if _, err := sip.ParseAddressValue(part, &u, &params); err == nil {
				out = append(out, u)
			}
		}
	}
	if reverse {
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// splitList splits a header value at its commas, not within quotes or angle
// brackets.
func splitList(s string) []string {
	var out []string
	depth, quoted, begin := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '<':
			depth++
		case c == '>':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[begin:i]))
			begin = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[begin:]))
}

// order judges the CSeq of an in-dialog request (RFC 3261 §12.2.2): false means that it
// is old and gets 500. Gaps are allowed.
func (d *dialog) order(req *sip.Request) bool {
	seq := req.CSeq().SeqNo
	if d.hasRemote && seq <= d.remoteSeq {
		return false
	}
	d.remoteSeq, d.hasRemote = seq, true
	return true
}

// request builds an in-dialog request with the next CSeq (RFC 3261 §12.2.1.1).
func (d *dialog) request(method sip.RequestMethod) *sip.Request {
	d.localSeq++
	return d.build(method, d.localSeq)
}

// build makes a request of the dialog with the given CSeq: ACK and CANCEL carry
// that of their INVITE.
func (d *dialog) build(method sip.RequestMethod, seq uint32) *sip.Request {
	target := d.target
	routes := d.routes
	if len(routes) > 0 && !isLoose(routes[0]) {
		// A strict router takes the place of the Request-URI (RFC 3261 §12.2.1.1).
		target = routes[0]
		routes = append(append([]sip.Uri{}, routes[1:]...), d.target)
	}
	req := sip.NewRequest(method, *target.Clone())
	from := &sip.FromHeader{DisplayName: d.localName, Address: *d.local.Clone(), Params: sip.NewParams()}
	from.Params.Add("tag", d.id.localTag)
	to := &sip.ToHeader{DisplayName: d.remName, Address: *d.remote.Clone(), Params: sip.NewParams()}
	if d.remoteTag != "" {
		to.Params.Add("tag", d.remoteTag)
	}
	id := sip.CallIDHeader(d.id.callID)
	hops := sip.MaxForwardsHeader(70)
	req.AppendHeader(&hops)
	req.AppendHeader(from)
	req.AppendHeader(to)
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: method})
	for _, r := range routes {
		req.AppendHeader(&sip.RouteHeader{Address: *r.Clone()})
	}
	return req
}

// next is where the dialog's requests go. A fixed peer, or one whose target is
// not a numeric address, is reached where its messages come from. Of a peer
// that speaks TCP or TLS the connection is taken that the dialog has, as long as
// it is there, and one of the same transport opened afterwards: what came
// secured goes back secured.
func (d *dialog) next() hop {
	if d.fixed {
		return d.hop
	}
	u := d.target
	if len(d.routes) > 0 {
		u = d.routes[0]
	}
	h := d.hop
	port := uint16(u.Port)
	if port == 0 {
		port = defaultPort(h.transport)
	}
	addr, err := netip.ParseAddr(strings.Trim(u.Host, "[]"))
	addr = addr.Unmap()
	switch {
	case err != nil && h.transport == "UDP":
		return h
	case err != nil && h.flow.IsValid():
		h.remote = netip.AddrPortFrom(h.remote.Addr(), port) // not where it has called from
		return h
	case err != nil:
		return h
	case h.transport != "UDP" && !h.flow.IsValid() && addr == h.remote.Addr():
		h.flow = h.remote
	}
	h.remote = netip.AddrPortFrom(addr, port)
	return h
}

// wantsTCP reports whether the peer's URI names TCP (RFC 3263 §4.1).
func (d *dialog) wantsTCP() bool {
	u := d.target
	if len(d.routes) > 0 {
		u = d.routes[0]
	}
	if u.UriParams == nil {
		return false
	}
	transport, _ := u.UriParams.Get("transport")
	return strings.EqualFold(transport, "tcp")
}

func isLoose(u sip.Uri) bool { return u.UriParams != nil && u.UriParams.Has("lr") }

// newSeq is a first CSeq: below 2**31 with room to grow (RFC 3261 §8.1.1.5).
func newSeq() uint32 { return 1 }

func newTag() string { return sip.GenerateTagN(16) }

func newCallID(host string) string { return sip.GenerateTagN(24) + "@" + host }

// reasonHeader is RFC 3326: the Q.850 cause of a release, or a SIP status.
func reasonHeader(protocol string, cause int, text string) sip.Header {
	return sip.NewHeader("Reason", protocol+";cause="+strconv.Itoa(cause)+";text="+strconv.Quote(text))
}

// q850 reads the cause of a Reason header; 0 if there is none.
func q850(m sip.Message) int {
	for _, h := range m.GetHeaders("Reason") {
		for _, part := range splitList(h.Value()) {
			protocol, rest, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(protocol), "Q.850") {
				continue
			}
			for p := range strings.SplitSeq(rest, ";") {
				k, v, _ := strings.Cut(p, "=")
				if strings.EqualFold(strings.TrimSpace(k), "cause") {
					if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && n > 0 && n < 128 {
						return n
					}
				}
			}
		}
	}
	return 0
}
