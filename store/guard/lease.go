package guard

import (
	"context"
	"errors"
	"time"

	"authserver/store"
)

// leaseFor is how long a replicated store is believed after it last showed that its
// replicas follow it. A primary that is cut off from them answers all the same, and
// does not know what was revoked at the one that was promoted in its place. Sentinel
// takes longer than this to promote: down-after-milliseconds, 5 seconds at least.
const leaseFor = 4 * time.Second

var errLeaseOver = &store.UnavailableError{Why: "the replicas have not confirmed for a while that the store is still the primary, and it is not asked at this moment"}

// ask reads who the store says it is. Of a replicated store the answer counts when its
// replicas have confirmed it: a write that changes nothing asks for that.
func (s *Store) ask(ctx context.Context) (mark, error) {
	began := time.Now()
	if !s.replicated {
		return find(ctx, s.inner)
	}
	record, err := s.inner.Swap(ctx, identityKey, 0, nil, store.Forever) // no record has version 0
	switch {
	case errors.Is(err, store.ErrConflict):
		found, err := decode(record)
		s.confirmed.Store(&began)
		return found, err
	case errors.Is(err, store.ErrNotFound):
		return mark{}, nil
	}
	return mark{}, err
}

// leased reports whether the store may be believed now.
func (s *Store) leased() bool {
	confirmed := s.confirmed.Load()
	return !s.replicated || confirmed != nil && time.Since(*confirmed) < leaseFor
}
