package authserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/intake"
	"authserver/keys"
	"authserver/store/boltstore"
)

// OpenID Connect Core §2, §3.1.3.6, §12.2: what is in an ID token, at the exchange
// and at a refresh.
func TestIDToken(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	a := b.exchange("web", b.code("scope", "openid email roles offline_access", "nonce", "n-0S6_WzA2Mj"))
	claims, typ := b.verified(a.text("id_token"), "ES256")
	issued := int64(claims["iat"].(float64))
	for claim, want := range map[string]any{
		"iss": testIssuer, "sub": "alice-1", "aud": "web", "nonce": "n-0S6_WzA2Mj", "acr": "aal1", "amr": []any{"pwd"}, "sid": b.session().ID,
		"auth_time": float64(b.session().AuthTime), "exp": float64(issued + 600), "email": "alice@example.com", "email_verified": true, "roles": []any{"admin"},
		"at_hash": accessTokenHash("ES256", a.text("access_token")), "azp": nil, "name": nil, "department": nil, "phone_number": nil, "address": nil,
	} {
		if !reflect.DeepEqual(claims[claim], want) {
			t.Errorf("%s is %v, want %v", claim, claims[claim], want)
		}
	}
	if typ != "JWT" || time.Since(time.Unix(issued, 0)) > time.Minute {
		t.Errorf("typ %s, iat %d", typ, issued)
	}
	refresh := func(pairs ...string) tokenAnswer {
		values := map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {a.text("refresh_token")}}
		for i := 0; i < len(pairs); i += 2 {
			values[pairs[i]] = []string{pairs[i+1]}
		}
		return b.token("web", values)
	}
	next := refresh()
	again, _ := b.verified(next.text("id_token"), "ES256")
	for _, claim := range []string{"iss", "sub", "aud", "auth_time", "acr", "sid", "email"} {
		if !reflect.DeepEqual(again[claim], claims[claim]) {
			t.Errorf("after the refresh %s is %v, was %v", claim, again[claim], claims[claim])
		}
	}
	if again["nonce"] != nil || again["at_hash"] != accessTokenHash("ES256", next.text("access_token")) {
		t.Errorf("after the refresh: %v", again)
	}
	// A retry gets the same one; a narrower scope none.
	if retried := refresh(); retried.text("id_token") != next.text("id_token") {
		t.Error("a retried refresh got another ID token")
	}
	a = next
	if narrow := refresh("scope", "email"); narrow.status != 200 || narrow.text("id_token") != "" {
		t.Errorf("a refresh without openid: %v", narrow.body)
	}
	if a := b.exchange("web", b.code("scope", "orders:read")); a.text("id_token") != "" || a.status != 200 {
		t.Errorf("a code without openid: %v", a.body)
	}
}

// The example of at_hash that is in OpenID Connect Core appendix A.3.
func TestAccessTokenHash(t *testing.T) {
	const access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"
	if got := accessTokenHash("RS256", access); got != "77QmUPtjPfzWtF2AnpK9RQ" {
		t.Errorf("at_hash %s", got)
	}
	if got := accessTokenHash("EdDSA", access); len(got) != 43 {
		t.Errorf("at_hash with EdDSA: %s", got)
	}
}

