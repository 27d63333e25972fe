package authserver

import (
	"context"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// early is a store whose clock is ahead of the instances': records end there before
// they do by an instance's clock.
type early struct {
	store.Store
	by time.Duration
}

func (e early) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	if expires = expires.Add(-e.by); !expires.After(time.Now()) {
		return nil // as Redis does
	}
	return e.Store.Create(ctx, key, value, expires)
}

// ATTACKS I2: what is good once is good once also where the store's clock is as far ahead as
// it may be, and forgets so much sooner that it was used.
func TestSpentWhateverTheClocks(t *testing.T) {
	partner, client := newPartner(t)
	opened, err := boltstore.Open(filepath.Join(t.TempDir(), "ahead.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s := browserServer(t, func(c *Config) {
		c.Clients = append(c.Clients, client)
		c.Store = early{opened, keys.ClockSkew}
	})
	b := newBrowser(t, s)
	b.signIn("alice-1")

	code := b.code()
	first := b.exchange("web", code)
	if first.status != 200 {
		t.Fatal(first.body)
	}
	if a := b.ask("POST", "/revoke", "web", url.Values{"token": {first.text("refresh_token")}}); a.status != 200 {
		t.Fatal(a.body)
	}
	if a := b.exchange("web", code); a.status != 400 || a.text("error") != "invalid_grant" {
		t.Errorf("the code of a grant that was revoked, again: %d %s", a.status, a.text("error"))
	}
	code = b.code()
	if first = b.exchange("web", code); first.status != 200 {
		t.Fatal(first.body)
	}
	if a := b.exchange("web", code); a.status != 400 || a.text("error") != "invalid_grant" || b.active("web", first.text("access_token")) {
		t.Errorf("a code that is replayed: %d %s; what it became is active: %t", a.status, a.text("error"), b.active("web", first.text("access_token")))
	}

	code = b.code()
	values := url.Values{"client_id": {"web"}}
	if _, err := s.endOwnApp(accountVisit{httptest.NewRecorder(), b.request("POST", "/account", values), form{values}, b.user("alice-1"), b.session()}); err != nil {
		t.Fatal(err)
	}
	if a := b.exchange("web", code); a.status != 400 || a.text("error") != "invalid_grant" {
		t.Errorf("a code of before the app was removed: %d %s", a.status, a.text("error"))
	}

	assertion := partner.assertion(nil)
	if a := b.present(assertion); a.status != 200 {
		t.Fatal(a.body)
	}
	if a := b.present(assertion); a.status != 401 {
		t.Errorf("an assertion, again: %d %s", a.status, a.text("error"))
	}

	page := b.send("GET", authorizeURL("prompt", "consent"), nil)
	in, err := s.openInteraction(b.request("GET", "/", nil), page.query.Get("interaction"))
	if err != nil {
		t.Fatal(err)
	}
	in.Expires = time.Now().Add(time.Second).Unix() // the end of its hour
	if err := s.spend(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if err := s.spend(t.Context(), in); err == nil {
		t.Error("an interaction is completed twice")
	}

	if err := s.spendChallenge(t.Context(), "challenge"); err != nil {
		t.Fatal(err)
	}
	records, err := s.store.Get(t.Context(), s.spent.Key("passkey/"+hashed("challenge")))
	if err != nil || time.Until(records[0].Expires) < passkeyWait {
		t.Errorf("a passkey's challenge is forgotten in %s, while it may be answered: %v", time.Until(records[0].Expires), err)
	}
}
