package intake

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// members is a public key as a JWK with some members changed; nil takes one away.
func members(t *testing.T, public any, changes map[string]any) map[string]any {
	t.Helper()
	encoded, err := jose.JSONWebKey{Key: public}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kid": "1"}
	if err := json.Unmarshal(encoded, &jwk); err != nil {
		t.Fatal(err)
	}
	maps.Copy(jwk, changes)
	maps.DeleteFunc(jwk, func(_ string, value any) bool { return value == nil })
	return jwk
}

func keySetOf(t *testing.T, jwks ...map[string]any) []byte {
	t.Helper()
	encoded, err := json.Marshal(map[string]any{"keys": jwks})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func encodeNumber(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// ATTACKS JW-25, JW-26: which keys are admitted, and that a refused one leaves
// its neighbour in place.
func TestAttackJW25(t *testing.T) {
	ec, rs, ed := newPair(t, "ES256").public.Public, newPair(t, "RS256").public.Public, newPair(t, "EdDSA").public.Public
	p384 := newPair(t, "ES384").public.Public
	n := rs.(*rsa.PublicKey).N
	neighbour := members(t, newPair(t, "ES256").public.Public, map[string]any{"kid": "neighbour"})
	x := members(t, ed, nil)["x"].(string)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		public  any
		changes map[string]any
		want    string // algorithm; empty when refused
	}{
		"EC":                       {ec, nil, "ES256"},
		"EC P-384":                 {p384, nil, "ES384"},
		"Ed25519":                  {ed, nil, "EdDSA"},
		"RSA":                      {rs, nil, "RS256"},
		"RSA for PS256":            {rs, map[string]any{"alg": "PS256"}, "PS256"},
		"use sig, key_ops verify":  {ec, map[string]any{"use": "sig", "key_ops": []string{"sign", "verify"}}, "ES256"},
		"no kid":                   {ec, map[string]any{"kid": nil}, "ES256"},
		"certificates are ignored": {ec, map[string]any{"x5c": []string{"AA"}, "x5u": "://", "x5t": "?"}, "ES256"},

		"private EC":              {ec, map[string]any{"d": "AA"}, ""},
		"d null":                  {ec, map[string]any{"d": json.RawMessage("null")}, ""},
		"private RSA, p":          {rs, map[string]any{"p": "AA"}, ""},
		"private RSA, oth":        {rs, map[string]any{"oth": []string{}}, ""},
		"symmetric":               {ec, map[string]any{"kty": "oct", "k": "AAAA"}, ""},
		"a secret beside":         {ec, map[string]any{"k": "AAAA"}, ""},
		"use enc":                 {ec, map[string]any{"use": "enc"}, ""},
		"key_ops encrypt":         {rs, map[string]any{"key_ops": []string{"encrypt"}}, ""},
		"key_ops empty":           {rs, map[string]any{"key_ops": []string{}}, ""},
		"alg of another curve":    {ec, map[string]any{"alg": "ES384"}, ""},
		"alg of another kind":     {ec, map[string]any{"alg": "RS256"}, ""},
		"alg HS256":               {rs, map[string]any{"alg": "HS256"}, ""},
		"alg none":                {rs, map[string]any{"alg": "none"}, ""},
		"alg RS384":               {rs, map[string]any{"alg": "RS384"}, ""},
		"alg RSA-OAEP":            {rs, map[string]any{"alg": "RSA-OAEP"}, ""},
		"kty of another kind":     {ec, map[string]any{"kty": "RSA"}, ""},
		"kty missing":             {ec, map[string]any{"kty": nil}, ""},
		"crv of another curve":    {ec, map[string]any{"crv": "P-384"}, ""},
		"secp256k1":               {ec, map[string]any{"crv": "secp256k1"}, ""},
		"off the curve":           {ec, map[string]any{"y": encodeNumber(new(big.Int).SetBit(new(big.Int), 255, 1))}, ""},
		"x too short":             {ec, map[string]any{"x": "AA"}, ""},
		"y missing":               {ec, map[string]any{"y": nil}, ""},
		"Ed25519 of 31 bytes":     {ed, map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 31))}, ""},
		"Ed25519 of small order":  {ed, map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}, ""},
		"X25519":                  {ed, map[string]any{"crv": "X25519"}, ""},
		"line break inside":       {ed, map[string]any{"x": x[:5] + "\n" + x[5:]}, ""},
		"padding":                 {ed, map[string]any{"x": x + "="}, ""},
		"RSA 1024":                {&weak.PublicKey, nil, ""},
		"RSA 8208":                {rs, map[string]any{"n": encodeNumber(new(big.Int).SetBit(big.NewInt(1), 8207, 1))}, ""},
		"even modulus":            {rs, map[string]any{"n": encodeNumber(new(big.Int).Add(n, big.NewInt(1)))}, ""},
		"e = 1":                   {rs, map[string]any{"e": "AQ"}, ""},
		"e = 3":                   {rs, map[string]any{"e": "Aw"}, ""},
		"e even":                  {rs, map[string]any{"e": encodeNumber(big.NewInt(65538))}, ""},
		"e of 63 bits":            {rs, map[string]any{"e": encodeNumber(big.NewInt(1<<62 + 1))}, ""},
		"e of 65 bits":            {rs, map[string]any{"e": "AQAAAAAAAQAB"}, ""},
		"ROCA":                    {rs, map[string]any{"n": encodeNumber(rocaModulus())}, ""},
		"kid null":                {ec, map[string]any{"kid": json.RawMessage("null")}, ""},
		"kid a number":            {ec, map[string]any{"kid": 1}, ""},
		"long kid":                {ec, map[string]any{"kid": strings.Repeat("k", 257)}, ""},
		"key_ops not an array":    {ec, map[string]any{"key_ops": "verify"}, ""},
		"kid of the neighbour":    {ec, map[string]any{"kid": "neighbour"}, "none of both"},
		"its kid, though private": {ec, map[string]any{"kid": "neighbour", "d": "AA"}, "none of both"},
	} {
		keys, refused, err := ParseKeySet(keySetOf(t, members(t, test.public, test.changes), neighbour))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, reason := range refused {
			if !errors.Is(reason, ErrMalformed) {
				t.Errorf("%s: refused with %v, want ErrMalformed", name, reason)
			}
		}
		found := make(map[string]string)
		for _, key := range keys {
			found[key.ID] = key.Algorithm
		}
		kid, _ := members(t, test.public, test.changes)["kid"].(string)
		switch {
		case test.want == "none of both":
			if len(keys) != 0 || len(refused) == 0 {
				t.Errorf("%s: admitted %v", name, found)
			}
		case found["neighbour"] != "ES256":
			t.Errorf("%s: its neighbour is gone: %v", name, refused)
		case test.want == "" && (len(keys) != 1 || len(refused) != 1):
			t.Errorf("%s: admitted %v, refused %v", name, found, refused)
		case test.want != "" && (len(keys) != 2 || found[kid] != test.want):
			t.Errorf("%s: admitted %v, want %s; refused %v", name, found, test.want, refused)
		}
	}
}

