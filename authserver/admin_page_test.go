package authserver

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
)

// readStore counts what is read of indexes.
type readStore struct {
	store.Store
	read int
}

func (r *readStore) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		for member, err := range r.Store.Linked(ctx, index, after) {
			r.read++
			if !yield(member, err) {
				return
			}
		}
	}
}

// Pages of a catalogue have each entry once, and read no more of its indexes than that.
func TestCataloguePages(t *testing.T) {
	inner, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	const many = 25
	reads := &readStore{Store: inner}
	all := catalogue{reads, "things"}
	for i := range many {
		if err := all.add(t.Context(), fmt.Sprintf("thing-%02d", i), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 7, many, many + 1} {
		seen := make(map[string]bool)
		for at, done := (position{}), false; !done; {
			var names []string
			reads.read = 0
			if names, at, done, err = all.page(t.Context(), nil, at, limit); err != nil || len(names) > limit || reads.read > limit {
				t.Fatalf("by %d: %q, %d read, %v", limit, names, reads.read, err)
			}
			for _, name := range names {
				if seen[name] {
					t.Errorf("by %d: %s again", limit, name)
				}
				seen[name] = true
			}
		}
		if len(seen) != many {
			t.Errorf("by %d: %d of %d", limit, len(seen), many)
		}
	}
}
