package pbx_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// bind sends a REGISTER of one's own making with credentials.
func bind(r *rig, p *pbxtest.Phone, ext, callID string, seq int, expires string, contacts ...string) *pbxtest.Message {
	r.t.Helper()
	m := p.NewRequest("REGISTER", "sip:centralka.test")
	m.Set("From", fmt.Sprintf("<sip:%s@centralka.test>;tag=%s", ext, "t"+callID))
	m.Set("To", fmt.Sprintf("<sip:%s@centralka.test>", ext))
	m.Set("Call-ID", callID)
	m.Set("CSeq", fmt.Sprintf("%d REGISTER", seq))
	m.Set("Contact", strings.Join(contacts, ", "))
	m.Set("Expires", expires)
	res, err := p.Request(r.t.Context(), m)
	r.must(err)
	return res
}

func contactsOf(m *pbxtest.Message) string { return strings.Join(m.All("Contact"), " ") }

// TestRegister: several contacts, the wildcard, too short a time, the order of
// CSeq, and the limit of contacts (RFC 3261 §10.3).
func TestRegister(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		p := r.peer("101/90", pbxtest.PeerConfig{Addr: netip.MustParseAddrPort("192.0.2.90:5060"), User: "101", Username: "101", Password: "secret-101"})
		r.must(r.phones["101"].Unregister(t.Context()))
		want := func(what string, res *pbxtest.Message, status int, contacts ...string) {
			t.Helper()
			got := contactsOf(res)
			if res.Status != status || status == 200 && len(res.All("Contact")) != len(contacts) {
				t.Errorf("%s: answered %d with %q", what, res.Status, got)
			}
			for _, c := range contacts {
				if !strings.Contains(got, c) {
					t.Errorf("%s: %q lacks %s", what, got, c)
				}
			}
		}
		a, b, c, d := "<sip:101@192.0.2.90>", "<sip:101@192.0.2.91:5070>", "<sip:101@192.0.2.92;transport=udp>", "<sip:101@192.0.2.93>"
		want("fetch", bind(r, p, "101", "one", 1, ""), 200)
		want("two at once", bind(r, p, "101", "one", 3, "600", a, b), 200, "192.0.2.90>;expires=600", "192.0.2.91:5070")
		want("fetch", bind(r, p, "101", "one", 4, ""), 200, "192.0.2.90", "192.0.2.91")
		want("own time of a contact", bind(r, p, "101", "one", 5, "600", a+";expires=900"), 200, ";expires=900", "192.0.2.91")
		want("old CSeq", bind(r, p, "101", "one", 4, "600", a), 500)
		want("another Call-ID begins anew", bind(r, p, "101", "two", 1, "700", a), 200, "192.0.2.90>;expires=700", "192.0.2.91")
		want("too brief", bind(r, p, "101", "two", 3, "30", a), 423)
		want("too long", bind(r, p, "101", "two", 5, "100000", a), 200, ";expires=3600", "192.0.2.91")
		want("third", bind(r, p, "101", "two", 7, "600", c), 200, "192.0.2.90", "192.0.2.91", "192.0.2.92")
		want("fourth takes the place of the oldest", bind(r, p, "101", "two", 9, "600", d), 200, "192.0.2.90", "192.0.2.92", "192.0.2.93")
		want("one removed", bind(r, p, "101", "two", 11, "0", c), 200, "192.0.2.90", "192.0.2.93")
		want("wildcard with a time", bind(r, p, "101", "two", 13, "600", "*"), 400)
		want("wildcard and another", bind(r, p, "101", "two", 15, "0", "*", a), 400)
		want("wildcard, old CSeq", bind(r, p, "101", "two", 8, "0", "*"), 500)
		want("still there", bind(r, p, "101", "two", 17, ""), 200, "192.0.2.90", "192.0.2.93")
		want("wildcard", bind(r, p, "101", "two", 19, "0", "*"), 200)
		want("nonsense", bind(r, p, "101", "two", 21, "600", "<tel:+48600100200>"), 400)
		want("another's", bind(r, p, "102", "three", 1, "600", a), 403)
		if st := r.sw.Status().Phones[0]; st.Devices != 0 {
			t.Errorf("phone %+v", st)
		}
	})
}

// TestExpiredAgentIsNotCalled: a phone that does not come back is gone at its
// time, and so is its agent.
func TestExpiredAgentIsNotCalled(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.must(r.phones["101"].Unregister(t.Context()))
		p := r.peer("101/90", pbxtest.PeerConfig{Addr: netip.MustParseAddrPort("192.0.2.90:5060"), User: "101", Username: "101", Password: "secret-101"})
		if res := bind(r, p, "101", "one", 1, "90", "<sip:101@192.0.2.90>"); res.Status != 200 {
			t.Fatalf("answered %d", res.Status)
		}
		if st := r.pool.Snapshot()[0]; st.State != desk.Ready {
			t.Errorf("agent %+v", st)
		}
		time.Sleep(96 * time.Second)
		if st := r.pool.Snapshot()[0]; st.State != desk.Away || st.Reason != "unregistered" {
			t.Errorf("agent %+v", st)
		}
		call := r.call()
		r.answeredBy("102")
		call.Hangup()
		r.records()
		r.quiet("101/90")
	})
}

