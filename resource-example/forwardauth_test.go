package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// What gateways are told.
func TestForwardAuth(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Verifier(t, "https://api.example.com")
	api := newAPI(v, issuer.URL)
	good := issuer.Token(verifiertest.Claims{"aud": "https://api.example.com", "sub": "alice, the\nfirst", "scope": "orders:read orders:write",
		"roles": []string{"clerk", "night shift"}, "preferred_username": "älice"})
	for _, test := range []struct {
		query, token string
		status       int
		challenge    string
	}{
		{"", good, 200, ""},
		{"?scope=orders:read&scope=orders:write&role=admin&role=clerk", good, 200, ""},
		{"?scope=orders:read&scope=payments", good, 403, `scope="orders:read payments"`},
		{"?role=admin", good, 403, "insufficient_scope"},
		{"?scope=orders:read", "", 401, `Bearer scope="orders:read"`},
		{"", good[:len(good)-9] + "AAAAAAAAA", 401, "invalid_token"},
	} {
		r := httptest.NewRequest("GET", "/verify"+test.query, nil)
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code != test.status || !strings.Contains(w.Header().Get("WWW-Authenticate"), test.challenge) {
			t.Errorf("%s: %d %v", test.query, w.Code, w.Header())
		}
		want := http.Header{"X-Auth-Subject": {"alice%2C%20the%0Afirst"}, "X-Auth-Client": {"client"}, "X-Auth-Username": {"%C3%A4lice"},
			"X-Auth-Scope": {"orders:read orders:write"}, "X-Auth-Roles": {"clerk night%20shift"}}
		for name := range want {
			if got := w.Header().Get(name); test.status == 200 && got != want.Get(name) || test.status != 200 && got != "" {
				t.Errorf("%s: %s is %q", test.query, name, got)
			}
		}
	}
}

// The sample API says where its issuer is (RFC 9728).
func TestMetadata(t *testing.T) {
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: "http://localhost:1", Audience: "http://localhost:8081"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	newAPI(v, "").ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"authorization_servers":["http://localhost:1"]`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
