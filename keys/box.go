package keys

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrSealed says that a sealed value was altered, was sealed for something else, or
// under another master key.
var ErrSealed = errors.New("the sealed value does not open")

// Box seals small values that the server hands out, or stores, and reads again
// itself: XChaCha20-Poly1305 under a key derived from the master key for one
// purpose. What was sealed for one purpose does not open for another.
type Box struct{ aead cipher.AEAD }

// Box returns the box of a purpose, for example "authorization code".
func (m *Manager) Box(purpose string) (Box, error) {
	aead, err := chacha20poly1305.NewX(m.config.MasterKey.Derive("box: " + purpose))
	if err != nil {
		return Box{}, fmt.Errorf("making the box for %s: %w", purpose, err)
	}
	return Box{aead}, nil
}

// Seal returns plaintext sealed and bound to additional data: 40 bytes longer, and
// another value each time.
func (b Box) Seal(plaintext, additionalData []byte) []byte {
	nonce := make([]byte, b.aead.NonceSize(), b.aead.NonceSize()+len(plaintext)+b.aead.Overhead())
	rand.Read(nonce)
	return b.aead.Seal(nonce, nonce, plaintext, additionalData)
}

// Open returns what Seal was given, or ErrSealed.
func (b Box) Open(sealed, additionalData []byte) ([]byte, error) {
	if len(sealed) < b.aead.NonceSize() {
		return nil, ErrSealed
	}
	nonce, ciphertext := sealed[:b.aead.NonceSize()], sealed[b.aead.NonceSize():]
	plaintext, err := b.aead.Open(nil, nonce, ciphertext, additionalData)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}
