package verifier

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"authserver/internal/intake"
)

const (
	minAsked     = 30 * time.Second // between fetches that unknown kids ask for while the keys are fresh
	minFresh     = time.Second      // between fetches, whatever max-age says
	maxRefresh   = time.Hour        // the same
	retryAfter   = 5 * time.Second  // at most, after failures while no keys are known
	retryStale   = 30 * time.Second // at most, after failures while some are
	keepThrough  = 24 * time.Hour   // keys are used after the last good answer
	firstWait    = 5 * time.Second  // Verify waits so long for keys
	answerWithin = 3 * time.Second  // for a document of the issuer, whatever the HTTP client allows
	metadataFor  = 5 * time.Minute  // the metadata is not asked for again so long
)

// keySet holds the issuer's keys. One goroutine fetches; a good answer replaces
// all keys, a bad one none.
type keySet struct {
	source  *source
	log     *slog.Logger
	found   func(endpoints) // is told where the issuer's endpoints are, if it is set
	current atomic.Pointer[fetched]
	first   chan struct{} // closed when keys are known
	ask     chan question // somebody met an unknown kid
	ended   chan struct{} // nobody fetches any more
}

// question is for the key of an unknown kid.
type question struct {
	kid      string
	answered chan struct{} // closed when there is nothing to wait for any more
}

// trustedKey is a key of the issuer. It is dead when the issuer does not publish it
// any more, wherever it is remembered.
type trustedKey struct {
	intake.Key
	dead atomic.Bool
}

// fetched is one good answer.
type fetched struct {
	keys  map[string]*trustedKey // by kid
	at    time.Time              // when it was asked for
	fresh time.Duration          // a kid that it lacks is unknown to the issuer for so long
	next  time.Duration          // until it is fetched again
}

// age is how long ago the issuer was asked. A monotonic clock may stand still while a
// machine sleeps, and the wall clock can be set back: the longer time counts.
func (f *fetched) age(now time.Time) time.Duration {
	return max(now.Sub(f.at), now.Round(0).Sub(f.at.Round(0)))
}

func newKeySet(source *source) *keySet {
	return &keySet{source: source, log: source.config.Logger, first: make(chan struct{}), ask: make(chan question), ended: make(chan struct{})}
}

// find returns the key of a kid. An unknown one is looked for at the issuer, by
// all callers together and not more often than every 30 seconds: tokens with
// made-up kids must not become requests there. Fetches by max-age do not count in
// that: who could hide a new key behind them would make an emergency rotation last.
// Nor does the issuer's word that its answer is stale already (max-age=0: a key may
// sign at once), or what cannot be fetched: then it is every second, and a kid for
// which nobody could be asked is not called unknown.
func (s *keySet) find(ctx context.Context, kid string) (*trustedKey, error) {
	began := time.Now()
	if s.current.Load() == nil && !s.wait(ctx, s.first) {
		return nil, ErrUnavailable
	}
	key, known := s.lookup(kid)
	if !known {
		s.look(ctx, kid)
		key, known = s.lookup(kid)
	}
	if !s.usable(time.Now()) {
		return nil, ErrUnavailable
	}
	if !known {
		if held := s.current.Load(); held.at.Before(began) && held.age(time.Now()) >= held.fresh {
			return nil, &Error{Code: ErrUnavailable.Code, Reason: KeysUnavailable,
				Description: "the token is signed by a key that is not known here, and the issuer could not be asked for it; try again"}
		}
		return nil, invalidToken(UnknownKey, "the token is signed by a key that the issuer does not publish")
	}
	return key, nil
}

// usable reports whether keys are known that are not too old. Those that are too old
// are fetched: the timer for it has stood still if this machine has slept.
func (s *keySet) usable(now time.Time) bool {
	held := s.current.Load()
	if held != nil && held.age(now) <= keepThrough {
		return true
	}
	select {
	case s.ask <- question{answered: make(chan struct{})}:
	default:
	}
	return false
}

// look has the keys fetched, if that is due, and waits for it a few seconds at most.
func (s *keySet) look(ctx context.Context, kid string) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	asked := question{kid, make(chan struct{})}
	select {
	case s.ask <- asked:
		s.wait(ctx, asked.answered)
	case <-s.ended:
	case <-ctx.Done():
	}
}

func (s *keySet) lookup(kid string) (*trustedKey, bool) {
	key, known := s.current.Load().keys[kid]
	return key, known
}

