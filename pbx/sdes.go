package pbx

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"centralka/media"
)

// Why an exchange fails for the sake of SRTP; 488 like the others of offer.go.
var (
	// errNoSRTP: only SRTP is offered, and it is switched off here, or signalling is
	// not by TLS, where its keys could be read by anybody on the way.
	errNoSRTP = errors.New("SRTP is offered where it is not spoken")
	// errNoSuite: SRTP is offered without a key that we could use.
	errNoSuite = errors.New("no SRTP suite that we speak")
	// errPlain: voice in the clear where it must be SRTP, or where it was SRTP
	// before.
	errPlain = errors.New("voice in the clear is not taken here")
)

// The two profiles that we speak (RFC 3551, RFC 3711).
const (
	profilePlain  = "RTP/AVP"
	profileSecure = "RTP/SAVP"
)

// voiceSecurity is what is to be done about SRTP on one leg: trunk.srtp or
// extension.srtp, and whether keys may be said at all.
//
// Keys are said in SDP (RFC 4568), so SRTP is only spoken where signalling is by
// TLS (RFC 4568 §8.1). Elsewhere "offer" is as good as "off", and "require" lets
// no call through.
//
// "offer" means: an offer of the peer's is answered as it comes, SRTP before
// RTP if it lists both. Our own offer is RTP/SAVP alone, and if that is refused
// (488, 606, 415) the INVITE is sent once more with RTP/AVP. RTP/AVP with keys in
// it ("best effort", what some phones send and RFC 4568 does not know) is
// answered, but not offered: who ignores the keys would answer in the clear, and
// neither side could tell that from an attack. Two m-lines, one of each, are
// refused by too many gateways.
//
// What has become SRTP stays it to the end of the call: an offer in the clear is
// refused then, with either value.
type voiceSecurity uint8

const (
	voicePlain    voiceSecurity = iota // SRTP is not spoken
	voiceEither                        // SRTP if the peer does
	voiceSecure                        // nothing else
	voiceNoSecret                      // SRTP is required, but there is no secret way for keys: no voice
)

// securityOf reads a configured value for a leg whose signalling comes by TLS or
// not.
func securityOf(srtp string, byTLS bool) voiceSecurity {
	switch {
	case srtp == "require" && byTLS:
		return voiceSecure
	case srtp == "require":
		return voiceNoSecret
	case srtp == "offer" && byTLS:
		return voiceEither
	}
	return voicePlain
}

func (v voiceSecurity) allowsSRTP() bool  { return v == voiceEither || v == voiceSecure }
func (v voiceSecurity) allowsPlain() bool { return v == voicePlain || v == voiceEither }

// sdesLine is one a=crypto line (RFC 4568 §4): tag, suite and key.
type sdesLine struct {
	tag string
	key media.Key
}

// offeredSuites are those that we offer, the better first.
var offeredSuites = []media.Suite{media.AES128GCM, media.AES128CM80}

// parseSDES reads the value of a=crypto:
//
//	tag suite inline:KEY||SALT["|" lifetime]["|" MKI ":" length] *(session parameter)
//
// A line that we could not use is not usable, which is no error: there may be
// others. Such are suites that we do not speak, several keys or a key identifier
// (MKI), which would have to be in every packet, and parameters that change the
// packets. How long the key lives is for who sends with it to mind.
func parseSDES(value string) (line sdesLine, usable bool) {
	f := strings.Fields(value)
	if len(f) < 3 || !isTag(f[0]) {
		return line, false
	}
	suite, ok := media.ParseSuite(strings.ToUpper(f[1]))
	if !ok {
		return line, false
	}
	method, params, _ := strings.Cut(f[2], ":")
	if !strings.EqualFold(method, "inline") || strings.Contains(params, ";") {
		return line, false
	}
	parts := strings.Split(params, "|")
	for _, p := range parts[1:] {
		if strings.Contains(p, ":") {
			return line, false
		}
	}
	// Some leave the padding out.
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "="))
	if err != nil {
		return line, false
	}
	key, err := media.ParseKey(suite, b)
	if err != nil {
		return line, false
	}
	for _, p := range f[3:] {
		// With "-" in front it may be ignored (RFC 4568 §6.3); the size of the
		// replay window is a hint.
		if p[0] != '-' && !strings.HasPrefix(strings.ToUpper(p), "WSH=") {
			return line, false
		}
	}
	return sdesLine{tag: f[0], key: key}, true
}

