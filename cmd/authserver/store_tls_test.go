package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authserver/internal/redistest"
	"authserver/store"
)

// A Redis whose certificate is from an authority of its own, and one that asks
// for a certificate as well.
func TestStoreTLS(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, mutual := range []bool{false, true} {
		redis := redistest.StartTLS(t, mutual)
		trusted := fmt.Sprintf("store: %s\nstore_ca_file: %s\n", redis.URL, redis.CertificateFile)
		identified := trusted + fmt.Sprintf("store_cert_file: %s\nstore_key_file: %s\n", redis.CertificateFile, redis.KeyFile)
		for _, c := range []struct {
			text string
			ok   bool
		}{{"store: " + redis.URL, false}, {trusted, !mutual}, {identified, true}} {
			config, _, err := loadConfig(writeConfig(t, "issuer: https://a.example\n"+c.text), nil)
			if err != nil {
				t.Fatal(err)
			}
			opened, err := openStore(t.Context(), config, log)
			if err == nil {
				err = errors.Join(opened.Ping(t.Context()), opened.Close())
			}
			if (err == nil) != c.ok {
				t.Errorf("mutual %v, %s: %v", mutual, c.text, err)
			}
			// A certificate of an authority that is not trusted does not become right.
			if waited := new(store.UnavailableError); errors.As(err, &waited) && c.text == "store: "+redis.URL {
				t.Errorf("waits for what does not pass: %v", err)
			}
		}
	}
}

func TestStoreTLSMistakes(t *testing.T) {
	directory := t.TempDir()
	text := filepath.Join(directory, "text")
	if err := os.WriteFile(text, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"store: redis://localhost:1\nstore_ca_file: " + text, `3: store_ca_file: is for a store with TLS; its URL begins with rediss`},
		{"store_cert_file: " + text, `2: store_cert_file: is for a store with TLS`},
		{"store: rediss://localhost:1\nstore_ca_file: " + text, `3: store_ca_file: ` + text + ` holds no certificate in PEM`},
		{"store: rediss://localhost:1\nstore_ca_file: /nowhere", `3: store_ca_file: cannot be read: open /nowhere`},
		{"store: rediss://localhost:1\nstore_cert_file: " + text, `3: store_cert_file: needs store_key_file`},
		{"store: rediss://localhost:1\nstore_key_file: " + text, `3: store_key_file: needs store_cert_file`},
		{"store: rediss://localhost:1\nstore_cert_file: " + text + "\nstore_key_file: " + text, `3: store_cert_file: tls: failed to find any PEM data`},
	} {
		path := writeConfig(t, "issuer: https://a.example\n"+c.text)
		_, _, err := loadConfig(path, nil)
		var found mistakes
		if !errors.As(err, &found) || len(found) != 1 || !strings.HasPrefix(found[0], path+":"+c.want) {
			t.Errorf("%q:\n%v\nwant %s", c.text, err, c.want)
		}
	}
}

// What config check says of Redis never repeats the URL, which may hold a password.
func TestStoreTLSExplained(t *testing.T) {
	redis := redistest.StartTLS(t, false)
	config, _, err := loadConfig(writeConfig(t, "issuer: https://a.example\nstore: rediss://user:hunter2@localhost:1\nstore_ca_file: "+redis.CertificateFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := config.explain(&out); err != nil || !strings.Contains(out.String(), "from an authority in "+redis.CertificateFile) || strings.Contains(out.String(), "hunter2") {
		t.Errorf("%s %v", out.String(), err)
	}
}
