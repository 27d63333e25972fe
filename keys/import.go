package keys

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
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
	made, err := imported(private, r.Algorithm)
	if err != nil {
		return KeyView{}, err
	}
	if err := m.neverHad(ctx, made.id); err != nil {
		return KeyView{}, err
	}
	box, err := seal(m.config.MasterKey, made, place{m.config.Issuer, ring, r.Algorithm, made.id})
	if err != nil {
		return KeyView{}, err
	}
	err = m.carryOut(ctx, by, func(s *set, now time.Time) (Entry, error) {
		r := s.ring(ring)
		if r == nil || !r.Retire.IsZero() {
			return Entry{}, refuse("the ring %s is to end", ring)
		}
		if _, k := s.key(made.id); k != nil {
			return Entry{}, hadAlready(made.id)
		}
		standby := r.find(pending)
		if standby == nil {
			r.Keys = append(r.Keys, key{})
			standby = &r.Keys[len(r.Keys)-1]
		}
		*standby = key{State: pending}
		standby.fill(made, box, now)
		return Entry{Action: ActionImport, Ring: ring, KeyID: made.id}, nil
	})
	if err != nil {
		return KeyView{}, err
	}
	shown, err := m.Show(made.id)
	return shown.KeyView, err
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

// imported checks a key from elsewhere.
func imported(private crypto.Signer, algorithm string) (material, error) {
	a, err := algorithmOf(algorithm)
	if err != nil {
		return material{}, err
	}
	if key, ok := private.(*rsa.PrivateKey); ok && algorithm == rs256 {
		switch bits := key.N.BitLen(); {
		case bits < rsaBits || bits > maxRSABits:
			return material{}, refuse("the RSA key has %d bits; allowed are %d to %d", bits, rsaBits, maxRSABits)
		case key.E < 65537:
			return material{}, refuse("the RSA key has the public exponent %d; allowed is 65537 or more", key.E)
		case key.Validate() != nil:
			return material{}, refuse("the RSA key is not consistent")
		}
	}
	if !a.fits(private.Public()) {
		return material{}, refuse("the key is no key for %s", algorithm)
	}
	id, err := thumbprint(private.Public())
	if err != nil {
		return material{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return material{}, fmt.Errorf("encoding public key %s: %w", id, err)
	}
	return material{id, public, private}, nil
}
