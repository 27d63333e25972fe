package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrNoKey says that a ring has no key that may sign yet; the text says from
	// when on it has.
	ErrNoKey = errors.New("no key to sign with yet")
	// ErrLease says that this instance could not read the store for so long that it
	// cannot know whether its keys are still the ones to sign with.
	ErrLease = errors.New("the key set could not be read for too long, so nothing is signed")
)

// Manager holds the keys of one issuer. It is safe for concurrent use.
type Manager struct {
	config   Config
	current  atomic.Pointer[snapshot]
	running  atomic.Bool
	stepping sync.Mutex // held by whoever replaces current
	decided  uint64     // of the key log: the last entry that this instance brought about
	failures atomic.Uint64
	sealed   *SealedBackend
	strays   strays
}

// Open reads the key set, or stores the first one, and opens every private key in
// it. With a wrong or missing master key it returns an error that wraps
// ErrMasterKey; whatever is wrong, it replaces nothing that is stored. Keys that
// take long to make (RS256) come with Run.
func Open(ctx context.Context, config Config) (*Manager, error) {
	config = config.withDefaults()
	if err := errors.Join(append(config.Check(), config.checkWiring())...); err != nil {
		return nil, fmt.Errorf("configuring the keys: %w", err)
	}
	m := &Manager{config: config, sealed: NewSealedBackend(config.MasterKey, config.OldMasterKeys...)}
	if err := m.step(ctx, nil); err != nil {
		return nil, fmt.Errorf("opening the keys: %w", err)
	}
	return m, nil
}

// Run follows the store and rotates keys when they are due, until ctx ends. It
// returns an error only when it is running already. Nothing is signed unless it
// runs: see ErrLease.
func (m *Manager) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("the keys are being followed already")
	}
	defer m.running.Store(false)
	ticker := time.NewTicker(m.config.PollEvery)
	defer ticker.Stop()
	slow := newWorkshop()
	report := trouble{log: m.config.Logger}
	for {
		err := m.step(ctx, slow)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			m.failures.Add(1)
		}
		report.tell(err, m.leased(m.current.Load()))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case made := <-slow.done:
			slow.take(made)
		}
	}
}

// attempts bounds how often in a row a step is begun anew because somebody else
// was first, or to read what was stored.
const attempts = 10

// step adopts what is stored and stores what has to be instead.
func (m *Manager) step(ctx context.Context, slow *workshop) error {
	m.stepping.Lock()
	defer m.stepping.Unlock()
	return m.stepLocked(ctx, slow)
}

func (m *Manager) stepLocked(ctx context.Context, slow *workshop) error {
	var unlogged error
	for range attempts {
		version, err := m.load(ctx)
		if err != nil {
			return errors.Join(unlogged, err)
		}
		var before set
		if version > 0 {
			before = m.current.Load().set
		} else if m.config.MasterKey.IsZero() {
			return fmt.Errorf("%w: none was given to seal the first keys with", ErrMasterKey)
		}
		m.sweep(ctx, before)
		now := time.Now().UTC().Round(0) // as it will be read back
		after := advance(before, m.config, now)
		after.Discarded = m.destroy(ctx, before.Discarded, now)
		if err := m.fill(ctx, after, slow, now); err != nil {
			return errors.Join(unlogged, err)
		}
		if unlogged == nil {
			after.Log, unlogged = m.writeLog(ctx, before.Log, now)
		}
		if err := m.record(before, &after, By{Caller: Schedule}, now); err != nil {
			return errors.Join(unlogged, err)
		}
		if reflect.DeepEqual(before, after) {
			return unlogged
		}
		saved, err := m.save(ctx, after, version)
		if err != nil {
			return errors.Join(unlogged, err)
		}
		if saved {
			m.decided = after.Log.Count
		}
		// Whoever was first: what counts is what is stored now.
	}
	return errors.Join(unlogged, errors.New("the stored key set changes faster than it can be read"))
}

// load adopts the stored set and returns its version, 0 when there is none.
func (m *Manager) load(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.callTimeout())
	defer cancel()
	before := time.Now()
	value, version, err := m.config.Store.Load(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the key set: %w", err)
	}
	held := m.current.Load()
	switch {
	case held == nil && version == 0:
		return 0, nil
	case held != nil && version == held.version:
		held.confirmed.Store(&before)
		return version, nil
	case held != nil && version < held.version:
		return 0, fmt.Errorf("the stored key set went back from version %d to %d, as after restoring a backup: "+
			"the newer one in memory is kept, restart to take the older one", held.version, version)
	}
	return version, m.adopt(value, version, before)
}