// OpenID Connect Registration §2: each client its algorithm, and RS256 without a wish.
func TestIDTokenAlgorithm(t *testing.T) {
	s := browserServer(t, func(c *Config) {
		c.Clients[0].IDTokenSignedResponseAlg = "EdDSA"
		c.Clients[0].UserInfoSignedResponseAlg = "ES256"
	})
	b := signedIn(t, s)
	a := b.exchange("web", b.code())
	claims, _ := b.verified(a.text("id_token"), "EdDSA")
	if claims["at_hash"] != accessTokenHash("EdDSA", a.text("access_token")) {
		t.Errorf("at_hash %v", claims["at_hash"])
	}
	// The signed answer of /userinfo, and that it is no ID token.
	r := httptest.NewRequest("GET", "/userinfo", nil)
	r.Header.Set("Authorization", "Bearer "+a.text("access_token"))
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, r)
	answer, typ := b.verified(recorder.Body.String(), "ES256")
	if recorder.Header().Get("Content-Type") != "application/jwt" || typ != "userinfo+jwt" || answer["iss"] != testIssuer || answer["aud"] != "web" || answer["sub"] != "alice-1" {
		t.Errorf("%v %s %v", recorder.Header(), typ, answer)
	}
	if page := b.send("GET", authorizeURL("id_token_hint", recorder.Body.String()), nil); page.query.Get("error") != "invalid_request" {
		t.Errorf("a userinfo answer as hint: %v", page.location)
	}
	for _, configure := range []func(*Client){
		func(c *Client) { c.IDTokenSignedResponseAlg = "RS256" }, func(c *Client) { c.UserInfoSignedResponseAlg = "none" }, func(c *Client) { c.IDTokenSignedResponseAlg = "HS256" },
	} {
		config := browserConfig()
		config.Store, config.Keys = s.store, s.keys
		configure(&config.Clients[0])
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), "keys.algorithms") {
			t.Errorf("an algorithm without keys: %v", err)
		}
	}
}

