package pbx_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// steps writes a ladder in short: who, which way, what.
func steps(l store.Ladder) (out []string) {
	for _, line := range l.Lines {
		arrow, what := "<-", line.Method
		if line.Sent {
			arrow = "->"
		}
		if line.Status != 0 {
			what = fmt.Sprintf("%d %s", line.Status, line.Method)
		}
		if line.Repeat {
			what += " again"
		}
		out = append(out, line.Leg+" "+arrow+" "+what)
	}
	return out
}

// TestLadderOfACall: the administrator sees what crossed the wire, copies sent
// again included, in both dialogs; while the call is up and afterwards; and no
// number of anybody in it.
func TestLadderOfACall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		lost := 0
		r.net.Drop(func(src, dst netip.AddrPort, payload []byte) bool {
			if src == switchAddr && dst == carrierAddr && strings.HasPrefix(string(payload), "SIP/2.0 200") && lost < 2 {
				lost++
				return true
			}
			return false
		})
		call, agent := r.talk()
		up := r.sw.Status().Calls[0]
		during, err := r.sw.Ladder(ordinance.DayOf(up.Began), up.ID)
		r.must(err)
		if got := steps(during); len(got) == 0 || !slices.Contains(got, "b1 -> ACK") {
			t.Errorf("while it is up: %q", got)
		}
		call.Hangup()
		r.must(agent.WaitEnded(time.Second))
		rec := r.only()
		time.Sleep(time.Second)
		ladder, err := r.store.Ladder(rec.Day, rec.ID)
		r.must(err)
		want := []string{
			"a <- INVITE", "a -> 100 INVITE", "a -> 200 INVITE", "a -> 200 INVITE again", "a -> 200 INVITE again", "a <- ACK",
			"b1 -> INVITE", "b1 <- 180 INVITE", "b1 <- 200 INVITE", "b1 -> ACK",
			"a <- BYE", "a -> 200 BYE", "b1 -> BYE", "b1 <- 200 BYE",
		}
		got := steps(ladder)
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if p := ladder.Parties; len(p) != 2 || p[0] != (store.LadderParty{Leg: "a", Name: "operator"}) || p[1] != (store.LadderParty{Leg: "b1", Name: "101"}) {
			t.Errorf("parties %+v", p)
		}
		text := fmt.Sprintf("%+v", ladder)
		for _, number := range []string{"600100200", "914245000"} {
			if strings.Contains(text, number) {
				t.Errorf("%s is in %s", number, text)
			}
		}
		for _, part := range []string{"SDP: audio RTP/AVP PCMA", "sip:101@", "+48 91 *** ** 00"} {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not in %s", part, text)
			}
		}
	})
}

// TestLadderOfARefusedCall: the cause of a call that never was one.
func TestLadderOfARefusedCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245999"})
		r.must(err)
		r.must(call.WaitEnded(time.Second))
		rec := r.only()
		time.Sleep(time.Second)
		ladder, err := r.store.Ladder(rec.Day, rec.ID)
		r.must(err)
		// The ACK of a refusal is part of its transaction, and seen all the same.
		if got := steps(ladder); !slices.Equal(got[:3], []string{"a <- INVITE", "a -> 100 INVITE", "a -> 404 INVITE"}) {
			t.Errorf("%q", got)
		}
	})
}

// TestLadderOverStreams: messages that come and go by connections are in the
// ladder as well, each once and in both directions, whichever side opened the
// connection.
func TestLadderOverStreams(t *testing.T) {
	t.Parallel()
	scenario(t, streamCity(t, "tcp", "101"), func(t *testing.T, r *rig) {
		call, agent := r.talk()
		call.Hangup()
		r.must(agent.WaitEnded(time.Second))
		rec := r.only()
		time.Sleep(time.Second)
		ladder, err := r.store.Ladder(rec.Day, rec.ID)
		r.must(err)
		want := []string{
			"a <- INVITE", "a -> 100 INVITE", "a -> 200 INVITE", "a <- ACK",
			"b1 -> INVITE", "b1 <- 180 INVITE", "b1 <- 200 INVITE", "b1 -> ACK",
			"a <- BYE", "a -> 200 BYE", "b1 -> BYE", "b1 <- 200 BYE",
		}
		if got := steps(ladder); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		for _, line := range ladder.Lines {
			if want := map[string]string{"a": "TCP", "b1": "TLS"}[line.Leg]; line.Transport != want {
				t.Errorf("%s of leg %s by %q, want %q", line.Method, line.Leg, line.Transport, want)
			}
		}
	}, secured(), by("tcp", "tls"))
}
