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

// StartTLS runs a server that also listens with TLS. It returns the store URL of
// that port, by IP address, and the authority that its certificate is from.
func StartTLS(t testing.TB) (url string, authority *x509.CertPool) {
	t.Helper()
	certificate, key, authority := makeCertificate(t)
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	Start(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no")
	return "rediss://" + addr, authority
}

// makeCertificate makes a certificate for 127.0.0.1 that has signed itself, and
// returns the files that it and its key are in.
func makeCertificate(t testing.TB) (certificateFile, keyFile string, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	authority = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	authority.AddCert(parsed)
	dir := t.TempDir()
	return writePEM(t, dir, "CERTIFICATE", certificate), writePEM(t, dir, "PRIVATE KEY", private), authority
}

func writePEM(t testing.TB, dir, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, kind+".pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
