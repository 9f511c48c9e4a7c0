package pbx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
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

// TestCertificateUsage: a certificate that says what it is for says SIP, or what
// servers had before there was a word for it (RFC 5924 §4).
func TestCertificateUsage(t *testing.T) {
	ca := newTestCA(t)
	sip := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 20}
	other := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 21} // SSH
	for _, c := range []struct {
		name    string
		usages  []x509.ExtKeyUsage
		unknown []asn1.ObjectIdentifier
		want    bool
	}{
		{"nothing", nil, nil, true},
		{"SIP", nil, []asn1.ObjectIdentifier{sip}, true},
		{"SIP among others", []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, []asn1.ObjectIdentifier{other, sip}, true},
		{"servers", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil, true},
		{"clients", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil, true},
		{"anything", []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, nil, true},
		{"mail", []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, nil, false},
		{"programs", []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, []asn1.ObjectIdentifier{other}, false},
	} {
		set := &keyset{roots: x509.NewCertPool()}
		set.roots.AddCert(ca.cert)
		err := set.verify([]*x509.Certificate{ca.issue(c.usages, c.unknown)})
		if (err == nil) != c.want {
			t.Errorf("for %s: %v", c.name, err)
		}
	}
	if (&keyset{roots: x509.NewCertPool()}).verify([]*x509.Certificate{ca.issue(nil, nil)}) == nil {
		t.Error("an unknown authority is believed")
	}
}

// testCA signs certificates for use within this package.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{t: t, key: key}
	ca.cert = &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	ca.cert = ca.sign(ca.cert)
	return ca
}

func (ca *testCA) issue(usages []x509.ExtKeyUsage, unknown []asn1.ObjectIdentifier) *x509.Certificate {
	return ca.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"sip.example"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: usages, UnknownExtKeyUsage: unknown,
	})
}

func (ca *testCA) sign(template *x509.Certificate) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return c
}

// naptrData packs the data of a record.
func naptrData(order, preference uint16, flags, service, regexp string, labels ...string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, order), preference)
	for _, s := range append([]string{flags, service, regexp}, labels...) {
		b = append(append(b, byte(len(s))), s...)
	}
	return append(b, 0)
}

// bothKinds listens on one free port for datagrams and for connections.
func bothKinds(t *testing.T) (udp net.PacketConn, tcp net.Listener) {
	t.Helper()
	for range 20 { // another one if it is taken for connections
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			t.Cleanup(func() { udp.Close(); tcp.Close() })
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

// TestNAPTRLookup asks a name server on the loopback, which first answers with
// somebody else's number and then says that the answer is too long for UDP.
func TestNAPTRLookup(t *testing.T) {
	udp, tcp := bothKinds(t)
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
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
