package pbx

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// sipText makes a message of lines and a body.
func sipText(body string, lines ...string) []byte {
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body)
}

// phoneInvite is a well-formed INVITE as a desk phone sends it.
var phoneInvite = sipText("v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 0 101\r\n",
	"INVITE sip:0914245000@192.0.2.10:5060;user=phone SIP/2.0",
	"Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK-524287-1---abcdef;rport",
	"Max-Forwards: 70",
	`Contact: <sip:101@192.0.2.7:5060;transport=udp>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"`,
	"To: <sip:0914245000@192.0.2.10>",
	`From: "Stanowisko 1" <sip:101@192.0.2.10>;tag=a73kszlfl`,
	"Call-ID: 1j9FpLxk3uxtm8tn@192.0.2.7",
	"CSeq: 1 INVITE",
	"Allow: INVITE, ACK, CANCEL, BYE, REFER, NOTIFY, OPTIONS, UPDATE",
	"Content-Type: application/sdp",
	"User-Agent: Phone 5.1",
	"Content-Length: 93")

func TestWellFormedTextIsNotCopied(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		out, kind := normalizeDatagram(phoneInvite)
		if kind != textRequest || &out[0] != &phoneInvite[0] || len(out) != len(phoneInvite) {
			t.Fatalf("kind %v, %d of %d bytes", kind, len(out), len(phoneInvite))
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestNormalizeHeader(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"To: <sip:a@b> ; tag = x", "To: <sip:a@b>;tag=x"},
		{"TO :\r\n sip:a@b ;   tag    = 1918181833n", "TO: sip:a@b;tag=1918181833n"},
		{"From: \"A; tag=no\" < sip:a@b >;\tTAG=yes", "From: \"A; tag=no\" <sip:a@b>;tag=yes"},
		{"f: A B <sip:a@b>;tag=1;;", "f: A B <sip:a@b>;tag=1"},
		{"From: <sip:a@b>;x=\"y;tag=evil\";tag=good", "From: <sip:a@b>;tag=good"},
		{"Via: SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw", "Via: SIP/2.0/UDP 192.0.2.2;branch=390skdjuw"},
		{"v: SIP/2.0/TCP  a.example : 5060 ; Branch = z9hG4bK1 , SIP/2.0/UDP b", "v: SIP/2.0/TCP a.example:5060;branch=z9hG4bK1\r\nv: SIP/2.0/UDP b"},
		{"Route: <sip:a;lr>,<sip:b,c;lr>, <sip:d>", "Route: <sip:a;lr>\r\nRoute: <sip:b,c;lr>\r\nRoute: <sip:d>"},
		{`m: "a, \"b" <sip:a@b>;Expires=5, sip:c@d;q=0.1`, `m: "a, \"b" <sip:a@b>;expires=5` + "\r\nm: sip:c@d;q=0.1"},
		{"CSeq: 0009\r\n\t INVITE", "CSeq: 0009 INVITE"},
		{"k: replaces,\r\n 100rel", "Supported: replaces, 100rel"},
		{"x: 1800;refresher=uac", "Session-Expires: 1800;refresher=uac"},
		{"r: <sip:a@b?Replaces=1%3Bto-tag%3D2>", "Refer-To: <sip:a@b?Replaces=1%3Bto-tag%3D2>"},
		{"Subject: a ;  b = c", "Subject: a ;  b = c"},
	} {
		in := sipText("", "OPTIONS sip:a@b SIP/2.0", tt.in, "Foo :  y")
		want := sipText("", "OPTIONS sip:a@b SIP/2.0", tt.want, "Foo: y")
		out, kind := normalizeDatagram(in)
		if kind != textRequest || !bytes.Equal(out, want) {
			t.Errorf("%q:\n%q (%v)\n%q", tt.in, out, kind, want)
		}
	}
}

