package pbx

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

var testSource = netip.MustParseAddrPort("198.51.100.9:5099")

// tortureTexts reads the messages of RFC 4475, or of another RFC.
func tortureTexts(t testing.TB, rfc string) map[string][]byte {
	files, err := filepath.Glob("testdata/" + rfc + "/*.dat")
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
	return verdictOf(t, text, out, kind)
}

// reactStream is react by a stream that is read in pieces of some bytes: what
// becomes of the first message, or "drop" if it never ends.
func reactStream(t testing.TB, text []byte, piece int) string {
	var s streamText
	for chunk := range slices.Chunk(text, piece) {
		s.push(bytes.Clone(chunk))
		for {
			msg, kind := s.next()
			switch kind {
			case textPartial:
			case textKeepAlive:
				continue
			case textLost:
				got, _ := verdictOf(t, msg, nil, textMalformed)
				return "lost " + got
			default:
				got, _ := verdictOf(t, msg, msg, kind)
				return got
			}
			break
		}
	}
	return "drop"
}

// verdictOf goes on with what was normalised.
func verdictOf(t testing.TB, text, out []byte, kind textKind) (string, sip.Message) {
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
	texts := tortureTexts(t, "rfc4475")
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

// TestTortureIPv6: the messages of RFC 5118 §4, by datagram and by stream. The
// files are as printed there but for Content-Length, which in three of them does
// not fit the printed body.
func TestTortureIPv6(t *testing.T) {
	via := func(r *sip.Request, host string, port int, received string) bool {
		got, _ := r.Via().Params.Get("received")
		return r.Via().Host == host && r.Via().Port == port && got == received
	}
	media := func(r *sip.Request, want string) bool {
		body, status, _ := sdpBody(r)
		d, err := parseSDP(body)
		if status != 0 || err != nil || len(d.Media) != 2 {
			return false
		}
		conn := d.Conn
		if conn == (sdpConn{}) {
			conn = d.Media[0].Conn
		}
		return netip.AddrPortFrom(conn.Addr.Unmap(), d.Media[0].Port) == netip.MustParseAddrPort(want)
	}
	rows := []struct {
		name, section, want string
		understood          func(r *sip.Request) bool
	}{
		{"ipv6-good", "4.1", "ok", func(r *sip.Request) bool {
			return r.Recipient.Host == "[2001:db8::10]" && r.Contact().Address.Host == "[2001:db8::1]" && via(r, "2001:db8::9:1", 0, "")
		}},
		{"ipv6-bad", "4.2", "400", nil}, // no brackets
		{"port-ambiguous", "4.3", "ok", func(r *sip.Request) bool { return r.Recipient.Port == 0 && r.Recipient.Host == "[2001:db8::10:5070]" }},
		{"port-unambiguous", "4.4", "ok", func(r *sip.Request) bool { return r.Recipient.Port == 5070 && r.Recipient.Host == "[2001:db8::10]" }},
		{"via-received-param-with-delim", "4.5", "ok", func(r *sip.Request) bool { return via(r, "2001:db8::9:1", 0, "[2001:db8::9:255]") }},
		{"via-received-param-no-delim", "4.5", "ok", func(r *sip.Request) bool { return via(r, "2001:db8::9:1", 0, "2001:db8::9:255") }},
		{"ipv6-in-sdp", "4.6", "ok", func(r *sip.Request) bool { return media(r, "[2001:db8::20]:6000") }}, // no codec of ours: the call is refused with 488
		{"mult-ip-in-header", "4.7", "ok", func(r *sip.Request) bool { return via(r, "2001:db8::9:1", 6050, "") && len(r.GetHeaders("Via")) == 3 }},
		{"mult-ip-in-sdp", "4.8", "ok", func(r *sip.Request) bool {
			body, _, _ := sdpBody(r)
			_, p, err := testNegotiation().answer(body, 3)
			return media(r, "192.0.2.1:22334") && err == nil && p.Remote == netip.MustParseAddrPort("192.0.2.1:22334")
		}},
		{"ipv4-mapped-ipv6", "4.9", "ok", func(r *sip.Request) bool {
			return media(r, "192.0.2.2:6000") && via(r, "::ffff:192.0.2.10", 19823, "") && len(r.GetHeaders("Via")) == 2
		}},
		{"ipv6-bug-abnf-3-colons", "4.10", "ok", func(r *sip.Request) bool { return r.Recipient.Host == "[2001:db8:::192.0.2.1]" }},
		{"ipv6-correct-abnf-2-colons", "4.10", "ok", func(r *sip.Request) bool { return r.Recipient.Host == "[2001:db8::192.0.2.1]" }},
	}
	texts := tortureTexts(t, "rfc5118")
	if len(texts) != len(rows) {
		t.Fatalf("%d files, %d rows", len(texts), len(rows))
	}
	for _, row := range rows {
		got, msg := react(t, texts[row.name])
		if got != row.want {
			t.Errorf("%s (§%s): %s, want %s", row.name, row.section, got, row.want)
			continue
		}
		if row.understood != nil && !row.understood(msg.(*sip.Request)) {
			t.Errorf("%s (§%s): understood as %s", row.name, row.section, msg)
		}
	}
}

// TestTortureByStream: what comes by a stream, in pieces of any size, gets the
// answer that it gets by datagram. Where the start line is unusable, or the end of
// the message is not known, the connection is given up besides (RFC 3261 §18.3);
// two messages never end, for which a datagram is refused.
func TestTortureByStream(t *testing.T) {
	endless := map[string]bool{"clerr": true, "baddn": true} // Content-Length too large; no empty line
	for _, rfc := range []string{"rfc4475", "rfc5118"} {
		for name, text := range tortureTexts(t, rfc) {
			want, _ := react(t, text)
			for _, piece := range []int{1, 7, len(text)} {
				switch got := reactStream(t, text, piece); {
				case endless[name]:
					if got != "drop" || want != "400" {
						t.Errorf("%s in pieces of %d: %s by stream, %s by datagram", name, piece, got, want)
					}
				case got != want && (got != "lost "+want || want == "ok"):
					t.Errorf("%s in pieces of %d: %s by stream, %s by datagram", name, piece, got, want)
				}
			}
		}
	}
}
