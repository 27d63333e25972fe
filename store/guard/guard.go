// Package guard stands between the server and its store. It knows whether the store
// is still the one that it was: an emptied one, or one that went back to an older
// state, has forgotten revocations, and is not used until an operator accepts it
// (identity.go). And it stops asking a store that does not answer, so that requests
// fail at once and do not pile up (breaker.go).
package guard

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"authserver/store"
)

// Options say how a store is guarded.
type Options struct {
	// Directory is where this instance remembers the store.
	Directory string
	// MayLose is how much of what it acknowledged the store may lose by the way it is
	// configured, as after a failover to a replica that lags. Losing as much is an
	// error in the log and no reason to stop.
	MayLose time.Duration
	// Replicated says that the store acknowledges what its replicas have, and nothing
	// else. It is then not believed for longer than they confirm it (lease.go).
	Replicated bool
	// Skew is the most that the clocks of this machine and of the store may differ by; 0:
	// nobody looks.
	Skew   time.Duration
	Logger *slog.Logger
}

// Store is a guarded store.Store. Nobody else uses the store that it guards.
type Store struct {
	inner      store.Store
	file       string
	mayLose    time.Duration
	replicated bool
	skew       time.Duration
	log        *slog.Logger
	breaker    breaker
	confirmed  atomic.Pointer[time.Time] // when the replicas were last asked, and answered

	written   atomic.Bool           // something, since the last tick
	lost      atomic.Pointer[error] // why the store is not used any more
	off       atomic.Pointer[error] // why the store is not used until the clocks agree
	notBefore atomic.Int64

	mu        sync.Mutex
	known     mark // what the store showed last
	forgetful bool // the file cannot be written
}

// Open checks that the store is the one that this instance knows, and makes itself
// known to a new one. The error is a *LostError when an operator has to decide. A store
// that was accepted until a later instant is waited for until then.
func Open(ctx context.Context, inner store.Store, options Options) (*Store, error) {
	s := &Store{
		inner: inner, file: filepath.Join(options.Directory, fileName), mayLose: options.MayLose, log: options.Logger,
		replicated: options.Replicated, skew: options.Skew,
	}
	s.breaker.log = options.Logger
	known, err := readMark(s.file)
	if err != nil {
		return nil, err
	}
	if _, err := s.Clock(ctx); err != nil {
		return nil, err
	}
	found, err := s.ask(ctx)
	if err == nil && !found.exists() && !known.exists() {
		if found, err = introduce(ctx, inner); err == nil {
			found, err = s.ask(ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("asking the store who it is: %w", err)
	}
	s.known = known
	if err := s.meet(known, found); err != nil {
		return nil, err
	}
	if found, err = announce(ctx, inner, found, store.Written); err != nil {
		return nil, fmt.Errorf("telling the store of the version of its records: %w", err)
	}
	if err := s.meet(s.mark(), found); err != nil {
		return nil, err
	}
	s.notBefore.Store(found.Accepted)
	if found.Accepted > 0 {
		s.log.Info("an operator has accepted this store: what was granted until then is dead", "event", "store",
			"accepted", time.Unix(found.Accepted, 0).UTC().Format(time.RFC3339))
	}
	if err := s.outlive(ctx, found.Accepted); err != nil {
		return nil, fmt.Errorf("waiting for the store: %w", err)
	}
	return s, nil
}

// call makes one call of the store.
func (s *Store) call(writes bool, do func() error) error {
	if err := s.unusable(); err != nil {
		return err
	}
	if !s.breaker.allow() {
		return errOpen
	}
	err := do()
	s.breaker.report(err)
	if writes && !isDecision(err) {
		s.written.Store(true)
	}
	return err
}

// unusable says why the store must not be believed now.
func (s *Store) unusable() error {
	if lost := s.lost.Load(); lost != nil {
		return *lost
	}
	if off := s.off.Load(); off != nil {
		return *off
	}
	if !s.leased() {
		return errLeaseOver
	}
	return nil
}

// isDecision reports whether an error is the store's answer, and not trouble.
func isDecision(err error) bool {
	return errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, keys ...string) (records []store.Record, err error) {
	err = s.call(false, func() error { records, err = s.inner.Get(ctx, keys...); return err })
	return records, err
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	return s.call(true, func() error { return s.inner.Create(ctx, key, value, expires) })
}

// Do implements store.Batcher.
func (s *Store) Do(ctx context.Context, b store.Batch) (records []store.Record, err error) {
	err = s.call(true, func() error { records, err = store.Do(ctx, s.inner, b); return err })
	return records, err
}

// Swap implements store.Store. That there is no record is believed only of the store
// that is known: clients throw their tokens away on it.
func (s *Store) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (record store.Record, err error) {
	err = s.call(true, func() error { record, err = s.inner.Swap(ctx, key, version, value, expires); return err })
	if errors.Is(err, store.ErrNotFound) {
		if lost := s.confirm(ctx); lost != nil {
			return store.Record{}, lost
		}
	}
	return record, err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.call(true, func() error { return s.inner.Delete(ctx, key) })
}

// Add implements store.Store.
func (s *Store) Add(ctx context.Context, key string, n int64, window time.Duration) (sum int64, err error) {
	err = s.call(false, func() error { sum, err = s.inner.Add(ctx, key, n, window); return err })
	return sum, err
}

// Link implements store.Store.
func (s *Store) Link(ctx context.Context, index, member string, expires time.Time) error {
	return s.call(true, func() error { return s.inner.Link(ctx, index, member, expires) })
}

// Unlink implements store.Store.
func (s *Store) Unlink(ctx context.Context, index, member string) error {
	return s.call(true, func() error { return s.inner.Unlink(ctx, index, member) })
}

// Linked implements store.Store.
func (s *Store) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return guardedPages(s, s.inner.Linked(ctx, index, after))
}

// Members implements store.Store.
func (s *Store) Members(ctx context.Context, family string) iter.Seq2[store.FamilyMember, error] {
	return guardedPages(s, s.inner.Members(ctx, family))
}

// guardedPages makes one call of all that a list reads.
func guardedPages[T any](s *Store, list iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		asked := false
		refused := s.call(false, func() (failed error) {
			asked = true
			for one, err := range list {
				if err != nil {
					failed = err
				}
				if !yield(one, err) {
					break
				}
			}
			return failed
		})
		if !asked {
			var none T
			yield(none, refused)
		}
	}
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, log string, event []byte, keep time.Duration) (position store.Position, err error) {
	err = s.call(true, func() error { position, err = s.inner.Append(ctx, log, event, keep); return err })
	return position, err
}

// Tail implements store.Store. It is asked while the breaker is open, too, and a
// success closes it; a failure is no more than that of a call that waits.
func (s *Store) Tail(ctx context.Context, log string, after store.Position, wait time.Duration) ([]store.Event, error) {
	if err := s.unusable(); err != nil {
		return nil, err
	}
	events, err := s.inner.Tail(ctx, log, after, wait)
	if err == nil {
		s.breaker.report(nil)
	}
	return events, err
}

// Ping implements store.Store. It always asks, so that the store is noticed when it
// comes back.
func (s *Store) Ping(ctx context.Context) error {
	if lost := s.lost.Load(); lost != nil {
		return *lost
	}
	if off := s.off.Load(); off != nil {
		return *off
	}
	err := s.inner.Ping(ctx)
	s.breaker.report(err)
	return err
}

// Close closes the store that is guarded.
func (s *Store) Close() error { return s.inner.Close() }

var _ store.Batcher = (*Store)(nil)