func TestNormalizeKinds(t *testing.T) {
	stun := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	const opt, res = "OPTIONS sip:a@b SIP/2.0\r\n", "SIP/2.0 200 OK\r\n"
	for _, tt := range []struct {
		name, in string
		kind     textKind
		out      string
	}{
		{"empty", "", textKeepAlive, ""},
		{"ping", "\r\n\r\n", textKeepAlive, "\r\n"},
		{"pong", "\r\n", textKeepAlive, ""},
		{"zeroes", "\x00\x00\x00\x00", textKeepAlive, ""},
		{"many zeroes", strings.Repeat("\x00", 500), textGarbage, ""},
		{"stun", string(stun), textStun, ""},
		{"old stun", string(append([]byte{0, 1, 0, 0, 1, 1, 1, 1}, stun[8:]...)), textStun, ""},
		{"noise", "\xff\xfe\xfd", textGarbage, ""},
		{"http", "GET / HTTP/1.1\r\n\r\n", textGarbage, ""},
		{"rtp", "\x80\x08\x00\x01\x00\x00\x00\xa0\x12\x34\x56\x78", textGarbage, ""},
		{"leading ends", "\r\n\r\n" + opt + "Ax: b\r\n\r\n", textRequest, opt + "Ax: b\r\n\r\n"},
		{"spaces in the request line", "OPTIONS  sip:a@b  SIP/2.0 \r\n\r\n", textRequest, opt + "\r\n"},
		{"lower case version", "OPTIONS sip:a@b sip/2.0\r\n\r\n", textRequest, opt + "\r\n"},
		{"lf only", "OPTIONS sip:a@b SIP/2.0\nAx: b\n\nbody", textRequest, opt + "Ax: b\r\n\r\nbody"},
		{"no phrase", "SIP/2.0 180\r\nAx: b\r\n\r\n", textResponse, "SIP/2.0 180 \r\nAx: b\r\n\r\n"},
		{"phrase like a version", "SIP/2.0 503 SIP-Error\r\n\r\n", textResponse, "SIP/2.0 503 SIP-Error \r\n\r\n"},
		{"cut behind the body", opt + "l: 2\r\n\r\nabcd", textRequest, opt + "l: 2\r\n\r\nab"},
		{"folded length", opt + "l:\r\n 2\r\n\r\nabcd", textRequest, opt + "l: 2\r\n\r\nab"},
		{"same length twice", opt + "l: 2\r\nl: 2\r\n\r\nab", textRequest, opt + "l: 2\r\nl: 2\r\n\r\nab"},
		{"two lengths", opt + "l: 2\r\nl: 3\r\n\r\nabc", textMalformed, ""},
		{"length too long", opt + "l: 5\r\n\r\nabcd", textMalformed, ""},
		{"negative length", opt + "l: -1\r\n\r\nabcd", textMalformed, ""},
		{"huge length", opt + "l: 99999999999999999999\r\n\r\nabcd", textMalformed, ""},
		{"no colon", opt + "nonsense\r\n\r\n", textMalformed, ""},
		{"no name", opt + ": x\r\n\r\n", textMalformed, ""},
		{"no empty line", opt + "Ax: b\r\n", textMalformed, ""},
		{"lone cr", opt + "Ax: b\rc\r\n\r\n", textMalformed, ""},
		{"fold of nothing", opt + " Ax: b\r\n\r\n", textMalformed, ""},
		{"too many lines", opt + strings.Repeat("Ax: b\r\n", textMaxHeaders+10) + "\r\n", textMalformed, ""},
		{"space in the URI", "OPTIONS sip:a@b; lr SIP/2.0\r\n\r\n", textMalformed, ""},
		{"brackets round the URI", "OPTIONS <sip:a@b> SIP/2.0\r\n\r\n", textMalformed, ""},
		{"version 7", "OPTIONS sip:a@b SIP/7.0\r\n\r\n", textMalformed, ""},
		{"port", "OPTIONS sip:a@b:70000 SIP/2.0\r\n\r\n", textMalformed, ""},
		{"dotted scheme", "OPTIONS soap.beep://a SIP/2.0\r\n\r\n", textMalformed, ""},
		{"response length", res + "l: 5\r\n\r\nabcd", textGarbage, ""},
		{"response version", "SIP/3.0 200 OK\r\n\r\n", textGarbage, ""},
		{"response code", "SIP/2.0 4294967301 x\r\n\r\n", textGarbage, ""},
		{"response code 99", "SIP/2.0 099 x\r\n\r\n", textGarbage, ""},
	} {
		out, kind := normalizeDatagram([]byte(tt.in))
		if kind != tt.kind || string(out) != tt.out {
			t.Errorf("%s: %v %q", tt.name, kind, out)
		}
	}
}

