package boltstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
)

// ATTACKS FT-26: a process exchanges a code (a mark and a grant are made together) and
// refreshes, under strace. Its file is then made as a kill after each of its writes would
// leave it. What was acknowledged by then is there; of the rest each is done or not, never
// half of it; and who repeats what was not acknowledged is refused only if it was done.
func TestKilledAtEveryWrite(t *testing.T) {
	if path := os.Getenv(childFile); path != "" {
		exchangeAndRefresh(t, path)
		return
	}
	directory, tracing := tracedDirectory(t)
	path := filepath.Join(directory, "store.db")
	if output, err := child(t.Context(), t, path, tracing...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	disk := replay(t, path, tracing[len(tracing)-1])
	if len(disk.acknowledged) != 4 {
		t.Fatalf("%d were acknowledged", len(disk.acknowledged))
	}
	steps := 0
	for step := disk.acknowledged[0].at; step <= len(disk.effects); step++ {
		file := filepath.Join(directory, "killed.db")
		disk.write(t, file, disk.effects[:step])
		s, err := boltstore.Open(file)
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		acknowledged := uint64(0)
		for _, said := range disk.acknowledged[1:] {
			if said.at <= step {
				acknowledged++
			}
		}
		wholeAfter(t, s, step, acknowledged)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		steps++
	}
	if steps < 12 { // three transactions of two writes and two syncs each, at least
		t.Errorf("%d steps", steps)
	}
	t.Logf("%d steps", steps)
}

var exchange = store.Batch{Create: []store.Creation{{Key: "spent/code", Expires: store.Forever}, {Key: "grant/one", Value: []byte("grant"), Expires: store.Forever}}}

func exchangeAndRefresh(t *testing.T, path string) {
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "acknowledged opened")
	if _, err := s.Do(t.Context(), exchange); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "acknowledged exchange")
	for version := range uint64(2) {
		if _, err := s.Swap(t.Context(), "grant/one", version+1, nil, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stdout, "acknowledged refresh", version+1)
	}
}

func wholeAfter(t *testing.T, s *boltstore.Store, step int, acknowledged uint64) {
	t.Helper()
	records, err := s.Get(t.Context(), "spent/code", "grant/one")
	if err != nil {
		t.Fatal(err)
	}
	spent, grant := records[0], records[1]
	switch {
	case spent.Exists() != grant.Exists():
		t.Errorf("step %d: the code is spent: %t, its grant is there: %t", step, spent.Exists(), grant.Exists())
	case grant.Version < acknowledged, grant.Version > acknowledged+1:
		t.Errorf("step %d: the grant is at version %d, acknowledged was %d", step, grant.Version, acknowledged)
	case grant.Exists() && string(grant.Value) != "grant":
		t.Errorf("step %d: the grant is %q", step, grant.Value)
	}
	if _, err := s.Do(t.Context(), exchange); spent.Exists() != errors.Is(err, store.ErrExists) || !spent.Exists() && err != nil {
		t.Errorf("step %d: the exchange, again: %v; it was done: %t", step, err, spent.Exists())
	}
	if acknowledged > 0 { // the token of who got no answer
		_, err := s.Swap(t.Context(), "grant/one", acknowledged, nil, time.Now().Add(time.Hour))
		if moved := grant.Version > acknowledged; moved != errors.Is(err, store.ErrConflict) || !moved && err != nil {
			t.Errorf("step %d: the refresh, again: %v; it was done: %t", step, err, moved)
		}
	}
}
