package intake

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
)

// Verify checks the signature of t. The algorithm is the key's (RFC 8725 §3.1).
// Errors wrap ErrAlgorithm when the header names another, ErrSignature when the
// signature is not the key's, and ErrMalformed otherwise.
//
// The signature is checked by the standard library at once: what a JOSE library
// adds to that is reading the header again, which costs more than a tenth of the
// check (docs/decisions/0017-signatures-by-the-standard-library.md).
func (t *Token) Verify(key Key) error {
	if t.Algorithm != key.Algorithm {
		return fmt.Errorf("%w, %s", ErrAlgorithm, key.Algorithm)
	}
	if err := checkStrength(key); err != nil {
		return err
	}
	valid := false
	switch public := key.Public.(type) {
	case *ecdsa.PublicKey:
		valid = t.verifyECDSA(public)
	case ed25519.PublicKey: // RFC 8037 §3.1
		valid = ed25519.Verify(public, []byte(t.signingInput), t.signature)
	case *rsa.PublicKey:
		valid = t.verifyRSA(key.Algorithm, public)
	}
	if !valid {
		return ErrSignature
	}
	return nil
}

// verifyECDSA is RFC 7518 §3.4: R and S, each as long as the curve's order, and the
// hash that goes with the curve.
func (t *Token) verifyECDSA(public *ecdsa.PublicKey) bool {
	half := (public.Params().BitSize + 7) / 8
	if len(t.signature) != 2*half {
		return false
	}
	var digest []byte
	switch half {
	case 32:
		sum := sha256.Sum256([]byte(t.signingInput))
		digest = sum[:]
	case 48:
		sum := sha512.Sum384([]byte(t.signingInput))
		digest = sum[:]
	default:
		sum := sha512.Sum512([]byte(t.signingInput))
		digest = sum[:]
	}
	// What is zero or not below the order is refused there.
	var room [2 + 2*(3+66)]byte
	return ecdsa.VerifyASN1(public, digest, appendASN1(room[:0], t.signature[:half], t.signature[half:]))
}

// appendASN1 appends the signature as a DER sequence of two integers, which is how
// the standard library takes it.
func appendASN1(room, r, s []byte) []byte {
	r, s = trimZeros(r), trimZeros(s)
	length := 4 + len(r) + len(s) + int(r[0]>>7) + int(s[0]>>7)
	room = append(room, 0x30)
	if length >= 0x80 { // P-521 only
		room = append(room, 0x81)
	}
	room = append(room, byte(length))
	for _, number := range [][]byte{r, s} {
		sign := number[0] >> 7 // a zero in front, or it would be negative
		room = append(room, 2, byte(len(number))+sign)
		room = append(append(room, make([]byte, sign)...), number...)
	}
	return room
}

// trimZeros leaves one byte at least.
func trimZeros(number []byte) []byte {
	for len(number) > 1 && number[0] == 0 {
		number = number[1:]
	}
	return number
}

// verifyRSA is RFC 7518 §3.3, and for PS256 §3.5 with the salt length that it requires.
func (t *Token) verifyRSA(algorithm string, public *rsa.PublicKey) bool {
	digest := sha256.Sum256([]byte(t.signingInput))
	if algorithm == "PS256" {
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return rsa.VerifyPSS(public, crypto.SHA256, digest[:], t.signature, options) == nil
	}
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], t.signature) == nil
}
