package boltstore

import (
	"bytes"
	"context"
	"slices"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
)

// Do implements store.Batcher.
func (s *Store) Do(ctx context.Context, b store.Batch) ([]store.Record, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	// The writer may read it after ctx ended.
	b = store.Batch{Create: slices.Clone(b.Create), Link: slices.Clone(b.Link), Get: slices.Clone(b.Get)}
	for i := range b.Create {
		b.Create[i].Value = bytes.Clone(b.Create[i].Value)
	}
	found := make([]store.Record, len(b.Get))
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		now := time.Now()
		for _, c := range b.Create {
			if present, err := readRecord(tx, c.Key, now); err != nil {
				return err
			} else if present.Exists() {
				return &store.ExistsError{Key: c.Key}
			}
		}
		for _, c := range b.Create {
			if err := create(tx, c, now); err != nil {
				return err
			}
		}
		for _, l := range b.Link {
			if err := link(tx, l); err != nil {
				return err
			}
		}
		for i, key := range b.Get {
			var err error
			if found[i], err = readRecord(tx, key, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err // found may still be written to by the writer
	}
	return found, nil
}

var _ store.Batcher = (*Store)(nil)
