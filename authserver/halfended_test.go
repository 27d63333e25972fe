package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/keys"
	"authserver/store"
)

// A grant whose end is in the log is over, also where whoever ended it was killed
// before the record was gone. Another instance may not have read the log as far: so
// before anybody is told, by whichever way, the record is gone.
func TestLoggedEndOfAGrant(t *testing.T) {
	ctx := t.Context()
	s := fastServer(t, 0)
	c, err := s.clients.find(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(raw string) (bool, error) {
		_, err := refreshTokenGrant{s}.Authorize(ctx, tokenRequest{client: c, form: form{url.Values{"refresh_token": {raw}}}})
		var refused *Error
		if errors.As(err, &refused) && refused.Code == "invalid_grant" {
			return false, nil
		}
		return err == nil, err
	}
	introspectRefresh := func(raw string) (bool, error) {
		token, err := intake.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.introspectRefreshToken(ctx, c, token)
		return err == nil && answer.(introspection).Active, err
	}
	for name, level := range map[string]feed.Level{"its own": feed.Grant, "its session's": feed.Session} {
		for how, ask := range map[string]func(claims accesstoken.Claims, raw string) (live bool, err error){
			"refresh":    func(_ accesstoken.Claims, raw string) (bool, error) { return refresh(raw) },
			"introspect": func(_ accesstoken.Claims, raw string) (bool, error) { return introspectRefresh(raw) },
			"use": func(claims accesstoken.Claims, _ string) (bool, error) {
				_, live, err := s.accessTokenLive(ctx, claims)
				return live, err
			},
		} {
			if level == feed.Session && how != "use" {
				continue // a refresh token does not say which session it is of
			}
			t.Run(name+", "+how, func(t *testing.T) {
				made := bobsGrant(t, s)
				claims, raw := issued(t, s, made, 0)
				claims.SessionID = "session of " + made.GrantID
				if live, err := ask(claims, raw); !live || err != nil {
					t.Fatalf("before its end: %v, %v", live, err)
				}
				value := made.GrantID
				if level == feed.Session {
					value = claims.SessionID
				}
				s.feed.set.Add([]feed.Entry{feed.NewEntry(level, value, time.Hour, 0)}) // and the record is there
				if live, err := ask(claims, raw); live || err != nil {
					t.Errorf("after its end: %v, %v", live, err)
				}
				if _, _, err := s.grants.Get(ctx, made.GrantID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("it was refused, and the record is there for another instance: %v", err)
				}
			})
		}
	}
}

// Nor is it refreshed at an instance that believes the epoch before for a second, when
// another one has said that it is over: whoever begins an epoch may be killed before it
// is logged.
func TestEpochEndOfAGrant(t *testing.T) {
	ctx := t.Context()
	for _, level := range []string{subjectEpoch, clientEpoch} {
		for _, how := range []string{"refresh", "introspect", "use"} {
			t.Run(level+", "+how, func(t *testing.T) {
				s := fastServer(t, 0)
				c, err := s.clients.find(ctx, "web")
				if err != nil {
					t.Fatal(err)
				}
				made := bobsGrant(t, s)
				claims, raw := issued(t, s, made, 0)
				if _, err := s.beginEpoch(ctx, level, map[string]string{subjectEpoch: "bob", clientEpoch: "web"}[level], time.Now().Unix()); err != nil {
					t.Fatal(err)
				}
				s.users.changed("bob")
				s.clients.changed("web")
				switch how {
				case "refresh":
					_, err := refreshTokenGrant{s}.Authorize(ctx, tokenRequest{client: c, form: form{url.Values{"refresh_token": {raw}}}})
					if asError(err).Code != "invalid_grant" {
						t.Errorf("a refresh: %v", err)
					}
				case "introspect":
					token, err := intake.Parse(raw)
					if err != nil {
						t.Fatal(err)
					}
					if answer, err := s.introspectRefreshToken(ctx, c, token); err != nil || answer.(introspection).Active {
						t.Errorf("introspection: %v, %v", answer, err)
					}
				case "use":
					if _, live, err := s.accessTokenLive(ctx, claims); live || err != nil {
						t.Errorf("live: %v, %v", live, err)
					}
				}
				if _, _, err := s.grants.Get(ctx, made.GrantID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("it is over here, and the record is there for another instance: %v", err)
				}
			})
		}
	}
}

// What another instance ends of a client or a user is asked for when its log says so,
// not when what was believed of them is a second old.
func TestEndsAreAskedForAnew(t *testing.T) {
	s := fastServer(t, 0)
	for _, r := range []revocation{{Client: "web", Epoch: 1, At: 1}, {Subject: "bob", Epoch: 1, At: 1}} {
		value, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		believed := func() bool {
			s.clients.lookups.mu.Lock()
			defer s.clients.lookups.mu.Unlock()
			s.users.lookups.mu.Lock()
			defer s.users.lookups.mu.Unlock()
			return r.Client != "" && s.clients.lookups.answers["web"] != nil || r.Subject != "" && s.users.lookups.answers["bob"] != nil
		}
		if _, err := s.presumed(t.Context(), "web", "bob"); err != nil || !believed() {
			t.Fatalf("%+v: %v", r, err)
		}
		if s.feed.take([]store.Event{{Position: s.feed.read.position + 1, Value: value}}, time.Now()); believed() {
			t.Errorf("%+v was read, and what was known before is believed", r)
		}
	}
}

// keepingStore deletes nothing.
type keepingStore struct{ store.Store }

func (keepingStore) Delete(context.Context, string) error         { return nil }
func (keepingStore) Unlink(context.Context, string, string) error { return nil }

// ATTACKS I1: when the end of all of a client, or of more grants of a user than are deleted
// at once, is acknowledged, an instance that has not read the log since and had asked the
// store a moment before refreshes none of them.
func TestEndIsOverEverywhere(t *testing.T) {
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	for level, end := range map[string]func(*Server) error{
		"client": func(s *Server) error { return s.endClient(ctx, "web", "test") },
		"user":   func(s *Server) error { return s.endSubject(ctx, "bob", "test") },
	} {
		t.Run(level, func(t *testing.T) {
			master, err := keys.NewMasterKey()
			if err != nil {
				t.Fatal(err)
			}
			there := insideServer(t, nil, master)
			here := insideServer(t, keepingStore{there.store}, master)
			here.shared = true
			if err := PutUser(ctx, here.store, "bob", "bob", here.passwords.nobody.String(), false); err != nil {
				t.Fatal(err)
			}
			made := bobsGrant(t, here)
			_, raw := issued(t, here, made, 0)
			var others sync.WaitGroup // the embedded store writes them together
			for range deletedBefore {
				others.Go(func() {
					if err := here.grants.Create(ctx, NewGrantID("bob"), made.Grant, later); err != nil {
						t.Error(err)
					}
				})
			}
			others.Wait()
			c, err := there.clients.find(ctx, "web")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := there.presumed(ctx, "web", "bob"); err != nil {
				t.Fatal(err)
			}
			if err := end(here); err != nil {
				t.Fatal(err)
			}
			_, err = refreshTokenGrant{there}.Authorize(ctx, tokenRequest{client: c, form: form{url.Values{"refresh_token": {raw}}}})
			if asError(err).Code != "invalid_grant" {
				t.Errorf("a refresh at the other instance: %v", err)
			}
		})
	}
}