// TestParserKeepsBrokenFields: sipgo's own parser loses the whole message.
func TestParserKeepsBrokenFields(t *testing.T) {
	parser := newSIPParser()
	for _, field := range []string{
		`From: "unbalanced <sip:a@b>;tag=1`, "To: <sip:a@b", "From: sip:a@b?x=y", "CSeq: 99999999999999999999 INVITE", "CSeq: 1",
		"Via: SIP/2.0/UDP", "Via: SIP/2.0/UDP a:99999", "Via: SIP/2.0/UDP 192.0.2.15;;,;,,", "Contact: sip:a@b?Route=x", "Max-Forwards: 1e3",
		"Max-Forwards: 99999999999", "Call-ID:", "Content-Type:", "Route: foo", `Route: "x"`, "Record-Route: ",
		"To: <sip:a@[2001:db8::1:5060>", "To: sip:2001:db8::10", "From: <sip:a@b>;tag=\"x",
	} {
		name, _, _ := strings.Cut(field, ":")
		in := sipText("", "INVITE sip:a@b SIP/2.0", field, "Subject: here")
		out, kind := normalizeDatagram(in)
		msg, err := parser.ParseSIP(out)
		if kind != textRequest || err != nil {
			t.Errorf("%s: %v %v", field, kind, err)
			continue
		}
		h := msg.GetHeaders(name)
		if len(h) == 0 || msg.GetHeaders("Subject") == nil {
			t.Errorf("%s: lost", field)
			continue
		}
		if field != "From: <sip:a@b>;tag=\"x" && !brokenHeader(h[0]) && !brokenHeader(h[len(h)-1]) {
			t.Errorf("%s: taken for %T %v", field, h[0], h[0])
		}
	}
	// Lists that come past normalizeDatagram are not lost either.
	msg, err := parser.ParseSIP(sipText("", "INVITE sip:a@b SIP/2.0", "Route: <sip:a;lr>, <sip:b;lr>"))
	if err != nil || len(msg.GetHeaders("Route")) != 2 {
		t.Errorf("list: %v %v", msg, err)
	}
}

