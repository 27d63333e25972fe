package authserver_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/timetest"
)

// instances are two servers on one store. What one of them ends, the other refuses.
func instances(t *testing.T, configure func(*authserver.Config), algorithms ...string) (*authservertest.Server, *authserver.Server) {
	t.Helper()
	var config authserver.Config
	s := authservertest.New(t, authservertest.Options{Algorithms: algorithms, Configure: func(c *authserver.Config) {
		if configure != nil {
			configure(c)
		}
		config = *c
	}})
	other, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return s, other
}

const shop = "shop:" + authservertest.Secret // a client in the store

func putShop(t *testing.T, s *authservertest.Server, disabled bool) {
	t.Helper()
	err := authserver.PutClient(t.Context(), s.Store, authserver.Client{
		ClientID: "shop", GrantTypes: []string{"client_credentials", "refresh_token", "password"},
		Scope: "orders:read", RedirectURIs: []string{"https://shop.example.com/callback"},
	}, authservertest.Secret, disabled)
	if err != nil {
		t.Fatal(err)
	}
}

// held are the tokens of one grant.
type held struct {
	basic, access, refresh string
}

// family makes tokens at every level: two grants and two sessions of alice at the
// client web, one of hers at the client shop, one of bob's, and one of shop's own.
func family(t *testing.T, s *authservertest.Server, server *authserver.Server) (tokens map[string]held, grants map[string]string) {
	t.Helper()
	putShop(t, s, false)
	hash, err := authserver.HashPassword("builder")
	if err != nil {
		t.Fatal(err)
	}
	if err := authserver.PutUser(t.Context(), s.Store, "sub-bob", "bob", hash, false); err != nil {
		t.Fatal(err)
	}
	access, _ := signIn(t, s, "orders:read")
	alice := claimsOf(t, access)["sub"].(string)
	tokens, grants = make(map[string]held), make(map[string]string)
	for name, g := range map[string]struct{ basic, subject, session string }{
		"web1": {web, alice, "session1"}, "web2": {web, alice, "session1"}, "web3": {web, alice, "session2"},
		"shop": {shop, alice, "session1"}, "bob": {web, "sub-bob", ""},
	} {
		client, _, _ := strings.Cut(g.basic, ":")
		access, refresh, err := authserver.Issue(t.Context(), server, client, authservertest.Audience, authserver.Grant{
			Subject: g.subject, SessionID: g.session, Scope: "orders:read", Resources: []string{authservertest.Audience}, AuthTime: time.Now().Unix() - 1})
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = held{g.basic, access, refresh}
		grants[name] = claimsOf(t, access)["grant_id"].(string)
	}
	own := post(t, s.Issuer+"/token", shop, form("grant_type", "client_credentials"))
	tokens["own"] = held{shop, own.text("access_token"), ""}
	return tokens, grants
}

// dead lists the tokens that a server refuses: "web1" for the access token at
// introspection, "web1+" for the refresh token at introspection and at refresh.
func dead(t *testing.T, s *authservertest.Server, tokens map[string]held) []string {
	t.Helper()
	var found []string
	for name, token := range tokens {
		if introspect(t, s, token.basic, token.access).body["active"] != true {
			found = append(found, name)
		}
		if token.refresh == "" {
			continue
		}
		listed := introspect(t, s, token.basic, token.refresh).body["active"] == true
		a := post(t, s.Issuer+"/token", token.basic, form("grant_type", "refresh_token", "refresh_token", token.refresh))
		if a.status == http.StatusOK {
			token.refresh = a.text("refresh_token")
			tokens[name] = token
			if !listed { // for a second, another instance may believe the client's last epoch
				found = append(found, name+" only at introspection")
			}
			continue
		}
		if listed {
			t.Errorf("%s: introspection calls a refresh token active that is refused: %s", name, a.raw)
		}
		refused(t, name, a, 400, "invalid_grant")
		found = append(found, name+"+")
	}
	slices.Sort(found)
	return found
}

