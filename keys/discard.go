package keys

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// discarded is a private key of a backend that is needed no more. It is destroyed
// when no instance can be signing with it, and forgotten when it is destroyed, so
// that an instance that dies in between leaves it to the others.
type discarded struct {
	Place   Place     `json:"place"`
	Private private   `json:"private"`
	After   time.Time `json:"after"`
}

// discard returns the private keys that after has no use for any more. That of a
// compromised key is destroyed at once. A sealed one went with its handle.
func discard(before, after set, c Config, now time.Time) []discarded {
	var list []discarded
	for _, r := range before.Rings {
		for _, k := range r.Keys {
			if k.Private == nil || k.Private.Backend == sealedName {
				continue
			}
			d := discarded{Place{before.Issuer, r.Name, r.Algorithm, k.ID}, *k.Private, now.Add(c.spread() + c.Skew)}
			if _, left := after.key(k.ID); left != nil {
				if left.Private != nil {
					continue
				}
				if left.State == compromised {
					d.After = now
				}
			}
			list = append(list, d)
		}
	}
	return list
}

// destroy destroys what is due, and returns what is left.
func (m *Manager) destroy(ctx context.Context, list []discarded, now time.Time) []discarded {
	var left []discarded
	for _, d := range list {
		if reached(now, d.After, 0) && m.destroyOne(ctx, d.Place, d.Private) {
			continue
		}
		left = append(left, d)
	}
	return left
}

func (m *Manager) destroyOne(ctx context.Context, p Place, where private) bool {
	b, err := m.backendNamed(where.Backend)
	if err != nil {
		return false // another instance has it
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.callTimeout())
	defer cancel()
	if err := b.Destroy(ctx, p, where.Handle); err != nil {
		m.config.Logger.Warn("a private key that is needed no more could not be destroyed; it is tried again",
			slog.String("kid", p.KeyID), slog.String("backend", where.Backend), slog.Any("error", err))
		return false
	}
	return true
}

// strays are keys that this instance made in a backend and that may have come into
// no set, because another instance was first.
type strays struct {
	mu   sync.Mutex
	made map[string]stray // by kid
}

type stray struct {
	place   Place
	private private
	since   time.Time
}

func (s *strays) add(p Place, where private) {
	if where.Backend == sealedName {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil {
		s.made = make(map[string]stray)
	}
	s.made[p.KeyID] = stray{p, where, time.Now()}
}

// due returns those that are not in a set although there was time for it.
func (s *strays) due(current set, after time.Duration) []stray {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []stray
	for id, one := range s.made {
		if _, k := current.key(id); k != nil {
			delete(s.made, id)
		} else if time.Since(one.since) > after {
			list = append(list, one)
		}
	}
	return list
}

// sweep destroys strays.
func (m *Manager) sweep(ctx context.Context, current set) {
	for _, one := range m.strays.due(current, 10*m.config.callTimeout()) {
		if m.destroyOne(ctx, one.place, one.private) {
			m.strays.mu.Lock()
			delete(m.strays.made, one.place.KeyID)
			m.strays.mu.Unlock()
		}
	}
}
