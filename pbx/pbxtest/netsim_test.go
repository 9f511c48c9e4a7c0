package pbxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Both are what the product's rooms ask of a socket.
var (
	_ net.PacketConn = (*PacketConn)(nil)
	_ interface {
		ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
		WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		SetReadDeadline(time.Time) error
		LocalAddr() net.Addr
		Close() error
	} = (*PacketConn)(nil)
)

func listen(t *testing.T, n *Net, addr string) *PacketConn {
	t.Helper()
	c, err := n.ListenPacket(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// drain reads what is there within a second and tells what came when.
func drain(t *testing.T, c *PacketConn) (got []string, at []time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := c.SetReadDeadline(begin.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if d := time.Since(begin); d != time.Second {
				t.Fatalf("deadline came after %v", d)
			}
			return got, at
		}
		if err != nil {
			t.Fatal(err)
		}
		got, at = append(got, string(buf[:n])), append(at, time.Since(begin))
	}
}

func TestDatagramsArriveInOrderAfterTheirDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		a, b := listen(t, n, "10.0.0.1:5060"), listen(t, n, "10.0.0.2:5060")
		n.Impair(Any, Any, Impairment{Delay: 40 * time.Millisecond, Jitter: 20 * time.Millisecond})
		for i := range 20 {
			if _, err := a.WriteTo([]byte(fmt.Sprint(i)), b.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.WriteToUDPAddrPort([]byte("nobody"), netip.MustParseAddrPort("10.9.9.9:1")); err != nil {
			t.Fatalf("a datagram to nobody is an error: %v", err)
		}
		got, at := drain(t, b)
		for i := range 20 {
			if i >= len(got) || got[i] != fmt.Sprint(i) {
				t.Fatalf("got %v", got)
			}
			if at[i] < 40*time.Millisecond || at[i] > 60*time.Millisecond {
				t.Errorf("datagram %d arrived after %v", i, at[i])
			}
		}
	})
}

func TestSameSeedSameFate(t *testing.T) {
	run := func(seed uint64, disturb bool) (fate []string) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNet(seed)
			a, b, c := listen(t, n, "10.0.0.1:1000"), listen(t, n, "10.0.0.2:1000"), listen(t, n, "10.0.0.3:1000")
			n.Impair(Host(netip.MustParseAddr("10.0.0.1")), Any, Impairment{Loss: 0.2, Duplicate: 0.1, Reorder: 0.1})
			for i := range 500 {
				if disturb && i%3 == 0 {
					c.WriteTo([]byte("x"), a.LocalAddr())
					a.WriteTo([]byte("y"), c.LocalAddr())
				}
				a.WriteTo([]byte(fmt.Sprint(i)), b.LocalAddr())
			}
			fate, _ = drain(t, b)
			if back, _ := drain(t, a); disturb && len(back) != 167 {
				t.Errorf("the direction without a rule lost %d of 167", 167-len(back))
			}
		})
		return fate
	}
	one, two, other := run(7, false), run(7, true), run(8, false)
	if !slices.Equal(one, two) {
		t.Error("other traffic changed the fate of a flow")
	}
	if slices.Equal(one, other) {
		t.Error("another seed gave the same fate")
	}
	distinct := map[string]bool{}
	for _, s := range one {
		distinct[s] = true
	}
	if lost := 500 - len(distinct); lost < 70 || lost > 130 {
		t.Errorf("lost %d of 500 at 20 %%", lost)
	}
	if dup := len(one) - len(distinct); dup < 20 || dup > 70 {
		t.Errorf("doubled %d of 400 at 10 %%", dup)
	}
	if slices.IsSortedFunc(one, func(a, b string) int { return len(a) - len(b) }) {
		t.Error("nothing was overtaken")
	}
}

func TestLaterRuleHoldsAndHookDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		a, b := listen(t, n, "10.0.0.1:1000"), listen(t, n, "10.0.0.2:1000")
		n.Impair(Any, Any, Impairment{Loss: 1})
		n.Impair(Any, Any, Impairment{Loss: 1, Match: IsRTP})
		n.Impair(Host(netip.MustParseAddr("10.0.0.1")), Any, Impairment{Match: IsSIP})
		n.Drop(func(_, _ netip.AddrPort, p []byte) bool { return string(p) == "ACK" })
		var tapped []Packet
		n.OnPacket(func(p Packet) { tapped = append(tapped, p) })
		for _, s := range []string{"INVITE", "ACK", "\x80rtp", "BYE"} {
			a.WriteTo([]byte(s), b.LocalAddr())
		}
		if got, _ := drain(t, b); !slices.Equal(got, []string{"INVITE", "BYE"}) {
			t.Errorf("got %q", got)
		}
		if len(tapped) != 4 || tapped[0].Dropped || !tapped[1].Dropped || !tapped[2].Dropped || tapped[3].From != a.addr {
			t.Errorf("tapped %v", tapped)
		}
	})
}

