package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The algorithms of rings (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	es256 = "ES256"
	rs256 = "RS256"
	eddsa = "EdDSA"
)

const rsaBits = 2048

// generate makes a private key for an algorithm.
func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case es256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case rs256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case eddsa:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("algorithm %q is not offered", algorithm)
}

// signer signs with one key. The private half is only in the closure, where no
// formatting or encoding by reflection finds it.
type signer struct {
	kid, algorithm string
	signature      func(input []byte) ([]byte, error)
	headers        map[string]string // by typ: the encoded header and a dot
}

// knownTypes are the typ values whose headers are made once.
var knownTypes = []string{"at+jwt", "rt+jwt"}

func newSigner(kid, algorithm string, private crypto.Signer) *signer {
	s := &signer{kid: kid, algorithm: algorithm, headers: make(map[string]string)}
	s.signature = func(input []byte) ([]byte, error) { return signature(private, algorithm, input) }
	for _, typ := range knownTypes {
		s.headers[typ] = s.header(typ)
	}
	return s
}

func (s *signer) header(typ string) string {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{s.algorithm, s.kid, typ})
	if err != nil { // strings can always be encoded
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(header) + "."
}

// sign returns the compact serialization (RFC 7515 §7.1). The same payload gives
// the same bytes: none of the algorithms here is randomized.
func (s *signer) sign(typ string, payload []byte) (string, error) {
	header, ok := s.headers[typ]
	if !ok {
		header = s.header(typ)
	}
	encoding := base64.RawURLEncoding
	token := make([]byte, 0, len(header)+encoding.EncodedLen(len(payload))+1+encoding.EncodedLen(rsaBits/8))
	token = encoding.AppendEncode(append(token, header...), payload)
	signature, err := s.signature(token)
	if err != nil {
		return "", fmt.Errorf("signing with key %s: %w", s.kid, err)
	}
	return string(encoding.AppendEncode(append(token, '.'), signature)), nil
}

func signature(private crypto.Signer, algorithm string, input []byte) ([]byte, error) {
	if algorithm == eddsa {
		return private.Sign(nil, input, crypto.Hash(0))
	}
	// Without a source of randomness RSA is PKCS #1 v1.5 as ever, and ECDSA takes
	// its nonce from RFC 6979.
	digest := sha256.Sum256(input)
	signed, err := private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil || algorithm == rs256 {
		return signed, err
	}
	return rawECDSA(signed)
}

// rawECDSA turns an ASN.1 signature into r and s of 32 bytes each (RFC 7518 §3.4).
func rawECDSA(der []byte) ([]byte, error) {
	input, sequence := cryptobyte.String(der), cryptobyte.String(nil)
	var r, s []byte
	if !input.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadASN1Integer(&r) || !sequence.ReadASN1Integer(&s) ||
		!input.Empty() || !sequence.Empty() || len(r) > 32 || len(s) > 32 {
		return nil, errors.New("the signature is not an ECDSA signature on P-256")
	}
	raw := make([]byte, 64)
	copy(raw[32-len(r):], r)
	copy(raw[64-len(s):], s)
	return raw, nil
}

// suits reports whether a public key is one for an algorithm.
func suits(public crypto.PublicKey, algorithm string) bool {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		return algorithm == es256 && public.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return algorithm == rs256 && public.N.BitLen() >= rsaBits
	case ed25519.PublicKey:
		return algorithm == eddsa
	}
	return false
}

// thumbprint is the kid of a public key: its RFC 7638 thumbprint.
func thumbprint(public crypto.PublicKey) (string, error) {
	hash, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	return base64.RawURLEncoding.EncodeToString(hash), err
}

// fill makes the material of a key that next wants and seals it.
func (k *key) fill(r ring, master MasterKey, issuer string) error {
	private, err := generate(r.Algorithm)
	if err != nil {
		return fmt.Errorf("generating a key for %s: %w", r.Name, err)
	}
	if k.ID, err = thumbprint(private.Public()); err != nil {
		return err
	}
	if k.Public, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	defer clear(der)
	k.Sealed, err = master.seal(der, k.binding(r, issuer))
	return err
}

// binding is what a sealed key is tied to.
func (k *key) binding(r ring, issuer string) string {
	return issuer + "\x00" + r.Name + "\x00" + r.Algorithm + "\x00" + k.ID
}

// unseal returns the private key and checks that it belongs to the public one.
func (k *key) unseal(r ring, master MasterKey, issuer string) (*signer, error) {
	der, err := master.open(k.Sealed, k.binding(r, issuer))
	if err != nil {
		return nil, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: key %s is not PKCS#8", ErrMasterKey, k.ID)
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: key %s cannot sign", ErrMasterKey, k.ID)
	}
	if id, err := thumbprint(private.Public()); err != nil || id != k.ID {
		return nil, fmt.Errorf("%w: key %s holds another key", ErrMasterKey, k.ID)
	}
	return newSigner(k.ID, r.Algorithm, private), nil
}
