package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/keys"

	"github.com/prometheus/client_golang/prometheus"
)

// kidOf returns the kid of a token.
func kidOf(t *testing.T, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	if err := json.Unmarshal(decoded, &header); err != nil {
		t.Fatal(err)
	}
	return header.KeyID
}

// FT-43: on the instance that revoked a key its tokens are refused at once.
func TestTokensOfARevokedKey(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "orders:read")
	by := keys.By{Caller: "test", Reason: "drill"}
	if _, err := s.Keys.Revoke(t.Context(), by, kidOf(t, access)); err != nil {
		t.Fatal(err)
	}
	if a := introspect(t, s, web, access); a.raw != `{"active":false}` {
		t.Errorf("an access token of a revoked key: %s", a.raw)
	}
	if a := introspect(t, s, web, refreshToken); a.body["active"] != true {
		t.Errorf("the refresh token, which another key signed: %s", a.raw)
	}
	if _, err := s.Keys.Revoke(t.Context(), by, kidOf(t, refreshToken)); err != nil {
		t.Fatal(err)
	}
	refused(t, "a refresh token of a revoked key",
		post(t, s.Issuer+"/token", web, form("grant_type", "refresh_token", "refresh_token", refreshToken)), 400, "invalid_grant")
	if a := introspect(t, s, web, refreshToken); a.raw != `{"active":false}` {
		t.Errorf("the refresh token of a revoked key: %s", a.raw)
	}
}

// What the alarms of docs/operating.md are made of.
func TestKeyMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) { c.Registry = registry }})
	access, refreshToken := signIn(t, s, "orders:read")
	introspect(t, s, web, access)
	kid := kidOf(t, access)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"authserver_key_state " + kid + " ES256 active":                          1,
		"authserver_key_signatures_total " + kidOf(t, refreshToken) + " refresh": 1,
		"authserver_key_ring_signs refresh":                                      1,
		"authserver_key_lease":                                                   1,
		"authserver_key_failed_rotations_total":                                  0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v (of %v)", name, got, want, values)
		}
	}
	// The frames of the feed are signed and checked with the key as well.
	for _, name := range []string{"signatures", "verifications"} {
		if got := values["authserver_key_"+name+"_total "+kid+" ES256"]; got < 1 {
			t.Errorf("%v %s", got, name)
		}
	}
	for name, want := range map[string]float64{
		"authserver_key_next_rotation_seconds ES256":                   2160 * 3600,
		"authserver_key_transition_seconds " + kid + " ES256 retiring": 2160 * 3600,
	} {
		if got := values[name]; got > want || got < want-3600 {
			t.Errorf("%s is %v, want about %v", name, got, want)
		}
	}
}
