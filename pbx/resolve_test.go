package pbx

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// fakeNames are the records of a domain: srv by the whole name, hosts with their
// addresses.
type fakeNames struct {
	naptr []NAPTR
	srv   map[string][]*net.SRV
	hosts map[string]string
}

func notThere(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (n fakeNames) LookupNAPTR(_ context.Context, name string) ([]NAPTR, error) {
	return n.naptr, nil
}

func (n fakeNames) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "" {
		name = "_" + service + "._" + proto + "." + name
	}
	if n.srv[name] == nil {
		return "", nil, notThere(name)
	}
	return "", n.srv[name], nil
}

func (n fakeNames) LookupNetIP(_ context.Context, _, host string) (out []netip.Addr, err error) {
	for _, a := range strings.Fields(n.hosts[host]) {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, notThere(host)
	}
	return out, nil
}

func TestLocate(t *testing.T) {
	hosts := map[string]string{"op": "192.0.2.1 2001:db8::1", "a": "192.0.2.2", "b": "192.0.2.3 ::ffff:192.0.2.2"}
	two := []*net.SRV{{Target: "b.", Port: 5070, Priority: 2}, {Target: "a.", Port: 5060, Priority: 1}, {Target: "gone.", Port: 5060}}
	one := []*net.SRV{{Target: "a.", Port: 5080}}
	srv := func(udp, tcp, tls []*net.SRV) map[string][]*net.SRV {
		all := map[string][]*net.SRV{"_sip._udp.op": udp, "_sip._tcp.op": tcp, "_sips._tcp.op": tls}
		maps.DeleteFunc(all, func(_ string, v []*net.SRV) bool { return v == nil })
		return all
	}
	naptr := func(records ...string) (out []NAPTR) {
		for _, r := range records {
			var n NAPTR
			if _, err := fmt.Sscan(r, &n.Order, &n.Preference, &n.Flags, &n.Resolution, &n.Replacement); err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
		return out
	}
	udp, tcp, tls := "90 50 s SIP+D2U _sip._udp.op", "90 40 S sip+d2t _sip._tcp.op.", "50 50 s SIPS+D2T _sips._tcp.op."
	for _, c := range []struct {
		server string
		naptr  []NAPTR
		srv    map[string][]*net.SRV
		speaks string // "udp tcp tls" if empty
		want   string // empty: an error
	}{
		{"192.0.2.9", nil, srv(two, nil, nil), "", "UDP 192.0.2.9:5060"},
		{"192.0.2.9:5070", nil, srv(two, nil, nil), "", "UDP 192.0.2.9:5070"},
		{"[2001:db8::9]:5070", nil, nil, "", "UDP [2001:db8::9]:5070"},
		{"[2001:db8::9]", nil, nil, "", "UDP [2001:db8::9]:5060"},
		{"tls://[2001:db8::9]", nil, nil, "", "TLS [2001:db8::9]:5061"},
		{"tcp://192.0.2.9", nil, nil, "", "TCP 192.0.2.9:5060"},
		{"op", nil, nil, "", "UDP 192.0.2.1:5060, UDP [2001:db8::1]:5060"},
		{"op:5080", naptr(tls), srv(two, nil, one), "", "UDP 192.0.2.1:5080, UDP [2001:db8::1]:5080"}, // a port: neither is asked (RFC 3263 §4.1, §4.2)
		{"tls://op:5080", naptr(udp), srv(two, nil, one), "", "TLS 192.0.2.1:5080, TLS [2001:db8::1]:5080"},
		{"op", nil, srv(two, nil, nil), "", "UDP 192.0.2.2:5060, UDP 192.0.2.3:5070, UDP 192.0.2.2:5070"},
		{"op", nil, srv(nil, one, two), "", "TCP 192.0.2.2:5080, TLS 192.0.2.2:5060, TLS 192.0.2.3:5070, TLS 192.0.2.2:5070"},
		{"op", nil, srv(one, one, one), "tcp", "TCP 192.0.2.2:5080"},
		{"tls://op", nil, srv(one, one, nil), "", "TLS 192.0.2.1:5061, TLS [2001:db8::1]:5061"}, // never by what is not TLS
		{"tls://op", nil, srv(one, one, one), "", "TLS 192.0.2.2:5080"},
		{"op", naptr(udp, tcp, tls), srv(one, one, one), "", "TLS 192.0.2.2:5080"},                            // the lowest order
		{"op", naptr(udp, tcp, tls), srv(one, one, one), "udp tcp", "TCP 192.0.2.2:5080, UDP 192.0.2.2:5080"}, // what we speak, by preference
		{"tcp://op", naptr(udp, tcp, tls), srv(one, one, one), "", "TCP 192.0.2.2:5080"},
		{"op", naptr("1 1 a SIP+D2T a"), nil, "", "TCP 192.0.2.2:5060"},
		{"op", naptr("1 1 u SIP+D2U _sip._udp.op", "1 2 s E2U+sip _sip._udp.op", "1 3 s SIP+D2S _sip._sctp.op"), srv(one, nil, nil), "", "UDP 192.0.2.2:5080"},
		{"op", naptr("1 1 s SIP+D2T _gone"), srv(one, nil, nil), "", ""},
		{"op", nil, srv([]*net.SRV{{Target: "."}}, nil, nil), "", ""},
		{"op", nil, srv([]*net.SRV{{Target: "."}}, one, nil), "", "TCP 192.0.2.2:5080"},
		{"nowhere", nil, nil, "", ""},
		{"op:0", nil, nil, "", ""},
		{"op:sip", nil, nil, "", ""},
		{"sctp://op", nil, nil, "", ""},
		{"tls://", nil, nil, "", ""},
	} {
		speaks := func(transport string) bool {
			return strings.Contains(cmp.Or(c.speaks, "udp tcp tls"), strings.ToLower(transport))
		}
		got, err := locate(t.Context(), fakeNames{c.naptr, c.srv, hosts}, c.server, speaks)
		var list []string
		for _, s := range got {
			list = append(list, s.transport+" "+s.addr.String())
		}
		if (err != nil) != (c.want == "") || err == nil && strings.Join(list, ", ") != c.want {
			t.Errorf("locate %q, NAPTR %v: %v, %v, want %s", c.server, c.naptr, list, err, c.want)
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
