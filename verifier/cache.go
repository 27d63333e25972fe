package verifier

import (
	"sync"
	"sync/atomic"
	"time"

	"authserver/internal/feed"
)

// entry is a token that was verified once, and what can end it before its time.
type entry struct {
	token    string // its own copy: what a caller has may be a part of all the request's headers
	claims   Claims // shared; callers get copies
	key      *trustedKey
	subjects atomic.Pointer[feed.Subjects] // made when they are asked for
	epochs   [2]uint64                     // of the client and of the subject
	earliest int64                         // seconds: iat or nbf, whichever is later
	expires  time.Time

	seen         atomic.Uint64 // generation of the revocations at which it was not revoked, plus one
	introspected atomic.Int64  // when the issuer last called it active, in nanoseconds since 1970
}

// cost is about how many bytes an entry takes in the cache.
func (e *entry) cost() int { return 2*len(e.token) + len(e.claims.payload) + 1024 }

const cacheShards = 16

// cache holds verified tokens by their whole text, so that another spelling of a
// token, and any other token, is verified from the beginning. It only knows what
// was seen; whoever takes an entry out checks its time, its key and the
// revocations again. Only tokens of the issuer get in, so strangers cannot fill it.
//
// Each shard has two generations. Entries come into the young one; when that is
// full it becomes the old one, and what nobody has asked for since is gone.
type cache struct {
	budget int // bytes for one generation of one shard
	shards [cacheShards]shard
}

type shard struct {
	mu         sync.RWMutex
	young, old map[string]*entry
	size, aged int // bytes of young and of old
}

// newCache returns a cache that takes about so many bytes at most.
func newCache(bytes int) *cache {
	c := &cache{budget: bytes / cacheShards / 2}
	for i := range c.shards {
		c.shards[i].young = make(map[string]*entry)
	}
	return c
}

// shardOf picks by the last characters, which are of the signature.
func (c *cache) shardOf(token string) *shard {
	var sum byte
	for i := max(len(token)-4, 0); i < len(token); i++ {
		sum = sum*31 + token[i]
	}
	return &c.shards[sum%cacheShards]
}

func (c *cache) get(token string) *entry {
	s := c.shardOf(token)
	s.mu.RLock()
	found := s.young[token]
	aged := false
	if found == nil {
		found = s.old[token]
		aged = found != nil
	}
	s.mu.RUnlock()
	if aged {
		c.put(found)
	}
	return found
}

func (c *cache) put(e *entry) {
	cost := e.cost()
	if cost > c.budget {
		return
	}
	s := c.shardOf(e.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, present := s.young[e.token]; present {
		s.size += cost - before.cost()
		s.young[e.token] = e
		return
	}
	if s.size+cost > c.budget {
		s.old, s.aged, s.young, s.size = s.young, s.size, make(map[string]*entry), 0
	}
	s.young[e.token] = e
	s.size += cost
}

func (c *cache) remove(token string) {
	s := c.shardOf(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, present := s.young[token]; present {
		s.size -= e.cost()
		delete(s.young, token)
	}
	delete(s.old, token)
}

// bytes returns about how much memory the cache takes.
func (c *cache) bytes() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += s.size + s.aged
		s.mu.RUnlock()
	}
	return n
}

// length returns how many tokens are held.
func (c *cache) length() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}
