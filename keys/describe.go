package keys

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Overview is everything there is to see about the keys, without private halves.
type Overview struct {
	Issuer string `json:"issuer"`
	// Signing reports whether this instance holds its lease; Confirmed is when it
	// last read the stored set.
	Signing   bool       `json:"signing"`
	Confirmed time.Time  `json:"confirmed"`
	Rings     []RingView `json:"rings"`
	// MasterKeys are those that were given, the one that seals first.
	MasterKeys []MasterKeyView `json:"master_keys"`
	// FailedRotations counts the steps of this instance that ended in an error.
	FailedRotations uint64 `json:"failed_rotations"`
}

// RingView is one ring.
type RingView struct {
	Name       string    `json:"name"` // the algorithm, or "refresh"
	Algorithm  string    `json:"alg"`
	Published  bool      `json:"published"`       // its keys are in the JWKS; not those of refresh tokens
	Configured bool      `json:"configured"`      // this instance has it in keys.algorithms
	Default    bool      `json:"default"`         // what signs where no algorithm is named
	Rotating   time.Time `json:"rotate,omitzero"` // an operator asked for a rotation that is to come
	Retiring   time.Time `json:"retire,omitzero"` // an operator asked for its end
	Keys       []KeyView `json:"keys"`            // oldest first
}

// KeyView is one key. Times that have not come are zero.
type KeyView struct {
	KeyID     string    `json:"kid"`
	Ring      string    `json:"ring"`
	Algorithm string    `json:"alg"`
	State     string    `json:"state"` // pending, active, retiring, compromised
	Published time.Time `json:"published,omitzero"`
	Activated time.Time `json:"activated,omitzero"`
	Stopped   time.Time `json:"stopped,omitzero"`
	// Lifetime is that of the longest token that it may have signed, in seconds.
	Lifetime int64       `json:"token_lifetime"`
	Next     *Transition `json:"next,omitempty"` // what becomes of it by itself, if anything
	Backend  string      `json:"backend,omitempty"`
	// Signed and Verified count tokens of this instance since it started.
	Signed   uint64 `json:"signed"`
	Verified uint64 `json:"verified"`
}

// PublicKey is a KeyView with the public half.
type PublicKey struct {
	KeyView
	JWK json.RawMessage `json:"jwk"`
	PEM string          `json:"pem"` // PKIX, "PUBLIC KEY"
}

// Describe returns what this instance knows of all keys. It asks nothing of the store.
func (m *Manager) Describe() Overview {
	n := m.current.Load()
	overview := Overview{
		Issuer: n.set.Issuer, Signing: m.leased(n), Confirmed: n.confirmed.Load().UTC().Round(0),
		Rings: []RingView{}, MasterKeys: m.masterKeyViews(n.set), FailedRotations: m.failures.Load(),
	}
	for _, r := range n.set.Rings {
		view := RingView{
			Name: r.Name, Algorithm: r.Algorithm, Published: r.Name != RefreshRing,
			Configured: slices.Contains(m.config.Algorithms, r.Name), Default: r.Name == m.Default(),
			Rotating: r.Rotate, Retiring: r.Retire, Keys: []KeyView{},
		}
		for _, k := range r.Keys {
			if !k.wanted() {
				view.Keys = append(view.Keys, m.view(n, r, k))
			}
		}
		overview.Rings = append(overview.Rings, view)
	}
	return overview
}

func (m *Manager) view(n *snapshot, r ring, k key) KeyView {
	view := KeyView{
		KeyID: k.ID, Ring: r.Name, Algorithm: r.Algorithm, State: string(k.State),
		Published: k.Published, Activated: k.Activated, Stopped: k.Stopped, Lifetime: int64(k.Lifetime.Seconds()),
	}
	if k.Private != nil {
		view.Backend = k.Private.Backend
	}
	if at, to := r.transition(k, m.config.policyOf(r.Name, n.set.LongestCache)); to != "" {
		view.Next = &Transition{At: at, Ring: r.Name, KeyID: k.ID, From: string(k.State), To: string(to)}
	}
	if u := n.usage[k.ID]; u != nil {
		view.Signed, view.Verified = u.signed.Load(), u.verified.Load()
	}
	return view
}

// Show returns one key with its public half, whatever its state; a Refusal when
// there is none.
func (m *Manager) Show(kid string) (PublicKey, error) {
	n := m.current.Load()
	r, k := n.set.key(kid)
	if k == nil {
		return PublicKey{}, unknownKey(kid)
	}
	public, err := parsePublic(k.Public, r.Algorithm)
	if err != nil {
		return PublicKey{}, fmt.Errorf("key %s: %w", kid, err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: public, KeyID: kid, Algorithm: r.Algorithm, Use: "sig"})
	if err != nil {
		return PublicKey{}, fmt.Errorf("encoding key %s: %w", kid, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return PublicKey{}, fmt.Errorf("encoding key %s: %w", kid, err)
	}
	return PublicKey{m.view(n, *r, *k), jwk, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, nil
}
