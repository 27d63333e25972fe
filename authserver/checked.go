package authserver

import (
	"crypto/sha256"
	"sync"

	"authserver/internal/intake"
)

// checkedTokens remembers tokens whose signature this instance has made or found
// good, by their SHA-256: resource servers ask about one token again and again, and a
// refresh token mostly comes back to where it was issued. What is remembered is the
// signature alone. Whether the key is still one of ours, and what is in the token, is
// looked at each time.
type checkedTokens struct {
	mu         sync.Mutex
	young, old map[digest]struct{}
}

type digest = [sha256.Size]byte

// maxChecked is how many tokens young takes before it becomes old and what was old is
// forgotten. Both together take 2 MiB.
const maxChecked = 16_384

// verify is token.Verify, but for tokens that are remembered.
func (c *checkedTokens) verify(token *intake.Token, key intake.Key) error {
	hash := sha256.Sum256([]byte(token.Raw))
	if c.has(hash) {
		return nil
	}
	if err := token.Verify(key); err != nil {
		return err
	}
	c.add(hash)
	return nil
}

func (c *checkedTokens) has(hash digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, young := c.young[hash]
	_, old := c.old[hash]
	return young || old
}

func (c *checkedTokens) add(hash digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) == maxChecked {
		c.young, c.old = make(map[digest]struct{}), c.young
	}
	c.young[hash] = struct{}{}
}
