package authserver

import (
	"context"
	"crypto"
	"errors"
	"io"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/timetest"
	"authserver/keys"
)

// fickle is a backend as a key management service is one: it can be away.
type fickle struct {
	keys.Backend
	away atomic.Bool
}

func (*fickle) Name() string         { return "fickle" }
func (*fickle) Algorithms() []string { return []string{"ES256"} }

func (f *fickle) Open(ctx context.Context, place keys.Place, handle []byte) (crypto.Signer, error) {
	signer, err := f.Backend.Open(ctx, place, handle)
	return fickleSigner{signer, f}, err
}

type fickleSigner struct {
	crypto.Signer
	backend *fickle
}

func (s fickleSigner) Sign(random io.Reader, input []byte, options crypto.SignerOpts) ([]byte, error) {
	if s.backend.away.Load() {
		return nil, errors.New("no route to the key management service")
	}
	return s.Signer.Sign(random, input, options)
}

// A backend that cannot sign costs nobody his grant: what was spent when it turned out
// can be presented again, however much later, and only once more.
func TestNothingIsSpentUnsigned(t *testing.T) {
	backend := new(fickle)
	b := signedIn(t, browserServerWithKeys(t, func(c *Config) {
		c.Tokens.RetryWindow = new(time.Duration) // so that any repetition is a late one
	}, func(c *keys.Config) {
		backend.Backend = keys.NewSealedBackend(c.MasterKey)
		c.Algorithms, c.Backend = []string{"ES256"}, backend
	}))
	refresh := func(token string) tokenAnswer {
		return b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	}
	twiceInVain := func(what string, request func() tokenAnswer) {
		t.Helper()
		backend.away.Store(true)
		defer backend.away.Store(false)
		for range 2 {
			if a := request(); a.status != 503 || a.text("error") != "temporarily_unavailable" {
				t.Errorf("%s without a signature: %d %v", what, a.status, a.body)
			}
		}
	}

	timetest.Await(t, "a key", func() bool { return b.server.keys.Ready("ES256") == nil })
	code := b.code()
	twiceInVain("a code", func() tokenAnswer { return b.exchange("web", code) })
	first := b.exchange("web", code)
	if first.status != 200 {
		t.Fatalf("the code, again: %d %v", first.status, first.body)
	}
	twiceInVain("a refresh", func() tokenAnswer { return refresh(first.text("refresh_token")) })
	second := refresh(first.text("refresh_token"))
	if second.status != 200 {
		t.Fatalf("the refresh, again: %d %v", second.status, second.body)
	}
	third := refresh(second.text("refresh_token"))
	if third.status != 200 {
		t.Fatalf("its successor: %d %v", third.status, third.body)
	}
	if a := refresh(first.text("refresh_token")); a.text("error") != "invalid_grant" {
		t.Errorf("the first token, when the grant has moved on: %d %v", a.status, a.body)
	}
	if a := refresh(third.text("refresh_token")); a.text("error") != "invalid_grant" {
		t.Errorf("a theft ended nothing: %d %v", a.status, a.body)
	}

	code = b.code()
	twiceInVain("a code", func() tokenAnswer { return b.exchange("web", code) })
	first = b.exchange("web", code)
	if a := b.exchange("web", code); a.text("error") != "invalid_grant" {
		t.Errorf("the code, once it was exchanged: %d %v", a.status, a.body)
	}
	if a := refresh(first.text("refresh_token")); a.text("error") != "invalid_grant" {
		t.Errorf("a replay ended nothing: %d %v", a.status, a.body)
	}
}

// Nothing moves for a refresh whose tokens there is no key for: the presented token is
// good when there is one, as if it had not been presented.
func TestReadyBeforeARefreshMoves(t *testing.T) {
	s := fastServer(t, 0)
	granted := bobsGrant(t, s)
	_, raw := issued(t, s, granted, 0)
	before, record, err := s.grants.Get(t.Context(), granted.GrantID)
	if err != nil {
		t.Fatal(err)
	}
	for _, ring := range s.keys.Describe().Rings {
		for _, k := range ring.Keys {
			if ring.Name == "ES256" && k.State == "active" {
				if _, err := s.keys.Revoke(t.Context(), keys.By{Caller: "test", Reason: "test"}, k.KeyID); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	request := tokenRequest{client: s.clients.configured["web"], form: form{url.Values{"refresh_token": {raw}}}}
	for range 2 {
		if _, err := (refreshTokenGrant{s}).Authorize(t.Context(), request); asError(err).Status != 503 {
			t.Errorf("without a key: %v", err)
		}
	}
	if after, moved, err := s.grants.Get(t.Context(), granted.GrantID); err != nil || moved.Version != record.Version || after.Created != before.Created {
		t.Errorf("the grant went from generation %d to %d: %v", record.Version, moved.Version, err)
	}
	if unsent, err := (refreshTokenGrant{s}).wasUnsent(t.Context(), granted.GrantID, record.Version+1); err != nil || unsent {
		t.Errorf("a mark was left: %v", err)
	}
}
