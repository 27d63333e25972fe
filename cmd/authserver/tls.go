package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

const certificateCheck = time.Second // between looks at the files, at most

// certificate is a certificate whose files are read again when they change. A new
// pair that cannot be used leaves the old one in place.
type certificate struct {
	files tlsConfig
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	state   [2]fileState
	checked time.Time
	warned  time.Time // when the log said last that it has expired
}

// config is RFC 9325 (BCP 195): TLS 1.2 with the suites of §4.2, which are forward secret
// and authenticated, or TLS 1.3; no renegotiation, which the standard library's servers
// do not know. All resumption is of this one issuer's sessions, and no client is
// authenticated by them.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		GetCertificate: c.get,
	}
}

type fileState struct {
	changed time.Time
	size    int64
}

func newCertificate(files tlsConfig, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log}
	state, err := c.stat()
	if err == nil {
		err = c.load(state)
	}
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	c.warn()
	return c, nil
}

func (c *certificate) stat() (state [2]fileState, err error) {
	for i, name := range []string{c.files.CertFile, c.files.KeyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return state, err
		}
		state[i] = fileState{info.ModTime(), info.Size()}
	}
	return state, nil
}

func (c *certificate) load(state [2]fileState) error {
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return err
	}
	if c.current != nil && expired(&pair) {
		return fmt.Errorf("the new certificate expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.current, c.state, c.checked = &pair, state, time.Now()
	return nil
}

func expired(pair *tls.Certificate) bool { return time.Now().After(pair.Leaf.NotAfter) }

const expiredEvery = time.Hour // that the log says so

// warn says that clients refuse the certificate, of which the server notices nothing else.
func (c *certificate) warn() {
	if !expired(c.current) || time.Since(c.warned) < expiredEvery {
		return
	}
	c.warned = time.Now()
	c.log.Error("the TLS certificate has expired, and clients refuse it: replace its files, no restart is needed", "event", "certificate",
		"file", c.files.CertFile, "expired", c.current.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < certificateCheck {
		return c.current, nil
	}
	c.checked = time.Now()
	state, err := c.stat()
	if err == nil && state != c.state {
		if err = c.load(state); err == nil {
			c.log.Info("the TLS certificate was reloaded", "event", "certificate", "file", c.files.CertFile)
		}
	}
	if err != nil {
		c.log.Error("the TLS certificate could not be reloaded; the old one stays", "event", "certificate", "file", c.files.CertFile, "error", err.Error())
	}
	c.warn()
	return c.current, nil
}
