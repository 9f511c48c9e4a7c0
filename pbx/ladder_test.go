package pbx

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func TestReadLadderLine(t *testing.T) {
	message := func(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n")) }
	for _, c := range []struct {
		name   string
		text   []byte
		begins bool
		want   string // method status text cseq notes
	}{
		{"INVITE with an offer", message("INVITE sip:+48914245000@192.0.2.10;user=phone SIP/2.0", "To: <sip:+48914245000@x>", "Call-ID: c", "CSeq: 7 INVITE",
			"Content-Type: application/sdp", "", "v=0", "c=IN IP4 0.0.0.0", "m=audio 4000 RTP/AVP 8 101", "a=sendonly", ""), true,
			`INVITE 0 "sip:+48 91 *** ** 00@192.0.2.10" 7 ["SDP: audio RTP/AVP PCMA 101, sendonly, c=0.0.0.0"]`},
		{"within a dialog", message("INVITE sip:x@h SIP/2.0", "t: <sip:x@h>;tag=1", "i: c", "CSeq: 2 INVITE", "", ""), false, `INVITE 0 "sip:***@h" 2 []`},
		{"a refusal", message("SIP/2.0 486 Busy, call +48 600 100 200 or 600100200", "To: <sip:x@h>;tag=1", "Call-ID: c", "CSeq: 2 INVITE", `Reason: Q.850;cause=17`, "", ""), false,
			`INVITE 486 "Busy, call +*** or ***" 2 ["Reason: Q.850;cause=17"]`},
		{"REFER", message("REFER sip:101@h SIP/2.0", "To: <sip:101@h>;tag=1", "Call-ID: c", "CSeq: 3 REFER", "Refer-To: <sip:600100200@h?Replaces=x%3Bto-tag%3D1>", "", ""), false,
			`REFER 0 "sip:101@h" 3 ["Refer-To: sip:+48 60 *** ** 00@h"]`},
		{"tel", message("INVITE tel:+48600100200 SIP/2.0", "Call-ID: c", "CSeq: 3 INVITE", "", ""), true, `INVITE 0 "tel:+48 60 *** ** 00" 3 []`},
		{"a feature code", message("INVITE sip:*21@h SIP/2.0", "Call-ID: c", "CSeq: 3 INVITE", "", ""), true, `INVITE 0 "sip:*21@h" 3 []`},
	} {
		line, callID, begins := readLadderLine(c.text)
		got := fmt.Sprintf("%s %d %q %d %q", line.Method, line.Status, line.Text, line.CSeq, line.Notes)
		if got != c.want || callID != "c" || begins != c.begins {
			t.Errorf("%s: %s (%s, begins %v)", c.name, got, callID, begins)
		}
	}
	for _, text := range []string{"", "\r\n\r\n", "SIP/2.0 99 x\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n", "INVITE x SIP/2.0\r\nCall-ID: c\r\nCSeq: x\r\n\r\n"} {
		if _, callID, _ := readLadderLine([]byte(text)); callID != "" {
			t.Errorf("%q taken for a message", text)
		}
	}
}

// FuzzReadLadderLine: whatever a peer sends, no run of digits that could be a
// number reaches a page, nor a text without end.
func FuzzReadLadderLine(f *testing.F) {
	f.Add("INVITE sip:600100200@h SIP/2.0", "Refer-To: <sip:600100200@h>", "m=audio 600100200 RTP/AVP 600100200")
	f.Add("SIP/2.0 486 600100200", "Reason: 600100200", "")
	number := regexp.MustCompile(`[0-9]( ?[0-9]){6}`)
	f.Fuzz(func(t *testing.T, first, field, body string) {
		line, _, _ := readLadderLine([]byte(first + "\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n" + field + "\r\n\r\nv=0\r\n" + body))
		for _, text := range append(slices.Clone(line.Notes), line.Method, line.Text) {
			if number.MatchString(text) || len(text) > 4*6*ladderNote || strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("%q shown of %q, %q, %q", text, first, field, body)
			}
		}
	})
}

// TestLaddersAreBounded: neither a call of days nor strangers fill the memory.
func TestLaddersAreBounded(t *testing.T) {
	k := newLadders()
	text := func(method, id string, seq int) []byte {
		return fmt.Appendf(nil, "%s sip:1@h SIP/2.0\r\nCall-ID: %s\r\nCSeq: %d %s\r\n\r\n", method, id, seq, method)
	}
	for i := range 3 * ladderWaiting {
		k.observe(false, "UDP", text("INVITE", fmt.Sprint(i), 1), time.Now())
	}
	k.observe(false, "UDP", text("OPTIONS", "other", 1), time.Now())
	if len(k.by) != ladderWaiting || len(k.waiting) != ladderWaiting {
		t.Errorf("%d dialogs of strangers", len(k.by))
	}
	k.observe(false, "UDP", text("INVITE", "long", 1), time.Now())
	fields := strings.Repeat("x: 90\r\n", 10000)
	if line, _, _ := readLadderLine([]byte("INVITE sip:1@h SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n" + fields + "\r\n")); len(line.Notes) != ladderNotes || cap(line.Notes) > 2*ladderNotes {
		t.Errorf("%d notes of one message, room for %d", len(line.Notes), cap(line.Notes))
	}
	c := &call{}
	l := &leg{label: "a", ext: "101"}
	l.d.id.callID = "long"
	k.take(c, l)
	for i := range 3 * ladderLines {
		k.observe(true, "UDP", text("UPDATE", "long", i+2), time.Now())
	}
	got := k.ladder(c)
	if len(got.Lines) != ladderLines || got.Cut != 2*ladderLines+1 || got.Lines[0].Method != "INVITE" || got.Lines[1].CSeq != 2 || got.Lines[ladderLines-1].CSeq != 3*ladderLines+1 {
		t.Errorf("%d lines, %d cut, first %+v", len(got.Lines), got.Cut, got.Lines[:2])
	}
	k.release(c)
	if k.by["long"] != nil {
		t.Error("still kept after its call")
	}
}

// TestLadderOfAWithheldNumber: requests to a peer go to its Contact, which may
// have the number that it withholds: not a digit of it is shown.
func TestLadderOfAWithheldNumber(t *testing.T) {
	for _, withheld := range []bool{true, false} {
		text := "INVITE sip:+48914245000@192.0.2.10 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK1\r\nFrom: <sip:+48600100200@h>;tag=1\r\n" +
			"To: <sip:+48914245000@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n"
		if withheld {
			text += "Privacy: id\r\n"
		}
		m, err := sip.NewParser().ParseSIP([]byte(text + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		k, c := newLadders(), &call{}
		l := &leg{c: c, label: "a", trunk: &trunk{}, invite: m.(*sip.Request), inviteTx: &sip.ServerTx{}}
		l.d.id.callID = "c"
		k.take(c, l)
		k.observe(true, "UDP", []byte("BYE sip:+48600100200@198.51.100.1 SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n"), time.Now())
		k.observe(true, "UDP", []byte("BYE tel:+48600100200 SIP/2.0\r\nCall-ID: c\r\nCSeq: 2 BYE\r\n\r\n"), time.Now())
		want := "sip:+48 60 *** ** 00@198.51.100.1 tel:+48 60 *** ** 00"
		if withheld {
			want = "sip:***@198.51.100.1 tel:***"
		}
		lines := k.ladder(c).Lines
		if got := lines[0].Text + " " + lines[1].Text; got != want {
			t.Errorf("withheld %v: %q, want %q", withheld, got, want)
		}
	}
}
