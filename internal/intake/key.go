package intake

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// Limits of key sets.
const (
	MaxKeySet = 64 << 10 // bytes
	maxKeys   = 100
	minRSA    = 2048 // bits
	maxRSA    = 8192 // bits
)

// Key is a public key for one algorithm (RFC 8725 §3.1). Public is an
// *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
type Key struct {
	ID        string // kid; may be empty
	Algorithm string // ES256, ES384, ES512, EdDSA, RS256 or PS256
	Public    crypto.PublicKey
}

// Verify checks the signature of t. The algorithm is the key's; a token whose
// header says another is refused.
func (t *Token) Verify(key Key) error {
	if t.Algorithm != key.Algorithm {
		return fmt.Errorf("%w: the header's alg is not the key's, %s", ErrSignature, key.Algorithm)
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

// jwkMembers are the members of a JWK that decide whether it is admitted.
type jwkMembers struct {
	Type       string   `json:"kty"`
	Algorithm  string   `json:"alg"`
	KeyID      string   `json:"kid"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`

	// Private and symmetric members; a set that is handed to others has none.
	D  json.RawMessage `json:"d"`
	P  json.RawMessage `json:"p"`
	Q  json.RawMessage `json:"q"`
	DP json.RawMessage `json:"dp"`
	DQ json.RawMessage `json:"dq"`
	QI json.RawMessage `json:"qi"`
	K  json.RawMessage `json:"k"`
}

// ParseKeySet reads a JWK Set (RFC 7517 §5). Keys that are private, symmetric,
// weak, for another use or ambiguous are left out, each with its reason; the
// others are usable. An error means that there is no set at all.
func ParseKeySet(body []byte) (keys []Key, refused []error, err error) {
	if len(body) > MaxKeySet {
		return nil, nil, malformed("the key set is larger than %d bytes", MaxKeySet)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := Decode(body, &set); err != nil {
		return nil, nil, fmt.Errorf("reading the key set: %w", err)
	}
	if set.Keys == nil {
		return nil, nil, malformed("the key set has no keys member")
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, malformed("the key set has more than %d keys", maxKeys)
	}
	count := make(map[string]int) // by kid, admitted or not
	for i, raw := range set.Keys {
		key, err := parseKey(raw)
		if key.ID != "" || err == nil { // an unreadable key has no kid that could be ambiguous
			count[key.ID]++
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		keys = append(keys, key)
	}
	// Two keys of one kid leave open which one a token means.
	return slices.DeleteFunc(keys, func(key Key) bool {
		twice := count[key.ID] > 1
		if twice {
			refused = append(refused, fmt.Errorf("kid %.40q: %w", key.ID, malformed("more than one key has it")))
		}
		return twice
	}), refused, nil
}

func parseKey(raw []byte) (Key, error) {
	var members jwkMembers
	if err := Decode(raw, &members); err != nil {
		return Key{}, err
	}
	key := Key{ID: members.KeyID}
	switch {
	case members.D != nil || members.P != nil || members.Q != nil || members.DP != nil || members.DQ != nil ||
		members.QI != nil || members.K != nil || members.Type == "oct":
		return key, malformed("private or symmetric keys are not admitted")
	case members.Use != "" && members.Use != "sig": // RFC 7517 §4.2
		return key, malformed("its use is not sig")
	case members.Operations != nil && !slices.Contains(members.Operations, "verify"): // RFC 7517 §4.3
		return key, malformed("its key_ops lack verify")
	case len(members.KeyID) > maxKeyID:
		return key, malformed("its kid is longer than %d bytes", maxKeyID)
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return key, malformed("%v", err)
	}
	if !jwk.Valid() {
		return key, malformed("it is not a valid public key")
	}
	key.Public = jwk.Key
	key.Algorithm = members.Algorithm
	if key.Algorithm == "" {
		key.Algorithm = naturalAlgorithm(key.Public)
	}
	return key, checkStrength(key)
}

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
	return errors.Join(ErrMalformed, fmt.Errorf("keys of type %T are not admitted", key.Public))
}

func checkRSA(k *rsa.PublicKey) error {
	bits := k.N.BitLen()
	switch {
	case bits < minRSA || bits > maxRSA: // RFC 7518 §3.3
		return malformed("its modulus has %d bits; allowed are %d to %d", bits, minRSA, maxRSA)
	case k.E < 65537 || k.E%2 == 0:
		return malformed("its exponent is even or below 65537")
	case k.N.Bit(0) == 0:
		return malformed("its modulus is even")
	}
	return nil
}
