package pbx

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"centralka/media"
)

// inline is the key-params of a key of n bytes that are all b.
func inline(n int, b byte) string {
	return "inline:" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, n))
}

func TestParseSDES(t *testing.T) {
	cm, gcm := inline(30, 7), inline(28, 7)
	for value, want := range map[string]media.Suite{
		"1 AES_CM_128_HMAC_SHA1_80 " + cm:                                      media.AES128CM80,
		"123456789 AES_CM_128_HMAC_SHA1_32 " + cm:                              media.AES128CM32,
		"2 AEAD_AES_128_GCM " + gcm:                                            media.AES128GCM,
		"3 AES_256_CM_HMAC_SHA1_80 " + inline(46, 1):                           media.AES256CM80,
		"4 AEAD_AES_256_GCM " + inline(44, 1):                                  media.AES256GCM,
		"1  aes_cm_128_hmac_sha1_80   " + cm:                                   media.AES128CM80, // as some write it
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + "|2^20":                            media.AES128CM80,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + "|1048576":                         media.AES128CM80,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + "|2^20|1:4":                        media.NoSuite, // MKI
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + "|1:4":                             media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + ";" + cm:                           media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " WSH=64":                          media.AES128CM80,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " -FOO=1 WSH=64":                   media.AES128CM80,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " UNENCRYPTED_SRTP":                media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " UNENCRYPTED_SRTCP":               media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " UNAUTHENTICATED_SRTP":            media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " KDR=2":                           media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + cm + " FEC_ORDER=SRTP_FEC":              media.NoSuite,
		"1 F8_128_HMAC_SHA1_80 " + cm:                                          media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + gcm:                                     media.NoSuite, // too short
		"1 AEAD_AES_128_GCM " + cm:                                             media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 " + strings.ReplaceAll(cm, "inline", "uri"): media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 inline:!!":                                  media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80 inline:":                                    media.NoSuite,
		"1 AES_CM_128_HMAC_SHA1_80":                                            media.NoSuite,
		"x AES_CM_128_HMAC_SHA1_80 " + cm:                                      media.NoSuite,
		"1234567890 AES_CM_128_HMAC_SHA1_80 " + cm:                             media.NoSuite,
		"AES_CM_128_HMAC_SHA1_80 " + cm:                                        media.NoSuite,
		"":                                                                     media.NoSuite,
	} {
		line, ok := parseSDES(value)
		if ok != (want != media.NoSuite) || line.key.Suite() != want {
			t.Errorf("%q: %v %v, want %v", value, ok, line.key.Suite(), want)
		}
		if ok && line.tag != strings.Fields(value)[0] {
			t.Errorf("%q: tag %q", value, line.tag)
		}
	}
	// Without padding, which 28 bytes have.
	if line, ok := parseSDES("1 AEAD_AES_128_GCM " + strings.TrimRight(gcm, "=")); !ok || line.key.Bytes()[27] != 7 {
		t.Error("a key without padding is refused")
	}
}

func FuzzSDES(f *testing.F) {
	f.Add("1 AES_CM_128_HMAC_SHA1_80 " + inline(30, 7) + "|2^20|1:4 -FOO WSH=64")
	f.Add("2 AEAD_AES_128_GCM " + inline(28, 1))
	f.Fuzz(func(t *testing.T, value string) {
		line, ok := parseSDES(value)
		if !ok {
			return
		}
		again, ok := parseSDES(line.attr().Value)
		if !ok || again.tag != line.tag || !again.key.Equal(line.key) {
			t.Errorf("%q is written as %q", value, line.attr().Value)
		}
	})
}

// secureNegotiation is a leg's state with SRTP.
func secureNegotiation(v voiceSecurity) *negotiation {
	n := testNegotiation()
	n.security = v
	return n
}

// securePeer writes what a peer says: m=audio by the profile with these a=crypto
// lines.
func securePeer(profile string, crypto ...string) []byte {
	lines := []string{"v=0", "o=- 5 5 IN IP4 192.0.2.7", "s=-", "c=IN IP4 192.0.2.7", "t=0 0", "m=audio 4000 " + profile + " 8"}
	for _, c := range crypto {
		lines = append(lines, "a=crypto:"+c)
	}
	return sdpText(lines...)
}

