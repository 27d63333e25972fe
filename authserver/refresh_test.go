package authserver_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

func withClient(id, secret string) func(*authserver.Config) {
	return func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{
			ClientID: id, ClientSecret: secret, GrantTypes: []string{"client_credentials"}, Scope: "orders:read",
		})
	}
}

func withRetryWindow(window time.Duration) func(*authserver.Config) {
	return func(c *authserver.Config) { c.Tokens.RetryWindow = &window }
}

// ATTACKS RT-04, I3: all of 200 parallel refreshes get the same successor, the
// chain goes on, and the grandparent is theft.
func TestParallelRefresh(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, first := signIn(t, s, "orders:read")
	const parallel = 200
	answers := make([]answer, parallel)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() { answers[i] = refresh(t, s, first) })
	}
	wait.Wait()
	for i, a := range answers {
		if a.status != http.StatusOK {
			t.Fatalf("refresh %d: %d %s", i, a.status, a.raw)
		}
		if a.text("refresh_token") != answers[0].text("refresh_token") || a.text("access_token") != answers[0].text("access_token") {
			t.Fatalf("refresh %d has another successor", i)
		}
	}
	second := refresh(t, s, answers[0].text("refresh_token"))
	if second.status != http.StatusOK || second.text("refresh_token") == answers[0].text("refresh_token") {
		t.Fatalf("the chain does not go on: %s", second.raw)
	}
	tokens := []string{access, answers[0].text("access_token"), second.text("access_token"), second.text("refresh_token")}
	for i, token := range tokens {
		if introspect(t, s, web, token).body["active"] != true {
			t.Errorf("token %d is not active before the theft", i)
		}
	}
	refused(t, "the grandparent", refresh(t, s, first), 400, "invalid_grant")
	for i, token := range tokens {
		if a := introspect(t, s, web, token); a.body["active"] != false || len(a.body) != 1 {
			t.Errorf("token %d after the theft: %s", i, a.raw)
		}
	}
	refused(t, "the last token after the theft", refresh(t, s, second.text("refresh_token")), 400, "invalid_grant")
}

// ATTACKS RT-01: a predecessor outside the retry window is theft.
func TestReuseAfterWindow(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: withRetryWindow(0)})
	_, first := signIn(t, s, "orders:read")
	second := refresh(t, s, first)
	if second.status != http.StatusOK {
		t.Fatal(second.raw)
	}
	refused(t, "the predecessor", refresh(t, s, first), 400, "invalid_grant")
	refused(t, "its successor", refresh(t, s, second.text("refresh_token")), 400, "invalid_grant")
}

// ATTACKS RT-07: a token in the wrong hands does not harm its owner.
func TestRefreshByAnother(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{ClientID: "rival", ClientSecret: authservertest.Secret, GrantTypes: []string{"refresh_token"}, Scope: "orders:read"})
	}})
	_, first := signIn(t, s, "orders:read")
	second := refresh(t, s, first).text("refresh_token")
	third := refresh(t, s, second).text("refresh_token")
	// first and second would be theft if their owner presented them.
	for _, token := range []string{first, second, third} {
		refused(t, "a public client", post(t, s.Issuer+"/token", "",
			form("grant_type", "refresh_token", "client_id", "spa", "refresh_token", token)), 400, "invalid_grant")
		refused(t, "a confidential client", post(t, s.Issuer+"/token", "rival:"+authservertest.Secret,
			form("grant_type", "refresh_token", "refresh_token", token)), 400, "invalid_grant")
	}
	if a := refresh(t, s, third); a.status != http.StatusOK {
		t.Errorf("the owner was signed out: %s", a.raw)
	}
}

// RFC 6749 §6: narrowing touches the access token only (ATTACKS RT-10).
func TestRefreshNarrowsScope(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	_, first := signIn(t, s, "orders:read orders:write")
	narrow := post(t, s.Issuer+"/token", web, form("grant_type", "refresh_token", "refresh_token", first, "scope", "orders:read"))
	if narrow.text("scope") != "orders:read" {
		t.Fatalf("narrowing: %s", narrow.raw)
	}
	if again := refresh(t, s, narrow.text("refresh_token")); again.text("scope") != "orders:read orders:write" {
		t.Errorf("after narrowing the scope is %q", again.text("scope"))
	}
}

