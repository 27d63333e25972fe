package authserver

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/store"
)

// What was granted to a user of whom all was ended is dead where it is met, also while
// it is not deleted yet.
func TestEndSubjectHalfWay(t *testing.T) {
	trouble := new(stuckStore)
	s := browserServer(t, func(c *Config) { trouble.Store, c.Store = c.Store, trouble })
	b := signedIn(t, s)
	tokens := b.exchange("web", b.code())
	access, refresh := tokens.text("access_token"), tokens.text("refresh_token")
	if !b.active("web", access) || !b.active("web", refresh) {
		t.Fatal("not active before")
	}
	trouble.stuck = true
	if err := s.endSubject(t.Context(), "alice-1", "test"); err == nil {
		t.Fatal("a grant is left, and nobody says so")
	}
	if b.active("web", access) || b.active("web", refresh) {
		t.Error("tokens of a grant that is left are active")
	}
	a := b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
	if a.text("error") != "invalid_grant" {
		t.Errorf("a grant that is left is refreshed: %v", a.body)
	}
}

// slowStore takes as long to delete a grant as the log takes to tell of its end.
type slowStore struct {
	store.Store
	told bool
}

func (s *slowStore) Delete(ctx context.Context, key string) error {
	for deadline := time.Now().Add(time.Minute); strings.HasPrefix(key, "grant/") && !s.told && time.Now().Before(deadline); {
		events, err := s.Store.Tail(ctx, revocationLog, 0, time.Second)
		if err != nil {
			return err
		}
		for _, event := range events {
			s.told = s.told || strings.Contains(string(event.Value), `"sub":"alice-1"`)
		}
	}
	return s.Store.Delete(ctx, key)
}

// Verifiers do not wait until a million grants are deleted.
func TestEndSubjectTellsEarly(t *testing.T) {
	slow := new(slowStore)
	s := browserServer(t, func(c *Config) { slow.Store, c.Store = c.Store, slow })
	b := signedIn(t, s)
	b.exchange("web", b.code())
	if err := s.endSubject(t.Context(), "alice-1", "test"); err != nil {
		t.Fatal(err)
	}
	if !slow.told {
		t.Error("nobody is told before all grants are deleted")
	}
}

// An index does not keep what has gone by itself, once somebody looks.
func TestIndexForgetsWhatHasExpired(t *testing.T) {
	s := browserServer(t, nil)
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	if err := errors.Join(
		s.grants.Create(ctx, "here", Grant{ClientID: "web", Subject: "alice-1"}, later),
		s.store.Link(ctx, subjectGrants("alice-1"), "here", later),
		s.store.Link(ctx, subjectGrants("alice-1"), "expired", later)); err != nil {
		t.Fatal(err)
	}
	visited := 0
	if err := s.eachGrant(ctx, "alice-1", func(string, Grant, store.Record) error { visited++; return nil }); err != nil || visited != 1 {
		t.Errorf("%d visited, %v", visited, err)
	}
	if members, err := sortedMembers(ctx, s.store, subjectGrants("alice-1")); err != nil || len(members) != 1 || members[0] != "here" {
		t.Errorf("indexed are %v, %v", members, err)
	}
}
