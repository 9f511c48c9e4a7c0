//go:build interop

package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/store"
)

// writeCertificate makes a certificate for an address, signed by itself.
func writeCertificate(t *testing.T, dir, addr string) (certificate, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: addr}, IPAddresses: []net.IP{net.ParseIP(addr)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "sip.pem"), filepath.Join(dir, "sip.key")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: cert}, key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// TestEncryptedPhone: a phone that registers by TLS and speaks SRTP only takes a
// call from a trunk in the clear. Both hear each other, the recording is right, and
// the status says that the phone's voice is encrypted.
func TestEncryptedPhone(t *testing.T) {
	r := newRig(t)
	r.srtp = "require"
	r.start()
	agent := r.register(phoneSetup{ext: "101", tone: tonePhone, mediaenc: "srtp-mand"})
	carrier := r.deliver("in_conversation", 7*time.Second)
	agent.await("CALL_ESTABLISHED", 10*time.Second)
	// The phone knows of its call a moment before the status does.
	eventually(t, 5*time.Second, "the status says that 101 speaks SRTP", func() bool {
		_, body := r.get("/stan.json")
		return strings.Contains(strings.Join(strings.Fields(body), ""), `{"party":"101","srtp":"A`)
	})
	carrier.succeed(20 * time.Second)
	agent.await("CALL_CLOSED", 5*time.Second)
	agent.quit()
	assertHears(t, agent.heard(), toneCarrier, toneAnnouncement)
	v := r.open()
	assertLanes(t, v.recorded(v.only(), store.OutcomeOK), toneCarrier, tonePhone, 500*time.Millisecond, 4*time.Second)
}
