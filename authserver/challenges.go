package authserver

import (
	"crypto/sha256"
	"sync"
)

// challenges notices clients that use one code_challenge for all requests: PKCE then
// protects nobody (RFC 9700 §2.1.1, ATTACKS PK-10). Nobody is refused for it, since a
// page that is loaded again repeats its request too; it is counted, at each instance.
type challenges struct {
	mu   sync.Mutex
	last map[string][sha256.Size]byte // by client
}

// repeated reports whether the last code of a client was for the same challenge.
func (c *challenges) repeated(clientID, challenge string) bool {
	if challenge == "" {
		return false
	}
	hash := sha256.Sum256([]byte(challenge))
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.last[clientID]
	if c.last == nil {
		c.last = make(map[string][sha256.Size]byte)
	}
	for other := range c.last {
		if known || len(c.last) < maxRemembered {
			break
		}
		delete(c.last, other)
	}
	c.last[clientID] = hash
	return known && before == hash
}
