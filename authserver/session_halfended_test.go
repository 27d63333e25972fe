package authserver

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/timetest"
	"authserver/store"
)

// cutting is a store whose caller goes away as soon as a revocation is logged.
type cutting struct {
	store.Store
	cut       func()
	cutAtMark func() // of an access token, which comes before that

	cutAtConflict func() // of a grant, or of what a code has spent
}

func (c *cutting) Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (store.Record, error) {
	record, err := c.Store.Swap(ctx, key, version, value, expires)
	if errors.Is(err, store.ErrConflict) && c.cutAtConflict != nil {
		c.cutAtConflict()
	}
	return record, err
}

func (c *cutting) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	err := c.Store.Create(ctx, key, value, expires)
	if errors.Is(err, store.ErrExists) && c.cutAtConflict != nil {
		c.cutAtConflict()
	}
	if strings.HasPrefix(key, "revoked/") && c.cutAtMark != nil {
		c.cutAtMark()
	}
	return err
}

func (c *cutting) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	position, err := c.Store.Append(ctx, log, event, keep)
	if log == revocationLog && c.cut != nil {
		c.cut()
	}
	return position, err
}

// A session whose end is logged ends: verifiers refuse its tokens from then on, so that
// whoever stayed signed in there would get none that is good. Whether the browser that
// signs out has waited for the answer makes no difference.
func TestSigningOutWithoutWaiting(t *testing.T) {
	cutting := new(cutting)
	s := browserServer(t, func(c *Config) { cutting.Store, c.Store = c.Store, cutting })
	b := signedIn(t, s)
	tokens, sid := b.exchange("web", b.code()), b.session().ID
	ctx, cancel := context.WithCancel(t.Context())
	cutting.cut = cancel
	if err := s.logOut(ctx, b.session(), reasonSignedOut); err != nil {
		t.Errorf("it is not carried out: %v", err)
	}
	s.sessionIsOver(t, b, tokens, sid)
}

// Nor does it when the instance was killed there: whoever reads the log carries it out.
func TestEndOfASessionThatWasNotCarriedOut(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	tokens, sid := b.exchange("web", b.code()), b.session().ID
	if err := s.publish(t.Context(), revocation{Session: sid, Reason: reasonSignedOut}); err != nil {
		t.Fatal(err)
	}
	runUntilCleanup(t, s.Run)
	timetest.Await(t, "the session to end", func() bool { return b.session() == nil })
	s.sessionIsOver(t, b, tokens, sid)
}

// One that cannot be ended, since a grant of its user is damaged, holds up no other's end.
func TestEndOfASessionBesideADamagedOne(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	stuck, subject := b.session().ID, b.session().Subject
	if err := s.store.Create(t.Context(), s.grants.Key(NewGrantID(subject)), []byte{0xff}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.sessions.Create(t.Context(), "other-sid", session{ID: "other-sid", Subject: "bob-1"}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if left := s.finishSessions(t.Context(), []string{stuck, "other-sid"}); !slices.Equal(left, []string{stuck}) {
		t.Errorf("%q are left to end", left)
	}
	if records, err := s.store.Get(t.Context(), s.sessions.Key("other-sid")); err != nil || records[0].Exists() {
		t.Errorf("the other is still there: %v", err)
	}
}

func (s *Server) sessionIsOver(t *testing.T, b *browser, tokens tokenAnswer, sid string) {
	t.Helper()
	if b.session() != nil {
		t.Error("the browser is signed in")
	}
	if a := b.refresh(tokens); a.status != 400 || a.text("error") != "invalid_grant" {
		t.Errorf("its grant is refreshed: %d %s", a.status, a.text("error"))
	}
	b.signIn("alice-1")
	if again := b.session(); again == nil || again.ID == sid {
		t.Error("whoever signs in again is in the session that has ended")
	}
}

// RFC 7009: a page that revokes its token as it is closed waits for no answer. The token is
// revoked for verifiers, too, or not at all.
func TestRevokingWithoutWaiting(t *testing.T) {
	cutting := new(cutting)
	s := browserServer(t, func(c *Config) { cutting.Store, c.Store = c.Store, cutting })
	b := signedIn(t, s)
	access := b.exchange("web", b.code()).text("access_token")
	claims, _ := b.verified(access, "ES256")
	r := b.request("POST", "/revoke", url.Values{"token": {access}})
	r.SetBasicAuth("web", testSecret)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cutting.cutAtMark = cancel
	if page := b.do(s.ServeHTTP, r.WithContext(ctx)); page.status != 200 {
		t.Errorf("%d %s", page.status, page.body)
	}
	told := false
	events, err := s.store.Tail(t.Context(), revocationLog, 0, 0)
	for _, event := range events {
		told = told || strings.Contains(string(event.Value), claims["jti"].(string))
	}
	if err != nil || !told || b.active("web", access) {
		t.Errorf("verifiers are told: %t, active here: %t, %v", told, b.active("web", access), err)
	}
}

// ATTACKS I5: a stolen token or a replayed code ends the grant, whether or not whoever
// presents it waits for the answer.
func TestTheftWithoutWaiting(t *testing.T) {
	cutting := new(cutting)
	s := browserServer(t, func(c *Config) {
		cutting.Store, c.Store = c.Store, cutting
		c.Tokens.RetryWindow = new(time.Duration)
	})
	b := signedIn(t, s)
	for name, values := range map[string]func() url.Values{
		"refresh token": func() url.Values {
			first := b.exchange("web", b.code())
			if a := b.refresh(first); a.status != 200 {
				t.Fatal(a.body)
			}
			return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.text("refresh_token")}}
		},
		"code": func() url.Values {
			code := b.code()
			if a := b.exchange("web", code); a.status != 200 {
				t.Fatal(a.body)
			}
			return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testCallback}, "code_verifier": {testVerifier}}
		},
	} {
		r := b.request("POST", "/token", values())
		r.SetBasicAuth("web", testSecret)
		ctx, cancel := context.WithCancel(t.Context())
		cutting.cutAtConflict = cancel
		b.do(s.ServeHTTP, r.WithContext(ctx))
		cutting.cutAtConflict = nil
		if ctx.Err() == nil {
			t.Fatalf("%s: nobody has gone away: this shows nothing", name)
		}
		cancel()
		for id, err := range s.grantIDs(t.Context(), "alice-1") {
			if _, _, getErr := s.grants.Get(t.Context(), id); err != nil || getErr == nil {
				t.Errorf("%s: the grant lives on: %v", name, err)
			}
		}
	}
}
