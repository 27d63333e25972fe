package keys

import (
	"slices"
	"time"
)

// state is where a key is in its life (NIST SP 800-57 §7 in brackets).
type state string

const (
	pending     state = "pending"     // published, not yet signing [pre-activation]
	active      state = "active"      // signs [active]
	retiring    state = "retiring"    // verifies; its private half is destroyed [deactivated]
	compromised state = "compromised" // neither published nor verifying, never again [compromised]
)

// ring is the keys of one purpose and algorithm. A key that has no place in it
// any more is gone.
type ring struct {
	Name      string `json:"name"`
	Algorithm string `json:"alg"`
	Keys      []key  `json:"keys"`
}

// key is one key of a ring. Times are Unix seconds.
type key struct {
	ID      string  `json:"kid"`
	State   state   `json:"state"`
	Public  []byte  `json:"public"`           // PKIX DER
	Sealed  *sealed `json:"sealed,omitempty"` // private half; nil once destroyed
	Created int64   `json:"created"`          // published from then on
	Active  int64   `json:"active,omitempty"` // began to sign
	Retired int64   `json:"retired,omitempty"`
}

// policy is how long a ring's keys stay in each state.
type policy struct {
	rotateEvery   time.Duration // as active
	publishBefore time.Duration // as pending, at least
	keep          time.Duration // as retiring: the longest token it signed, and margins
}

// wanted is the ID of a key that next asks for: the caller makes one and fills it in.
const wanted = ""

// next returns the ring as it has to be at now. It is a pure function: all
// instances come to the same result, and the one that stores it first has done it.
//
// first says that no answer that lacks the ring's keys may be cached anywhere, so
// that the first key may sign at once.
func next(r ring, p policy, now time.Time, first bool) (_ ring, changed bool) {
	keys := slices.DeleteFunc(slices.Clone(r.Keys), func(k key) bool {
		done := k.Retired != 0 && !now.Before(unix(k.Retired).Add(p.keep))
		changed = changed || done
		return done
	})
	abandoned := false // the ring's signing key was compromised
	for i := range keys {
		if k := &keys[i]; k.State == compromised {
			abandoned = abandoned || k.Active != 0
			if k.Sealed != nil || k.Retired == 0 {
				k.Sealed, k.Retired, changed = nil, now.Unix(), true
			}
		}
	}
	signing, standby := find(keys, active), find(keys, pending)
	due := signing < 0 || !now.Before(unix(keys[signing].Active).Add(p.rotateEvery))
	published := standby >= 0 && !now.Before(unix(keys[standby].Created).Add(p.publishBefore))
	// An overdue key goes on signing until its successor has been published long
	// enough. Where nothing signs because the key was compromised, the standby
	// takes over at once: unknown to some verifiers is better than forged.
	emergency := signing < 0 && abandoned
	if due && standby >= 0 && (published || emergency) {
		if signing >= 0 {
			keys[signing].State, keys[signing].Retired, keys[signing].Sealed = retiring, now.Unix(), nil
		}
		keys[standby].State, keys[standby].Active = active, now.Unix()
		signing, standby, changed = standby, -1, true
	}
	if len(keys) == 0 && first {
		keys = append(keys, key{ID: wanted, State: active, Created: now.Unix(), Active: now.Unix()})
		changed = true
	}
	if standby < 0 {
		keys = append(keys, key{ID: wanted, State: pending, Created: now.Unix()})
		changed = true
	}
	r.Keys = keys
	return r, changed
}

func find(keys []key, s state) int {
	return slices.IndexFunc(keys, func(k key) bool { return k.State == s })
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0) }
