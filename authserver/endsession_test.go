package authserver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"authserver/store"
)

// stuckStore cannot delete grants while it is stuck.
type stuckStore struct {
	store.Store
	stuck bool
}

func (s *stuckStore) Delete(ctx context.Context, key string) error {
	if s.stuck && strings.HasPrefix(key, "grant/") {
		return errors.New("stuck")
	}
	return s.Store.Delete(ctx, key)
}

// The end of a session that fails half way is logged already, and can be repeated:
// the session is still there to be ended.
func TestEndSessionHalfWay(t *testing.T) {
	trouble := new(stuckStore)
	s := browserServer(t, func(c *Config) { trouble.Store, c.Store = c.Store, trouble })
	ctx, later, id := t.Context(), time.Now().Add(time.Hour), NewGrantID("alice-1")
	if err := errors.Join(
		s.sessions.Create(ctx, "sid", session{ID: "sid", Subject: "alice-1", Ends: later.Unix()}, later),
		s.grants.Create(ctx, id, Grant{ClientID: "web", Subject: "alice-1", SessionID: "sid"}, later)); err != nil {
		t.Fatal(err)
	}
	exist := func() (session, ended, grant bool) {
		records, err := trouble.Get(ctx, s.sessions.Key("sid"), endedSessionKey("sid"), s.grants.Key(id))
		if err != nil {
			t.Fatal(err)
		}
		return records[0].Exists(), records[1].Exists(), records[2].Exists()
	}
	trouble.stuck = true
	if err := s.endSession(ctx, "alice-1", "sid", "logout"); err == nil {
		t.Fatal("a grant is left, and nobody says so")
	}
	events, err := trouble.Tail(ctx, revocationLog, 0, 0)
	if err != nil || len(events) == 0 || !strings.Contains(string(events[0].Value), `"sid":"sid"`) {
		t.Errorf("the log has %v, %v", events, err)
	}
	if session, ended, _ := exist(); !session || ended {
		t.Errorf("session %v, ended %v: nobody can end the rest", session, ended)
	}
	trouble.stuck = false
	if err := s.endSession(ctx, "alice-1", "sid", "logout"); err != nil {
		t.Fatal(err)
	}
	if session, ended, grant := exist(); session || !ended || grant {
		t.Errorf("afterwards: session %v, ended %v, grant %v", session, ended, grant)
	}
}

// A session that has expired by itself leaves grants. Who names its user too may list
// and end them, and only them.
func TestGrantsOfExpiredSession(t *testing.T) {
	s := browserServer(t, nil)
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	for _, sid := range []string{"expired", "expired", "other"} {
		grant := Grant{ClientID: "web", Subject: "alice-1", SessionID: sid, Created: time.Now().Unix(), Expires: later.Unix()}
		if err := s.grants.Create(ctx, NewGrantID("alice-1"), grant, later); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.adminGrantRevoke(ctx, GrantRevoke{SessionID: "expired"}); asAdminError(err).status != 404 {
		t.Errorf("without its user: %v", err)
	}
	alice := UserRef{Subject: "alice-1"}
	page, err := s.adminGrantList(ctx, GrantQuery{SessionID: "expired", UserRef: alice})
	if err != nil || len(page.Grants) != 2 {
		t.Errorf("listed are %v, %v", page.Grants, err)
	}
	revoked, err := s.adminGrantRevoke(ctx, GrantRevoke{SessionID: "expired", UserRef: alice})
	if err != nil || *revoked.Grants != 2 {
		t.Errorf("revoked: %+v, %v", revoked, err)
	}
	if page, err := s.adminGrantList(ctx, GrantQuery{UserRef: alice}); err != nil || len(page.Grants) != 1 || page.Grants[0].SessionID != "other" {
		t.Errorf("left are %v, %v", page.Grants, err)
	}
	one := newBrowser(t, s).signIn("alice-1")
	if _, err := s.adminGrantRevoke(ctx, GrantRevoke{SessionID: one.ID, UserRef: UserRef{Subject: "bob-1"}}); asAdminError(err).status != 400 {
		t.Errorf("the session of another user: %v", err)
	}
}
