package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"authserver/internal/intake"
	"authserver/store"
)

const (
	assertionType       = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 §2.2
	assertionTypeHeader = "client-authentication+jwt"                              // RFC 10070
	// maxAssertionAge bounds how far ahead an assertion may expire, and so how
	// long its jti is remembered.
	maxAssertionAge = 5 * time.Minute
	clockSkew       = 30 * time.Second // of clients' clocks
)

// privateKeyJWT is an assertion signed by the client (RFC 7523, RFC 10070).
type privateKeyJWT struct{ server *Server }

func (privateKeyJWT) Name() string { return methodPrivateKeyJWT }

func (privateKeyJWT) Presented(_ *http.Request, f form) bool {
	return f.get("client_assertion") != "" || f.get("client_assertion_type") != ""
}

// assertionClaims are those of RFC 7523 §3. Times may have fractions (RFC 7519 §2).
type assertionClaims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  json.RawMessage `json:"aud"`
	ID        string          `json:"jti"`
	Expires   float64         `json:"exp"`
	NotBefore float64         `json:"nbf"`
	IssuedAt  float64         `json:"iat"`
}

func (m privateKeyJWT) Authenticate(ctx context.Context, _ *http.Request, f form) (*client, error) {
	if f.get("client_assertion_type") != assertionType {
		return nil, invalidClient(errors.New("client_assertion_type is not " + assertionType))
	}
	token, err := intake.Parse(f.get("client_assertion"))
	if err != nil {
		return nil, invalidClient(fmt.Errorf("reading the assertion: %w", err))
	}
	// RFC 10070: explicitly typed, or of no type of its own.
	if token.Type != "" && !token.HasType("JWT") && !token.HasType(assertionTypeHeader) {
		return nil, invalidClient(errors.New("the assertion is typed as another kind of token"))
	}
	var claims assertionClaims
	if err := intake.Decode(token.Payload, &claims); err != nil {
		return nil, invalidClient(fmt.Errorf("reading the assertion's claims: %w", err))
	}
	c, err := m.server.findClient(ctx, claims.Subject)
	if err != nil {
		return nil, err
	}
	if err := verifyAssertion(c, token); err != nil {
		return nil, invalidClient(err)
	}
	if err := claims.check(m.server.issuer, time.Now()); err != nil {
		return nil, invalidClient(err)
	}
	return c, m.spend(ctx, c, claims)
}

// verifyAssertion checks the signature by the client's key of the same kid. A
// key registered without kid is for assertions without one.
func verifyAssertion(c *client, token *intake.Token) error {
	for _, key := range c.keys {
		if key.ID == token.KeyID {
			return token.Verify(key)
		}
	}
	return errors.New("the client has no key of the assertion's kid")
}

// check is RFC 7523 §3 with the audience of RFC 10070: the issuer identifier,
// alone and as a string.
func (c assertionClaims) check(issuer string, now time.Time) error {
	var audience string
	at := float64(now.UnixMilli()) / 1000
	switch {
	case c.Issuer != c.Subject:
		return errors.New("the assertion's iss and sub differ")
	case json.Unmarshal(c.Audience, &audience) != nil || audience != issuer:
		return fmt.Errorf("the assertion's aud must be the string %q", issuer)
	case c.ID == "" || len(c.ID) > 256:
		return errors.New("the assertion needs a jti of 1 to 256 bytes")
	case c.Expires+clockSkew.Seconds() <= at:
		return errors.New("the assertion has no exp or has expired")
	case c.Expires > at+(maxAssertionAge+clockSkew).Seconds():
		return errors.New("the assertion's exp is more than 5 minutes ahead")
	case c.IssuedAt > at+clockSkew.Seconds() || c.NotBefore > at+clockSkew.Seconds():
		return errors.New("the assertion's iat or nbf is in the future")
	}
	return nil
}

// spend makes an assertion unusable from now on, on every instance.
func (m privateKeyJWT) spend(ctx context.Context, c *client, claims assertionClaims) error {
	hash := sha256.Sum256([]byte(c.id + "\x00" + claims.ID))
	until := time.UnixMilli(int64(claims.Expires * 1000)).Add(clockSkew + markKept)
	err := m.server.used.Create(ctx, base64.RawURLEncoding.EncodeToString(hash[:]), struct{}{}, until)
	if errors.Is(err, store.ErrExists) {
		return invalidClient(errors.New("the assertion was used before"))
	}
	if err != nil {
		return unavailable(fmt.Errorf("remembering a client assertion: %w", err))
	}
	return nil
}
