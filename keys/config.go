package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

const (
	skew      = 60 * time.Second // between the clocks of instances and verifiers
	lease     = 30 * time.Second // how long an instance signs without having read the store
	mostKeys  = 1000             // that one ring may have to keep
	longCache = 24 * time.Hour
)

// Store is where the set of keys lives: one value with a version.
type Store interface {
	// Load returns the value and its version; version 0 when nothing is stored.
	Load(ctx context.Context) (value []byte, version uint64, err error)
	// Save replaces the value of a version, or makes the first for version 0. It
	// reports false when the stored version is another. Versions only grow.
	Save(ctx context.Context, value []byte, version uint64) (ok bool, err error)
}

// Config says where the keys are and what they are for.
type Config struct {
	Store     Store
	MasterKey MasterKey
	Issuer    string // sealed keys are bound to it
	// Algorithms are those of the published rings: ES256, RS256, EdDSA. The first
	// is the default. A ring that is no longer listed stays as it is stored.
	Algorithms      []string
	RotateEvery     time.Duration // how long a key signs; 2160h is usual
	PublishBefore   time.Duration // how long a key is published before it signs; 24h is usual
	CacheFor        time.Duration // the longest max-age of the JWKS; 10m is usual
	TokenLifetime   time.Duration // of the longest token that others verify
	RefreshLifetime time.Duration // of the longest refresh token
	Logger          *slog.Logger  // nil: slog.Default()
}

// Check returns what is wrong with the operator's part of c. A policy under which
// a verifier could meet an unknown or missing key is refused.
func (c Config) Check() []error {
	problems := c.checkAlgorithms()
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.CacheFor < 0 || c.CacheFor > longCache {
		problem("cache_for is %s; allowed are 0s to %s", c.CacheFor, longCache)
	}
	// A cache that strips Age may hold an answer for twice its max-age.
	if least := 2*c.CacheFor + lease + skew; c.PublishBefore < least {
		problem("publish_before is %s, but verifiers may hold an old key set for up to %s "+
			"(twice cache_for, and %s); raise publish_before or lower cache_for", c.PublishBefore, least, lease+skew)
	}
	if c.RotateEvery < c.PublishBefore+lease {
		problem("rotate_every is %s, less than publish_before and %s (%s): the next key would not have been published "+
			"long enough; raise rotate_every or lower publish_before", c.RotateEvery, lease, c.PublishBefore+lease)
	}
	for _, kept := range []struct {
		name     string
		lifetime time.Duration
	}{{"access tokens", c.TokenLifetime}, {"refresh tokens", c.RefreshLifetime}} {
		if kept.lifetime <= 0 {
			problem("the lifetime of %s is %s; it must be more than 0s", kept.name, kept.lifetime)
		} else if c.RotateEvery > 0 && kept.lifetime/c.RotateEvery > mostKeys {
			problem("rotate_every is %s: more than %d keys would have to be kept for %s that live %s; raise rotate_every",
				c.RotateEvery, mostKeys, kept.name, kept.lifetime)
		}
	}
	return problems
}

func (c Config) checkAlgorithms() []error {
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
	return problems
}

// policyFor returns how long the keys of a ring stay in each state.
func (c Config) policyFor(name string) policy {
	keep := c.TokenLifetime
	if name == RefreshRing {
		keep = c.RefreshLifetime
	}
	// An instance that has not seen the change goes on signing for a lease; the
	// leeway of verifiers and the difference between clocks are a skew each.
	return policy{c.RotateEvery, c.PublishBefore, keep + lease + 2*skew}
}
