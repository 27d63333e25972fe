// Package keystest is the contract of keys.Backend as tests: of the backend by
// itself, and of rotating keys that it keeps. Run it, raced, on every implementation.
package keystest

import (
	"context"
	"crypto"
	"errors"
	"testing"
	"time"

	"authserver/keys"
)

// Harness says how to test a backend.
type Harness struct {
	// Open returns the backend on the same keys each time, as after a restart.
	Open func() (keys.Backend, error)
	// InHandle says that the handle is the key, sealed: who has kept a handle can
	// open it after Destroy too.
	InHandle bool
}

// Run checks the contract. A failure names the rule that was broken.
func Run(t *testing.T, h Harness) {
	for _, check := range Checks {
		t.Run(check.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := check.Run(ctx, h); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check is one part of the contract.
type Check struct {
	Name string
	Run  func(ctx context.Context, h Harness) error // returns the broken rule, or nil
}

// Checks are the contract.
var Checks = []Check{
	{"names", names},
	{"generate", generate},
	{"sign", sign},
	{"sign racing", signRacing},
	{"reopen", reopen},
	{"places", places},
	{"junk handles", junkHandles},
	{"destroy", destroy},
	{"context", contextEnds},
	{"rotation", rotation},
	{"revocation", revocation},
	{"racing instances", racingInstances},
}

const issuer = "https://keystest.example"

// made is a key of a backend.
type made struct {
	place  keys.Place
	public crypto.PublicKey
	handle []byte
}

func newKey(ctx context.Context, b keys.Backend, algorithm string) (made, error) {
	place := keys.Place{Issuer: issuer, Ring: algorithm, Algorithm: algorithm}
	public, handle, err := b.Generate(ctx, place)
	if err != nil {
		return made{}, err
	}
	place.KeyID, err = keys.Thumbprint(public)
	return made{place, public, handle}, err
}

// each runs a check for every algorithm of a backend.
func each(ctx context.Context, h Harness, check func(b keys.Backend, key made) error) error {
	b, err := h.Open()
	if err != nil {
		return err
	}
	for _, algorithm := range b.Algorithms() {
		key, err := newKey(ctx, b, algorithm)
		if err != nil {
			return err
		}
		if err := errors.Join(check(b, key), b.Destroy(ctx, key.place, key.handle)); err != nil {
			return err
		}
	}
	return nil
}
