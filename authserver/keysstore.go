package authserver

import (
	"context"
	"errors"
	"iter"

	"authserver/keys"
	"authserver/store"
)

// keySet is where the keys live in a store: one record, so that one swap changes
// all rings together, and a log that keeps everything.
type keySet struct{ store store.Store }

// KeyStore returns the place in s where the keys live.
func KeyStore(s store.Store) keys.Store { return keySet{s} }

const (
	keySetRecord = "keys"
	keyLog       = "keylog"
)

// Load implements keys.Store. Where the store has a clock, the set is only read while
// this machine's agrees with it: on it depends which keys are due.
func (k keySet) Load(ctx context.Context) ([]byte, uint64, error) {
	if err := clocksAgree(ctx, k.store); err != nil {
		return nil, 0, err
	}
	records, err := k.store.Get(ctx, keySetRecord)
	if err != nil {
		return nil, 0, err
	}
	return records[0].Value, records[0].Version, nil
}

// clocksAgree returns an error while this machine's clock and the store's, if it has one,
// differ by too much: what seems to have expired may live then, and the other way round.
func clocksAgree(ctx context.Context, s store.Store) error {
	clock, ok := s.(store.Clock)
	if !ok {
		return nil
	}
	_, err := clock.Clock(ctx)
	return err
}

// Save implements keys.Store.
func (k keySet) Save(ctx context.Context, value []byte, version uint64) (bool, error) {
	var err error
	if version == 0 {
		err = k.store.Create(ctx, keySetRecord, value, store.Forever)
	} else {
		_, err = k.store.Swap(ctx, keySetRecord, version, value, store.Forever)
	}
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Append implements keys.Store.
func (k keySet) Append(ctx context.Context, entry []byte) error {
	_, err := k.store.Append(ctx, keyLog, entry, store.KeepAll)
	return err
}

// Entries implements keys.Store.
func (k keySet) Entries(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var after store.Position
		for {
			events, err := k.store.Tail(ctx, keyLog, after, 0)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(events) == 0 {
				return
			}
			for _, event := range events {
				if !yield(event.Value, nil) {
					return
				}
				after = event.Position
			}
		}
	}
}
