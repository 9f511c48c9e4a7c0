package media

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// secureFlow is a flow that sends and takes SRTP, and its peer.
func secureFlow(t testing.TB, s Suite) (*flow, *peerSRTP) {
	f, p := speaking(silent), newPeerSRTP(t, s)
	params := f.params
	params.ReceiveKey, params.SendKey = p.mine, p.theirs
	f.configure(params, 0)
	return f, p
}

// TestSRTPSendsPastTheWrap sends more than 2^16 packets through one flow, with
// Configure in between: the peer, a context that counts for itself, opens each.
func TestSRTPSendsPastTheWrap(t *testing.T) {
	for _, s := range []Suite{AES128GCM, AES128CM80} {
		f, peer := secureFlow(t, s)
		f.relayFrom(0)
		in := inbound{Packet: Packet{Kind: KindPCMA, SSRC: 9, Payload: frames(160, 0)}}
		buf := make([]byte, maxSent)
		at := time.Duration(0)
		for n := range 1<<16 + 40000 {
			if n%5000 == 0 {
				f.configure(f.params, at) // a refresh of the session
			}
			if n == 30000 {
				f.relayFrom(at) // another origin
			}
			in.Sequence, in.Timestamp = uint16(n), uint32(n)*FrameSamples
			size := f.forward(&in, at, buf)
			if got := peer.open(t, buf[:size]); !bytes.Equal(got[rtpHeader:], in.Payload) {
				t.Fatalf("%v: packet %d: % x", s, n, got)
			}
			at += FrameTime
		}
		if f.count.Unsent != 0 {
			t.Errorf("%v: %d not sent", s, f.count.Unsent)
		}
	}
}

// TestSentNumbers holds the window against a map of what was sent.
func TestSentNumbers(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s sentNumbers
		sent := map[uint64]bool{}
		high := uint64(1<<16 + rnd.IntN(1<<16))
		for n := range 3000 {
			seq := high
			if n > 0 {
				seq += uint64(rnd.IntN(150)) - uint64(rnd.IntN(150))
				if rnd.IntN(50) == 0 {
					seq += uint64(rnd.IntN(30000))
				}
			}
			want := seq > high || high-seq < 128 && !sent[seq]
			if n == 0 {
				want = true
			}
			if got := s.first(uint16(seq)); got != want {
				t.Fatalf("seed %d: number %d with %d the highest: %v", seed, seq, high, got)
			}
			if want {
				sent[seq] = true
			}
			high = max(high, seq)
		}
	}
}

// TestKeyStaysSecret: no way of printing shows a key, wherever it is held.
func TestKeyStaysSecret(t *testing.T) {
	k := NewKey(AES128CM80)
	holder := struct {
		p      Params
		Params Params
		key    Key
	}{Params{SendKey: k}, Params{ReceiveKey: k}, k}
	var log bytes.Buffer
	text := slog.New(slog.NewTextHandler(&log, nil))
	text.Info("x", "a", holder, "b", k, "c", &holder.p)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", holder, "b", k, "c", holder.p)
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		out += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, holder) + fmt.Sprintf(verb, &holder) + fmt.Sprintf(verb, []Key{k})
	}
	b := k.Bytes()
	for _, secret := range []string{
		base64.StdEncoding.EncodeToString(b)[:8], fmt.Sprintf("%x", b[:4]), fmt.Sprintf("%X", b[:4]),
		strings.Trim(fmt.Sprint(b[:4]), "[]"), strings.Trim(strings.ReplaceAll(fmt.Sprintf("%#v", b[:3]), "[]byte", ""), "{}"), string(b[:4]),
	} {
		if strings.Contains(out, secret) {
			at := strings.Index(out, secret)
			t.Errorf("%q is shown: %s", secret, out[max(at-200, 0):at+len(secret)])
		}
	}
	if k.String() != "AES_CM_128_HMAC_SHA1_80" || fmt.Sprintf("%+v", k) != k.String() {
		t.Errorf("shown as %+v", k)
	}
}

func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range allSuites {
		if got, ok := ParseSuite(s.String()); !ok || got != s {
			t.Errorf("%v is read as %v", s, got)
		}
		k := NewKey(s)
		if len(k.Bytes()) != s.KeyBytes() || seen[string(k.Bytes())] {
			t.Errorf("%v: key of %d bytes", s, len(k.Bytes()))
		}
		seen[string(k.Bytes())] = true
		same, err := ParseKey(s, k.Bytes())
		if err != nil || !same.Equal(k) || same.Equal(NewKey(s)) || same.Equal(Key{}) || (Key{}).Equal(same) || !(Key{}).Equal(Key{}) {
			t.Errorf("%v: %v, equal %v", s, err, same.Equal(k))
		}
		for _, n := range []int{0, s.KeyBytes() - 1, s.KeyBytes() + 1} {
			if _, err := ParseKey(s, make([]byte, n)); err == nil {
				t.Errorf("%v: %d bytes are taken", s, n)
			}
		}
	}
	for _, s := range []string{"", "none", "F8_128_HMAC_SHA1_80", "aes_cm_128_hmac_sha1_80"} {
		if _, ok := ParseSuite(s); ok {
			t.Errorf("%q is taken for a suite", s)
		}
	}
	if _, err := ParseKey(NoSuite, nil); err == nil {
		t.Error("a key without suite")
	}
}

