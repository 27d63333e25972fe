package authserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// age makes the sign-in of a browser an older one.
func (b *browser) age(by time.Duration) {
	b.t.Helper()
	_, _, err := b.server.sessions.Change(b.t.Context(), b.sid(), func(one *session) error {
		one.AuthTime = past(by)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// OpenID Connect Registration §2: default_max_age holds where a request has no
// max_age; auth_time is in every ID token, asked for or not.
func TestDefaultMaxAge(t *testing.T) {
	hour := int64(3600)
	s := browserServer(t, func(c *Config) { c.Clients[1].DefaultMaxAge, c.Clients[1].RequireAuthTime = &hour, true })
	b := signedIn(t, s)
	ask := func(more ...string) shownPage {
		return b.send("GET", authorizeURL(append([]string{"client_id", "first"}, more...)...), nil)
	}
	a := b.exchange("first", ask().query.Get("code"))
	claims, _ := b.verified(a.text("id_token"), "ES256")
	if at, ok := claims["auth_time"].(float64); !ok || int64(at) != b.session().AuthTime {
		t.Errorf("ID token: %v", claims)
	}
	b.age(2 * time.Hour)
	if page := ask(); !page.on("/login") {
		t.Errorf("signed in two hours ago: %v", page.location)
	}
	if page := ask("prompt", "none"); page.query.Get("error") != "login_required" {
		t.Errorf("without prompting: %v", page.location)
	}
	if page := ask("max_age", "10000"); page.query.Get("code") == "" {
		t.Errorf("a max_age of the request's own: %v", page.location)
	}
	if page := b.send("GET", authorizeURL("client_id", "web", "prompt", "none"), nil); page.query.Get("error") != "consent_required" {
		t.Errorf("another client: %v", page.location)
	}
	for age, ok := range map[int64]bool{-1: false, 0: true, 1 << 31: false} {
		config := browserConfig()
		config.Clients[0].DefaultMaxAge = &age
		if problems := config.Check(); (len(problems) == 0) != ok {
			t.Errorf("default_max_age %d: %v", age, problems)
		}
	}
}

// OpenID Connect Core §5.5.1.1: an essential acr that nobody here knows is met by no
// sign-in; as a wish, it is no reason to ask.
func TestEssentialACR(t *testing.T) {
	s := browserServer(t, nil)
	for values, want := range map[string]string{
		`{"essential":true,"value":"https://refeds.org/profile/mfa"}`: "unmet_authentication_requirements",
		`{"essential":true,"values":["urn:unknown","phr"]}`:           "unmet_authentication_requirements",
		`{"essential":true,"values":["urn:unknown","aal1"]}`:          "",
		`{"essential":false,"values":["urn:unknown"]}`:                "",
		`{"essential":true}`: "",
	} {
		page := signedIn(t, s).send("GET", authorizeURL("client_id", "first", "prompt", "none", "claims", `{"id_token":{"acr":`+values+`}}`), nil)
		if page.query.Get("error") != want || (page.query.Get("code") != "") != (want == "") {
			t.Errorf("%s: %v, want %q", values, page.location, want)
		}
	}
}

// OpenID Connect Back-Channel Logout §2.5: the clients of a session are told of its end
// when another user signs in over it.
func TestSignInOverASessionTellsItsClients(t *testing.T) {
	l := newListener(t)
	s := backchannelServer(t, l)
	b := newBrowser(t, s)
	first := b.signIn("alice-1")
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.noteClient(t.Context(), first, c); err != nil {
		t.Fatal(err)
	}
	if b.signIn("alice-1"); due(t, s) != 0 {
		t.Error("a step-up ends nothing")
	}
	if b.signIn("bob-1"); due(t, s) != 1 {
		t.Error("nobody is told that alice's session has ended")
	}
}

// ATTACKS PK-10: a client that uses one challenge for all requests is counted.
func TestAttackPK10(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := browserServer(t, func(c *Config) { c.Registry = registry })
	b := signedIn(t, s)
	counted := func() float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "authserver_constant_challenges_total" {
				return family.GetMetric()[0].GetCounter().GetValue()
			}
		}
		t.Fatal("no such metric")
		return 0
	}
	for range 10 {
		b.code("client_id", "first")
	}
	if counted() != 9 {
		t.Errorf("counted %v of 10 with one challenge", counted())
	}
	for i := range 10 {
		b.code("client_id", "first", "code_challenge", fmt.Sprintf("%s%d", testChallenge[:42], i))
	}
	for i := range 2 * maxRemembered {
		s.challenges.repeated(fmt.Sprint("client ", i), testChallenge)
	}
	if counted() != 9 || len(s.challenges.last) > maxRemembered {
		t.Errorf("counted %v, remembered %d", counted(), len(s.challenges.last))
	}
}

// ATTACKS AC-02: half a minute later a replay is a replay.
func TestAttackAC02(t *testing.T) {
	b := signedIn(t, browserServer(t, nil))
	sealed := b.code()
	first := b.exchange("web", sealed)
	if first.status != 200 {
		t.Fatal(first.body)
	}
	minted, err := b.server.openCode(sealed)
	if err != nil {
		t.Fatal(err)
	}
	minted.Issued, minted.Expires = minted.Issued-30_000, minted.Expires-30_000
	later, err := b.server.sealCode(minted) // what it is half a minute later
	if err != nil {
		t.Fatal(err)
	}
	if a := b.exchange("web", later); a.text("error") != "invalid_grant" || b.active("web", first.text("access_token")) || b.active("web", first.text("refresh_token")) {
		t.Errorf("%d %v; the tokens live: %t", a.status, a.body, b.active("web", first.text("access_token")))
	}
}