// FIELD 5: token ⊂ grant ⊂ session ⊂ subject, and client. Each kill ends what its
// level says and nothing else, at introspection and at refresh, on the instance that
// did it and on another.
func TestLevelsOfRevocation(t *testing.T) {
	for _, test := range []struct {
		level, id string
		dead      []string
	}{
		{"token", "web1", []string{"web1"}},
		{"grant", "web1", []string{"web1", "web1+"}},
		{"session", "session1", []string{"shop", "shop+", "web1", "web1+", "web2", "web2+"}},
		{"session", "session2", []string{"web3", "web3+"}},
		{"subject", "alice", []string{"shop", "shop+", "web1", "web1+", "web2", "web2+", "web3", "web3+"}},
		{"subject", "sub-bob", []string{"bob", "bob+"}},
		{"client", "web", []string{"bob", "bob+", "web1", "web1+", "web2", "web2+", "web3", "web3+"}},
		{"client", "shop", []string{"own", "shop", "shop+"}},
	} {
		t.Run(test.level+" "+test.id, func(t *testing.T) {
			t.Parallel()
			s, other := instances(t, nil)
			tokens, grants := family(t, s, other)
			if already := dead(t, s, tokens); already != nil {
				t.Fatalf("dead before the kill: %v", already)
			}
			access := tokens["web1"].access
			id := test.id
			switch {
			case test.level == "token":
				tokens["web1"] = held{web, access, tokens["web1"].refresh}
				post(t, s.Issuer+"/revoke", web, form("token", access))
			case test.level == "grant":
				id = grants[test.id]
			case test.level == "session":
				id = claimsOf(t, access)["sub"].(string) + "/" + test.id
			case test.id == "alice":
				id = claimsOf(t, access)["sub"].(string)
			}
			if kill := authserver.Kills[test.level]; kill != nil {
				if err := kill(other, t.Context(), id, "test"); err != nil {
					t.Fatal(err)
				}
			}
			timetest.AwaitNil(t, func() error {
				if found := dead(t, s, tokens); !slices.Equal(found, test.dead) {
					return fmt.Errorf("dead are %v, want %v", found, test.dead)
				}
				return nil
			})
			events, err := s.Store.Tail(t.Context(), "revocations", 0, 0)
			most := 1
			if test.level == "subject" {
				most = 2 // on a slow machine, verifiers are told before all is deleted
			}
			if err != nil || len(events) == 0 || len(events) > most {
				t.Errorf("%d events in the log, %v; a kill of any level is one", len(events), err)
			}
		})
	}
}

// After a kill, those who still may get new tokens do.
func TestAfterKill(t *testing.T) {
	s, server := instances(t, nil)
	for _, level := range []string{"subject", "client"} {
		access, _ := signIn(t, s, "orders:read")
		id := claimsOf(t, access)["sub"].(string)
		if level == "client" {
			id = authservertest.WebID
		}
		if err := authserver.Kills[level](server, t.Context(), id, "test"); err != nil {
			t.Fatal(err)
		}
		timetest.AwaitNil(t, func() error {
			a := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", "alice", "password", authservertest.Password))
			if a.status != http.StatusOK {
				return fmt.Errorf("signing in after the end of the %s: %s", level, a.raw)
			}
			for _, token := range []string{a.text("access_token"), a.text("refresh_token")} {
				if introspect(t, s, web, token).body["active"] != true {
					return fmt.Errorf("a token of after the end of the %s is not active", level)
				}
			}
			return nil
		})
	}
}

// ATTACKS AZ-30, AZ-31: who is disabled in the store is refused everywhere, and is
// back when enabled.
func TestDisabledInStore(t *testing.T) {
	s, server := instances(t, nil)
	tokens, _ := family(t, s, server)
	putShop(t, s, true)
	timetest.AwaitNil(t, func() error {
		a := post(t, s.Issuer+"/token", shop, form("grant_type", "client_credentials"))
		if a.status != 401 || a.text("error") != "invalid_client" {
			return fmt.Errorf("a disabled client gets %d %s", a.status, a.raw)
		}
		return nil
	})
	if a := introspect(t, s, api, tokens["own"].access); a.body["active"] != false {
		t.Error("a disabled client's own token is active")
	}
	if _, _, err := authserver.Issue(t.Context(), server, "shop", authservertest.Audience, authserver.Grant{Subject: "sub-bob"}); err == nil {
		t.Error("a grant was made for a disabled client")
	}
	putShop(t, s, false)
	timetest.AwaitNil(t, func() error {
		a := post(t, s.Issuer+"/token", shop, form("grant_type", "refresh_token", "refresh_token", tokens["shop"].refresh))
		if a.status != http.StatusOK {
			return fmt.Errorf("an enabled client gets %d %s", a.status, a.raw)
		}
		return nil
	})
}
