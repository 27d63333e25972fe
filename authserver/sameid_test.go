package authserver

import (
	"fmt"
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
