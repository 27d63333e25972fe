package keys

import (
	"context"
	"errors"
	"time"
)

// RevokedKey is a key that was declared compromised.
type RevokedKey struct {
	KeyID string    `json:"kid"`
	Ring  string    `json:"ring"`
	At    time.Time `json:"at"`
	// Until is when the last token that it can have signed has expired everywhere:
	// as long as verifiers have to be told not to take them.
	Until time.Time `json:"until"`
	// Exposed is until when a verifier that works offline and learns nothing of the
	// revocation may hold a key set with it. Zero for RefreshRing.
	Exposed time.Time `json:"exposed,omitzero"`
	// SignsNow is the kid that signs for the ring now, or else SignsFrom is from
	// when on one will: the next key must not sign while a cache can lack it.
	// RotateNow lets it sign at once all the same.
	SignsNow  string    `json:"signs_now,omitempty"`
	SignsFrom time.Time `json:"signs_from,omitzero"`
	// Already says that it had been revoked before; nothing was changed.
	Already bool `json:"already,omitempty"`
}

// Revoke declares a key compromised, whatever its state. When it returns, the key
// is not in this instance's JWKS, verifies nothing here, signs nothing here, and
// its private half is destroyed; the other instances follow within PollEvery. The
// next key signs, if no cache can lack it.
//
// A server that tells its verifiers of revocations first calls Revoke, then
// appends the revocation of the kid to its log, and then acknowledges. If it dies
// in between, the operator's repetition does both again: Revoke of a revoked key
// returns what it did. In the other order verifiers would refuse tokens of a key
// that still signs.
func (m *Manager) Revoke(ctx context.Context, by By, kid string) (RevokedKey, error) {
	if err := by.check(true); err != nil {
		return RevokedKey{}, err
	}
	already := false
	err := m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		ring, err := s.revoke(kid, now)
		already = errors.Is(err, errNothingToDo)
		return Entry{Action: ActionRevoke, Ring: ring, KeyID: kid}, err
	})
	if err != nil && !already {
		return RevokedKey{}, err
	}
	return m.revoked(kid, already)
}

// revoke makes a key compromised, and returns the name of its ring.
func (s *set) revoke(kid string, now time.Time) (string, error) {
	r, k := s.key(kid)
	switch {
	case k == nil:
		return "", unknownKey(kid)
	case k.State == compromised:
		return r.Name, errNothingToDo
	}
	k.stop(compromised, now)
	return r.Name, nil
}

func unknownKey(kid string) error {
	return refuse("there is no key %q; one that is gone has no tokens left that could be accepted (the key log tells what became of it)", kid)
}

func (m *Manager) revoked(kid string, already bool) (RevokedKey, error) {
	s := m.current.Load().set
	r, k := s.key(kid)
	if k == nil {
		return RevokedKey{}, unknownKey(kid)
	}
	p := m.config.policyOf(r.Name, s.LongestCache)
	result := RevokedKey{KeyID: kid, Ring: r.Name, At: k.Stopped, Until: k.Stopped.Add(k.Lifetime + p.slack), Already: already}
	if r.Name != RefreshRing {
		// From when the last instance has stopped publishing it.
		result.Exposed = time.Now().UTC().Round(0).Add(m.config.PollEvery + sharedCaches*s.LongestCache)
		if already {
			result.Exposed = k.Stopped.Add(m.config.PollEvery + sharedCaches*s.LongestCache)
		}
	}
	if signing := r.find(active); signing != nil && !signing.wanted() {
		result.SignsNow = signing.ID
	} else if standby := r.find(pending); standby != nil && !standby.wanted() {
		result.SignsFrom = standby.Published.Add(p.soonest)
	}
	return result, nil
}
