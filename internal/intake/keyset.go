package intake

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// MaxKeySet is the largest key set that is looked at, in bytes.
const MaxKeySet = 64 << 10

const maxKeys = 100 // in a set

// jwkMembers are the members of a JWK that decide whether it is admitted.
type jwkMembers struct {
	publicMembers
	Algorithm  string          `json:"alg"`
	KeyID      json.RawMessage `json:"kid"`
	Use        string          `json:"use"`
	Operations []string        `json:"key_ops"`

	// Private and symmetric members (RFC 7518 §6); a set that is handed to others has none.
	D     json.RawMessage `json:"d"`
	P     json.RawMessage `json:"p"`
	Q     json.RawMessage `json:"q"`
	DP    json.RawMessage `json:"dp"`
	DQ    json.RawMessage `json:"dq"`
	QI    json.RawMessage `json:"qi"`
	Other json.RawMessage `json:"oth"`
	K     json.RawMessage `json:"k"`
}

// publicMembers are all that go-jose gets to see: no certificate of x5c is parsed.
type publicMembers struct {
	Type  string `json:"kty"`
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
}

func (m jwkMembers) private() bool {
	return m.Type == "oct" || m.D != nil || m.P != nil || m.Q != nil || m.DP != nil || m.DQ != nil || m.QI != nil ||
		m.Other != nil || m.K != nil
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
		if key.ID != "" || err == nil {
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

// parseKey admits a key or says why not. With an error the key has at most its ID.
func parseKey(raw []byte) (key Key, err error) {
	var members jwkMembers
	if err := Decode(raw, &members); err != nil {
		return key, err
	}
	if key.ID, err = keyID(string(members.KeyID)); err != nil {
		return key, err
	}
	switch {
	case members.private():
		return key, malformed("private and symmetric keys are not admitted")
	case members.Use != "" && members.Use != "sig": // RFC 7517 §4.2
		return key, malformed("its use is not sig")
	case members.Operations != nil && !slices.Contains(members.Operations, "verify"): // RFC 7517 §4.3
		return key, malformed("its key_ops lack verify")
	}
	for _, number := range []string{members.X, members.Y, members.N, members.E} {
		if _, _, err := decodePart(nil, number); err != nil {
			return key, err
		}
	}
	public, err := json.Marshal(members.publicMembers)
	if err != nil {
		return key, malformed("%v", err)
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(public); err != nil {
		return key, malformed("%v", err)
	}
	if !jwk.Valid() || !jwk.IsPublic() {
		return key, malformed("it is not a valid public key")
	}
	algorithm := members.Algorithm
	if algorithm == "" {
		algorithm = naturalAlgorithm(jwk.Key)
	}
	admitted := Key{ID: key.ID, Algorithm: algorithm, Public: jwk.Key}
	if err := checkStrength(admitted); err != nil {
		return key, err
	}
	if k, ok := jwk.Key.(*rsa.PublicKey); ok && isROCA(k.N) {
		return key, malformed("its modulus is of a broken generator (CVE-2017-15361)")
	}
	return admitted, nil
}
