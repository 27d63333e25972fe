// Package verifier verifies access tokens (RFC 9068) offline: with the issuer's
// published keys and without a call per request.
//
//	v, err := verifier.New(ctx, verifier.Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com"})
//	mux.Handle("POST /orders", v.Require("orders:write")(handler)) // verifier.FromContext(ctx) has the claims
//
// It links go-jose and the standard library, nothing else.
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
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/intake"
)

// Config says whose tokens are accepted and what for.
type Config struct {
	Issuer   string // the issuer identifier, exactly as the tokens have it
	Audience string // the resource identifier of this API

	// JWKSURI is where the keys are; when empty it is found through the issuer's
	// metadata (RFC 8414).
	JWKSURI string
	// Leeway is how far clocks may differ: 30 seconds by default, 60 at most.
	Leeway time.Duration
	// HTTPClient fetches metadata and keys; by default one with a timeout of 5
	// seconds. Redirects are not followed in any case.
	HTTPClient *http.Client
	Logger     *slog.Logger // slog.Default() when nil
}

// Error is why a token was refused.
type Error struct {
	// Code is one of RFC 6750 §3.1: invalid_request, invalid_token or
	// insufficient_scope; or temporarily_unavailable while no keys are known.
	Code string
	// Description says what was wrong, in characters that a header can hold.
	Description string
}

func (e *Error) Error() string { return e.Code + ": " + e.Description }

func invalidToken(format string, args ...any) error {
	return &Error{"invalid_token", fmt.Sprintf(format, args...)}
}

// ErrUnavailable is Verify's answer while no keys are known, or none that are less
// than a day old: the token may be good, try later.
var ErrUnavailable = &Error{"temporarily_unavailable", "the keys of the issuer could not be fetched yet"}

// Verifier verifies the tokens of one issuer for one API. It is safe for
// concurrent use.
type Verifier struct {
	config Config
	keys   *keySet
}

// New returns a verifier that fetches the issuer's keys in the background until
// ctx ends. It does not fail because the issuer is down at the moment; Verify
// waits a little for the first keys.
func New(ctx context.Context, config Config) (*Verifier, error) {
	if config.Leeway == 0 {
		config.Leeway = 30 * time.Second
	}
	if config.Leeway < 0 || config.Leeway > time.Minute {
		return nil, fmt.Errorf("verifier: Leeway is %s; allowed are up to 1m0s", config.Leeway)
	}
	if config.Audience == "" {
		return nil, errors.New("verifier: Audience is empty; it is the identifier of this API that the issuer has configured")
	}
	if err := checkURL("Issuer", config.Issuer); err != nil {
		return nil, err
	}
	if config.JWKSURI != "" {
		if err := checkURL("JWKSURI", config.JWKSURI); err != nil {
			return nil, err
		}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	client := http.Client{Timeout: 5 * time.Second}
	if config.HTTPClient != nil {
		client = *config.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	v := &Verifier{config: config, keys: newKeySet(config, &client)}
	go v.keys.run(ctx)
	return v, nil
}

// checkURL requires https, or http on this machine.
func checkURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return fmt.Errorf("verifier: %s %q is not an absolute URL", name, text)
	}
	address, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && address.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return fmt.Errorf("verifier: %s %q must be https; http is allowed on loopback hosts only", name, text)
	}
	return nil
}

// Verify returns the claims of an access token that is valid here and now, else
// an *Error.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	parsed, err := intake.Parse(token)
	if err != nil {
		return nil, invalidToken("the token is malformed")
	}
	// RFC 9068 §4: at+jwt and nothing else, so that no other kind of token passes.
	if !parsed.HasType(accesstoken.Type) {
		return nil, invalidToken("the token is not an access token (typ at+jwt)")
	}
	key, err := v.keys.find(ctx, parsed.KeyID)
	if err != nil {
		return nil, err
	}
	if err := parsed.Verify(key); err != nil {
		return nil, invalidToken("the signature is not valid")
	}
	var claims accesstoken.Claims
	if err := intake.Decode(parsed.Payload, &claims); err != nil {
		return nil, invalidToken("the claims are malformed")
	}
	var notBefore struct {
		NotBefore int64 `json:"nbf"`
	}
	if err := intake.Decode(parsed.Payload, &notBefore); err != nil {
		return nil, invalidToken("nbf is malformed")
	}
	if err := v.check(claims, notBefore.NotBefore, time.Now()); err != nil {
		return nil, err
	}
	return newClaims(claims), nil
}

// check is RFC 9068 §4 after the signature.
func (v *Verifier) check(claims accesstoken.Claims, notBefore int64, now time.Time) error {
	expires, issued := time.Unix(claims.Expires, 0), time.Unix(claims.IssuedAt, 0)
	latest := now.Add(v.config.Leeway).Unix() // in seconds: time.Unix of a huge number is in the past
	switch {
	case claims.Issuer != v.config.Issuer:
		return invalidToken("the token is of another issuer than %s", v.config.Issuer)
	case !slices.Contains(claims.Audience, v.config.Audience):
		return invalidToken("the token is not meant for %s", v.config.Audience)
	case claims.Subject == "" || claims.ClientID == "" || claims.ID == "" || claims.Expires <= 0 || claims.IssuedAt <= 0:
		return invalidToken("the token lacks one of sub, client_id, jti, exp, iat")
	case !now.Before(expires.Add(v.config.Leeway)):
		return invalidToken("the token expired at %s, it is %s", stamp(expires), stamp(now))
	case claims.IssuedAt > latest || notBefore > latest:
		return invalidToken("the token is from the future: iat %s, nbf %s, it is %s", stamp(issued), stamp(time.Unix(notBefore, 0)), stamp(now))
	case claims.Confirmation != nil:
		// RFC 9449 §7.2, RFC 8705 §3: a bound token without proof is no better than a stolen one.
		return invalidToken("the token is bound to a key, and proofs of possession are not checked here")
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// metadataURL inserts the well-known name before the issuer's path (RFC 8414 §3.1).
func metadataURL(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	u.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
	return u.String(), nil
}
