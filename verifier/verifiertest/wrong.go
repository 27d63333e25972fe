package verifiertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"iter"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// WrongTokens returns tokens for an API that each have one thing wrong, by a name
// that says what. An API must refuse all of them.
func (i *Issuer) WrongTokens(audience string) iter.Seq2[string, string] {
	i.t.Helper()
	return func(yield func(string, string) bool) {
		i.t.Helper()
		for name, change := range i.wrongClaims() {
			claims := Claims{"aud": audience}
			for claim, value := range change {
				claims[claim] = value
			}
			if !yield(name, i.Token(claims)) {
				return
			}
		}
		for name, token := range i.wrongForms(audience) {
			if !yield(name, token) {
				return
			}
		}
	}
}

func (i *Issuer) wrongClaims() map[string]Claims {
	now := time.Now()
	return map[string]Claims{
		"expired":             {"exp": now.Add(-10 * time.Minute).Unix(), "iat": now.Add(-time.Hour).Unix()},
		"without exp":         {"exp": nil},
		"exp as text":         {"exp": "tomorrow"},
		"from the future":     {"iat": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()},
		"not yet valid":       {"nbf": now.Add(time.Hour).Unix()},
		"another issuer":      {"iss": "https://issuer.example.net"},
		"issuer with a slash": {"iss": i.URL + "/"},
		"without iss":         {"iss": nil},
		"another audience":    {"aud": "https://other.example.net"},
		"without aud":         {"aud": nil},
		"without sub":         {"sub": nil},
		"without client_id":   {"client_id": nil},
		"without jti":         {"jti": nil},
		"bound to a key":      {"cnf": map[string]string{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
		"scope as a list":     {"scope": []string{"orders:read"}},
	}
}

// wrongForms are a good token's claims in tokens that are not one.
func (i *Issuer) wrongForms(audience string) map[string]string {
	i.t.Helper()
	key := i.current()
	good := i.Token(Claims{"aud": audience})
	parts := strings.Split(good, ".")
	encode := base64.RawURLEncoding.EncodeToString
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		i.t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.private.PublicKey)
	if err != nil {
		i.t.Fatal(err)
	}
	typed := func() *jose.SignerOptions {
		return (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", key.id)
	}
	var altered map[string]any
	if err := json.Unmarshal(payload, &altered); err != nil {
		i.t.Fatal(err)
	}
	altered["sub"] = "mallory"
	text, err := json.Marshal(altered)
	if err != nil {
		i.t.Fatal(err)
	}
	header := func(members string) string {
		return encode([]byte(`{"typ":"at+jwt","kid":"` + key.id + `",` + members + `}`))
	}
	return map[string]string{
		"altered":                         parts[0] + "." + encode(text) + "." + parts[2],
		"alg none":                        header(`"alg":"none"`) + "." + parts[1] + ".",
		"unsigned":                        parts[0] + "." + parts[1] + ".",
		"cut short":                       good[:len(good)-8],
		"signed by another key":           i.signText(jose.ES256, other, typed(), payload),
		"its own key in the header":       i.signText(jose.ES256, other, (&jose.SignerOptions{EmbedJWK: true}).WithType("at+jwt"), payload),
		"an unknown kid":                  i.signText(jose.ES256, key.private, (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", rand.Text()), payload),
		"HS256 with the public key (PEM)": i.signText(jose.HS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), typed(), payload),
		"HS256 with the public key (DER)": i.signText(jose.HS256, der, typed(), payload),
		"an ID token (typ JWT)":           i.sign(key, "JWT", json.RawMessage(payload)),
		"no typ":                          i.signText(jose.ES256, key.private, (&jose.SignerOptions{}).WithHeader("kid", key.id), payload),
		"a logout token (typ logout+jwt)": i.sign(key, "logout+jwt", json.RawMessage(payload)),
		"an unknown critical extension":   i.signText(jose.ES256, key.private, typed().WithCritical("x").WithHeader("x", 1), payload),
		"a claim twice":                   i.signText(jose.ES256, key.private, typed(), append(payload[:len(payload)-1:len(payload)-1], `,"sub":"mallory"}`...)),
		"padded":                          good + "=",
		"a line break inside":             strings.Replace(good, ".", ".\n", 1),
		"in JSON serialization":           `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		"encrypted (five parts)":          header(`"alg":"dir","enc":"A256GCM"`) + "..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
	}
}