// ATTACKS JW-23: an Ed25519 key of small order is not admitted, in any of its spellings:
// what it has signed, anybody can sign.
func TestAttackJW23(t *testing.T) {
	sound := newPair(t, "EdDSA").public.Public.(ed25519.PublicKey)
	forgeable := 0
	for _, y := range []string{ // RFC 8032 §5.1.2: y, little endian, below the bit that is the sign of x
		"0000000000000000000000000000000000000000000000000000000000000000", // order 4
		"0100000000000000000000000000000000000000000000000000000000000000", // the neutral one
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // order 8
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p-1, order 2
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p, which is 0
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1, which is 1
	} {
		for _, sign := range []byte{0, 0x80} {
			point, err := hex.DecodeString(y)
			if err != nil {
				t.Fatal(err)
			}
			point[31] |= sign
			// Whoever knows no private key: R of small order and S zero fit one payload in eight or fewer.
			for n := range 200 {
				signature := append(slices.Clone(point), make([]byte, 32)...)
				if ed25519.Verify(point, []byte(fmt.Sprint(n)), signature) {
					forgeable++
					break
				}
			}
			x := map[string]any{"x": base64.RawURLEncoding.EncodeToString(point)}
			keys, refused, err := ParseKeySet(keySetOf(t, members(t, sound, x), members(t, sound, map[string]any{"kid": "sound"})))
			if err != nil || len(keys) != 1 || keys[0].ID != "sound" || len(refused) != 1 || !errors.Is(refused[0], ErrMalformed) {
				t.Errorf("%x: admitted %v, refused %v, %v", point, keys, refused, err)
			}
		}
	}
	if forgeable < 8 {
		t.Errorf("only %d of the points are such keys", forgeable)
	}
}

// rocaModulus is a number of 2048 bits that is a power of 65537 modulo the product
// of the small primes.
func rocaModulus() *big.Int {
	product := big.NewInt(2)
	for _, p := range smallPrimes {
		product.Mul(product, new(big.Int).SetUint64(p))
	}
	n := new(big.Int).SetBit(new(big.Int), 2047, 1)
	n.Sub(n, new(big.Int).Mod(n, product)).Add(n, product)
	return n.Add(n, new(big.Int).Exp(big.NewInt(65537), big.NewInt(12345), product))
}

// Sound moduli do not have the mark.
func TestROCASparesSoundKeys(t *testing.T) {
	for range 5 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if isROCA(key.N) {
			t.Errorf("modulus %x", key.N)
		}
	}
}

// A set is all of JSON, within the limits, or it is none.
func TestParseKeySetRefuses(t *testing.T) {
	many := make([]map[string]any, maxKeys+1)
	for i := range many {
		many[i] = map[string]any{"kty": "EC", "kid": fmt.Sprint(i)}
	}
	for name, body := range map[string]string{
		"empty":           "",
		"HTML":            "<html>",
		"an array":        `[]`,
		"no keys":         `{}`,
		"keys null":       `{"keys":null}`,
		"keys an object":  `{"keys":{}}`,
		"keys twice":      `{"keys":[],"keys":[]}`,
		"in capitals":     `{"KEYS":[]}`,
		"cut short":       `{"keys":[`,
		"trailing data":   `{"keys":[]}{}`,
		"too many":        string(keySetOf(t, many...)),
		"too large":       `{"keys":[],"x":"` + strings.Repeat("x", MaxKeySet) + `"}`,
		"a member twice":  `{"keys":[{"kty":"EC","kty":"RSA"}]}`,
		"byte order mark": "\ufeff" + `{"keys":[]}`,
	} {
		if keys, _, err := ParseKeySet([]byte(body)); !errors.Is(err, ErrMalformed) || keys != nil {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	if keys, refused, err := ParseKeySet([]byte(`{"keys":["a",null,1,[],{}]}`)); err != nil || len(keys) != 0 || len(refused) != 5 {
		t.Errorf("a set of junk: %v, %v, %v", keys, refused, err)
	}
}

// Keys that reach Verify by another way are checked there.
func TestVerifyChecksTheKey(t *testing.T) {
	token, err := Parse(part(`{"alg":"ES256"}`) + ".e30." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []any{nil, []byte("secret"), "secret", &p224.PublicKey, p224, ed25519.PublicKey{1}} {
		if err := token.Verify(Key{Algorithm: "ES256", Public: public}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%T: %v, want ErrMalformed", public, err)
		}
	}
}
