package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
)

// damage opens a store whose file has, in each bucket, an entry that is cut short.
func damage(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = s.db.Update(func(tx *bbolt.Tx) error {
		cut, due := []byte("cut"), millis(time.Now())
		return errors.Join(
			tx.Bucket(records).Put([]byte("damaged"), cut),
			tx.Bucket(counters).Put([]byte("damaged"), cut),
			tx.Bucket(indexes).Put(pair("damaged", []byte("member")), cut),
			tx.Bucket(logs).Put(pair("damaged", nil), cut),
			tx.Bucket(logs).Put(pair("damaged", millis(time.Now())), cut),
			tx.Bucket(expiries).Put([]byte{0}, nil),
			tx.Bucket(expiries).Put(append(due, '?', 'k'), nil),
			tx.Bucket(expiries).Put(append(append(due, records[0]), "damaged"...), nil),
			tx.Bucket(expiries).Put(append(append(due, indexes[0]), pair("damaged", []byte("member"))...), nil),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Operations on damaged entries fail, and the others of their transaction do not.
func TestDamageConcernsOneOperation(t *testing.T) {
	ctx, s := t.Context(), damage(t)
	calls := []func() error{
		func() error { return s.Create(ctx, "damaged", nil, store.Forever) },
		func() error { _, err := s.Swap(ctx, "damaged", 1, nil, store.Forever); return err },
		func() error { return s.Link(ctx, "damaged", "member", store.Forever) },
		func() error { _, err := s.Append(ctx, "damaged", nil, store.KeepAll); return err },
	}
	damaged := len(calls)
	for i := range 20 {
		calls = append(calls, func() error { return s.Create(ctx, fmt.Sprint("sound ", i), nil, store.Forever) })
	}
	for i, err := range together(t, s, calls) {
		if i < damaged && !errors.Is(err, errDamaged) {
			t.Errorf("operation %d on a damaged entry: %v", i, err)
		}
		if i >= damaged && err != nil {
			t.Errorf("operation %d on a sound entry: %v", i, err)
		}
	}
	for i := range 20 {
		if found, err := s.Get(ctx, fmt.Sprint("sound ", i)); err != nil || !found[0].Exists() {
			t.Errorf("record %d was acknowledged and is not there: %v", i, err)
		}
	}
}

// together runs calls so that one transaction takes them all, and returns what
// each answered.
func together(t *testing.T, s *Store, calls []func() error) []error {
	t.Helper()
	begun, release := make(chan struct{}), make(chan struct{})
	go s.update(t.Context(), func(*bbolt.Tx) error { close(begun); <-release; return nil })
	<-begun
	results, done := make([]error, len(calls)), make(chan struct{})
	for i, call := range calls {
		go func() { results[i] = call(); done <- struct{}{} }()
		for len(s.queue) <= i {
			time.Sleep(time.Millisecond)
		}
	}
	close(release)
	for range calls {
		<-done
	}
	return results
}

// Reading what is damaged is an error, never a panic and never as if it were not
// there; a damaged counter begins anew.
func TestReadingDamage(t *testing.T) {
	ctx, s := t.Context(), damage(t)
	if err := s.Ping(ctx); err != nil { // which sweeps
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "damaged"); !errors.Is(err, errDamaged) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Tail(ctx, "damaged", 0, 0); !errors.Is(err, errDamaged) {
		t.Errorf("Tail: %v", err)
	}
	var last error
	for _, last = range s.Linked(ctx, "damaged", store.Member{}) {
	}
	if !errors.Is(last, errDamaged) {
		t.Errorf("Linked: %v", last)
	}
	if n, err := s.Add(ctx, "damaged", 1, time.Hour); n != 1 || err != nil {
		t.Errorf("Add: %d, %v", n, err)
	}
}

// ATTACKS FT-30: a file that has lost its end, or its beginning, or that a later format of
// the file wrote, is refused; not read as if less had been in it, nor with a crash.
func TestDamagedFile(t *testing.T) {
	ctx, directory := t.Context(), t.TempDir()
	path := filepath.Join(directory, "store.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	const revocations = 100
	for i := range revocations {
		if err := s.Create(ctx, fmt.Sprint("revoked/", i), make([]byte, 4000), store.Forever); err != nil {
			t.Fatal(err)
		}
	}
	var used int64
	if err := s.db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"all that is used":      {good[:used], ""},
		"without its last page": {good[:used-4096], "cut short"},
		"half of it":            {good[:used/2], "cut short"},
		"its first three pages": {good[:3*4096], "cut short"},
		"a page":                {good[:4096], "too small"},
		"a part of a page":      {good[:100], "invalid"},
		"without its beginning": {append(make([]byte, 8192), good[8192:]...), "invalid"},
		"a later format":        {laterFormat(good), "version"},
	} {
		file := filepath.Join(directory, "damaged.db")
		if err := os.WriteFile(file, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(file)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want that it is %q", name, err, c.says)
		}
		if err != nil {
			continue
		}
		for i := range revocations {
			if found, err := s.Get(ctx, fmt.Sprint("revoked/", i)); err != nil || !found[0].Exists() {
				t.Errorf("%s: record %d: %v", name, i, err)
			}
		}
		s.Close()
	}
}

// laterFormat is the file with the version of its format one higher, in both of its meta pages.
func laterFormat(whole []byte) []byte {
	later := bytes.Clone(whole)
	for page := range 2 {
		later[page*4096+16+4]++
	}
	return later
}
