package pbx

import (
	"crypto/x509"
	"encoding/binary"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestCertifies: which certificate is a carrier's (RFC 5922 §7.1, §7.2).
func TestCertifies(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct {
		uris, dns, ips, name string
		want                 bool
	}{
		{"", "sip.example", "", "sip.example", true},
		{"", "SIP.example.", "", "sip.EXAMPLE", true},
		{"", "*.example", "", "sip.example", false},
		{"", "example", "", "sip.example", false},
		{"sip:sip.example", "", "", "sip.example", true},
		{"sip:sip.example;x=1", "", "", "sip.example", true},
		{"sip:other.example", "sip.example", "", "sip.example", false}, // a SIP URI rules
		{"sip:bob@sip.example", "", "", "sip.example", false},          // a person
		{"https://sip.example", "sip.example", "", "sip.example", true},
		{"", "", "192.0.2.1 2001:db8::1", "192.0.2.1", true},
		{"", "", "2001:db8::1", "2001:db8:0::1", true},
		{"", "192.0.2.1", "", "192.0.2.1", false},
		{"", "", "", "", false},
	} {
		leaf := &x509.Certificate{DNSNames: strings.Fields(c.dns)}
		for _, u := range strings.Fields(c.uris) {
			leaf.URIs = append(leaf.URIs, uri(u))
		}
		for _, ip := range strings.Fields(c.ips) {
			leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(ip))
		}
		if got := certifies(leaf, c.name); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// naptrData packs the data of a record.
func naptrData(order, preference uint16, flags, service, regexp string, labels ...string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, order), preference)
	for _, s := range append([]string{flags, service, regexp}, labels...) {
		b = append(append(b, byte(len(s))), s...)
	}
	return append(b, 0)
}

// TestNAPTRLookup asks a name server on the loopback, which first answers with
// somebody else's number and then says that the answer is too long for UDP.
func TestNAPTRLookup(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Skip("the port is taken for TCP")
	}
	defer tcp.Close()
	answer := func(query []byte, id uint16, truncated bool) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil {
			t.Error(err)
			return nil
		}
		m.Response, m.Truncated = true, truncated
		m.ID ^= id
		if !truncated {
			h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 90}
			m.Answers = []dnsmessage.Resource{
				{Header: h, Body: &dnsmessage.UnknownResource{Type: naptrType, Data: naptrData(10, 20, "s", "SIPS+D2T", "", "_sips", "_tcp", "op")}},
				{Header: h, Body: &dnsmessage.UnknownResource{Type: naptrType, Data: naptrData(10, 30, "u", "E2U+sip", "!^.*$!sip:x!")}},
			}
		}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		n, from, err := udp.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, b := range [][]byte{answer(buf[:n], 1, false), answer(buf[:n], 0, true)} {
			if _, err := udp.WriteTo(b, from); err != nil {
				t.Error(err)
			}
		}
		c, err := tcp.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		query, err := readDNS(c, "tcp", buf)
		if err != nil {
			t.Error(err)
			return
		}
		b := answer(query, 0, false)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			t.Error(err)
		}
	}()
	got, life, err := askNAPTR(t.Context(), at, dnsmessage.MustNewName("op."))
	if err != nil || life != 90*time.Second || len(got) != 2 || got[0] != (NAPTR{10, 20, "s", "SIPS+D2T", "_sips._tcp.op"}) || got[1].Replacement != "" {
		t.Errorf("%+v for %v, %v", got, life, err)
	}
	udp.Close()
	tcp.Close()
	<-done
}

// TestNameServers: the first three that are addresses.
func TestNameServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# ours\nsearch x\nnameserver 192.0.2.1\nnameserver here\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := nameServers(path)
	if err != nil || len(got) != 3 || got[1] != netip.MustParseAddrPort("[2001:db8::1]:53") {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzNAPTR: no answer from the network makes it panic.
func FuzzNAPTR(f *testing.F) {
	f.Add(naptrData(1, 2, "s", "SIP+D2U", "", "_sip", "_udp", "op"))
	f.Add([]byte{0, 1, 0, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := unpackNAPTR(b); err == nil && len(n.Replacement) > len(b) {
			t.Errorf("%q", n.Replacement)
		}
	})
}