// wait waits for a channel to close, a few seconds at most.
func (s *keySet) wait(ctx context.Context, done <-chan struct{}) bool {
	timeout := time.NewTimer(firstWait)
	defer timeout.Stop()
	select {
	case <-done:
		return true
	case <-s.ended:
	case <-ctx.Done():
	case <-timeout.C:
	}
	return false
}

// run fetches the keys when they are stale and when somebody asks, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer close(s.ended)
	var asked time.Time // when an unknown kid had keys fetched
	failures := 0       // since the last good answer
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		var open question
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		case open = <-s.ask:
			// It may have become known while the question waited for a fetch.
			if s.answered(open.kid, time.Since(asked)) {
				close(open.answered)
				continue
			}
			asked = time.Now()
		}
		if s.refresh(ctx) {
			failures = 0
		} else {
			failures++
		}
		pause.Reset(s.pause(failures))
		if open.answered != nil {
			close(open.answered)
		}
	}
}

// answered reports whether there is nothing to fetch for a kid, when the last fetch for
// one was so long ago.
func (s *keySet) answered(kid string, last time.Duration) bool {
	held := s.current.Load()
	if held == nil {
		return true // the timer fetches
	}
	if _, known := held.keys[kid]; known {
		return true
	}
	if held.age(time.Now()) >= held.fresh {
		return last < minFresh
	}
	return last < minAsked
}

// refresh fetches once and reports whether that succeeded.
func (s *keySet) refresh(ctx context.Context) bool {
	answer, err := s.fetch(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("fetching the issuer's keys failed; those known stay in use", "issuer", s.source.config.Issuer, "error", err)
		}
		return false
	}
	held := s.current.Load()
	if held != nil {
		answer.inherit(held)
	}
	s.current.Store(answer)
	if held == nil {
		close(s.first)
	}
	return true
}

// pause is how long to wait for the next fetch. After failures it grows: a server
// that hangs is left for another soon, and an issuer that is down is not flooded.
func (s *keySet) pause(failures int) time.Duration {
	held := s.current.Load()
	switch {
	case failures == 0:
		return max(held.next-time.Since(held.at), minFresh)
	case held == nil:
		return min(minFresh<<min(failures-1, 10), retryAfter)
	}
	return min(minFresh<<min(failures-1, 10), retryStale, held.next)
}

// inherit keeps the keys that stay, so that tokens that were verified by them need
// no second look, and ends all others: the new set replaces the old one whole.
func (f *fetched) inherit(old *fetched) {
	for kid, before := range old.keys {
		now, stays := f.keys[kid]
		if stays && now.Algorithm == before.Algorithm && sameKey(now.Public, before.Public) {
			f.keys[kid] = before
		} else {
			before.dead.Store(true)
		}
	}
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func (s *keySet) fetch(ctx context.Context) (*fetched, error) {
	endpoints, err := s.source.discover(ctx)
	if err != nil {
		return nil, err
	}
	if s.found != nil {
		s.found(endpoints)
	}
	at := time.Now()
	body, header, err := s.source.get(ctx, endpoints.JWKS)
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			s.source.looked = time.Time{} // it may be elsewhere now
		}
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	keys, refused, err := intake.ParseKeySet(body)
	if err != nil {
		s.source.looked = time.Time{}
		return nil, err
	}
	for _, reason := range refused {
		s.log.Warn("a key of the issuer is not used", "issuer", s.source.config.Issuer, "reason", reason)
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	answer := &fetched{keys: make(map[string]*trustedKey, len(keys)), at: at}
	answer.fresh, answer.next = freshness(header)
	for _, key := range keys {
		answer.keys[key.ID] = &trustedKey{Key: key}
	}
	return answer, nil
}

// freshness is how long an answer may be used before it is fetched again: its
// max-age less its Age (RFC 9111 §4.2), within bounds. An issuer that rotates quickly
// has to say so by a short max-age; one that says 0 wants no cache, not to be asked
// each second: that is left to the tokens whose kid the answer lacks.
func freshness(header http.Header) (fresh, next time.Duration) {
	lifetime := 5 * time.Minute
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil && strings.EqualFold(name, "max-age") {
			lifetime = time.Duration(seconds) * time.Second
		}
	}
	if lifetime == 0 {
		return minFresh, minAsked
	}
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		lifetime -= time.Duration(age) * time.Second
	}
	next = min(max(lifetime, minFresh), maxRefresh)
	return next, next
}
