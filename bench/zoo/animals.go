package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"authserver/verifier"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

const (
	jose  = "npm jose createRemoteJWKSet, defaults"
	pyjwt = "PyJWT PyJWKClient, defaults"
)

// keySetOf is where a library fetches the key set, so that its requests can be counted.
func keySetOf(issuer, name string) string {
	return issuer + "/.well-known/jwks.json?for=" + url.QueryEscape(name)
}

// zoo returns the libraries as their own documentation has them.
func zoo(ctx context.Context, issuer, node, python string) ([]*animal, error) {
	var animals []*animal
	for _, ours := range []struct {
		name   string
		policy verifier.WhenStale
	}{
		{"authserver/verifier, accepting until expiry", verifier.AcceptUntilExpiry},
		{"authserver/verifier, refusing while the feed is stale", verifier.Reject},
	} {
		v, err := verifier.New(ctx, verifier.Config{Issuer: issuer, Audience: audience, JWKSURI: keySetOf(issuer, ours.name), RevocationsURI: issuer + "/revocations",
			WhenStale: ours.policy, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		animals = append(animals, &animal{name: ours.name, verify: func(token string) error { _, err := v.Verify(ctx, token); return err }})
	}
	coreos := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, keySetOf(issuer, "coreos/go-oidc")), &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"ES256"}})
	animals = append(animals, &animal{name: "coreos/go-oidc", verify: func(token string) error { _, err := coreos.Verify(ctx, token); return err }})
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	for _, micah := range []struct {
		name    string
		options keyfunc.Override
	}{
		{"MicahParks/keyfunc with golang-jwt, defaults", keyfunc.Override{}},
		{"MicahParks/keyfunc with golang-jwt, refreshing every 5 s", keyfunc.Override{RefreshInterval: 5 * time.Second}},
	} {
		keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{keySetOf(issuer, micah.name)}, micah.options)
		if err != nil {
			return nil, err
		}
		animals = append(animals, &animal{name: micah.name, verify: func(token string) error { _, err := parser.Parse(token, keys.Keyfunc); return err }})
	}
	for _, jwx := range []struct {
		name    string
		options []jwk.RegisterOption
	}{
		{"lestrrat-go/jwx jwk.Cache, defaults", nil},
		{"lestrrat-go/jwx jwk.Cache, refreshing each second", []jwk.RegisterOption{jwk.WithMinInterval(time.Second), jwk.WithMaxInterval(time.Second)}},
	} {
		cache, err := jwk.NewCache(ctx, httprc.NewClient())
		if err != nil {
			return nil, err
		}
		jwks := keySetOf(issuer, jwx.name)
		if err := cache.Register(ctx, jwks, jwx.options...); err != nil {
			return nil, err
		}
		animals = append(animals, &animal{name: jwx.name, verify: func(token string) error {
			set, err := cache.Lookup(ctx, jwks)
			if err != nil {
				return err
			}
			_, err = jwxjwt.Parse([]byte(token), jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience))
			return err
		}})
	}
	_, here, _, _ := runtime.Caller(0)
	scripts := filepath.Dir(here)
	if node != "" {
		path, err := filepath.Abs(node)
		if err != nil {
			return nil, err
		}
		foreign, err := child(ctx, []string{"NODE_PATH=" + path}, "node", filepath.Join(scripts, "jose.cjs"), issuer, audience, keySetOf(issuer, jose))
		if err != nil {
			return nil, err
		}
		animals = append(animals, &animal{name: jose, verify: foreign})
	}
	if python != "" {
		foreign, err := child(ctx, nil, python, filepath.Join(scripts, "pyjwt.py"), issuer, audience, keySetOf(issuer, pyjwt))
		if err != nil {
			return nil, err
		}
		animals = append(animals, &animal{name: pyjwt, verify: foreign})
	}
	return animals, nil
}

// child starts a program that answers each token on its input by a line: ok, or why not.
func child(ctx context.Context, environment []string, name string, args ...string) (func(string) error, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Env, command.Stderr = append(os.Environ(), environment...), os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	answers := bufio.NewScanner(out)
	return func(token string) error {
		if _, err := io.WriteString(in, token+"\n"); err != nil {
			return err
		}
		if !answers.Scan() {
			return errors.New("it has ended")
		}
		if text := answers.Text(); text != "ok" {
			return errors.New(text)
		}
		return nil
	}, nil
}
