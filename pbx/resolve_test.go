package pbx

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
)

type fakeNames struct {
	srv   []*net.SRV
	hosts map[string]string
}

func (n fakeNames) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	if n.srv == nil {
		return "", nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return "", n.srv, nil
}

func (n fakeNames) LookupNetIP(_ context.Context, _, host string) (out []netip.Addr, err error) {
	for _, a := range strings.Fields(n.hosts[host]) {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return out, nil
}

func TestLocate(t *testing.T) {
	hosts := map[string]string{"op": "192.0.2.1 2001:db8::1", "a": "192.0.2.2", "b": "192.0.2.3 ::ffff:192.0.2.2"}
	srv := []*net.SRV{{Target: "b.", Port: 5070, Priority: 2}, {Target: "a.", Port: 5060, Priority: 1}, {Target: "gone.", Port: 5060}}
	for _, c := range []struct {
		server string
		srv    []*net.SRV
		want   string // empty: an error
	}{
		{"192.0.2.9", srv, "[192.0.2.9:5060]"},
		{"192.0.2.9:5070", srv, "[192.0.2.9:5070]"},
		{"[2001:db8::9]:5070", srv, "[[2001:db8::9]:5070]"},
		{"[2001:db8::9]", srv, "[[2001:db8::9]:5060]"},
		{"op", nil, "[192.0.2.1:5060 [2001:db8::1]:5060]"},
		{"op:5080", srv, "[192.0.2.1:5080 [2001:db8::1]:5080]"}, // a port: no SRV (RFC 3263 §4.2)
		{"op", srv, "[192.0.2.2:5060 192.0.2.3:5070 192.0.2.2:5070]"},
		{"op", []*net.SRV{{Target: "."}}, ""},
		{"op", []*net.SRV{{Target: "gone."}}, ""},
		{"nowhere", nil, ""},
		{"op:0", nil, ""},
		{"op:sip", nil, ""},
	} {
		got, err := locate(t.Context(), fakeNames{c.srv, hosts}, c.server)
		if (err != nil) != (c.want == "") || err == nil && fmt.Sprint(got) != c.want {
			t.Errorf("locate %q: %v, %v, want %s", c.server, got, err, c.want)
		}
	}
}

// TestOrderSRV: priorities are kept, and weights are shares.
func TestOrderSRV(t *testing.T) {
	srv := []*net.SRV{{Target: "last", Priority: 2, Weight: 100}, {Target: "three", Priority: 1, Weight: 75}, {Target: "one", Priority: 1, Weight: 25}, {Target: "none", Priority: 1}}
	rnd := rand.New(rand.NewPCG(1, 2))
	first := map[string]int{}
	const n = 4000
	for range n {
		got := orderSRV(srv, rnd.IntN)
		if len(got) != len(srv) || got[3].Target != "last" {
			t.Fatalf("order %v", got)
		}
		first[got[0].Target]++
	}
	if f := float64(first["three"]) / n; f < 0.70 || f > 0.80 {
		t.Errorf("the server of weight 75 came first in %.2f", f)
	}
	if f := float64(first["none"]) / n; f > 0.03 {
		t.Errorf("the server without weight came first in %.2f", f)
	}
}
