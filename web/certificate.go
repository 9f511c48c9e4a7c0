package web

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate chain and its key in two files. It is read anew
// when one of them has changed; while a changed one cannot be read, the last
// good one stays.
type Certificate struct {
	chain, key string
	log        *slog.Logger

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	stamp   [2]time.Time
	looked  time.Time
}

// lookEvery bounds how often handshakes look at the files.
const lookEvery = time.Second

// ReadCertificate reads the files, which must be good now.
func ReadCertificate(chain, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{chain: chain, key: key, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Certificate) read() error {
	var stamp [2]time.Time
	for i, name := range []string{c.chain, c.key} {
		st, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		stamp[i] = st.ModTime()
	}
	if stamp == c.stamp {
		return nil
	}
	c.stamp = stamp // a bad one is told once
	pair, err := tls.LoadX509KeyPair(c.chain, c.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.chain, c.key, err)
	}
	c.current = &pair
	return nil
}

// Config returns TLS settings for a listener; HTTP/2 is net/http's to add.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		if err := c.read(); err != nil {
			c.log.Error("the last good certificate stays", "err", err)
		}
	}
	return c.current, nil
}
