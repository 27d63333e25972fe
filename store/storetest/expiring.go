package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"authserver/store"
)

// Expiring writes n records, a third of them moved to a later expiry, n counters, and n
// members of n/10 families and as many indexes, all of which expire at an instant or before. When that has
// passed, a store holds what it held before: its test looks for that.
func Expiring(ctx context.Context, s store.Store, n int, end time.Time) error {
	failures := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			key := fmt.Sprintf("expiring/%d", i)
			failures[i] = errors.Join(
				s.Create(ctx, key, []byte("value"), end.Add(-time.Second/2)),
				s.Create(ctx, store.MemberKey(fmt.Sprintf("expiring/family/%d", i/10), key), []byte("value"), end),
				s.Link(ctx, fmt.Sprintf("expiring/of/%d", i/10), key, end))
			if _, err := s.Add(ctx, key, 1, time.Until(end)); err != nil {
				failures[i] = errors.Join(failures[i], err)
			}
			if i%3 == 0 && failures[i] == nil {
				_, err := s.Swap(ctx, key, 1, nil, end)
				if !errors.Is(err, store.ErrNotFound) { // a slow machine: it has expired
					failures[i] = err
				}
			}
		})
	}
	all.Wait()
	return errors.Join(failures...)
}
