package verifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"authserver/internal/intake"
)

const (
	minRefresh  = 30 * time.Second // between fetches, whatever asks for them
	maxRefresh  = time.Hour        // between fetches, whatever max-age says
	retryAfter  = 5 * time.Second  // after a failure while no keys are known
	keepThrough = 24 * time.Hour   // keys are used after the last good answer
	firstWait   = 5 * time.Second  // Verify waits so long for keys
	fetchWithin = 10 * time.Second // whatever the HTTP client allows
)

// keySet holds the issuer's keys. One goroutine fetches; a good answer replaces
// all keys, a bad one none.
type keySet struct {
	config  Config
	client  *http.Client
	log     *slog.Logger
	current atomic.Pointer[fetched]
	first   chan struct{}      // closed when keys are known
	ask     chan chan struct{} // somebody met an unknown kid
	ended   chan struct{}      // nobody fetches any more
}

// fetched is one good answer.
type fetched struct {
	keys map[string]intake.Key // by kid
	at   time.Time
	next time.Duration // until it is stale
}

func newKeySet(config Config, client *http.Client) *keySet {
	return &keySet{config: config, client: client, log: config.Logger, first: make(chan struct{}), ask: make(chan chan struct{}), ended: make(chan struct{})}
}

// find returns the key of a kid. An unknown one is looked for at the issuer, by
// all callers together and not more often than every 30 seconds: tokens with
// made-up kids must not become requests there.
func (s *keySet) find(ctx context.Context, kid string) (intake.Key, error) {
	select {
	case <-s.first:
	default:
		if !s.wait(ctx, s.first) {
			return intake.Key{}, ErrUnavailable
		}
	}
	key, known := s.lookup(kid)
	if !known {
		s.look(ctx)
		key, known = s.lookup(kid)
	}
	if held := s.current.Load(); time.Since(held.at) > keepThrough {
		return intake.Key{}, ErrUnavailable
	}
	if !known {
		return intake.Key{}, invalidToken("the token is signed by a key that the issuer does not publish")
	}
	return key, nil
}

// look has the keys fetched, if that is due, and waits for it a few seconds at most.
func (s *keySet) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	done := make(chan struct{})
	select {
	case s.ask <- done:
		s.wait(ctx, done)
	case <-s.ended:
	case <-ctx.Done():
	}
}

func (s *keySet) lookup(kid string) (intake.Key, bool) {
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
	var last time.Time // of the latest attempt
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		var asked chan struct{}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		case asked = <-s.ask:
			if time.Since(last) < minRefresh {
				close(asked)
				continue
			}
		}
		last = time.Now()
		pause.Reset(s.refresh(ctx))
		if asked != nil {
			close(asked)
		}
	}
}

// refresh fetches once and returns how long to pause.
func (s *keySet) refresh(ctx context.Context) time.Duration {
	answer, err := s.fetch(ctx)
	held := s.current.Load()
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("fetching the issuer's keys failed; those known stay in use", "issuer", s.config.Issuer, "error", err)
		}
		if held == nil {
			return retryAfter
		}
		return minRefresh
	}
	s.current.Store(answer)
	if held == nil {
		close(s.first)
	}
	return answer.next
}

func (s *keySet) fetch(ctx context.Context) (*fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	location := s.config.JWKSURI
	if location == "" {
		var err error
		if location, err = s.discover(ctx); err != nil {
			return nil, err
		}
	}
	at := time.Now()
	body, header, err := s.get(ctx, location)
	if err != nil {
		return nil, fmt.Errorf("fetching the key set: %w", err)
	}
	keys, refused, err := intake.ParseKeySet(body)
	if err != nil {
		return nil, err
	}
	for _, reason := range refused {
		s.log.Warn("a key of the issuer is not used", "issuer", s.config.Issuer, "reason", reason)
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	answer := &fetched{keys: make(map[string]intake.Key, len(keys)), at: at, next: freshness(header)}
	for _, key := range keys {
		answer.keys[key.ID] = key
	}
	return answer, nil
}

// discover finds the key set in the issuer's metadata (RFC 8414 §3).
func (s *keySet) discover(ctx context.Context) (string, error) {
	location, err := metadataURL(s.config.Issuer)
	if err != nil {
		return "", err
	}
	body, _, err := s.get(ctx, location)
	if err != nil {
		return "", fmt.Errorf("fetching the metadata: %w", err)
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := intake.Decode(body, &metadata); err != nil {
		return "", fmt.Errorf("reading the metadata: %w", err)
	}
	if metadata.Issuer != s.config.Issuer { // RFC 8414 §3.3
		return "", fmt.Errorf("the metadata is of issuer %q, expected %q", metadata.Issuer, s.config.Issuer)
	}
	if err := checkURL("jwks_uri", metadata.JWKSURI); err != nil {
		return "", err
	}
	return metadata.JWKSURI, nil
}

func (s *keySet) get(ctx context.Context, location string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %s", location, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, intake.MaxKeySet+1))
	if err == nil && len(body) > intake.MaxKeySet {
		err = fmt.Errorf("%s answered more than %d bytes", location, intake.MaxKeySet)
	}
	return body, response.Header, err
}

// freshness is how long an answer may be used before it is fetched again: its
// max-age less its Age (RFC 9111 §4.2), within bounds.
func freshness(header http.Header) time.Duration {
	lifetime := 5 * time.Minute
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil && strings.EqualFold(name, "max-age") {
			lifetime = time.Duration(seconds) * time.Second
		}
	}
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		lifetime -= time.Duration(age) * time.Second
	}
	return min(max(lifetime, minRefresh), maxRefresh)
}
