package intake

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
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
	// Whose label must not be taken as it stands, and why: some are labelled invalid
	// and have the bytes of a valid one, the others are labelled valid and to be refused.
	var anomalies struct {
		Files map[string]map[string]string `json:"files"`
	}
	readVectors(t, "wycheproof/anomalies.json", &anomalies)
	// How many valid tests of offered algorithms each file has at least: the valid
	// ones of json_web_key_test are all symmetric.
	leastAccepted := map[string]int{"json_web_signature_test": 10, "json_web_key_test": 0, "json_web_crypto_test": 2}
	for file, least := range leastAccepted {
		t.Run(file, func(t *testing.T) {
			var vectors wycheproof
			readVectors(t, "wycheproof/"+file+".json", &vectors)
			accepted, refused := 0, 0
			for _, group := range vectors.TestGroups {
				set, algorithms := groupKeys(t, group.Public, group.Private)
				for _, test := range group.Tests {
					var compact string
					if json.Unmarshal(test.JWS, &compact) != nil {
						compact = string(test.JWS) // JSON serialization, or a JWE
					}
					anomaly := anomalies.Files[file][strconv.Itoa(test.ID)]
					if strings.Contains(anomaly, "left out") {
						continue
					}
					want := test.Result == "valid" && anomaly == "" &&
						slices.ContainsFunc(algorithms, func(algorithm string) bool { return slices.Contains(offered, algorithm) })
					if got := accepts(set, compact); got != want {
						t.Errorf("tcId %d, %s, %s: accepted %v, want %v", test.ID, group.Comment, test.Comment, got, want)
					}
					if want {
						accepted++
					} else {
						refused++
					}
				}
			}
			t.Logf("%d accepted, %d refused", accepted, refused)
			if accepted < least || refused == 0 {
				t.Errorf("%d tokens are to be accepted, want %d or more; %d refused", accepted, least, refused)
			}
		})
	}
}

// groupKeys returns the public keys of a group as a set, with their algorithms;
// symmetric groups have private ones only, which are not admitted.
func groupKeys(t *testing.T, public, private json.RawMessage) (set []byte, algorithms []string) {
	t.Helper()
	if public == nil {
		public = private
	}
	type algorithm struct {
		Algorithm string `json:"alg"`
	}
	var shape struct {
		algorithm
		Keys []algorithm `json:"keys"`
	}
	if err := json.Unmarshal(public, &shape); err != nil {
		t.Fatal(err)
	}
	if shape.Keys == nil {
		shape.Keys = []algorithm{shape.algorithm}
		public = fmt.Appendf(nil, `{"keys":[%s]}`, public)
	}
	for _, key := range shape.Keys {
		algorithms = append(algorithms, key.Algorithm)
	}
	return public, algorithms
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

// The keys of RFC 7638 §3.1, RFC 8037 §A.3 and RFC 9449 §6.1 are admitted as what
// they are, and the proofs of RFC 9449 are by the last of them.
func TestRFCKeysAndProofs(t *testing.T) {
	var vectors struct {
		Thumbprints []struct {
			JWK        json.RawMessage `json:"jwk"`
			Thumbprint string          `json:"sha256_thumbprint"`
			Ref        string          `json:"ref"`
		} `json:"jwk_thumbprint"`
		Proofs []struct {
			Proof      string `json:"proof"`
			Thumbprint string `json:"jkt"`
			Ref        string `json:"ref"`
		} `json:"dpop"`
	}
	readVectors(t, "rfc/rfc_examples.json", &vectors)
	byThumbprint := make(map[string]Key)
	for _, v := range vectors.Thumbprints {
		keys, refused, err := ParseKeySet(fmt.Appendf(nil, `{"keys":[%s]}`, v.JWK))
		if err != nil || len(keys) != 1 {
			t.Fatalf("%s: %v %v", v.Ref, refused, err)
		}
		thumbprint, err := (&jose.JSONWebKey{Key: keys[0].Public}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if got := base64.RawURLEncoding.EncodeToString(thumbprint); got != v.Thumbprint {
			t.Errorf("%s: thumbprint %s, want %s", v.Ref, got, v.Thumbprint)
		}
		byThumbprint[v.Thumbprint] = keys[0]
	}
	for _, v := range vectors.Proofs {
		token, err := Parse(v.Proof)
		if err != nil {
			t.Errorf("%s: %v", v.Ref, err)
			continue
		}
		if err := token.Verify(byThumbprint[v.Thumbprint]); err != nil || !token.HasType("dpop+jwt") {
			t.Errorf("%s: typ %s, %v", v.Ref, token.Type, err)
		}
	}
	if len(vectors.Thumbprints) < 3 || len(vectors.Proofs) < 3 {
		t.Errorf("only %d thumbprints and %d proofs were tried", len(vectors.Thumbprints), len(vectors.Proofs))
	}
}

// What the JSON test suite refuses, Decode refuses, alone and as a member of an
// object; what it accepts, Decode accepts as a member, and alone if it is an object.
func TestJSONTestSuite(t *testing.T) {
	var vectors struct {
		Files []struct {
			Name    string `json:"name"`
			Expect  string `json:"expect"`
			Content []byte `json:"b64"`
		} `json:"files"`
	}
	readVectors(t, "json/jsontestsuite_parsing.json", &vectors)
	// Legal JSON that is refused here on purpose.
	stricter := map[string]bool{"y_object_duplicated_key.json": true, "y_object_duplicated_key_and_value.json": true}
	tried := map[string]int{}
	for _, file := range vectors.Files {
		tried[file.Expect]++
		object := bytes.HasPrefix(file.Content, []byte("{"))
		for _, text := range [][]byte{file.Content, fmt.Appendf(nil, `{"member":%s}`, file.Content)} {
			var into map[string]any
			err := Decode(text, &into)
			alone := len(text) == len(file.Content)
			switch {
			case err == nil && (file.Expect == "reject" || stricter[file.Name] || alone && !object):
				t.Errorf("%s: accepted as %s", file.Name, text)
			case err != nil && file.Expect == "accept" && !stricter[file.Name] && (!alone || object):
				t.Errorf("%s: refused as %s: %v", file.Name, text, err)
			case err == nil && !json.Valid(text):
				t.Errorf("%s: accepted as %s, which encoding/json refuses", file.Name, text)
			}
		}
	}
	if tried["reject"] < 50 || tried["accept"] < 30 {
		t.Errorf("only these were tried: %v", tried)
	}
}
