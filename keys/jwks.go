package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// JWKS is the public key set (RFC 7517 §5) and how it may be cached.
type JWKS struct {
	Body   []byte        // JSON; not to be changed
	ETag   string        // strong, in quotes; the same for the same body, on every instance
	MaxAge time.Duration // 0 to Config.CacheFor
}

// publish makes the body of the JWKS: public halves only, in the order of the set.
func (n *snapshot) publish() error {
	document := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, r := range n.set.Rings {
		for _, k := range r.Keys {
			if p, ok := n.access[k.ID]; ok {
				document.Keys = append(document.Keys, jose.JSONWebKey{Key: p.key, KeyID: k.ID, Algorithm: p.algorithm, Use: "sig"})
			}
		}
	}
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encoding the JWKS: %w", err)
	}
	sum := sha256.Sum256(body)
	n.body, n.etag = body, `"`+base64.RawURLEncoding.EncodeToString(sum[:])+`"`
	return nil
}

// JWKS returns the published keys from memory, whatever the store does.
func (m *Manager) JWKS() JWKS {
	n := m.current.Load()
	return JWKS{Body: n.body, ETag: n.etag, MaxAge: maxAge(n.set, m.config, n.age())}
}

// maxAge returns how long an answer made of a set may be cached that was known age
// ago to be the stored one: the answer must be stale before a key that it lacks can
// sign. Such a key was stored after the set was read, and signs Config.soonest
// later at the earliest. With h = sharedCaches and soonest for a max-age of M:
//
//	h·max-age ≤ read + h·M + lease − now
//
// So it is M within the lease, and shrinks to 0 while the store cannot be read. It
// is 0 as well while a ring waits for its very first key, which will sign at once.
func maxAge(s set, c Config, age time.Duration) time.Duration {
	for _, r := range s.Rings {
		if first := r.find(active); first != nil && first.wanted() && r.Name != RefreshRing {
			return 0
		}
	}
	// While a longer max-age is configured but not stored, no key waits for it.
	longest := min(c.CacheFor, s.LongestCache)
	return max(0, longest-max(0, age-c.Lease)/sharedCaches)
}
