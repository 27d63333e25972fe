package authserver

import (
	"context"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"authserver/store"
)

// countingStore counts the questions that it is asked. Over a network each is a
// round trip.
type countingStore struct {
	store.Store
	asked atomic.Int64
}

func (s *countingStore) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	s.asked.Add(1)
	return s.Store.Get(ctx, keys...)
}

func (s *countingStore) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	s.asked.Add(1)
	return s.Store.Create(ctx, key, value, expires)
}

func (s *countingStore) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	s.asked.Add(1)
	return s.Store.Swap(ctx, key, version, value, expires)
}

func (s *countingStore) Delete(ctx context.Context, key string) error {
	s.asked.Add(1)
	return s.Store.Delete(ctx, key)
}

func (s *countingStore) Add(ctx context.Context, key string, n int64, window time.Duration) (int64, error) {
	s.asked.Add(1)
	return s.Store.Add(ctx, key, n, window)
}

func (s *countingStore) Do(ctx context.Context, b store.Batch) ([]store.Record, error) {
	s.asked.Add(1)
	return store.Do(ctx, s.Store, b)
}

func (s *countingStore) Link(ctx context.Context, index, member string, expires time.Time) error {
	s.asked.Add(1)
	return s.Store.Link(ctx, index, member, expires)
}

func (s *countingStore) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	s.asked.Add(1)
	return s.Store.Append(ctx, log, event, keep)
}

// What the store is asked is most of what a request costs. Where the user and the
// client were asked for within the second:
func TestQuestions(t *testing.T) {
	counter := new(countingStore)
	s := browserServer(t, func(c *Config) {
		counter.Store, c.Store = c.Store, counter
		c.Clients[1].GrantTypes = []string{"authorization_code", "refresh_token", "client_credentials"}
		c.Clients[1].BackchannelLogoutURI = "https://web.example.com/logout"
	})
	b := newBrowser(t, s)
	b.signIn("alice-1")
	code := func() string { return b.code("client_id", "first") }
	tokens := b.exchange("first", code())
	post := func(values url.Values) tokenAnswer {
		answer := b.token("first", values)
		if answer.status != 200 {
			t.Fatal(answer.body)
		}
		return answer
	}
	var redeemed string
	for _, operation := range []struct {
		name string
		most int64
		run  func()
	}{
		// The session. That the client is to be told of its end is noted already.
		{"a code", 1, func() { redeemed = code() }},
		// The code is spent, the grant made and indexed, and everyone behind it asked for.
		{"its exchange", 1, func() {
			if tokens = b.exchange("first", redeemed); tokens.status != 200 {
				t.Fatal(tokens.body)
			}
			redeemed = code()
		}},
		{"a refresh", 1, func() {
			tokens = post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.text("refresh_token")}})
		}},
		{"an introspection", 1, func() {
			if !b.active("first", tokens.text("access_token")) {
				t.Fatal("a live token is not active")
			}
		}},
		{"client credentials", 0, func() { post(url.Values{"grant_type": {"client_credentials"}}) }},
		{"the keys", 0, func() { b.send("GET", "/.well-known/jwks.json", nil) }},
	} {
		// The second may end between two requests, so the least of several counts.
		least := int64(1000)
		for range 10 {
			before := counter.asked.Load()
			operation.run()
			extra := int64(0)
			if operation.name == "its exchange" {
				extra = 1 // the code for the next time
			}
			least = min(least, counter.asked.Load()-before-extra)
		}
		if least != operation.most {
			t.Errorf("%s asks the store %d times, want %d", operation.name, least, operation.most)
		}
	}
}

// ATTACKS CA-10: a wrong secret asks the store as often as an unknown client does, so
// that the time of the question does not tell which clients there are.
func TestUnknownClientAsksTheSame(t *testing.T) {
	counter := new(countingStore)
	b := newBrowser(t, browserServer(t, func(c *Config) { counter.Store, c.Store = c.Store, counter }))
	ask := func(id, secret string) int64 {
		before := counter.asked.Load()
		values := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
		if a := b.token("", values); a.text("error") != "invalid_client" {
			t.Fatal(a.body)
		}
		return counter.asked.Load() - before
	}
	for range 3 { // also when it was asked before
		if wrong, unknown := ask("service", "wrong"), ask(newID(), "wrong"); wrong != unknown || wrong == 0 {
			t.Errorf("%d questions about a wrong secret, %d about an unknown client", wrong, unknown)
		}
	}
}
