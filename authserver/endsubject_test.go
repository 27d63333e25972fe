package authserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"
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
	again := func() tokenAnswer {
		return b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
	}
	if a := again(); a.status != 503 { // what cannot be deleted might be refreshed by another instance
		t.Errorf("a grant that is left is refreshed: %v", a.body)
	}
	trouble.stuck = false
	if a := again(); a.text("error") != "invalid_grant" {
		t.Errorf("a grant that was left is refreshed: %v", a.body)
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
	if members, err := membersAfter(ctx, s.store, subjectGrants("alice-1"), "", 10_000); err != nil || len(members) != 1 || members[0] != "here" {
		t.Errorf("indexed are %v, %v", members, err)
	}
}

// backwards is a store whose indexes are in the worst order.
type backwards struct{ store.Store }

func (b backwards) Linked(ctx context.Context, index string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var members []string
		for member, err := range b.Store.Linked(ctx, index) {
			if err != nil {
				yield("", err)
				return
			}
			members = append(members, member)
		}
		slices.Sort(members)
		for _, member := range slices.Backward(members) {
			if !yield(member, nil) {
				return
			}
		}
	}
}

// Pages of an index are in order, and have each member once.
func TestMembersAfter(t *testing.T) {
	s := browserServer(t, nil)
	want := make([]string, 25)
	var all sync.WaitGroup
	for i := range want {
		want[i] = fmt.Sprintf("member-%02d", i)
		all.Go(func() {
			if err := s.store.Link(t.Context(), "index", want[i], time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, n := range []int{1, 7, 24, 25, 26} {
		var got []string
		for page, after := []string{""}, ""; len(page) > 0 && len(got) <= len(want); {
			var err error
			if page, err = membersAfter(t.Context(), backwards{s.store}, "index", after, n); err != nil || len(page) > n {
				t.Fatal(page, err)
			}
			if got = append(got, page...); len(page) > 0 {
				after = page[len(page)-1]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %q", n, got)
		}
	}
}

// Who ends a user with very many grants does not wait until all are deleted. They are
// dead, nobody lists them, and what was granted to him since stays.
func TestEndSubjectOfMany(t *testing.T) {
	s := browserServer(t, nil)
	ctx, now := t.Context(), time.Now()
	add := func(id string, epoch uint64, authTime time.Time) {
		grant := Grant{ClientID: "web", Subject: "alice-1", AuthTime: authTime.Unix(), Created: authTime.Unix(), SubjectEpoch: epoch, Expires: now.Add(time.Hour).Unix()}
		if err := errors.Join(s.grants.Create(ctx, id, grant, now.Add(time.Hour)), s.store.Link(ctx, subjectGrants("alice-1"), id, now.Add(time.Hour))); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup // the embedded store writes them together
	for i := range mostCounted + 5 {
		all.Go(func() { add(fmt.Sprintf("old-%04d", i), 0, now.Add(-time.Minute)) })
	}
	all.Wait()
	count, err := s.countGrants(ctx, "alice-1", "")
	if err != nil || count != nil {
		t.Errorf("so many are counted: %v, %v", count, err)
	}
	if err := s.endSubject(ctx, "alice-1", "test"); err != nil {
		t.Fatal(err)
	}
	add("new", 1, now.Add(time.Minute))
	left := func() []string {
		members, err := membersAfter(ctx, s.store, subjectGrants("alice-1"), "", 10_000)
		if err != nil {
			t.Fatal(err)
		}
		return members
	}
	before := left()
	if len(before) < 2 {
		t.Fatalf("%d are left: the call waited for all", len(before))
	}
	infos, err := s.grantInfos(ctx, before, "", "")
	if err != nil || len(infos) != 1 || infos[0].GrantID != "new" {
		t.Errorf("listed are %v, %v", infos, err)
	}
	_, subjects := s.feed.finishing.take()
	if len(subjects) != 1 {
		t.Fatalf("to be finished: %v", subjects)
	}
	for subject, begun := range subjects {
		if err := s.finishSubject(ctx, subject, begun); err != nil {
			t.Fatal(err)
		}
	}
	if after := left(); len(after) != 1 || after[0] != "new" {
		t.Errorf("%d are left", len(after))
	}
	if records, err := s.store.Get(ctx, s.grants.Key("old-0999"), s.grants.Key("new")); err != nil || records[0].Exists() || !records[1].Exists() {
		t.Errorf("the records: %v, %v", records, err)
	}
}