func (m *Manager) adopt(value []byte, version uint64, read time.Time) error {
	stored, err := decodeSet(value, m.sealed.masters, m.config.Issuer)
	if err != nil {
		return err
	}
	held := m.current.Load()
	adopted, err := m.newSnapshot(version, stored, held)
	if err != nil {
		return err
	}
	adopted.confirmed.Store(&read)
	m.current.Store(adopted)
	if held != nil {
		m.log(changes(held.set, stored))
	}
	return nil
}

func (m *Manager) save(ctx context.Context, after set, version uint64) (saved bool, err error) {
	value, err := after.encode(m.config.MasterKey)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.callTimeout())
	defer cancel()
	saved, err = m.config.Store.Save(ctx, value, version)
	if err != nil {
		return false, fmt.Errorf("storing the key set: %w", err)
	}
	if saved && version == 0 {
		m.log(changes(set{}, after))
	}
	return saved, nil
}

// fill makes the keys that are wanted. Those that take long are ordered, and
// filled in when they are there; material that does not come to be stored is lost
// with the set that it was made for.
func (m *Manager) fill(ctx context.Context, s set, slow *workshop, now time.Time) error {
	for _, r := range s.Rings {
		a, err := algorithmOf(r.Algorithm)
		if err != nil {
			return err
		}
		for i := range r.Keys {
			k := &r.Keys[i]
			if !k.wanted() {
				continue
			}
			p := Place{Issuer: m.config.Issuer, Ring: r.Name, Algorithm: r.Algorithm}
			distant := m.backendOf(r.Name) != Backend(m.sealed)
			made, ok, err := slow.get(r.Name, a.slow || distant, func() (material, error) { return m.generate(ctx, p) })
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			k.fill(made, now)
		}
	}
	slow.discard()
	return nil
}

func (m *Manager) leased(n *snapshot) bool { return n.age() <= m.config.Lease }

// Sign returns payload as a JWS in compact serialization with the header members
// alg, kid and typ. ring is an algorithm or RefreshRing. The same arguments give
// the same result until the ring's next key signs; those of a Config.Backend need
// not, as tokens that make ECDSA signatures choose their nonces. It fails with
// ErrNoKey, ErrLease and ErrBackend, all of which pass.
func (m *Manager) Sign(ring, typ string, payload []byte) (string, error) {
	n := m.current.Load()
	if !m.leased(n) {
		return "", ErrLease
	}
	signer := n.signers[ring]
	if signer == nil {
		return "", n.noKey(ring, m.config)
	}
	token, err := signer.sign(typ, payload)
	if err != nil {
		return "", err
	}
	// The process may have been stopped since, and the key been retired. The age of
	// an older snapshot goes on even when a newer one has been adopted.
	if !m.leased(n) {
		return "", ErrLease
	}
	return token, nil
}

// Ready returns the error that Sign would fail with now for want of a key or a lease,
// for those who have something to lose when they find out too late.
func (m *Manager) Ready(ring string) error {
	n := m.current.Load()
	switch {
	case !m.leased(n):
		return ErrLease
	case n.signers[ring] == nil:
		return n.noKey(ring, m.config)
	}
	return nil
}

// Default returns the algorithm, and so the ring, that signs where none is named.
func (m *Manager) Default() string { return m.config.Algorithms[0] }

// Algorithms returns the configured algorithms, the default first.
func (m *Manager) Algorithms() []string { return slices.Clone(m.config.Algorithms) }

// AccessKey returns the public key that verifies tokens with the given kid, and
// its algorithm. Keys of RefreshRing and compromised ones are not found.
func (m *Manager) AccessKey(kid string) (algorithm string, key crypto.PublicKey, ok bool) {
	return find(m.current.Load().access, kid)
}

// LongestToken returns the lifetime of the longest token that AccessKey's keys may
// have signed, also before the configuration changed and at other instances.
func (m *Manager) LongestToken() time.Duration {
	longest := m.config.TokenLifetime
	for _, r := range m.current.Load().set.Rings {
		for _, k := range r.Keys {
			if r.Name != RefreshRing {
				longest = max(longest, k.Lifetime)
			}
		}
	}
	return longest
}

// RefreshKey is AccessKey for refresh tokens: it finds the keys of RefreshRing only.
func (m *Manager) RefreshKey(kid string) (algorithm string, key crypto.PublicKey, ok bool) {
	return find(m.current.Load().refresh, kid)
}

func find(keys map[string]public, kid string) (string, crypto.PublicKey, bool) {
	p, ok := keys[kid]
	if ok {
		p.usage.verified.Add(1)
	}
	return p.algorithm, p.key, ok
}

func (m *Manager) log(list []change) {
	for _, c := range list {
		m.config.Logger.Info("key changed state", slog.String("event", "key"), slog.String("kid", c.id), slog.String("ring", c.ring),
			slog.String("from", string(c.from)), slog.String("to", string(c.to)), slog.String("why", c.why))
	}
}
