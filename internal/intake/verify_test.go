package intake

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// pair is a key pair for one algorithm.
type pair struct {
	public  Key
	private crypto.Signer
}

// newPair makes a key pair whose kid is the algorithm.
func newPair(t testing.TB, algorithm string) pair {
	t.Helper()
	var private crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pair{Key{ID: algorithm, Algorithm: algorithm, Public: private.Public()}, private}
}

func (p pair) sign(t testing.TB, payload string) string {
	t.Helper()
	return sign(t, p.public.Algorithm, p.public.ID, p.private, payload)
}

func sign(t testing.TB, algorithm, kid string, key any, payload string) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// RFC 8725 §3.1 (ATTACKS JW-03): one key, one algorithm.
func TestVerify(t *testing.T) {
	pairs := make(map[string]pair)
	for _, algorithm := range offered {
		pairs[algorithm] = newPair(t, algorithm)
	}
	for _, algorithm := range offered {
		signer := pairs[algorithm]
		compact := signer.sign(t, `{"sub":"alice"}`)
		token, err := Parse(compact)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Verify(signer.public); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		if err := token.Verify(newPair(t, algorithm).public); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, another key: %v, want ErrSignature", algorithm, err)
		}
		parts := strings.Split(compact, ".")
		altered, err := Parse(parts[0] + "." + part(`{"sub":"bob"}`) + "." + parts[2])
		if err != nil {
			t.Fatal(err)
		}
		if err := altered.Verify(signer.public); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, another payload: %v, want ErrSignature", algorithm, err)
		}
		for _, wrong := range append([]string{"", "none", "HS256", "RS384"}, offered...) {
			if wrong == algorithm {
				continue
			}
			if err := token.Verify(Key{Algorithm: wrong, Public: signer.public.Public}); !errors.Is(err, ErrAlgorithm) {
				t.Errorf("%s by its own key for %q: %v, want ErrAlgorithm", algorithm, wrong, err)
			}
			other, ok := pairs[wrong]
			if !ok {
				continue
			}
			if err := token.Verify(other.public); !errors.Is(err, ErrAlgorithm) {
				t.Errorf("%s by a key of %s: %v, want ErrAlgorithm", algorithm, wrong, err)
			}
			// A key that is said to be for this algorithm and is of another kind or curve.
			key := Key{Algorithm: algorithm, Public: other.public.Public}
			if err := token.Verify(key); err == nil {
				t.Errorf("%s was verified by a key of %s", algorithm, wrong)
			}
		}
	}
}

// ATTACKS JW-01: unsigned tokens, in every spelling, with and without something
// in the place of the signature.
func TestAttackJW01(t *testing.T) {
	key := newPair(t, "ES256").public
	for _, algorithm := range []string{"none", "None", "NONE", "nOnE", ""} {
		for _, signature := range []string{"", "AA", base64.RawURLEncoding.EncodeToString(make([]byte, 64))} {
			token, err := Parse(part(`{"alg":"`+algorithm+`"}`) + ".e30." + signature)
			if err != nil {
				continue
			}
			for _, trusted := range []string{algorithm, "ES256"} {
				if token.Verify(Key{Algorithm: trusted, Public: key.Public}) == nil {
					t.Errorf("alg %q, signature %q: verified as %q", algorithm, signature, trusted)
				}
			}
		}
	}
}

// ATTACKS JW-02: the public key as the secret of an HMAC.
func TestAttackJW02(t *testing.T) {
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		key := newPair(t, algorithm).public
		der, err := x509.MarshalPKIXPublicKey(key.Public)
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := jose.JSONWebKey{Key: key.Public}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string][]byte{
			"DER": der, "JWK": jwk,
			"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			"raw": der[len(der)-32:],
		} {
			for _, mac := range []string{"HS256", "HS384", "HS512"} {
				token, err := Parse(sign(t, mac, "1", bytes.Repeat(secret, 2), "{}"))
				if err != nil {
					t.Fatal(err)
				}
				for _, trusted := range []string{mac, algorithm} {
					if token.Verify(Key{Algorithm: trusted, Public: key.Public}) == nil {
						t.Errorf("%s with the %s key as %s: verified as %s", mac, algorithm, name, trusted)
					}
				}
			}
		}
	}
}

