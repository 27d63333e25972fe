package keys

import (
	"crypto"
	"fmt"
	"sync/atomic"
	"time"
)

// snapshot is the keys of one stored version, ready for use. But for confirmed, it
// does not change.
type snapshot struct {
	version   uint64
	set       set
	confirmed atomic.Pointer[time.Time] // before the last read that found this version

	opened  map[string]*signer // by kid: pending and active keys
	signers map[string]*signer // by ring: active keys
	access  map[string]public  // by kid: published keys
	refresh map[string]public  // by kid: those of RefreshRing
	usage   map[string]*usage  // by kid: of all keys but compromised ones
	body    []byte             // of the JWKS
	etag    string
}

// public is what verifies.
type public struct {
	algorithm string
	key       crypto.PublicKey
	usage     *usage
}

// newSnapshot opens every private key of a set that held does not have open.
func (m *Manager) newSnapshot(version uint64, s set, held *snapshot) (*snapshot, error) {
	if held == nil {
		held = new(snapshot)
	}
	n := &snapshot{
		version: version, set: s,
		opened: make(map[string]*signer), signers: make(map[string]*signer),
		access: make(map[string]public), refresh: make(map[string]public), usage: make(map[string]*usage),
	}
	for _, r := range s.Rings {
		for _, k := range r.Keys {
			if err := m.take(n, held, r, k); err != nil {
				return nil, err
			}
		}
	}
	return n, n.publish()
}

// take puts one key where its state says it is used. A compromised one is used nowhere.
func (m *Manager) take(n, held *snapshot, r ring, k key) error {
	if k.wanted() || k.State == compromised {
		return nil
	}
	key, err := parsePublic(k.Public, r.Algorithm)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.ID, err)
	}
	verifying := n.access
	if r.Name == RefreshRing {
		verifying = n.refresh
	}
	if n.usage[k.ID] = held.usage[k.ID]; n.usage[k.ID] == nil {
		n.usage[k.ID] = new(usage)
	}
	verifying[k.ID] = public{r.Algorithm, key, n.usage[k.ID]}
	if k.Private == nil {
		return nil
	}
	if n.opened[k.ID] = held.opened[k.ID]; n.opened[k.ID] == nil {
		private, err := m.openPrivate(Place{m.config.Issuer, r.Name, r.Algorithm, k.ID}, key, *k.Private)
		if err != nil {
			return err
		}
		a, err := algorithmOf(r.Algorithm)
		if err != nil {
			return err
		}
		n.opened[k.ID] = newSigner(k.ID, a, private, n.usage[k.ID])
	}
	if r.signs(k, m.config) {
		n.signers[r.Name] = n.opened[k.ID]
	}
	return nil
}

// age is how long ago the version was known to be the stored one. The monotonic
// clock stands still while a machine sleeps and the wall clock can be set back:
// the longer time counts.
func (n *snapshot) age() time.Duration {
	confirmed, now := *n.confirmed.Load(), time.Now()
	return max(now.Sub(confirmed), now.Round(0).Sub(confirmed.Round(0)))
}

// noKey says why nothing signs for a ring, and from when on something will.
func (n *snapshot) noKey(name string, c Config) error {
	for _, r := range n.set.Rings {
		if r.Name != name {
			continue
		}
		signing, standby := r.find(active), r.find(pending)
		switch {
		case signing != nil && !signing.wanted():
			return fmt.Errorf("%w: that of ring %q is not kept for such long tokens yet", ErrNoKey, name)
		case signing != nil || standby == nil || standby.wanted():
			return fmt.Errorf("%w: that of ring %q is being made", ErrNoKey, name)
		}
		from := standby.Published.Add(c.policyOf(name, n.set.LongestCache).soonest)
		return fmt.Errorf("%w: that of ring %q signs from %s on, when no cache can lack it", ErrNoKey, name, from.Format(time.RFC3339))
	}
	return fmt.Errorf("%w: there is no ring %q", ErrNoKey, name)
}
