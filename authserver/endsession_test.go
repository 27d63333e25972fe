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
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	if err := errors.Join(
		s.sessions.Create(ctx, "sid", session{ID: "sid", Subject: "alice-1", Ends: later.Unix()}, later),
		s.grants.Create(ctx, "grant-1", Grant{ClientID: "web", Subject: "alice-1", SessionID: "sid"}, later),
		s.store.Link(ctx, sessionGrants("sid"), "grant-1", later)); err != nil {
		t.Fatal(err)
	}
	exist := func() (session, ended, grant bool) {
		records, err := trouble.Get(ctx, s.sessions.Key("sid"), endedSessionKey("sid"), s.grants.Key("grant-1"))
		if err != nil {
			t.Fatal(err)
		}
		return records[0].Exists(), records[1].Exists(), records[2].Exists()
	}
	trouble.stuck = true
	if err := s.endSession(ctx, "sid", "logout"); err == nil {
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
	if err := s.endSession(ctx, "sid", "logout"); err != nil {
		t.Fatal(err)
	}
	if session, ended, grant := exist(); session || !ended || grant {
		t.Errorf("afterwards: session %v, ended %v, grant %v", session, ended, grant)
	}
}
