package authserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"authserver/store"
)

// Changes of users. Whoever makes them goes through these functions, so that
// indexes and revocations follow.

// userRecord is what the store says now of a user, disabled or not.
func (s *Server) userRecord(ctx context.Context, subject string) (knownUser, error) {
	if !isSubject(subject) {
		return knownUser{}, nil
	}
	known, _, err := s.users.load(ctx, subject)
	if err != nil {
		return knownUser{}, unavailable(fmt.Errorf("reading a user: %w", err))
	}
	return known, nil
}

// newUser describes a user to be stored.
type newUser struct {
	subject  string // one is made when empty
	username string
	password string // PHC string; empty for none
	roles    []string
	claims   map[string]any
}

// addUser stores a new user and returns his subject. He can sign in from the moment
// that he has his username, which is the last step, and one that only one can take.
func (s *Server) addUser(ctx context.Context, u newUser) (string, error) {
	if u.subject == "" {
		u.subject = newID()
	}
	if err := s.checkNewUser(ctx, u); err != nil {
		return "", err
	}
	now := time.Now().Unix()
	stored := storedUser{Username: u.username, Roles: u.roles, Claims: u.claims, Created: now}
	err := s.users.catalogue.add(ctx, u.subject, store.Forever)
	if err == nil {
		err = s.users.records.Create(ctx, u.subject, stored, store.Forever)
	}
	if errors.Is(err, store.ErrExists) {
		return "", adminExists("there is a user with the subject %q already", u.subject)
	}
	if err == nil { // a client that is added at this moment sees the user, or is seen here
		if _, _, lookup := s.clients.records.Get(ctx, u.subject); lookup == nil {
			return "", errors.Join(adminExists("%q is the client_id of a client", u.subject), s.eraseUser(ctx, u.subject))
		} else if !errors.Is(lookup, store.ErrNotFound) {
			err = lookup
		}
	}
	if err == nil && u.password != "" {
		_, _, err = s.credentialsTable().Update(ctx, u.subject, store.Forever, func(c *credentials) error {
			*c = credentials{Password: &storedPassword{Hash: u.password, Changed: now}}
			return nil
		})
	}
	if err != nil {
		return "", unavailable(fmt.Errorf("storing a user: %w", err))
	}
	taken, err := s.claimUsername(ctx, u.username, u.subject)
	if err == nil && taken {
		err = adminExists("there is a user %q already", u.username).hint("authserver user show %q", u.username)
	}
	if err != nil {
		return "", errors.Join(err, s.eraseUser(ctx, u.subject))
	}
	s.users.changed(u.subject)
	return u.subject, nil
}

func (s *Server) checkNewUser(ctx context.Context, u newUser) error {
	var check checker
	phc := u.password
	if phc == "" {
		phc = s.passwords.nobody.String()
	}
	check.users([]User{{Username: u.username, Sub: u.subject, PasswordHash: phc}}, nil)
	for _, problem := range check.problems {
		return adminBadRequest("the user is not valid: %s %s", problem.Key[len("users[0]."):], problem.Text)
	}
	if _, configured := s.users.names[foldUsername(u.username)]; configured {
		return adminExists("there is a user %q already, in the configuration", u.username)
	}
	known, err := s.userRecord(ctx, u.subject)
	if err == nil && known.exists {
		return adminExists("there is a user with the subject %q already", u.subject)
	}
	if err != nil {
		return err
	}
	// RFC 9700 §4.15: no user can pass for a client, not even for one that is disabled.
	owner, err := s.clients.lookUp(ctx, u.subject)
	if err != nil {
		return err
	}
	if s.clients.configured[u.subject] != nil || owner.client != nil || owner.disabled {
		return adminExists("%q is the client_id of a client", u.subject)
	}
	return nil
}

// claimUsername gives a username to a subject, unless another user has it. One that
// a user who is gone has left behind is free.
func (s *Server) claimUsername(ctx context.Context, username, subject string) (taken bool, err error) {
	key := usernameKey(foldUsername(username))
	err = s.store.Create(ctx, key, []byte(subject), store.Forever)
	if !errors.Is(err, store.ErrExists) {
		return false, unavailableUnless(err, "claiming a username")
	}
	records, err := s.store.Get(ctx, key)
	if err != nil {
		return false, unavailableUnless(err, "claiming a username")
	}
	owner, err := s.userRecord(ctx, string(records[0].Value))
	if err != nil || owner.exists && foldUsername(owner.user.username) == foldUsername(username) {
		return true, err
	}
	_, err = s.store.Swap(ctx, key, records[0].Version, []byte(subject), store.Forever)
	if errors.Is(err, store.ErrConflict) {
		return true, nil
	}
	return false, unavailableUnless(err, "claiming a username")
}

// unavailableUnless makes a refusal of trouble with the store.
func unavailableUnless(err error, doing string) error {
	if err == nil {
		return nil
	}
	return unavailable(fmt.Errorf("%s: %w", doing, err))
}

// eraseUser removes every record of a stored user but his username.
func (s *Server) eraseUser(ctx context.Context, subject string) error {
	err := s.store.Delete(ctx, passkeyOwnerKey(userHandle(subject)))
	if err == nil {
		err = s.credentialsTable().Delete(ctx, subject)
	}
	if err == nil {
		err = s.users.catalogue.remove(ctx, subject)
	}
	if err == nil {
		err = s.users.records.Delete(ctx, subject)
	}
	s.users.changed(subject)
	return unavailableUnless(err, "removing a user")
}

// disableUser lets a user do nothing any more, and ends all that he has. That of a
// configured user is kept in the store, beside the configuration.
func (s *Server) disableUser(ctx context.Context, subject, reason string) error {
	if err := s.updateUser(ctx, subject, func(u *storedUser) error { u.Disabled = true; return nil }); err != nil {
		return err
	}
	return unavailableUnless(s.endSubject(ctx, subject, reason), "disabling a user")
}

// updateUser lets change alter the record of a user; see store.Table.Update.
func (s *Server) updateUser(ctx context.Context, subject string, change func(*storedUser) error) error {
	var refused error
	guarded := func(u *storedUser) error { refused = change(u); return refused }
	var err error
	if _, configured := s.users.configured[subject]; configured {
		_, _, err = s.users.records.Update(ctx, subject, store.Forever, guarded)
	} else {
		_, _, err = s.users.records.Change(ctx, subject, guarded)
	}
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, store.ErrNotFound):
		return adminNotFound("the user is not there any more")
	}
	s.users.changed(subject)
	return unavailableUnless(err, "changing a user")
}

// removeUser ends a stored user and removes what there is of him, so that nothing of it
// counts for another who is given his sub; but the epoch that keeps his grants dead, and
// what expires by itself and is dead. When it fails half way, he stays disabled, and the
// call can be repeated.
func (s *Server) removeUser(ctx context.Context, u user, reason string) error {
	if err := s.disableUser(ctx, u.subject, reason); err != nil {
		return err
	}
	if err := s.forgetConsents(ctx, u.subject); err != nil {
		return err
	}
	key := usernameKey(foldUsername(u.username))
	records, err := s.store.Get(ctx, key)
	if err == nil && string(records[0].Value) == u.subject {
		err = s.store.Delete(ctx, key)
	}
	if err != nil {
		return unavailable(fmt.Errorf("removing a username: %w", err))
	}
	return s.eraseUser(ctx, u.subject)
}