// TestDeadPhoneIsNotCalled: one that answers no OPTIONS is passed over until it
// does again.
func TestDeadPhoneIsNotCalled(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.net.Drop(func(src, dst netip.AddrPort, _ []byte) bool { return src == phoneAddr(0) || dst == phoneAddr(0) })
		time.Sleep(150 * time.Second)
		if st := r.sw.Status().Phones[0]; st.Devices != 0 {
			t.Errorf("phone %+v", st)
		}
		call := r.call()
		r.answeredBy("102")
		call.Hangup()
		r.records()
		r.net.Drop(nil)
		time.Sleep(40 * time.Second)
		if st := r.sw.Status().Phones[0]; st.Devices != 1 {
			t.Errorf("phone %+v after it came back", st)
		}
	})
}

// TestBindingsSurviveRestart: another switch on the same vault calls the phones
// that were there, without their registering again.
func TestBindingsSurviveRestart(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first, _ := r.talk()
		time.Sleep(2 * time.Second)
		r.stop()
		if e := first.End(); e.Method != "BYE" || e.ByUs {
			t.Errorf("the call ended %+v", e)
		}
		r.must(r.store.Close())
		r.startSwitch(cfg, r.dir)
		r.before = 1
		if n := r.sw.Status().Phones[0].Devices; n != 1 {
			t.Fatalf("%d devices after the restart", n)
		}
		call, _ := r.talk()
		time.Sleep(time.Second)
		call.Hangup()
		causes := map[store.Cause]int{}
		for _, rec := range r.records() {
			causes[rec.Cause]++
			if rec.Recording.Outcome != store.OutcomeOK {
				t.Errorf("recording %+v", rec.Recording)
			}
		}
		if causes[store.CauseShutdown] != 1 || causes[store.CauseHangupCaller] != 1 {
			t.Errorf("causes %v", causes)
		}
		if n := r.count("101 > switch REGISTER"); n != 2 {
			t.Errorf("%d REGISTERs", n)
		}
	})
}

// TestWhoMayRegister: not a trunk, not from outside the phones' networks, not
// without the password.
func TestWhoMayRegister(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	cfg.Guard.Phones = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	cfg.Guard.Trusted = []netip.Prefix{netip.MustParsePrefix("203.0.113.99/32")}
	scenario(t, cfg, func(t *testing.T, r *rig) {
		if res := bind(r, r.otherCarrier(5070), "101", "one", 1, "600", "<sip:101@198.51.100.1:5070>"); res.Status != 403 {
			t.Errorf("a trunk was answered %d", res.Status)
		}
		trusted := r.peer("trusted", pbxtest.PeerConfig{Addr: netip.MustParseAddrPort("203.0.113.99:5060"), User: "101", Username: "101", Password: "secret-101"})
		if res := bind(r, trusted, "101", "two", 1, "600", "<sip:101@203.0.113.99>"); res.Status != 403 {
			t.Errorf("a phone outside of the phones' networks was answered %d", res.Status)
		}
		wrong := r.peer("wrong", pbxtest.PeerConfig{Addr: netip.MustParseAddrPort("192.0.2.99:5060"), User: "101", Username: "101", Password: "guess"})
		if res := bind(r, wrong, "101", "three", 1, "600", "<sip:101@192.0.2.99>"); res.Status != 401 {
			t.Errorf("a wrong password was answered %d", res.Status)
		}
		outside, err := r.net.ListenPacket(foreignAddr)
		r.must(err)
		defer func() { r.must(outside.Close()) }()
		m := wrong.NewRequest("REGISTER", "sip:centralka.test")
		_, err = outside.WriteToUDPAddrPort(m.Bytes(), switchAddr)
		r.must(err)
		r.must(outside.SetReadDeadline(time.Now().Add(5 * time.Second)))
		if _, _, err := outside.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
			t.Error("a stranger got an answer")
		}
		if n := r.sw.Status().Phones[0].Devices; n != 1 {
			t.Errorf("%d devices", n)
		}
	})
}

