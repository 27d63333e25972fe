package boltstore_test

import (
	"path/filepath"
	"strings"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/storetest"
)

func open(t *testing.T) store.Store {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) { storetest.Run(t, open) }

// Only one process may have the file open; the second is told so.
func TestSecondOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := boltstore.Open(path); err == nil || !strings.Contains(err.Error(), "in use by another authserver process") {
		t.Errorf("a second open: %v", err)
	}
}

// Everything is there after closing and opening, and positions go on.
func TestReopen(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "store.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, "key", []byte("value"), store.Forever); err != nil {
		t.Fatal(err)
	}
	first, err := s.Append(ctx, "log", []byte("event"), store.KeepAll)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, "later", nil, store.Forever); err == nil {
		t.Error("a closed store takes writes")
	}
	if s, err = boltstore.Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	records, err := s.Get(ctx, "key")
	if err != nil || string(records[0].Value) != "value" {
		t.Errorf("after reopening: %v, %v", records, err)
	}
	if second, err := s.Append(ctx, "log", []byte("event"), store.KeepAll); err != nil || second <= first {
		t.Errorf("position %d after %d, %v", second, first, err)
	}
}
