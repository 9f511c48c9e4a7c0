package pbxtest

import (
	"strings"
	"testing"
	"time"
)

func TestLadderFromAPeersOwnLogIsStreamed(t *testing.T) {
	var out strings.Builder
	l := NewLadder()
	l.Name(carrierAddr, "carrier")
	l.Name(phoneAddr, "switch")
	l.Stream(&out)
	inTown(t, func(tn *town) {
		first, _ := tn.call(CallOptions{})
		second, _ := tn.call(CallOptions{})
		tn.must(first.WaitRinging(time.Second))
		tn.must(second.WaitRinging(time.Second))
		first.Hangup()
		tn.must(first.WaitEnded(time.Second))
		if got := l.Lines(second.Invite().CallID()); len(got) != 2 || got[0] != "carrier > switch INVITE" || got[1] != "switch > carrier 180 Ringing (INVITE)" {
			tn.Errorf("the second call is %q", got)
		}
	}, func(cc, _ *PeerConfig) { cc.OnMessage = l.Observe })
	if out.String() != l.String() {
		t.Errorf("streamed\n%s\ndrawn\n%s", &out, l)
	}
	if !strings.Contains(out.String(), "─ 487 (INVITE) ─") {
		t.Errorf("a long label is drawn as\n%s", &out)
	}
}

func TestLadderMasksNumbers(t *testing.T) {
	l := NewLadder()
	m := &Message{Status: 404, Reason: "No +48600100200 here"}
	m.Add("CSeq", "1 INVITE")
	l.Observe(Entry{Peer: "carrier", Local: carrierAddr, Remote: phoneAddr, Message: m})
	if s := strings.Join(l.Lines(), ""); s != "192.0.2.101:5060 > carrier 404 No +*********00 here (INVITE)" {
		t.Error(s)
	}
}
