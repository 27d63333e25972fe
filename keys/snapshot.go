package keys

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// snapshot is the keys of one stored version, ready for use. It does not change.
type snapshot struct {
	version uint64
	read    time.Time // before it was read from the store
	signers map[string]*signer
	access  map[string]public
	refresh map[string]public
	body    []byte // the JWKS
	etag    string
	whole   bool      // every configured ring has a key
	next    time.Time // when a key changes state next
}

type public struct {
	algorithm string
	key       crypto.PublicKey
}

func (s *snapshot) keysOf(ring string) map[string]public {
	if ring == RefreshRing {
		return s.refresh
	}
	return s.access
}

// publish makes the JWKS (RFC 7517 §5), in a fixed order, of public members only.
func (s *snapshot) publish(stored set, config Config) error {
	list := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for kid, p := range s.access {
		list.Keys = append(list.Keys, jose.JSONWebKey{Key: p.key, KeyID: kid, Algorithm: p.algorithm, Use: "sig"})
	}
	slices.SortFunc(list.Keys, func(a, b jose.JSONWebKey) int { return strings.Compare(a.KeyID, b.KeyID) })
	body, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encoding the JWKS: %w", err)
	}
	hash := sha256.Sum256(body)
	s.body, s.etag = body, `"`+base64.RawURLEncoding.EncodeToString(hash[:12])+`"`
	now := time.Now()
	s.next, s.whole = now.Add(config.RotateEvery), true
	for _, r := range stored.Rings {
		if at := transition(r, config.policyFor(r.Name), now); r.Name != RefreshRing && at.Before(s.next) {
			s.next = at
		}
	}
	for _, algorithm := range config.Algorithms {
		s.whole = s.whole && slices.ContainsFunc(stored.Rings, func(r ring) bool { return r.Name == algorithm })
	}
	return nil
}

// JWKS is the public key set and how it may be cached.
type JWKS struct {
	Body   []byte // RFC 7517 §5
	ETag   string // strong, quoted
	MaxAge time.Duration
}

// JWKS returns the published keys from memory; the store is not asked.
//
// Caches are told to come back when the next key changes state, and in any case
// after Config.CacheFor. Each key is published longer than that before it signs
// (Config.Check), so no fresh copy ever lacks the key of a token.
func (m *Manager) JWKS() JWKS {
	s := m.current.Load()
	age := time.Duration(0)
	if s.whole {
		age = min(m.config.CacheFor, max(time.Until(s.next), min(m.config.CacheFor, time.Minute)))
	}
	return JWKS{s.body, s.etag, age}
}

// Default returns the algorithm that signs where nothing else is asked for.
func (m *Manager) Default() string { return m.config.Algorithms[0] }

// Algorithms returns the algorithms of the published rings, the default first.
func (m *Manager) Algorithms() []string { return slices.Clone(m.config.Algorithms) }

// AccessKey returns the public key of a published ring.
func (m *Manager) AccessKey(kid string) (algorithm string, key crypto.PublicKey, ok bool) {
	p, ok := m.current.Load().access[kid]
	return p.algorithm, p.key, ok
}

// RefreshKey returns the public key of the ring that signs refresh tokens.
func (m *Manager) RefreshKey(kid string) (algorithm string, key crypto.PublicKey, ok bool) {
	p, ok := m.current.Load().refresh[kid]
	return p.algorithm, p.key, ok
}

// Sign returns payload as a JWS in compact serialization with the header members
// alg, kid and typ. ring is an algorithm or RefreshRing. It fails with ErrNoKey
// or ErrLease; both pass.
func (m *Manager) Sign(ring, typ string, payload []byte) (string, error) {
	s := m.current.Load()
	signer := s.signers[ring]
	if signer == nil {
		return "", fmt.Errorf("%s: %w", ring, ErrNoKey)
	}
	if time.Since(s.read) > lease {
		return "", ErrLease
	}
	token, err := signer.sign(typ, payload)
	// The process may have been stopped in between and the keys been rotated.
	if err == nil && time.Since(s.read) > lease {
		return "", ErrLease
	}
	return token, err
}
