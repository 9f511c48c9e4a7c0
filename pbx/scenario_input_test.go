package pbx_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// torture reads the messages of RFC 4475.
func torture(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/rfc4475/*.dat")
	if err != nil || len(files) != 49 {
		t.Fatalf("%d messages: %v", len(files), err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".dat")] = b
	}
	return out
}

// noiseAddr is a second address of the trunk, which nobody but the noise uses.
var noiseAddr = netip.MustParseAddrPort("198.51.100.7:5060")

func noisyCity(t *testing.T) pbx.Config {
	cfg := briefCity(t, "101")
	cfg.Trunks[0].From = []pbx.Source{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	return cfg
}

// stillWorks asserts that a call goes through.
func (r *rig) stillWorks() {
	r.t.Helper()
	caller, agent := r.talk()
	time.Sleep(2 * time.Second)
	hears(r.t, "caller", caller.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz)
	hears(r.t, "agent", agent.Heard().PCM, callerHz)
	caller.Hangup()
	r.must(agent.WaitEnded(time.Second))
}

// TestTortureAtTheSwitch sends the messages of RFC 4475 to the running switch
// from its trunk: 404 is a number that is not ours, 403 a REGISTER from a trunk, 405 and 501
// a method that we have no use for; the others are those that the RFC names.
func TestTortureAtTheSwitch(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"badaspec": "200", "badbranch": "200", "baddate": "404", "baddn": "400", "badinv01": "400", "badvers": "505", "bext01": "420",
		"clerr": "400", "cparam01": "403", "cparam02": "403", "dblreq": "403", "esc01": "404", "esc02": "501", "escnull": "403",
		"escruri": "400", "insuf": "400", "intmeth": "501", "inv2543": "400", "invut": "415", "longreq": "404", "ltgtruri": "400",
		"lwsdisp": "200", "lwsruri": "400", "lwsstart": "404", "mcl01": "400", "mismatch01": "400", "mismatch02": "400", "mpart01": "405",
		"multi01": "400", "ncl": "400", "novelsc": "416", "regaut01": "403", "regbadct": "400", "regescrt": "403", "scalar02": "400",
		"sdp01": "406", "semiuri": "200", "transports": "200", "trws": "200", "unkscm": "416", "unksm2": "403", "wsinv": "481", "zeromf": "200",
		"unreason": "", "noreason": "", "bigcode": "", "bcast": "", "scalarlg": "", // responses to nothing of ours
		"quotbal": "", // its 400 goes to the port in its Via
	}
	messages := torture(t)
	scenario(t, noisyCity(t), func(t *testing.T, r *rig) {
		conn, err := r.net.ListenPacket(noiseAddr)
		r.must(err)
		defer func() { r.must(conn.Close()) }()
		buf := make([]byte, 64<<10)
		for _, name := range slices.Sorted(maps.Keys(messages)) {
			text := messages[name]
			time.Sleep(35 * time.Second) // some share a branch: their transactions must not meet
			_, err := conn.WriteToUDPAddrPort(text, switchAddr)
			r.must(err)
			// Without rport the answer goes to the Via's port, which is not ours.
			got := ""
			r.must(conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
			for {
				n, _, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					break
				}
				// Answers to INVITEs before it come again, for nobody acknowledges them.
				if m, err := pbxtest.ParseMessage(buf[:n]); err == nil && m.Status >= 200 && bytes.Contains(text, []byte(m.CallID())) {
					got = m.String()[:3]
				}
			}
			if w, ok := want[name]; got != w || !ok {
				t.Errorf("%s: answered %s, want %s", name, got, w)
			}
		}
		if n := r.sw.Status().Panics; n != 0 {
			t.Errorf("%d panics", n)
		}
		time.Sleep(2 * time.Minute) // what they began times out
		r.stillWorks()
		ok := 0
		for _, rec := range r.records() {
			if rec.Recording.Outcome == store.OutcomeOK {
				ok++
			}
		}
		if ok != 1 {
			t.Errorf("%d recordings", ok)
		}
	})
}

// mutate changes a message a little.
func mutate(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + rng.IntN(6) {
		if len(b) < 8 {
			return b
		}
		i := rng.IntN(len(b))
		switch rng.IntN(5) {
		case 0:
			b[i] = byte(rng.Uint32())
		case 1:
			b[i] = ";,<>\"\\:@= \t\r\n%\x00\xff"[rng.IntN(16)]
		case 2:
			b = append(b[:i], b[min(len(b), i+1+rng.IntN(20)):]...)
		case 3:
			j := min(len(b), i+rng.IntN(30))
			b = append(b[:j:j], b[i:]...)
		case 4:
			b = b[:i]
		}
	}
	return b
}

// TestNoise: random bytes and mutated messages from a trusted source, among
// calls, in their dialogs too: no panic, and calls go on.
func TestNoise(t *testing.T) {
	t.Parallel()
	var seeds [][]byte
	for _, b := range torture(t) {
		seeds = append(seeds, b)
	}
	scenario(t, noisyCity(t), func(t *testing.T, r *rig) {
		r.net.OnPacket(nil)
		rng := rand.New(rand.NewPCG(4475, 1))
		conn, err := r.net.ListenPacket(noiseAddr)
		r.must(err)
		defer func() { r.must(conn.Close()) }()
		caller, agent := r.talk()
		for _, method := range []string{"BYE", "INVITE", "UPDATE", "INFO", "ACK", "PRACK", "OPTIONS"} {
			m := inDialog(r, caller, method, 50)
			m.Set("To", strings.Replace(m.Get("To"), ";tag=", ";tag=x", 1)) // not quite the dialog
			m.Body = caller.LocalSDP()
			m.Set("Content-Type", "application/sdp")
			seeds = append(seeds, m.Bytes())
		}
		seeds = append(seeds, caller.Invite().Bytes())
		voice := caller.RemoteSDP().Audio
		for i := range 2000 {
			b := mutate(rng, seeds[rng.IntN(len(seeds))])
			if i%10 == 0 {
				b = make([]byte, rng.IntN(300))
				for k := range b {
					b[k] = byte(rng.Uint32())
				}
			}
			to := switchAddr
			if i%7 == 0 {
				to = voice
				b = append([]byte{0x80 | byte(rng.IntN(64)), byte(rng.Uint32())}, b[:min(len(b), 200)]...)
			}
			_, err := conn.WriteToUDPAddrPort(b, to)
			r.must(err)
			if i%50 == 0 {
				time.Sleep(20 * time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		if caller.State() != pbxtest.Answered || agent.State() != pbxtest.Answered {
			t.Errorf("the call did not survive: %+v", caller.End())
		}
		caller.Hangup()
		if n := r.sw.Status().Panics; n != 0 {
			t.Errorf("%d panics", n)
		}
		time.Sleep(2 * time.Minute)
		r.stillWorks()
	})
}
