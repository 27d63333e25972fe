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
	// ID is the password's identity, where it is another than that of its hash; see passwordID.
	ID      string `json:"id,omitempty"`
	Changed int64  `json:"changed"` // seconds since 1970
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
	if c.storedCounts(u) {
		return c.Password.Hash
	}
	return u.hash
}

// storedCounts reports whether the stored password of u is the one that counts.
func (c credentials) storedCounts(u user) bool {
	return c.Password != nil && (u.hash == "" || c.Password.Replaces == digestOf(u.hash))
}

// passwordID is the identity of the password that counts for u: another for each
// password, and the same when one is hashed anew.
func (c credentials) passwordID(u user) string {
	if c.storedCounts(u) && c.Password.ID != "" {
		return c.Password.ID
	}
	return digestOf(c.passwordHash(u))
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
func (s *Server) passwordOf(of account) (passwordHash, error) {
	phc := of.credentials.passwordHash(of.user)
	if of.user.subject == "" || phc == "" {
		return s.passwords.nobody, nil
	}
	hash, err := parsePasswordHash(phc)
	if err != nil {
		return passwordHash{}, fmt.Errorf("the password hash of user %q: %w", of.user.subject, err)
	}
	return hash, nil
}

// errOvertaken ends a change that somebody else has made needless.
var errOvertaken = errors.New("the credentials were changed meanwhile")

// upgradePassword replaces a hash that is weaker than new ones, now that the
// password is known. A failure is logged; the next sign-in tries again.
func (s *Server) upgradePassword(ctx context.Context, p proof, password string) {
	u := p.user
	strong, err := s.passwords.hash(ctx, password)
	if err == nil {
		err = s.storeCredentials(ctx, u.subject, func(c *credentials) error {
			if c.passwordID(u) != p.password {
				return errOvertaken
			}
			c.Password = newStoredPassword(u, strong)
			c.Password.ID = p.password
			return nil
		})
	}
	if err != nil {
		s.log.Warn("a weak password hash could not be upgraded", "sub", u.subject, "error", err.Error())
		return
	}
	s.log.Info("password hash upgraded", "event", "password_hash_upgraded", "sub", u.subject)
}
