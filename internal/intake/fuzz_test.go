package intake

import (
	"encoding/json"
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"eyJhbGciOiJFUzI1NiJ9.e30.AA", "eyJhbGciOiJub25lIn0.e30.", "..", "a.b.c.d.e", "eyJhbGciOiJFUzI1NiIsImNyaXQiOltdfQ.e30.AA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		// One spelling: whatever is accepted is exactly what its parts encode to.
		header, _, _ := strings.Cut(text, ".")
		decoded, _ := strict.DecodeString(header)
		again := strict.EncodeToString(decoded) + "." + strict.EncodeToString(token.Payload) + "." + strict.EncodeToString(token.signature)
		if again != text {
			t.Fatalf("accepted %q, which is not the canonical %q", text, again)
		}
		if len(token.KeyID) > maxKeyID {
			t.Fatal("a kid beyond the limit was accepted")
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null}]}}`, `{"a":"\u0061"}`, `{"a\"":1}`, `{"\ud800":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var into map[string]any
		if Decode(text, &into) != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("accepted %q, which is not JSON", text)
		}
	})
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, _, err := ParseKeySet(body)
		if err != nil && keys != nil {
			t.Fatal("keys beside an error")
		}
		seen := make(map[string]bool)
		for _, key := range keys {
			if seen[key.ID] || checkStrength(key) != nil {
				t.Fatalf("admitted an ambiguous or weak key: %v", key.ID)
			}
			seen[key.ID] = true
		}
	})
}
