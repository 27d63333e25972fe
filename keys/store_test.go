package keys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
)

// memory is a Store in memory, whose calls can be made to fail.
type memory struct {
	mu       sync.Mutex
	value    []byte
	version  uint64
	saves    int
	load     error               // answered by Load
	save     func() (lost error) // asked after a Save has been carried out
	unsaved  error               // answered by Save, which does nothing then
	observed func(value []byte)

	log      [][]byte
	append   func() (lost error) // asked after an Append has been carried out
	unlogged error               // answered by Append, which does nothing then
}

func (s *memory) Append(ctx context.Context, entry []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlogged != nil {
		return s.unlogged
	}
	s.log = append(s.log, bytes.Clone(entry))
	if s.append != nil {
		return s.append()
	}
	return nil
}

func (s *memory) Entries(ctx context.Context) iter.Seq2[[]byte, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := slices.Clone(s.log)
	return func(yield func([]byte, error) bool) {
		for _, line := range lines {
			if !yield(bytes.Clone(line), nil) {
				return
			}
		}
	}
}

func (s *memory) Load(ctx context.Context) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.load != nil {
		return nil, 0, s.load
	}
	return bytes.Clone(s.value), s.version, ctx.Err()
}

func (s *memory) Save(ctx context.Context, value []byte, version uint64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaved != nil {
		return false, s.unsaved
	}
	if version != s.version {
		return false, nil
	}
	s.value, s.version, s.saves = bytes.Clone(value), version+1, s.saves+1
	if s.observed != nil {
		s.observed(s.value)
	}
	if s.save != nil {
		if err := s.save(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// lines is how many there are in the log.
func (s *memory) lines() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.log)
}

// set changes how the store behaves.
func (s *memory) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

var errBroken = errors.New("the store is broken")

const issuer = "https://issuer.example"

func newMaster(t testing.TB) MasterKey {
	t.Helper()
	master, err := NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return master
}

func testConfig(t testing.TB, store Store, algorithms ...string) Config {
	return Config{
		Store: store, MasterKey: newMaster(t), Issuer: issuer, Algorithms: algorithms,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func open(t testing.TB, c Config) *Manager {
	t.Helper()
	m, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run lets m run until the returned function is called, or the test ends.
func run(t testing.TB, m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// edit changes the stored set as somebody with the master key can.
func edit(t testing.TB, c Config, change func(*set)) {
	t.Helper()
	s := c.Store.(*memory)
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, err := decodeSet(s.value, masterKeys{c.MasterKey}, c.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	change(&stored)
	if s.value, err = stored.encode(c.MasterKey); err != nil {
		t.Fatal(err)
	}
	s.version++
}

func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// kids returns the kids of a ring by state.
func (m *Manager) kids(ring string) map[state][]string {
	kids := make(map[state][]string)
	for _, r := range m.current.Load().set.Rings {
		if r.Name == ring {
			for _, k := range r.Keys {
				kids[k.State] = append(kids[k.State], k.ID)
			}
		}
	}
	return kids
}
