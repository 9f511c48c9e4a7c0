package pbx

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"centralka/media"
)

func testNegotiation() *negotiation {
	return newNegotiation(netip.MustParseAddr("192.0.2.10"), 20000, 1000)
}

// sdpPeer writes what a peer at 192.0.2.7:4000 says.
func sdpPeer(dir, formats string, more ...string) []byte {
	return sdpText(append([]string{"v=0", "o=- 5 5 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0",
		"m=audio 4000 RTP/AVP " + formats, "a=" + dir}, more...)...)
}

// TestAnswerDirections is the whole matrix of RFC 3264 §6.1: what the peer
// offers, what we want, what we answer and do.
func TestAnswerDirections(t *testing.T) {
	const s, r, b, i = "sendonly", "recvonly", "sendrecv", "inactive"
	want := map[string]map[media.Direction]string{
		b: {media.SendRecv: b, media.SendOnly: s, media.RecvOnly: r, media.Inactive: i},
		s: {media.SendRecv: r, media.SendOnly: i, media.RecvOnly: r, media.Inactive: i},
		r: {media.SendRecv: s, media.SendOnly: s, media.RecvOnly: i, media.Inactive: i},
		i: {media.SendRecv: i, media.SendOnly: i, media.RecvOnly: i, media.Inactive: i},
	}
	for offered, row := range want {
		for wish, answer := range row {
			n := testNegotiation()
			body, p, err := n.answer(sdpPeer(offered, "8"), wish)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(body, []byte("a="+answer+"\r\n")) || sdpDirection(p.Direction) != answer {
				t.Errorf("offer %s, want %s: answered %s and %s", offered, sdpDirection(wish), sdpDirection(p.Direction), body)
			}
			if held := offered == s || offered == i; n.held() != held {
				t.Errorf("offer %s: held %v", offered, n.held())
			}

			// The same matrix the other way round: we offer the wish, the peer
			// answers, we do what both allow.
			n = testNegotiation()
			n.offer(wish)
			p, err = n.accept(sdpPeer(offered, "8"))
			if err != nil {
				t.Fatal(err)
			}
			if sdpDirection(p.Direction) != answer {
				t.Errorf("offered %s, answered %s: we do %s, want %s", sdpDirection(wish), offered, sdpDirection(p.Direction), answer)
			}
		}
	}
}

// TestOldHold: c=0.0.0.0 of RFC 2543 phones; resuming gives the address again.
func TestOldHold(t *testing.T) {
	n := testNegotiation()
	if _, _, err := n.answer(sdpPeer("sendrecv", "8"), media.SendRecv); err != nil {
		t.Fatal(err)
	}
	hold := bytes.Replace(sdpPeer("sendrecv", "8"), []byte("c=IN IP4 192.0.2.7"), []byte("c=IN IP4 0.0.0.0"), 1)
	body, p, err := n.answer(hold, media.SendRecv)
	if err != nil || !n.held() || p.Direction != media.RecvOnly || !bytes.Contains(body, []byte("a=recvonly")) {
		t.Errorf("hold: %+v %v %s", p, err, body)
	}
	if p.Remote != netip.MustParseAddrPort("192.0.2.7:4000") {
		t.Errorf("hold forgot the address: %v", p.Remote)
	}
	if _, p, err = n.answer(sdpPeer("sendrecv", "8"), media.SendRecv); err != nil || n.held() || p.Direction != media.SendRecv {
		t.Errorf("resume: %+v %v", p, err)
	}
}

