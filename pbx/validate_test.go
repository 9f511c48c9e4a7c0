package pbx

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// requestOf parses a request of the given method with the usual fields. Each edit
// "Name: value" replaces a field, "-Name" takes it away, "+Name: value" adds one
// more, "METHOD uri SIP/2.0" replaces the request line.
func requestOf(t testing.TB, method, body string, edits ...string) *sip.Request {
	t.Helper()
	lines := []string{method + " sip:914245000@192.0.2.10 SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK1;rport",
		"Max-Forwards: 70", "From: <sip:101@192.0.2.10>;tag=a", "To: <sip:914245000@192.0.2.10>", "Call-ID: c1", "CSeq: 1 " + method,
		"Contact: <sip:101@192.0.2.7>"}
	for _, e := range edits {
		if strings.HasPrefix(e, method+" ") {
			lines[0] = e
			continue
		}
		if more, ok := strings.CutPrefix(e, "+"); ok {
			lines = append(lines, more)
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(e, "-"), ":")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		if !strings.HasPrefix(e, "-") {
			lines = append(lines, e)
		}
	}
	out, kind := normalizeDatagram(sipText(body, lines...))
	msg, err := newSIPParser().ParseSIP(out)
	if kind != textRequest || err != nil {
		t.Fatalf("%q: %v %v", edits, kind, err)
	}
	return msg.(*sip.Request)
}

