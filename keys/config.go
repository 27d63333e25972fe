package keys

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Store is where the set of keys lives, one value with a version, and the key log
// beside it.
type Store interface {
	// Load returns the value and its version, which grows with every Save; version
	// 0 when nothing is stored yet. It must not answer with less than an earlier
	// Save or Load of anybody has seen.
	Load(ctx context.Context) (value []byte, version uint64, err error)
	// Save replaces the value of version, or stores the first one when version is
	// 0. It reports false when another version is stored: somebody else was first.
	// After an error the value may or may not have been stored, but not later than
	// the end of ctx.
	Save(ctx context.Context, value []byte, version uint64) (ok bool, err error)
	// Append adds an entry to the end of the key log, which keeps everything. After
	// an error, or a lost answer, the entry may be there any number of times.
	Append(ctx context.Context, entry []byte) error
	// Entries yields all entries, in the order in which they were appended, and
	// ends after yielding an error.
	Entries(ctx context.Context) iter.Seq2[[]byte, error]
}

// ClockSkew is the most that two clocks may differ by, of instances, stores and
// verifiers: each is right within two minutes. docs/operating.md and SECURITY.md ask
// operators for that.
const ClockSkew = 4 * time.Minute

// Config says where the keys are and what is promised about them. Zero durations
// take their defaults.
type Config struct {
	Store     Store     // required
	MasterKey MasterKey // seals private keys at rest; required
	// OldMasterKeys open what was sealed before MasterKey came; see Manager.Rewrap.
	OldMasterKeys []MasterKey
	// Backend makes and keeps the keys of the published rings; nil: they are sealed
	// in the store like the others. Keys that another backend made sign on until
	// they rotate, as long as it is this one or the sealed one.
	Backend Backend
	// Issuer is the issuer identifier. Sealed keys are bound to it: under another
	// issuer they do not open.
	Issuer string

	// Algorithms are those of the published rings: ES256, RS256, EdDSA. The first
	// is the default; ES256 and RS256 when empty. An algorithm that is added later
	// signs once its key has been published long enough for every cache. One that
	// is taken out stays in the stored set, published and rotated, so that nothing
	// that was signed with it, or still is elsewhere, breaks.
	Algorithms []string

	RotateEvery   time.Duration // how long a key signs; 2160h
	PublishBefore time.Duration // how long a key is published before it signs; 24h
	CacheFor      time.Duration // the longest max-age of the JWKS; 10m
	// TokenLifetime and RefreshLifetime are those of the longest token that others
	// verify (1h) and of the longest refresh token (8760h).
	TokenLifetime   time.Duration
	RefreshLifetime time.Duration

	Skew      time.Duration // bound between any two clocks, of instances and verifiers: each may be off by half; ClockSkew
	Lease     time.Duration // how long an instance signs without having read the store; 30s
	PollEvery time.Duration // how often an instance reads the store; 1s

	Logger *slog.Logger // slog.Default() when nil

	hurry bool // see RotateForTesting
}

const (
	// sharedCaches is how many times in a row an answer may be held for its
	// max-age: once by a cache in front that strips Age, once by the verifier.
	sharedCaches = 2
	// maxPerLifetime bounds a ring: no more keys than that are taken into use
	// within the lifetime of one token, however short RotateEvery is.
	maxPerLifetime = 12
	// longest bounds every duration, so that sums of them cannot overflow.
	longest = 10 * 365 * 24 * time.Hour
)