// OpenID Connect Core §3.1.2.1, ATTACKS AZ-18.
func TestIDTokenHint(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	tokens := b.exchange("web", b.code())
	hint := tokens.text("id_token")
	// ATTACKS RT-15: it is no refresh token.
	if a := b.exchange("web", "-", "grant_type", "refresh_token", "refresh_token", hint); a.text("error") != "invalid_grant" {
		t.Errorf("an ID token for a refresh token: %v", a.body)
	}
	none := func(pairs ...string) string {
		return b.send("GET", authorizeURL(append(pairs, "prompt", "none")...), nil).query.Get("error")
	}
	if got := none("id_token_hint", hint); got != "" {
		t.Errorf("her own token: %s", got)
	}
	old := *b.server
	old.tokens.ID = -time.Hour
	expired := (&browser{t, &old, b.cookies}).exchange("web", b.code()).text("id_token")
	if got := none("id_token_hint", expired); got != "" {
		t.Errorf("an expired one: %s", got)
	}
	parts := strings.Split(hint, ".")
	parsed, err := intake.Parse(hint)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(parsed.Payload, &claims); err != nil {
		t.Fatal(err)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims["iss"] = "https://other.example.com"
	other, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	ofAnotherIssuer, err := s.keys.Sign("ES256", idTokenType, other)
	if err != nil {
		t.Fatal(err)
	}
	claims["iss"] = testIssuer
	unsigned := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	for name, bad := range map[string]string{
		"alg none": unsigned, "another signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"an access token": tokens.text("access_token"), "a refresh token": tokens.text("refresh_token"), "junk": "a.b.c",
		"of another issuer":  ofAnotherIssuer,
		"by a foreign key":   signedBy(t, foreign, map[string]any{"alg": "ES256", "typ": idTokenType, "kid": parsed.KeyID}, claims),
		"by an unknown key":  signedBy(t, foreign, map[string]any{"alg": "ES256", "typ": idTokenType, "kid": "unknown"}, claims),
		"for another client": b.exchange("first", b.code("client_id", "first")).text("id_token"),
	} {
		if got := none("id_token_hint", bad); got != "invalid_request" {
			t.Errorf("%s: %q", name, got)
		}
	}
	// Of another user than who is signed in: nobody else will do, whoever signs in.
	b.signIn("bob-1")
	if got := none("id_token_hint", hint); got != "login_required" {
		t.Errorf("bob with alice's hint: %q", got)
	}
	page := b.send("GET", authorizeURL("id_token_hint", hint), nil)
	if !page.on("/login") {
		t.Fatalf("bob with alice's hint: %v", page.location)
	}
	if got := b.passSignIn(page, "bob-1"); got.query.Get("error") != "login_required" {
		t.Errorf("bob signed in, with alice's hint: %v", got.location)
	}
	page = b.send("GET", authorizeURL("id_token_hint", hint), nil)
	if page = b.passSignIn(page, "alice-1"); page.query.Get("code") == "" {
		t.Errorf("alice signed in: %v %s", page.location, page.body)
	}
}

// OpenID Connect Core §5.3, RFC 6750 §2 and §3.
func TestUserInfo(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	tokens := b.exchange("web", b.code("scope", "openid profile email phone roles"))
	access := tokens.text("access_token")
	for name, a := range map[string]tokenAnswer{
		"GET":              b.ask("GET", "/userinfo", "Bearer "+access, nil),
		"POST, header":     b.ask("POST", "/userinfo", "bearer "+access, nil),
		"POST, body":       b.ask("POST", "/userinfo", "", map[string][]string{"access_token": {access}}),
		"POST, empty form": b.ask("POST", "/userinfo", "Bearer "+access, map[string][]string{}),
	} {
		want := map[string]any{
			"sub": "alice-1", "preferred_username": "alice", "name": "Alice Liddell", "email": "alice@example.com", "email_verified": true,
			"phone_number": "+44 20 7946 0000", "department": "tea", "roles": []any{"admin"},
		}
		if a.status != 200 || !reflect.DeepEqual(a.body, want) {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	noOpenID := b.exchange("web", b.code("scope", "profile")).text("access_token")
	machine := b.token("service", map[string][]string{"grant_type": {"client_credentials"}}).text("access_token")
	for _, test := range []struct {
		name, method, authorization string
		form                        map[string][]string
		status                      int
		challenge                   string
	}{
		{"no token", "GET", "", nil, 401, `Bearer realm="authserver"`},
		{"Basic", "GET", "Basic eDp5", nil, 400, `error="invalid_request"`},
		{"junk", "GET", "Bearer junk", nil, 401, `error="invalid_token"`},
		{"an ID token", "GET", "Bearer " + tokens.text("id_token"), nil, 401, `error="invalid_token"`},
		{"a refresh token", "GET", "Bearer " + tokens.text("refresh_token"), nil, 401, `error="invalid_token"`},
		{"altered", "GET", "Bearer " + access[:len(access)-2] + "AA", nil, 401, `error="invalid_token"`},
		{"two tokens", "POST", "Bearer " + access, map[string][]string{"access_token": {access}}, 400, `error="invalid_request"`},
		{"twice in the body", "POST", "", map[string][]string{"access_token": {access, access}}, 400, `error="invalid_request"`},
		{"without openid", "GET", "Bearer " + noOpenID, nil, 403, `error="insufficient_scope", scope="openid"`},
		{"a machine's", "GET", "Bearer " + machine, nil, 403, `error="insufficient_scope"`},
	} {
		r := b.request(test.method, "/userinfo", test.form)
		if test.authorization != "" {
			r.Header.Set("Authorization", test.authorization)
		}
		recorder := httptest.NewRecorder()
		b.server.ServeHTTP(recorder, r)
		if recorder.Code != test.status || !strings.Contains(recorder.Header().Get("WWW-Authenticate"), test.challenge) {
			t.Errorf("%s: %d %q, want %d", test.name, recorder.Code, recorder.Header().Get("WWW-Authenticate"), test.status)
		}
	}
	if a := b.ask("GET", "/userinfo?access_token="+access, "", nil); a.status != 401 {
		t.Errorf("a token in the query: %d", a.status)
	}
	// Revoked, it opens nothing (RFC 7009).
	if a := b.ask("POST", "/revoke", "web", map[string][]string{"token": {access}}); a.status != 200 {
		t.Fatal(a.body)
	}
	if a := b.ask("GET", "/userinfo", "Bearer "+access, nil); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
}

// OpenID Connect Core §5.5: single claims, and only what the client may have.
func TestClaimsParameter(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	const claims = `{"userinfo":{"email":{"essential":true},"name":null,"address":null,"sub":null},"id_token":{"phone_number":null,"auth_time":{"essential":true},"iss":{"value":"https://evil.example"}}}`
	a := b.exchange("web", b.code("scope", "openid", "claims", claims))
	token, _ := b.verified(a.text("id_token"), "ES256")
	if token["phone_number"] == nil || token["email"] != nil || token["auth_time"] == nil || token["iss"] != testIssuer || token["sub"] != "alice-1" {
		t.Errorf("ID token %v", token)
	}
	want := map[string]any{"sub": "alice-1", "email": "alice@example.com", "name": "Alice Liddell"} // no address: the client has no such scope
	if got := b.ask("GET", "/userinfo", "Bearer "+a.text("access_token"), nil); !reflect.DeepEqual(got.body, want) {
		t.Errorf("userinfo %v", got.body)
	}
	next := b.token("web", map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {a.text("refresh_token")}})
	if token, _ := b.verified(next.text("id_token"), "ES256"); token["phone_number"] == nil {
		t.Errorf("ID token after a refresh %v", token)
	}
}

// OpenID Connect Core §8.1: clients of different hosts cannot connect their users.
func TestPairwiseSubjects(t *testing.T) {
	pairwise := func(c *Config) {
		for i, uris := range [][]string{{"https://a.example/cb"}, {"https://a.example/other"}, {"https://b.example/cb"}, {"https://c.example/cb", "https://d.example/cb"}} {
			client := Client{ClientID: []string{"a", "a2", "b", "cd"}[i], ClientSecret: testSecret, GrantTypes: []string{"authorization_code", "refresh_token"},
				Scope: "openid orders:read", RedirectURIs: uris, SkipConsent: true, SubjectType: "pairwise"}
			if len(uris) > 1 {
				client.SectorIdentifierURI = "https://b.example/sector.json"
			}
			c.Clients = append(c.Clients, client)
		}
	}
	s := browserServer(t, pairwise)
	b := signedIn(t, s)
	subjects := make(map[string]string)
	var hint string
	for id, uri := range map[string]string{"a": "https://a.example/cb", "a2": "https://a.example/other", "b": "https://b.example/cb", "cd": "https://d.example/cb"} {
		tokens := b.exchange(id, b.code("client_id", id, "redirect_uri", uri, "scope", "openid"), "redirect_uri", uri)
		claims, _ := b.verified(tokens.text("id_token"), "ES256")
		subjects[id], _ = claims["sub"].(string)
		if got := b.ask("GET", "/userinfo", "Bearer "+tokens.text("access_token"), nil); got.body["sub"] != subjects[id] {
			t.Errorf("%s: userinfo says %v, the ID token %s", id, got.body["sub"], subjects[id])
		}
		if got := b.ask("POST", "/introspect", id, map[string][]string{"token": {tokens.text("access_token")}}); got.body["sub"] != subjects[id] {
			t.Errorf("%s: introspection says %v", id, got.body["sub"])
		}
		next := b.token(id, map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {tokens.text("refresh_token")}})
		if claims, _ := b.verified(next.text("id_token"), "ES256"); claims["sub"] != subjects[id] {
			t.Errorf("%s: after a refresh %v", id, claims["sub"])
		}
		if id == "a" {
			hint = tokens.text("id_token")
		}
	}
	if subjects["a"] != subjects["a2"] || subjects["b"] != subjects["cd"] || subjects["a"] == subjects["b"] || subjects["a"] == "alice-1" || len(subjects["a"]) < 22 {
		t.Errorf("subjects %v", subjects)
	}
	// They are the same at another instance, and the hint names the same user.
	b.server = browserServerWith(t, s, pairwise)
	page := b.send("GET", authorizeURL("client_id", "a", "redirect_uri", "https://a.example/cb", "scope", "openid", "prompt", "none", "id_token_hint", hint), nil)
	if page.query.Get("code") == "" {
		t.Errorf("with a hint: %v", page.location)
	}
	for name, configure := range map[string]func(*Client){
		"two hosts":        func(c *Client) { c.RedirectURIs = []string{"https://a.example/cb", "https://b.example/cb"} },
		"no host":          func(c *Client) { c.RedirectURIs = nil },
		"unknown type":     func(c *Client) { c.SubjectType = "secret" },
		"sector over http": func(c *Client) { c.SectorIdentifierURI = "http://a.example/" },
	} {
		config := browserConfig()
		config.Clients[0].SubjectType = "pairwise"
		configure(&config.Clients[0])
		if len(config.Check()) == 0 {
			t.Errorf("%s is accepted", name)
		}
	}
}

// OpenID Connect Discovery §3: everything that is required, and nothing that is not so.
func TestDiscovery(t *testing.T) {
	b := newBrowser(t, browserServer(t, nil))
	document := b.ask("GET", "/.well-known/openid-configuration", "", nil).body
	for member, want := range map[string]string{
		"issuer": testIssuer, "authorization_endpoint": testIssuer + "/authorize", "token_endpoint": testIssuer + "/token", "userinfo_endpoint": testIssuer + "/userinfo",
		"jwks_uri": testIssuer + "/.well-known/jwks.json",
	} {
		if document[member] != want {
			t.Errorf("%s is %v", member, document[member])
		}
	}
	for member, want := range map[string]string{
		"response_types_supported": "code", "response_modes_supported": "query form_post", "subject_types_supported": "public pairwise",
		"id_token_signing_alg_values_supported": "ES256 EdDSA", "userinfo_signing_alg_values_supported": "ES256 EdDSA", "code_challenge_methods_supported": "S256",
		"scopes_supported":        "address email offline_access openid orders:read orders:write phone profile roles verifier",
		"grant_types_supported":   "authorization_code client_credentials refresh_token password",
		"acr_values_supported":    "aal1 aal2 phr",
		"prompt_values_supported": "none login consent select_account",
	} {
		var values []string
		for _, value := range document[member].([]any) {
			values = append(values, value.(string))
		}
		if strings.Join(values, " ") != want {
			t.Errorf("%s is %q, want %q", member, values, want)
		}
	}
	for member, want := range map[string]bool{
		"authorization_response_iss_parameter_supported": true, "claims_parameter_supported": true, "request_parameter_supported": false, "request_uri_parameter_supported": false,
	} {
		if document[member] != want {
			t.Errorf("%s is %v", member, document[member])
		}
	}
	if claims := document["claims_supported"].([]any); !slices.Contains(claims, any("email_verified")) || !slices.Contains(claims, any("sub")) {
		t.Errorf("claims_supported %v", claims)
	}
}

// ATTACKS JK-05: the endpoints of the metadata are the issuer's, and what it says is
// supported is so, and nothing else of the kind.
func TestAttackJK05(t *testing.T) {
	b := signedIn(t, browserServer(t, func(c *Config) { c.Clients[0].Scope += " address" }))
	document := b.ask("GET", "/.well-known/openid-configuration", "", nil).body
	list := func(member string) (values []string) {
		t.Helper()
		all, _ := document[member].([]any)
		for _, value := range all {
			values = append(values, value.(string))
		}
		if len(values) == 0 {
			t.Errorf("no %s", member)
		}
		return values
	}
	endpoints := 0
	for name, value := range document {
		if strings.HasSuffix(name, "_endpoint") || strings.HasSuffix(name, "_uri") && name != "require_request_uri_registration" {
			endpoints++
			if text, _ := value.(string); !strings.HasPrefix(text, testIssuer+"/") {
				t.Errorf("%s is %v", name, value)
			} else if page := b.send("GET", strings.TrimPrefix(text, testIssuer), nil); page.status == 404 {
				t.Errorf("nothing is at %s", text)
			}
		}
		if strings.Contains(name, "_alg_values_") {
			for _, algorithm := range list(name) {
				if !slices.Contains([]string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"}, algorithm) {
					t.Errorf("%s has %s", name, algorithm)
				}
			}
		}
	}
	if endpoints < 7 {
		t.Errorf("only %d endpoints", endpoints)
	}
	// each checks the values of a member, and some that are none of its.
	each := func(member string, others []string, works func(value string) bool) {
		t.Helper()
		offered := list(member)
		for _, value := range append(others, offered...) {
			if works(value) != slices.Contains(offered, value) {
				t.Errorf("%s %q works: %t", member, value, !slices.Contains(offered, value))
			}
		}
	}
	each("grant_types_supported", []string{"implicit", "urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:token-exchange",
		"urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:openid:params:grant-type:ciba"}, func(value string) bool {
		return b.token("web", url.Values{"grant_type": {value}}).text("error") != "unsupported_grant_type"
	})
	authorizes := func(parameter string) func(value string) bool {
		return func(value string) bool {
			page := b.send("GET", authorizeURL("client_id", "first", parameter, value), nil)
			return page.query.Get("code") != "" || page.status == 200 && strings.Contains(page.body, "code=")
		}
	}
	each("response_types_supported", []string{"token", "id_token", "code id_token", "code token", "none"}, authorizes("response_type"))
	each("response_modes_supported", []string{"fragment", "jwt", "query.jwt", "web_message"}, authorizes("response_mode"))
	each("code_challenge_methods_supported", []string{"plain", "S512", "s256"}, authorizes("code_challenge_method"))
	each("prompt_values_supported", []string{"create", "any"}, func(value string) bool {
		return b.send("GET", authorizeURL("client_id", "first", "prompt", value), nil).query.Get("error") != "invalid_request"
	})
	each("scopes_supported", []string{"groups", "admin"}, func(value string) bool {
		return b.send("GET", authorizeURL("scope", value), nil).query.Get("error") != "invalid_scope" || value == "verifier" // which is for clients that act for themselves
	})
	for member, set := range map[string]func(*Client, string){
		"id_token_signing_alg_values_supported": func(c *Client, algorithm string) { c.IDTokenSignedResponseAlg = algorithm },
		"userinfo_signing_alg_values_supported": func(c *Client, algorithm string) { c.UserInfoSignedResponseAlg = algorithm },
	} {
		each(member, []string{"RS256", "HS256", "none", "ES384", "PS256"}, func(algorithm string) bool {
			config := browserConfig()
			config.Store, config.Keys, config.Logger = b.server.store, b.server.keys, b.server.log
			set(&config.Clients[0], algorithm)
			changed, err := New(config)
			if err != nil {
				return false
			}
			at := &browser{t, changed, maps.Clone(b.cookies)}
			tokens := at.exchange("web", at.code())
			signed := tokens.text("id_token")
			if strings.HasPrefix(member, "userinfo") {
				r := at.request("GET", "/userinfo", nil)
				r.Header.Set("Authorization", "Bearer "+tokens.text("access_token"))
				w := httptest.NewRecorder()
				changed.ServeHTTP(w, r)
				signed = w.Body.String()
			}
			at.verified(signed, algorithm)
			return true
		})
	}
	each("token_endpoint_auth_methods_supported", []string{"client_secret_jwt", "tls_client_auth", "self_signed_tls_client_auth"}, func(method string) bool {
		partner, client := newPartner(t)
		client.TokenEndpointAuthMethod, client.ClientID = method, "partner"
		switch method {
		case methodPrivateKeyJWT:
		case methodNone:
			client.JWKS = ""
			client.GrantTypes = []string{"refresh_token"}
		default:
			client.JWKS, client.ClientSecret = "", testSecret
		}
		config := browserConfig()
		config.Store, config.Keys, config.Logger = b.server.store, b.server.keys, b.server.log
		config.Clients = append(config.Clients, client)
		s, err := New(config)
		if err != nil {
			return false
		}
		at := newBrowser(t, s)
		switch method {
		case methodSecretBasic:
			return at.token("partner", url.Values{"grant_type": {"client_credentials"}}).status == 200
		case methodSecretPost:
			return at.token("", url.Values{"grant_type": {"client_credentials"}, "client_id": {"partner"}, "client_secret": {testSecret}}).status == 200
		case methodPrivateKeyJWT:
			return at.present(partner.assertion(nil)).status == 200
		}
		return at.token("", url.Values{"grant_type": {"refresh_token"}, "client_id": {"partner"}, "refresh_token": {"x"}}).text("error") == "invalid_grant"
	})
}

// RS256 keys take long to make, so this is the one test with one.
func TestDefaultAlgorithmIsRS256(t *testing.T) {
	b := signedIn(t, browserServerWithAlgorithms(t, nil, "ES256", "RS256"))
	code := b.code()
	c, err := b.server.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := b.server.openCode(code)
	if err != nil {
		t.Fatal(err)
	}
	opened.Expires += time.Hour.Milliseconds() // the key may take its time
	if code, err = b.server.sealCode(opened); err != nil {
		t.Fatal(err)
	}
	if b.server.keys.Ready("RS256") != nil { // too early: nothing is spent
		if a := b.exchange("web", code); a.status == 200 && b.server.keys.Ready("RS256") == nil {
			code = b.code() // the key was made meanwhile
		} else if a.status != 503 {
			t.Errorf("without a key: %d %v", a.status, a.body)
		}
	}
	for { // until Run has made the key
		if _, err := b.server.sign(b.server.idTokenAlgorithm(c), idTokenType, json.RawMessage("{}")); err == nil {
			break
		} else if asError(err).Status != 503 {
			t.Fatal(err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal("no RS256 key")
		case <-time.After(10 * time.Millisecond):
		}
	}
	a := b.exchange("web", code)
	if a.status != 200 {
		t.Fatal(a.body)
	}
	b.verified(a.text("id_token"), "RS256")
	b.verified(a.text("access_token"), "ES256")
	if token, err := intake.Parse(a.text("id_token")); err != nil || token.Type != "JWT" {
		t.Errorf("typ %v", err)
	}
}

// A new master key changes nobody's subject, even when the old one is gone.
func TestPairwiseSaltOutlivesTheMasterKey(t *testing.T) {
	opened, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	var masters []keys.MasterKey
	for range 2 {
		master, err := keys.NewMasterKey()
		if err != nil {
			t.Fatal(err)
		}
		masters = append(masters, master)
	}
	var first []byte
	for i, config := range []keys.Config{{MasterKey: masters[0]}, {MasterKey: masters[0]}, {MasterKey: masters[1], OldMasterKeys: masters[:1]}, {MasterKey: masters[1]}} {
		config.Store, config.Issuer, config.Algorithms = KeyStore(opened), testIssuer, []string{"ES256"}
		manager, err := keys.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		if config.OldMasterKeys != nil { // its own keys are sealed anew, too
			if _, err := manager.Rewrap(t.Context(), keys.By{Caller: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		salt, err := pairwiseSalt(opened, manager, testIssuer)
		if err != nil || len(salt) != 32 {
			t.Fatalf("salt of %d bytes, %v", len(salt), err)
		}
		if first == nil {
			first = salt
		}
		if !bytes.Equal(first, salt) {
			t.Errorf("start %d has another salt", i)
		}
	}
	records, err := opened.Get(t.Context(), "salt/"+hashed(testIssuer))
	if err != nil || bytes.Contains(records[0].Value, first) {
		t.Errorf("the salt is stored in the clear, %v", err)
	}
}
