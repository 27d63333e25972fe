package intake

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func number(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

const (
	ec  = `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	okp = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
)

// ATTACKS JW-25, JW-26: a bad key is left out, and the good one beside it is not.
func TestKeyAdmission(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n := number(private.N)
	short := number(new(big.Int).Rsh(private.N, 1024))
	even := number(new(big.Int).Sub(private.N, big.NewInt(1)))
	long := number(new(big.Int).SetBit(private.N, 8192, 1))
	for name, test := range map[string]struct {
		members, algorithm string // refused when algorithm is empty
	}{
		"EC":                    {ec, "ES256"},
		"EC with alg and use":   {ec + `,"alg":"ES256","use":"sig","key_ops":["verify"]`, "ES256"},
		"Ed25519":               {okp, "EdDSA"},
		"RSA":                   {`"kty":"RSA","e":"AQAB","n":"` + n + `"`, "RS256"},
		"RSA for PSS":           {`"kty":"RSA","alg":"PS256","e":"AQAB","n":"` + n + `"`, "PS256"},
		"RSA of 1024 bits":      {`"kty":"RSA","e":"AQAB","n":"` + short + `"`, ""},
		"RSA of 8193 bits":      {`"kty":"RSA","e":"AQAB","n":"` + long + `"`, ""},
		"RSA, even modulus":     {`"kty":"RSA","e":"AQAB","n":"` + even + `"`, ""},
		"RSA, e=1":              {`"kty":"RSA","e":"AQ","n":"` + n + `"`, ""},
		"RSA, e=3":              {`"kty":"RSA","e":"Aw","n":"` + n + `"`, ""},
		"RSA, e=65538":          {`"kty":"RSA","e":"AQAC","n":"` + n + `"`, ""},
		"RSA, RS512":            {`"kty":"RSA","alg":"RS512","e":"AQAB","n":"` + n + `"`, ""},
		"point off the curve":   {strings.Replace(ec, "f83O", "f83P", 1), ""},
		"x of 31 bytes":         {`"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(make([]byte, 31)) + `"`, ""},
		"X25519":                {strings.Replace(okp, "Ed25519", "X25519", 1), ""},
		"alg of another curve":  {ec + `,"alg":"ES384"`, ""},
		"alg of another type":   {okp + `,"alg":"RS256"`, ""},
		"alg HS256":             {ec + `,"alg":"HS256"`, ""},
		"for encryption":        {ec + `,"use":"enc"`, ""},
		"operations without it": {ec + `,"key_ops":["encrypt"]`, ""},
		"private":               {ec + `,"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"`, ""},
		"private by name alone": {ec + `,"d":null`, ""},
		"symmetric":             {`"kty":"oct","k":"AAAA"`, ""},
		"symmetric in disguise": {ec + `,"k":"AAAA"`, ""},
		"kid too long":          {ec + `,"kid":"` + strings.Repeat("k", 257) + `"`, ""},
		"kid a number":          {ec + `,"kid":5`, ""},
		"unknown type":          {`"kty":"AKP"`, ""},
	} {
		body := fmt.Appendf(nil, "\n{\"keys\":[{%s},{%s,\"kid\":\"good\"}]}", test.members, okp)
		keys, refused, err := ParseKeySet(body)
		if err != nil || len(keys)+len(refused) != 2 || len(keys) == 0 || keys[len(keys)-1].ID != "good" {
			t.Errorf("%s: %v, refused %v, %v", name, keys, refused, err)
			continue
		}
		switch {
		case test.algorithm == "" && len(keys) != 1:
			t.Errorf("%s: admitted as %s", name, keys[0].Algorithm)
		case test.algorithm != "" && (len(keys) != 2 || keys[0].Algorithm != test.algorithm):
			t.Errorf("%s: %v, refused %v, want %s", name, keys, refused, test.algorithm)
		}
	}
}

func TestKeySetLimits(t *testing.T) {
	many := strings.Repeat(`{},`, 100) + `{}`
	for name, body := range map[string]string{
		"empty":                     "",
		"not a set":                 `{}`,
		"null":                      `{"keys":null}`,
		"an array":                  `[]`,
		"101 keys":                  `{"keys":[` + many + `]}`,
		"over 64 KiB":               `{"keys":[{` + ec + `}]}` + strings.Repeat(" ", MaxKeySet),
		"two sets":                  `{"keys":[{` + ec + `}]}{}`,
		"keys twice":                `{"keys":[],"keys":[{` + ec + `}]}`,
		"a member twice in one key": `{"keys":[{` + ec + `,"kty":"EC"},{` + okp + `}]}`,
	} {
		if keys, _, err := ParseKeySet([]byte(body)); !errors.Is(err, ErrMalformed) || keys != nil {
			t.Errorf("%s: %v, %v, want ErrMalformed", name, keys, err)
		}
	}
	// One kid, two keys: neither.
	body := `{"keys":[{` + ec + `,"kid":"a"},{` + okp + `,"kid":"a"},{` + okp + `,"kid":"b"}]}`
	if keys, refused, err := ParseKeySet([]byte(body)); err != nil || len(keys) != 1 || keys[0].ID != "b" || len(refused) != 2 {
		t.Errorf("%v, refused %v, %v", keys, refused, err)
	}
	// A key that cannot be read does not make the one without a kid ambiguous.
	if keys, _, err := ParseKeySet([]byte(`{"keys":[{"kty":"AKP"},{` + ec + `}]}`)); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
}
