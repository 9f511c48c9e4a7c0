package pbx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// certificatesEvery is how often the files are looked at: whoever renews a
// certificate replaces them and tells nobody.
const certificatesEvery = 30 * time.Second

// certificates are our certificate and the authorities that we believe, read
// again when their files change: connections that are up keep what they began
// with. They are safe for concurrent use.
type certificates struct {
	log *slog.Logger

	mu    sync.Mutex // of files, stamp and reading
	files certificateFiles
	stamp string // sizes and times of what was read

	now atomic.Pointer[keyset]
	err atomic.Pointer[error] // why the files cannot be used as they are; nil: they can
}

type certificateFiles struct{ certificate, key, ca string }

// keyset is what was read at one time.
type keyset struct {
	own   *tls.Certificate // nil: none
	roots *x509.CertPool   // nil: the system's
}

func filesOf(cfg SIPConfig) certificateFiles {
	return certificateFiles{cfg.Certificate, cfg.Key, cfg.CA}
}

// newCertificates reads the files.
func newCertificates(files certificateFiles, log *slog.Logger) (*certificates, error) {
	c := &certificates{log: log}
	if err := c.use(files); err != nil {
		return nil, err
	}
	return c, nil
}

// use takes other files, or the same ones anew. After an error all is as before.
func (c *certificates) use(files certificateFiles) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := files.stamp()
	set, err := files.read()
	if err != nil {
		return err
	}
	c.files, c.stamp = files, stamp
	c.now.Store(set)
	c.err.Store(nil)
	return nil
}

// refresh reads the files if they have changed. Files that cannot be used leave
// those in force that were read before.
func (c *certificates) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := c.files.stamp()
	if stamp == c.stamp {
		return
	}
	c.stamp = stamp
	set, err := c.files.read()
	if err != nil {
		c.err.Store(&err)
		c.log.Error("SIP certificate not replaced", "err", err)
		return
	}
	c.now.Store(set)
	c.err.Store(nil)
	if set.own != nil {
		c.log.Info("SIP certificate replaced", "until", set.own.Leaf.NotAfter)
	}
}

// keep refreshes until ctx is done.
func (c *certificates) keep(ctx context.Context) {
	tick := time.NewTicker(certificatesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.refresh()
		}
	}
}

func (f certificateFiles) stamp() string {
	var b strings.Builder
	for _, name := range []string{f.certificate, f.key, f.ca} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d;", info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

func (f certificateFiles) read() (*keyset, error) {
	set := &keyset{}
	if f.certificate != "" {
		own, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, fmt.Errorf("load sip.certificate: %w", err)
		}
		if own.Leaf == nil {
			if own.Leaf, err = x509.ParseCertificate(own.Certificate[0]); err != nil {
				return nil, fmt.Errorf("load sip.certificate: %w", err)
			}
		}
		set.own = &own
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("load sip.ca: %w", err)
		}
		set.roots = x509.NewCertPool()
		if !set.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load sip.ca: %s has no certificate", f.ca)
		}
	}
	return set, nil
}

// own reports whether we have a certificate to show.
func (c *certificates) own() bool { return c.now.Load().own != nil }

// until is when our certificate ends, zero if there is none, and why the files
// as they are now cannot be used.
func (c *certificates) until() (end time.Time, err error) {
	if own := c.now.Load().own; own != nil {
		end = own.Leaf.NotAfter
	}
	if p := c.err.Load(); p != nil {
		err = *p
	}
	return end, err
}

// server is the configuration for connections that come in. The peer is asked
// for a certificate and need not have one: phones show the one of their maker.
func (c *certificates) server() *tls.Config {
	set := c.now.Load()
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	if set.own != nil {
		cfg.Certificates = []tls.Certificate{*set.own}
	}
	return cfg
}

// client is the configuration for a connection to name, which shows our
// certificate if it is asked for.
func (c *certificates) client(name string) *tls.Config {
	set := c.now.Load()
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		// crypto/tls would compare names by the rules of HTTP: the chain and the name
		// are verified below by those of SIP.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := set.verify(cs.PeerCertificates); err != nil {
				return err
			}
			if !certifies(cs.PeerCertificates[0], name) {
				return fmt.Errorf("the certificate is not that of %q (RFC 5922)", name)
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if set.own == nil {
				return &tls.Certificate{}, nil
			}
			return set.own, nil
		},
	}
	if _, err := netip.ParseAddr(name); err != nil {
		cfg.ServerName = name
	}
	return cfg
}

// verified returns the certificates of a client that are trusted, else none.
func (c *certificates) verified(chain []*x509.Certificate) []*x509.Certificate {
	if c.now.Load().verify(chain) != nil {
		return nil
	}
	return chain
}

// sipDomainUsage is id-kp-sipDomain (RFC 5924 §4).
var sipDomainUsage = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 20}

// verify follows the chain to an authority that we believe.
func (s *keyset) verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	opts := x509.VerifyOptions{Roots: s.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny} {
		if slices.Contains(leaf.ExtKeyUsage, u) {
			return nil
		}
	}
	if slices.ContainsFunc(leaf.UnknownExtKeyUsage, sipDomainUsage.Equal) {
		return nil
	}
	return errors.New("the certificate is not for SIP servers")
}

// certifies tells whether a certificate is that of a SIP domain: the "sip:" URIs
// in its subjectAltName if there are any, else its DNS names (RFC 5922 §7.1), the
// whole name without regard to case and with no wildcard (RFC 5922 §7.2). An
// address, of which that RFC says nothing, is one of its IP addresses.
func certifies(leaf *x509.Certificate, name string) bool {
	if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
		return slices.ContainsFunc(leaf.IPAddresses, ip.Equal)
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return false
	}
	var domains []string
	for _, u := range leaf.URIs {
		if strings.EqualFold(u.Scheme, "sip") && !strings.Contains(u.Opaque, "@") {
			domain, _, _ := strings.Cut(u.Opaque, ";")
			domains = append(domains, domain)
		}
	}
	if len(domains) == 0 {
		domains = leaf.DNSNames
	}
	return slices.ContainsFunc(domains, func(d string) bool { return strings.EqualFold(strings.TrimSuffix(d, "."), name) })
}
