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
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// RefreshRing is the name of the ring that signs refresh tokens. Its keys are
// never published.
const RefreshRing = "refresh"

const (
	skew   = 60 * time.Second // between the clocks of instances and verifiers
	lease  = 30 * time.Second // how long an instance signs without having read the store
	follow = 5 * time.Second  // how often an instance reads the store
	format = 1                // of the stored set
)

var (
	// ErrNoKey says that a ring has no key that may sign yet.
	ErrNoKey = errors.New("no key may sign yet")
	// ErrLease says that the store was not reachable for so long that this
	// instance cannot know whether its keys still are the right ones.
	ErrLease = errors.New("the keys could not be read for too long")
)

// Store is where the set of keys lives: one value with a version.
type Store interface {
	// Load returns the value and its version; version 0 when nothing is stored.
	Load(ctx context.Context) (value []byte, version uint64, err error)
	// Save replaces the value of a version, or makes the first for version 0. It
	// reports false when the stored version is another.
	Save(ctx context.Context, value []byte, version uint64) (bool, error)
}

// Config says where the keys are and what they are for.
type Config struct {
	Store     Store
	MasterKey MasterKey
	Issuer    string // sealed keys are bound to it
	// Algorithms are those of the published rings: ES256, RS256, EdDSA. The first
	// is the default.
	Algorithms      []string
	RotateEvery     time.Duration // how long a key signs
	PublishBefore   time.Duration // how long a key is published before it signs
	CacheFor        time.Duration // the longest max-age of the JWKS
	TokenLifetime   time.Duration // of the longest token that others verify
	RefreshLifetime time.Duration // of the longest refresh token
	Logger          *slog.Logger
}

// Check returns what is wrong with the operator's part of c. A policy under which
// a verifier could meet an unknown or missing key is refused.
func (c Config) Check() []error {
	var problems []error
	if len(c.Algorithms) == 0 {
		problems = append(problems, errors.New("algorithms is empty; allowed are ES256, RS256, EdDSA"))
	}
	for i, algorithm := range c.Algorithms {
		if algorithm != es256 && algorithm != rs256 && algorithm != eddsa {
			problems = append(problems, fmt.Errorf("algorithms has %q; allowed are ES256, RS256, EdDSA", algorithm))
		}
		if slices.Contains(c.Algorithms[:i], algorithm) {
			problems = append(problems, fmt.Errorf("algorithms has %s twice", algorithm))
		}
	}
	if c.CacheFor < 0 || c.CacheFor > 24*time.Hour {
		problems = append(problems, fmt.Errorf("cache_for is %s; allowed are 0s to 24h", c.CacheFor))
	}
	// A cache that strips Age may hold an answer for twice its max-age.
	if least := 2*c.CacheFor + lease + skew; c.PublishBefore < least {
		problems = append(problems, fmt.Errorf("publish_before is %s, but verifiers may hold an old key set for up to %s "+
			"(twice cache_for, and %s); raise publish_before or lower cache_for", c.PublishBefore, least, lease+skew))
	}
	if c.RotateEvery < c.PublishBefore {
		problems = append(problems, fmt.Errorf("rotate_every is %s, shorter than publish_before (%s): the next key "+
			"would not have been published long enough; raise rotate_every", c.RotateEvery, c.PublishBefore))
	}
	return problems
}

// policyFor returns how long the keys of a ring stay in each state.
func (c Config) policyFor(name string) policy {
	keep := c.TokenLifetime
	if name == RefreshRing {
		keep = c.RefreshLifetime
	}
	return policy{c.RotateEvery, c.PublishBefore, keep + lease + 2*skew}
}

// set is the stored value.
type set struct {
	Format int    `json:"format"`
	Rings  []ring `json:"rings"`
}

// Manager holds the keys of one server. It is safe for concurrent use.
type Manager struct {
	config  Config
	log     *slog.Logger
	current atomic.Pointer[snapshot]
	update  sync.Mutex // of the snapshot
	private map[string]crypto.Signer
}

