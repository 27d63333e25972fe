// Package verifier verifies access tokens (RFC 9068) offline: with the issuer's
// published keys, with what its feed says was revoked, and without a call per request.
//
//	v, err := verifier.New(ctx, verifier.Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com"})
//	mux.Handle("POST /orders", v.Require("orders:write")(handler)) // verifier.FromContext(ctx) has the claims
//
// A token that is revoked is refused within a second; WhenStale says what happens
// while the feed cannot be reached. It links go-jose and the standard library,
// nothing else.
//
// A key that the issuer publishes is known when the key set that was fetched before is
// stale by its max-age. A server of the issuer that takes the connection and does not
// answer costs 4 seconds more: it is given up after 3, and the next question, a second
// later, goes over another connection. Until then a token of a key that is not known is
// answered with temporarily_unavailable, not with invalid_token.
package verifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
)

// Config says whose tokens are accepted and what for.
type Config struct {
	Issuer   string // the issuer identifier, exactly as the tokens have it
	Audience string // the resource identifier of this API

	// WhenStale is what happens while revocations are not known up to the last
	// second, on routes that do not say; Reject when zero.
	WhenStale WhenStale
	// ClientID and ClientSecret are this API's own at the issuer. Introspection needs
	// them, and the feed where it is not open to everybody.
	ClientID     string
	ClientSecret string
	// Token, when set, returns an access token of the issuer with scope verifier, which
	// is used instead: so this API needs no secret where it has a key (private_key_jwt).
	// It is called for each request that needs one, by many goroutines, and must cache.
	Token func(context.Context) (string, error)

	// JWKSURI, RevocationsURI and IntrospectionURI are the issuer's endpoints. When
	// JWKSURI is empty, those that are empty are found through the issuer's metadata
	// (RFC 8414); else there is no feed and no introspection without them.
	JWKSURI          string
	RevocationsURI   string
	IntrospectionURI string

	// Leeway is how far clocks may differ: 30 seconds by default, 60 at most.
	Leeway time.Duration
	// CacheBytes is how much memory verified tokens may take; 16 MiB when zero, no
	// cache when negative. A token takes 2 to 4 KiB.
	CacheBytes int
	// HTTPClient asks the issuer; by default one with a timeout of 5 seconds that pings
	// silent connections of HTTP/2, as yours should (http.HTTP2Config), or it will ask a
	// server that hangs for as long as it hangs. Redirects are not followed in any case.
	HTTPClient *http.Client
	Logger     *slog.Logger // slog.Default() when nil
	// Observe, when set, is called with what came of each token, by many goroutines.
	Observe func(Observation)
}

const defaultCache = 16 << 20 // bytes

// Verifier verifies the tokens of one issuer for one API. It is safe for
// concurrent use.
type Verifier struct {
	config      Config
	source      *source
	keys        *keySet
	cache       *cache                   // nil for none
	follower    atomic.Pointer[follower] // nil where there is no feed
	noLease     atomic.Bool              // some route accepts tokens while revocations are not known
	metadataURL string                   // of the protected resource metadata, where it is served
}

// New returns a verifier that fetches the issuer's keys and follows its feed in the
// background until ctx ends. It does not fail because the issuer is down at the
// moment; Verify waits a little for the first keys.
func New(ctx context.Context, config Config) (*Verifier, error) {
	if err := config.complete(); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	v := &Verifier{config: config, source: newSource(config)}
	v.keys = newKeySet(v.source)
	if config.CacheBytes > 0 {
		v.cache = newCache(config.CacheBytes)
	}
	v.noLease.Store(config.WhenStale == AcceptUntilExpiry)
	v.keys.found = func(found endpoints) {
		if found.Revocations != "" && v.follower.Load() == nil {
			f := newFollower(found.Revocations, v.source, v.keys, &v.noLease)
			v.follower.Store(f)
			go f.run(ctx)
		}
	}
	go v.keys.run(ctx)
	return v, nil
}

// complete sets what was left out and says what is wrong.
func (c *Config) complete() error {
	if c.Leeway == 0 {
		c.Leeway = 30 * time.Second
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCache
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.WhenStale == AsConfigured {
		c.WhenStale = Reject
	}
	switch {
	case c.Leeway < 0 || c.Leeway > time.Minute:
		return fmt.Errorf("the Leeway is %s; allowed are up to 1m0s", c.Leeway)
	case c.Audience == "":
		return errors.New("the Audience is empty; it is the identifier of this API that the issuer has configured")
	case c.WhenStale < Reject || c.WhenStale > AcceptUntilExpiry:
		return fmt.Errorf("WhenStale is %d; allowed are Reject, Introspect and AcceptUntilExpiry", c.WhenStale)
	case c.Token != nil && c.ClientID != "":
		return errors.New("both Token and ClientID are set; the issuer takes one of them")
	case c.WhenStale == Introspect && c.ClientID == "" && c.Token == nil:
		return errors.New("WhenStale is Introspect, which needs a ClientID and ClientSecret of this API at the issuer, or a Token")
	}
	for _, location := range []struct {
		name, url string
		needed    bool
	}{
		{"Issuer", c.Issuer, true}, {"JWKSURI", c.JWKSURI, false}, {"RevocationsURI", c.RevocationsURI, false}, {"IntrospectionURI", c.IntrospectionURI, false},
	} {
		if location.url != "" || location.needed {
			if err := checkURL(location.name, location.url); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkURL requires https, or http on this machine.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s %q is not an absolute URL", name, text)
	}
	address, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && address.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return fmt.Errorf("%s %q must be https; http is allowed on loopback hosts only", name, text)
	}
	return nil
}

// Verify returns the claims of an access token that is valid here and now, else an
// *Error. The claims are the caller's own.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	return v.verify(ctx, token, Requirement{}, nil)
}

