package verifier_test

import (
	"errors"
	"testing"
	"time"

	"authserver/internal/timetest"
	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// reasonOf returns why a token is refused now, empty when it is accepted.
func reasonOf(t *testing.T, v *verifier.Verifier, token string) verifier.Reason {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	if err == nil {
		return ""
	}
	var refusal *verifier.Error
	if !errors.As(err, &refusal) || refusal.Reason == "" {
		t.Fatalf("no reason: %v", err)
	}
	return refusal.Reason
}

// settledReason is reasonOf while the feed is fresh: on a busy machine a lease lapses
// now and then until the next heartbeat is read.
func settledReason(t *testing.T, v *verifier.Verifier, token string) (reason verifier.Reason) {
	t.Helper()
	timetest.Until(func() bool {
		reason = reasonOf(t, v, token)
		return reason != verifier.RevocationsUnavailable
	})
	return reason
}

// eventually waits until the token is refused for a reason, or accepted.
func eventually(t *testing.T, v *verifier.Verifier, token string, want verifier.Reason) {
	t.Helper()
	var got verifier.Reason
	if !timetest.Until(func() bool { got = reasonOf(t, v, token); return got == want }) {
		t.Fatalf("the token is still refused for %q, want %q", got, want)
	}
}

// A revocation at each level ends the tokens that it is about and no others,
// cached ones too.
func TestRevocations(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Verifier(t, audience)
	mint := func(claims verifiertest.Claims) string {
		claims["aud"] = audience
		return issuer.Token(claims)
	}
	other := mint(verifiertest.Claims{"sub": "bob", "client_id": "other", "sid": "s2"})
	for _, test := range []struct {
		name   string
		claims verifiertest.Claims
		revoke func()
	}{
		{"token", verifiertest.Claims{"jti": "t"}, func() { issuer.RevokeToken("t") }},
		{"grant", verifiertest.Claims{"grant_id": "g"}, func() { issuer.RevokeGrant("g") }},
		{"session", verifiertest.Claims{"sid": "s"}, func() { issuer.RevokeSession("s") }},
		{"subject", verifiertest.Claims{"sub": "carol"}, func() { issuer.RevokeSubject("carol") }},
		{"client", verifiertest.Claims{"client_id": "c"}, func() { issuer.RevokeClient("c") }},
		{"epoch of a subject", verifiertest.Claims{"sub": "dave", "sub_epoch": 3}, func() { issuer.RevokeSubjectEpoch("dave", 3) }},
		{"epoch of a client", verifiertest.Claims{"client_id": "d", "client_epoch": 2}, func() { issuer.RevokeClientEpoch("d", 2) }},
		{"key", verifiertest.Claims{}, nil},
	} {
		token := mint(test.claims)
		if reason := settledReason(t, v, token); reason != "" {
			t.Fatalf("%s: refused before the revocation: %s", test.name, reason)
		}
		if test.revoke == nil {
			issuer.RevokeKey()
			eventually(t, v, token, verifier.Revoked)
			eventually(t, v, other, verifier.Revoked) // by the same key
			if reason := settledReason(t, v, mint(verifiertest.Claims{})); reason != "" {
				t.Errorf("a token by the next key: %s", reason)
			}
			continue
		}
		test.revoke()
		eventually(t, v, token, verifier.Revoked)
		if reason := settledReason(t, v, other); reason != "" {
			t.Errorf("%s: a token of somebody else is refused: %s", test.name, reason)
		}
	}
	// What a user gets after the revocation of everything before is good.
	late := mint(verifiertest.Claims{"sub": "carol", "iat": time.Now().Add(2 * time.Second).Unix()})
	if reason := settledReason(t, v, late); reason != "" {
		t.Errorf("a token that was issued after its subject's revocation: %s", reason)
	}
	for _, next := range []verifiertest.Claims{{"sub": "dave", "sub_epoch": 4}, {"client_id": "d", "client_epoch": 3}} {
		if reason := settledReason(t, v, mint(next)); reason != "" {
			t.Errorf("a token of the epoch after the one that was ended: %s", reason)
		}
	}
	// A verifier that starts later knows all of it from the snapshot.
	if reason := settledReason(t, issuer.Verifier(t, audience), mint(verifiertest.Claims{"grant_id": "g"})); reason != verifier.Revoked {
		t.Errorf("at a verifier that started later: %q", reason)
	}
}
