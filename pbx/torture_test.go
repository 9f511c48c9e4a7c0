package pbx

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

var testSource = netip.MustParseAddrPort("198.51.100.9:5099")

// tortureTexts reads the messages of RFC 4475.
func tortureTexts(t testing.TB) map[string][]byte {
	files, err := filepath.Glob("testdata/rfc4475/*.dat")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string][]byte)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimSuffix(filepath.Base(f), ".dat")] = b
	}
	return texts
}

// react sends a text through normalizeDatagram, sipgo's parser and validate and
// says what becomes of it: "ok", "drop", or the status of the answer.
func react(t testing.TB, text []byte) (string, sip.Message) {
	out, kind := normalizeDatagram(bytes.Clone(text))
	switch kind {
	case textMalformed:
		answer := malformedResponse(text, testSource)
		if answer == nil {
			return "drop", nil
		}
		msg, err := newSIPParser().ParseSIP(answer)
		if err != nil {
			t.Fatalf("own answer is not readable: %v\n%s", err, answer)
		}
		return fmt.Sprint(msg.(*sip.Response).StatusCode), msg
	case textRequest, textResponse:
	default:
		return "drop", nil
	}
	msg, err := newSIPParser().ParseSIP(out)
	if err != nil {
		t.Fatalf("sipgo refuses what we hand on: %v\n%q", err, out)
	}
	if res, ok := msg.(*sip.Response); ok {
		if validateResponse(res) != nil {
			return "drop", msg
		}
		return "ok", msg
	}
	req := msg.(*sip.Request)
	if status, _, _ := validate(req, requestRules{Extensions: []string{"timer", "replaces", "100rel"}}); status != 0 {
		return fmt.Sprint(status), msg
	}
	return "ok", msg
}

