package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// keySet verifies tokens offline, by the keys that the server publishes. They are
// fetched when a key is unknown.
type keySet struct {
	mu   sync.Mutex
	keys jose.JSONWebKeySet
}

func (k *keySet) verify(c *Client, raw string) error {
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256})
	if err != nil {
		return err
	}
	key, err := k.find(c, token.Headers[0].KeyID)
	if err != nil {
		return err
	}
	var claims jwt.Claims
	if err := token.Claims(key, &claims); err != nil {
		return err
	}
	return claims.Validate(jwt.Expected{Time: time.Now()})
}

func (k *keySet) find(c *Client, kid string) (any, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if found := k.keys.Key(kid); len(found) == 1 {
		return found[0].Key, nil
	}
	if c.server.Keys == "" {
		return nil, errors.New("the server publishes no keys")
	}
	response, err := c.http.Get(c.base + c.server.Keys)
	if err != nil {
		return nil, err
	}
	body, err := finish(response)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &k.keys); err != nil {
		return nil, err
	}
	found := k.keys.Key(kid)
	if len(found) != 1 {
		return nil, fmt.Errorf("%d keys are published with the kid %q", len(found), kid)
	}
	return found[0].Key, nil
}
