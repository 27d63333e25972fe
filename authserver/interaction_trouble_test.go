package authserver

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/store"
)

// failingStore fails writes and links of keys that begin with a prefix, while it has one.
type failingStore struct {
	store.Store
	swap, get string
}

var errFails = errors.New("the store fails")

func (s *failingStore) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	if s.swap != "" && strings.HasPrefix(key, s.swap) && bytes.Contains(value, []byte(`"told"`)) {
		return store.Record{}, errFails
	}
	return s.Store.Swap(ctx, key, version, value, expires)
}

func (s *failingStore) Get(ctx context.Context, keys ...string) ([]store.Record, error) {
	if s.get != "" && strings.HasPrefix(keys[0], s.get) {
		return nil, errFails
	}
	return s.Store.Get(ctx, keys...)
}

// "Nothing is lost, repeat the same": a request whose answer the store kept from the
// client is not spent, and its page can be sent again.
func TestTroubleSpendsNoInteraction(t *testing.T) {
	for name, fail := range map[string]failingStore{
		"noting the client of the session": {swap: "session/"},
		"looking up a consent":             {get: "consent/"},
	} {
		trouble := new(failingStore)
		s := browserServer(t, func(c *Config) {
			trouble.Store, c.Store = c.Store, trouble
			c.Clients[1].FrontchannelLogoutURI = "https://web.example.com/out"
		})
		b := newBrowser(t, s)
		signIn := b.send("GET", authorizeURL("client_id", "web"), nil)
		if name == "looking up a consent" {
			if err := s.rememberConsent(t.Context(), "alice-1", &client{id: "web"}, []string{"openid", "profile", "orders:read"}); err != nil {
				t.Fatal(err)
			}
		} else {
			signIn = b.send("GET", authorizeURL("client_id", "first"), nil)
		}
		if !signIn.on("/login") {
			t.Fatalf("%s: %d %v", name, signIn.status, signIn.location)
		}
		trouble.swap, trouble.get = fail.swap, fail.get
		if page := b.passSignIn(signIn, "alice-1"); page.status != http.StatusServiceUnavailable || page.header.Get("Retry-After") == "" {
			t.Fatalf("%s: %d %v", name, page.status, page.location)
		}
		trouble.swap, trouble.get = "", ""
		if page := b.passSignIn(signIn, "alice-1"); page.query.Get("code") == "" {
			t.Errorf("%s: sent again: %d %s", name, page.status, page.body)
		}
		if page := b.passSignIn(signIn, "alice-1"); page.status != http.StatusBadRequest || !strings.Contains(page.body, string(ErrorDone)) {
			t.Errorf("%s: and once more: %d %s", name, page.status, page.body)
		}
	}
}

// stalledStore is one in which the first redemption of a code waits.
type stalledStore struct {
	store.Store
	once          sync.Once
	reached, goOn chan struct{}
}

func (s *stalledStore) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	if strings.HasPrefix(key, "grant/") {
		s.once.Do(func() { close(s.reached); <-s.goOn })
	}
	return s.Store.Create(ctx, key, value, expires)
}

// ATTACKS AC-13: the store takes its time over a code, and the client repeats its
// request. It gets no token set more than one, and none that lives: the second use ends
// what the first one gives (docs/decisions/0021-codes.md). The user is not asked again.
func TestAttackAC13(t *testing.T) {
	stalled := &stalledStore{reached: make(chan struct{}), goOn: make(chan struct{})}
	b := signedIn(t, browserServer(t, func(c *Config) { stalled.Store, c.Store = c.Store, stalled }))
	code := b.code()
	first := make(chan tokenAnswer, 1)
	go func() { first <- b.exchange("web", code) }()
	<-stalled.reached
	if again := b.exchange("web", code); again.text("error") != "invalid_grant" {
		t.Errorf("the repetition: %d %v", again.status, again.body)
	}
	close(stalled.goOn)
	if a := <-first; a.status == 200 && (b.active("web", a.text("access_token")) || b.active("web", a.text("refresh_token"))) {
		t.Error("the first use gave tokens that outlive the repetition")
	}
	page := b.send("GET", authorizeURL(), nil)
	if a := b.exchange("web", page.query.Get("code")); a.status != 200 || !b.active("web", a.text("access_token")) {
		t.Errorf("the way back: %d %v, then %d %v", page.status, page.location, a.status, a.body)
	}
}
