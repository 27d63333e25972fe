package keys

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Rewrapped is the outcome of Rewrap.
type Rewrapped struct {
	MasterKey string `json:"master_key"` // id of the one that seals
	Keys      int    `json:"keys"`       // that were sealed with another one before
	// Unneeded are the ids of the other master keys: no signing key needs one of
	// them. Values in boxes may: see Box.Reseal.
	Unneeded []string `json:"unneeded"`
}

// Rewrap seals every private key, and authenticates the set, with the first master
// key. What was sealed with another one opens all the while, so it can be
// interrupted and repeated.
func (m *Manager) Rewrap(ctx context.Context, by By) (Rewrapped, error) {
	if err := by.check(false); err != nil {
		return Rewrapped{}, err
	}
	first := m.sealed.masters.first().ID()
	result := Rewrapped{MasterKey: first, Unneeded: []string{}}
	for _, other := range m.sealed.masters[1:] {
		result.Unneeded = append(result.Unneeded, other.ID())
	}
	err := m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		result.Keys = 0
		for _, r := range s.Rings {
			for i := range r.Keys {
				done, err := m.rewrapKey(ctx, r, &r.Keys[i])
				if err != nil {
					return Entry{}, err
				}
				if done {
					result.Keys++
				}
			}
		}
		return Entry{Action: ActionRewrap, Why: fmt.Sprintf("%d keys are sealed with master key %s now", result.Keys, first)}, nil
	})
	return result, err
}

func (m *Manager) rewrapKey(ctx context.Context, r ring, k *key) (bool, error) {
	if k.Private == nil || k.Private.Backend != sealedName || m.sealed.masterKeyOf(k.Private.Handle) == m.sealed.masters.first().ID() {
		return false, nil
	}
	p := Place{m.config.Issuer, r.Name, r.Algorithm, k.ID}
	opened, err := m.sealed.Open(ctx, p, k.Private.Handle)
	if err != nil {
		return false, err
	}
	handle, err := m.sealed.Import(ctx, p, opened)
	if err != nil {
		return false, err
	}
	k.Private = &private{sealedName, handle}
	return true, nil
}

// MasterKeyView is a master key and what depends on it.
type MasterKeyView struct {
	ID    string `json:"id"`
	Seals bool   `json:"seals"` // it is the first: what is sealed from now on is sealed with it
	Keys  int    `json:"keys"`  // private halves that only it opens
}

// masterKeys returns the master keys that were given.
func (m *Manager) masterKeyViews(s set) []MasterKeyView {
	views := []MasterKeyView{}
	for i, master := range m.sealed.masters {
		if master.IsZero() {
			continue
		}
		view := MasterKeyView{ID: master.ID(), Seals: i == 0}
		for _, r := range s.Rings {
			for _, k := range r.Keys {
				if k.Private != nil && k.Private.Backend == sealedName && m.sealed.masterKeyOf(k.Private.Handle) == view.ID {
					view.Keys++
				}
			}
		}
		views = append(views, view)
	}
	return slices.Clip(views)
}
