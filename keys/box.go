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
type Box struct {
	aead cipher.AEAD   // seals and opens
	old  []cipher.AEAD // open, under OldMasterKeys
}

// Box returns the box of a purpose, for example "authorization code".
func (m *Manager) Box(purpose string) (Box, error) {
	var b Box
	for i, master := range m.sealed.masters {
		if master.IsZero() {
			return Box{}, fmt.Errorf("making the box for %s: %w", purpose, ErrMasterKey)
		}
		aead, err := chacha20poly1305.NewX(master.Derive("box: " + purpose))
		if err != nil {
			return Box{}, fmt.Errorf("making the box for %s: %w", purpose, err)
		}
		if i == 0 {
			b.aead = aead
		} else {
			b.old = append(b.old, aead)
		}
	}
	return b, nil
}

// Salt returns 32 secret bytes for a purpose, derived from the first master key.
// Who needs them for longer than that key stores them, sealed.
func (m *Manager) Salt(purpose string) []byte {
	return m.sealed.masters.first().Derive("salt: " + purpose)
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
	for i := 0; err != nil && i < len(b.old); i++ {
		plaintext, err = b.old[i].Open(nil, nonce, ciphertext, additionalData)
	}
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// Reseal returns a value sealed under the first master key, and whether it was
// sealed under another one before. Whoever stores values for long calls it when
// they are read, so that an old master key can be taken away some day.
func (b Box) Reseal(sealed, additionalData []byte) (resealed []byte, changed bool, err error) {
	plaintext, err := b.Open(sealed, additionalData)
	if err != nil {
		return nil, false, err
	}
	if _, err := (Box{aead: b.aead}).Open(sealed, additionalData); err == nil {
		return sealed, false, nil
	}
	return b.Seal(plaintext, additionalData), true, nil
}