// TestWithheldNumber: whoever hides the number is hidden from the record, the
// log and the phone, however it was said (S4.7-a); others are not.
func TestWithheldNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		o        pbxtest.CallOptions
		withheld bool
	}{
		{"plain", pbxtest.CallOptions{From: "+48600100200"}, false},
		{"identity asserted", pbxtest.CallOptions{From: "unknown", PAI: "+48600100200"}, false},
		{"privacy none", pbxtest.CallOptions{From: "+48600100200", Privacy: "none"}, false},
		{"anonymous From", pbxtest.CallOptions{Anonymous: true}, true},
		{"anonymous From, identity asserted", pbxtest.CallOptions{Anonymous: true, PAI: "+48600100200"}, true},
		{"Privacy id", pbxtest.CallOptions{From: "+48600100200", PAI: "+48600100200", Privacy: "ID"}, true},
		{"Privacy header;user", pbxtest.CallOptions{From: "+48600100200", Privacy: "header;user"}, true},
		{"Remote-Party-ID", pbxtest.CallOptions{From: "+48600100200", Fields: []pbxtest.Field{{Name: "Remote-Party-ID", Value: "<sip:+48600100200@x>;privacy=full"}}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				c.o.To = "+48914245000"
				call, err := r.carrier.Call(c.o)
				r.must(err)
				agent := r.answeredBy("101")
				invite := string(agent.Invite().Bytes())
				time.Sleep(time.Second)
				call.Hangup()
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				if shown := strings.Contains(invite, "600100200"); shown == c.withheld {
					t.Errorf("the phone was shown %q", agent.Invite().Get("From"))
				}
				if rec.Caller.Identifiable() == c.withheld || strings.Contains(fmt.Sprintf("%#v", rec), "600100200") == c.withheld {
					t.Errorf("record %+v", rec)
				}
				if c.withheld && (agent.Invite().Number("From") != "anonymous" || rec.Caller.Presentation != "withheld") {
					t.Errorf("the phone was shown %q, presentation %q", agent.Invite().Get("From"), rec.Caller.Presentation)
				}
				if !c.withheld && agent.Invite().Number("From") != "+48600100200" {
					t.Errorf("the phone was shown %q", agent.Invite().Get("From"))
				}
			})
		})
	}
}

// TestDevicesThatRegisterTogetherAreAllKept: what is stored is what is in force,
// however the registrations of an extension's devices come in between each other.
func TestDevicesThatRegisterTogetherAreAllKept(t *testing.T) {
	t.Parallel()
	const more = 24
	cfg := briefCity(t, "101")
	cfg.Extensions[0].Contacts = 1 + more
	scenario(t, cfg, func(t *testing.T, r *rig) {
		var devices []*pbxtest.Phone
		for i := range more {
			devices = append(devices, r.peer(fmt.Sprintf("101/%d", i), pbxtest.PeerConfig{
				User: "101", Username: "101", Password: "secret-101", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(200 + i)}), 5060)}))
		}
		errs := make(chan error, more)
		for _, d := range devices {
			go func() { errs <- d.Register(t.Context()) }()
		}
		for range devices {
			r.must(<-errs)
		}
		time.Sleep(time.Second) // they are written behind the answers
		kept, err := r.store.Bindings()
		r.must(err)
		if len(kept["101"]) != 1+more {
			t.Errorf("%d devices are kept, want %d", len(kept["101"]), 1+more)
		}
	})
}

// TestExemptWhileRegistered: the guard lets an address pass while a phone is
// registered there: of two behind one address, until the second has gone, be it
// by its own word, in time, or with its connection.
func TestExemptWhileRegistered(t *testing.T) {
	t.Parallel()
	scenario(t, streamCity(t, "", "101", "102"), func(t *testing.T, r *rig) {
		exempt := func(want bool, when string) {
			t.Helper()
			if got := r.sw.Exempt(foreignAddr.Addr()); got != want {
				t.Errorf("%s: exempt %v", when, got)
			}
		}
		exempt(false, "before")
		first, second := r.stranger("101", "secret-101"), r.stranger("102", "secret-102")
		r.must(first.Register(t.Context()))
		exempt(true, "with one phone")
		r.must(second.RegisterFor(t.Context(), time.Minute))
		r.must(first.Unregister(t.Context()))
		exempt(true, "with the other phone")
		r.must(second.Unregister(t.Context()))
		exempt(false, "without phones")
		r.must(second.RegisterFor(t.Context(), time.Minute))
		exempt(true, "registered again")
		r.net.Impair(pbxtest.Host(foreignAddr.Addr()), pbxtest.Any, pbxtest.Impairment{Loss: 1})
		time.Sleep(70 * time.Second)
		exempt(false, "after its time")

		at := phoneAddr(0).Addr()
		if !r.sw.Exempt(at) {
			t.Error("a phone by TCP is not exempt")
		}
		r.phones["101"].Disconnect()
		time.Sleep(time.Second)
		if r.sw.Exempt(at) {
			t.Error("a phone without its connection is exempt")
		}
	}, secured(), by("", "tcp"), func(r *rig) { r.lenient = true })
}