func TestCodecChoice(t *testing.T) {
	event := func(pt string) string { return "a=rtpmap:" + pt + " telephone-event/8000" }
	for _, tt := range []struct {
		name, formats string
		more          []string
		codec         media.Codec
		payload, ev   uint8
		err           error
	}{
		{name: "ours first", formats: "0 8", codec: media.PCMA, payload: 8},
		{name: "what there is", formats: "18 0", codec: media.PCMU, payload: 0},
		{name: "numbers as offered", formats: "96 97 100", more: []string{"a=rtpmap:96 PCMU/8000", "a=rtpmap:97 pcma/8000", event("100")},
			codec: media.PCMA, payload: 97, ev: 100},
		{name: "first of two", formats: "8 97", more: []string{"a=rtpmap:97 PCMA/8000"}, codec: media.PCMA, payload: 8},
		{name: "event at 96", formats: "8 0 96", more: []string{event("96"), "a=fmtp:96 0-16"}, codec: media.PCMA, payload: 8, ev: 96},
		{name: "event of another clock", formats: "8 96 97", more: []string{"a=rtpmap:96 telephone-event/48000", event("97")}, codec: media.PCMA, payload: 8, ev: 97},
		{name: "static number taken away", formats: "8", more: []string{"a=rtpmap:8 G722/8000"}, err: errNoCodec},
		{name: "only others", formats: "18 9", err: errNoCodec},
		{name: "only events", formats: "101", more: []string{event("101")}, err: errNoCodec},
	} {
		n := testNegotiation()
		body, p, err := n.answer(sdpPeer("sendrecv", tt.formats, tt.more...), media.SendRecv)
		if !errors.Is(err, tt.err) || (tt.err != nil) != (err != nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err != nil {
			if n.settled() || body != nil {
				t.Errorf("%s: an error left traces", tt.name)
			}
			continue
		}
		if p.Codec != tt.codec || p.PayloadType != tt.payload || p.EventType != tt.ev {
			t.Errorf("%s: %+v", tt.name, p)
		}
		a, err := parseSDP(body)
		if err != nil {
			t.Fatal(err)
		}
		got := a.Media[0].formats()
		if len(got) != 1+min(int(tt.ev), 1) || got[0].Payload != tt.payload {
			t.Errorf("%s: answered %v", tt.name, got)
		}
	}
}

func TestAnswerRefuses(t *testing.T) {
	head := []string{"v=0", "o=- 5 5 IN IP4 192.0.2.7", "s=-", "t=0 0", "c=IN IP4 192.0.2.7"}
	for name, tt := range map[string]struct {
		body []byte
		err  error
	}{
		"no media":        {sdpText(head...), errNoAudio},
		"video only":      {sdpText(append(head, "m=video 4000 RTP/AVP 31")...), errNoAudio},
		"fax only":        {sdpText(append(head, "m=image 4000 udptl t38")...), errNoAudio},
		"port 0":          {sdpText(append(head, "m=audio 0 RTP/AVP 8")...), errNoAudio},
		"srtp only":       {sdpText(append(head, "m=audio 4000 RTP/SAVP 8")...), errNoSRTP},
		"no address":      {sdpText("v=0", "m=audio 4000 RTP/AVP 8"), errNoAddress},
		"a name":          {sdpText("v=0", "c=IN IP4 phone.example", "m=audio 4000 RTP/AVP 8"), errNoAddress},
		"another family":  {sdpText("v=0", "c=IN IP6 2001:db8::7", "m=audio 4000 RTP/AVP 8"), errNoAddress},
		"multicast":       {sdpText("v=0", "c=IN IP4 224.2.1.1/127", "m=audio 4000 RTP/AVP 8"), errNoAddress},
		"broadcast":       {sdpText("v=0", "c=IN IP4 255.255.255.255", "m=audio 4000 RTP/AVP 8"), errNoAddress},
		"not sdp":         {[]byte("hello"), errSDP},
		"no body at all":  {nil, errSDP},
		"wrong then none": {sdpText(append(head, "m=audio 4000 RTP/AVP 18", "m=audio 0 RTP/AVP 8")...), errNoCodec},
	} {
		n := testNegotiation()
		if _, _, err := n.answer(tt.body, media.SendRecv); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
	}
}

// TestRefusedLinesKeepTheirPlace: RFC 3264 §6 and §8. Every m-line of the peer
// is in our answer and in our later offers, in its order, refused with port 0.
func TestRefusedLinesKeepTheirPlace(t *testing.T) {
	n := testNegotiation()
	offer := sdpText("v=0", "c=IN IP4 192.0.2.7", "m=image 4002 udptl t38", "m=audio 4000 RTP/AVP 8", "m=video 4004 RTP/AVP 31 32")
	body, _, err := n.answer(offer, media.SendRecv)
	if err != nil {
		t.Fatal(err)
	}
	lines := func(b []byte) (m []string) {
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "m=") {
				m = append(m, strings.TrimSpace(l))
			}
		}
		return m
	}
	if got := strings.Join(lines(body), "|"); got != "m=image 0 udptl t38|m=audio 20000 RTP/AVP 8|m=video 0 RTP/AVP 31 32" {
		t.Error(got)
	}
	if got := strings.Join(lines(n.offer(media.SendOnly)), "|"); got != "m=image 0 udptl t38|m=audio 20000 RTP/AVP 8 0 101|m=video 0 RTP/AVP 31 32" {
		t.Error(got)
	}
}

// TestVersionMovesOnlyWithTheText: RFC 3264 §8.
func TestVersionMovesOnlyWithTheText(t *testing.T) {
	n := testNegotiation()
	first, _, err := n.answer(sdpPeer("sendrecv", "8"), media.SendRecv)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(first, []byte("o=- 1000 1000 IN IP4 192.0.2.10\r\n")) {
		t.Errorf("first: %s", first)
	}
	again, _, err := n.answer(sdpPeer("sendrecv", "8"), media.SendRecv)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("refresh changed the text: %v\n%s", err, again)
	}
	held, _, err := n.answer(sdpPeer("sendonly", "8"), media.SendRecv)
	if err != nil || !bytes.Contains(held, []byte("o=- 1000 1001 ")) {
		t.Errorf("hold: %v %s", err, held)
	}
	// A refused offer of ours does not give its number back.
	offer := n.offer(media.SendRecv)
	if !bytes.Contains(offer, []byte("o=- 1000 1002 ")) {
		t.Errorf("offer: %s", offer)
	}
	n.withdraw()
	after, _, err := n.answer(sdpPeer("sendonly", "8"), media.SendRecv)
	if err != nil || !bytes.Contains(after, []byte("o=- 1000 1003 ")) {
		t.Errorf("after a withdrawn offer: %v %s", err, after)
	}
	// The caller may do what it likes with the bytes.
	clear(after)
	same, _, err := n.answer(sdpPeer("sendonly", "8"), media.SendRecv)
	if err != nil || !bytes.HasPrefix(same, []byte("v=0")) {
		t.Error("the kept text was handed out")
	}
}

