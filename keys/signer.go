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
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-jose/go-jose/v4"
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

// signer signs with one key.
type signer struct {
	kid, algorithm string
	private        crypto.Signer
	headers        map[string]string // by typ: the encoded header and a dot
}

// knownTypes are the typ values whose headers are made once.
var knownTypes = []string{"at+jwt", "rt+jwt"}

func newSigner(kid, algorithm string, private crypto.Signer) (*signer, error) {
	s := &signer{kid: kid, algorithm: algorithm, private: private, headers: make(map[string]string)}
	for _, typ := range knownTypes {
		header, err := s.header(typ)
		if err != nil {
			return nil, err
		}
		s.headers[typ] = header
	}
	return s, nil
}

func (s *signer) header(typ string) (string, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{s.algorithm, s.kid, typ})
	return base64.RawURLEncoding.EncodeToString(header) + ".", err
}

// sign returns the compact serialization (RFC 7515 §7.1). The same payload gives
// the same bytes: none of the algorithms here is randomized.
func (s *signer) sign(typ string, payload []byte) (string, error) {
	header, ok := s.headers[typ]
	if !ok {
		var err error
		if header, err = s.header(typ); err != nil {
			return "", err
		}
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

func (s *signer) signature(input []byte) ([]byte, error) {
	if s.algorithm == eddsa {
		return s.private.Sign(nil, input, crypto.Hash(0))
	}
	digest := sha256.Sum256(input)
	if s.algorithm == rs256 {
		return s.private.Sign(nil, digest[:], crypto.SHA256)
	}
	// Without a source of randomness the nonce is that of RFC 6979.
	der, err := s.private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return rawECDSA(der)
}

// rawECDSA turns an ASN.1 signature into r and s of 32 bytes each (RFC 7518 §3.4).
func rawECDSA(der []byte) ([]byte, error) {
	var parts struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return nil, errors.New("the signature is not an ECDSA signature")
	}
	raw := make([]byte, 64)
	parts.R.FillBytes(raw[:32])
	parts.S.FillBytes(raw[32:])
	return raw, nil
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
	k.Sealed, err = master.seal(der, k.binding(r, issuer))
	return err
}

// binding is what a sealed key is tied to.
func (k *key) binding(r ring, issuer string) string {
	return issuer + "\x00" + r.Name + "\x00" + r.Algorithm + "\x00" + k.ID
}

// unseal returns the private key and checks that it belongs to the public one.
func (k *key) unseal(r ring, master MasterKey, issuer string) (crypto.Signer, error) {
	der, err := master.open(k.Sealed, k.binding(r, issuer))
	if err != nil {
		return nil, err
	}
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
	return private, nil
}
