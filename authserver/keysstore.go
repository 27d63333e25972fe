package authserver

import (
	"context"
	"errors"

	"authserver/keys"
	"authserver/store"
)

// keySet is where the keys live in a store: one record, so that one swap changes
// all rings together.
type keySet struct{ store store.Store }

// KeyStore returns the place in s where the keys live.
func KeyStore(s store.Store) keys.Store { return keySet{s} }

const keySetRecord = "keys"

// Load implements keys.Store.
func (k keySet) Load(ctx context.Context) ([]byte, uint64, error) {
	records, err := k.store.Get(ctx, keySetRecord)
	if err != nil {
		return nil, 0, err
	}
	return records[0].Value, records[0].Version, nil
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
