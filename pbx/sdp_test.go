package pbx

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"centralka/media"

	"github.com/pion/sdp/v3"
)

// sdpText makes a body of lines, ended as the RFC wants.
func sdpText(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n") + "\r\n") }

// What phones and gateways really send; pion/sdp refuses many of these.
var sdpField = map[string][]byte{
	"plain":           sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "m=audio 4000 RTP/AVP 8"),
	"lf only, no end": []byte("v=0\no=- 1 1 IN IP4 192.0.2.7\ns=-\nc=IN IP4 192.0.2.7\nt=0 0\nm=audio 4000 RTP/AVP 8"),
	"no s, no t":      sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "c=IN IP4 192.0.2.7", "m=audio 4000 RTP/AVP 8"),
	"c after t":       sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "t=0 0", "c=IN IP4 192.0.2.7", "m=audio 4000 RTP/AVP 8"),
	"c per media":     sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "t=0 0", "m=audio 4000 RTP/AVP 8", "c=IN IP4 192.0.2.7"),
	"c in both":       sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", "m=audio 4000 RTP/AVP 8", "c=IN IP4 192.0.2.7"),
	"unknown lines":   sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "y=1", "c=IN IP4 192.0.2.7", "nonsense", "t=0 0", "foo=bar", "m=audio 4000 RTP/AVP 8", "x=1"),
	"fax first":       sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "m=image 4002 udptl t38", "a=T38FaxVersion:0", "m=audio 4000 RTP/AVP 8"),
	"two audio":       sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "m=audio 4002 RTP/SAVP 8", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc", "m=audio 4000 RTP/AVP 8"),
	"blank lines":     sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "", "s=", "c=IN IP4 192.0.2.7 ", "t=0 0", "", "m=audio 4000 RTP/AVP 8", ""),
	"spaced sign":     sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "m =audio 4000 RTP/AVP 8"),
	"long origin":     sdpText("v=0", "o=Some Phone 99999999999999999999999 1 IN IP4 192.0.2.7", "s=a call", "c=IN IP4 192.0.2.7/127", "t=3149328700 0", "m=audio 4000/2 RTP/AVP 8"),
	"bundle": sdpText("v=0", "o=- 1 1 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "a=group:BUNDLE 0 1",
		"m=audio 4000 RTP/AVP 8", "a=mid:0", "a=rtcp-mux", "m=video 4000 RTP/AVP 96", "a=mid:1"),
}

