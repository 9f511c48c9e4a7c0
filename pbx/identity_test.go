package pbx

import (
	"strings"
	"testing"

	"centralka/store"

	"github.com/emiago/sipgo/sip"
)

// identityRequest is an INVITE with these header lines in place of its From.
func identityRequest(t testing.TB, lines ...string) *sip.Request {
	t.Helper()
	all := append([]string{"INVITE sip:+48914245000@192.0.2.10 SIP/2.0"}, lines...)
	out, kind := normalizeDatagram(sipText("", all...))
	msg, err := newSIPParser().ParseSIP(out)
	if kind != textRequest || err != nil {
		t.Fatalf("%q: %v %v", lines, kind, err)
	}
	return msg.(*sip.Request)
}

func TestCallerIdentity(t *testing.T) {
	const (
		pai, ppi = "P-Asserted-Identity", "P-Preferred-Identity"
		from     = "From: <sip:+48501502503@operator.example>;tag=1"
		anon     = `From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=1`
	)
	allowed := func(number, raw, source string) store.Party {
		p := store.Party{Raw: raw, Source: source, Presentation: presentAllowed}
		n, ok := usableNumber(number)
		if !ok {
			t.Fatal(number)
		}
		p.Number = n
		return p
	}
	withheld := func(source string) store.Party {
		return store.Party{Source: source, Presentation: presentWithheld}
	}
	for _, tt := range []struct {
		name  string
		lines []string
		phone bool // not from a trunk
		want  store.Party
	}{
		{name: "from", lines: []string{from}, want: allowed("+48501502503", "+48501502503", "From")},
		{name: "pai before from", lines: []string{from, pai + ": <sip:+48911112222@op.example;user=phone>"}, want: allowed("+48911112222", "+48911112222", pai)},
		{name: "pai from a phone is nothing", lines: []string{"From: <sip:101@pbx>;tag=1", pai + ": <tel:112>"}, phone: true, want: allowed("101", "101", "From")},
		{name: "ppi", lines: []string{from, ppi + ": <sip:911112222@op.example>"}, want: allowed("+48911112222", "911112222", ppi)},
		{name: "pai before ppi", lines: []string{ppi + ": <sip:911112222@op>", pai + ": <tel:+48911113333>", from}, want: allowed("+48911113333", "+48911113333", pai)},
		{name: "name and number", lines: []string{from, pai + ": \"Jan, N.\" <sip:jan@op.example>, <tel:+48911112222>"}, want: allowed("+48911112222", "+48911112222", pai)},
		{name: "tel without brackets", lines: []string{from, pai + ": tel:+48-91-111-22-22"}, want: allowed("+48911112222", "+48-91-111-22-22", pai)},
		{name: "tel in from", lines: []string{"From: <tel:0048501502503>;tag=1"}, want: allowed("+48501502503", "0048501502503", "From")},
		{name: "phone-context prefix", lines: []string{"From: <tel:4245000;phone-context=+4891>;tag=1"}, want: allowed("+48914245000", "4245000", "From")},
		{name: "phone-context domain", lines: []string{"From: <sip:914245000;phone-context=op.example@op.example;user=phone>;tag=1"}, want: allowed("+48914245000", "914245000", "From")},
		{name: "phone-context of a global number", lines: []string{"From: <sip:+48914245000;phone-context=+1@op;user=phone>;tag=1"}, want: allowed("+48914245000", "+48914245000", "From")},
		{name: "other user parameters", lines: []string{"From: <sip:48914245000;npdi;cpc=ordinary@op;user=phone>;tag=1"}, want: allowed("+48914245000", "48914245000", "From")},
		{name: "escaped plus", lines: []string{"From: <sip:%2B48914245000@op>;tag=1"}, want: allowed("+48914245000", "%2B48914245000", "From")},
		{name: "foreign", lines: []string{"From: <sip:+442079460000@op>;tag=1"}, want: allowed("+442079460000", "+442079460000", "From")},
		{name: "privacy none", lines: []string{from, "Privacy: none"}, want: allowed("+48501502503", "+48501502503", "From")},
		{name: "critical alone", lines: []string{from, "Privacy: critical"}, want: allowed("+48501502503", "+48501502503", "From")},
		{name: "unreadable pai", lines: []string{from, pai + ": <sip:"}, want: allowed("+48501502503", "+48501502503", "From")},
		{name: "pai with no number", lines: []string{from, pai + ": <sip:gateway@op.example>"}, want: allowed("+48501502503", "+48501502503", "From")},
		{name: "forwarded", lines: []string{from, "Diversion: <sip:+48914245111@op>;reason=unconditional", "History-Info: <sip:+48914245111@op>;index=1"},
			want: allowed("+48501502503", "+48501502503", "From")},

		{name: "privacy id, number passed on", lines: []string{from, pai + ": <tel:+48911112222>", "Privacy: id"}, want: withheld(pai)},
		{name: "privacy in capitals", lines: []string{from, "Privacy: ID"}, want: withheld("From")},
		{name: "privacy list", lines: []string{from, "Privacy: critical;Header"}, want: withheld("From")},
		{name: "privacy twice", lines: []string{from, "Privacy: none", "privacy: User"}, want: withheld("From")},
		{name: "privacy with commas", lines: []string{from, "Privacy: session, id"}, want: withheld("From")},
		{name: "anonymous from, asserted number", lines: []string{anon, pai + ": <tel:+48911112222>"}, want: withheld(pai)},
		{name: "anonymous in spite of none", lines: []string{anon, pai + ": <tel:+48911112222>", "Privacy: none"}, want: withheld(pai)},
		{name: "anonymous", lines: []string{anon}, want: withheld("From")},
		{name: "anonymous of the network", lines: []string{"From: <sip:Anonymous@op.example>;tag=1"}, want: withheld("From")},
		{name: "restricted name, real number", lines: []string{`From: "Restricted" <sip:+48501502503@op>;tag=1`}, want: withheld("From")},
		{name: "restricted user", lines: []string{"From: sip:restricted@op.example;tag=1"}, want: withheld("From")},
		{name: "asserted but anonymous", lines: []string{from, pai + `: "anonymous" <sip:+48911112222@op>`}, want: withheld(pai)},
		{name: "remote party id", lines: []string{from, `Remote-Party-ID: "x" <sip:911112222@op>;party=calling;privacy=full;screen=yes`}, want: withheld("From")},
		{name: "remote party id off", lines: []string{from, `Remote-Party-ID: <sip:911112222@op>;privacy=off`}, want: allowed("+48501502503", "+48501502503", "From")},

		{name: "unavailable", lines: []string{`From: "Unavailable" <sip:unavailable@op>;tag=1`}, want: store.Party{Raw: "unavailable", Source: "From", Presentation: presentUnavailable}},
		{name: "a name", lines: []string{"From: <sip:jan.nowak@op.example>;tag=1"}, want: store.Party{Raw: "jan.nowak", Source: "From", Presentation: presentUnavailable}},
		{name: "no user", lines: []string{"From: <sip:op.example>;tag=1"}, want: store.Party{Source: "From", Presentation: presentUnavailable}},
		{name: "zero", lines: []string{"From: <sip:0@op.example>;tag=1"}, want: store.Party{Raw: "0", Source: "From", Presentation: presentUnavailable}},
		{name: "zeroes", lines: []string{"From: <sip:0000@op.example>;tag=1"}, want: store.Party{Raw: "0000", Source: "From", Presentation: presentUnavailable}},
		{name: "no from", lines: []string{"Subject: none"}, want: store.Party{Source: "From", Presentation: presentUnavailable}},
		{name: "a web address", lines: []string{"From: <http://www.example.com>;tag=1"}, want: store.Party{Source: "From", Presentation: presentUnavailable}},
	} {
		got := callerIdentity(identityRequest(t, tt.lines...), !tt.phone)
		if got != tt.want {
			t.Errorf("%s:\ngot  %#v\nwant %#v", tt.name, got, tt.want)
		}
		if got.Identifiable() != (tt.want.Presentation == presentAllowed) {
			t.Errorf("%s: identifiable %v", tt.name, got.Identifiable())
		}
	}
}

// TestWithheldLeaksNothing: whatever asks for privacy, no digit of the number is
// left anywhere in the record (S4.7-a).
func TestWithheldLeaksNothing(t *testing.T) {
	for _, ask := range []string{"Privacy: id", "Privacy: USER", "Privacy: header;critical", "Remote-Party-ID: <sip:1@a>;privacy=full"} {
		for _, where := range []string{"P-Asserted-Identity: <tel:+48911112222>", "P-Preferred-Identity: <sip:+48911112222@op>", "X-Nothing: x"} {
			p := callerIdentity(identityRequest(t, "From: <sip:+48911112222@op>;tag=1", where, ask), true)
			if p.Number != "" || strings.Contains(p.Raw+p.Source, "9111") || p.Presentation != presentWithheld {
				t.Errorf("%s, %s: %#v", ask, where, p)
			}
		}
	}
}
