package keys

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// sealed is a private key at rest: PKCS#8 DER in XChaCha20-Poly1305.
type sealed struct {
	MasterKey  string `json:"master_key"` // id of the one that opens it
	Ciphertext []byte `json:"ciphertext"` // after the nonce of 24 bytes
}

// place is what a sealed key is bound to, so that records can neither be renamed
// nor exchanged.
type place struct {
	issuer, ring, algorithm, id string
}

// additionalData is unambiguous: JSON delimits the parts.
func (p place) additionalData() []byte {
	data, err := json.Marshal([]string{"authserver private key", p.issuer, p.ring, p.algorithm, p.id})
	if err != nil {
		panic(err) // strings always encode
	}
	return data
}

func seal(master MasterKey, m material, p place) (*sealed, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.private)
	if err != nil {
		return nil, errors.New("encoding a private key failed") // the cause could hold a part of it
	}
	defer clear(der)
	aead, err := chacha20poly1305.NewX(master.Derive("seal private keys"))
	if err != nil {
		return nil, fmt.Errorf("sealing a private key: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(der)+aead.Overhead())
	rand.Read(nonce)
	return &sealed{master.ID(), aead.Seal(nonce, nonce, der, p.additionalData())}, nil
}

// open returns the private key, if it is the one that belongs to the place.
func (s *sealed) open(master MasterKey, p place) (crypto.Signer, error) {
	if err := master.isThatOf(s.MasterKey); err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(master.Derive("seal private keys"))
	if err != nil {
		return nil, fmt.Errorf("opening private key %s: %w", p.id, err)
	}
	altered := fmt.Errorf("private key %s does not open: its record was altered, or belongs elsewhere; restore it from a backup", p.id)
	if len(s.Ciphertext) < aead.NonceSize() {
		return nil, altered
	}
	nonce, ciphertext := s.Ciphertext[:aead.NonceSize()], s.Ciphertext[aead.NonceSize():]
	der, err := aead.Open(nil, nonce, ciphertext, p.additionalData())
	if err != nil {
		return nil, altered
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, altered // the cause could hold a part of the key
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, altered
	}
	if id, err := thumbprint(private.Public()); err != nil || id != p.id {
		return nil, altered
	}
	return private, nil
}
