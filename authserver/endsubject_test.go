package authserver

import (
	"context"
	"errors"
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

// A user's grants are those with his name, should another's have ids that begin alike;
// and no grant is made with an id by which its user's could not be found.
func TestGrantsAreOfTheirUser(t *testing.T) {
	s := browserServer(t, nil)
	ctx, later, id := t.Context(), time.Now().Add(time.Hour), NewGrantID("alice-1")
	if err := errors.Join(
		s.grants.Create(ctx, id, Grant{ClientID: "web", Subject: "alice-1"}, later),
		s.grants.Create(ctx, NewGrantID("alice-1"), Grant{ClientID: "web", Subject: "bob-1"}, later)); err != nil {
		t.Fatal(err)
	}
	var visited []string
	if err := s.eachGrant(ctx, "alice-1", func(id string, _ Grant, _ store.Record) error {
		visited = append(visited, id)
		return nil
	}); err != nil || !slices.Equal(visited, []string{id}) {
		t.Errorf("visited are %v, %v", visited, err)
	}
	c, err := s.clients.find(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	bobs := NewGrantID("bob-1")
	if _, err := s.createGrant(ctx, c, bobs, Grant{ClientID: "web", Subject: "alice-1"}, "https://api.example.com", basis{}); err == nil {
		t.Error("a grant is made with an id by which nobody finds it")
	}
	if _, _, err := s.grants.Get(ctx, bobs); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the grant: %v", err)
	}
}

// Pages of a user's grants have each grant once, though grants end meanwhile.
func TestGrantPages(t *testing.T) {
	s := browserServer(t, nil)
	ctx, later, now := t.Context(), time.Now().Add(time.Hour), time.Now().Unix()
	const many = 25
	for range many {
		grant := Grant{ClientID: "web", Subject: "alice-1", AuthTime: now, Created: now, Expires: later.Unix()}
		if err := s.grants.Create(ctx, NewGrantID("alice-1"), grant, later); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 7, many - 1, many, many + 1} {
		seen := make(map[string]bool)
		query := GrantQuery{UserRef: UserRef{Username: "alice"}, ListQuery: ListQuery{Limit: limit}}
		for pages := 0; pages == 0 || query.Cursor != ""; pages++ {
			page, err := s.adminGrantList(ctx, query)
			if err != nil || len(page.Grants) > limit {
				t.Fatalf("by %d: %d grants, %v", limit, len(page.Grants), err)
			}
			for _, grant := range page.Grants {
				if seen[grant.GrantID] {
					t.Errorf("by %d: %s again", limit, grant.GrantID)
				}
				seen[grant.GrantID] = true
			}
			if query.Cursor = page.Next; limit == 7 && pages == 0 {
				last := page.Grants[limit-1].GrantID // where the next page goes on
				if err := s.endGrant(ctx, last, "test"); err != nil {
					t.Fatal(err)
				}
				delete(seen, last)
			}
		}
		left := many
		if limit > 1 { // one has ended
			left--
		}
		if len(seen) != left {
			t.Errorf("by %d: %d of %d grants", limit, len(seen), left)
		}
	}
}

// passes counts how often families are read.
type passes struct {
	store.Store
	n int
}

func (p *passes) Members(ctx context.Context, family string) iter.Seq2[store.FamilyMember, error] {
	p.n++
	return p.Store.Members(ctx, family)
}

// Who lists all of a user with many grants does not have all of them read for each page.
func TestGrantPagesAreReadAhead(t *testing.T) {
	s := browserServer(t, nil)
	counted := &passes{Store: s.store}
	s.store = counted
	ctx, later, now := t.Context(), time.Now().Add(time.Hour), time.Now().Unix()
	const many = 3 * pagesAhead
	var all sync.WaitGroup // the embedded store writes them together
	for range many {
		all.Go(func() {
			grant := Grant{ClientID: "web", Subject: "alice-1", AuthTime: now, Created: now, Expires: later.Unix()}
			if err := s.grants.Create(ctx, NewGrantID("alice-1"), grant, later); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := make(map[string]bool)
	query := GrantQuery{UserRef: UserRef{Username: "alice"}, ListQuery: ListQuery{Limit: 1}}
	for pages := 0; pages == 0 || query.Cursor != ""; pages++ {
		page, err := s.adminGrantList(ctx, query)
		if err != nil || len(page.Grants) != 1 || seen[page.Grants[0].GrantID] {
			t.Fatalf("page %d: %v, %v", pages, page.Grants, err)
		}
		seen[page.Grants[0].GrantID] = true
		query.Cursor = page.Next
	}
	if len(seen) != many || counted.n > many/10 {
		t.Errorf("%d of %d grants, read %d times", len(seen), many, counted.n)
	}
	// A list that is begun anew has what is new.
	fresh := NewGrantID("alice-1")
	if err := s.grants.Create(ctx, fresh, Grant{ClientID: "web", Subject: "alice-1", AuthTime: now, Created: now, Expires: later.Unix()}, later); err != nil {
		t.Fatal(err)
	}
	page, err := s.adminGrantList(ctx, GrantQuery{UserRef: UserRef{Username: "alice"}, ListQuery: ListQuery{Limit: many + 1}})
	if err != nil || len(page.Grants) != many+1 || !slices.ContainsFunc(page.Grants, func(g GrantInfo) bool { return g.GrantID == fresh }) {
		t.Errorf("%d grants after one more: %v", len(page.Grants), err)
	}
}

// Who ends a user with very many grants does not wait until all are deleted. They are
// dead, nobody lists them, and what was granted to him since stays.
func TestEndSubjectOfMany(t *testing.T) {
	s := browserServer(t, nil)
	ctx, now := t.Context(), time.Now()
	add := func(epoch uint64, authTime time.Time) string {
		id := NewGrantID("alice-1")
		grant := Grant{ClientID: "web", Subject: "alice-1", AuthTime: authTime.Unix(), Created: authTime.Unix(), SubjectEpoch: epoch, Expires: now.Add(time.Hour).Unix()}
		if err := s.grants.Create(ctx, id, grant, now.Add(time.Hour)); err != nil {
			t.Error(err)
		}
		return id
	}
	var all sync.WaitGroup // the embedded store writes them together
	for range mostCounted + 5 {
		all.Go(func() { add(0, now.Add(-time.Minute)) })
	}
	all.Wait()
	count, err := s.countGrants(ctx, "alice-1", "")
	if err != nil || count != nil {
		t.Errorf("so many are counted: %v, %v", count, err)
	}
	if err := s.endSubject(ctx, "alice-1", "test"); err != nil {
		t.Fatal(err)
	}
	anew := add(1, now.Add(time.Minute))
	left := func() []string {
		ids, err := s.grantsAfter(ctx, "alice-1", "", 10_000)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	before := slices.DeleteFunc(left(), func(id string) bool { return id == anew })
	if len(before) < 2 {
		t.Fatalf("%d are left: the call waited for all", len(before))
	}
	infos, err := s.grantInfos(ctx, left(), "", "")
	if err != nil || len(infos) != 1 || infos[0].GrantID != anew {
		t.Errorf("listed are %v, %v", infos, err)
	}
	_, _, subjects := s.feed.finishing.take()
	if len(subjects) != 1 {
		t.Fatalf("to be finished: %v", subjects)
	}
	for subject, begun := range subjects {
		if err := s.finishSubject(ctx, subject, begun); err != nil {
			t.Fatal(err)
		}
	}
	if after := left(); len(after) != 1 || after[0] != anew {
		t.Errorf("%d are left", len(after))
	}
	if records, err := s.store.Get(ctx, s.grants.Key(before[0]), s.grants.Key(anew)); err != nil || records[0].Exists() || !records[1].Exists() {
		t.Errorf("the records: %v, %v", records, err)
	}
}
