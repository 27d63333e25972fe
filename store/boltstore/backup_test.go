package boltstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
)

// A backup of a store that is written to meanwhile is a store as it was at one instant:
// all that was acknowledged before, and no record without the one before it.
func TestBackupDuringWrites(t *testing.T) {
	directory, ctx := t.TempDir(), t.Context()
	s, err := boltstore.Open(filepath.Join(directory, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const before, all = 300, 900
	create := func(i int) error {
		return s.Create(ctx, fmt.Sprint("key ", i), bytes.Repeat([]byte("x"), 500), store.Forever)
	}
	for i := range before {
		if err := create(i); err != nil {
			t.Fatal(err)
		}
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := before; i < all; i++ {
			if err := create(i); err != nil {
				t.Error(err)
			}
		}
	})
	var backup bytes.Buffer
	if err := s.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	writing.Wait()
	restored := filepath.Join(directory, "restored.db")
	file, err := os.Create(restored)
	if err != nil {
		t.Fatal(err)
	}
	if err := boltstore.Unpack(bytes.NewReader(backup.Bytes()), int64(backup.Len()), file); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if err := boltstore.Verify(restored); err != nil {
		t.Fatal(err)
	}
	r, err := boltstore.Open(restored)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ended := false
	for i := range all {
		records, err := r.Get(ctx, fmt.Sprint("key ", i))
		if err != nil {
			t.Fatal(err)
		}
		if there := records[0].Exists(); there && ended || !there && i < before {
			t.Fatalf("record %d: %v", i, there)
		} else if !there {
			ended = true
		}
	}
}

// Each bit of a backup counts, and a file that is none is not taken for one.
func TestUnpackRefuses(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var backup bytes.Buffer
	if err := s.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	whole := backup.Bytes()
	for at := 0; at < len(whole); at += 97 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 4
		if boltstore.Unpack(bytes.NewReader(damaged), int64(len(damaged)), &bytes.Buffer{}) == nil {
			t.Errorf("byte %d was changed and not noticed", at)
		}
	}
	for _, cut := range [][]byte{nil, whole[:100], whole[:len(whole)-1], append(bytes.Clone(whole), 'x')} {
		if boltstore.Unpack(bytes.NewReader(cut), int64(len(cut)), &bytes.Buffer{}) == nil {
			t.Errorf("%d bytes of %d were taken", len(cut), len(whole))
		}
	}
	file := filepath.Join(t.TempDir(), "text")
	os.WriteFile(file, bytes.Repeat([]byte("no store "), 10_000), 0o600)
	if boltstore.Verify(file) == nil || boltstore.Verify(file+"-missing") == nil {
		t.Error("a file that is no store was taken for one")
	}
}

// stuckWriter is a reader of a backup who has stopped.
type stuckWriter struct{ begun, goOn chan struct{} }

func (w *stuckWriter) Write(b []byte) (int, error) {
	select {
	case w.begun <- struct{}{}:
	default:
	}
	<-w.goOn
	return len(b), nil
}

// Whoever takes a backup and stops to read it stops nobody who writes, also where the
// file has to grow.
func TestStuckBackupHoldsUpNobody(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reader := &stuckWriter{begun: make(chan struct{}, 1), goOn: make(chan struct{})}
	release := sync.OnceFunc(func() { close(reader.goOn) })
	defer release()
	ended := make(chan error, 1)
	go func() { ended <- s.Backup(t.Context(), reader) }()
	<-reader.begun
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // of a slow disk
	defer cancel()
	for i := range 100 { // 6 MB
		if err := s.Create(ctx, fmt.Sprint("key ", i), bytes.Repeat([]byte("x"), 60_000), store.Forever); err != nil {
			t.Fatal(i, err)
		}
	}
	release()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
