package keys

import (
	"slices"
	"time"
)

// state is where a key is in its life; in brackets the name in NIST SP 800-57
// part 1, §7. A key that is gone is not in its ring any more.
type state string

const (
	pending     state = "pending"     // published, does not sign yet [pre-activation]
	active      state = "active"      // signs [active]
	retiring    state = "retiring"    // verifies; its private half is destroyed [deactivated]
	compromised state = "compromised" // neither published nor verifying, never again [compromised]
)

// ring is the keys of one algorithm and use, oldest first. At most one of them is
// active and at most one pending.
type ring struct {
	Name      string `json:"name"` // the algorithm, or RefreshRing
	Algorithm string `json:"alg"`
	Keys      []key  `json:"keys"`
	// Rotate is when an operator asked that the next key take over before the
	// schedule says so. Retire is when one asked that the ring end.
	Rotate time.Time `json:"rotate,omitzero"`
	Retire time.Time `json:"retire,omitzero"`
}

// key is a key of a ring. Without a kid it is one that is wanted: its material is
// made outside of next and filled in before the ring is stored.
type key struct {
	ID        string        `json:"kid,omitempty"` // RFC 7638 thumbprint
	State     state         `json:"state"`
	Published time.Time     `json:"published,omitzero"` // stored, and so in the JWKS, from then on
	Activated time.Time     `json:"activated,omitzero"`
	Stopped   time.Time     `json:"stopped,omitzero"`  // signing, by retirement or compromise
	Lifetime  time.Duration `json:"lifetime"`          // of the longest token that it may have signed
	Public    []byte        `json:"public,omitempty"`  // PKIX, DER
	Private   *private      `json:"private,omitempty"` // where the private half is while pending or active, else nil: destroyed
}

func (k key) wanted() bool { return k.ID == "" }

// policy is how long the keys of a ring stay in each state.
type policy struct {
	rotateEvery   time.Duration // active, before the next one takes over
	publishBefore time.Duration // pending, before it takes over from one that is due
	soonest       time.Duration // pending, before it signs where none does: any shorter, and fresh caches lack it
	lifetime      time.Duration // of the longest token that is signed from now on
	slack         time.Duration // retiring, beyond the lifetime of the longest token
	spread        time.Duration // until every instance knows of a change, or has stopped signing
}

// next returns the ring as it has to be at now. It is pure and idempotent, so any
// instance comes to the same ring, however late it is:
//
//   - A due key goes on signing until the pending one has been published long
//     enough. However long nobody ran next, there is one step at most, and a key
//     that was not published never signs.
//   - Where no key signs (it was compromised, or the ring is new), the pending one
//     takes over as soon as no fresh cache can lack it. Until then none signs: that
//     is the rest of policy.soonest after a rotation, and no time at all later on.
//   - The private half is destroyed when a key stops signing. The public half stays
//     until the longest token it signed has expired everywhere. A compromised key
//     is remembered for as long; the key log remembers it for ever.
//   - A ring that is to end does so when every instance has had the time to object
//     (see advance). Its active key retires and its standby, which never signed, goes.
func next(r ring, p policy, now time.Time) ring {
	ends := r.ends(p, now)
	r.Keys = slices.DeleteFunc(slices.Clone(r.Keys), func(k key) bool {
		switch k.State {
		case retiring, compromised:
			return reached(now, k.Stopped, k.Lifetime+p.slack)
		case pending:
			return ends
		case active:
			return ends && k.wanted()
		}
		return false
	})
	for i := range r.Keys {
		switch k := &r.Keys[i]; k.State {
		case pending, active:
			k.Lifetime = max(k.Lifetime, p.lifetime)
		case compromised:
			k.Private = nil
		}
	}
	signing, standby := r.find(active), r.find(pending)
	if ends {
		if signing != nil {
			signing.stop(retiring, now)
		}
		return r
	}
	if r.takesOver(signing, standby, p, now) {
		r.switchKeys(signing, standby, now)
		standby = nil
	}
	if standby == nil {
		r.Keys = append(r.Keys, key{State: pending, Lifetime: p.lifetime})
	}
	return r
}

// ends reports whether the time of a ring that an operator asked to end has come.
func (r ring) ends(p policy, now time.Time) bool {
	return !r.Retire.IsZero() && reached(now, r.Retire, p.spread)
}

// switchKeys lets the standby sign instead of the signing key, if there is one. A
// signing key that is not made yet is not wanted any more. The pointers into r are
// not good afterwards.
func (r *ring) switchKeys(signing, standby *key, now time.Time) {
	standby.State, standby.Activated = active, now
	r.Rotate = time.Time{}
	switch {
	case signing != nil && signing.wanted():
		r.Keys = slices.DeleteFunc(r.Keys, func(k key) bool { return k.State == active && k.wanted() })
	case signing != nil:
		signing.stop(retiring, now)
	}
}

// stop ends the signing of a key and destroys its private half.
func (k *key) stop(s state, now time.Time) {
	k.State, k.Private = s, nil
	if k.Stopped.IsZero() {
		k.Stopped = now
	}
}

func (r ring) takesOver(signing, standby *key, p policy, now time.Time) bool {
	switch {
	case standby == nil || standby.wanted():
		return false
	case signing == nil:
		return reached(now, standby.Published, p.soonest)
	case signing.wanted():
		return false
	}
	due := !r.Rotate.IsZero() || reached(now, signing.Activated, p.rotateEvery)
	return due && reached(now, standby.Published, p.publishBefore)
}

// fill gives a wanted key its material. A key that is wanted active is the first
// of a new set and signs at once.
func (k *key) fill(m material, now time.Time) {
	k.ID, k.Public, k.Private, k.Published = m.id, m.public, &m.private, now
	if k.State == active {
		k.Activated = now
	}
}

// find returns the key of r in a state that only one can be in, or nil.
func (r ring) find(s state) *key {
	i := slices.IndexFunc(r.Keys, func(k key) bool { return k.State == s })
	if i < 0 {
		return nil
	}
	return &r.Keys[i]
}

// reached reports whether a duration has passed since an instant.
func reached(now, since time.Time, d time.Duration) bool { return !now.Before(since.Add(d)) }
