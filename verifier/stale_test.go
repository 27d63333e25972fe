package verifier_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/timetest"
	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// said is what a log was told.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// What each policy does while the feed is cut, and that all of them know everything
// soon after it is back.
func TestWhenStale(t *testing.T) {
	issuer := verifiertest.New(t)
	policies := []verifier.WhenStale{verifier.Reject, verifier.Introspect, verifier.AcceptUntilExpiry}
	verifiers := make(map[verifier.WhenStale]*verifier.Verifier)
	log := new(said)
	for _, policy := range policies {
		verifiers[policy] = issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: policy, ClientID: "api", ClientSecret: "secret",
			Logger: slog.New(slog.NewTextHandler(log, nil))})
	}
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	bad := issuer.Token(verifiertest.Claims{"aud": audience, "grant_id": "g"})
	for _, policy := range policies {
		for _, token := range []string{good, bad} {
			if reason := settledReason(t, verifiers[policy], token); reason != "" {
				t.Fatalf("policy %d, before: %s", policy, reason)
			}
		}
	}
	issuer.StopFeed()
	issuer.RevokeGrant("g")
	eventually(t, verifiers[verifier.Reject], good, verifier.RevocationsUnavailable)
	eventually(t, verifiers[verifier.Reject], bad, verifier.RevocationsUnavailable)
	eventually(t, verifiers[verifier.Introspect], bad, verifier.Revoked)
	if reason := settledReason(t, verifiers[verifier.Introspect], good); reason != "" {
		t.Errorf("introspection refuses a good token: %s", reason)
	}
	for _, token := range []string{good, bad} {
		if reason := reasonOf(t, verifiers[verifier.AcceptUntilExpiry], token); reason != "" {
			t.Errorf("until it expires: %s", reason)
		}
	}
	// A route can ask for more than the configuration.
	strict := verifier.Requirement{WhenStale: verifier.Reject}
	timetest.Await(t, "a route that rejects refuses", func() bool {
		_, err := verifiers[verifier.AcceptUntilExpiry].Authenticate(bearer(good), strict)
		return err != nil
	})
	// The issuer counts on the lease that this one holds, whatever a route asks for.
	if _, err := verifiers[verifier.Reject].Authenticate(bearer(good), verifier.Requirement{WhenStale: verifier.AcceptUntilExpiry}); err == nil {
		t.Error("a verifier with a lease accepts what the feed has not confirmed")
	}
	if health := verifiers[verifier.Reject].Health(); !health.Following || health.Ready || health.Stale < time.Second {
		t.Errorf("while the feed is cut: %+v", health)
	}
	issuer.StartFeed()
	timetest.Await(t, "the log says that all follow the feed again", func() bool { return log.count("is followed again") >= len(policies) })
	for _, policy := range policies {
		eventually(t, verifiers[policy], bad, verifier.Revoked)
		eventually(t, verifiers[policy], good, "")
	}
	if health := verifiers[verifier.Reject].Health(); !health.Ready || health.CachedTokens == 0 || health.Keys != 2 {
		t.Errorf("afterwards: %+v", health)
	}
}

// An issuer that is gone altogether: the same, and introspection cannot help.
func TestIssuerGone(t *testing.T) {
	issuer := verifiertest.New(t)
	reject := issuer.Verifier(t, audience)
	ask := issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: verifier.Introspect, ClientID: "api", ClientSecret: "secret"})
	accept := issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: verifier.AcceptUntilExpiry})
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	for _, v := range []*verifier.Verifier{reject, ask, accept} {
		if reason := settledReason(t, v, good); reason != "" {
			t.Fatal(reason)
		}
	}
	another := issuer.Token(verifiertest.Claims{"aud": audience})
	issuer.Close()
	eventually(t, reject, good, verifier.RevocationsUnavailable)
	eventually(t, ask, good, verifier.RevocationsUnavailable)
	if reason := reasonOf(t, accept, good); reason != "" {
		t.Errorf("a cached token: %s", reason)
	}
	if reason := reasonOf(t, accept, another); reason != "" {
		t.Errorf("a token that was not seen before: %s", reason)
	}
}
