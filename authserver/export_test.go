package authserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"authserver/keys"
	"authserver/store"
)

// What the tests of the package reach into, beside its API.

// Issue makes a grant for a client and returns its tokens.
func Issue(ctx context.Context, s *Server, clientID, resource string, grant Grant) (access, refresh string, err error) {
	c, err := s.clients.find(ctx, clientID)
	if err != nil {
		return "", "", err
	}
	grant.ClientID = c.id
	before, err := s.mayHold(ctx, grant)
	if err != nil {
		return "", "", err
	}
	authorization, err := s.createGrant(ctx, c, NewGrantID(grant.Subject), grant, resource, basis{standing: before, given: time.Now()})
	if err != nil {
		return "", "", err
	}
	tokens, err := s.issue(ctx, c, authorization)
	return tokens.AccessToken, tokens.RefreshToken, err
}

// Kills are the levels of revocation above the token. A session's id is the subject
// and the sid with a slash between.
var Kills = map[string]func(s *Server, ctx context.Context, id, reason string) error{
	"grant": (*Server).endGrant,
	"session": func(s *Server, ctx context.Context, id, reason string) error {
		subject, sessionID, _ := strings.Cut(id, "/")
		return s.endSession(ctx, subject, sessionID, reason)
	},
	"subject": (*Server).endSubject,
	"client":  (*Server).endClient,
}

// PutClient stores a client whose secret is given.
func PutClient(ctx context.Context, s store.Store, c Client, secret string, disabled bool) error {
	table := store.Table[storedClient]{Store: s, Name: "client"}
	_, _, err := table.Update(ctx, c.ClientID, store.Forever, func(stored *storedClient) error {
		*stored = storedClient{Client: c, Secrets: []clientSecret{newClientSecret(secret)}, Disabled: disabled}
		return nil
	})
	for _, origin := range originsOf(c) {
		if err == nil {
			err = s.Link(ctx, originIndex(origin), c.ClientID, store.Forever)
		}
	}
	return err
}

// HoldAccount makes the wait of an account an hour, if it has one.
func HoldAccount(t testing.TB, s store.Store, username string) bool {
	t.Helper()
	key := "wait/account/" + hashed(username)
	found, err := s.Get(t.Context(), key)
	if err == nil && !found[0].Exists() {
		return false
	}
	if err == nil {
		err = s.Delete(t.Context(), key)
	}
	if err == nil {
		err = s.Create(t.Context(), key, nil, time.Now().Add(time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// PutUser stores a user with a password hash.
func PutUser(ctx context.Context, s store.Store, subject, username, phc string, disabled bool) error {
	users := store.Table[storedUser]{Store: s, Name: "user"}
	_, _, err := users.Update(ctx, subject, store.Forever, func(u *storedUser) error {
		*u = storedUser{Username: username, Roles: []string{"stored"}, Disabled: disabled}
		return nil
	})
	if err != nil {
		return err
	}
	all := store.Table[credentials]{Store: s, Name: "credentials"}
	_, _, err = all.Update(ctx, subject, store.Forever, func(c *credentials) error {
		c.Password = &storedPassword{Hash: phc}
		return nil
	})
	if err != nil {
		return err
	}
	return s.Create(ctx, usernameKey(foldUsername(username)), []byte(subject), store.Forever)
}

// TOTPCode is the code of an authenticator app.
func TOTPCode(secret []byte, at time.Time) string { return totpCode(secret, stepAt(at)) }

// FailuresKey is the store's counter of failed sign-ins of an account.
func FailuresKey(username string) string { return "failures/account/" + hashed(foldUsername(username)) }

// CodeFailuresKey is the store's counter of wrong codes of a user's second factor.
func CodeFailuresKey(subject string) string {
	return "failures/account/" + hashed(codeAccount(subject))
}

// DisableUser disables a user as an operator does.
func DisableUser(ctx context.Context, s *Server, subject string) error {
	return s.disableUser(ctx, subject, "test")
}

// AgeInteraction returns what a page of a server holds as its parameter interaction as
// if the page had been opened so long before.
func AgeInteraction(issuer string, from *keys.Manager, sealed string, by time.Duration) (string, error) {
	box, err := from.Box("interaction")
	if err != nil {
		return "", err
	}
	s := &Server{issuer: issuer, interactionBox: box}
	in, err := s.unsealInteraction(sealed)
	if err != nil {
		return "", err
	}
	in.Expires -= int64(by / time.Second)
	return s.sealInteraction(in)
}
