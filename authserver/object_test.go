package authserver

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"authserver/internal/accesstoken"
)

// What writes itself does so as encoding/json would: no field is forgotten, and the
// tokens of one generation of a grant are the same of all releases.
func TestMembers(t *testing.T) {
	var response tokenResponse
	var refresh refreshClaims
	var access signedClaims
	for _, value := range []any{&response, &refresh, &access} {
		fill(reflect.ValueOf(value).Elem())
	}
	access.NotBefore = 0 // ours never set it
	lists := refreshClaims{Resources: []string{"a", "b"}}
	written := []members{tokenResponse{}, response, refreshClaims{}, refresh, lists, signedClaims{Claims: new(accesstoken.Claims)}, access}
	for _, odd := range []string{`a"b`, `a\b`, "<", ">", "&", "\x00", "\x1f", " ", "\x7f", "ä", "\u2028", "\xff", "日本"} {
		written = append(written, tokenResponse{Scope: odd}, refreshClaims{Resources: []string{odd}})
	}
	for _, one := range written {
		want, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := encode(one); err != nil || string(got) != string(want) {
			t.Errorf("%T\nis   %s, %v\nwant %s", one, got, err, want)
		}
	}
}

// Claims that an operator has thought up do not make an ID token that is no JSON.
func TestIDTokenMembers(t *testing.T) {
	claims := idTokenClaims{Issuer: testIssuer, Subject: "alice", Nonce: `a"b`, AMR: []string{"pwd"}, ofUser: map[string]any{`odd "name"`: 1, "address": map[string]any{"country": "<A>"}}}
	encoded, err := encode(claims)
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := json.Unmarshal(encoded, &read); err != nil {
		t.Fatalf("%s: %v", encoded, err)
	}
	want := map[string]any{"iss": testIssuer, "sub": "alice", "aud": "", "iat": 0.0, "exp": 0.0, "auth_time": 0.0, "at_hash": "", "nonce": `a"b`,
		"amr": []any{"pwd"}, `odd "name"`: 1.0, "address": map[string]any{"country": "<A>"}}
	if !reflect.DeepEqual(read, want) {
		t.Errorf("%s", encoded)
	}
	claims.ofUser["odd"] = func() {}
	if _, err := encode(claims); err == nil || !strings.Contains(err.Error(), "unsupported type") {
		t.Errorf("a claim that is no JSON: %v", err)
	}
}