// Open reads the keys, or makes the first ones, and opens every private key: a
// wrong or missing master key is an error that wraps ErrMasterKey, and nothing is
// made anew then. RS256 keys take long to make; the first of them come with Run.
func Open(ctx context.Context, config Config) (*Manager, error) {
	if problems := config.Check(); len(problems) > 0 {
		return nil, fmt.Errorf("configuring the keys: %w", errors.Join(problems...))
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	m := &Manager{config: config, log: config.Logger, private: make(map[string]crypto.Signer)}
	if err := m.refresh(ctx, false); err != nil {
		return nil, err
	}
	if m.current.Load() == nil || len(m.current.Load().signers) == 0 {
		return nil, fmt.Errorf("making the first keys: %w", ErrNoKey)
	}
	return m, nil
}

// Run follows the store and rotates keys when they are due. It returns when ctx ends.
func (m *Manager) Run(ctx context.Context) {
	ticker := time.NewTicker(follow)
	defer ticker.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, follow)
		if err := m.refresh(attempt, true); err != nil && ctx.Err() == nil {
			m.log.Error("the keys could not be read or rotated", "error", err)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// refresh reads the stored set and brings it to what it has to be now. With slow,
// it also makes keys that take long.
func (m *Manager) refresh(ctx context.Context, slow bool) error {
	m.update.Lock()
	defer m.update.Unlock()
	for range 10 { // each turn either ends or somebody else has made progress
		read := time.Now()
		value, version, err := m.config.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("reading the keys: %w", err)
		}
		if held := m.current.Load(); held != nil && version < held.version {
			return fmt.Errorf("the stored keys went back from version %d to %d; keeping those in memory", held.version, version)
		}
		stored, err := parseSet(value, version)
		if err != nil {
			return err
		}
		advanced, changed, err := m.advance(stored, version == 0, slow)
		if err != nil {
			return err
		}
		if changed {
			if value, err = json.Marshal(advanced); err != nil {
				return fmt.Errorf("encoding the keys: %w", err)
			}
			saved, err := m.config.Store.Save(ctx, value, version)
			if err != nil {
				return fmt.Errorf("storing the keys: %w", err)
			}
			if !saved {
				continue // somebody was first: read what they made
			}
			m.logTransitions(stored, advanced)
			continue // read it back, so that what is used is what is stored
		}
		return m.adopt(stored, version, read)
	}
	return errors.New("the stored keys change faster than they can be read")
}

func parseSet(value []byte, version uint64) (set, error) {
	stored := set{Format: format}
	if version == 0 {
		return stored, nil
	}
	if err := json.Unmarshal(value, &stored); err != nil {
		return set{}, fmt.Errorf("decoding the keys: %w", err)
	}
	if stored.Format != format {
		return set{}, fmt.Errorf("the stored keys are of format %d, this version reads %d: run the newer version", stored.Format, format)
	}
	return stored, nil
}

// advance applies next to every ring that is configured or stored. first is for
// a set that was never stored before.
func (m *Manager) advance(stored set, first, slow bool) (set, bool, error) {
	advanced := set{Format: format}
	changedAny := false
	for _, r := range m.rings(stored) {
		if len(r.Keys) == 0 && r.Algorithm == rs256 && !slow {
			continue
		}
		result, changed := next(r, m.config.policyFor(r.Name), time.Now(), first || m.neverPublished(stored, r))
		for i := range result.Keys {
			if result.Keys[i].ID != wanted {
				continue
			}
			if err := result.Keys[i].fill(r, m.config.MasterKey, m.config.Issuer); err != nil {
				return set{}, false, err
			}
		}
		advanced.Rings = append(advanced.Rings, result)
		changedAny = changedAny || changed
	}
	return advanced, changedAny, nil
}

// neverPublished reports whether r is a ring of the first start that was left out
// because its keys take long to make: the JWKS is not cacheable until it is there.
func (m *Manager) neverPublished(stored set, r ring) bool {
	if len(r.Keys) > 0 || len(stored.Rings) == 0 {
		return false
	}
	for _, other := range stored.Rings {
		for _, k := range other.Keys {
			if time.Since(unix(k.Created)) > time.Minute {
				return false
			}
		}
	}
	return true
}

// rings returns the stored rings and those that are configured and new.
func (m *Manager) rings(stored set) []ring {
	rings := slices.Clone(stored.Rings)
	add := func(name, algorithm string) {
		if !slices.ContainsFunc(rings, func(r ring) bool { return r.Name == name }) {
			rings = append(rings, ring{Name: name, Algorithm: algorithm})
		}
	}
	add(RefreshRing, eddsa)
	for _, algorithm := range m.config.Algorithms {
		add(algorithm, algorithm)
	}
	return rings
}

// adopt makes a stored set the one in use.
func (m *Manager) adopt(stored set, version uint64, read time.Time) error {
	s := &snapshot{
		version: version, read: read,
		signers: make(map[string]*signer), access: make(map[string]public), refresh: make(map[string]public),
	}
	held := make(map[string]crypto.Signer)
	for _, r := range stored.Rings {
		for _, k := range r.Keys {
			if k.State == compromised {
				continue
			}
			parsed, err := x509.ParsePKIXPublicKey(k.Public)
			if err != nil {
				return fmt.Errorf("reading public key %s: %w", k.ID, err)
			}
			s.keysOf(r.Name)[k.ID] = public{r.Algorithm, parsed}
			if k.Sealed == nil {
				continue
			}
			private := m.private[k.ID]
			if private == nil {
				if private, err = k.unseal(r, m.config.MasterKey, m.config.Issuer); err != nil {
					return err
				}
			}
			held[k.ID] = private
			if k.State == active {
				if s.signers[r.Name], err = newSigner(k.ID, r.Algorithm, private); err != nil {
					return err
				}
			}
		}
	}
	if err := s.publish(stored, m.config); err != nil {
		return err
	}
	m.private = held
	m.current.Store(s)
	return nil
}

func (m *Manager) logTransitions(from, to set) {
	before := make(map[string]state)
	for _, r := range from.Rings {
		for _, k := range r.Keys {
			before[k.ID] = k.State
		}
	}
	for _, r := range to.Rings {
		for _, k := range r.Keys {
			if before[k.ID] != k.State {
				m.log.Info("key changed state", "event", "key", "ring", r.Name, "kid", k.ID, "from", string(before[k.ID]), "to", string(k.State))
			}
			delete(before, k.ID)
		}
	}
	for kid, was := range before {
		m.log.Info("key changed state", "event", "key", "kid", kid, "from", string(was), "to", "gone")
	}
}
