package authserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/intake"
)

// client is a registered client, ready for use.
type client struct {
	created     int64 // seconds since 1970; 0 for a configured one
	id          string
	secrets     []clientSecret
	longSecrets bool         // none of them can be guessed
	methods     []string     // client authentication methods it may use
	keys        []intake.Key // for private_key_jwt
	grantTypes  []string
	scopes      []string
	rotates     bool   // its refresh tokens rotate
	resource    string // the resource server that it is, if it is one

	name         string
	redirectURIs []string
	requiresPKCE bool
	skipsConsent bool // first party: its users are not asked
	policyURI    string
	tosURI       string

	postLogoutRedirectURIs []string
	backchannelLogoutURI   string
	frontchannelLogoutURI  string

	idTokenAlgorithm  string // empty for the server's choice
	userInfoAlgorithm string // empty for JSON
	defaultMaxAge     *int64 // seconds
	sector            string // of its pairwise subjects; empty for public ones
}

// clientSecret is one of the secrets that a client may authenticate with. It has
// more than one while an old one is being replaced.
type clientSecret struct {
	Hash    []byte `json:"hash"` // SHA-256: generated secrets need no slow hash
	Created int64  `json:"created,omitempty"`
	Expires int64  `json:"expires,omitempty"` // 0 for never
}

func newClientSecret(secret string) clientSecret {
	hash := sha256.Sum256([]byte(secret))
	return clientSecret{Hash: hash[:]}
}

func (s clientSecret) live(now time.Time) bool { return s.Expires == 0 || now.Unix() < s.Expires }

func (c *client) may(grantType string) bool { return slices.Contains(c.grantTypes, grantType) }

func (c *client) public() bool { return slices.Contains(c.methods, methodNone) }

// hasSecret compares in constant time with every secret. wrong says, for the log, what is
// wrong with one that the client does not have.
func (c *client) hasSecret(secret string) (wrong error) {
	presented := sha256.Sum256([]byte(secret))
	live, expired, now := 0, 0, time.Now()
	for _, one := range c.secrets {
		if matches := subtle.ConstantTimeCompare(presented[:], one.Hash); one.live(now) {
			live |= matches
		} else {
			expired |= matches
		}
	}
	switch {
	case live == 1:
		return nil
	case expired == 1:
		return errSecretExpired
	}
	return errWrongSecret
}

var (
	errWrongSecret   = errors.New("unknown client or wrong secret")
	errSecretExpired = errors.New("the secret was replaced by a new one and has expired")
)

// newClient makes a client of its description.
func newClient(c Client, secrets []clientSecret) (*client, error) {
	compiled := &client{
		id:          c.ClientID,
		secrets:     secrets,
		longSecrets: c.ClientSecret == "" || len(c.ClientSecret) >= longSecret, // those of the store were generated
		methods:     c.authMethods(len(secrets) > 0),
		grantTypes:  c.AllowedGrantTypes(),
		scopes:      strings.Fields(c.Scope),
		rotates:     c.RefreshTokenRotation != rotationNever,
		resource:    c.Resource,

		name:         c.ClientName,
		redirectURIs: c.RedirectURIs,
		requiresPKCE: c.RequirePKCE == nil || *c.RequirePKCE,
		skipsConsent: c.SkipConsent,
		policyURI:    c.PolicyURI,
		tosURI:       c.TosURI,

		postLogoutRedirectURIs: c.PostLogoutRedirectURIs,
		backchannelLogoutURI:   c.BackchannelLogoutURI,
		frontchannelLogoutURI:  c.FrontchannelLogoutURI,

		idTokenAlgorithm:  c.IDTokenSignedResponseAlg,
		userInfoAlgorithm: c.UserInfoSignedResponseAlg,
		defaultMaxAge:     c.DefaultMaxAge,
	}
	compiled.sector, _ = c.sector() // Config.Check has refused what has none
	if c.JWKS != "" {
		keys, refused, err := intake.ParseKeySet([]byte(c.JWKS))
		if err != nil || len(refused) > 0 {
			return nil, fmt.Errorf("client %q: reading jwks: %v %v", c.ClientID, err, refused)
		}
		compiled.keys = keys
	}
	return compiled, nil
}

// authMethods are the client authentication methods that c is registered for.
func (c Client) authMethods(hasSecret bool) []string {
	switch {
	case c.TokenEndpointAuthMethod != "":
		return []string{c.TokenEndpointAuthMethod}
	case c.JWKS != "":
		return []string{methodPrivateKeyJWT}
	case hasSecret:
		return []string{methodSecretBasic, methodSecretPost}
	}
	return nil
}

// AllowedGrantTypes are the grants that c may use; RFC 7591 §2 has the default. A resource
// server needs none.
func (c Client) AllowedGrantTypes() []string {
	if len(c.GrantTypes) == 0 && (c.Resource == "" || len(c.RedirectURIs) > 0) {
		return []string{"authorization_code"}
	}
	return c.GrantTypes
}
