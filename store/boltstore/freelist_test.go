package boltstore_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"
)

// A store that was closed says which of its pages are free, so that the next start need
// not read the file to find out. While it is open nothing says so, and a start after a
// crash reads the file; what is free is used again after either.
func TestFreelist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	key := func(i int) string { return fmt.Sprint("a record ", i) }
	value := make([]byte, 4000)
	for round := range 4 {
		s, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := s.Create(t.Context(), key(i), value, store.Forever); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if err := s.Delete(t.Context(), key(i)); err != nil {
				t.Fatal(err)
			}
		}
		if savedFreelist(t, path) {
			t.Error("a commit has written which pages are free")
		}
		if round == 1 { // as a crash leaves it
			crashed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, crashed, 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if !savedFreelist(t, path) {
				t.Error("Close has not written which pages are free")
			}
		}
		if info, err := os.Stat(path); err != nil || info.Size() > 2<<20 {
			t.Fatalf("round %d: %v, %v", round, info.Size(), err)

		}
	}
}

// savedFreelist reads the newer of the two pages that a bbolt file begins with.
func savedFreelist(t *testing.T, path string) bool {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var newest, freelist uint64
	for page := range 2 {
		var meta [80]byte
		if _, err := file.ReadAt(meta[:], int64(page*os.Getpagesize())); err != nil {
			t.Fatal(err)
		}
		// A header of 16 bytes; magic, version, page size, flags, the root's page and sequence.
		if transaction := binary.NativeEndian.Uint64(meta[64:]); transaction >= newest {
			newest, freelist = transaction, binary.NativeEndian.Uint64(meta[48:])
		}
	}
	return freelist != ^uint64(0)
}