// verify takes the request that the token came with, if it is known.
func (v *Verifier) verify(ctx context.Context, token string, requirement Requirement, r *http.Request) (*Claims, error) {
	e, cached, err := v.valid(ctx, token, requirement.WhenStale)
	if err == nil {
		err = requirement.Check(&e.claims)
	}
	if err == nil && r != nil && tokenInBody(r) { // after the token: nobody's body is read for nothing
		err = invalidRequest("there is an access token in the Authorization header and one in the body")
	}
	if err != nil {
		v.observe(err, cached, nil)
		return nil, err
	}
	v.observe(nil, cached, &e.claims)
	if v.cache == nil {
		return &e.claims, nil
	}
	return e.claims.clone(), nil
}

// valid finds the token among those that were verified before, or verifies it, and
// then checks what changes with time.
func (v *Verifier) valid(ctx context.Context, token string, policy WhenStale) (e *entry, cached bool, err error) {
	if v.cache != nil && len(token) <= intake.MaxToken {
		e = v.cache.get(token)
	}
	if cached = e != nil && !e.key.dead.Load(); !cached {
		if e, err = v.examine(ctx, token); err != nil {
			return nil, false, err
		}
	}
	now := time.Now()
	switch err = v.checkTime(e, now); {
	case err != nil:
	case !v.keys.usable(now): // the key may have been withdrawn long ago
		err = ErrUnavailable
	default:
		err = v.current(ctx, token, e, policy)
	}
	if v.cache != nil {
		if err == nil && !cached {
			e.token = strings.Clone(token)
			v.cache.put(e)
		} else if err != nil && cached && !errors.Is(err, ErrUnavailable) {
			v.cache.remove(token)
		}
	}
	return e, cached, err
}

// examine checks all that a token says once and for ever (RFC 9068 §4).
func (v *Verifier) examine(ctx context.Context, token string) (*entry, error) {
	parsed, err := intake.Parse(token)
	if err != nil {
		return nil, invalidToken(Malformed, "the token is malformed")
	}
	// at+jwt and nothing else, so that no other kind of token passes.
	if !parsed.HasType(accesstoken.Type) {
		return nil, invalidToken(WrongType, "the token is not an access token (typ at+jwt)")
	}
	key, err := v.keys.find(ctx, parsed.KeyID)
	if err != nil {
		return nil, err
	}
	if err := parsed.Verify(key.Key); err != nil {
		return nil, invalidToken(BadSignature, "the signature is not valid")
	}
	payload := string(parsed.Payload)
	claims, err := accesstoken.DecodeText(payload)
	if err != nil {
		return nil, invalidToken(Malformed, "the claims are malformed")
	}
	if err := v.check(&claims); err != nil {
		return nil, err
	}
	e := &entry{key: key, earliest: max(claims.IssuedAt, claims.NotBefore), expires: time.Unix(claims.Expires, 0),
		epochs: [2]uint64{claims.ClientEpoch, claims.SubjectEpoch}}
	e.claims.fill(&claims, payload)
	return e, nil
}

// check is RFC 9068 §4 after the signature, but for the times.
func (v *Verifier) check(claims *accesstoken.Claims) error {
	switch {
	case claims.Issuer != v.config.Issuer:
		return invalidToken(WrongIssuer, "the token is of another issuer than %s", v.config.Issuer)
	case !slices.Contains(claims.Audience, v.config.Audience):
		return invalidToken(WrongAudience, "the token is not meant for %s", v.config.Audience)
	case claims.Subject == "" || claims.ClientID == "" || claims.ID == "" || claims.Expires <= 0 || claims.IssuedAt <= 0:
		return invalidToken(MissingClaim, "the token lacks one of sub, client_id, jti, exp, iat")
	case claims.Confirmation != nil:
		// RFC 9449 §7.2, RFC 8705 §3: a bound token without proof is no better than a stolen one.
		return invalidToken(BoundToKey, "the token is bound to a key, and proofs of possession are not checked here")
	}
	return nil
}

func (v *Verifier) checkTime(e *entry, now time.Time) error {
	if !now.Before(e.expires.Add(v.config.Leeway)) {
		return invalidToken(Expired, "the token expired at %s, it is %s", stamp(e.expires), stamp(now))
	}
	// In seconds: time.Unix of a huge number is in the past.
	if e.earliest > now.Add(v.config.Leeway).Unix() {
		return invalidToken(NotYetValid, "the token is from the future: it is valid from %s, it is %s", stamp(time.Unix(e.earliest, 0)), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
