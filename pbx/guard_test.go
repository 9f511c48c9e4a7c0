package pbx

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var (
	guardStranger = netip.MustParseAddrPort("203.0.113.5:5060")
	guardPhone    = netip.MustParseAddrPort("192.0.2.33:5060")
	guardRegister = []byte("REGISTER sip:pbx SIP/2.0\r\nUser-Agent: Phone 5.1\r\nFrom: <sip:101@pbx>;tag=1\r\n\r\n")
)

func guardPrefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestGuardBansGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(guardConfig{Bans: true, Failures: 3})
		admitted := func() bool { return g.admit(guardStranger, guardRegister) == verdictAdmit }
		for range 2 {
			g.authFailed(guardStranger.Addr())
		}
		if !admitted() {
			t.Fatal("banned too early")
		}
		for ban := guardFirstBan; ban < 20*time.Minute; ban *= 2 {
			g.authFailed(guardStranger.Addr())
			if admitted() || g.counts()[guardActive] != 1 {
				t.Fatalf("no ban of %v", ban)
			}
			g.authFailed(guardStranger.Addr()) // still under way: changes nothing
			time.Sleep(ban - time.Second)
			if admitted() {
				t.Fatalf("ban of %v ended early", ban)
			}
			time.Sleep(2 * time.Second)
			if !admitted() || g.counts()[guardActive] != 0 {
				t.Fatalf("ban of %v goes on", ban)
			}
		}
		time.Sleep(guardForgive + time.Minute)
		g.authFailed(guardStranger.Addr())
		if !admitted() {
			t.Error("a day did not forgive")
		}
		g.authFailed(guardStranger.Addr())
		g.authSucceeded(guardStranger.Addr())
		g.authFailed(guardStranger.Addr())
		if !admitted() {
			t.Error("the right password did not forgive")
		}
		if c := g.counts(); c[guardBanned] == 0 || c[guardBans] != 6 || c[guardFailures] == 0 {
			t.Errorf("%v", c)
		}
	})
}

// TestGuardExempt: trusted networks, trunks and registered phones are never
// banned, never limited, and never met with silence.
func TestGuardExempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(guardConfig{Bans: true, Failures: 1, Rate: 1, Burst: 1, Phones: guardPrefixes("192.0.2.0/24"),
			Trusted: guardPrefixes("10.0.0.0/8"), Trunks: guardPrefixes("198.51.100.7/32")})
		g.setRegistered(netip.MustParseAddr("::ffff:192.0.2.33"), true)
		g.setRegistered(guardPhone.Addr(), true)
		scan := []byte("OPTIONS sip:a SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n")
		for _, a := range []string{"10.1.2.3:5060", "198.51.100.7:5060", "192.0.2.33:5060"} {
			source := netip.MustParseAddrPort(a)
			for range 50 {
				g.authFailed(source.Addr())
				if g.admit(source, scan) != verdictAdmit {
					t.Fatalf("%s dropped", a)
				}
			}
		}
		g.setRegistered(guardPhone.Addr(), false)
		g.authFailed(guardPhone.Addr())
		if g.admit(guardPhone, guardRegister) != verdictDrop {
			t.Error("the phone that went is exempt still")
		}
	})
}

func TestGuardDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(guardConfig{Phones: guardPrefixes("192.0.2.0/24"), Rate: 10, Burst: 5})
		if g.admit(guardStranger, guardRegister) != verdictDrop {
			t.Error("REGISTER from outside the phones' networks")
		}
		if g.admit(guardStranger, []byte("SIP/2.0 200 OK\r\n")) != verdictAdmit {
			t.Error("a response to a request of ours was dropped")
		}
		for _, line := range []string{"User-Agent: friendly-scanner", "user-agent : SIPVicious 0.3", `From: "sipvicious"<sip:100@1.1.1.1>;tag=1`, "f: <sip:nm@nm>"} {
			if g.admit(guardPhone, []byte("OPTIONS sip:100@192.0.2.10 SIP/2.0\r\nVia: x\r\n"+line+"\r\n\r\n")) != verdictDrop {
				t.Errorf("%s admitted", line)
			}
		}
		// Names in a body, or a subject, are nobody's business.
		if g.admit(guardPhone, []byte("MESSAGE sip:a SIP/2.0\r\nSubject: sipvicious\r\n\r\nFrom: sipvicious")) != verdictAdmit {
			t.Error("a subject was taken for a scanner")
		}
		for range 4 {
			g.admit(guardPhone, guardRegister)
		}
		if g.admit(guardPhone, guardRegister) != verdictDrop {
			t.Error("no limit")
		}
		time.Sleep(100 * time.Millisecond)
		if g.admit(guardPhone, guardRegister) != verdictAdmit || g.admit(guardPhone, guardRegister) != verdictDrop {
			t.Error("a tenth of a second at 10/s is one message")
		}
		c := g.counts()
		if c[guardForeign] != 1 || c[guardScanner] != 4 || c[guardFlooding] != 2 || c[guardAdmitted] != 7 {
			t.Errorf("%v", c)
		}
		g.configure(guardConfig{})
		if g.admit(guardStranger, guardRegister) != verdictAdmit {
			t.Error("configure changed nothing")
		}
	})
}

// TestGuardMemory: a flood of sources costs a fixed amount, and a /64 is one
// source.
func TestGuardMemory(t *testing.T) {
	g := newGuard(guardConfig{Bans: true, Failures: 1, Sources: 100, Rate: 1, Burst: 1})
	for i := range 5000 {
		a := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		g.admit(netip.AddrPortFrom(a, 5060), guardRegister)
		g.authFailed(a)
	}
	if n, m := len(g.buckets.index), len(g.offenders.index); n > 100 || m > 100 || g.buckets.order.Len() != n {
		t.Errorf("%d buckets, %d offenders", n, m)
	}
	if g.admit(netip.MustParseAddrPort("[2001:db8::1]:5060"), nil) != verdictAdmit || g.admit(netip.MustParseAddrPort("[2001:db8::2]:5060"), nil) != verdictDrop {
		t.Error("two addresses of a /64 are one source")
	}
}

func BenchmarkGuardAdmit(b *testing.B) {
	g := newGuard(guardConfig{Rate: 1e9, Burst: 1e9, Bans: true})
	b.ReportAllocs()
	for b.Loop() {
		if g.admit(guardStranger, phoneInvite) != verdictAdmit {
			b.Fatal("dropped")
		}
	}
}
