package keys

import (
	"context"
	"errors"
	"time"
)

// RotateForTesting rotates every ring at once, however young the pending keys are.
// A verifier that holds a cached JWKS may meet an unknown key.
func (m *Manager) RotateForTesting(ctx context.Context) error {
	m.stepping.Lock()
	defer m.stepping.Unlock()
	hurried := m.config
	hurried.hurry = true
	for range attempts {
		version, err := m.load(ctx)
		if err != nil {
			return err
		}
		now := time.Now().UTC().Round(0)
		after := advance(m.current.Load().set, hurried, now)
		if err := m.fill(ctx, after, &workshop{patient: true}, now); err != nil {
			return err
		}
		if err := m.record(m.current.Load().set, &after, By{Caller: "test"}, now); err != nil {
			return err
		}
		saved, err := m.save(ctx, after, version)
		if err != nil {
			return err
		}
		if saved {
			_, err = m.load(ctx)
			return err
		}
	}
	return errors.New("the stored key set changes faster than it can be read")
}
