package intake

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Verify checks the signature of t. The algorithm is the key's (RFC 8725 §3.1).
// Errors wrap ErrAlgorithm when the header names another, ErrSignature when the
// signature is not the key's, and ErrMalformed otherwise.
func (t *Token) Verify(key Key) error {
	if t.Algorithm != key.Algorithm {
		return fmt.Errorf("%w, %s", ErrAlgorithm, key.Algorithm)
	}
	if err := checkStrength(key); err != nil {
		return err
	}
	if key.Algorithm == "PS256" {
		return t.verifyPSS(key)
	}
	parsed, err := jose.ParseSignedCompact(t.Raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm)})
	if err != nil {
		return malformed("%v", err)
	}
	if _, err := parsed.Verify(key.Public); err != nil {
		return ErrSignature
	}
	return nil
}

// verifyPSS is RFC 7518 §3.5 with the salt length that it requires; go-jose takes any.
func (t *Token) verifyPSS(key Key) error {
	digest := sha256.Sum256([]byte(t.signingInput))
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	if rsa.VerifyPSS(key.Public.(*rsa.PublicKey), crypto.SHA256, digest[:], t.signature, options) != nil {
		return ErrSignature
	}
	return nil
}
