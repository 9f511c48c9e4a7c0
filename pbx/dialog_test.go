package pbx

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/emiago/sipgo/sip"

	"centralka/store"
)

func parseRequest(t *testing.T, raw string) *sip.Request {
	t.Helper()
	m, err := sip.NewParser().ParseSIP([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	req := m.(*sip.Request)
	materialize(req)
	return req
}

const inviteWithRoutes = "INVITE sip:+48914245000@192.0.2.10 SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bKa\r\n" +
	"Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\n" +
	"Record-Route: <sip:p0.example;lr>\r\n" +
	"From: \"A, B\" <sip:+48600100200@carrier.example>;tag=ft\r\n" +
	"To: <sip:+48914245000@192.0.2.10>\r\n" +
	"Call-ID: c1\r\nCSeq: 7 INVITE\r\nMax-Forwards: 70\r\n" +
	"Contact: <sip:gw@198.51.100.9:5070>\r\nContent-Length: 0\r\n\r\n"

// TestRouteSet: RFC 3261 §12.1.1 keeps the order for the UAS, RFC 3261 §12.1.2
// turns it round for the UAC.
func TestRouteSet(t *testing.T) {
	req := parseRequest(t, inviteWithRoutes)
	hosts := func(u []sip.Uri) (out []string) {
		for _, v := range u {
			out = append(out, v.Host)
		}
		return out
	}
	if got, want := hosts(routeSet(req.GetHeaders("Record-Route"), false)), []string{"p2.example", "p1.example", "p0.example"}; !reflect.DeepEqual(got, want) {
		t.Errorf("UAS route set %v, want %v", got, want)
	}
	if got, want := hosts(routeSet(req.GetHeaders("Record-Route"), true)), []string{"p0.example", "p1.example", "p2.example"}; !reflect.DeepEqual(got, want) {
		t.Errorf("UAC route set %v, want %v", got, want)
	}
}

func TestInDialogRequest(t *testing.T) {
	h := hop{transport: "UDP", local: netip.MustParseAddrPort("192.0.2.10:5060"), remote: netip.MustParseAddrPort("198.51.100.1:5060")}
	d := uasDialog(parseRequest(t, inviteWithRoutes), "lt", h, false)
	req := d.request(sip.BYE)
	if got := req.Recipient.String(); got != "sip:gw@198.51.100.9:5070" {
		t.Errorf("Request-URI %s, want the remote target", got)
	}
	if n := len(req.GetHeaders("Route")); n != 3 {
		t.Errorf("%d Route headers, want 3", n)
	}
	from, _ := req.From().Params.Get("tag")
	to, _ := req.To().Params.Get("tag")
	if from != "lt" || to != "ft" {
		t.Errorf("tags from=%q to=%q, want lt and ft", from, to)
	}
	first := req.CSeq().SeqNo
	if next := d.request(sip.BYE).CSeq().SeqNo; next != first+1 {
		t.Errorf("CSeq %d after %d, want one more", next, first)
	}
	// A strict router takes the Request-URI's place (RFC 3261 §12.2.1.1).
	d.routes = []sip.Uri{{Scheme: "sip", Host: "strict.example"}, {Scheme: "sip", Host: "p1.example"}}
	req = d.request(sip.BYE)
	routes := req.GetHeaders("Route")
	if req.Recipient.Host != "strict.example" || len(routes) != 2 || routes[1].Value() != "<sip:gw@198.51.100.9:5070>" {
		t.Errorf("strict routing: Request-URI %s, routes %v", req.Recipient.String(), routes)
	}
}

func TestNextHop(t *testing.T) {
	source := netip.MustParseAddrPort("198.51.100.1:5060")
	h := hop{transport: "UDP", local: netip.MustParseAddrPort("192.0.2.10:5060"), remote: source}
	for _, tc := range []struct {
		name, host string
		port       int
		fixed      bool
		want       string
	}{
		{"numeric contact", "198.51.100.9", 5070, false, "198.51.100.9:5070"},
		{"default port", "198.51.100.9", 0, false, "198.51.100.9:5060"},
		{"phone behind NAT", "10.0.0.5", 5060, true, "198.51.100.1:5060"},
		{"name: where it came from", "gw.example", 5060, false, "198.51.100.1:5060"},
	} {
		d := dialog{hop: h, fixed: tc.fixed, target: sipURI("x", tc.host, tc.port)}
		if got := d.next().remote.String(); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestCSeqOrder: RFC 3261 §12.2.2: lower or equal is refused, gaps are not.
func TestCSeqOrder(t *testing.T) {
	d := dialog{remoteSeq: 7, hasRemote: true}
	for _, tc := range []struct {
		seq  uint32
		want bool
	}{{7, false}, {6, false}, {8, true}, {20, true}, {19, false}} {
		req := sip.NewRequest(sip.INFO, sip.Uri{Host: "h"})
		req.AppendHeader(&sip.CSeqHeader{SeqNo: tc.seq, MethodName: sip.INFO})
		if got := d.order(req); got != tc.want {
			t.Errorf("CSeq %d: %v, want %v", tc.seq, got, tc.want)
		}
	}
}

func TestSplitList(t *testing.T) {
	for in, want := range map[string][]string{
		`<sip:a@b>`: {`<sip:a@b>`},
		`<sip:a@b;x=1,2>, "c, d" <sip:e@f>;q=0.5`: {`<sip:a@b;x=1,2>`, `"c, d" <sip:e@f>;q=0.5`},
		`"\",x" <sip:a>,b`:                        {`"\",x" <sip:a>`, `b`},
		``:                                        {``},
	} {
		if got := splitList(in); !reflect.DeepEqual(got, want) {
			t.Errorf("splitList(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestReasonRoundTrip(t *testing.T) {
	req := sip.NewRequest(sip.BYE, sip.Uri{Host: "h"})
	req.AppendHeader(sip.NewHeader("Reason", `SIP;cause=200;text="x", q.850 ; cause=17 ;text="busy"`))
	if got := q850(req); got != 17 {
		t.Errorf("Q.850 cause %d, want 17", got)
	}
	req = sip.NewRequest(sip.BYE, sip.Uri{Host: "h"})
	req.AppendHeader(reasonHeader("Q.850", 16, "Normal"))
	if got := q850(req); got != 16 {
		t.Errorf("own Reason reads as %d, want 16", got)
	}
}

// TestEveryCauseHasARow: no call can end in a way that peers are not told.
func TestEveryCauseHasARow(t *testing.T) {
	for _, c := range []store.Cause{
		store.CauseHangupCaller, store.CauseHangupCalled, store.CauseAnnouncementHangup, store.CauseAbandoned, store.CauseCancelled,
		store.CauseBusy, store.CauseNoAnswer, store.CauseDeclined, store.CauseUnreachable, store.CauseQueueTimeout, store.CauseClosed,
		store.CauseNotFound, store.CauseForbidden, store.CauseNotAcceptable, store.CauseOverload, store.CauseNoAck,
		store.CauseMediaTimeout, store.CauseSessionExpired, store.CauseShutdown, store.CauseInterrupted, store.CauseInternal,
	} {
		row, ok := causes[c]
		if !ok || row.status < 400 || row.status > 699 || row.text == "" || row.q850 == 0 {
			t.Errorf("cause %q: row %+v", c, row)
		}
	}
}