func TestValidate(t *testing.T) {
	const sdpBodyText = "v=0\r\nc=IN IP4 192.0.2.7\r\nm=audio 4000 RTP/AVP 8\r\n"
	const isSDP = "Content-Type: application/sdp"
	rules := requestRules{Extensions: []string{"timer", "replaces"}, Own: []string{"192.0.2.10:5060", "2001:db8::10:5060"}}
	for _, tt := range []struct {
		name, method string
		edits        []string
		body         string
		want         int
	}{
		{name: "plain", method: "INVITE"},
		{name: "with sdp", method: "INVITE", edits: []string{isSDP}, body: sdpBodyText},
		{name: "sdp without a type", method: "INVITE", body: sdpBodyText},
		{name: "no max-forwards", method: "INVITE", edits: []string{"-Max-Forwards"}},
		{name: "tel", method: "INVITE", edits: []string{"INVITE tel:+48914245000 SIP/2.0"}},
		{name: "in a dialog without contact", method: "INVITE", edits: []string{"To: <sip:x@y>;tag=b", "-Contact"}},
		{name: "no from", method: "INVITE", edits: []string{"-From"}, want: 400},
		{name: "no to", method: "INVITE", edits: []string{"-To"}, want: 400},
		{name: "no via", method: "INVITE", edits: []string{"-Via"}, want: 400},
		{name: "no call-id", method: "INVITE", edits: []string{"-Call-ID"}, want: 400},
		{name: "no cseq", method: "INVITE", edits: []string{"-CSeq"}, want: 400},
		{name: "two from", method: "INVITE", edits: []string{"+From: <sip:b@c>;tag=2"}, want: 400},
		{name: "two to, one compact", method: "INVITE", edits: []string{"+t: <sip:b@c>"}, want: 400},
		{name: "two call-id", method: "BYE", edits: []string{"+Call-ID: c2"}, want: 400},
		{name: "two cseq", method: "BYE", edits: []string{"+CSeq: 2 BYE"}, want: 400},
		{name: "two max-forwards", method: "BYE", edits: []string{"+Max-Forwards: 70"}, want: 400},
		{name: "no from tag", method: "INVITE", edits: []string{"From: <sip:a@b>"}, want: 400},
		{name: "empty from tag", method: "INVITE", edits: []string{"From: <sip:a@b>;tag="}, want: 400},
		{name: "max-forwards 256", method: "INVITE", edits: []string{"Max-Forwards: 256"}, want: 400},
		{name: "max-forwards -1", method: "INVITE", edits: []string{"Max-Forwards: -1"}, want: 400},
		{name: "cseq of another method", method: "BYE", edits: []string{"CSeq: 1 INVITE"}, want: 400},
		{name: "cseq 2^31", method: "BYE", edits: []string{"CSeq: 2147483648 BYE"}, want: 400},
		{name: "cseq below", method: "BYE", edits: []string{"CSeq: 2147483647 BYE"}},
		{name: "via of another protocol", method: "BYE", edits: []string{"Via: HTTP/2.0/UDP 192.0.2.7;branch=z9hG4bK1"}, want: 400},
		{name: "via of version 3", method: "BYE", edits: []string{"Via: SIP/3.0/UDP 192.0.2.7;branch=z9hG4bK1"}, want: 400},
		{name: "broken via below", method: "BYE", edits: []string{"+Via: SIP/2.0/UDP"}, want: 400},
		{name: "two contacts", method: "INVITE", edits: []string{"+Contact: <sip:b@c>"}, want: 400},
		{name: "no contact", method: "INVITE", edits: []string{"-Contact"}, want: 400},
		{name: "contact tel", method: "INVITE", edits: []string{"Contact: <tel:101>"}, want: 400},
		{name: "contact *", method: "INVITE", edits: []string{"Contact: *"}, want: 400},
		{name: "contact * to unregister", method: "REGISTER", edits: []string{"Contact: *"}},
		{name: "headers in the URI", method: "INVITE", edits: []string{"INVITE sip:a@b?Route=x SIP/2.0"}, want: 400},
		{name: "mailto", method: "INVITE", edits: []string{"INVITE mailto:a@b SIP/2.0"}, want: 416},
		{name: "our own via", method: "INVITE", edits: []string{"+Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKmine"}, want: 482},
		{name: "a via twice", method: "INVITE", edits: []string{"+Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1"}, want: 482},
		{name: "same host twice", method: "INVITE", edits: []string{"+Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK2"}},
		{name: "no hops left", method: "INVITE", edits: []string{"Max-Forwards: 0"}, want: 483},
		{name: "no hops left, in a dialog", method: "INVITE", edits: []string{"Max-Forwards: 0", "To: <sip:x@y>;tag=b"}},
		{name: "no hops left, for us", method: "REGISTER", edits: []string{"Max-Forwards: 0"}},
		{name: "known extensions", method: "INVITE", edits: []string{"Require: timer, Replaces"}},
		{name: "unknown extension", method: "INVITE", edits: []string{"Require: timer", "+Require: precondition"}, want: 420},
		{name: "ACK requires nothing", method: "ACK", edits: []string{"Require: precondition"}},
		{name: "another body", method: "INVITE", edits: []string{"Content-Type: text/plain"}, body: "hello", want: 415},
		{name: "another body that may be ignored", method: "INVITE", edits: []string{"Content-Type: application/ISUP;version=x", "Content-Disposition: signal;handling=optional"}, body: "hello"},
		{name: "packed body", method: "INVITE", edits: []string{isSDP, "Content-Encoding: gzip"}, body: "xxx", want: 415},
		{name: "no type", method: "INVITE", body: "hello", want: 415},
		{name: "body of INFO is its own matter", method: "INFO", edits: []string{"Content-Type: application/dtmf-relay"}, body: "Signal=1"},
		{name: "accepts sdp", method: "INVITE", edits: []string{"Accept: text/plain, application/SDP;q=0.5"}},
		{name: "accepts all", method: "INVITE", edits: []string{"Accept: */*"}},
		{name: "accepts no sdp", method: "INVITE", edits: []string{"Accept: text/plain"}, want: 406},
		{name: "big body", method: "INVITE", edits: []string{isSDP}, body: "v=0\r\n" + strings.Repeat("a=x\r\n", maxBody/5), want: 413},
	} {
		req := requestOf(t, tt.method, tt.body, tt.edits...)
		status, reason, headers := validate(req, rules)
		if status != tt.want || (status != 0) != (reason != "") {
			t.Errorf("%s: %d %q, want %d\n%s", tt.name, status, reason, tt.want, req)
		}
		text := fmt.Sprint(headers)
		if status == 420 && text != "[Unsupported: precondition]" || status == 415 && !strings.Contains(text, "Accept: application/sdp") {
			t.Errorf("%s: headers %v", tt.name, headers)
		}
	}
}

