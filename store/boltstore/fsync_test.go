package boltstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"

	"golang.org/x/sys/unix"
)

// After a failed fsync the kernel may have dropped what it had taken, and the next
// fsync succeeds all the same: the store refuses writes until a restart, even when
// the disk works again, and what it had acknowledged is there.
func TestFailedFsync(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := s.Create(ctx, fmt.Sprint("before ", i), nil, store.Forever); err != nil {
			t.Fatal(err)
		}
	}
	mend := loseWrites(t, path)
	if err := s.Create(ctx, "lost", nil, store.Forever); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a write whose fsync failed: %v", err)
	}
	mend()
	if err := s.Create(ctx, "after", nil, store.Forever); err == nil {
		t.Error("the store goes on after a failed fsync")
	}
	if err := s.Ping(ctx); err == nil {
		t.Error("a store that refuses writes says that it is ready")
	}
	acknowledged := func() {
		t.Helper()
		for i := range 5 {
			if records, err := s.Get(ctx, fmt.Sprint("before ", i)); err != nil || !records[0].Exists() {
				t.Errorf("record %d was acknowledged and is gone, or %v", i, err)
			}
		}
	}
	acknowledged() // reading goes on
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = boltstore.Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	acknowledged()
	if err := s.Create(ctx, "after", nil, store.Forever); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// loseWrites puts a device in place of the open file that takes each write, keeps
// none, and cannot fsync: what a failing disk looks like to a process. The
// function it returns puts the file back.
func loseWrites(t *testing.T, path string) (mend func()) {
	t.Helper()
	file := descriptor(t, path)
	kept, err := unix.Dup(file)
	if err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if err := unix.Dup2(int(device.Fd()), file); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(unix.Dup2(kept, file), unix.Close(kept)); err != nil {
			t.Fatal(err)
		}
	}
}

// descriptor is the one by which this process has the file open.
func descriptor(t *testing.T, path string) int {
	t.Helper()
	var want, found unix.Stat_t
	if err := unix.Stat(path, &want); err != nil {
		t.Fatal(err)
	}
	for file := range 1024 {
		if unix.Fstat(file, &found) == nil && found.Dev == want.Dev && found.Ino == want.Ino {
			return file
		}
	}
	t.Fatalf("%s is not open", path)
	return 0
}
