package authserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/store"
)

// consent is what a user has allowed a client, remembered so that he is asked once.
// To revoke it ends no grant; who ends the client's access does both.
type consent struct {
	ClientID string   `json:"client_id"`
	Subject  string   `json:"sub"`
	Scope    []string `json:"scope"`
	Given    int64    `json:"given"` // for the last time; seconds since 1970
}

// consentKey names the record of a user and a client; the two may be too long for a key.
func consentKey(subject, clientID string) string {
	return hashOf("consent\x00" + subject + "\x00" + clientID)
}

// consentsOf names the index of the clients that a user has allowed something.
func consentsOf(subject string) string { return "consents/sub/" + subject }

// consented returns what subject has allowed a client.
func (s *Server) consented(ctx context.Context, subject string, c *client) ([]string, error) {
	given, _, err := s.consents.Get(ctx, consentKey(subject, c.id))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, unavailable(fmt.Errorf("looking up a consent: %w", err))
	}
	if given.Given < c.created { // to another one, which had the same id before
		return nil, nil
	}
	return given.Scope, nil
}

// needsConsent reports whether the user of current must be asked before a client
// gets what it asks for.
func (s *Server) needsConsent(ctx context.Context, c *client, request authorizationRequest, current *session) (bool, error) {
	switch {
	case request.prompts("consent"):
		return true, nil
	case c.public() && !strings.HasPrefix(request.RedirectURI, "https:"):
		// Anybody on the user's machine can pass for a native app: it is not enough
		// that he has allowed it once (RFC 8252 §8.6, ATTACKS BR-11).
		return true, nil
	case c.skipsConsent:
		return false, nil
	}
	given, err := s.consented(ctx, current.Subject, c)
	missing := func(one string) bool { return !slices.Contains(given, one) }
	return slices.ContainsFunc(request.consentScope(), missing) || len(given) == 0, err
}

// rememberConsent adds scope to what subject has allowed a client.
func (s *Server) rememberConsent(ctx context.Context, subject string, c *client, scope []string) error {
	now := time.Now()
	expires := now.Add(s.tokens.RefreshMax)
	key := consentKey(subject, c.id)
	for range 20 {
		given, record, err := s.consents.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return unavailable(fmt.Errorf("looking up a consent: %w", err))
		}
		if given.Given < c.created { // to another one, which had the same id before
			given.Scope = nil
		}
		given.ClientID, given.Subject, given.Given = c.id, subject, now.Unix()
		for _, one := range scope {
			if !slices.Contains(given.Scope, one) {
				given.Scope = append(given.Scope, one)
			}
		}
		if record.Exists() {
			_, err = s.consents.Swap(ctx, key, record.Version, given, expires)
		} else {
			err = s.consents.Create(ctx, key, given, expires)
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err == nil {
			err = s.store.Link(ctx, consentsOf(subject), c.id, expires)
		}
		if err != nil {
			return unavailable(fmt.Errorf("storing a consent: %w", err))
		}
		s.log.Info("consent given", "event", "consent", "client_id", c.id, "sub", subject, "scope", strings.Join(scope, " "))
		return nil
	}
	return unavailable(errors.New("storing a consent: too many at once"))
}

// forgetConsents makes all clients ask subject again.
func (s *Server) forgetConsents(ctx context.Context, subject string) error {
	var clients []string
	for member, err := range s.store.Linked(ctx, consentsOf(subject), store.Member{}) {
		if err != nil {
			return unavailable(fmt.Errorf("listing consents: %w", err))
		}
		clients = append(clients, member.Name)
	}
	for _, clientID := range clients {
		if err := s.forgetConsent(ctx, subject, clientID); err != nil {
			return err
		}
	}
	return nil
}

// forgetConsent makes a client ask subject again.
func (s *Server) forgetConsent(ctx context.Context, subject, clientID string) error {
	err := s.consents.Delete(ctx, consentKey(subject, clientID))
	if err == nil {
		err = s.store.Unlink(ctx, consentsOf(subject), clientID)
	}
	if err != nil {
		return unavailable(fmt.Errorf("revoking a consent: %w", err))
	}
	s.log.Info("consent revoked", "event", "consent_revoked", "client_id", clientID, "sub", subject)
	return nil
}
