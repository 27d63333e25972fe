package authserver

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"authserver/internal/intake"
)

// client is a registered client, ready for use.
type client struct {
	id         string
	secretHash [sha256.Size]byte // of a random value when the client has no secret
	methods    []string          // client authentication methods it may use
	keys       []intake.Key      // for private_key_jwt
	grantTypes []string
	scopes     []string
	rotates    bool   // its refresh tokens rotate
	resource   string // the resource server that it is, if it is one
}

func (c *client) may(grantType string) bool { return slices.Contains(c.grantTypes, grantType) }

func (c *client) public() bool { return slices.Contains(c.methods, methodNone) }

// clientRegistry holds the clients; it does not change.
type clientRegistry struct {
	byID    map[string]*client
	origins map[string]bool // of their redirect URIs
	nobody  *client         // stands in for unknown clients, so that they cost the same
}

func newClientRegistry(configured []Client) (clientRegistry, error) {
	registry := clientRegistry{
		byID:    make(map[string]*client, len(configured)),
		origins: make(map[string]bool),
		nobody:  &client{secretHash: sha256.Sum256([]byte(newID()))},
	}
	for _, c := range configured {
		compiled := &client{
			id:         c.ClientID,
			secretHash: sha256.Sum256([]byte(c.ClientSecret)),
			methods:    c.authMethods(),
			grantTypes: c.grantTypes(),
			scopes:     strings.Fields(c.Scope),
			rotates:    c.RefreshTokenRotation != rotationNever,
			resource:   c.Resource,
		}
		if c.ClientSecret == "" {
			compiled.secretHash = registry.nobody.secretHash
		}
		if c.JWKS != "" {
			keys, refused, err := intake.ParseKeySet([]byte(c.JWKS))
			if err != nil || len(refused) > 0 {
				return clientRegistry{}, fmt.Errorf("client %q: reading jwks: %v %v", c.ClientID, err, refused)
			}
			compiled.keys = keys
		}
		registry.byID[c.ClientID] = compiled
		for _, uri := range c.RedirectURIs {
			if origin := originOf(uri); origin != "" {
				registry.origins[origin] = true
			}
		}
	}
	return registry, nil
}

// authMethods are the client authentication methods that c is registered for.
func (c Client) authMethods() []string {
	switch {
	case c.TokenEndpointAuthMethod != "":
		return []string{c.TokenEndpointAuthMethod}
	case c.JWKS != "":
		return []string{methodPrivateKeyJWT}
	case c.ClientSecret != "":
		return []string{methodSecretBasic, methodSecretPost}
	}
	return nil
}

// grantTypes are the grants that c may use; RFC 7591 §2 has the default.
func (c Client) grantTypes() []string {
	if len(c.GrantTypes) == 0 {
		return []string{"authorization_code"}
	}
	return c.GrantTypes
}