// cryptoOf reads the first audio line of a description: its profile and keys.
func cryptoOf(t *testing.T, body []byte) (string, []sdesLine) {
	t.Helper()
	s, err := parseSDP(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Media {
		if m := &s.Media[i]; m.Port != 0 {
			return m.Proto, m.sdes()
		}
	}
	t.Fatalf("no audio in %s", body)
	return "", nil
}

var (
	cmLine  = "7 AES_CM_128_HMAC_SHA1_80 " + inline(30, 7)
	gcmLine = "9 AEAD_AES_128_GCM " + inline(28, 9)
	oddLine = "1 F8_128_HMAC_SHA1_80 " + inline(30, 1)
	mkiLine = "2 AEAD_AES_128_GCM " + inline(28, 2) + "|2^20|1:4"
)

func TestAnswerSRTP(t *testing.T) {
	for _, tt := range []struct {
		name     string
		security voiceSecurity
		offer    []byte
		profile  string
		tag      string // empty: in the clear
		err      error
	}{
		{"off, plain", voicePlain, securePeer("RTP/AVP"), "RTP/AVP", "", nil},
		{"off, best effort", voicePlain, securePeer("RTP/AVP", cmLine), "RTP/AVP", "", nil},
		{"off, SAVP", voicePlain, securePeer("RTP/SAVP", cmLine), "", "", errNoSRTP},
		{"either, plain", voiceEither, securePeer("RTP/AVP"), "RTP/AVP", "", nil},
		{"either, SAVP", voiceEither, securePeer("RTP/SAVP", cmLine), "RTP/SAVP", "7", nil},
		{"either, best effort", voiceEither, securePeer("RTP/AVP", cmLine), "RTP/AVP", "7", nil},
		{"either, best effort without a usable key", voiceEither, securePeer("RTP/AVP", oddLine), "RTP/AVP", "", nil},
		{"the offerer's order", voiceEither, securePeer("RTP/SAVP", oddLine, mkiLine, cmLine, gcmLine), "RTP/SAVP", "7", nil},
		{"the offerer's order, turned", voiceEither, securePeer("rtp/savp", gcmLine, cmLine), "RTP/SAVP", "9", nil},
		{"no usable key", voiceEither, securePeer("RTP/SAVP", oddLine, mkiLine), "", "", errNoSuite},
		{"no key at all", voiceEither, securePeer("RTP/SAVP"), "", "", errNoSuite},
		{"require, SAVP", voiceSecure, securePeer("RTP/SAVP", cmLine), "RTP/SAVP", "7", nil},
		{"require, best effort", voiceSecure, securePeer("RTP/AVP", cmLine), "RTP/AVP", "7", nil},
		{"require, plain", voiceSecure, securePeer("RTP/AVP"), "", "", errPlain},
		{"require, unusable", voiceSecure, securePeer("RTP/AVP", oddLine), "", "", errPlain},
		{"require without TLS, SAVP", voiceNoSecret, securePeer("RTP/SAVP", cmLine), "", "", errNoSRTP},
		{"require without TLS, plain", voiceNoSecret, securePeer("RTP/AVP"), "", "", errNoSRTP},
		{"DTLS", voiceEither, securePeer("UDP/TLS/RTP/SAVP", cmLine), "", "", errNoAudio},
		{"SAVP after AVP", voiceEither, append(securePeer("RTP/AVP"), "m=audio 4002 RTP/SAVP 8\r\na=crypto:"+gcmLine+"\r\n"...), "RTP/SAVP", "9", nil},
		{"AVP after SAVP that is unusable", voiceEither, append(securePeer("RTP/SAVP", oddLine), "m=audio 4002 RTP/AVP 8\r\n"...), "RTP/AVP", "", nil},
	} {
		n := secureNegotiation(tt.security)
		body, p, err := n.answer(tt.offer, media.SendRecv)
		if !errors.Is(err, tt.err) || (tt.err == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
			continue
		}
		if err != nil {
			if n.settled() || len(n.keys) != 0 {
				t.Errorf("%s: an error left traces", tt.name)
			}
			continue
		}
		profile, lines := cryptoOf(t, body)
		if profile != tt.profile || len(lines) != min(len(tt.tag), 1) {
			t.Errorf("%s: answered %s", tt.name, body)
			continue
		}
		if tt.tag == "" {
			if p.SendKey.Suite()+p.ReceiveKey.Suite() != media.NoSuite {
				t.Errorf("%s: keys %v %v", tt.name, p.SendKey, p.ReceiveKey)
			}
			continue
		}
		if lines[0].tag != tt.tag || !lines[0].key.Equal(p.SendKey) || p.SendKey.Equal(p.ReceiveKey) ||
			p.SendKey.Suite() != p.ReceiveKey.Suite() || p.ReceiveKey.Bytes()[0] != tt.tag[0]-'0' {
			t.Errorf("%s: %+v, answered %s", tt.name, p, body)
		}
	}
}

// TestOfferSRTP: what we offer, and what we take for an answer.
func TestOfferSRTP(t *testing.T) {
	n := secureNegotiation(voiceEither)
	profile, ours := cryptoOf(t, n.offer(media.SendRecv))
	if profile != "RTP/SAVP" || len(ours) != 2 || ours[0].key.Suite() != media.AES128GCM || ours[1].key.Suite() != media.AES128CM80 || ours[0].tag == ours[1].tag {
		t.Fatalf("offered %s %v", profile, ours)
	}
	for name, answer := range map[string][]byte{
		"in the clear":        securePeer("RTP/AVP"),
		"best effort":         securePeer("RTP/AVP", "1 AEAD_AES_128_GCM "+inline(28, 3)),
		"no keys":             securePeer("RTP/SAVP"),
		"a tag of its own":    securePeer("RTP/SAVP", "3 AEAD_AES_128_GCM "+inline(28, 3)),
		"the other's suite":   securePeer("RTP/SAVP", "1 AES_CM_128_HMAC_SHA1_80 "+inline(30, 3)),
		"a suite not offered": securePeer("RTP/SAVP", "1 AES_CM_128_HMAC_SHA1_32 "+inline(30, 3)),
		"unencrypted":         securePeer("RTP/SAVP", "1 AEAD_AES_128_GCM "+inline(28, 3)+" UNENCRYPTED_SRTP"),
	} {
		for _, v := range []voiceSecurity{voiceEither, voiceSecure} {
			n := secureNegotiation(v)
			n.offer(media.SendRecv)
			if _, err := n.accept(answer); !errors.Is(err, errPlain) || n.settled() {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	p, err := n.accept(securePeer("RTP/SAVP", "2 AES_CM_128_HMAC_SHA1_80 "+inline(30, 4)))
	if err != nil || !p.SendKey.Equal(ours[1].key) || p.ReceiveKey.Bytes()[0] != 4 {
		t.Fatalf("%+v %v", p, err)
	}

	// An offer in the clear that is answered by SRTP.
	n = secureNegotiation(voicePlain)
	if profile, lines := cryptoOf(t, n.offer(media.SendRecv)); profile != "RTP/AVP" || len(lines) != 0 {
		t.Errorf("offered %s %v", profile, lines)
	}
	if _, err := n.accept(securePeer("RTP/SAVP", cmLine)); !errors.Is(err, errPlain) {
		t.Errorf("%v", err)
	}

	// Refused: once more in the clear, if that may be.
	for v, may := range map[voiceSecurity]bool{voiceEither: true, voiceSecure: false, voicePlain: false} {
		n := secureNegotiation(v)
		n.offer(media.SendRecv)
		if n.concede() != may {
			t.Errorf("%v: concedes %v", v, !may)
		}
		if !may {
			continue
		}
		if profile, lines := cryptoOf(t, n.offer(media.SendRecv)); profile != "RTP/AVP" || len(lines) != 0 {
			t.Errorf("after a refusal: %s %v", profile, lines)
		}
		if n.concede() {
			t.Error("concedes twice")
		}
		if p, err := n.accept(securePeer("RTP/AVP")); err != nil || n.encrypted() || p.SendKey.Suite() != media.NoSuite {
			t.Errorf("%+v %v", p, err)
		}
	}
}

// TestKeysOverReinvite: what keeps its key, what does not, and that no key comes
// back.
func TestKeysOverReinvite(t *testing.T) {
	n := secureNegotiation(voiceEither)
	body, p, err := n.answer(securePeer("RTP/SAVP", cmLine), media.SendRecv)
	if err != nil {
		t.Fatal(err)
	}
	// The same again, as a refresh: the same bytes, the same keys.
	again, q, err := n.answer(securePeer("RTP/SAVP", cmLine), media.SendRecv)
	if err != nil || !bytes.Equal(body, again) || !q.Equal(p) {
		t.Errorf("refresh: %v\n%s\n%s", err, body, again)
	}
	// Hold with another tag and another key of the peer's: ours stays.
	hold := append(securePeer("RTP/SAVP", "1 AES_CM_128_HMAC_SHA1_80 "+inline(30, 8)), "a=sendonly\r\n"...)
	_, q, err = n.answer(hold, media.SendRecv)
	if err != nil || !q.SendKey.Equal(p.SendKey) || q.ReceiveKey.Equal(p.ReceiveKey) || q.ReceiveKey.Bytes()[0] != 8 || !n.held() {
		t.Errorf("hold: %+v %v", q, err)
	}
	// In the clear: refused, and all is as it was.
	for _, offer := range [][]byte{securePeer("RTP/AVP"), securePeer("RTP/AVP", oddLine)} {
		if _, _, err := n.answer(offer, media.SendRecv); !errors.Is(err, errPlain) || !n.params().Equal(q) {
			t.Errorf("downgrade: %v", err)
		}
	}
	// Our own offer: the suite in use with its key, first.
	offer := n.offer(media.SendRecv)
	profile, ours := cryptoOf(t, offer)
	if profile != "RTP/SAVP" || len(ours) != 2 || !ours[0].key.Equal(p.SendKey) || ours[1].key.Suite() != media.AES128GCM {
		t.Fatalf("offered %s %v", profile, ours)
	}
	n.withdraw()
	if same := n.offer(media.SendRecv); !bytes.Equal(same, offer) {
		t.Error("the same offer has other bytes")
	}
	// The peer takes the other suite: another key. Back again: not the old one.
	r, err := n.accept(securePeer("RTP/SAVP", "2 AEAD_AES_128_GCM "+inline(28, 5)))
	if err != nil || !r.SendKey.Equal(ours[1].key) {
		t.Fatalf("%+v %v", r, err)
	}
	_, q, err = n.answer(securePeer("RTP/SAVP", cmLine), media.SendRecv)
	if err != nil || q.SendKey.Equal(p.SendKey) || q.SendKey.Suite() != media.AES128CM80 {
		t.Errorf("a key came back: %v", err)
	}
	// A refresh by us says what was said, and takes the answer to it.
	n.again()
	if s, err := n.accept(securePeer("RTP/SAVP", cmLine)); err != nil || !s.Equal(q) {
		t.Errorf("refresh by us: %+v %v", s, err)
	}
	// From the clear to SRTP: why not.
	n = secureNegotiation(voiceEither)
	if _, _, err := n.answer(securePeer("RTP/AVP"), media.SendRecv); err != nil {
		t.Fatal(err)
	}
	if profile, _ := cryptoOf(t, n.offer(media.SendRecv)); profile != "RTP/AVP" {
		t.Errorf("a call in the clear is offered %s", profile)
	}
	n.withdraw()
	if _, q, err = n.answer(securePeer("RTP/SAVP", cmLine), media.SendRecv); err != nil || q.SendKey.Suite() != media.AES128CM80 {
		t.Errorf("%+v %v", q, err)
	}
	// Best effort keeps its form in our offers.
	n = secureNegotiation(voiceSecure)
	if _, _, err := n.answer(securePeer("RTP/AVP", cmLine), media.SendRecv); err != nil {
		t.Fatal(err)
	}
	if profile, lines := cryptoOf(t, n.offer(media.SendRecv)); profile != "RTP/AVP" || len(lines) != 2 || lines[0].key.Suite() != media.AES128CM80 {
		t.Errorf("offered %s %v", profile, lines)
	}
}

// TestSecurityOf: keys are said only over TLS.
func TestSecurityOf(t *testing.T) {
	for _, tt := range []struct {
		srtp  string
		byTLS bool
		want  voiceSecurity
	}{
		{"", true, voicePlain}, {"off", true, voicePlain}, {"offer", true, voiceEither}, {"require", true, voiceSecure},
		{"off", false, voicePlain}, {"offer", false, voicePlain}, {"require", false, voiceNoSecret},
	} {
		if got := securityOf(tt.srtp, tt.byTLS); got != tt.want {
			t.Errorf("%q, TLS %v: %v", tt.srtp, tt.byTLS, got)
		}
	}
}

// TestNegotiationShowsNoKey: not even printed whole, as a panic would.
func TestNegotiationShowsNoKey(t *testing.T) {
	n := secureNegotiation(voiceEither)
	_, p, err := n.answer(securePeer("RTP/SAVP", cmLine), media.SendRecv)
	if err != nil {
		t.Fatal(err)
	}
	n.sent = nil // our own description, which is said over TLS and never logged
	var out string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		out += fmt.Sprintf(verb, *n)
	}
	for _, k := range []media.Key{p.SendKey, p.ReceiveKey} {
		b := k.Bytes()
		for _, secret := range []string{fmt.Sprintf("%x", b[:4]), strings.Trim(fmt.Sprint(b[:4]), "[]"), base64.StdEncoding.EncodeToString(b)[:8]} {
			if strings.Contains(out, secret) {
				t.Errorf("%q is shown", secret)
			}
		}
	}
}
