package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"authserver/authserver/authservertest"

	"github.com/go-jose/go-jose/v4"
)

// Tokens made from a good one that are none (ATTACKS JW-01 to JW-03, JW-06, JW-07,
// JW-15, JW-17, JW-20): no endpoint takes them, and the good one lives on.
func TestHostileTokens(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "orders:read")
	for kind, good := range map[string]string{"access": access, "refresh": refreshToken} {
		for name, bad := range hostile(t, s.Issuer, good) {
			if a := introspect(t, s, web, bad); a.raw != `{"active":false}` {
				t.Errorf("%s, %s: introspection says %s", kind, name, a.raw)
			}
			refused(t, kind+", "+name, refresh(t, s, bad), 400, "invalid_grant")
			if a := post(t, s.Issuer+"/revoke", web, form("token", bad)); a.status != 200 && a.status != 400 {
				t.Errorf("%s, %s: revocation answers %d %s", kind, name, a.status, a.raw)
			}
		}
		if a := introspect(t, s, web, good); a.body["active"] != true {
			t.Errorf("the %s token died of hostile ones", kind)
		}
	}
	// One kind of token is not taken for the other.
	refused(t, "an access token for a refresh token", refresh(t, s, access), 400, "invalid_grant")
}

// hostile returns what attackers make of a token.
func hostile(t *testing.T, issuer, good string) map[string]string {
	t.Helper()
	parts := strings.Split(good, ".")
	decode, encode := base64.RawURLEncoding.DecodeString, base64.RawURLEncoding.EncodeToString
	header, err := decode(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := decode(parts[1])
	with := func(members string) string { return strings.Replace(string(header), "{", "{"+members+",", 1) }
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// signed is the payload under a header that the attacker signs with his own key.
	signed := func(options *jose.SignerOptions) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: other}, options)
		if err != nil {
			t.Fatal(err)
		}
		object, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		compact, _ := object.CompactSerialize()
		return compact
	}
	typ := jose.ContentType("at+jwt")
	tokens := map[string]string{
		"alg none":                encode([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + ".",
		"alg none, signature":     encode([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "." + parts[2],
		"HS256 with the key set":  hmacToken(t, issuer, header, parts[1]),
		"the attacker's jwk":      signed((&jose.SignerOptions{EmbedJWK: true}).WithType(typ)),
		"jku":                     signed((&jose.SignerOptions{}).WithType(typ).WithHeader("jku", issuer+"/keys")),
		"x5u":                     signed((&jose.SignerOptions{}).WithType(typ).WithHeader("x5u", issuer+"/keys")),
		"another key":             signed((&jose.SignerOptions{}).WithType(typ)),
		"crit":                    encode([]byte(with(`"crit":["exp"]`))) + "." + parts[1] + "." + parts[2],
		"alg twice":               encode([]byte(with(`"alg":"none"`))) + "." + parts[1] + "." + parts[2],
		"altered claims":          parts[0] + "." + encode([]byte(strings.Replace(string(payload), `"scope":"`, `"scope":"orders:write `, 1))) + "." + parts[2],
		"no signature":            parts[0] + "." + parts[1] + ".",
		"two parts":               parts[0] + "." + parts[1],
		"five parts":              good + ".AAAA.AAAA",
		"truncated":               good[:len(good)-10],
		"padded":                  good + "=",
		"JSON serialization":      fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"twenty thousand letters": strings.Repeat("A", 20_000),
		"dots":                    strings.Repeat(".", 20_000),
	}
	return tokens
}

// hmacToken is signed with the published key set as an HMAC secret.
func hmacToken(t *testing.T, issuer string, header []byte, payload string) string {
	t.Helper()
	response, err := http.Get(issuer + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	set, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("ES256", "HS256", "EdDSA", "HS256").Replace(string(header))
	input := base64.RawURLEncoding.EncodeToString([]byte(changed)) + "." + payload
	mac := hmac.New(sha256.New, set)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
