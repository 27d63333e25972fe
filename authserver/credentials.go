package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"authserver/store"
)

// credentials is the record credentials/<sub>: what a user, configured or stored,
// proves himself with. It changes through updateCredentials only.
type credentials struct {
	Password      *storedPassword `json:"password,omitempty"`
	TOTP          *totpEnrolment  `json:"totp,omitempty"`
	Passkeys      []passkey       `json:"passkeys,omitempty"`
	RecoveryCodes []string        `json:"recovery_codes,omitempty"` // hashes of the unused ones
}

// storedPassword is a password that the server stored.
type storedPassword struct {
	Hash string `json:"hash"` // PHC string
	// Replaces names the configured hash that this one took the place of. A
	// configuration that says another hash now is newer, and wins.
	Replaces string `json:"replaces,omitempty"`
	Changed  int64  `json:"changed"` // seconds since 1970
}

func (s *Server) credentialsTable() store.Table[credentials] {
	return store.Table[credentials]{Store: s.store, Name: "credentials"}
}

// credentialsOf returns the credentials of a user, straight from the store.
func (s *Server) credentialsOf(ctx context.Context, subject string) (credentials, error) {
	found, _, err := s.credentialsTable().Get(ctx, subject)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return credentials{}, unavailable(fmt.Errorf("reading credentials: %w", err))
	}
	return found, nil
}

// storeCredentials is updateCredentials for what is no change to others.
func (s *Server) storeCredentials(ctx context.Context, subject string, change func(*credentials) error) error {
	var refused error
	_, _, err := s.credentialsTable().Update(ctx, subject, store.Forever, func(c *credentials) error {
		refused = change(c)
		return refused
	})
	if err != nil && refused == nil {
		return unavailable(fmt.Errorf("changing credentials: %w", err))
	}
	return err
}

// passwordHash returns the hash that counts for u, as a PHC string; empty for none.
func (c credentials) passwordHash(u user) string {
	if p := c.Password; p != nil && (u.hash == "" || p.Replaces == digestOf(u.hash)) {
		return p.Hash
	}
	return u.hash
}

// newStoredPassword is what replaces the password of u.
func newStoredPassword(u user, hash passwordHash) *storedPassword {
	replaces := ""
	if u.hash != "" {
		replaces = digestOf(u.hash)
	}
	return &storedPassword{Hash: hash.String(), Replaces: replaces, Changed: time.Now().Unix()}
}

func digestOf(phc string) string {
	digest := sha256.Sum256([]byte(phc))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

// passwordOf returns the hash of a user's password. For nobody, and for a user
// without a password, it is one that no password has.
func (s *Server) passwordOf(ctx context.Context, u user) (passwordHash, error) {
	subject := u.subject
	if subject == "" {
		subject = "nobody" // asked for all the same, so that unknown names take as long
	}
	found, err := s.credentialsOf(ctx, subject)
	if err != nil {
		return passwordHash{}, err
	}
	phc := found.passwordHash(u)
	if u.subject == "" || phc == "" {
		return s.passwords.nobody, nil
	}
	hash, err := parsePasswordHash(phc)
	if err != nil {
		return passwordHash{}, fmt.Errorf("the password hash of user %q: %w", u.subject, err)
	}
	return hash, nil
}

// errOvertaken ends a change that somebody else has made needless.
var errOvertaken = errors.New("the credentials were changed meanwhile")

// upgradePassword replaces a hash that is weaker than new ones, now that the
// password is known. A failure is logged; the next sign-in tries again.
func (s *Server) upgradePassword(ctx context.Context, u user, weak passwordHash, password string) {
	strong, err := s.passwords.hash(ctx, password)
	if err == nil {
		err = s.storeCredentials(ctx, u.subject, func(c *credentials) error {
			if c.passwordHash(u) != weak.String() {
				return errOvertaken
			}
			c.Password = newStoredPassword(u, strong)
			return nil
		})
	}
	if err != nil {
		s.log.Warn("a weak password hash could not be upgraded", "sub", u.subject, "error", err.Error())
		return
	}
	s.log.Info("password hash upgraded", "event", "password_hash_upgraded", "sub", u.subject)
}
