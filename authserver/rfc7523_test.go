package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"

	"github.com/go-jose/go-jose/v4"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// RFC 7523 and RFC 10070 (ATTACKS CA-12 to CA-26).
func TestPrivateKeyJWT(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{
			ClientID: "partner", JWKS: string(set), GrantTypes: []string{"client_credentials"}, Scope: "orders:read",
		})
	}})
	assertion := func(typ, kid string, changes map[string]any) string {
		t.Helper()
		claims := map[string]any{
			"iss": "partner", "sub": "partner", "aud": s.Issuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix(),
		}
		for claim, value := range changes {
			if claims[claim] = value; value == nil {
				delete(claims, claim)
			}
		}
		options := (&jose.SignerOptions{}).WithHeader("kid", kid)
		if typ != "" {
			options = options.WithType(jose.ContentType(typ))
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, options)
		if err != nil {
			t.Fatal(err)
		}
		payload, _ := json.Marshal(claims)
		signed, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		compact, _ := signed.CompactSerialize()
		return compact
	}
	present := func(assertion string) answer {
		return post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
			"client_assertion_type", assertionType, "client_assertion", assertion))
	}
	for _, typ := range []string{"", "JWT", "client-authentication+jwt"} {
		if a := present(assertion(typ, "1", nil)); a.status != 200 {
			t.Errorf("typ %q: %d %s", typ, a.status, a.raw)
		}
	}
	once := assertion("", "1", nil)
	if a := present(once); a.status != 200 {
		t.Error(a.raw)
	}
	refused(t, "a replay", present(once), 401, "invalid_client")
	now := time.Now()
	for name, changes := range map[string]map[string]any{
		"aud is the token endpoint": {"aud": s.Issuer + "/token"},
		"aud is an array":           {"aud": []string{s.Issuer}},
		"aud with a slash":          {"aud": s.Issuer + "/"},
		"no aud":                    {"aud": nil},
		"iss is not sub":            {"iss": "service"},
		"no sub":                    {"sub": nil},
		"another client":            {"iss": "service", "sub": "service"},
		"no jti":                    {"jti": nil},
		"long jti":                  {"jti": strings.Repeat("j", 257)},
		"jti not a string":          {"jti": 7},
		"no exp":                    {"exp": nil},
		"expired":                   {"exp": now.Add(-5 * time.Minute).Unix()},
		"exp a day ahead":           {"exp": now.Add(24 * time.Hour).Unix()},
		"nbf 61 s ahead":            {"nbf": now.Add(61 * time.Second).Unix()},
		"iat 61 s ahead":            {"iat": now.Add(61 * time.Second).Unix()},
	} {
		refused(t, name, present(assertion("", "1", changes)), 401, "invalid_client")
	}
	if a := present(assertion("", "1", map[string]any{"nbf": now.Add(8 * time.Second).Unix()})); a.status != 200 {
		t.Errorf("nbf 8 s ahead: %s", a.raw)
	}
	for _, typ := range []string{"at+jwt", "dpop+jwt", "logout+jwt"} {
		refused(t, typ, present(assertion(typ, "1", nil)), 401, "invalid_client")
	}
	refused(t, "unknown kid", present(assertion("", "../../dev/null", nil)), 401, "invalid_client")
	refused(t, "no assertion type", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_assertion", assertion("", "1", nil))), 401, "invalid_client")
	refused(t, "and a secret", post(t, s.Issuer+"/token", "partner:x", form("grant_type", "client_credentials",
		"client_assertion_type", assertionType, "client_assertion", assertion("", "1", nil))), 400, "invalid_request")
	// An access token of our own is no assertion (CA-23).
	own := present(assertion("", "1", nil)).text("access_token")
	refused(t, "an access token", present(own), 401, "invalid_client")
	refused(t, "a secret from a key client", post(t, s.Issuer+"/token", "partner:partner", form("grant_type", "client_credentials")), 401, "invalid_client")
}