func TestSDPBodyInMultipart(t *testing.T) {
	part := func(kind, text string) string {
		return "--b\r\nContent-Type: " + kind + "\r\n\r\n" + text + "\r\n"
	}
	for _, tt := range []struct {
		name, kind, body, want string
		status                 int
	}{
		{"with ISUP", "multipart/mixed;boundary=b", part("application/ISUP", "\x00\x01") + part("application/sdp", "v=0") + "--b--\r\n", "v=0", 0},
		{"quoted boundary", `Multipart/Mixed; boundary="b"`, "preamble\r\n" + part("Application/SDP;x=y", "v=0") + "--b--", "v=0", 0},
		{"end missing", "multipart/alternative;boundary=b", part("application/sdp", "v=0") + "--b--", "v=0", 0},
		{"without sdp", "multipart/mixed;boundary=b", part("text/plain", "x") + "--b--\r\n", "", 415},
		{"no boundary", "multipart/mixed", part("application/sdp", "v=0"), "", 415},
		{"empty", "multipart/mixed;boundary=b", "--b--", "", 415},
	} {
		req := requestOf(t, "INVITE", tt.body, "Content-Type: "+tt.kind)
		body, status, _ := sdpBody(req)
		if string(body) != tt.want || status != tt.status {
			t.Errorf("%s: %q %d", tt.name, body, status)
		}
	}
}

func TestMalformedResponse(t *testing.T) {
	request := func(first string, lines ...string) []byte {
		return sipText("", append([]string{first}, lines...)...)
	}
	fields := []string{"v: SIP/2.0/UDP 10.0.0.1:5060 ; rport;branch=z9hG4bK1, SIP/2.0/TCP b;branch=z9hG4bK2", "f: <sip:a@b>;tag=1", "t: <sip:c@d>",
		"i: id", "CSeq:\r\n 5 OPTIONS", "broken"}
	got := malformedResponse(request("OPTIONS sip:a@b SIP/2.0", fields...), testSource)
	msg, err := newSIPParser().ParseSIP(got)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	res := msg.(*sip.Response)
	if err := checkFields(res.Headers()); err != "" || res.StatusCode != 400 || res.CSeq().SeqNo != 5 || res.CallID().Value() != "id" {
		t.Errorf("%s", got)
	}
	if want := "Via: SIP/2.0/UDP 10.0.0.1:5060;rport=5099;branch=z9hG4bK1;received=198.51.100.9\r\nVia: SIP/2.0/TCP b;branch=z9hG4bK2\r\n"; !bytes.Contains(got, []byte(want)) {
		t.Errorf("%s", got)
	}
	if tag, _ := res.To().Params.Get("tag"); tag == "" || !bytes.Equal(got, malformedResponse(request("OPTIONS sip:a@b SIP/2.0", fields...), testSource)) {
		t.Error("the same request gets another answer")
	}
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"version":         {request("OPTIONS sip:a@b SIP/7.0", "Via: SIP/7.0/UDP a"), "SIP/2.0 505 "},
		"scheme":          {request("OPTIONS soap.beep://a SIP/2.0", "Via: SIP/2.0/UDP a"), "SIP/2.0 416 "},
		"lines":           {request("OPTIONS sip:a@b SIP/2.0", "Via: SIP/2.0/UDP a", strings.Repeat("X: y\r\n", textMaxHeaders+1)), "SIP/2.0 513 "},
		"brackets":        {request("OPTIONS <sip:a@b> SIP/2.0", "Via: SIP/2.0/UDP a"), "SIP/2.0 400 "},
		"ack":             {request("ACK sip:a@b SIP/7.0", "Via: SIP/2.0/UDP a"), ""},
		"response":        {request("SIP/2.0 999 x", "Via: SIP/2.0/UDP a"), ""},
		"no via":          {request("OPTIONS sip:a@b SIP/7.0", "To: a"), ""},
		"garbage":         {[]byte("\x01\x02"), ""},
		"nothing":         {nil, ""},
		"split by a line": {request("OPTIONS sip:a@b SIP/7.0", "Via: SIP/2.0/UDP a\x0bX: y"), "SIP/2.0 505 "},
		"too big":         {request("OPTIONS sip:a@b SIP/7.0", strings.Repeat("Via: SIP/2.0/UDP "+strings.Repeat("a", 200)+"\r\n", 100)), ""},
	} {
		got := malformedResponse(tt.raw, testSource)
		if (tt.want == "") != (got == nil) || !bytes.HasPrefix(got, []byte(tt.want)) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestValidateResponse(t *testing.T) {
	for text, ok := range map[string]bool{
		"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE":                                true,
		"Via: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE":                 false,
		"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE":                                                                      false,
		"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nTo: <sip:c@d>;tag=3\r\nCall-ID: x\r\nCSeq: 1 INVITE":         false,
		"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b:99999999>": false,
	} {
		out, _ := normalizeDatagram([]byte("SIP/2.0 200 OK\r\n" + text + "\r\n\r\n"))
		msg, err := newSIPParser().ParseSIP(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := validateResponse(msg.(*sip.Response)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
