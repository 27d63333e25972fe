package authserver

import (
	"encoding/json"
	"reflect"
	"testing"

	"authserver/internal/intake"
)

// Whatever is written into a refresh token is read from it: a claim that is new in
// refreshClaims cannot be forgotten in set.
func TestRefreshClaimsAreReadAsWritten(t *testing.T) {
	want := refreshClaims{
		Issuer: "https://auth.example.com", Audience: "https://auth.example.com", Subject: "a \"b\" é", ClientID: "web",
		Scope: "openid", Resources: []string{"https://api.example.com"}, GrantID: "g", Generation: 1 << 63, IssuedAt: 1, Expires: 2, GrantExpires: 3,
	}
	for i := range reflect.TypeFor[refreshClaims]().NumField() {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Errorf("give %s a value here, and a case in set", reflect.TypeFor[refreshClaims]().Field(i).Name)
		}
	}
	payload, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got refreshClaims
	if err := intake.Members(payload, got.set); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, payload := range []string{`{"gen":-1}`, `{"gen":null}`, `{"gen":"1"}`, `{"gen":1.0}`, `{"iss":null}`, `{"exp":"1"}`, `{"resources":"x"}`} {
		if err := intake.Members([]byte(payload), new(refreshClaims).set); err == nil {
			t.Errorf("%s is taken", payload)
		}
	}
}
