package authserver

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"authserver/keys"
	"authserver/store"
)

// No id becomes both a client's and a user's, also when they are added at one moment
// (RFC 9700 §4.15).
func TestOneIDAtOneMoment(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	ctx := t.Context()
	for n := range 50 {
		id := fmt.Sprint("id", n)
		var both sync.WaitGroup
		var asClient, asUser error
		both.Go(func() {
			_, _, asClient = s.addClient(ctx, Client{ClientID: id, GrantTypes: []string{"client_credentials"}}, store.Forever)
		})
		both.Go(func() { _, asUser = s.addUser(ctx, newUser{subject: id, username: id}) })
		both.Wait()
		if asClient == nil && asUser == nil {
			t.Fatal("both have it")
		}
		_, _, client := s.clients.records.Get(ctx, id)
		user, err := s.userRecord(ctx, id)
		if err != nil || (client == nil) != (asClient == nil) || user.exists != (asUser == nil) {
			t.Errorf("client %v, %v; user %v, %+v, %v", asClient, client, asUser, user, err)
		}
	}
}

// ATTACKS JW-31: no id is a client's and a user's: of the two that are configured the
// configuration is refused; who is added is refused; and what was added before the
// configuration took its id can do nothing from then on.
func TestAttackJW31(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"as sub": func(c *Config) { c.Users[0].Sub = "service" }, "as client_id": func(c *Config) { c.Clients[3].ClientID = "alice-1" },
	} {
		config := browserConfig()
		change(&config)
		if problems := config.Check(); len(problems) != 1 || problems[0].Warning || !strings.HasSuffix(problems[0].Key, ".sub") {
			t.Errorf("%s: %v", name, problems)
		}
	}
	s := browserServer(t, nil)
	ctx := t.Context()
	machine := func(id string) Client { return Client{ClientID: id, GrantTypes: []string{"client_credentials"}} }
	if _, _, err := s.addClient(ctx, machine("alice-1"), store.Forever); err == nil {
		t.Error("a client has the subject of a user")
	}
	if _, err := s.addUser(ctx, newUser{subject: "service", username: "eve"}); err == nil {
		t.Error("a user has the id of a client")
	}
	_, secret, err := s.addClient(ctx, machine("x"), store.Forever)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.addUser(ctx, newUser{subject: "y", username: "yves"}); err != nil {
		t.Fatal(err)
	}
	later := browserServerWith(t, s, func(c *Config) {
		c.Users, c.Clients = append(c.Users, User{Username: "xenia", Sub: "x", PasswordHash: testHash}), append(c.Clients, machine("y"))
		c.Clients[len(c.Clients)-1].ClientSecret = testSecret
	})
	for at, want := range map[*Server]int{s: 200, later: 401} {
		a := newBrowser(t, at).token("", url.Values{"grant_type": {"client_credentials"}, "client_id": {"x"}, "client_secret": {secret}})
		if a.status != want {
			t.Errorf("client x: %d %v, want %d", a.status, a.body, want)
		}
		if _, err := at.users.bySubject(ctx, "y"); (err == nil) != (want == 200) {
			t.Errorf("user y: %v", err)
		}
	}
	if _, err := later.users.bySubject(ctx, "x"); err != nil {
		t.Errorf("the configured user: %v", err)
	}
	a := newBrowser(t, later).token("y", url.Values{"grant_type": {"client_credentials"}})
	if a.status != 200 {
		t.Errorf("the configured client: %d %v", a.status, a.body)
	}
}
