package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
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
	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	others, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &another.PublicKey, KeyID: "other", Algorithm: "ES256", Use: "sig"}}})
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{
			ClientID: "partner", JWKS: string(set), GrantTypes: []string{"client_credentials"}, Scope: "orders:read",
		}, authserver.Client{ClientID: "other", JWKS: string(others), GrantTypes: []string{"client_credentials"}, Scope: "orders:read"})
	}})
	assertion := func(typ string, kid any, changes map[string]any) string {
		t.Helper()
		claims := map[string]any{
			"iss": "partner", "sub": "partner", "aud": s.Issuer, "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix(),
		}
		for claim, value := range changes {
			if claims[claim] = value; value == nil {
				delete(claims, claim)
			}
		}
		options := new(jose.SignerOptions)
		if kid != nil {
			options = options.WithHeader("kid", kid)
		}
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
		"aud is the token endpoint":  {"aud": s.Issuer + "/token"},
		"aud is an endpoint for PAR": {"aud": s.Issuer + "/par"},
		"aud is an array":            {"aud": []string{s.Issuer}},
		"aud is an array of two":     {"aud": []string{s.Issuer, "https://other.example.com"}},
		"aud with a slash":           {"aud": s.Issuer + "/"},
		"no aud":                     {"aud": nil},
		"iss is not sub":             {"iss": "service"},
		"no iss":                     {"iss": nil},
		"no sub":                     {"sub": nil},
		"neither iss nor sub":        {"iss": nil, "sub": nil},
		"another client":             {"iss": "service", "sub": "service"},
		"no jti":                     {"jti": nil},
		"empty jti":                  {"jti": ""},
		"long jti":                   {"jti": strings.Repeat("j", 257)},
		"jti not a string":           {"jti": 7},
		"no exp":                     {"exp": nil},
		"expired":                    {"exp": now.Add(-5 * time.Minute).Unix()},
		"exp 6 minutes ahead":        {"exp": now.Add(6 * time.Minute).Unix()},
		"exp a day ahead":            {"exp": now.Add(24 * time.Hour).Unix()},
		"nbf 61 s ahead":             {"nbf": time.Now().Add(61 * time.Second).Unix()},
		"iat 61 s ahead":             {"iat": time.Now().Add(61 * time.Second).Unix()},
	} {
		refused(t, name, present(assertion("", "1", changes)), 401, "invalid_client")
	}
	// Who has signed with the client's key is told what was expected and what came instead.
	for said, changes := range map[string]map[string]any{
		"its aud must be the string " + s.Issuer + ", and is an address below it":                              {"aud": s.Issuer + "/token"},
		"its aud must be the string " + s.Issuer + ", and is an array":                                         {"aud": []string{s.Issuer}},
		"its aud must be the string " + s.Issuer + ", and differs in a slash at the end or in capital letters": {"aud": s.Issuer + "/"},
		"its aud must be the string " + s.Issuer + ", and is missing":                                          {"aud": nil},
		"its aud must be the string " + s.Issuer + ", and is another one":                                      {"aud": "https://CANARY.example"},
		"s ago by the clock of this server, where it is 2":                                                     {"exp": now.Add(-5 * time.Minute).Unix()},
		" s ahead of the clock of this server, where it is 2":                                                  {"iat": now.Add(3 * time.Minute).Unix()},
		"exp is in seconds": {"exp": now.UnixMilli()},
		"it has no exp":     {"exp": nil},
	} {
		a := present(assertion("", "1", changes))
		if text := a.text("error_description"); !strings.HasPrefix(text, "the client assertion is refused: ") || !strings.Contains(text, said) || strings.Contains(a.raw, "CANARY") {
			t.Errorf("%v: %s", changes, a.raw)
		}
	}
	if a := present(once); !strings.Contains(a.text("error_description"), "was used before") {
		t.Errorf("a replay: %s", a.raw)
	}
	refused(t, "a jti of 10 MB", present(assertion("", "1", map[string]any{"jti": strings.Repeat("j", 10<<20)})), 413, "invalid_request")
	for _, claim := range []string{"nbf", "iat"} {
		if a := present(assertion("", "1", map[string]any{claim: now.Add(8 * time.Second).Unix()})); a.status != 200 {
			t.Errorf("%s 8 s ahead: %s", claim, a.raw)
		}
	}
	refused(t, "another client_id beside it", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials", "client_id", "service",
		"client_assertion_type", assertionType, "client_assertion", assertion("", "1", nil))), 400, "invalid_request")
	for _, typ := range []string{"at+jwt", "dpop+jwt", "logout+jwt"} {
		refused(t, typ, present(assertion(typ, "1", nil)), 401, "invalid_client")
	}
	for _, kid := range []any{"../../dev/null", "2", "", nil, "' OR 1=1--", 1, []string{"1"}, strings.Repeat("1", 10_000), "1\x00", "other"} {
		refused(t, fmt.Sprintf("kid %.20v", kid), present(assertion("", kid, nil)), 401, "invalid_client") // "other" is another client's, of another key
	}
	refused(t, "a kid of 1 MB", present(assertion("", strings.Repeat("1", 1<<20), nil)), 413, "invalid_request")
	refused(t, "another assertion type", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "client_assertion", assertion("", "1", nil))), 401, "invalid_client")
	refused(t, "an assertion type alone", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_id", "partner", "client_assertion_type", assertionType)), 401, "invalid_client")
	refused(t, "two assertions", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_assertion_type", assertionType, "client_assertion", assertion("", "1", nil), "client_assertion", assertion("", "1", nil))), 400, "invalid_request")
	refused(t, "no assertion type", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_assertion", assertion("", "1", nil))), 401, "invalid_client")
	refused(t, "and a secret", post(t, s.Issuer+"/token", "partner:x", form("grant_type", "client_credentials",
		"client_assertion_type", assertionType, "client_assertion", assertion("", "1", nil))), 400, "invalid_request")
	refused(t, "and a secret in the body", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials", "client_id", "partner", "client_secret", "x",
		"client_assertion_type", assertionType, "client_assertion", assertion("", "1", nil))), 400, "invalid_request")
	// An access token of our own is no assertion (CA-23).
	own := present(assertion("", "1", nil)).text("access_token")
	refused(t, "an access token", present(own), 401, "invalid_client")
	// Who is registered with a key comes in by no other way (CA-06).
	refused(t, "a secret from a key client", post(t, s.Issuer+"/token", "partner:partner", form("grant_type", "client_credentials")), 401, "invalid_client")
	refused(t, "no secret from a key client", post(t, s.Issuer+"/token", "partner:", form("grant_type", "client_credentials")), 401, "invalid_client")
	refused(t, "a secret in the body from a key client", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials",
		"client_id", "partner", "client_secret", "partner")), 401, "invalid_client")
	refused(t, "nothing but client_id from a key client", post(t, s.Issuer+"/token", "", form("grant_type", "client_credentials", "client_id", "partner")), 401, "invalid_client")
}
