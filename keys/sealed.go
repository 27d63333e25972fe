package keys

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const sealedName = "sealed"

// SealedBackend keeps private keys in their handles: PKCS#8 DER in
// XChaCha20-Poly1305 under a master key.
type SealedBackend struct{ masters masterKeys }

// NewSealedBackend returns the backend that seals with the first master key and
// opens with all of them.
func NewSealedBackend(first MasterKey, others ...MasterKey) *SealedBackend {
	return &SealedBackend{append(masterKeys{first}, others...)}
}

// sealed is the handle of a sealed key.
type sealed struct {
	MasterKey  string `json:"master_key"` // id of the one that opens it
	Ciphertext []byte `json:"ciphertext"` // after the nonce of 24 bytes
}

// Name implements Backend.
func (b *SealedBackend) Name() string { return sealedName }

// Algorithms implements Backend.
func (b *SealedBackend) Algorithms() []string { return offered() }

// Generate implements Backend.
func (b *SealedBackend) Generate(ctx context.Context, p Place) (crypto.PublicKey, []byte, error) {
	a, err := algorithmOf(p.Algorithm)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, nil, err
	}
	private, err := a.generate()
	if err != nil {
		return nil, nil, err
	}
	if p.KeyID, err = Thumbprint(private.Public()); err != nil {
		return nil, nil, err
	}
	handle, err := b.Import(ctx, p, private)
	return private.Public(), handle, err
}

// Import implements Importer.
func (b *SealedBackend) Import(_ context.Context, p Place, private crypto.Signer) ([]byte, error) {
	master := b.masters.first()
	if master.IsZero() {
		return nil, fmt.Errorf("%w: none was given to seal with", ErrMasterKey)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
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
	return json.Marshal(sealed{master.ID(), aead.Seal(nonce, nonce, der, p.additionalData())})
}

// Open implements Backend.
func (b *SealedBackend) Open(_ context.Context, p Place, handle []byte) (crypto.Signer, error) {
	altered := fmt.Errorf("private key %s does not open: its record was altered, or belongs elsewhere; restore it from a backup", p.KeyID)
	var s sealed
	if json.Unmarshal(handle, &s) != nil {
		return nil, altered
	}
	master, err := b.masters.named(s.MasterKey)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(master.Derive("seal private keys"))
	if err != nil {
		return nil, fmt.Errorf("opening private key %s: %w", p.KeyID, err)
	}
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
	if id, err := Thumbprint(private.Public()); err != nil || id != p.KeyID {
		return nil, altered
	}
	return private, nil
}

// Destroy implements Backend. The key is in its handle and goes with it.
func (b *SealedBackend) Destroy(context.Context, Place, []byte) error { return nil }

// masterKeyOf returns the id of the master key that opens a handle.
func (b *SealedBackend) masterKeyOf(handle []byte) string {
	var s sealed
	if json.Unmarshal(handle, &s) != nil {
		return ""
	}
	return s.MasterKey
}

// additionalData is what a sealed key is bound to. It is unambiguous: JSON delimits
// the parts.
func (p Place) additionalData() []byte {
	data, err := json.Marshal([]string{"authserver private key", p.Issuer, p.Ring, p.Algorithm, p.KeyID})
	if err != nil {
		panic(err) // strings always encode
	}
	return data
}
