package intake

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// ATTACKS JW-32: no panic, one spelling for each token, and no token verifies
// that was not signed.
func FuzzParse(f *testing.F) {
	signer := newPair(f, "ES256")
	const payload = `{"sub":"alice"}`
	signed := signer.sign(f, payload)
	for _, seed := range []string{
		signed, "eyJhbGciOiJFUzI1NiJ9.e30.AA", "eyJhbGciOiJub25lIn0.e30.", "..", "a.b.c.d.e", "eyJhbGciOiJFUzI1NiIsImNyaXQiOltdfQ.e30.AA",
		part(`{"alg":"ES256","kid":"a","x5c":["AA"],"jwk":{"kty":"oct"}}`) + ".e30.AA",
	} {
		f.Add(seed)
	}
	signedInput := signed[:strings.LastIndex(signed, ".")]
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		// Whatever is accepted is exactly what its parts encode to.
		header, _, _ := strings.Cut(text, ".")
		decoded, err := strict.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		again := strict.EncodeToString(decoded) + "." + strict.EncodeToString(token.Payload) + "." + strict.EncodeToString(token.signature)
		if again != text || len(token.signature) == 0 {
			t.Fatalf("accepted %q, which is not the canonical %q", text, again)
		}
		if len(token.KeyID) > maxKeyID {
			t.Fatal("a kid beyond the limit was accepted")
		}
		if token.Verify(signer.public) == nil && token.signingInput != signedInput {
			t.Fatalf("verified %q, which nobody signed", text)
		}
	})
}

// Whatever is accepted means the same to encoding/json, which is laxer.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null}]}}`, `{"a":"\u0061"}`, `{"a\"":1}`, `{"\ud800":1}`, `{"a":1e400}`,
		`{"a":[{},{"a":{}}],"b":{"a":{}}}`, "{\"a\":\"\xff\"}", `{"a":1}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var into, other map[string]any
		if Decode(text, &into) != nil {
			return
		}
		if err := json.Unmarshal(text, &other); err != nil {
			t.Fatalf("accepted %q, which encoding/json refuses: %v", text, err)
		}
		if !reflect.DeepEqual(into, other) || !utf8.Valid(text) {
			t.Fatalf("%q is %v, and %v to encoding/json", text, into, other)
		}
	})
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA","kid":"a"},{"kty":"RSA","n":"AQ","e":"AQAB","kid":"a","d":null}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, refused, err := ParseKeySet(body)
		if err != nil && (keys != nil || refused != nil) {
			t.Fatal("keys beside an error")
		}
		seen := make(map[string]bool)
		for _, key := range keys {
			if seen[key.ID] || len(key.ID) > maxKeyID || checkStrength(key) != nil {
				t.Fatalf("admitted an ambiguous or weak key: %v", key.ID)
			}
			seen[key.ID] = true
		}
	})
}