// TestFamilies: a socket of both families sends from the receiver's, and nothing
// goes from one family to the other.
func TestFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		four, six := listen(t, n, "10.0.0.2:5060"), listen(t, n, "[2001:db8::2]:5060")
		both, err := n.ListenBoth(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"), 5060)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*PacketConn{four, six} {
			if _, err := both.WriteToUDPAddrPort([]byte("x"), c.addr); err != nil {
				t.Fatal(err)
			}
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
			if err != nil || from.Addr().Is4() != c.addr.Addr().Is4() {
				t.Errorf("%v got it from %v, %v", c.addr, from, err)
			}
		}
		if _, err := four.WriteToUDPAddrPort([]byte("x"), six.addr); err != nil {
			t.Fatal(err)
		}
		if got, _ := drain(t, six); len(got) != 0 {
			t.Errorf("IPv6 got %q of IPv4", got)
		}
		if err := both.Close(); err != nil {
			t.Fatal(err)
		}
		if len(n.Bound(netip.MustParseAddr("2001:db8::1"))) != 0 {
			t.Error("the address of IPv6 is still taken")
		}
	})
}

func TestAddressesAreExclusiveAndFreedByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		a := listen(t, n, "10.0.0.1:5060")
		for _, bad := range []string{"10.0.0.1:5060", "0.0.0.0:5060", "[::]:5060", "[::ffff:10.0.0.1]:5061"} {
			if _, err := n.ListenPacket(netip.MustParseAddrPort(bad)); err == nil {
				t.Errorf("listening on %s worked", bad)
			}
		}
		ended := make(chan error)
		go func() {
			_, _, err := a.ReadFrom(make([]byte, 10))
			ended <- err
		}()
		synctest.Wait()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read ended with %v", err)
		}
		if _, err := a.WriteTo(nil, a.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		listen(t, n, "10.0.0.1:5060")
		if p := listen(t, n, "10.0.0.1:0"); p.addr.Port() != 49152 {
			t.Errorf("port 0 gave %v", p.addr)
		}
	})
}

// The switch runs sipgo's transport over this network.
func TestSipgoServesOverNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		server, client := listen(t, n, "10.0.0.1:5060"), listen(t, n, "10.0.0.2:5070")
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		layer := sip.NewTransportLayer(net.DefaultResolver, sip.NewParser(), nil, sip.WithTransportLayerLogger(log))
		got := make(chan sip.Message, 1)
		layer.OnMessage(func(m sip.Message) { got <- m })
		served := make(chan error, 1)
		go func() { served <- layer.ServeUDP(server) }()

		client.WriteTo([]byte("OPTIONS sip:x@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5070;branch=z9hG4bKa;rport\r\n"+
			"From: <sip:a@b>;tag=1\r\nTo: <sip:x@b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"), server.LocalAddr())
		req, ok := (<-got).(*sip.Request)
		if !ok || req.Source() != "10.0.0.2:5070" {
			t.Fatalf("sipgo received %v", req)
		}
		if err := layer.WriteMsg(sip.NewResponseFromRequest(req, 200, "OK", nil)); err != nil {
			t.Fatal(err)
		}
		answer, _ := drain(t, client)
		if len(answer) != 1 || answer[0][:14] != "SIP/2.0 200 OK" {
			t.Fatalf("client received %q", answer)
		}
		out := sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", Host: "10.0.0.2", Port: 5070})
		out.SetTransport("UDP")
		out.Laddr = sip.Addr{IP: net.IPv4(10, 0, 0, 1), Port: 5060}
		out.AppendHeader(&sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: "UDP", Host: "10.0.0.1", Port: 5060, Params: sip.NewParams()})
		if _, err := layer.ClientRequestConnection(context.Background(), out); err != nil {
			t.Fatal(err)
		}
		if err := layer.WriteMsg(out); err != nil {
			t.Fatal(err)
		}
		if req, _ := drain(t, client); len(req) != 1 {
			t.Errorf("client received %q", req)
		}
		server.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := layer.Close(); err != nil {
			t.Error(err)
		}
	})
}