func TestParseSDPFromTheField(t *testing.T) {
	for name, body := range sdpField {
		s, err := parseSDP(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n := newNegotiation(netip.MustParseAddr("192.0.2.10"), 20000, 1)
		_, p, err := n.answer(body, media.SendRecv)
		if err != nil || p.Remote != netip.MustParseAddrPort("192.0.2.7:4000") || p.Codec != media.PCMA {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		again, err := parseSDP(s.marshal())
		if err != nil {
			t.Errorf("%s: own text refused: %v\n%s", name, err, s.marshal())
		} else if a, b := string(s.marshal()), string(again.marshal()); a != b {
			t.Errorf("%s: round trip\n%s\n%s", name, a, b)
		}
	}
}

func TestParseSDPRefuses(t *testing.T) {
	for name, body := range map[string][]byte{
		"empty":       nil,
		"blank":       []byte("\r\n\r\n"),
		"not sdp":     []byte("<audio>\r\n <pcmu port=\"443\"/>\r\n</audio>"),
		"no version":  sdpText("o=- 1 1 IN IP4 192.0.2.7", "s=-"),
		"version 1":   sdpText("v=1", "s=-"),
		"port":        sdpText("v=0", "m=audio 70000 RTP/AVP 8"),
		"port minus":  sdpText("v=0", "m=audio -1 RTP/AVP 8"),
		"short m":     sdpText("v=0", "m=audio 4000"),
		"bad c":       sdpText("v=0", "c=IN"),
		"many lines":  []byte("v=0\r\n" + strings.Repeat("a=x\r\n", sdpMaxLines)),
		"many media":  []byte("v=0\r\n" + strings.Repeat("m=audio 1 RTP/AVP 8\r\n", sdpMaxMedia+1)),
		"many codecs": sdpText("v=0", "m=audio 1 RTP/AVP "+strings.Repeat("8 ", sdpMaxCodes+1)),
		"huge":        []byte("v=0\r\ns=" + strings.Repeat("x", sdpMaxBytes)),
	} {
		if _, err := parseSDP(body); !errors.Is(err, errSDP) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSDPFormats(t *testing.T) {
	s, err := parseSDP(sdpText("v=0", "m=audio 4000 RTP/AVP 0 8 96 97 98 100 101 13 200 x",
		"a=rtpmap:96 pcma/8000", "a=rtpmap:97 PCMU/8000/1", "a=rtpmap:98 PCMA/8000/2", "a=RTPMAP:101 Telephone-Event/8000",
		"a=fmtp:101 0-16", "a=fmtp:100 0-15"))
	if err != nil {
		t.Fatal(err)
	}
	want := []sdpFormat{
		{0, "PCMU", 8000, ""}, {8, "PCMA", 8000, ""}, {96, "PCMA", 8000, ""}, {97, "PCMU", 8000, ""}, {98, "", 0, ""},
		{100, "TELEPHONE-EVENT", 8000, "0-15"}, {101, "TELEPHONE-EVENT", 8000, "0-16"}, {13, "", 0, ""},
	}
	if got := s.Media[0].formats(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestSDPDirectionLevels(t *testing.T) {
	for _, tt := range []struct {
		session, line string
		want          media.Direction
	}{
		{"", "", media.SendRecv},
		{"sendonly", "", media.SendOnly},
		{"", "recvonly", media.RecvOnly},
		{"inactive", "sendrecv", media.SendRecv},
		{"sendrecv", "INACTIVE", media.Inactive},
	} {
		lines := []string{"v=0"}
		if tt.session != "" {
			lines = append(lines, "a="+tt.session)
		}
		lines = append(lines, "m=audio 1 RTP/AVP 8")
		if tt.line != "" {
			lines = append(lines, "a="+tt.line)
		}
		s, err := parseSDP(sdpText(lines...))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.directionOf(&s.Media[0]); got != tt.want {
			t.Errorf("session %q line %q: %v, want %v", tt.session, tt.line, got, tt.want)
		}
	}
}

// FuzzSDP: no panic, own text is read back to the same text, an answer to
// anything is understood by a strict reader, and whatever that reader accepts
// has the same m-lines for us.
func FuzzSDP(f *testing.F) {
	for _, body := range sdpField {
		f.Add(body)
	}
	f.Add(sdpText("v=0", "c=IN IP6 2001:db8::1", "m=audio 4000 RTP/AVP 0 101", "a=rtpmap:101 telephone-event/8000", "a=rtcp:4001 IN IP6 2001:db8::2"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parseSDP(body)
		if err != nil {
			if !errors.Is(err, errSDP) {
				t.Fatalf("error is not errSDP: %v", err)
			}
			return
		}
		text := s.marshal()
		again, err := parseSDP(text)
		if err != nil {
			t.Fatalf("own text refused: %v\n%q", err, text)
		}
		if got := again.marshal(); string(got) != string(text) {
			t.Fatalf("round trip\n%q\n%q", text, got)
		}
		n := newNegotiation(netip.MustParseAddr("192.0.2.10"), 20000, 1)
		answer, p, err := n.answer(body, media.SendRecv)
		if err != nil {
			return
		}
		if p.Codec != media.PCMA && p.Codec != media.PCMU {
			t.Fatalf("codec %v", p.Codec)
		}
		if p.Direction&media.SendOnly != 0 && !p.Remote.Addr().IsValid() {
			t.Fatalf("sends to nowhere: %+v", p)
		}
		a, err := parseSDP(answer)
		if err != nil || len(a.Media) != len(s.Media) {
			t.Fatalf("answer has not the offer's m-lines: %v\n%s", err, answer)
		}
		live := 0
		for i, m := range a.Media {
			if m.Port != 0 {
				live++
			}
			if m.Kind != s.Media[i].Kind {
				t.Fatalf("m-line %d is %s, was %s", i, m.Kind, s.Media[i].Kind)
			}
		}
		if live != 1 {
			t.Fatalf("%d live m-lines", live)
		}
	})
}

// TestSDPAgainstPion: a strict reader takes what we write and reads the same
// from what both accept.
func TestSDPAgainstPion(t *testing.T) {
	n := newNegotiation(netip.MustParseAddr("2001:db8::10"), 20000, 7)
	var d sdp.SessionDescription
	if err := d.Unmarshal(n.offer(media.SendOnly)); err != nil {
		t.Fatalf("pion refuses our offer: %v", err)
	}
	if m := d.MediaDescriptions[0].MediaName; m.Port.Value != 20000 || strings.Join(m.Formats, " ") != "8 0 101" {
		t.Errorf("pion reads %+v", m)
	}
	if a := d.ConnectionInformation.Address.Address; a != "2001:db8::10" {
		t.Errorf("pion reads c= %s", a)
	}
	accepted := 0
	for name, body := range sdpField {
		var d sdp.SessionDescription
		if d.Unmarshal(body) != nil {
			continue
		}
		accepted++
		s, err := parseSDP(body)
		if err != nil || len(s.Media) != len(d.MediaDescriptions) {
			t.Errorf("%s: pion reads %d m-lines, we %v", name, len(d.MediaDescriptions), err)
			continue
		}
		for i, m := range d.MediaDescriptions {
			if int(s.Media[i].Port) != m.MediaName.Port.Value || !reflect.DeepEqual(s.Media[i].Formats, m.MediaName.Formats) {
				t.Errorf("%s m-line %d: %+v, pion %+v", name, i, s.Media[i], m.MediaName)
			}
		}
	}
	if accepted < 4 {
		t.Errorf("pion accepts only %d of the bodies: the oracle is not used", accepted)
	}
}
