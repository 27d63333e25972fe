package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	es256 = "ES256" // RFC 7518 §3.4
	rs256 = "RS256" // RFC 7518 §3.3
	eddsa = "EdDSA" // RFC 8037 §3.1, with Ed25519
)

// rsaBits is the size that every verifier takes; of 3072 bits a signature costs
// three times as much.
const rsaBits = 2048

// algorithm is one way to sign. All of them are deterministic: the same payload
// signed by the same key gives the same bytes.
type algorithm struct {
	name     string
	slow     bool        // takes up to seconds to generate
	hash     crypto.Hash // of what is signed; 0: the message itself is signed
	size     int         // of a signature, at most; bytes
	generate func() (crypto.Signer, error)
	fits     func(crypto.PublicKey) bool
	// encode turns what crypto.Signer returns into the octets of a JWS; nil: it is that already.
	encode func([]byte) ([]byte, error)
}

var algorithms = []algorithm{
	{
		name: es256, hash: crypto.SHA256, size: 64, encode: rawECDSA,
		generate: func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		fits: func(public crypto.PublicKey) bool {
			key, ok := public.(*ecdsa.PublicKey)
			return ok && key.Curve == elliptic.P256()
		},
	},
	{
		name: rs256, slow: true, hash: crypto.SHA256, size: rsaBits / 8,
		generate: func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) },
		fits: func(public crypto.PublicKey) bool {
			key, ok := public.(*rsa.PublicKey)
			return ok && key.N.BitLen() >= rsaBits
		},
	},
	{
		name: eddsa, size: ed25519.SignatureSize,
		generate: func() (crypto.Signer, error) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			return key, err
		},
		fits: func(public crypto.PublicKey) bool { _, ok := public.(ed25519.PublicKey); return ok },
	},
}

func algorithmOf(name string) (algorithm, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a, nil
		}
	}
	return algorithm{}, fmt.Errorf("algorithm %q is not offered", name)
}

func offered() []string {
	var names []string
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

func parsePublic(der []byte, name string) (crypto.PublicKey, error) {
	a, err := algorithmOf(name)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading its public half: %w", err)
	}
	if !a.fits(public) {
		return nil, fmt.Errorf("its public half is no key for %s", name)
	}
	return public, nil
}

// Thumbprint returns the kid of a public key: its RFC 7638 thumbprint with SHA-256.
func Thumbprint(public crypto.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("computing the thumbprint of a public key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// rawECDSA turns an ASN.1 signature into r and s of 32 bytes each (RFC 7518 §3.4).
func rawECDSA(der []byte) ([]byte, error) {
	var parts cryptobyte.String
	var r, s []byte
	input := cryptobyte.String(der)
	if !input.ReadASN1(&parts, asn1.SEQUENCE) || !input.Empty() ||
		!parts.ReadASN1Integer(&r) || !parts.ReadASN1Integer(&s) || !parts.Empty() ||
		len(r) > 32 || len(s) > 32 {
		return nil, errors.New("not an ECDSA signature on P-256")
	}
	raw := make([]byte, 64)
	copy(raw[32-len(r):32], r)
	copy(raw[64-len(s):], s)
	return raw, nil
}
