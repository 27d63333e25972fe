package guard

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/store"
)

// elsewhere is a store whose machine has another time.
type elsewhere struct {
	store.Store
	off time.Duration
	err error
}

func (e *elsewhere) Clock(context.Context) (time.Time, error) { return time.Now().Add(e.off), e.err }

// ATTACKS FT-32: a clock that is far off is no reason to take keys or records for expired,
// or expired ones for live: nothing is asked of the store until the clocks agree again.
func TestClocksThatDiffer(t *testing.T) {
	const skew = 4 * time.Minute
	inner := &elsewhere{Store: embedded(t, filepath.Join(t.TempDir(), "store.db"))}
	var log strings.Builder
	open := func() (*Store, error) {
		return Open(t.Context(), inner, Options{Directory: t.TempDir(), Skew: skew, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Get":    func() error { _, err := s.Get(t.Context(), "key"); return err },
		"Create": func() error { return s.Create(t.Context(), "key", nil, time.Now().Add(-time.Hour)) },
		"Tail":   func() error { _, err := s.Tail(t.Context(), "log", 0, 0); return err },
		"Ping":   func() error { return s.Ping(t.Context()) },
		"Clock":  func() error { _, err := s.Clock(t.Context()); return err },
	}
	for _, scene := range []struct {
		off  time.Duration
		says string
	}{
		{0, ""}, {time.Hour, "1h0m0s behind the store's"}, {-time.Hour, "1h0m0s ahead of the store's"}, {time.Minute, ""},
		{-10 * 365 * 24 * time.Hour, "87600h0m0s ahead of"}, {-3 * time.Minute, ""},
	} {
		inner.off = scene.off
		s.tick(t.Context())
		for name, call := range calls {
			err := call()
			if (err == nil) != (scene.says == "") || err != nil && !strings.Contains(err.Error(), scene.says) {
				t.Errorf("%s, the store's clock is %s ahead: %v", name, scene.off, err)
			}
		}
		if _, err := open(); (err == nil) != (scene.says == "") {
			t.Errorf("a start, the store's clock is %s ahead: %v", scene.off, err)
		}
	}
	inner.off = time.Hour
	s.tick(t.Context())
	inner.err = errors.New("no answer")
	if s.tick(t.Context()); s.Ping(t.Context()) == nil {
		t.Error("a store that does not say what time it is is used again")
	}
	if said := log.String(); strings.Count(said, "differ\"") < 2 || strings.Count(said, "agree again") != 2 {
		t.Errorf("the log: %s", said)
	}
}