func TestStreamText(t *testing.T) {
	one := "OPTIONS sip:a@b SIP/2.0\r\nl: 3\r\n\r\nabc"
	two := "SIP/2.0 200 OK\r\nTo: <sip:a@b> ; tag=1\r\nContent-Length: 0\r\n\r\n"
	bad := "OPTIONS sip:a@b SIP/2.0\r\nl: 1\r\nbroken\r\n\r\nx"
	type got struct {
		text string
		kind textKind
	}
	want := []got{
		{"\r\n", textKeepAlive}, {one, textRequest}, {strings.Replace(two, " ; ", ";", 1), textResponse}, {bad, textMalformed},
		{one, textRequest}, {"\r\n", textKeepAlive}, {"INVITE sip:a@b SIP/2.0\r\n\r\nv=0", textLost},
	}
	stream := "\r\n\r\n" + "\r\n" + one + two + bad + one + "\r\n\r\n" + "INVITE sip:a@b SIP/2.0\r\n\r\nv=0"
	for _, size := range []int{1, 2, 3, 7, 50, 1000} {
		var s streamText
		var all []got
		for i := 0; i < len(stream); i += size {
			s.push([]byte(stream[i:min(i+size, len(stream))]))
			for {
				msg, kind := s.next()
				if kind == textPartial {
					break
				}
				all = append(all, got{string(msg), kind})
			}
		}
		if len(all) != len(want) {
			t.Errorf("chunks of %d: %d messages: %q", size, len(all), all)
			continue
		}
		for i := range want {
			// What is left of a lost stream depends on how much had arrived.
			if all[i].kind != want[i].kind || !strings.HasPrefix(want[i].text, all[i].text) || (want[i].kind != textLost && all[i] != want[i]) {
				t.Errorf("chunks of %d, message %d: %q, want %q", size, i, all[i], want[i])
			}
		}
	}
	var fed streamText
	out, reply, ok := fed.feed([]byte("\r\n\r\n"+one+bad), testSource, everybody)
	if string(out) != one || !ok || string(reply) != "\r\n" {
		t.Errorf("feed: %q %q %v", out, reply, ok)
	}
	lost := strings.Replace(one, "l: 3", "Via: SIP/2.0/TCP a", 1)
	if out, reply, ok = fed.feed([]byte(one+lost), testSource, everybody); string(out) != one || ok || !bytes.HasPrefix(reply, []byte("SIP/2.0 400 ")) {
		t.Errorf("feed, lost: %q %q %v", out, reply, ok)
	}
	var s streamText
	s.push(bytes.Repeat([]byte("x"), textMaxBytes+1))
	if _, kind := s.next(); kind != textLost {
		t.Errorf("endless line: %v", kind)
	}
}

// FuzzNormalize: no panic; what is called a message is parsed, is the same when
// normalised again, and comes out of a stream the same as out of a datagram;
// validate and the answers never panic on it.
func FuzzNormalize(f *testing.F) {
	for _, text := range tortureTexts(f, "rfc4475") {
		f.Add(text)
	}
	f.Add(phoneInvite)
	f.Add([]byte("SIP/2.0 180\nVia: SIP/2.0/UDP a, SIP/2.0/UDP b\nl:\n 0\n\n"))
	parser := newSIPParser()
	f.Fuzz(func(t *testing.T, in []byte) {
		out, kind := normalizeDatagram(bytes.Clone(in))
		malformedResponse(in, testSource)
		if kind != textRequest && kind != textResponse {
			return
		}
		msg, err := parser.ParseSIP(out)
		if err != nil {
			t.Fatalf("sipgo refuses what we hand on: %v\n%q", err, out)
		}
		again, kind2 := normalizeDatagram(bytes.Clone(out))
		if kind2 != kind || !bytes.Equal(again, out) {
			t.Fatalf("not stable:\n%q\n%q", out, again)
		}
		switch msg := msg.(type) {
		case *sip.Request:
			validate(msg, requestRules{})
			sdpBody(msg)
			callerIdentity(msg, true)
		case *sip.Response:
			validateResponse(msg)
		}
		var s streamText
		s.push(out)
		text, kind3 := s.next()
		if kind3 == textRequest && !bytes.Equal(text, out) {
			t.Fatalf("stream differs:\n%q\n%q", out, text)
		}
	})
}

func BenchmarkNormalizeReady(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(phoneInvite)))
	for b.Loop() {
		normalizeDatagram(phoneInvite)
	}
}

func BenchmarkNormalizeRewrite(b *testing.B) {
	in := bytes.Replace(phoneInvite, []byte(">;tag"), []byte("> ; tag"), 1)
	b.ReportAllocs()
	for b.Loop() {
		normalizeDatagram(in)
	}
}

func BenchmarkParse(b *testing.B) {
	parser := newSIPParser()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parser.ParseSIP(phoneInvite); err != nil {
			b.Fatal(err)
		}
	}
}

func everybody(msg []byte) ([]byte, bool) { return msg, true }
