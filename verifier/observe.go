package verifier

import (
	"errors"
	"time"
)

// Observation is what came of one token, for metrics.
type Observation struct {
	Reason Reason  // why it was refused; empty when it was accepted
	Cached bool    // it had been verified before
	Claims *Claims // of an accepted token; shared, not to be changed
}

func (v *Verifier) observe(err error, cached bool, claims *Claims) {
	if v.config.Observe == nil {
		return
	}
	o := Observation{Cached: cached, Claims: claims}
	var refusal *Error
	if errors.As(err, &refusal) {
		o.Reason = refusal.Reason
	}
	v.config.Observe(o)
}

// Health is how a verifier is, for metrics and readiness.
type Health struct {
	Keys         int           // of the issuer that are known
	KeysAge      time.Duration // since they were last fetched; zero without any
	Following    bool          // the issuer has a feed of revocations
	Stale        time.Duration // how far behind the feed what is known is; up to a second is usual
	CachedTokens int
	CachedBytes  int
	Ready        bool // keys are known and, where there is a feed, all that was revoked up to a second ago
}

// Health returns how the verifier is at this moment.
func (v *Verifier) Health() Health {
	now := time.Now()
	h := Health{}
	if v.cache != nil {
		h.CachedTokens, h.CachedBytes = v.cache.length(), v.cache.bytes()
	}
	if held := v.keys.current.Load(); held != nil {
		h.Keys, h.KeysAge = len(held.keys), held.age(now)
		h.Ready = h.KeysAge <= keepThrough
	}
	if f := v.follower.Load(); f != nil {
		h.Following, h.Stale = true, f.feed.Age(now)
		h.Ready = h.Ready && f.feed.Fresh(now)
	}
	return h
}
