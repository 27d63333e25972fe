package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TLS is a server that listens with TLS, too. Its certificate has signed itself.
type TLS struct {
	URL             string // the store URL of the port with TLS, by IP address
	CertificateFile string // of the server, and good for a client that must have one
	KeyFile         string
}

// StartTLS runs a server that also listens with TLS; mutual says whether it asks
// clients for a certificate, which is then the server's own.
func StartTLS(t testing.TB, mutual bool) TLS {
	t.Helper()
	certificate, key := makeCertificate(t)
	addr := FreeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	args := []string{"--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"}
	if mutual {
		args[len(args)-1] = "yes"
	}
	Start(t, args...)
	return TLS{"rediss://" + addr, certificate, key}
}

// makeCertificate makes a certificate for 127.0.0.1 that has signed itself, and
// returns the files that it and its key are in.
func makeCertificate(t testing.TB) (certificateFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return writePEM(t, dir, "CERTIFICATE", certificate), writePEM(t, dir, "PRIVATE KEY", private)
}

func writePEM(t testing.TB, dir, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, kind+".pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
