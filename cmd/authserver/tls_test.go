package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/timetest"
)

// writeCertificate writes a self-signed pair for localhost with a serial number.
func writeCertificate(t *testing.T, directory string, serial int64) {
	t.Helper()
	writeCertificateUntil(t, directory, serial, time.Now().Add(time.Hour))
}

func writeCertificateUntil(t *testing.T, directory string, serial int64, until time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotAfter: until}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(directory, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// ATTACKS FT-53: a new certificate is used without a restart; one that is broken, that has
// expired or whose key is another leaves the old in place, and the log says why.
func TestTLSReload(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	writeCertificate(t, directory, 1)
	environment := append(on(port), "AUTHSERVER_ISSUER=https://localhost:"+port,
		"AUTHSERVER_TLS_CERT_FILE="+filepath.Join(directory, "tls.crt"), "AUTHSERVER_TLS_KEY_FILE="+filepath.Join(directory, "tls.key"))
	p := start(t, directory, "https://localhost:"+port, environment, "serve")
	serial := func() int64 {
		t.Helper()
		connection, err := tls.Dial("tcp", "localhost:"+port, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, p.text())
		}
		defer connection.Close()
		return connection.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		if !timetest.Until(done) {
			t.Fatalf("%s\n%s", what, p.text())
		}
	}
	if serial() != 1 {
		t.Fatal("another certificate than the configured one")
	}
	os.WriteFile(filepath.Join(directory, "tls.crt"), []byte("broken"), 0o600)
	wait("the broken pair was not noticed", func() bool { return serial() == 1 && strings.Contains(p.text(), "could not be reloaded") })
	writeCertificate(t, directory, 2)
	wait("the new certificate is not used", func() bool { return serial() == 2 })
	writeCertificateUntil(t, directory, 3, time.Now().Add(-time.Minute))
	wait("the expired pair was not noticed", func() bool { return serial() == 2 && strings.Contains(p.text(), "the new certificate expired at") })
	other := t.TempDir()
	writeCertificate(t, other, 4)
	if err := os.Rename(filepath.Join(other, "tls.crt"), filepath.Join(directory, "tls.crt")); err != nil { // beside the key of the third
		t.Fatal(err)
	}
	wait("the pair that is none was not noticed", func() bool { return serial() == 2 && strings.Contains(p.text(), "private key does not match") })
	if strings.Contains(p.text(), "has expired, and clients refuse it") {
		t.Error("the log calls a certificate expired that is not")
	}
	late := t.TempDir()
	writeCertificateUntil(t, late, 5, time.Now().Add(-time.Minute))
	var log bytes.Buffer
	if _, err := newCertificate(tlsConfig{CertFile: filepath.Join(late, "tls.crt"), KeyFile: filepath.Join(late, "tls.key")}, slog.New(slog.NewTextHandler(&log, nil))); err != nil ||
		strings.Count(log.String(), "has expired, and clients refuse it") != 1 {
		t.Errorf("at the start: %v, the log says %q", err, log.String())
	}
	fails(t, t.TempDir(), append(on(freePort(t)), "AUTHSERVER_ISSUER=https://localhost", "AUTHSERVER_TLS_CERT_FILE=/nowhere", "AUTHSERVER_TLS_KEY_FILE=/nowhere"), "cert_file holds the certificate", "serve")
}

// ATTACKS MT-07: no handshake below TLS 1.2, nor with a suite that is not forward secret
// and authenticated; no renegotiation.
func TestAttackMT07(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	writeCertificate(t, directory, 1)
	start(t, directory, "https://localhost:"+port, append(on(port), "AUTHSERVER_ISSUER=https://localhost:"+port,
		"AUTHSERVER_TLS_CERT_FILE="+filepath.Join(directory, "tls.crt"), "AUTHSERVER_TLS_KEY_FILE="+filepath.Join(directory, "tls.key")), "serve")
	dial := func(version uint16, suites ...uint16) (*tls.Conn, error) {
		return tls.Dial("tcp", "localhost:"+port, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version,
			CipherSuites: suites, Renegotiation: tls.RenegotiateFreelyAsClient})
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		connection, err := dial(version)
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			connection.Close()
		}
	}
	var accepted []string
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		if connection, err := dial(tls.VersionTLS12, suite.ID); err == nil {
			accepted = append(accepted, suite.Name)
			connection.Close()
		}
	}
	slices.Sort(accepted)
	want := []string{ // of those for a certificate with an ECDSA key
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
	}
	if !slices.Equal(accepted, want) {
		t.Errorf("TLS 1.2 with %q, want %q", accepted, want)
	}
}

