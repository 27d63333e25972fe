package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
)

// user is somebody who can sign in, ready for use.
type user struct {
	subject  string
	username string
	hash     passwordHash
	roles    []string
	disabled bool
}

// userRegistry holds the users; it does not change.
type userRegistry struct {
	byName map[string]user // by folded username
	bySub  map[string]user
}

func newUserRegistry(configured []User) userRegistry {
	registry := userRegistry{byName: make(map[string]user), bySub: make(map[string]user)}
	for _, u := range configured {
		hash, err := parsePasswordHash(u.PasswordHash)
		if err != nil { // Config.Check has refused it
			continue
		}
		compiled := user{u.subject(), u.Username, hash, u.Roles, u.Disabled}
		registry.byName[foldUsername(u.Username)] = compiled
		registry.bySub[compiled.subject] = compiled
	}
	return registry
}

// bySubject returns the user with a subject identifier and whether he may have
// tokens now.
func (r userRegistry) bySubject(subject string) (user, bool) {
	u, known := r.bySub[subject]
	return u, known && !u.disabled
}

// subject returns the subject identifier of u.
func (u User) subject() string {
	if u.Sub != "" {
		return u.Sub
	}
	hash := sha256.Sum256([]byte("authserver subject\x00" + foldUsername(u.Username)))
	return "user-" + base64.RawURLEncoding.EncodeToString(hash[:16])
}

// foldUsername makes the spellings of one account equal.
func foldUsername(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// errSignIn is the one answer to every failed sign-in.
var errSignIn = invalidGrant("the username or the password is wrong, or the account cannot sign in")

// signIn checks a username and password. Unknown and disabled users cost what
// known ones do and get the same answer.
func (s *Server) signIn(ctx context.Context, username, password string, address netip.Addr) (user, error) {
	account := foldUsername(username)
	attempt, err := s.throttle.admit(ctx, account, address)
	if err != nil {
		return user{}, err
	}
	u, known := s.users.byName[account]
	hash := u.hash
	if !known {
		hash = s.passwords.nobody
	}
	matches, err := s.passwords.verify(ctx, hash, password)
	if err != nil { // nothing was tried: a busy server must not slow down people who come back
		return user{}, errors.Join(err, s.throttle.withdraw(ctx, attempt))
	}
	if !matches || !known || u.disabled {
		s.log.Info("sign-in refused", "event", "sign_in_refused", "username", username, "address", address.String(),
			"known", known, "disabled", u.disabled)
		return user{}, errSignIn.because(errors.New("sign-in refused"))
	}
	if err := s.throttle.succeeded(ctx, attempt); err != nil {
		return user{}, err
	}
	if hash.weak() {
		s.log.Warn("a password hash has weaker parameters than new ones: make another with `authserver user hash`", "username", u.username)
	}
	s.log.Info("signed in", "event", "sign_in", "sub", u.subject, "username", u.username, "address", address.String())
	return u, nil
}
