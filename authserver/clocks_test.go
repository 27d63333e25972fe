package authserver

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// fast is a store whose clock is ahead of the instances' clocks.
type fast struct {
	store.Store
	by   time.Duration
	held time.Duration // since what it answers with was written
}

func (f fast) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	record, err := f.Store.Swap(ctx, key, version, value, expires)
	if record.Exists() {
		record.Changed, record.Now = record.Changed.Add(f.by), record.Now.Add(f.by+f.held)
	}
	return record, err
}

// fastServer is a server on such a store, with a user bob.
func fastServer(t *testing.T, by time.Duration) *Server {
	t.Helper()
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s := insideServer(t, fast{Store: opened, by: by}, keys.MasterKey{})
	if err := PutUser(t.Context(), s.store, "bob", "bob", s.passwords.nobody.String(), false); err != nil {
		t.Fatal(err)
	}
	return s
}

// issued are tokens that were issued where the clock is off.
func issued(t *testing.T, s *Server, a Authorization, off time.Duration) (accesstoken.Claims, string) {
	t.Helper()
	a.IssuedAt = a.IssuedAt.Add(off)
	c, err := s.clients.find(t.Context(), a.Grant.ClientID)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.issue(t.Context(), c, a)
	if err != nil {
		t.Fatal(err)
	}
	token, err := intake.Parse(response.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := accesstoken.Decode(token.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return claims, response.RefreshToken
}

// bobsGrant makes a grant of bob for the client web.
func bobsGrant(t *testing.T, s *Server) Authorization {
	t.Helper()
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	may := *c
	may.grantTypes = []string{"refresh_token"}
	u, err := s.users.bySubject(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	grant := Grant{ClientID: "web", Subject: "bob", Scope: "roles", Resources: []string{"https://api.example.com"}, AuthTime: u.authTime(time.Now())}
	before, err := s.mayHold(t.Context(), grant)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.createGrant(t.Context(), &may, NewGrantID(grant.Subject), grant, "https://api.example.com", basis{standing: before, given: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refreshed is what a refresh token becomes at the store's clock.
func refreshed(t *testing.T, s *Server, raw string) Authorization {
	t.Helper()
	a, err := refreshBy(t, s, raw)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// verifiers is the set of somebody who follows the feed.
func verifiers(t *testing.T, s *Server) *feed.Set {
	t.Helper()
	events, err := s.store.Tail(t.Context(), revocationLog, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	set := feed.NewSet()
	for _, event := range events {
		_, entries, _ := s.entries(event.Value)
		set.Add(entries)
	}
	return set
}

// Whatever an end of all of a user or a client meets is dead for those who verify
// offline, by whoever's clock it was issued: that of the store for refreshed tokens,
// that of an instance ahead for others. Whoever begins again is not, also at an
// instance whose clock is behind.
func TestEndsWhateverTheClocks(t *testing.T) {
	const off = 2 * time.Minute
	for level, end := range map[string]func(s *Server) error{
		"user":   func(s *Server) error { return s.endSubject(t.Context(), "bob", "test") },
		"client": func(s *Server) error { return s.endClient(t.Context(), "web", "test") },
		"again": func(s *Server) error {
			return errors.Join(s.endClient(t.Context(), "web", "test"), s.endClient(t.Context(), "web", "test"))
		},
	} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			s := fastServer(t, off)
			own, err := clientCredentialsGrant{s}.Authorize(t.Context(), tokenRequest{client: s.clients.configured["web"], form: form{url.Values{}}})
			if err != nil {
				t.Fatal(err)
			}
			granted := bobsGrant(t, s)
			ahead, raw := issued(t, s, granted, off)
			later, _ := issued(t, s, refreshed(t, s, raw), 0)
			itself, _ := issued(t, s, own, off)
			if later.IssuedAt < time.Now().Add(off-time.Minute).Unix() {
				t.Fatal("the store's clock is not ahead: this shows nothing")
			}
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			set := verifiers(t, s)
			for name, claims := range map[string]accesstoken.Claims{"of an instance ahead": ahead, "refreshed": later, "the client's own": itself} {
				if _, revoked := set.Revoked(feed.SubjectsOf("", &claims)); revoked != (name != "the client's own" || level != "user") {
					t.Errorf("the token %s: revoked is %v", name, revoked)
				}
			}
			if _, live, err := s.accessTokenLive(t.Context(), itself); err != nil || live != (level == "user") {
				t.Errorf("introspection of the client's own: %v %v", live, err)
			}
			anew, _ := issued(t, s, bobsGrant(t, s), -off)
			if by, revoked := set.Revoked(feed.SubjectsOf("", &anew)); revoked {
				t.Errorf("a token of afterwards is ended, by %s", by)
			}
			if _, live, err := s.accessTokenLive(t.Context(), anew); err != nil || !live {
				t.Errorf("introspection of a token of afterwards: %v %v", live, err)
			}
		})
	}
}

// An accepted store: what was issued and granted by clocks that are ahead has ended, for
// verifiers and for the server; what is granted from then on has not.
func TestAcceptedWhateverTheClocks(t *testing.T) {
	const off = 2 * time.Minute
	s := fastServer(t, off)
	granted := bobsGrant(t, s)
	granted.Grant.Created += int64(off.Seconds())
	ahead, raw := issued(t, s, granted, off)
	later, _ := issued(t, s, refreshed(t, s, raw), 0)
	until := time.Now().Add(2 * off) // of a clock that is right, or behind by as much
	if err := EndAll(t.Context(), s.store, until); err != nil {
		t.Fatal(err)
	}
	set := verifiers(t, s)
	for name, claims := range map[string]accesstoken.Claims{"of an instance ahead": ahead, "refreshed": later} {
		if _, revoked := set.Revoked(feed.SubjectsOf("", &claims)); !revoked {
			t.Errorf("verifiers take the token %s", name)
		}
	}
	s.notBefore = until.Unix
	if err := s.grantEnded(granted.Grant, epoch{}, user{}); err == nil {
		t.Error("the grant lives")
	}
	anew := granted.Grant
	anew.Created = until.Unix() + 1
	if err := s.grantEnded(anew, epoch{}, user{}); err != nil {
		t.Errorf("a grant of afterwards: %v", err)
	}
	claims := ahead
	claims.IssuedAt = until.Unix() + 1
	if by, revoked := set.Revoked(feed.SubjectsOf("", &claims)); revoked {
		t.Errorf("a token of afterwards is ended, by %s", by)
	}
}

// A session that began on an instance whose clock is ahead ends with all of its user.
func TestEndsSessionsOfTheFuture(t *testing.T) {
	s := fastServer(t, 0)
	now := time.Now()
	one := session{ID: "future", Subject: "bob", AuthTime: now.Add(2 * time.Minute).Unix(), Ends: now.Add(time.Hour).Unix()}
	if err := s.sessions.Create(t.Context(), one.ID, one, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Link(t.Context(), sessionsOf("bob"), one.ID, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.endSubject(t.Context(), "bob", "test"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.sessions.Get(t.Context(), one.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the session lives on: %v", err)
	}
	claims := accesstoken.Claims{SessionID: one.ID}
	if _, revoked := verifiers(t, s).Revoked(feed.SubjectsOf("", &claims)); !revoked {
		t.Error("verifiers were not told of its end")
	}
}

// age makes an instance believe that the store has not answered about a key for a while.
func age[T any](m *remembered[T], key string, by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if answer := m.answers[key]; answer != nil {
		answer.asked, answer.failed = time.Now().Add(-by), time.Now()
	}
}

// ATTACKS AZ-31: who was ended or disabled while an instance could not reach the store
// gets nothing there when it is back, although what the store said before would be
// believed for longer.
func TestRefreshAfterPartition(t *testing.T) {
	for name, test := range map[string]struct {
		end func(s *Server) error
	}{
		"client ended":  {func(s *Server) error { return s.endClient(t.Context(), "web", "test") }},
		"user disabled": {func(s *Server) error { return DisableUser(t.Context(), s, "bob") }},
		"user ended": {func(s *Server) error { // and killed before it deleted a grant
			_, err := s.beginEpoch(t.Context(), subjectEpoch, "bob", time.Now().Unix())
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fastServer(t, 0)
			_, raw := issued(t, s, bobsGrant(t, s), 0)
			refreshed(t, s, raw) // knows client and user now
			client, user := s.clients.lookups.answers["web"], s.users.lookups.answers["bob"]
			if err := test.end(s); err != nil { // as another instance does
				t.Fatal(err)
			}
			s.clients.lookups.answers["web"], s.users.lookups.answers["bob"] = client, user
			age(s.clients.lookups, "web", 10*time.Second)
			age(s.users.lookups, "bob", 10*time.Second)
			_, err := refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: s.clients.configured["web"], form: form{url.Values{"refresh_token": {raw}}}})
			if refusal := (*Error)(nil); !errors.As(err, &refusal) || refusal.Code != "invalid_grant" {
				t.Errorf("it is refreshed: %v", err)
			}
		})
	}
}

// An end that was not logged, because its instance was killed after the epoch began, is
// told with the next one.
func TestEpochThatWasNotLogged(t *testing.T) {
	s := fastServer(t, 0)
	claims, _ := issued(t, s, bobsGrant(t, s), time.Minute)
	if _, err := s.beginEpoch(t.Context(), clientEpoch, "web", time.Now().Unix()); err != nil {
		t.Fatal(err)
	}
	if err := s.endClient(t.Context(), "web", "test"); err != nil {
		t.Fatal(err)
	}
	if _, revoked := verifiers(t, s).Revoked(feed.SubjectsOf("", &claims)); !revoked {
		t.Error("a token of before the first end is accepted")
	}
}

// Client credentials go on without the store, in the epoch that was known last.
func TestClientCredentialsWithoutStore(t *testing.T) {
	s := fastServer(t, 0)
	if err := s.endClient(t.Context(), "web", "test"); err != nil {
		t.Fatal(err)
	}
	if number := s.clients.latestEpoch(t.Context(), "web"); number != 1 {
		t.Fatalf("the epoch is %d", number)
	}
	age(s.clients.lookups, "web", time.Hour)
	ended, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	if number := s.clients.latestEpoch(ended, "web"); number != 1 {
		t.Errorf("an hour without the store, the epoch is %d", number)
	}
}

// ATTACKS RT-04: the retry window is as long as it is, also where the store's clock is
// ahead of the instance's or behind it.
func TestRetryWindowWhateverTheClocks(t *testing.T) {
	for _, off := range []time.Duration{2 * time.Minute, -2 * time.Minute} {
		s := fastServer(t, off)
		window := time.Minute
		s.tokens.RetryWindow = &window
		_, raw := issued(t, s, bobsGrant(t, s), 0)
		first := refreshed(t, s, raw)
		if again := refreshed(t, s, raw); again.TokenID != first.TokenID {
			t.Errorf("%s off: a repetition is another", off)
		}
		late := s.store.(fast)
		late.held = window // as if so long had passed since
		s.grants.Store = late
		_, err := refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: s.clients.configured["web"], form: form{url.Values{"refresh_token": {raw}}}})
		if refusal := (*Error)(nil); !errors.As(err, &refusal) || refusal.Code != "invalid_grant" {
			t.Errorf("%s off: a repetition after the window: %v", off, err)
		}
	}
}

// awry is a store that says that this machine's clock differs from its own.
type awry struct {
	store.Store
	off error
}

func (a *awry) Clock(context.Context) (time.Time, error) { return time.Now(), a.off }

// ATTACKS I10, FT-32: what has expired by a clock that is far off is not called invalid:
// clients throw tokens away on that.
func TestExpiredByAWrongClock(t *testing.T) {
	opened, err := boltstore.Open(t.TempDir() + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	a := &awry{Store: opened}
	s := insideServer(t, a, keys.MasterKey{})
	if err := PutUser(t.Context(), s.store, "bob", "bob", s.passwords.nobody.String(), false); err != nil {
		t.Fatal(err)
	}
	begun := bobsGrant(t, s)
	begun.Refresh.Expires = time.Now().Add(-time.Minute)
	_, refresh := issued(t, s, begun, 0)
	web, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	late, err := s.sealCode(code{ClientID: "web", Expires: time.Now().Add(-time.Minute).UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []error{errors.New("an hour"), nil} {
		a.off = off
		_, byRefresh := refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: web, form: form{url.Values{"refresh_token": {refresh}}}})
		_, byCode := authorizationCodeGrant{s}.Authorize(t.Context(), tokenRequest{client: web, form: form{url.Values{"code": {late}}}})
		for what, refused := range map[string]error{"refresh token": byRefresh, "code": byCode} {
			var e *Error
			if !errors.As(refused, &e) || (e.Code == "invalid_grant") != (off == nil) {
				t.Errorf("an expired %s while the clock is off by %v: %v", what, off, refused)
			}
		}
	}
}

// ATTACKS FT-03: of a store that has lost what it acknowledged, which a power cut of a
// Redis that syncs every second does, the record of a grant is older than its tokens. Who
// has the newest one signs in again; and the used ones, which that record would take, are
// not good after that.
func TestTokenNewerThanItsGrant(t *testing.T) {
	s := fastServer(t, 0)
	granted := bobsGrant(t, s)
	_, first := issued(t, s, granted, 0)
	before, err := s.store.Get(t.Context(), s.grants.Key(granted.GrantID))
	if err != nil {
		t.Fatal(err)
	}
	_, second := issued(t, s, refreshed(t, s, first), 0)
	_, third := issued(t, s, refreshed(t, s, second), 0)
	if err := s.store.Delete(t.Context(), s.grants.Key(granted.GrantID)); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Create(t.Context(), s.grants.Key(granted.GrantID), before[0].Value, before[0].Expires); err != nil {
		t.Fatal(err)
	}
	if _, err := refreshBy(t, s, third); err == nil || asError(err).Code != "invalid_grant" {
		t.Errorf("the newest: %v", err)
	}
	for name, raw := range map[string]string{"the first": first, "the second": second} {
		if _, err := refreshBy(t, s, raw); err == nil || asError(err).Code != "invalid_grant" {
			t.Errorf("%s is good again: %v", name, err)
		}
	}
}

func refreshBy(t *testing.T, s *Server, raw string) (Authorization, error) {
	t.Helper()
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	return refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: c, form: form{url.Values{"refresh_token": {raw}}}})
}

// RFC 6749 §5.1: expires_in counts from the answer. A repeated refresh gets tokens of
// before, which live for so much less; to one that could not be answered for longer than
// that it is told to refresh at once.
func TestExpiresInOfARepetition(t *testing.T) {
	s := fastServer(t, 2*time.Minute)
	web, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	_, raw := issued(t, s, bobsGrant(t, s), 0)
	life := int64(s.tokens.Access.Seconds())
	for _, test := range []struct {
		held      time.Duration
		low, high int64
	}{{0, life - 60, life}, {50 * time.Second, life - 110, life - 50}, {s.tokens.Access + time.Hour, 1, 1}} {
		late := s.store.(fast)
		late.held = test.held
		s.grants.Store = late
		window := test.held + time.Minute
		s.tokens.RetryWindow = &window
		response, err := s.issue(t.Context(), web, refreshed(t, s, raw))
		if err != nil {
			t.Fatal(err)
		}
		if response.ExpiresIn < test.low || response.ExpiresIn > test.high {
			t.Errorf("after %s: %d, want %d to %d", test.held, response.ExpiresIn, test.low, test.high)
		}
	}
}
