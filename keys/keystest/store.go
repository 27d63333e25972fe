package keystest

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"sync"
)

// Store is a keys.Store in memory. The zero Store is empty.
type Store struct {
	mu      sync.Mutex
	value   []byte
	version uint64
	log     [][]byte
}

// Load implements keys.Store.
func (s *Store) Load(ctx context.Context) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.value), s.version, ctx.Err()
}

// Save implements keys.Store.
func (s *Store) Save(ctx context.Context, value []byte, version uint64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.version || ctx.Err() != nil {
		return false, ctx.Err()
	}
	s.value, s.version = bytes.Clone(value), version+1
	return true, nil
}

// Append implements keys.Store.
func (s *Store) Append(ctx context.Context, entry []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, bytes.Clone(entry))
	return ctx.Err()
}

// Entries implements keys.Store.
func (s *Store) Entries(context.Context) iter.Seq2[[]byte, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := slices.Clone(s.log)
	return func(yield func([]byte, error) bool) {
		for _, line := range lines {
			if !yield(line, nil) {
				return
			}
		}
	}
}
