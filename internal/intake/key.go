package intake

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math"
	"math/big"
)

// Key is a public key for one algorithm (RFC 8725 §3.1). Public is an
// *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
type Key struct {
	ID        string // kid; may be empty
	Algorithm string // ES256, ES384, ES512, EdDSA, RS256 or PS256
	Public    crypto.PublicKey
}

// Bounds of RSA keys.
const (
	minModulus  = 2048 // bits, RFC 7518 §3.3
	maxModulus  = 8192 // bits
	minExponent = 65537
	maxExponent = math.MaxInt32 // as crypto/rsa
)

// naturalAlgorithm is the algorithm of a key that names none.
func naturalAlgorithm(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecAlgorithm(k.Curve)
	case ed25519.PublicKey:
		return "EdDSA"
	case *rsa.PublicKey:
		return "RS256"
	}
	return ""
}

func ecAlgorithm(curve elliptic.Curve) string {
	switch curve {
	case elliptic.P256():
		return "ES256"
	case elliptic.P384():
		return "ES384"
	case elliptic.P521():
		return "ES512"
	}
	return ""
}

// checkStrength refuses keys that do not fit their algorithm or are weak.
func checkStrength(key Key) error {
	switch k := key.Public.(type) {
	case *ecdsa.PublicKey:
		if key.Algorithm == "" || key.Algorithm != ecAlgorithm(k.Curve) { // RFC 7518 §3.4
			return malformed("its curve does not go with its algorithm")
		}
		return nil
	case ed25519.PublicKey:
		if key.Algorithm != "EdDSA" || len(k) != ed25519.PublicKeySize { // RFC 8037 §3.1
			return malformed("its curve does not go with its algorithm")
		}
		return nil
	case *rsa.PublicKey:
		if key.Algorithm != "RS256" && key.Algorithm != "PS256" {
			return malformed("its algorithm is not RS256 or PS256")
		}
		return checkRSA(k)
	}
	return fmt.Errorf("%w: keys of type %T are not admitted", ErrMalformed, key.Public)
}

func checkRSA(k *rsa.PublicKey) error {
	bits := k.N.BitLen()
	switch {
	case bits < minModulus || bits > maxModulus:
		return malformed("its modulus has %d bits; allowed are %d to %d", bits, minModulus, maxModulus)
	case k.E < minExponent || k.E > maxExponent || k.E%2 == 0:
		return malformed("its exponent is even, below %d or above %d", minExponent, maxExponent)
	case k.N.Bit(0) == 0:
		return malformed("its modulus is even")
	}
	return nil
}

// smallPrimes are the odd primes up to 167.
var smallPrimes = []uint64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
	101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// isROCA reports whether a modulus has the mark of the broken generator of
// CVE-2017-15361, whose primes are powers of 65537 modulo many small primes. A
// sound modulus has it by chance once in some hundred million keys.
func isROCA(modulus *big.Int) bool {
	for _, p := range smallPrimes {
		remainder := new(big.Int).Mod(modulus, new(big.Int).SetUint64(p)).Uint64()
		power, found := uint64(1), false
		for range p { // the powers repeat after fewer than p steps
			found = found || power == remainder
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}
