package keys

import (
	"context"
	"slices"
	"strings"
	"time"
)

// AddAlgorithm publishes keys of an algorithm before any configuration names it.
// The keys sign from the returned time on: give the algorithm to resources and
// clients, or to keys.algorithms, then, and there is no gap.
//
// Which algorithms have keys is in the stored set, and which of them an instance
// uses is in its configuration. The first grows with either; it shrinks only by
// RetireAlgorithm.
func (m *Manager) AddAlgorithm(ctx context.Context, by By, algorithm string) (signs time.Time, err error) {
	if err := by.check(false); err != nil {
		return time.Time{}, err
	}
	if err := m.offers(algorithm); err != nil {
		return time.Time{}, err
	}
	err = m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		return Entry{Action: ActionAddAlgorithm, Ring: algorithm}, s.add(algorithm)
	})
	if err != nil {
		return time.Time{}, err
	}
	return m.SignsFrom(algorithm), nil
}

// RetireAlgorithm ends the ring of an algorithm: its key stops signing, and stays
// published until its tokens have expired. It refuses while this instance has the
// algorithm in its configuration; another instance that has it keeps the ring
// alive, which the key log tells (ActionKeepAlgorithm). To give them the time, the
// ring ends no sooner than the returned time, when every instance has read the
// request or has stopped signing.
func (m *Manager) RetireAlgorithm(ctx context.Context, by By, algorithm string) (ends time.Time, err error) {
	if err := by.check(false); err != nil {
		return time.Time{}, err
	}
	err = m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		var err error
		ends, err = s.retire(algorithm, m.config, now)
		return Entry{Action: ActionRetireAlgorithm, Ring: algorithm}, err
	})
	return ends, err
}

// add makes a ring for an algorithm, or keeps one that was to end.
func (s *set) add(algorithm string) error {
	r := s.ring(algorithm)
	switch {
	case r == nil:
		s.Rings = append(s.Rings, ring{Name: algorithm, Algorithm: algorithm})
	case !r.Retire.IsZero():
		r.Retire = time.Time{}
	default:
		return refuse("%s has keys already", algorithm)
	}
	return nil
}

// retire asks for the end of a ring, and returns when that is.
func (s *set) retire(algorithm string, c Config, now time.Time) (time.Time, error) {
	r := s.ring(algorithm)
	switch {
	case r == nil || algorithm == RefreshRing:
		return time.Time{}, refuse("there are no keys of %q; there are some of %s", algorithm, strings.Join(publishedRings(*s), ", "))
	case slices.Contains(c.Algorithms, algorithm):
		return time.Time{}, refuse("%s is in keys.algorithms: take it out there and restart every instance, then retire it", algorithm)
	}
	if r.Retire.IsZero() {
		r.Retire = now
	}
	return r.Retire.Add(c.policyOf(algorithm, s.LongestCache).spread), nil
}

// offers refuses an algorithm that no key can be made for.
func (m *Manager) offers(algorithm string) error {
	if _, err := algorithmOf(algorithm); err != nil {
		return refuse("algorithm %q is not offered; allowed are %s", algorithm, strings.Join(offered(), ", "))
	}
	return nil
}

// SignsFrom returns from when on a ring signs: an instant that has passed when it
// does already, and the zero time when that is not known, as there is no such
// ring or its key is still being made.
func (m *Manager) SignsFrom(ring string) time.Time {
	s := m.current.Load().set
	r := s.ring(ring)
	if r == nil || !r.Retire.IsZero() {
		return time.Time{}
	}
	if k := r.find(active); k != nil {
		return k.Activated
	}
	if k := r.find(pending); k != nil && !k.wanted() {
		return k.Published.Add(m.config.policyOf(ring, s.LongestCache).soonest)
	}
	return time.Time{}
}

func publishedRings(s set) []string {
	return slices.DeleteFunc(ringNames(s), func(name string) bool { return name == RefreshRing })
}
