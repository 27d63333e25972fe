package keys

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
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
	whole   bool // every ring has a key
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

// adopt makes a stored set the one in use.
func (m *Manager) adopt(stored set, version uint64, read time.Time) error {
	s := &snapshot{
		version: version, read: read, whole: true,
		signers: make(map[string]*signer), access: make(map[string]public), refresh: make(map[string]public),
	}
	held := make(map[string]*signer)
	for _, r := range stored.Rings {
		s.whole = s.whole && len(r.Keys) > 0
		for _, k := range r.Keys {
			if k.State == compromised {
				continue
			}
			key, err := k.publicKey(r)
			if err != nil {
				return err
			}
			s.keysOf(r.Name)[k.ID] = public{r.Algorithm, key}
			if k.Sealed == nil {
				continue
			}
			signs := m.signers[k.ID]
			if signs == nil {
				if signs, err = k.unseal(r, m.config.MasterKey, m.config.Issuer); err != nil {
					return err
				}
			}
			held[k.ID] = signs
			if k.State == active {
				s.signers[r.Name] = signs
			}
		}
	}
	if err := s.publish(); err != nil {
		return err
	}
	m.signers = held
	m.current.Store(s)
	return nil
}

// publicKey reads the public half and checks that it is what the kid says.
func (k *key) publicKey(r ring) (crypto.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return nil, fmt.Errorf("reading public key %s: %w", k.ID, err)
	}
	if id, err := thumbprint(parsed); err != nil || id != k.ID || !suits(parsed, r.Algorithm) {
		return nil, fmt.Errorf("reading public key %s: it is another key or not one for %s", k.ID, r.Algorithm)
	}
	return parsed, nil
}

// publish makes the JWKS (RFC 7517 §5), in a fixed order, of public members only.
func (s *snapshot) publish() error {
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
	s.body, s.etag = body, `"`+base64.RawURLEncoding.EncodeToString(hash[:16])+`"`
	return nil
}

// expired reports whether the store was not read for longer than a lease. The
// monotonic clock stands still while a machine sleeps and the wall clock may be
// set back, so the one that says more counts.
func (s *snapshot) expired() bool {
	now := time.Now()
	return max(now.Sub(s.read), now.Round(0).Sub(s.read.Round(0))) > lease
}

// maxAge is how long the JWKS may be cached: an answer must be stale before any
// key signs that it lacks. Such a key was made after the store was read, and signs
// PublishBefore later at the earliest, less the clocks' difference and the time
// until every instance lists it. A cache that strips Age doubles what is left.
func (s *snapshot) maxAge(c Config) time.Duration {
	if !s.whole {
		return 0
	}
	left := c.PublishBefore - skew - lease - time.Since(s.read)
	return max(0, min(c.CacheFor, left/2)).Truncate(time.Second)
}

// JWKS is the public key set and how it may be cached.
type JWKS struct {
	Body   []byte        // RFC 7517 §5; not to be changed
	ETag   string        // strong, quoted
	MaxAge time.Duration // whole seconds; 0: ask every time
}

// JWKS returns the published keys from memory; the store is not asked.
func (m *Manager) JWKS() JWKS {
	s := m.current.Load()
	return JWKS{s.body, s.etag, s.maxAge(m.config)}
}

// Default returns the algorithm that signs where nothing else is asked for.
func (m *Manager) Default() string { return m.config.Algorithms[0] }

// Algorithms returns the algorithms of the published rings, the default first.
func (m *Manager) Algorithms() []string { return slices.Clone(m.config.Algorithms) }

// AccessKey returns the public key of a published ring.
func (m *Manager) AccessKey(kid string) (alg string, key crypto.PublicKey, ok bool) {
	p, ok := m.current.Load().access[kid]
	return p.algorithm, p.key, ok
}

// RefreshKey returns the public key of the ring that signs refresh tokens.
func (m *Manager) RefreshKey(kid string) (alg string, key crypto.PublicKey, ok bool) {
	p, ok := m.current.Load().refresh[kid]
	return p.algorithm, p.key, ok
}

// Sign returns payload as a JWS in compact serialization with the header members
// alg, kid and typ. ring is an algorithm or RefreshRing. It fails with ErrNoKey
// or ErrLease; both pass.
func (m *Manager) Sign(ring, typ string, payload []byte) (string, error) {
	s := m.current.Load()
	if s.expired() {
		return "", ErrLease
	}
	signer := s.signers[ring]
	if signer == nil {
		return "", fmt.Errorf("%s: %w", ring, ErrNoKey)
	}
	token, err := signer.sign(typ, payload)
	// The process may have been stopped in between and the keys been rotated.
	if err == nil && s.expired() {
		return "", ErrLease
	}
	return token, err
}