// TestSourcesAreBounded: a peer that draws SSRCs without end costs no memory
// without end.
func TestSourcesAreBounded(t *testing.T) {
	f, peer := secureFlow(t, AES128GCM)
	from := netip.MustParseAddrPort("192.0.2.1:4000")
	var in inbound
	for n := range uint32(1000) {
		f.receive(peer.seal(t, voicePacket(1, 0, n)), from, 0, &in)
	}
	if f.count.Received != maxSources || f.count.Forged != 1000-maxSources {
		t.Errorf("%d taken, %d refused", f.count.Received, f.count.Forged)
	}
	// Those that are known go on.
	f.receive(peer.seal(t, voicePacket(2, 160, 5)), from, 0, &in)
	if f.count.Received != maxSources+1 {
		t.Error("a known source is refused")
	}
}

// relayPath is one packet's way through two flows, without sockets: taken from a's
// peer, sent on to b's. It returns a function that passes the next packet.
func relayPath(t testing.TB, s Suite, packets int) (pass func()) {
	a, b := speaking(silent), speaking(silent)
	wire := make([][]byte, packets)
	for n := range wire {
		wire[n] = voicePacket(uint16(n), uint32(n)*FrameSamples, 7)
	}
	if s != NoSuite {
		var peer *peerSRTP
		a, peer = secureFlow(t, s)
		b, _ = secureFlow(t, s)
		for n := range wire {
			wire[n] = peer.seal(t, wire[n])
		}
	}
	b.relayFrom(0)
	from := netip.MustParseAddrPort("192.0.2.1:4000")
	var in inbound
	buf := make([]byte, maxDatagram)
	n, at := 0, time.Duration(0)
	return func() {
		m := copy(buf, wire[n])
		if !a.receive(buf[:m], from, at, &in) || b.forward(&in, at, buf[:maxSent]) == 0 {
			t.Fatalf("packet %d does not pass: %+v %+v", n, a.count, b.count)
		}
		n++
		at += FrameTime
	}
}

// TestSecurePathAllocatesNothing: neither with SRTP on both legs nor without. Under
// the race detector the packets must pass all the same.
func TestSecurePathAllocatesNothing(t *testing.T) {
	for _, s := range append(allSuites, NoSuite) {
		pass := relayPath(t, s, 2100)
		pass() // the first one makes the events and the library's state
		a := testing.AllocsPerRun(2000, pass)
		if a != 0 && !raceDetector {
			t.Errorf("%v: %v allocations per packet", s, a)
		}
	}
}

// BenchmarkSecurePath is the cost of one packet's way through two flows without
// sockets, in the clear and with SRTP on both legs: opened once, sealed once.
func BenchmarkSecurePath(b *testing.B) {
	for _, s := range append([]Suite{NoSuite}, allSuites...) {
		b.Run(s.String(), func(b *testing.B) {
			const batch = 1 << 14
			var spent time.Duration
			done := 0
			for b.Loop() {
				pass := relayPath(b, s, batch)
				began := time.Now()
				for range batch {
					pass()
				}
				spent += time.Since(began)
				done += batch
			}
			b.ReportMetric(float64(spent)/float64(done), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// TestParamsEqual changes each field by itself.
func TestParamsEqual(t *testing.T) {
	full := Params{
		Remote: netip.MustParseAddrPort("192.0.2.1:1"), RemoteRTCP: netip.MustParseAddrPort("192.0.2.1:2"), Signalling: netip.MustParseAddr("192.0.2.1"),
		Codec: PCMA, PayloadType: 8, EventType: 101, Direction: SendRecv, SendKey: NewKey(AES128GCM), ReceiveKey: NewKey(AES128GCM),
	}
	if !full.Equal(full) || !(Params{}).Equal(Params{}) {
		t.Error("not equal to itself")
	}
	for i := range reflect.TypeFor[Params]().NumField() {
		other := full
		reflect.ValueOf(&other).Elem().Field(i).SetZero()
		if other.Equal(full) || full.Equal(other) {
			t.Errorf("%s makes no difference", reflect.TypeFor[Params]().Field(i).Name)
		}
	}
}
