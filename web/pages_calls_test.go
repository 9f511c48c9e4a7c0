package web

import (
	"fmt"
	"html"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// vainCall is an ended call whose caller waited in the queue for nothing; no
// number: it was withheld.
func (c *console) vainCall(ago time.Duration, number ordinance.Number) store.CallRecord {
	c.t.Helper()
	began := time.Now().Add(-ago)
	rec := store.CallRecord{
		ID: store.NewID(), Day: ordinance.DayOf(began), Direction: store.Incoming, Began: began, Called: "+48914245000", Trunk: "operator", Queue: "cim",
		Queued: began.Add(20 * time.Second), Ended: began.Add(95 * time.Second), Cause: store.CauseAbandoned, SIPStatus: 487,
		Caller: store.Party{Number: number, Presentation: "allowed"}, Recording: store.Recording{Outcome: store.OutcomeNone, Reason: "never answered"}, Revision: 1,
	}
	if number == "" {
		rec.Caller.Presentation = "withheld"
	}
	c.put(rec)
	return rec
}

func (c *console) put(rec store.CallRecord) {
	c.t.Helper()
	if err := c.store.PutCall(rec); err != nil {
		c.t.Fatal(err)
	}
}

// noted returns the newest event of the audit log and its line.
func (c *console) noted() (store.AuditEvent, string) {
	c.t.Helper()
	for e, err := range c.store.AuditLog(store.AuditFilter{}) {
		if err != nil {
			c.t.Fatal(err)
		}
		return e, e.Line()
	}
	return store.AuditEvent{}, ""
}

// TestCallbacksPage: numbers are shown, withheld callers counted, a mark is noted
// in the audit log without the number and can be taken back.
func TestCallbacksPage(t *testing.T) {
	c := newConsole(t)
	agent := c.account("anna", store.RoleAgent)
	v := c.signedIn(agent)
	if _, body := v.get("/oddzwonienia"); !strings.Contains(body, "nikt nie czeka na oddzwonienie") {
		t.Errorf("an empty list says nothing:\n%s", body)
	}
	rec := c.vainCall(time.Minute, "+48600100200")
	c.vainCall(2*time.Minute, "")
	served := c.vainCall(3*time.Minute, "+48600100201")
	served.Answered, served.Cause, served.Revision = served.Queued.Add(time.Second), store.CauseHangupCaller, 2
	c.put(served)

	_, body := v.get("/oddzwonienia")
	for _, want := range []string{"+48600100200", "Czeka 1 osoba", "1 min 15 s", "Oprócz nich 1 osoba, która zastrzegła numer"} {
		if !strings.Contains(html.UnescapeString(body), want) {
			t.Errorf("no %q on\n%s", want, body)
		}
	}
	if strings.Contains(body, "600100201") {
		t.Error("a caller who was served is listed")
	}
	if e, line := c.noted(); e.Action != store.ActionCallbacksListed || e.Actor != agent.ID || strings.Contains(line, "600100200") {
		t.Errorf("opening the list is noted as %s", line)
	}

	path := fmt.Sprintf("/oddzwonienia/%v/%v", rec.Day, rec.ID)
	from := rec.Day.Next(-2).String()
	res, _ := v.post(path, "from", from, "to", rec.Day.String())
	to := res.Header.Get("Location")
	if res.StatusCode != 303 || !strings.Contains(to, "from="+from) {
		t.Fatalf("a mark: %d to %q", res.StatusCode, to)
	}
	if e, line := c.noted(); e.Action != store.ActionCallbackMarked || e.Object != store.ObjectOf(store.ObjectCall, rec.ID) || strings.Contains(line, "600100200") {
		t.Errorf("the mark is noted as %s", line)
	}
	if _, body := v.get(to); !strings.Contains(body, "oznaczono ręcznie: Pracownik anna") || !strings.Contains(body, "Oznaczono jako oddzwonione.") {
		t.Errorf("the mark is not shown:\n%s", body)
	}
	v.post(path, "done", "no")
	if e, line := c.noted(); e.Action != store.ActionCallbackUnmarked {
		t.Errorf("taking it back is noted as %s", line)
	}
	if _, body := v.get("/oddzwonienia"); !strings.Contains(body, "Czeka 1 osoba") {
		t.Errorf("a mark that was taken back stays:\n%s", body)
	}
	for path, want := range map[string]int{
		fmt.Sprintf("/oddzwonienia/%v/%v", served.Day, served.ID):     409,
		fmt.Sprintf("/oddzwonienia/%v/%v", rec.Day, store.NewID()):    404,
		fmt.Sprintf("/oddzwonienia/2026-13-40/%v", rec.ID):            404,
		fmt.Sprintf("/oddzwonienia/%v/%v", rec.Day.Next(-1), "numer"): 404,
	} {
		before, _ := c.noted()
		if res, _ := v.post(path); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
		if after, line := c.noted(); after.Seq != before.Seq {
			t.Errorf("%s: noted as %s", path, line)
		}
	}
	if res, body := v.get("/oddzwonienia?from=wczoraj"); res.StatusCode != 422 || !strings.Contains(body, `href="#f-from"`) {
		t.Errorf("a day that is none: %d", res.StatusCode)
	}
}

// TestLadderPages: calls without numbers by cause, and a call's messages in the
// columns of their parties; that it was opened is noted, and what is gone is 410.
func TestLadderPages(t *testing.T) {
	c := newConsole(t)
	v := c.signedIn(c.account("admin", store.RoleAdministrator))
	if _, body := v.get("/admin/drabinki"); !strings.Contains(body, "nie było takich połączeń") {
		t.Errorf("a day without calls says nothing:\n%s", body)
	}
	rec := c.vainCall(time.Minute, "+48600100200")
	bad := c.vainCall(2*time.Minute, "+48600100201")
	bad.Cause, bad.SIPStatus, bad.Q850, bad.Revision = store.CauseNotAcceptable, 488, 88, 2
	bad.Quality = []store.Quality{{Leg: "a", Party: "operator", Received: 500, Lost: 20, HeardMOS: 3.2, JitterMean: 4 * time.Millisecond, Sent: 499}}
	c.put(bad)
	began := bad.Began
	hostile := `<script>alert(1)</script>`
	if err := c.store.PutLadder(bad.Day, bad.ID, store.Ladder{
		Parties: []store.LadderParty{{Leg: "a", Name: "operator"}, {Leg: "b1", Name: "101"}},
		Lines: []store.LadderLine{
			{At: began, Leg: "a", Transport: "UDP", Method: "INVITE", Text: "sip:*******00@centralka", CSeq: 1, Notes: []string{"offer G729", hostile}},
			{At: began.Add(500 * time.Millisecond), Leg: "a", Transport: "UDP", Method: "INVITE", Text: "sip:*******00@centralka", CSeq: 1, Repeat: true},
			{At: began.Add(1234 * time.Millisecond), Leg: "a", Sent: true, Transport: "UDP", Method: "INVITE", Status: 488, Text: "Not Acceptable Here", CSeq: 1},
		},
		Cut: 3,
	}); err != nil {
		t.Fatal(err)
	}

	_, body := v.get("/admin/drabinki")
	for _, want := range []string{"2 połączenia, od najnowszego", "Porzucone w kolejce", "Brak wspólnego kodeka", ">488<", ">88<", ">3,2<"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on\n%s", want, body)
		}
	}
	if strings.Contains(body, "600100200") {
		t.Error("the list of calls shows a number")
	}
	if _, body := v.get("/admin/drabinki?cause=not_acceptable"); !strings.Contains(body, bad.ID.String()) || strings.Contains(body, rec.ID.String()) {
		t.Errorf("the filter by cause:\n%s", body)
	}
	path := fmt.Sprintf("/admin/drabinki/%v/%v", bad.Day, bad.ID)
	_, body = v.get(path)
	for _, want := range []string{
		"porównaj SDP", `<th scope="col">operator`, `<th scope="col">101`, "do centralki od: operator", "centralka do: operator", "488 Not Acceptable Here",
		html.EscapeString(hostile), "+1,234 s", "ponownie", "pominięto 3 komunikaty", "offer G729", ">500<", `<td class="line"></td>`,
	} {
		if !strings.Contains(html.UnescapeString(body), html.UnescapeString(want)) {
			t.Errorf("no %q on\n%s", want, body)
		}
	}
	if strings.Contains(body, hostile) || strings.Contains(body, "600100201") {
		t.Error("the ladder shows a peer's markup, or a number")
	}
	if e, line := c.noted(); e.Action != store.ActionLadderOpened || e.Object != store.ObjectOf(store.ObjectCall, bad.ID) {
		t.Errorf("opening the ladder is noted as %s", line)
	}
	if res, body := v.get(fmt.Sprintf("/en/admin/drabinki/%v/%v", rec.Day, rec.ID)); res.StatusCode != 200 || !strings.Contains(body, "no record of this call") {
		t.Errorf("a call without a ladder: %d\n%s", res.StatusCode, body)
	}
	for path, want := range map[string]int{
		"/admin/drabinki?day=2019-01-07":                                   410,
		"/admin/drabinki?day=jutro":                                        422,
		"/admin/drabinki/2019-01-07/" + bad.ID.String():                    410,
		fmt.Sprintf("/admin/drabinki/%v/%v", bad.Day, store.NewID()):       404,
		fmt.Sprintf("/admin/drabinki/%v/%v", bad.Day, "x"):                 404,
		fmt.Sprintf("/admin/drabinki/%v/%v", bad.Day.Next(-1), bad.ID):     404,
		"/admin/drabinki?day=" + bad.Day.String() + "&strona=2":            200,
		"/admin/drabinki?day=" + bad.Day.String() + "&cause=no_such_cause": 200,
	} {
		before, _ := c.noted()
		if res, _ := v.get(path); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
		if after, line := c.noted(); after.Seq != before.Seq {
			t.Errorf("%s: noted as %s", path, line)
		}
	}
}
