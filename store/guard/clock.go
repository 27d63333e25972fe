package guard

import (
	"context"
	"fmt"
	"time"

	"authserver/store"
)

// Clock implements store.Clock: the store's clock, or this machine's where the store has
// none of its own. It is an error, and the store is not used from then on until the two
// agree again, when they differ by more than two clocks may: by a clock that is put
// forward, keys would be taken out of use and records would expire too early; by one that
// is put back, what has expired would live again (ATTACKS FT-32).
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	clock, ok := s.inner.(store.Clock)
	if !ok || s.skew == 0 {
		return time.Now(), nil
	}
	before := time.Now().Round(0) // as it is on the wall
	at, err := clock.Clock(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("asking the store for the time: %w", err)
	}
	off := max(before.Sub(at), at.Sub(time.Now().Round(0)))
	if off <= s.skew {
		if s.off.Swap(nil) != nil {
			s.log.Info("the clocks of this machine and of the store agree again", "event", "store")
		}
		return at, nil
	}
	direction := "ahead of"
	if before.Before(at) {
		direction = "behind"
	}
	err = fmt.Errorf("this machine's clock is %s %s the store's, and they may differ by %s: the store is not used until both are right, see that a time service runs",
		off.Round(time.Second), direction, s.skew)
	if s.off.Swap(&err) == nil {
		s.log.Error("the clocks of this machine and of the store differ", "event", "store", "error", err.Error())
	}
	return time.Time{}, err
}
