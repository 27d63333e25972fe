package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
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
		return nil, err
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

// refusedAssertion is the answer to an assertion that the client's own key has signed:
// no stranger is told what is wrong with it.
func refusedAssertion(format string, args ...any) *Error {
	refused := invalidClient(nil)
	refused.Description = "the client assertion is refused: " + fmt.Sprintf(format, args...)
	return refused
}

// check is RFC 7523 §3 with the audience of RFC 10070: the issuer identifier,
// alone and as a string.
func (c assertionClaims) check(issuer string, now time.Time) error {
	var audience string
	at := float64(now.UnixMilli()) / 1000
	ahead := max(c.IssuedAt, c.NotBefore) - at
	switch {
	case c.Issuer != c.Subject:
		return refusedAssertion("its iss and sub differ; both are the client_id")
	case json.Unmarshal(c.Audience, &audience) != nil || audience != issuer:
		return refusedAssertion("its aud must be the string %s, and %s", issuer, c.otherAudience(issuer)).because(fmt.Errorf("aud is %.200q", c.Audience))
	case c.ID == "" || len(c.ID) > 256:
		return refusedAssertion("it needs a jti of 1 to 256 bytes")
	case c.Expires == 0:
		return refusedAssertion("it has no exp")
	case c.Expires+clockSkew.Seconds() <= at:
		return refusedAssertion("it expired %.0f s ago by the clock of this server, where it is %s", min(at-c.Expires, maxShown), now.UTC().Format(time.RFC3339))
	case c.Expires > at+(maxAssertionAge+clockSkew).Seconds():
		return refusedAssertion("its exp is more than 5 minutes ahead of the clock of this server, where it is %s; exp is in seconds", now.UTC().Format(time.RFC3339))
	case ahead > clockSkew.Seconds():
		return refusedAssertion("its iat or nbf is %.0f s ahead of the clock of this server, where it is %s", min(ahead, maxShown), now.UTC().Format(time.RFC3339))
	}
	return nil
}

const maxShown = 1e9 // seconds that are written out

// otherAudience says what the audience is instead of the issuer, and repeats nothing.
func (c assertionClaims) otherAudience(issuer string) string {
	var one *string
	switch err := json.Unmarshal(c.Audience, &one); {
	case len(c.Audience) > 0 && c.Audience[0] == '[':
		return "is an array"
	case err != nil || one == nil:
		return "is missing"
	case strings.EqualFold(strings.TrimSuffix(*one, "/"), issuer):
		return "differs in a slash at the end or in capital letters"
	case strings.HasPrefix(*one, issuer+"/"):
		return "is an address below it"
	}
	return "is another one"
}

// spend makes an assertion unusable from now on, on every instance.
func (m privateKeyJWT) spend(ctx context.Context, c *client, claims assertionClaims) error {
	hash := sha256.Sum256([]byte(c.id + "\x00" + claims.ID))
	until := time.UnixMilli(int64(claims.Expires * 1000)).Add(clockSkew + markKept)
	err := m.server.used.Create(ctx, base64.RawURLEncoding.EncodeToString(hash[:]), struct{}{}, until)
	if errors.Is(err, store.ErrExists) {
		return refusedAssertion("one with its jti was used before; make a new one for each request")
	}
	if err != nil {
		return unavailable(fmt.Errorf("remembering a client assertion: %w", err))
	}
	return nil
}
