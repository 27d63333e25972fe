package main

import (
	"context"
	"net/http"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	zitadel "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// peers are the libraries as their own documentation has them, each with the key set
// that it keeps by itself, and made to check issuer, audience, algorithm and times.
func peers(ctx context.Context, issuer string, algorithm jose.SignatureAlgorithm) ([]contender, error) {
	keys := issuer + "/jwks.json"

	coreos := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, keys), &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{string(algorithm)}})

	set, err := jwk.Fetch(ctx, keys)
	if err != nil {
		return nil, err
	}

	golang, err := keyfunc.NewDefaultCtx(ctx, []string{keys})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{string(algorithm)}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(30*time.Second))

	access := op.NewAccessTokenVerifier(issuer, rp.NewRemoteKeySet(http.DefaultClient, keys), op.WithSupportedAccessTokenSigningAlgorithms(string(algorithm)))

	return []contender{
		{"coreos/go-oidc", func(token string) error { _, err := coreos.Verify(ctx, token); return err }},
		{"lestrrat-go/jwx", func(token string) error {
			_, err := jwxjwt.Parse([]byte(token), jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience), jwxjwt.WithAcceptableSkew(30*time.Second))
			return err
		}},
		{"golang-jwt with keyfunc", func(token string) error { _, err := parser.Parse(token, golang.Keyfunc); return err }},
		{"zitadel/oidc", func(token string) error {
			_, err := op.VerifyAccessToken[*zitadel.AccessTokenClaims](ctx, token, access)
			return err
		}},
	}, nil
}
