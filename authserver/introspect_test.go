package authserver_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// RFC 7662: who learns what about which token.
func TestIntrospect(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.Resources = append(c.Resources, authserver.Resource{Identifier: "https://other.example.com", Scopes: []string{"other:read"}})
		c.Clients = append(c.Clients, authserver.Client{ClientID: "other", ClientSecret: authservertest.Secret, GrantTypes: []string{"client_credentials"}, Resource: "https://other.example.com"})
	}})
	access, refreshToken := signIn(t, s, "orders:read profile")
	for _, caller := range []string{web, api} {
		a := introspect(t, s, caller, access)
		if a.body["active"] != true || a.body["username"] != "alice" || a.body["aud"] != authservertest.Audience || a.body["scope"] != "orders:read profile" {
			t.Errorf("%s about the access token: %s", caller[:3], a.raw)
		}
	}
	if a := introspect(t, s, web, refreshToken); a.body["active"] != true || a.body["aud"] != s.Issuer {
		t.Errorf("the owner about the refresh token: %s", a.raw)
	}
	// ATTACKS IR-05: a hint hides nothing.
	for _, hint := range []string{"refresh_token", "access_token", "nonsense", ""} {
		for _, token := range []string{access, refreshToken} {
			if a := post(t, s.Issuer+"/introspect", web, form("token", token, "token_type_hint", hint)); a.body["active"] != true {
				t.Errorf("with the hint %q: %s", hint, a.raw)
			}
		}
	}
	anew := func(typ string, change map[string]any) string {
		claims := claimsOf(t, access)
		maps.Copy(claims, change)
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Keys.Sign(s.Keys.Default(), typ, payload)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if a := introspect(t, s, web, anew("at+jwt", nil)); a.body["active"] != true {
		t.Fatalf("signed anew: %s", a.raw)
	}
	revoked, _ := signIn(t, s, "orders:read")
	if a := post(t, s.Issuer+"/revoke", web, form("token", revoked)); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	// ATTACKS IR-02, IR-03: nothing about tokens of others, junk, or altered ones.
	for name, test := range map[string]struct{ caller, token string }{
		"another client":               {service, access},
		"another resource server":      {"other:" + authservertest.Secret, access},
		"nothing like a token":         {web, "."},
		"unknown":                      {web, strings.Repeat("A", 43)},
		"expired":                      {web, anew("at+jwt", map[string]any{"exp": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Add(-time.Hour).Unix()})},
		"of another issuer":            {web, anew("at+jwt", map[string]any{"iss": "https://other.example.com"})},
		"of another client, forged":    {web, anew("at+jwt", map[string]any{"client_id": "service"})},
		"another kind":                 {web, anew("JWT", nil)},
		"revoked":                      {web, revoked},
		"revoked, at its resource":     {api, revoked},
		"resource server, refresh":     {api, refreshToken},
		"junk":                         {web, "junk"},
		"altered":                      {web, access[:len(access)-4] + "AAAA"},
		"another spelling (line feed)": {web, strings.Replace(access, ".", ".\n", 1)},
	} {
		if name == "another spelling (line feed)" {
			refused(t, name, post(t, s.Issuer+"/introspect", web, form("token", test.token)), 400, "invalid_request")
			continue
		}
		if a := introspect(t, s, test.caller, test.token); a.raw != `{"active":false}` {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	refused(t, "public client", post(t, s.Issuer+"/introspect", "", form("client_id", "spa", "token", access)), 401, "invalid_client")
	refused(t, "nobody", post(t, s.Issuer+"/introspect", "", form("token", access)), 401, "invalid_client")
	refused(t, "a wrong secret", post(t, s.Issuer+"/introspect", "api:wrong", form("token", access)), 401, "invalid_client")
	refused(t, "no token", post(t, s.Issuer+"/introspect", web, form()), 400, "invalid_request")
	// An exchanged refresh token is not active any more, its successor is.
	next := refresh(t, s, refreshToken).text("refresh_token")
	if introspect(t, s, web, refreshToken).body["active"] != false || introspect(t, s, web, next).body["active"] != true {
		t.Error("introspection does not follow the rotation")
	}
}

// RFC 7009.
func TestRevoke(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	revoke := func(basic, token string) answer {
		return post(t, s.Issuer+"/revoke", basic, form("token", token, "token_type_hint", "nonsense"))
	}
	access, refreshToken := signIn(t, s, "orders:read")
	// ATTACKS IR-07: another client's token lives on.
	refused(t, "another's access token", revoke(service, access), 400, "invalid_request")
	refused(t, "another's refresh token", revoke(service, refreshToken), 400, "invalid_request")
	if a := revoke(web, "unknown"); a.status != http.StatusOK {
		t.Errorf("unknown token: %d %s", a.status, a.raw)
	}
	// ATTACKS IR-11: another spelling is refused, for a 200 would say that it is dead.
	for _, spelling := range []string{access + "=", " " + access, strings.Replace(access, ".", " .", 1)} {
		refused(t, "another spelling", revoke(web, spelling), 400, "invalid_request")
	}
	if introspect(t, s, web, access).body["active"] != true {
		t.Fatal("the token died of somebody else's request")
	}
	// An access token ends itself, not the grant.
	if a := revoke(web, access); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	if introspect(t, s, web, access).body["active"] != false {
		t.Error("a revoked access token is active")
	}
	next := refresh(t, s, refreshToken)
	if next.status != http.StatusOK {
		t.Fatalf("revoking an access token ended its grant: %s", next.raw)
	}
	// A refresh token ends its grant, even an exchanged one (RT-19).
	if a := revoke(web, refreshToken); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	refused(t, "after revocation", refresh(t, s, next.text("refresh_token")), 400, "invalid_grant")
	if introspect(t, s, api, next.text("access_token")).body["active"] != false {
		t.Error("an access token of an ended grant is active")
	}
	// A client's own token.
	own := post(t, s.Issuer+"/token", service, form("grant_type", "client_credentials")).text("access_token")
	if introspect(t, s, service, own).body["active"] != true {
		t.Error("a client's own token is not active")
	}
	revoke(service, own)
	if introspect(t, s, service, own).body["active"] != false {
		t.Error("a revoked token of a client is active")
	}
}

// Every revocation is in the store's log before it is acknowledged.
func TestRevocationLog(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "orders:read")
	for _, token := range []string{access, refreshToken} {
		post(t, s.Issuer+"/revoke", web, form("token", token))
	}
	events, err := s.Store.Tail(t.Context(), "revocations", 0, 0)
	if err != nil || len(events) != 2 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	claims := claimsOf(t, access)
	if !strings.Contains(string(events[0].Value), claims["jti"].(string)) || !strings.Contains(string(events[1].Value), claims["grant_id"].(string)) {
		t.Errorf("events: %s, %s", events[0].Value, events[1].Value)
	}
}