func (c Config) withDefaults() Config {
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{es256, rs256}
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&c.RotateEvery, 90 * 24 * time.Hour},
		{&c.PublishBefore, 24 * time.Hour},
		{&c.CacheFor, 10 * time.Minute},
		{&c.TokenLifetime, time.Hour},
		{&c.RefreshLifetime, 365 * 24 * time.Hour},
		{&c.Skew, ClockSkew},
		{&c.Lease, 30 * time.Second},
		{&c.PollEvery, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Check returns what is wrong with the policy: the algorithms and durations. One
// under which a verifier could meet an unknown key, or a token outlive its key, is
// refused; each error says which number has to change.
func (c Config) Check() []error {
	c = c.withDefaults()
	problems := append(c.checkAlgorithms(), c.checkBackend()...)
	bounds := c.checkBounds()
	if len(bounds) > 0 {
		return append(problems, bounds...) // sums of what is out of bounds say nothing
	}
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if soonest := c.soonest(c.CacheFor); c.PublishBefore < soonest {
		problem("publish_before is %s, but caches may hold a key set without the next key for %s (twice cache_for, plus %s "+
			"for instances and clocks): raise publish_before to at least %s, or lower cache_for to at most %s", c.PublishBefore, soonest,
			soonest-sharedCaches*c.CacheFor, soonest, max(0, (c.PublishBefore-c.soonest(0))/sharedCaches).Truncate(time.Second))
	}
	if least := c.PublishBefore + c.spread() + c.Skew; c.RotateEvery < least {
		problem("rotate_every is %s, but the next key is made when a key begins to sign and must be published for %s: "+
			"raise rotate_every to at least %s, or lower publish_before", c.RotateEvery, c.PublishBefore, least)
	}
	if c.PollEvery > c.Lease/3 {
		problem("the store is read every %s; within a lease of %s it must be at least three times", c.PollEvery, c.Lease)
	}
	return problems
}

func (c Config) checkAlgorithms() []error {
	var problems []error
	for i, name := range c.Algorithms {
		if _, err := algorithmOf(name); err != nil {
			problems = append(problems, fmt.Errorf("algorithms has %q; allowed are %s", name, strings.Join(offered(), ", ")))
		} else if slices.Contains(c.Algorithms[:i], name) {
			problems = append(problems, fmt.Errorf("algorithms has %s twice", name))
		}
	}
	return problems
}

func (c Config) checkBounds() []error {
	var problems []error
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"rotate_every", c.RotateEvery, time.Second},
		{"publish_before", c.PublishBefore, time.Second},
		{"cache_for", c.CacheFor, time.Second},
		{"the lifetime of tokens", c.TokenLifetime, time.Second},
		{"the lifetime of refresh tokens", c.RefreshLifetime, time.Second},
		{"the clock skew", c.Skew, time.Millisecond},
		{"the lease", c.Lease, time.Millisecond},
		{"the interval of reading the store", c.PollEvery, time.Millisecond},
	} {
		if d.value < d.least || d.value > longest {
			problems = append(problems, fmt.Errorf("%s is %s; allowed are %s to %s", d.name, d.value, d.least, longest))
		}
	}
	return problems
}

// callTimeout bounds one call of the store. It is a part of the margins because a
// change is stamped before it is stored.
func (c Config) callTimeout() time.Duration { return c.Lease / 6 }

// spread is the longest time from the stamp of a change until every instance works
// with it or has stopped signing.
func (c Config) spread() time.Duration { return c.Lease + c.callTimeout() }

// soonest is how long a key is published at least before it signs, when answers
// without it could be cached for cacheFor.
func (c Config) soonest(cacheFor time.Duration) time.Duration {
	return sharedCaches*cacheFor + c.spread() + c.Skew
}

// policyOf returns the policy of a ring. longestCache is the longest max-age that
// any instance ever served.
func (c Config) policyOf(name string, longestCache time.Duration) policy {
	p := policy{
		rotateEvery:   c.RotateEvery,
		publishBefore: c.PublishBefore,
		soonest:       c.soonest(longestCache),
		lifetime:      c.TokenLifetime,
		// The leeway of verifiers is another skew.
		slack:  c.spread() + 2*c.Skew,
		spread: c.spread() + c.Skew,
	}
	if name == RefreshRing {
		p.lifetime = c.RefreshLifetime
		p.soonest = c.soonest(0) // only instances have to know the key
	}
	p.publishBefore = max(p.publishBefore, p.soonest)
	p.rotateEvery = max(p.rotateEvery, p.lifetime/maxPerLifetime)
	if c.hurry {
		p.rotateEvery, p.publishBefore, p.soonest = 0, 0, 0
	}
	return p
}

// checkWiring returns what the program that calls Open forgot.
func (c Config) checkWiring() error {
	switch {
	case c.Store == nil:
		return errors.New("no store given")
	case c.Issuer == "":
		return errors.New("no issuer given")
	}
	return nil
}
