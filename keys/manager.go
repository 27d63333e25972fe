// Package keys makes, rotates, publishes and uses the keys that sign tokens.
//
// Keys live in rings: one for each published algorithm, and one for refresh
// tokens, which only the server itself verifies. All rings together are one value
// in a Store, changed by compare-and-swap. Any instance may compute what has to
// change (ring.go, a pure function); the one whose swap wins has rotated. There
// are no locks and there is no leader.
package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// RefreshRing is the name of the ring that signs refresh tokens. Its keys are
// never published.
const RefreshRing = "refresh"

const (
	follow  = 5 * time.Second // how often an instance reads the store
	timeout = 5 * time.Second // of one call to the store
	turns   = 10              // to win a swap
)

var (
	// ErrNoKey says that a ring has no key that may sign yet.
	ErrNoKey = errors.New("no key may sign yet")
	// ErrLease says that the store was not reachable for so long that this
	// instance cannot know whether its keys still are the right ones.
	ErrLease = errors.New("the keys could not be read for too long")
)

// Manager holds the keys of one server. It is safe for concurrent use.
type Manager struct {
	config  Config
	current atomic.Pointer[snapshot]
	update  sync.Mutex         // held by whoever replaces current
	signers map[string]*signer // by kid; guarded by update
}

// Open reads the keys, or makes the first ones, and opens every private key: a
// wrong or missing master key is an error that wraps ErrMasterKey, and nothing is
// made anew then. RS256 keys take long to make; they come with Run.
func Open(ctx context.Context, config Config) (*Manager, error) {
	if problems := config.Check(); len(problems) > 0 {
		return nil, fmt.Errorf("configuring the keys: %w", errors.Join(problems...))
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	m := &Manager{config: config}
	if err := m.refresh(ctx, pace{}); err != nil {
		return nil, err
	}
	return m, nil
}

// Format implements fmt.Formatter: a manager shows nothing of its keys.
func (m *Manager) Format(f fmt.State, _ rune) { io.WriteString(f, "keys of "+m.config.Issuer) }

// LogValue implements slog.LogValuer.
func (m *Manager) LogValue() slog.Value { return slog.StringValue("keys of " + m.config.Issuer) }

// Run follows the store and rotates keys when they are due. It returns when ctx ends.
func (m *Manager) Run(ctx context.Context) {
	ticker := time.NewTicker(follow)
	defer ticker.Stop()
	for {
		if err := m.refresh(ctx, pace{slow: true}); err != nil && ctx.Err() == nil {
			m.config.Logger.Error("the keys could not be read or rotated", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// RotateForTesting rotates every ring at once, however young the standby keys
// are. Verifiers that hold a cached key set meet an unknown key.
func (m *Manager) RotateForTesting(ctx context.Context) error {
	return m.refresh(ctx, pace{slow: true, rotate: true})
}

// pace is what one refresh may do.
type pace struct {
	slow   bool // make RSA keys, too
	rotate bool // rotate without regard to time, once
}

// refresh reads the stored set, adopts it, and brings it to what it has to be now.
func (m *Manager) refresh(ctx context.Context, p pace) error {
	m.update.Lock()
	defer m.update.Unlock()
	for range turns { // each turn either ends or somebody has made progress
		stored, version, err := m.read(ctx)
		if err != nil {
			return err
		}
		advanced, changed, err := m.advance(stored, version == 0, p)
		if err != nil || !changed {
			return err
		}
		saved, err := m.save(ctx, advanced, version)
		if err != nil {
			return err
		}
		if saved {
			m.logTransitions(stored, advanced)
			p.rotate = false
		}
		// Read it back: what is used is what is stored, whoever was first.
	}
	return errors.New("the stored keys change faster than they can be read")
}

// read loads the stored set and makes it the one in use. That opens every private
// key, so nothing is ever changed under a master key that is not theirs.
func (m *Manager) read(ctx context.Context) (set, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	value, version, err := m.config.Store.Load(ctx)
	if err != nil {
		return set{}, 0, fmt.Errorf("reading the keys: %w", err)
	}
	if held := m.current.Load(); held != nil && version < held.version {
		return set{}, 0, fmt.Errorf("the stored keys went back from version %d to %d; keeping those in memory: "+
			"restore the newer copy, or restart to accept the older one", held.version, version)
	}
	if version == 0 {
		if m.config.MasterKey.IsZero() {
			return set{}, 0, fmt.Errorf("%w: there is no master key to seal the first ones with", ErrMasterKey)
		}
		return set{Format: format}, 0, nil
	}
	stored, err := parseSet(value)
	if err != nil {
		return set{}, 0, err
	}
	return stored, version, m.adopt(stored, version, began)
}

func (m *Manager) save(ctx context.Context, s set, version uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("encoding the keys: %w", err)
	}
	saved, err := m.config.Store.Save(ctx, value, version)
	if err != nil {
		return false, fmt.Errorf("storing the keys: %w", err)
	}
	return saved, nil
}
