package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// storeTLS is how the server meets a Redis with TLS: by the system's roots and
// without a certificate of its own unless store_*_file say otherwise. With an
// error comes the key that it is about.
func (c *config) storeTLS() (settings *tls.Config, key string, err error) {
	settings = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.StoreCAFile != "" {
		roots, _, err := readFile(c.StoreCAFile, maxConfigFile)
		if err != nil {
			return nil, "store_ca_file", fmt.Errorf("cannot be read: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(roots) {
			return nil, "store_ca_file", fmt.Errorf("%s holds no certificate in PEM; it is the authority that Redis has its certificate from", c.StoreCAFile)
		}
	}
	switch {
	case c.StoreCertFile == "" && c.StoreKeyFile == "":
		return settings, "", nil
	case c.StoreKeyFile == "":
		return nil, "store_cert_file", errors.New("needs store_key_file, the private key of the certificate")
	case c.StoreCertFile == "":
		return nil, "store_key_file", errors.New("needs store_cert_file, the certificate of the private key")
	}
	own, err := tls.LoadX509KeyPair(c.StoreCertFile, c.StoreKeyFile)
	if err != nil {
		return nil, "store_cert_file", fmt.Errorf("%w; store_cert_file holds the certificate and its chain, store_key_file its private key, both in PEM", err)
	}
	settings.Certificates = []tls.Certificate{own}
	return settings, "", nil
}

// describeRedis says how Redis is reached, without its URL, which may hold a password.
func (c *config) describeRedis() string {
	if !strings.HasPrefix(c.Store, "rediss") {
		return "Redis, without TLS"
	}
	text := "Redis with TLS, its certificate from an authority that this machine trusts"
	if c.StoreCAFile != "" {
		text = "Redis with TLS, its certificate from an authority in " + c.StoreCAFile
	}
	if c.StoreCertFile != "" {
		text += ", this server's own is " + c.StoreCertFile
	}
	return text
}

func (c *config) checkStoreTLS(d *decoder) {
	for _, given := range []struct{ key, value string }{
		{"store_ca_file", c.StoreCAFile}, {"store_cert_file", c.StoreCertFile}, {"store_key_file", c.StoreKeyFile},
	} {
		if given.value != "" && !strings.HasPrefix(c.Store, "rediss") {
			d.mistake(given.key, "is for a store with TLS; its URL begins with rediss")
			return
		}
	}
	if _, key, err := c.storeTLS(); err != nil {
		d.mistake(key, "%v", err)
	}
}