// isTag: one to nine digits.
func isTag(s string) bool {
	return len(s) > 0 && len(s) <= 9 && strings.Trim(s, "0123456789") == ""
}

// attr is the line in SDP.
func (l sdesLine) attr() sdpAttr {
	return sdpAttr{"crypto", l.tag + " " + l.key.Suite().String() + " inline:" + base64.StdEncoding.EncodeToString(l.key.Bytes())}
}

// sdes lists the usable a=crypto lines of an m-line in their order, which is the
// sender's preference (RFC 4568 §5.1.1).
func (m *sdpMedia) sdes() []sdesLine {
	var out []sdesLine
	for _, a := range m.Attrs {
		if !strings.EqualFold(a.Name, "crypto") {
			continue
		}
		if l, ok := parseSDES(a.Value); ok {
			out = append(out, l)
		}
	}
	return out
}

// profile is the m-line's, in the form in which we write it; empty if it is none
// of ours.
func (m *sdpMedia) profile() string {
	for _, p := range []string{profilePlain, profileSecure} {
		if strings.EqualFold(m.Proto, p) {
			return p
		}
	}
	return ""
}

// ownKeys are the keys with which one leg sends, one for each suite. A key is
// drawn when its suite is first named, and stays the leg's as long as the suite is
// not left: descriptions that are sent again say the same (RFC 3264 §8), and SRTP
// goes on with its counters. One that was in use and left is never used again.
type ownKeys map[media.Suite]media.Key

func (o ownKeys) of(s media.Suite) media.Key {
	k, ok := o[s]
	if !ok {
		k = media.NewKey(s)
		o[s] = k
	}
	return k
}

// settle drops the key that was used before with another suite.
func (o ownKeys) settle(before, now media.Key) {
	if s := before.Suite(); s != media.NoSuite && s != now.Suite() {
		delete(o, s)
	}
}

// lines are the a=crypto lines of an offer of ours: the suite in use first, and
// others beside it for a peer that has changed.
func (o ownKeys) lines(using media.Suite) []sdesLine {
	order := offeredSuites
	if using != media.NoSuite {
		order = []media.Suite{using}
		for _, s := range offeredSuites {
			if s != using {
				order = append(order, s)
			}
		}
	}
	var out []sdesLine
	for i, s := range order {
		out = append(out, sdesLine{tag: string(rune('1' + i)), key: o.of(s)})
	}
	return out
}

// answered finds the one of our lines that the peer has chosen, and its key.
func answered(ours, theirs []sdesLine) (send, receive media.Key, ok bool) {
	for _, t := range theirs {
		for _, o := range ours {
			if o.tag == t.tag && o.key.Suite() == t.key.Suite() {
				return o.key, t.key, true
			}
		}
	}
	return send, receive, false
}

// warningOf is the Warning of a 488 (RFC 3261 §20.43): what of the offer is in
// the way.
func warningOf(host string, err error) sip.Header {
	code, text := 399, "Offer not acceptable"
	for _, w := range []struct {
		err  error
		code int
		text string
	}{
		{errNoSRTP, 302, "RTP/SAVP is not available here; SRTP needs TLS"},
		{errPlain, 302, "RTP/AVP is not available here; SRTP is required"},
		{errNoSuite, 305, "No SRTP suite in common"},
		{errNoCodec, 305, "No codec in common; PCMA and PCMU are available"},
		{errNoAudio, 304, "Only audio over RTP is available"},
		{errNoAddress, 301, "No usable address"},
	} {
		if errors.Is(err, w.err) {
			code, text = w.code, w.text
			break
		}
	}
	return sip.NewHeader("Warning", strconv.Itoa(code)+" "+host+" "+strconv.Quote(text))
}
