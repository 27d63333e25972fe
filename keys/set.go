package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const format = 1 // of the stored set

// set is the stored value.
type set struct {
	Format int    `json:"format"`
	Rings  []ring `json:"rings"`
}

// parseSet reads a stored set. What is not one is refused: nothing is made anew
// where keys exist that cannot be read.
func parseSet(value []byte) (set, error) {
	var stored set
	if err := json.Unmarshal(value, &struct{ Format *int }{&stored.Format}); err != nil {
		return set{}, fmt.Errorf("decoding the keys: %w", err)
	}
	if stored.Format > format {
		return set{}, fmt.Errorf("the stored keys are of format %d, this version reads %d: run the newer version", stored.Format, format)
	}
	// A member that is not known would be lost when the set is stored again.
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return set{}, fmt.Errorf("decoding the keys: %w", err)
	}
	if err := stored.check(); err != nil {
		return set{}, fmt.Errorf("the stored keys are damaged, restore them from a backup: %w", err)
	}
	return stored, nil
}

func (s set) check() error {
	if s.Format != format {
		return fmt.Errorf("format %d", s.Format)
	}
	if _, ok := s.ring(RefreshRing); !ok {
		return errors.New("there is no ring for refresh tokens")
	}
	seen := make(map[string]bool)
	for _, r := range s.Rings {
		if seen[r.Name] || r.Algorithm != algorithmOf(r.Name) {
			return fmt.Errorf("ring %q is there twice or has algorithm %q", r.Name, r.Algorithm)
		}
		seen[r.Name] = true
		count := make(map[state]int)
		for _, k := range r.Keys {
			if seen[k.ID] || k.ID == wanted {
				return fmt.Errorf("key %q is there twice or has no kid", k.ID)
			}
			seen[k.ID] = true
			count[k.State]++
			signs := k.State == pending || k.State == active
			if signs != (k.Sealed != nil) && k.State != compromised {
				return fmt.Errorf("key %s is %s and has or lacks a private half", k.ID, k.State)
			}
		}
		if count[active] > 1 || count[pending] > 1 ||
			count[active]+count[pending]+count[retiring]+count[compromised] != len(r.Keys) {
			return fmt.Errorf("ring %s has keys in states %v", r.Name, count)
		}
	}
	return nil
}

func (s set) ring(name string) (ring, bool) {
	i := slices.IndexFunc(s.Rings, func(r ring) bool { return r.Name == name })
	if i < 0 {
		return ring{Name: name, Algorithm: algorithmOf(name)}, false
	}
	return s.Rings[i], true
}

// algorithmOf returns the algorithm of a ring: a published ring is named after it.
func algorithmOf(ring string) string {
	if ring == RefreshRing {
		return eddsa
	}
	return ring
}

// advance applies next to every configured ring and makes the keys it wants.
//
// A ring that is stored empty was there from the first start, and no instance has
// let its JWKS be cached since (snapshot.whole): its first key signs at once. In a
// ring that is added later the first key waits.
func (m *Manager) advance(stored set, first bool, p pace) (advanced set, changed bool, err error) {
	advanced = set{Format: format, Rings: slices.Clone(stored.Rings)}
	for _, name := range append([]string{RefreshRing}, m.config.Algorithms...) {
		r, exists := stored.ring(name)
		if !exists {
			if !first && r.Algorithm == rs256 && !p.slow {
				continue
			}
			advanced.Rings = append(advanced.Rings, r)
			changed = true
		}
		if r.Algorithm == rs256 && !p.slow {
			continue
		}
		unpublished := len(r.Keys) == 0 && (first || exists)
		policy := m.config.policyFor(name)
		if p.rotate {
			policy.rotateEvery, policy.publishBefore = 0, 0
		}
		result, moved := next(r, policy, time.Now(), unpublished)
		for i := range result.Keys {
			if result.Keys[i].ID == wanted {
				if err := result.Keys[i].fill(r, m.config.MasterKey, m.config.Issuer); err != nil {
					return set{}, false, err
				}
			}
		}
		at := slices.IndexFunc(advanced.Rings, func(r ring) bool { return r.Name == name })
		advanced.Rings[at], changed = result, changed || moved
	}
	return advanced, changed, nil
}

// reasons say why a key came into a state.
var reasons = map[state]string{
	pending:     "published as the standby",
	active:      "its turn to sign has come",
	retiring:    "its successor signs; the private half is destroyed",
	compromised: "declared compromised",
	"gone":      "no token it signed is valid any more",
}

func (m *Manager) logTransitions(from, to set) {
	for _, r := range to.Rings {
		before, _ := from.ring(r.Name)
		for _, k := range before.Keys {
			if !slices.ContainsFunc(r.Keys, func(now key) bool { return now.ID == k.ID }) {
				m.logTransition(r.Name, k.ID, k.State, "gone")
			}
		}
		for _, k := range r.Keys {
			was := state("none")
			if i := slices.IndexFunc(before.Keys, func(old key) bool { return old.ID == k.ID }); i >= 0 {
				was = before.Keys[i].State
			}
			if was != k.State {
				m.logTransition(r.Name, k.ID, was, k.State)
			}
		}
	}
}

func (m *Manager) logTransition(ring, kid string, from, to state) {
	m.config.Logger.Info("key changed state", "event", "key", "ring", ring, "kid", kid,
		"from", string(from), "to", string(to), "why", reasons[to])
}
