package authserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"authserver/store"
)

// Changes of stored clients. Whoever makes them, operators or registration, goes
// through these functions, so that indexes and revocations follow.

// maxSecrets bounds how many secrets a client has while they are being replaced.
const maxSecrets = 5

// addClient stores a new client until expires, and returns it and its secret, if it
// is of a kind that has one. It is complete before it can do anything: the record
// is made disabled, then indexed, then enabled.
func (s *Server) addClient(ctx context.Context, described Client, expires time.Time) (storedClient, string, error) {
	if described.ClientID == "" {
		described.ClientID = newID()
	}
	secret := ""
	if described.JWKS == "" && described.TokenEndpointAuthMethod != methodNone {
		secret = newSecret()
	}
	if err := s.checkNewClient(ctx, described, secret); err != nil {
		return storedClient{}, "", err
	}
	stored := storedClient{Client: described, Disabled: true, Created: time.Now().Unix()}
	if secret != "" {
		stored.Secrets = []clientSecret{newClientSecret(secret)}
		stored.Secrets[0].Created = stored.Created
	}
	err := s.clients.records.Create(ctx, described.ClientID, stored, expires)
	if errors.Is(err, store.ErrExists) {
		return storedClient{}, "", adminExists("there is a client %q already", described.ClientID).
			hint("authserver client show %s; a disabled one that could not be added as a whole is removed and added again", described.ClientID)
	} else if err != nil {
		return storedClient{}, "", unavailable(fmt.Errorf("storing a client: %w", err))
	}
	// A user who is added at this moment sees the client, or is seen here.
	if owner, err := s.userRecord(ctx, described.ClientID); err != nil || owner.exists {
		if err == nil {
			err = adminExists("%q is the subject of a user", described.ClientID)
		}
		return storedClient{}, "", errors.Join(err, s.clients.records.Delete(ctx, described.ClientID))
	}
	err = s.clients.catalogue.add(ctx, described.ClientID, expires)
	for _, origin := range originsOf(described) {
		if err == nil {
			err = s.store.Link(ctx, originIndex(origin), described.ClientID, expires)
		}
	}
	if err != nil {
		err = unavailable(fmt.Errorf("indexing a client: %w", err))
	} else {
		err = s.updateClient(ctx, described.ClientID, func(c *storedClient) error { c.Disabled = false; stored = *c; return nil })
	}
	if err != nil { // nobody has seen its secret: it has to be possible to add it again
		ctx, cancel := withoutCaller(ctx, endWithin)
		defer cancel()
		return storedClient{}, "", errors.Join(err, s.clients.records.Delete(ctx, described.ClientID))
	}
	return stored, secret, nil
}

// checkNewClient refuses what the configuration would refuse.
func (s *Server) checkNewClient(ctx context.Context, c Client, secret string) error {
	if _, configured := s.clients.described[c.ClientID]; configured {
		return adminExists("there is a client %q already, in the configuration", c.ClientID)
	}
	c.ClientSecret = secret
	var check checker
	check.clients([]Client{c}, s.resources.described, s.resources.owner)
	var problems []string
	for _, problem := range check.problems {
		if !problem.Warning || problem.Key == "clients[0].redirect_uris" { // what is new need not be useless
			problems = append(problems, strings.TrimPrefix(strings.TrimPrefix(problem.Key, "clients[0]"), ".")+" "+problem.Text)
		}
	}
	if len(problems) > 0 {
		return adminBadRequest("the client is not valid: %s", strings.TrimSpace(strings.Join(problems, "; ")))
	}
	// RFC 9700 §4.15: no client can pass for a user.
	known, err := s.userRecord(ctx, c.ClientID)
	if err == nil && known.exists {
		return adminExists("%q is the subject of a user", c.ClientID)
	}
	return err
}

// updateClient lets change alter a stored client; see store.Table.Update.
func (s *Server) updateClient(ctx context.Context, id string, change func(*storedClient) error) error {
	if _, configured := s.clients.described[id]; configured {
		return s.adminConfigured(fmt.Sprintf("client %q", id), "clients")
	}
	if !isClientID(id) {
		return noSuchClient(id)
	}
	var refused error
	_, _, err := s.clients.records.Change(ctx, id, func(stored *storedClient) error {
		refused = change(stored)
		return refused
	})
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, store.ErrNotFound):
		return noSuchClient(id)
	case err != nil:
		return unavailable(fmt.Errorf("changing a client: %w", err))
	}
	s.clients.changed(id)
	return nil
}

// disableClient makes a stored client unable to do anything, and ends all that it has.
func (s *Server) disableClient(ctx context.Context, id, reason string) error {
	if err := s.updateClient(ctx, id, func(c *storedClient) error { c.Disabled = true; return nil }); err != nil {
		return err
	}
	return unavailableUnless(s.endClient(ctx, id, reason), "disabling a client")
}

// removeClient ends a stored client and removes every trace of it but the epoch that
// keeps its grants dead. When it fails half way, the client stays disabled, and the
// call can be repeated.
func (s *Server) removeClient(ctx context.Context, id, reason string) error {
	if err := s.disableClient(ctx, id, reason); err != nil {
		return err
	}
	stored, _, err := s.clients.records.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	for _, origin := range originsOf(stored.Client) {
		if err == nil {
			err = s.store.Unlink(ctx, originIndex(origin), id)
		}
	}
	if err == nil {
		err = s.clients.catalogue.remove(ctx, id)
	}
	if err == nil {
		err = s.clients.records.Delete(ctx, id)
	}
	if err != nil {
		return unavailable(fmt.Errorf("removing a client: %w", err))
	}
	s.clients.changed(id)
	return nil
}
