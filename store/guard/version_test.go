package guard

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"
)

// Before a release writes records of another version it says so in the store, and one
// that cannot read them does not start; who can, goes on, and keeps what is said there.
func TestVersionOfAStore(t *testing.T) {
	inner, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	first, err := introduce(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{1, store.Readable} {
		if m, err := announce(t.Context(), inner, first, version); err != nil || m.ID != first.ID {
			t.Fatalf("version %d: %+v, %v", version, m, err)
		}
	}
	value, err := json.Marshal(identity{Version: identityVersion, ID: first.ID, Ticked: first.Ticked, Records: store.Readable + 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.Swap(t.Context(), identityKey, first.Mark, value, store.Forever); err != nil {
		t.Fatal(err)
	}
	_, err = find(t.Context(), inner)
	if !errors.Is(err, store.ErrNewer) || !strings.Contains(err.Error(), "holds records of version 2 and this release reads versions up to 1: run the release that wrote it") {
		t.Errorf("a store of a later release: %v", err)
	}
	for _, value := range []string{`{"v":1,"id":"x","ticked":1}`, "\x00\x00\x00\x00\x00\x00\x00\x00" + `{"v":1}`} {
		if _, err := decode(store.Record{Version: 1, Value: []byte(value)}); err == nil || !strings.Contains(err.Error(), "begin with an empty store") {
			t.Errorf("a store of before the first release: %v", err)
		}
	}
	if _, err := announce(t.Context(), inner, first, store.Readable+1); !errors.Is(err, store.ErrNewer) {
		t.Errorf("announcing meanwhile: %v", err)
	}
}
