package pbx

import (
	"strings"
	"testing"

	"centralka/ordinance"

	"github.com/emiago/sipgo/sip"
)

// FuzzTrunkHeaders: whatever a carrier writes into the fields that only trunks
// use, nothing panics, and what is read is sane.
func FuzzTrunkHeaders(f *testing.F) {
	for _, s := range []string{"90;refresher=uac", "1800 ; Refresher = UAS ;x", "", ";", "-1", "99999999999999999999", "1 2 INVITE", "0001  2\tINVITE", "4294967296 1 INVITE",
		"<sip:+48914245111@op>;reason=user-busy", `"a,\"b" <tel:914245111>;privacy=full, <sip:x@y?Privacy=history>;index=1`, "<<>>,,", `SIP;cause=200, Q.850;cause=17;text="x;y"`, "Q.850;cause=999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "h"})
		for _, name := range []string{"Session-Expires", "Min-SE", "RAck", "Diversion", "History-Info", "Reason", "Supported", "Allow"} {
			req.AppendHeader(sip.NewHeader(name, value))
		}
		if d, _, ok := sessionHeader(req); d < 0 || !ok && d > 1<<33*1e9 {
			t.Errorf("session of %v", d)
		}
		if minSE(req) < 0 {
			t.Error("negative Min-SE")
		}
		if r := rack(req); strings.Contains(r, "  ") {
			t.Errorf("RAck %q", r)
		}
		if n := divertedFrom(req); n != "" {
			if again, ok := ordinance.ParseNumber(n.E164()); !ok || again != n {
				t.Errorf("diverted from something that is no number")
			}
		}
		if c := q850(req); c < 0 || c > 127 {
			t.Errorf("cause %d", c)
		}
		shortSession(req)
		lists(req, "Allow", "UPDATE")
	})
}
