package authserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"time"

	"authserver/keys"
	"authserver/store"
)

const (
	subjectPublic   = "public"
	subjectPairwise = "pairwise"
)

// subjectFor returns the subject identifier by which a client knows a user: the
// user's own, or one that clients of other sectors cannot connect with theirs
// (OpenID Connect Core §8.1). It is not stored.
func (s *Server) subjectFor(c *client, subject string) string {
	if c.sector == "" {
		return subject
	}
	mac := hmac.New(sha256.New, s.pairwiseSalt)
	mac.Write([]byte(c.sector + "\x00" + subject))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// pairwiseSalt returns the salt of pairwise subjects. It is derived from the master
// key at first, so that a server whose store was lost knows users as before; and
// stored, sealed, so that it outlives that master key.
func pairwiseSalt(s store.Store, manager *keys.Manager, issuer string) ([]byte, error) {
	const purpose = "pairwise subjects"
	record := "salt/" + hashed(issuer)
	box, err := manager.Box(purpose)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	records, err := s.Get(ctx, record)
	if err == nil && !records[0].Exists() {
		err = s.Create(ctx, record, box.Seal(manager.Salt(purpose), []byte(record)), store.Forever)
		if err == nil || errors.Is(err, store.ErrExists) { // another instance was first
			records, err = s.Get(ctx, record)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the salt of pairwise subjects: %w", err)
	}
	sealed, changed, err := box.Reseal(records[0].Value, []byte(record))
	if err != nil {
		return nil, fmt.Errorf("opening the salt of pairwise subjects: %w", err)
	}
	if changed {
		if _, err := s.Swap(ctx, record, records[0].Version, sealed, store.Forever); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("sealing the salt of pairwise subjects anew: %w", err)
		}
	}
	return box.Open(sealed, []byte(record))
}

// sector returns the host that pairwise subjects of a client are for, and "" when
// it has public ones. ok is false when its redirect URIs have several hosts and
// nothing says which counts.
func (c Client) sector() (host string, ok bool) {
	if c.SubjectType != subjectPairwise {
		return "", true
	}
	uris := c.RedirectURIs
	if c.SectorIdentifierURI != "" {
		uris = []string{c.SectorIdentifierURI}
	}
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil || u.Hostname() == "" || host != "" && u.Hostname() != host {
			return "", false
		}
		host = u.Hostname()
	}
	return host, host != ""
}