// TestTorture: every message of RFC 4475. "ok" means that it reaches the
// handlers, which then do what the note says.
func TestTorture(t *testing.T) {
	rows := []struct{ name, section, want, note string }{
		{"wsinv", "3.1.1.1", "ok", ""},
		{"intmeth", "3.1.1.2", "ok", "unknown method: 501"},
		{"esc01", "3.1.1.3", "ok", ""},
		{"escnull", "3.1.1.4", "ok", ""},
		{"esc02", "3.1.1.5", "ok", "the method is not REGISTER: 501"},
		{"lwsdisp", "3.1.1.6", "ok", ""},
		{"longreq", "3.1.1.7", "ok", ""},
		{"dblreq", "3.1.1.8", "ok", "the second message in the datagram is cut off"},
		{"semiuri", "3.1.1.9", "ok", "404"},
		{"transports", "3.1.1.10", "ok", ""},
		{"mpart01", "3.1.1.11", "ok", "MESSAGE is not ours: 405"},
		{"unreason", "3.1.1.12", "ok", ""},
		{"noreason", "3.1.1.13", "ok", ""},
		{"badinv01", "3.1.2.1", "400", ""},
		{"clerr", "3.1.2.2", "400", ""},
		{"ncl", "3.1.2.3", "400", ""},
		{"scalar02", "3.1.2.4", "400", ""},
		{"scalarlg", "3.1.2.5", "drop", ""},
		{"quotbal", "3.1.2.6", "400", ""},
		{"ltgtruri", "3.1.2.7", "400", ""},
		{"lwsruri", "3.1.2.8", "400", ""},
		{"lwsstart", "3.1.2.9", "ok", "the RFC allows to be liberal: spaces are ignored"},
		{"trws", "3.1.2.10", "ok", "the RFC allows to be liberal: spaces are ignored"},
		{"escruri", "3.1.2.11", "400", ""},
		{"baddate", "3.1.2.12", "ok", "Date means nothing to us"},
		{"regbadct", "3.1.2.13", "400", ""},
		{"badaspec", "3.1.2.14", "ok", "the RFC allows to be liberal: spaces are ignored"},
		{"baddn", "3.1.2.15", "400", "the file also lacks the empty line"},
		{"badvers", "3.1.2.16", "505", ""},
		{"mismatch01", "3.1.2.17", "400", ""},
		{"mismatch02", "3.1.2.18", "400", "400 as well as 501"},
		{"bigcode", "3.1.2.19", "drop", ""},
		{"badbranch", "3.2.1", "ok", "matched as RFC 2543 does; nothing was invented for it"},
		{"insuf", "3.3.1", "400", ""},
		{"unkscm", "3.3.2", "416", ""},
		{"novelsc", "3.3.3", "416", ""},
		{"unksm2", "3.3.4", "ok", "the registrar answers: 400 for the Contact, or 404 for the To"},
		{"bext01", "3.3.5", "420", ""},
		{"invut", "3.3.6", "415", ""},
		{"regaut01", "3.3.7", "ok", "credentials of another scheme are none: 401"},
		{"multi01", "3.3.8", "400", ""},
		{"mcl01", "3.3.9", "400", ""},
		{"bcast", "3.3.10", "drop", ""},
		{"zeromf", "3.3.11", "ok", "we are the target; only an INVITE gets 483"},
		{"cparam01", "3.3.12", "ok", ""},
		{"cparam02", "3.3.13", "ok", ""},
		{"regescrt", "3.3.14", "ok", ""},
		{"sdp01", "3.3.15", "406", ""},
		{"inv2543", "3.4.1", "400", "valid by RFC 2543, but sipgo has no transaction without a From tag and RFC 3261 wants one"},
	}
	texts := tortureTexts(t)
	if len(texts) != 49 || len(rows) != 49 {
		t.Fatalf("%d files, %d rows, want 49", len(texts), len(rows))
	}
	got := make(map[string]sip.Message)
	for _, row := range rows {
		text, ok := texts[row.name]
		if !ok {
			t.Errorf("no file %s", row.name)
			continue
		}
		want, msg := react(t, text)
		if want != row.want {
			t.Errorf("%s (§%s): %s, want %s", row.name, row.section, want, row.want)
		}
		got[row.name] = msg
	}
	if t.Failed() {
		return
	}

	// What the RFC says about how they are to be understood.
	check := func(name string, ok bool, what any) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %v", name, what)
		}
	}
	tag := func(p sip.HeaderParams) string { v, _ := p.Get("tag"); return v }
	m := got["wsinv"]
	check("wsinv", tag(m.To().Params) == "1918181833n" && tag(m.From().Params) == "98asjd8" && m.CSeq().SeqNo == 9 &&
		m.(*sip.Request).MaxForwards().Val() == 68 && len(m.GetHeaders("Via")) == 3 && len(m.Body()) == 150, m)
	check("wsinv", m.GetHeaders("Via")[1].(*sip.ViaHeader).Host == "spindle.example.com" &&
		m.GetHeaders("Via")[2].(*sip.ViaHeader).Host == "192.168.255.111", m.GetHeaders("Via"))
	q, _ := m.(*sip.Request).Contact().Params.Get("q")
	check("wsinv", q == "0.33", m.(*sip.Request).Contact())
	m = got["intmeth"]
	check("intmeth", tag(m.From().Params) == "_token~1'+`*%!-." && m.(*sip.Request).Recipient.Host == "example.com", m)
	m = got["dblreq"]
	check("dblreq", m.(*sip.Request).Method == sip.REGISTER && len(m.Body()) == 0, m)
	m = got["esc02"]
	check("esc02", len(m.GetHeaders("Contact")) == 2 && m.(*sip.Request).Method != sip.REGISTER, m)
	check("longreq", len(got["longreq"].GetHeaders("Via")) == 34, len(got["longreq"].GetHeaders("Via")))
	m = got["semiuri"]
	check("semiuri", m.(*sip.Request).Recipient.User == "user;par=u%40example.net", m.(*sip.Request).Recipient)
	check("esc01", got["esc01"].(*sip.Request).Recipient.User == "sips%3Auser%40example.com", got["esc01"])
	m = got["cparam01"]
	check("cparam01", m.(*sip.Request).Contact().Params.Has("unknownparam"), m)
	m = got["cparam02"]
	check("cparam02", m.(*sip.Request).Contact().Address.UriParams.Has("unknownparam"), m)
	m = got["regescrt"]
	check("regescrt", len(m.(*sip.Request).Contact().Address.Headers) == 1, m)
	m = got["badaspec"]
	check("badaspec", m.To().Address.String() == "sip:t.watson@example.org", m.To())
	_, _, headers := validate(got["bext01"].(*sip.Request), requestRules{})
	check("bext01", len(headers) == 1 && headers[0].String() == "Unsupported: nothingSupportsThis, nothingSupportsThisEither", headers)
	_, _, headers = validate(got["invut"].(*sip.Request), requestRules{})
	check("invut", len(headers) == 2 && headers[0].String() == "Accept: application/sdp", headers)
}