func TestOfferAnswerTurns(t *testing.T) {
	n := testNegotiation()
	if _, err := n.accept(sdpPeer("sendrecv", "8")); !errors.Is(err, errNoOffer) {
		t.Errorf("answer without an offer: %v", err)
	}
	n.offer(media.SendRecv) // the late offer, in the 200
	if _, _, err := n.answer(sdpPeer("sendrecv", "8"), media.SendRecv); !errors.Is(err, errGlare) {
		t.Errorf("glare: %v", err)
	}
	p, err := n.accept(sdpPeer("sendrecv", "0 101", "a=rtpmap:101 telephone-event/8000", "a=rtcp:5001 IN IP4 192.0.2.8"))
	if err != nil || p.Codec != media.PCMU || p.EventType != 101 || p.RemoteRTCP != netip.MustParseAddrPort("192.0.2.8:5001") {
		t.Errorf("answer in the ACK: %+v %v", p, err)
	}
	if !p.Equal(n.params()) || !n.settled() || n.held() {
		t.Error("not settled")
	}

	// A refused re-INVITE leaves everything as it was.
	n.offer(media.SendOnly)
	if _, err := n.accept(bytes.Replace(sdpPeer("recvonly", "8"), []byte("m=audio 4000"), []byte("m=audio 0"), 1)); !errors.Is(err, errRefused) {
		t.Errorf("refused audio: %v", err)
	}
	if !p.Equal(n.params()) {
		t.Error("a refused offer changed what was agreed")
	}
	if _, _, err := n.answer(sdpPeer("inactive", "8"), media.SendRecv); err != nil {
		t.Errorf("the turn is still ours: %v", err)
	}

	// The event number stays once it is agreed.
	n = testNegotiation()
	if _, _, err := n.answer(sdpPeer("sendrecv", "8 96", "a=rtpmap:96 telephone-event/8000"), media.SendRecv); err != nil {
		t.Fatal(err)
	}
	if o := n.offer(media.SendRecv); !bytes.Contains(o, []byte("a=rtpmap:96 telephone-event/8000")) {
		t.Errorf("offer renumbers events: %s", o)
	}
}

// An answer in a 183 is not the last word: it comes again in the 200, may be
// another's there (a fork), or is left out.
func TestOfferEarlyAnswer(t *testing.T) {
	early, forked := sdpPeer("sendrecv", "8"), sdpPeer("sendrecv", "0")
	for _, tt := range []struct {
		name     string
		early    [][]byte
		final    []byte
		want     media.Codec
		wantFail error
	}{
		{"the same", [][]byte{early, early}, early, media.PCMA, nil},
		{"a fork answers", [][]byte{early}, forked, media.PCMU, nil},
		{"not repeated", [][]byte{early}, nil, media.PCMA, nil},
		{"refused in the end", [][]byte{early}, bytes.Replace(early, []byte("m=audio 4000"), []byte("m=audio 0"), 1), 0, errRefused},
	} {
		n := testNegotiation()
		n.offer(media.SendRecv)
		for _, body := range tt.early {
			if p, err := n.early(body); err != nil || p.Codec != media.PCMA {
				t.Errorf("%s: early answer: %+v %v", tt.name, p, err)
			}
		}
		p, err := n.accept(tt.final)
		if !errors.Is(err, tt.wantFail) || err == nil && p.Codec != tt.want {
			t.Errorf("%s: %+v %v", tt.name, p, err)
		}
		if _, err := n.early(early); !errors.Is(err, errNoOffer) {
			t.Errorf("%s: the offer is still open: %v", tt.name, err)
		}
		// A later offer has no early answer to fall back on.
		n.offer(media.SendRecv)
		if _, err := n.accept(nil); err == nil {
			t.Errorf("%s: an empty answer to a re-INVITE was taken", tt.name)
		}
	}
}

func BenchmarkSDPAnswer(b *testing.B) {
	offer := sdpPeer("sendrecv", "8 0 18 101", "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000", "a=rtpmap:18 G729/8000",
		"a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15", "a=ptime:20", "a=maxptime:150")
	b.ReportAllocs()
	for b.Loop() {
		n := newNegotiation(netip.MustParseAddr("192.0.2.10"), 20000, 1)
		if _, _, err := n.answer(offer, media.SendRecv); err != nil {
			b.Fatal(err)
		}
	}
}
