package keys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// memory is a Store whose calls can be made to fail.
type memory struct {
	mutex    sync.Mutex
	value    []byte
	version  uint64
	down     bool // nothing works
	readOnly bool // saves fail
	saves    int
	lose     int // every lose-th save is stored and then reported as an error
}

var errDown = errors.New("the store is down")

func (s *memory) Load(context.Context) ([]byte, uint64, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.down {
		return nil, 0, errDown
	}
	return bytes.Clone(s.value), s.version, nil
}

func (s *memory) Save(_ context.Context, value []byte, version uint64) (bool, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.saves++
	if s.down || s.readOnly {
		return false, errDown
	}
	if version != s.version {
		return false, nil
	}
	s.value, s.version = bytes.Clone(value), version+1
	if s.lose > 0 && s.saves%s.lose == 0 {
		return false, errDown
	}
	return true, nil
}

func (s *memory) change(f func(*memory)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	f(s)
}

func (s *memory) stored(t *testing.T) set {
	t.Helper()
	value, _, _ := s.Load(t.Context())
	parsed, err := parseSet(value)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func newMasterKey(t testing.TB) MasterKey {
	t.Helper()
	m, err := NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testConfig(t testing.TB, store Store, algorithms ...string) Config {
	return Config{
		Store: store, MasterKey: newMasterKey(t), Issuer: "https://as.example.com", Algorithms: algorithms,
		RotateEvery: 20 * time.Minute, PublishBefore: 6 * time.Minute, CacheFor: 2 * time.Minute,
		TokenLifetime: 10 * time.Minute, RefreshLifetime: 2 * time.Hour,
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
