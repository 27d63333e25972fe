package keys

import (
	"context"
	"crypto"
	"crypto/rsa"
	"time"
)

// Import takes a key that was made elsewhere into a ring, as its next key: it is
// published now, and signs when it has been published for as long as any other.
// The standby that was there before, which never signed, is dropped. A key that is
// weak, not of the ring's algorithm, or was in the set at any time is refused.
// ParsePrivateKey reads one from a file.
func (m *Manager) Import(ctx context.Context, by By, ring string, private crypto.Signer) (KeyView, error) {
	if err := by.check(false); err != nil {
		return KeyView{}, err
	}
	s := m.current.Load().set
	r := s.ring(ring)
	if r == nil {
		return KeyView{}, refuse("there is no ring %q; `key algorithm add` makes one", ring)
	}
	made, err := m.takeIn(ctx, Place{Issuer: m.config.Issuer, Ring: ring, Algorithm: r.Algorithm}, private)
	if err != nil {
		return KeyView{}, err
	}
	err = m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		return Entry{Action: ActionImport, Ring: ring, KeyID: made.id}, s.replaceStandby(ring, made, now)
	})
	if err != nil {
		return KeyView{}, err
	}
	shown, err := m.Show(made.id)
	return shown.KeyView, err
}

// replaceStandby makes a key the next one of a ring.
func (s *set) replaceStandby(ring string, made material, now time.Time) error {
	r := s.ring(ring)
	if r == nil || !r.Retire.IsZero() {
		return refuse("the ring %s is to end", ring)
	}
	if _, k := s.key(made.id); k != nil {
		return hadAlready(made.id)
	}
	standby := r.find(pending)
	if standby == nil {
		r.Keys = append(r.Keys, key{})
		standby = &r.Keys[len(r.Keys)-1]
	}
	*standby = key{State: pending}
	standby.fill(made, now)
	return nil
}

func hadAlready(kid string) error {
	return refuse("the key %s is, or was, one of this issuer's keys: a key is taken in once; make a new one", kid)
}

// neverHad refuses a key that the key log knows.
func (m *Manager) neverHad(ctx context.Context, kid string) error {
	entries, err := m.Log(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.KeyID == kid {
			return hadAlready(kid)
		}
	}
	return nil
}

// maxRSABits bounds what a signature costs: it takes eight times as long with twice
// the bits.
const maxRSABits = 4096

// takeIn checks a key from elsewhere and hands it to the ring's backend.
func (m *Manager) takeIn(ctx context.Context, p Place, key crypto.Signer) (material, error) {
	backend, ok := m.backendOf(p.Ring).(Importer)
	if !ok {
		return material{}, refuse("the keys of %s are made in the backend %q and never come from elsewhere", p.Ring, m.backendOf(p.Ring).Name())
	}
	if err := checkStrength(key); err != nil {
		return material{}, err
	}
	made, err := newMaterial(key.Public(), private{}, p.Algorithm)
	if err != nil {
		return material{}, refuse("the key cannot be taken in: %v", err)
	}
	if err := m.neverHad(ctx, made.id); err != nil {
		return material{}, err
	}
	p.KeyID = made.id
	handle, err := backend.Import(ctx, p, key)
	made.private = private{backend.Name(), handle}
	m.strays.add(p, made.private)
	return made, err
}

func checkStrength(private crypto.Signer) error {
	key, ok := private.(*rsa.PrivateKey)
	if !ok {
		return nil // the other algorithms have keys of one strength
	}
	switch bits := key.N.BitLen(); {
	case bits < rsaBits || bits > maxRSABits:
		return refuse("the RSA key has %d bits; allowed are %d to %d", bits, rsaBits, maxRSABits)
	case key.E < 65537:
		return refuse("the RSA key has the public exponent %d; allowed is 65537 or more", key.E)
	case key.Validate() != nil:
		return refuse("the RSA key is not consistent")
	}
	return nil
}