// ATTACKS JW-22, JW-23: signatures of the wrong size or out of range.
func TestAttackJW22(t *testing.T) {
	ec, ed := newPair(t, "ES256"), newPair(t, "EdDSA")
	order := elliptic.P256().Params().N
	half := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }
	with := func(compact string, change func([]byte) []byte) string {
		parts := strings.Split(compact, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(change(signature))
	}
	one := big.NewInt(1)
	for name, test := range map[string]struct {
		signer pair
		change func([]byte) []byte
	}{
		"r zero":       {ec, func(s []byte) []byte { return append(make([]byte, 32), s[32:]...) }},
		"s zero":       {ec, func(s []byte) []byte { return append(s[:32:32], make([]byte, 32)...) }},
		"all zero":     {ec, func(s []byte) []byte { return make([]byte, 64) }},
		"r = n":        {ec, func(s []byte) []byte { return append(half(order), s[32:]...) }},
		"s = n":        {ec, func(s []byte) []byte { return append(s[:32:32], half(order)...) }},
		"r = s = n+1":  {ec, func(s []byte) []byte { return bytes.Repeat(half(new(big.Int).Add(order, one)), 2) }},
		"65 bytes":     {ec, func(s []byte) []byte { return append(s, 0) }},
		"65, in front": {ec, func(s []byte) []byte { return append([]byte{0}, s...) }},
		"63 bytes":     {ec, func(s []byte) []byte { return s[:63] }},
		"DER": {ec, func([]byte) []byte {
			digest := sha256.Sum256([]byte(part(`{"alg":"ES256","kid":"ES256","typ":"at+jwt"}`) + "." + part("{}")))
			der, err := ec.private.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			return der
		}},
		// s + L: L is 2^252 + 27742317777372353535851937790883648493, little endian.
		"Ed25519, s >= L": {ed, func(s []byte) []byte {
			limit, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
			little := slices.Clone(s[32:])
			slices.Reverse(little)
			sum := half(limit.Add(limit, new(big.Int).SetBytes(little)))
			slices.Reverse(sum)
			return append(s[:32:32], sum...)
		}},
		"Ed25519, 63 bytes": {ed, func(s []byte) []byte { return s[:63] }},
		"Ed25519, 65 bytes": {ed, func(s []byte) []byte { return append(s, 0) }},
	} {
		compact := test.signer.sign(t, "{}")
		token, err := Parse(with(compact, slices.Clone[[]byte]))
		if err != nil || token.Verify(test.signer.public) != nil {
			t.Fatalf("%s: the unchanged token is refused", name)
		}
		token, err = Parse(with(compact, test.change))
		if err != nil {
			t.Fatal(err)
		}
		if token.Verify(test.signer.public) == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

// ATTACKS JW-24: PS256 takes the salt length of RFC 7518 §3.5 and no other.
func TestAttackJW24(t *testing.T) {
	signer := newPair(t, "PS256")
	input := part(`{"alg":"PS256"}`) + "." + part("{}")
	digest := sha256.Sum256([]byte(input))
	for _, length := range []int{0, 20, 31, 32, 33, 48, 64, rsa.PSSSaltLengthAuto} {
		signature, err := rsa.SignPSS(rand.Reader, signer.private.(*rsa.PrivateKey), crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: max(length, 0)})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(input + "." + base64.RawURLEncoding.EncodeToString(signature))
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Verify(signer.public); (err == nil) != (length == 32) {
			t.Errorf("a salt of %d bytes: %v", length, err)
		}
	}
}

// The cost of one token beside that of its signature.
func BenchmarkIntake(b *testing.B) {
	signer := newPair(b, "ES256")
	compact := signer.sign(b, `{"iss":"https://auth.example.com","sub":"alice","aud":"https://api.example.com","client_id":"web","scope":"orders:read orders:write",`+
		`"jti":"Zm9vYmFyYmF6cXV4MTIzNA","iat":1795488000,"exp":1795488600,"grant_id":"Zm9vYmFyYmF6cXV4MTIzNA","roles":["admin"]}`)
	var claims struct {
		Issuer  string   `json:"iss"`
		Subject string   `json:"sub"`
		Expires int64    `json:"exp"`
		Roles   []string `json:"roles"`
	}
	token, err := Parse(compact)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte(token.signingInput))
	r, s := new(big.Int).SetBytes(token.signature[:32]), new(big.Int).SetBytes(token.signature[32:])
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"parse", func() error { _, err := Parse(compact); return err }},
		{"decode", func() error { return Decode(token.Payload, &claims) }},
		{"all", func() error {
			token, err := Parse(compact)
			return errors.Join(err, token.Verify(signer.public), Decode(token.Payload, &claims))
		}},
		{"bare ecdsa.Verify", func() error {
			if !ecdsa.Verify(signer.public.Public.(*ecdsa.PublicKey), digest[:], r, s) {
				return fmt.Errorf("not verified")
			}
			return nil
		}},
	} {
		b.Run(step.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := step.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
