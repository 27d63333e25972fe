package keys

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// RotateForTesting rotates every ring at once, however young the standby keys
// are. Verifiers that hold the key set may meet an unknown key.
func (m *Manager) RotateForTesting(ctx context.Context) error {
	m.update.Lock()
	value, version, err := m.config.Store.Load(ctx)
	if err == nil {
		err = m.rotateStored(ctx, value, version)
	}
	m.update.Unlock()
	if err != nil {
		return err
	}
	return m.refresh(ctx, true)
}

func (m *Manager) rotateStored(ctx context.Context, value []byte, version uint64) error {
	stored, err := parseSet(value, version)
	if err != nil {
		return err
	}
	for i, r := range stored.Rings {
		now := policy{keep: m.config.policyFor(r.Name).keep}
		stored.Rings[i], _ = next(r, now, time.Now(), false)
		for j := range stored.Rings[i].Keys {
			if stored.Rings[i].Keys[j].ID == wanted {
				if err := stored.Rings[i].Keys[j].fill(r, m.config.MasterKey, m.config.Issuer); err != nil {
					return err
				}
			}
		}
	}
	if value, err = json.Marshal(stored); err != nil {
		return err
	}
	if saved, err := m.config.Store.Save(ctx, value, version); err != nil || !saved {
		return errors.Join(errors.New("the keys were not stored"), err)
	}
	return nil
}
