package intake

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// readVectors reads third-party test vectors that live beside the project.
func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "vectors", filepath.FromSlash(name))
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		t.Skipf("third-party vectors are not here: %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

type wycheproof struct {
	TestGroups []struct {
		Comment string          `json:"comment"`
		Public  json.RawMessage `json:"public"`
		Private json.RawMessage `json:"private"`
		Tests   []struct {
			ID      int             `json:"tcId"`
			Comment string          `json:"comment"`
			JWS     json.RawMessage `json:"jws"`
			JWE     json.RawMessage `json:"jwe"`
			Result  string          `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

var offered = []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"}

// accepts reports whether a token comes in by a key set.
func accepts(keySet []byte, compact string) bool {
	keys, _, err := ParseKeySet(keySet)
	if err != nil {
		return false
	}
	token, err := Parse(compact)
	if err != nil {
		return false
	}
	for _, key := range keys {
		if key.ID == token.KeyID && token.Verify(key) == nil {
			return true
		}
	}
	return false
}

// TestAttackJW27 is ATTACKS JW-27: no false accept and no false reject for the
// algorithms that are offered.
func TestAttackJW27(t *testing.T) {
	// Labelled valid upstream, and yet to be refused (see anomalies.json beside the vectors).
	refusedThoughValid := map[string]map[int]string{
		"json_web_signature_test": {
			346: "the header's alg is not the key's", 350: "the header's alg is not the key's",
			347: "the key's alg ES521 is not registered", 351: "the key's alg ES521 is not registered",
		},
	}
	for _, file := range []string{"json_web_signature_test", "json_web_key_test", "json_web_crypto_test"} {
		t.Run(file, func(t *testing.T) {
			var vectors wycheproof
			readVectors(t, "wycheproof/"+file+".json", &vectors)
			valid := 0
			for _, group := range vectors.TestGroups {
				set, algorithm := publicSet(t, group.Public)
				for _, test := range group.Tests {
					var compact string
					if json.Unmarshal(test.JWS, &compact) != nil {
						compact = string(test.JWS) // JSON serialization, or a JWE
					}
					want := test.Result == "valid" && slices.Contains(offered, algorithm) &&
						refusedThoughValid[file][test.ID] == ""
					if got := accepts(set, compact); got != want {
						t.Errorf("tcId %d, %s, %s: accepted %v, want %v", test.ID, group.Comment, test.Comment, got, want)
					}
					if want {
						valid++
					}
				}
			}
			t.Logf("%d valid tokens accepted", valid)
			if file != "json_web_key_test" && valid == 0 {
				t.Error("no valid token was tried")
			}
		})
	}
}

// publicSet returns the group's public keys as a set; without a public key
// (symmetric groups) the private one, which must not be admitted.
func publicSet(t *testing.T, public json.RawMessage) (set []byte, algorithm string) {
	t.Helper()
	var shape struct {
		Algorithm string `json:"alg"`
		Keys      []struct {
			Algorithm string `json:"alg"`
		} `json:"keys"`
	}
	if public == nil {
		return []byte(`{"keys":[]}`), ""
	}
	if err := json.Unmarshal(public, &shape); err != nil {
		t.Fatal(err)
	}
	if len(shape.Keys) > 0 {
		return public, shape.Keys[0].Algorithm
	}
	return fmt.Appendf(nil, `{"keys":[%s]}`, public), shape.Algorithm
}

// No private or symmetric key is ever admitted, and no encrypted token comes in.
func TestVectorsRefused(t *testing.T) {
	for _, file := range []string{"json_web_signature_test", "json_web_key_test", "json_web_crypto_test", "json_web_encryption_test"} {
		var vectors wycheproof
		readVectors(t, "wycheproof/"+file+".json", &vectors)
		for _, group := range vectors.TestGroups {
			var set struct {
				Keys []map[string]any `json:"keys"`
			}
			if json.Unmarshal(group.Private, &set) == nil && set.Keys == nil {
				set.Keys = make([]map[string]any, 1)
				json.Unmarshal(group.Private, &set.Keys[0])
			}
			for _, key := range set.Keys {
				if key["d"] == nil && key["kty"] != "oct" {
					continue // a public key among private ones
				}
				raw, _ := json.Marshal(map[string]any{"keys": []any{key}})
				if admitted, refused, _ := ParseKeySet(raw); len(admitted) != 0 || len(refused) != 1 {
					t.Errorf("%s, %s: a private key was admitted", file, group.Comment)
				}
			}
			for _, test := range group.Tests {
				var compact string
				if test.JWE != nil && json.Unmarshal(test.JWE, &compact) == nil {
					if _, err := Parse(compact); err == nil {
						t.Errorf("%s, tcId %d: an encrypted token was parsed", file, test.ID)
					}
				}
			}
		}
	}
}

func TestRFC7515Examples(t *testing.T) {
	var vectors struct {
		JWS []struct {
			Algorithm string          `json:"alg"`
			JWK       json.RawMessage `json:"jwk"`
			JWS       string          `json:"jws"`
			Payload   string          `json:"payload_b64u"`
			Ref       string          `json:"ref"`
			Result    string          `json:"result"`
		} `json:"jws"`
	}
	readVectors(t, "rfc/rfc_examples.json", &vectors)
	for _, v := range vectors.JWS {
		set := fmt.Appendf(nil, `{"keys":[%s]}`, v.JWK)
		want := v.Result == "valid" && slices.Contains(offered, v.Algorithm)
		if got := accepts(set, v.JWS); got != want {
			t.Errorf("%s: accepted %v, want %v", v.Ref, got, want)
		}
		if !want {
			continue
		}
		token, err := Parse(v.JWS)
		if err != nil {
			t.Fatal(err)
		}
		if got := base64.RawURLEncoding.EncodeToString(token.Payload); got != v.Payload {
			t.Errorf("%s: payload %s, want %s", v.Ref, got, v.Payload)
		}
	}
}

// What the JSON test suite refuses, Decode refuses, as a member of an object.
func TestJSONTestSuite(t *testing.T) {
	var vectors struct {
		Files []struct {
			Name    string `json:"name"`
			Expect  string `json:"expect"`
			Content string `json:"b64"`
		} `json:"files"`
	}
	readVectors(t, "json/jsontestsuite_parsing.json", &vectors)
	// Legal JSON that is refused here on purpose.
	stricter := map[string]bool{"y_object_duplicated_key.json": true, "y_object_duplicated_key_and_value.json": true}
	tried := 0
	for _, file := range vectors.Files {
		content, err := base64.StdEncoding.DecodeString(file.Content)
		if err != nil {
			t.Fatal(err)
		}
		var into map[string]any
		decodeErr := Decode(fmt.Appendf(nil, `{"member":%s}`, content), &into)
		switch {
		case file.Expect == "reject" && decodeErr == nil:
			t.Errorf("%s: accepted", file.Name)
		case file.Expect == "accept" && decodeErr != nil && !stricter[file.Name]:
			t.Errorf("%s: refused: %v", file.Name, decodeErr)
		}
		tried++
	}
	if tried < 50 {
		t.Errorf("only %d files were tried", tried)
	}
}