// TestTortureIPv6: the messages of RFC 5118 §4, in short.
func TestTortureIPv6(t *testing.T) {
	sdp6 := "v=0\r\no=assistant 971731711378798081 0 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 2001:db8::20\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 2\r\n"
	mixed := "v=0\r\no=bob 280744730 28977631 IN IP4 host.example.com\r\ns=-\r\nt=0 0\r\nm=audio 22334 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\n" +
		"m=video 6024 RTP/AVP 107\r\nc=IN IP6 2001:db8::1\r\n"
	text := func(method, uri, via, contact, more, body string) []byte {
		lines := []string{method + " " + uri + " SIP/2.0", "To: sip:user@example.com", "From: sip:user@example.com;tag=81x2",
			"Via: SIP/2.0/UDP " + via, "Call-ID: SSG9559905523997077@hlau_4100", "Max-Forwards: 70",
			"Contact: " + contact, "CSeq: 98176 " + method, more + "Content-Length: " + fmt.Sprint(len(body))}
		return sipText(body, lines...)
	}
	const via = "[2001:db8::9:1];branch=z9hG4bKas3-111"
	for _, tt := range []struct {
		section, name, want string
		text                []byte
		check               func(r *sip.Request) bool
	}{
		{"4.1", "reference in the Request-URI", "ok", text("REGISTER", "sip:[2001:db8::10]", via, `"Caller" <sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool {
				return r.Recipient.Host == "[2001:db8::10]" && r.Via().Host == "2001:db8::9:1"
			}},
		{"4.2", "no brackets", "400", text("REGISTER", "sip:2001:db8::10", via, `"Caller" <sip:caller@[2001:db8::1]>`, "", ""), nil},
		{"4.3", "the port is part of the address", "ok", text("REGISTER", "sip:[2001:db8::10:5070]", via, `<sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool { return r.Recipient.Port == 0 && r.Recipient.Host == "[2001:db8::10:5070]" }},
		{"4.4", "the port is a port", "ok", text("REGISTER", "sip:[2001:db8::10]:5070", via, `<sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool { return r.Recipient.Port == 5070 }},
		{"4.5", "received in brackets", "ok", text("BYE", "sip:[2001:db8::10]", "[2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111", `<sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool {
				v, _ := r.Via().Params.Get("received")
				b, _ := r.Via().Params.Get("branch")
				return v == "[2001:db8::9:255]" && b == "z9hG4bKas3-111"
			}},
		{"4.5", "received without brackets", "ok", text("OPTIONS", "sip:[2001:db8::10]", "[2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3", `<sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool { v, _ := r.Via().Params.Get("received"); return v == "2001:db8::9:255" }},
		{"4.6", "addresses in the SDP", "ok", text("INVITE", "sip:user@[2001:db8::10]", "[2001:db8::20];branch=z9hG4bKas3-111", `"Caller" <sip:caller@[2001:db8::20]>`, "Content-Type: application/sdp\r\n", sdp6),
			func(r *sip.Request) bool {
				n := newNegotiation(netip.MustParseAddr("2001:db8::10"), 20000, 1)
				body, _, _ := sdpBody(r)
				_, p, err := n.answer(body, 3)
				return err == nil && p.Remote == netip.MustParseAddrPort("[2001:db8::20]:6000")
			}},
		{"4.7", "several families in the fields", "ok", text("BYE", "sip:user@host.example.net", "[2001:db8::9:1]:6050;branch=z9hG4bKas3-111, SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144", `"Caller" <sip:caller@[2001:db8::9:1]>`, "", ""),
			func(r *sip.Request) bool { return r.Via().Port == 6050 && len(r.GetHeaders("Via")) == 2 }},
		{"4.8", "several families in the SDP", "ok", text("INVITE", "sip:user@[2001:db8::10]", via, `<sip:caller@[2001:db8::9:1]>`, "Content-Type: application/sdp\r\n", mixed),
			func(r *sip.Request) bool {
				body, _, _ := sdpBody(r)
				_, p, err := testNegotiation().answer(body, 3)
				return err == nil && p.Remote == netip.MustParseAddrPort("192.0.2.1:22334")
			}},
		{"4.9", "IPv4-mapped", "ok", text("INVITE", "sip:user@example.com", "[::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19", `"T. desk phone" <sip:ted@[::ffff:192.0.2.2]>`, "Content-Type: application/sdp\r\n",
			strings.ReplaceAll(sdp6, "2001:db8::20", "::ffff:192.0.2.2")),
			func(r *sip.Request) bool {
				body, _, _ := sdpBody(r)
				_, p, err := testNegotiation().answer(body, 3)
				return err == nil && p.Remote == netip.MustParseAddrPort("192.0.2.2:6000") && r.Via().Port == 19823
			}},
		{"4.10", "three colons, as RFC 3261 allowed", "ok", text("OPTIONS", "sip:user@[2001:db8:::192.0.2.1]", via, `<sip:caller@[2001:db8::1]>`, "", ""),
			func(r *sip.Request) bool { return r.Recipient.Host == "[2001:db8:::192.0.2.1]" }},
	} {
		got, msg := react(t, tt.text)
		if got != tt.want {
			t.Errorf("§%s %s: %s, want %s", tt.section, tt.name, got, tt.want)
			continue
		}
		if tt.check != nil && !tt.check(msg.(*sip.Request)) {
			t.Errorf("§%s %s: understood as %s", tt.section, tt.name, msg)
		}
	}
}
