package pbx_test

import (
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestLostACKOfRefusal: a phone that is busy and does not get our ACK repeats
// itself; each copy is acknowledged at once (RFC 3261 §17.1.1.2).
func TestLostACKOfRefusal(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("102", pbxtest.Reject(486))
		r.lose(switchAddr, "ACK ", func(n int) bool { return n <= 2 })
		began := time.Now()
		call, err := r.phones["101"].Dial("102")
		r.must(err)
		r.must(call.WaitEnded(time.Second))
		time.Sleep(10 * time.Second)
		var acked []time.Duration
		for _, e := range r.phones["102"].Messages() {
			if !e.Out && e.Message.Method == "ACK" {
				acked = append(acked, e.At.Sub(began).Round(100*time.Millisecond))
			}
		}
		if len(acked) != 1 || acked[0] != 1500*time.Millisecond {
			t.Errorf("acknowledged after %v, want the third copy's, T1 and 2*T1 after the first", acked)
		}
	})
}

// TestLostACKOfEndedCall: the ACK of a 200 is lost and the BYE is not: copies of
// the 200 are acknowledged although the call is over (RFC 3261 §13.2.2.4).
func TestLostACKOfEndedCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.lose(switchAddr, "ACK ", func(n int) bool { return n <= 2 })
		caller := r.call()
		agent := r.answeredBy("101")
		caller.Hangup()
		r.must(agent.WaitEnded(time.Second))
		time.Sleep(40 * time.Second) // the phone complains if no ACK comes
		if n := r.count("switch > 101 ACK"); n != 3 {
			t.Errorf("%d ACKs, want that of the third copy to be the last", n)
		}
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestHangUpWhileReInviteIsAnswered: the 200 of a hold is lost, and the other
// side hangs up: the 200 is sent again, and the BYE follows the ACK
// (RFC 3261 §13.3.1.4, §15).
func TestHangUpWhileReInviteIsAnswered(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(time.Second)
		held := make(chan error, 1)
		r.lose(switchAddr, "SIP/2.0 200", func(n int) bool { return n <= 1 })
		go func() { held <- caller.Hold(t.Context()) }()
		time.Sleep(100 * time.Millisecond)
		agent.Hangup()
		r.must(caller.WaitEnded(2 * time.Second))
		r.must(<-held)
		var order []string
		for _, l := range r.ladder.Lines() {
			if strings.HasPrefix(l, "carrier > switch ACK") || strings.HasPrefix(l, "switch > carrier BYE") {
				order = append(order, strings.Fields(l)[3])
			}
		}
		if got := strings.Join(order, " "); got != "ACK ACK BYE" {
			t.Errorf("%s, want the BYE after the second ACK\n%s", got, r.ladder)
		}
		ended(t, r.only(), store.CauseHangupCalled, store.OutcomeOK)
	})
}

// TestAnswerAfterTheCall: a phone's answer is lost, and so long that it hangs up
// again: its BYE ends the call, and the answer that comes yet is acknowledged.
func TestAnswerAfterTheCall(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.lose(phoneAddr(1), "SIP/2.0 200 OK", func(n int) bool { return n <= 2 })
		r.behave("102", pbxtest.AnswerAfter(time.Second))
		call, err := r.phones["101"].Dial("102")
		r.must(err)
		called, err := r.phones["102"].WaitCall(time.Second)
		r.must(err)
		r.must(called.WaitAnswered(5 * time.Second))
		time.Sleep(100 * time.Millisecond)
		called.Hangup()
		r.must(call.WaitEnded(time.Second))
		time.Sleep(40 * time.Second) // the phone complains if no ACK comes
		r.says("102 > switch BYE", "switch > 102 200", "102 > switch 200", "switch > 102 ACK")
		r.only()
	})
}
