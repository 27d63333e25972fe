package keys

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	if problems := (Config{}).Check(); len(problems) > 0 {
		t.Errorf("the defaults: %v", problems)
	}
	for _, test := range []struct {
		config Config
		words  []string // of the only problem
	}{
		{Config{PublishBefore: 21 * time.Minute}, []string{"publish_before is 21m0s", "at least 24m35s", "cache_for to at most 8m12s"}},
		{Config{PublishBefore: 24*time.Minute + 35*time.Second}, nil},
		{Config{PublishBefore: time.Minute}, []string{"cache_for to at most 0s"}},
		{Config{RotateEvery: 24 * time.Hour}, []string{"rotate_every is 24h0m0s", "at least 24h4m35s", "publish_before"}},
		{Config{RotateEvery: 24*time.Hour + 275*time.Second}, nil},
		{Config{CacheFor: 13 * time.Hour}, []string{"publish_before is 24h0m0s", "at least 26h4m35s", "cache_for"}},
		{Config{PollEvery: 11 * time.Second}, []string{"every 11s", "lease of 30s"}},
		{Config{Algorithms: []string{"HS256"}}, []string{`"HS256"`, "ES256, RS256, EdDSA"}},
		{Config{Algorithms: []string{"ES256", "ES256"}}, []string{"ES256 twice"}},
		{Config{CacheFor: -time.Second}, []string{"cache_for is -1s"}},
		{Config{TokenLifetime: 1 << 62}, []string{"the lifetime of tokens"}},
	} {
		problems := test.config.Check()
		if len(problems) > 1 || (len(problems) == 0) != (test.words == nil) {
			t.Errorf("%+v: %v", test.config, problems)
			continue
		}
		for _, word := range test.words {
			if !strings.Contains(problems[0].Error(), word) {
				t.Errorf("%q lacks %q", problems[0], word)
			}
		}
	}
}

// All mistakes at once, not the first.
func TestCheckNamesAllProblems(t *testing.T) {
	c := Config{Algorithms: []string{"HS256"}, CacheFor: 13 * time.Hour, RotateEvery: time.Hour, PollEvery: time.Minute}
	if problems := c.Check(); len(problems) != 4 {
		t.Errorf("%v, want 4 problems", problems)
	}
}

func TestOpenRefusesABadConfig(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Store = nil },
		func(c *Config) { c.Issuer = "" },
		func(c *Config) { c.PublishBefore = time.Second },
	} {
		c := testConfig(t, new(memory), es256)
		change(&c)
		if _, err := Open(t.Context(), c); err == nil || errors.Is(err, ErrMasterKey) {
			t.Errorf("%v", err)
		}
	}
}

// Rings stay small however long tokens live.
func TestRingsStaySmall(t *testing.T) {
	c := Config{RotateEvery: 25 * time.Hour, RefreshLifetime: 10 * 365 * 24 * time.Hour}.withDefaults()
	p := c.policyOf(RefreshRing, c.CacheFor)
	if n := p.lifetime / p.rotateEvery; n > maxPerLifetime {
		t.Errorf("%d keys within a lifetime", n)
	}
	if got := c.policyOf(es256, c.CacheFor).rotateEvery; got != c.RotateEvery {
		t.Errorf("ES256 rotates every %s", got)
	}
}