// FAPI 2.0 §5.3.2.1: tokens of a client that does not rotate stay (ATTACKS RT-21).
func TestRefreshWithoutRotation(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) { c.Clients[1].RefreshTokenRotation = "never" }})
	_, token := signIn(t, s, "orders:read")
	for range 20 {
		a := refresh(t, s, token)
		if a.status != http.StatusOK || a.body["refresh_token"] != nil {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	}
	if a := post(t, s.Issuer+"/revoke", web, form("token", token)); a.status != http.StatusOK {
		t.Fatal(a.raw)
	}
	refused(t, "after revocation", refresh(t, s, token), 400, "invalid_grant")
}

// ATTACKS RT-12: the lifetimes of a grant, as its tokens tell them. What happens at their
// end: TestAttackRT12.
func TestGrantLifetimes(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	_, token := signIn(t, s, "orders:read")
	claims := claimsOf(t, token)
	idle, end := claims["exp"].(float64), claims["grant_exp"].(float64)
	issued := claims["iat"].(float64)
	if got := time.Duration(idle-issued) * time.Second; got < 719*time.Hour || got > 720*time.Hour {
		t.Errorf("idle lifetime is %s", got)
	}
	next := claimsOf(t, refresh(t, s, token).text("refresh_token"))
	if next["grant_exp"].(float64) != end {
		t.Error("a refresh prolonged the grant beyond its end")
	}
	if next["gen"].(float64) != 2 {
		t.Errorf("generation %v", next["gen"])
	}
}

// The user or the client is gone or has less: the next refresh notices.
func TestRefreshSeesChanges(t *testing.T) {
	first := authservertest.New(t, authservertest.Options{})
	_, token := signIn(t, first, "orders:read orders:write")
	_, withRoles := signIn(t, first, "roles")
	access, _ := signIn(t, first, "orders:read")
	for name, test := range map[string]struct {
		change func(*authserver.Config)
		code   string
		scope  string
	}{
		"user disabled":   {func(c *authserver.Config) { c.Users[0].Disabled = true }, "invalid_grant", ""},
		"user removed":    {func(c *authserver.Config) { c.Users = nil }, "invalid_grant", ""},
		"scope withdrawn": {func(c *authserver.Config) { c.Clients[1].Scope = "orders:read" }, "", "orders:read"},
		"roles withdrawn": {func(c *authserver.Config) { c.Users[0].Roles = nil }, "", "orders:read orders:write"},
	} {
		t.Run(name, func(t *testing.T) {
			config := authservertest.Config(first.Issuer)
			config.Store, config.Keys = first.Store, first.Keys
			test.change(&config)
			changed, err := authserver.New(config)
			if err != nil {
				t.Fatal(err)
			}
			a := ask(changed, "/token", form("grant_type", "refresh_token", "refresh_token", token,
				"client_id", "web", "client_secret", authservertest.Secret))
			if a.text("error") != test.code || a.text("scope") != test.scope {
				t.Errorf("%d %s", a.status, a.raw)
			}
			if name == "roles withdrawn" {
				before := refresh(t, first, withRoles)
				after := ask(changed, "/token", form("grant_type", "refresh_token", "refresh_token", withRoles, "client_id", "web", "client_secret", authservertest.Secret))
				if claimsOf(t, before.text("access_token"))["roles"] == nil || claimsOf(t, after.text("access_token"))["roles"] != nil {
					t.Errorf("with her roles %s, without %s", before.raw, after.raw)
				}
			}
			a = ask(changed, "/introspect", form("token", access, "client_id", "web", "client_secret", authservertest.Secret))
			if active := a.body["active"]; active != (test.code == "") {
				t.Errorf("introspection says active is %v", active)
			}
		})
	}
}
