package boltstore_test

import (
	"path/filepath"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/storetest"

	"go.etcd.io/bbolt"
)

// What has expired leaves nothing in the file, without a job that clears up: each write
// takes some of it away. What stays stays.
func TestNothingIsLeft(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "store.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Create(ctx, "stays", nil, store.Forever); err != nil {
		t.Fatal(err)
	}
	const n = 300
	end := time.Now().Add(time.Second)
	if err := storetest.Expiring(ctx, s, n, end); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(end.Add(10 * time.Millisecond)))
	for range n { // each looks at 18 of 3n due entries, and at those that were filed anew
		if err := s.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = file.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			want := 0
			if string(name) == "records" {
				want = 1
			}
			if got := b.Stats().KeyN; got != want {
				t.Errorf("%d are left in %s, want %d", got, name, want)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
