package keystest

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"authserver/keys"

	"github.com/go-jose/go-jose/v4"
)

// counting knows which keys of a backend there should be.
type counting struct {
	keys.Backend
	mu   sync.Mutex
	live map[string]bool // handles
}

func (c *counting) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	public, handle, err := c.Backend.Generate(ctx, p)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.live[string(handle)] = true
	}
	return public, handle, err
}

func (c *counting) Destroy(ctx context.Context, p keys.Place, handle []byte) error {
	err := c.Backend.Destroy(ctx, p, handle)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.live, string(handle))
	}
	return err
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live)
}

// house is some instances on one store and one backend.
type house struct {
	config  keys.Config
	backend *counting // nil: keys are sealed by the manager itself
	store   *Store
	stops   []func()
}

func newHouse(h Harness) (*house, error) {
	b, err := h.Open()
	if err != nil {
		return nil, err
	}
	master, err := keys.NewMasterKey()
	if err != nil {
		return nil, err
	}
	one := &house{store: new(Store)}
	one.config = keys.Config{
		Store: one.store, MasterKey: master, Issuer: issuer, Algorithms: b.Algorithms(),
		// As short as a busy machine allows: nothing below waits for them to the second.
		CacheFor: time.Second, PublishBefore: 20 * time.Second, RotateEvery: time.Hour,
		TokenLifetime: time.Minute, RefreshLifetime: time.Hour,
		Lease: 3 * time.Second, PollEvery: 50 * time.Millisecond, Skew: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if !h.InHandle {
		one.backend = &counting{Backend: b, live: map[string]bool{}}
		one.config.Backend = one.backend
	}
	return one, nil
}

// start starts an instance and waits until it can sign.
func (h *house) start(ctx context.Context) (*keys.Manager, error) {
	m, err := keys.Open(ctx, h.config)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); m.Run(running) }()
	h.stops = append(h.stops, func() { cancel(); <-done })
	return m, eventually(ctx, "every ring signs and has a standby", func() bool {
		for _, r := range m.Describe().Rings {
			if len(r.Keys) < 2 {
				return false
			}
		}
		return true
	})
}

func (h *house) stop() {
	for _, stop := range h.stops {
		stop()
	}
	h.stops = nil
}

func eventually(ctx context.Context, what string, reached func() bool) error {
	for !reached() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: waited in vain", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// settled waits until the backend holds two keys for each ring, and no other.
func (h *house) settled(ctx context.Context) error {
	if h.backend == nil {
		return nil
	}
	want := 2 * len(h.config.Algorithms)
	err := eventually(ctx, "", func() bool { return h.backend.count() == want })
	if err != nil {
		return fmt.Errorf("a private key is destroyed when nothing signs with it any more: there are %d, want %d", h.backend.count(), want)
	}
	return nil
}

// token signs with a ring and verifies as a resource server that has the JWKS.
func token(m *keys.Manager, ring string) (string, error) {
	text, err := m.Sign(ring, "at+jwt", []byte(`{"iss":"`+issuer+`"}`))
	if err != nil {
		return "", fmt.Errorf("a ring with keys signs: %w", err)
	}
	return text, verify(m, text)
}

func verify(m *keys.Manager, text string) error {
	var jwks jose.JSONWebKeySet
	if err := json.Unmarshal(m.JWKS().Body, &jwks); err != nil {
		return err
	}
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil {
		return err
	}
	found := jwks.Key(signed.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		return fmt.Errorf("the key of a token is published once, not %d times", len(found))
	}
	if _, err := signed.Verify(found[0]); err != nil {
		return fmt.Errorf("a token verifies with the published key: %w", err)
	}
	return nil
}

func rotation(ctx context.Context, h Harness) error {
	house, err := newHouse(h)
	if err != nil {
		return err
	}
	defer house.stop()
	m, err := house.start(ctx)
	if err != nil {
		return err
	}
	var tokens []string
	for range 4 {
		for _, ring := range house.config.Algorithms {
			text, err := token(m, ring)
			if err != nil {
				return err
			}
			tokens = append(tokens, text)
		}
		if err := m.RotateForTesting(ctx); err != nil {
			return err
		}
		for _, text := range tokens {
			if err := verify(m, text); err != nil {
				return fmt.Errorf("after a rotation, a token from before: %w", err)
			}
		}
	}
	if err := house.settled(ctx); err != nil {
		return err
	}
	// A restart finds the keys again.
	house.stop()
	if house.backend != nil {
		if house.backend.Backend, err = h.Open(); err != nil {
			return err
		}
	}
	if m, err = house.start(ctx); err != nil {
		return err
	}
	for _, ring := range append(slices.Clone(house.config.Algorithms), keys.RefreshRing) {
		if _, err := m.Sign(ring, "at+jwt", []byte(`{}`)); err != nil {
			return fmt.Errorf("after a restart: %w", err)
		}
	}
	return whole(ctx, m)
}

// whole checks the key log.
func whole(ctx context.Context, m *keys.Manager) error {
	report, err := m.VerifyLog(ctx)
	if err == nil && len(report.Problems) > 0 {
		err = errors.New("the key log is one history: " + report.Problems[0].Text)
	}
	return err
}

func revocation(ctx context.Context, h Harness) error {
	house, err := newHouse(h)
	if err != nil {
		return err
	}
	defer house.stop()
	m, err := house.start(ctx)
	if err != nil {
		return err
	}
	for _, ring := range house.config.Algorithms {
		text, err := token(m, ring)
		if err != nil {
			return err
		}
		overview := m.Describe()
		at := slices.IndexFunc(overview.Rings, func(r keys.RingView) bool { return r.Name == ring })
		kid := overview.Rings[at].Keys[0].KeyID
		if _, err := m.Revoke(ctx, keys.By{Caller: "keystest", Reason: "drill"}, kid); err != nil {
			return err
		}
		if verify(m, text) == nil {
			return errors.New("a revoked key is not published")
		}
		if _, _, ok := m.AccessKey(kid); ok {
			return errors.New("a revoked key verifies nothing")
		}
		// The standby signs when no cache can lack it.
		err = eventually(ctx, "the standby signs", func() bool { _, err := token(m, ring); return err == nil })
		if err != nil {
			return err
		}
	}
	return errors.Join(house.settled(ctx), whole(ctx, m))
}

// racingInstances rotates from several instances at once. The keys that the losers
// made are destroyed.
func racingInstances(ctx context.Context, h Harness) error {
	house, err := newHouse(h)
	if err != nil {
		return err
	}
	defer house.stop()
	house.config.Algorithms = house.config.Algorithms[:1] // which says as much as all of them
	var managers []*keys.Manager
	for range 3 {
		m, err := house.start(ctx)
		if err != nil {
			return err
		}
		managers = append(managers, m)
	}
	for range 3 {
		var all sync.WaitGroup
		failed := [3]error{}
		for i, m := range managers {
			all.Go(func() { failed[i] = m.RotateForTesting(ctx) })
		}
		all.Wait()
		if err := errors.Join(failed[:]...); err != nil {
			return err
		}
		for _, m := range managers {
			for _, ring := range house.config.Algorithms {
				if _, err := token(m, ring); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(house.settled(ctx), whole(ctx, managers[0]))
}
