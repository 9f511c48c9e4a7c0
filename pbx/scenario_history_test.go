package pbx_test

import (
	"strconv"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestForwardedCall: a call that the network forwarded to us keeps its caller,
// and the record says what was dialled at first, unless somebody wants that kept
// secret (RFC 5806 §4, RFC 7044 §5).
func TestForwardedCall(t *testing.T) {
	t.Parallel()
	field := func(name, value string) pbxtest.Field { return pbxtest.Field{Name: name, Value: value} }
	for _, c := range []struct {
		name   string
		fields []pbxtest.Field
		want   ordinance.Number
	}{
		{"not at all", nil, ""},
		{"once", []pbxtest.Field{field("Diversion", "<sip:914245111@op;user=phone>;reason=unconditional;counter=1")}, "+48914245111"},
		{"twice, the first is at the bottom", []pbxtest.Field{
			field("Diversion", `"A, B" <sip:+48914245222@op>;reason=no-answer`), field("Diversion", "<tel:+48-91-424-51-11>;reason=user-busy")}, "+48914245111"},
		{"twice in one line", []pbxtest.Field{field("Diversion", "<sip:+48914245222@op>;reason=no-answer, <sip:+48914245111@op>")}, "+48914245111"},
		{"privately", []pbxtest.Field{field("Diversion", "<sip:+48914245111@op>;reason=unconditional;privacy=full")}, ""},
		{"unreadable", []pbxtest.Field{field("Diversion", "<<>")}, ""},
		{"by a history", []pbxtest.Field{field("History-Info", "<sip:+48914245111@op>;index=1, <sip:+48914245000@op;cause=302>;index=1.1;mp=1")}, "+48914245111"},
		{"a history of one", []pbxtest.Field{field("History-Info", "<sip:+48914245000@op>;index=1")}, ""},
		{"a private history", []pbxtest.Field{field("History-Info", "<sip:+48914245111@op?Privacy=history>;index=1, <sip:+48914245000@op>;index=1.1")}, ""},
		{"all history private", []pbxtest.Field{field("Privacy", "history"), field("Diversion", "<sip:+48914245111@op>")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Fields: c.fields})
				r.must(err)
				r.must(call.WaitAnswered(time.Second))
				time.Sleep(100 * time.Millisecond)
				call.Hangup()
				rec := r.only()
				if rec.Diverted != c.want || rec.Caller.Number != "+48600100200" || rec.Called != "+48914245000" {
					t.Errorf("caller %v, called %q, first %q", rec.Caller.Number.E164(), rec.Called.E164(), rec.Diverted.E164())
				}
			})
		})
	}
}

// TestDialledForms: a number is found in whatever form the carrier sends it.
func TestDialledForms(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"+48914245000", "0048914245000", "48914245000", "914245000", "0914245000"} {
		t.Run(to, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				call, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: to})
				r.must(err)
				r.must(call.WaitAnswered(time.Second))
				time.Sleep(100 * time.Millisecond)
				call.Hangup()
				if rec := r.only(); rec.Called != "+48914245000" {
					t.Errorf("called %q", rec.Called.E164())
				}
			})
		})
	}
}

// TestReasonsIntoTheRecord: the cause that a peer gives with its BYE, CANCEL or
// refusal is kept, and passed on with our BYE (RFC 3326 §2).
func TestReasonsIntoTheRecord(t *testing.T) {
	t.Parallel()
	reason := pbxtest.Field{Name: "Reason", Value: `SIP;cause=200, Q.850;cause=38;text="Network out of order"`}
	t.Run("BYE", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			caller, agent := r.talk()
			if _, err := caller.Request(t.Context(), "BYE", nil, reason); err != nil {
				t.Error(err)
			}
			r.must(agent.WaitEnded(time.Second))
			if got := agent.End().Reason; got != `Q.850;cause=38;text="Temporarily Unavailable"` && got != `Q.850;cause=38;text="Request Terminated"` {
				t.Errorf("the agent is told %q", got)
			}
			if rec := r.only(); rec.Q850 != 38 || rec.Cause != store.CauseHangupCaller {
				t.Errorf("recorded %d, %q", rec.Q850, rec.Cause)
			}
		})
	})
	t.Run("refusal", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			b := pbxtest.Reject(480)
			b.Fields = []pbxtest.Field{reason}
			r.carrier.SetBehaviour(pbxtest.Always(b))
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			r.must(out.WaitEnded(5 * time.Second))
			if rec := r.only(); rec.Q850 != 38 || rec.SIPStatus != 480 {
				t.Errorf("recorded %d, status %d", rec.Q850, rec.SIPStatus)
			}
		})
	})
	t.Run("CANCEL", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			r.carrier.SetBehaviour(pbxtest.Always(pbxtest.RingForEver()))
			out, err := r.phones["101"].Dial("0600100200")
			r.must(err)
			r.must(out.WaitRinging(time.Second))
			invite := out.Invite()
			cancel := r.phones["101"].NewRequest("CANCEL", invite.URI)
			for _, name := range []string{"Via", "From", "To", "Call-ID"} {
				cancel.Set(name, invite.Get(name))
			}
			cancel.Set("CSeq", cancelSeq(invite))
			cancel.Set("Contact", "")
			cancel.Set(reason.Name, reason.Value)
			res, err := r.phones["101"].Request(t.Context(), cancel)
			r.must(err)
			if res.Status != 200 {
				t.Errorf("CANCEL answered %d", res.Status)
			}
			r.must(out.WaitEnded(time.Second))
			if rec := r.only(); rec.Q850 != 38 || rec.Cause != store.CauseCancelled {
				t.Errorf("recorded %d, %q", rec.Q850, rec.Cause)
			}
		})
	})
}

// cancelSeq is the CSeq of the CANCEL of an INVITE.
func cancelSeq(invite *pbxtest.Message) string {
	n, _ := invite.CSeq()
	return strconv.FormatUint(uint64(n), 10) + " CANCEL"
}