// token verify and token inspect explain a token; user hash and version answer.
func TestTokenCommands(t *testing.T) {
	port := freePort(t)
	base := "http://localhost:" + port
	start(t, t.TempDir(), base, nil, "dev", "--listen", ":"+port)
	_, body, err := postForm(t, base+"/token", "demo-service", "demo-secret", tokenForm("client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	token := body["access_token"].(string)
	timetest.Await(t, "the log of revocations is read", func() bool {
		response, err := http.Get(base + "/revocations")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
	for _, test := range []struct {
		args []string
		want string
		ok   bool
	}{
		{[]string{"token", "inspect", "-"}, "Nothing of this was verified", true},
		{[]string{"token", "inspect", "-", "-o", "json"}, `"verified":false`, true},
		{[]string{"token", "inspect", "-", "-o", "xml"}, "allowed are text and json", false},
		{[]string{"token", "verify", "-", "--issuer", base, "--audience", demoAudience}, "passed       revocation  not revoked, by the issuer's feed\n\nvalid\n", true},
		{[]string{"token", "verify", "-", "--issuer", base, "--audience", demoAudience, "--config", "data/none.yaml"}, "the server was asked, and did not say", true},
		{[]string{"token", "verify", "-", "--issuer", base, "--audience", "https://other.example.com"}, `failed       audience    aud is ["http://localhost:8081"]`, false},
		{[]string{"token", "verify", "-"}, "--issuer, --jwks or --config is required", false},
		{[]string{"token", "verify", "-", "--issuer", "auth.example.com"}, `--issuer "auth.example.com" is not a URL`, false},
		{[]string{"token", "verify", "-", "--issuer", base + "/", "--audience", demoAudience}, "hint: is that the issuer, to the byte", false},
		{[]string{"token", "verify"}, "takes 1 argument, 0 given", false},
		{[]string{"token", "frob"}, `unknown verb "frob"`, false},
		{[]string{"user", "hash"}, "$argon2id$v=19$", true},
		{[]string{"version", "-o", "json"}, `"go":"go1.`, true},
		{[]string{"config", "example"}, "issuer: https://auth.example.com", true},
	} {
		command := exec.Command(binary, test.args...)
		command.Stdin = strings.NewReader(token + "\n")
		if test.args[0] == "user" {
			command.Stdin = strings.NewReader("correct horse\n")
		}
		output, err := command.CombinedOutput()
		if (err == nil) != test.ok || !strings.Contains(string(output), test.want) {
			t.Errorf("%v: %v\n%s", test.args, err, output)
		}
	}
}

// token verify says that a token was revoked; on the server's machine also what ended
// it, when and why.
func TestTokenVerifyTellsRevocations(t *testing.T) {
	c, issuer := operatedServer(t, "")
	tokens := func() map[string]any {
		_, body, err := postForm(t, issuer+"/token", "fixed", "0123456789abcdef0123456789abcdef",
			tokenForm("password", "username", "alice", "password", "wonderland"))
		if err != nil || body["access_token"] == nil {
			t.Fatal(body, err)
		}
		return body
	}
	verify := func(token any, args ...string) (string, int) {
		asking := c
		asking.stdin = token.(string)
		stdout, stderr, status := asking.run(append([]string{"token", "verify", "-", "--issuer", issuer, "--audience", "https://api.example.com"}, args...)...)
		return stdout + stderr, status
	}
	says := func(said string, status, want int, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !regexp.MustCompile(text).MatchString(said) || status != want {
				t.Errorf("exit status %d, wanted %d and %s:\n%s", status, want, text, said)
			}
		}
	}
	first := tokens()
	asking := c
	asking.stdin = first["access_token"].(string)
	said, stderr, status := asking.run("token", "verify", "-", "--config", "authserver.yaml", "--audience", "https://api.example.com") // which names the issuer
	says(said+stderr, status, 0, `passed       issuer      `+regexp.QuoteMeta(issuer)+`\n`, `\nvalid\n`)
	said, status = verify(first["access_token"], "--config", "authserver.yaml")
	says(said, status, 0, `passed       revocation  not revoked, by the server's log`, `passed       key         kid .*; it is (active|signing), activated 20`)
	var grants []struct {
		GrantID string `json:"grant_id"`
	}
	c.json(&grants, "grant", "list", "--user", "alice")
	c.json(new(any), "grant", "revoke", "--yes", "--reason", "lost laptop", "--", grants[0].GrantID)
	c.json(new(any), "grant", "revoke", "--yes", "--reason", "all of it", "--user", "alice")
	said, status = verify(first["access_token"], "--socket", "data/admin.sock")
	says(said, status, 1, `failed       revocation  its grant was revoked \d+s ago, at 20\d\d-\S+Z \(lost laptop\); everything of its user was revoked \d+s ago, at 20\d\d-\S+Z \(all of it\)`)
	timetest.Await(t, "the feed tells it", func() bool {
		said, status = verify(first["access_token"])
		return status == 1
	})
	says(said, status, 1, `failed       revocation  its grant was revoked, by the issuer's feed; the running server knows when and why`)
	response, err := http.Get(issuer + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	set, err := io.ReadAll(response.Body)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.directory, "jwks.json"), set, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	said, status = verify(first["access_token"], "--jwks", "jwks.json")
	says(said, status, 0, `not checked  revocation  the key set is a file, so nothing is fetched`, `nothing failed, but not everything was checked`)
}
