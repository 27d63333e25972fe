package authserver

import (
	"reflect"
	"testing"

	"authserver/internal/accesstoken"

	"github.com/fxamacker/cbor/v2"
)

// A grant comes back from the store with all that it is made of, and a server of an
// earlier version reads past what it does not know.
func TestGrantRecord(t *testing.T) {
	grant := Grant{
		ClientID: "web", Subject: "alice", Scope: "openid profile orders:read", Resources: []string{"https://api.example.com"}, AuthTime: 1764000000,
		ACR: "aal1", AMR: []string{"pwd"}, SessionID: newID(), Confirmation: &accesstoken.Confirmation{JWKThumbprint: "jkt", X509Thumbprint: "x5t"},
		IDTokenClaims: []string{"email"}, UserInfoClaims: []string{"phone"}, ClientEpoch: 3, SubjectEpoch: 4, Created: 1764000001, Expires: 1795000000,
	}
	for i, value := 0, reflect.ValueOf(grant); i < value.NumField(); i++ {
		if value.Field(i).IsZero() {
			t.Errorf("the test does not set %s", value.Type().Field(i).Name)
		}
	}
	encoded, err := grant.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var decoded Grant
	if err := decoded.UnmarshalBinary(encoded); err != nil || !reflect.DeepEqual(decoded, grant) {
		t.Errorf("%+v came back as %+v, %v", grant, decoded, err)
	}
	var fields map[int]any
	if err := cbor.Unmarshal(encoded, &fields); err != nil || len(fields) != reflect.TypeFor[Grant]().NumField() {
		t.Fatalf("fields %v, %v", fields, err)
	}
	fields[1000] = "of a later version"
	if encoded, err = cbor.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	if err := decoded.UnmarshalBinary(encoded); err != nil || !reflect.DeepEqual(decoded, grant) {
		t.Errorf("with an unknown field: %+v, %v", decoded, err)
	}
	for _, damaged := range [][]byte{nil, []byte("{}"), encoded[:20], append(encoded, 0)} {
		if err := new(Grant).UnmarshalBinary(damaged); err == nil {
			t.Errorf("%q is a grant", damaged)
		}
	}
}
