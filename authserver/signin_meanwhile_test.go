package authserver

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/store"
)

// trippingStore does something just before a session is indexed, and cannot list a
// user's sessions at the time that is asked for.
type trippingStore struct {
	store.Store
	meddle func()
	trip   int // the how manieth list fails; 0 for none
}

func (s *trippingStore) Link(ctx context.Context, index, member string, expires time.Time) error {
	if meddle := s.meddle; meddle != nil && strings.HasPrefix(index, "sessions/sub/") {
		s.meddle = nil
		meddle()
	}
	return s.Store.Link(ctx, index, member, expires)
}

func (s *trippingStore) Linked(ctx context.Context, index string, after store.Member) iter.Seq2[store.Member, error] {
	if strings.HasPrefix(index, "sessions/sub/") && s.trip > 0 {
		if s.trip--; s.trip == 0 {
			return func(yield func(store.Member, error) bool) { yield(store.Member{}, errors.New("tripped")) }
		}
	}
	return s.Store.Linked(ctx, index, after)
}

const builder = "the builder's password"

// trippingServer has the user alice with the password builder.
func trippingServer(t *testing.T) (*Server, *trippingStore) {
	t.Helper()
	hash, err := HashPassword(builder)
	if err != nil {
		t.Fatal(err)
	}
	trouble := new(trippingStore)
	s := browserServer(t, func(c *Config) {
		trouble.Store, c.Store = c.Store, trouble
		c.Users[0].PasswordHash = hash
	})
	return s, trouble
}

// changePassword is the form of the account page, sent by b.
func (b *browser) changePassword(current, changed string) error {
	values := url.Values{"current_password": {current}, "new_password": {changed}, "repeat_password": {changed}}
	_, err := b.server.changeOwnPassword(accountVisit{httptest.NewRecorder(), b.request("POST", "/account", values), form{values}, b.user("alice-1"), b.session()})
	return err
}

// A change of the password that fails half way can be repeated, and leaves nobody
// signed in who should not be.
func TestPasswordChangeHalfWay(t *testing.T) {
	for at, repeatWith := range map[int]string{1: builder, 2: "another password"} {
		s, trouble := trippingServer(t)
		b, elsewhere := newBrowser(t, s), newBrowser(t, s)
		b.signIn("alice-1")
		elsewhere.signIn("alice-1")
		// What has no session is of whoever knew the password too.
		loose := NewGrantID("alice-1")
		if err := s.grants.Create(t.Context(), loose, Grant{ClientID: "web", Subject: "alice-1"}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		trouble.trip = at
		if err := b.changePassword(builder, "another password"); asError(err).Status != http.StatusServiceUnavailable {
			t.Fatalf("trip %d: %v", at, err)
		}
		if at == 2 && elsewhere.session() != nil {
			t.Error("the password is changed, and the other browser is signed in")
		}
		if err := b.changePassword(repeatWith, "another password"); err != nil {
			t.Fatalf("trip %d, repeated: %v", at, err)
		}
		if elsewhere.session() != nil || b.session() == nil {
			t.Errorf("trip %d: elsewhere %v, here %v", at, elsewhere.session(), b.session())
		}
		if _, _, err := s.grants.Get(t.Context(), loose); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("trip %d: the grant without a session: %v", at, err)
		}
	}
}

// Whoever proves himself by what is changed before he is signed in, is not.
func TestSignInMeanwhile(t *testing.T) {
	for name, meddle := range map[string]func(s *Server, owner *browser) error{
		"own password": func(s *Server, owner *browser) error { return owner.changePassword(builder, "another password") },
		"set password": func(s *Server, _ *browser) error {
			_, err := s.adminUserPassword(t.Context(), UserPassword{UserRef: UserRef{Subject: "alice-1"}, PasswordHash: testHash, KeepSessions: true})
			return err
		},
		// As a reset or a change that an operator makes, seconds before the session has begun.
		"all ended": func(s *Server, _ *browser) error {
			defer s.users.changed("alice-1")
			_, err := s.beginEpoch(t.Context(), subjectEpoch, "alice-1", past(10*time.Second))
			return err
		},
		"disabled":     func(s *Server, _ *browser) error { return s.disableUser(t.Context(), "alice-1", "test") },
		"first factor": func(s *Server, _ *browser) error { return enrol(t, s, "alice-1") },
	} {
		t.Run(name, func(t *testing.T) {
			s, trouble := trippingServer(t)
			owner, other := newBrowser(t, s), newBrowser(t, s)
			owner.signIn("alice-1")
			trouble.meddle = func() {
				if err := meddle(s, owner); err != nil {
					t.Error(err)
				}
			}
			page := other.act(func(w http.ResponseWriter, r *http.Request) error {
				shown, err := s.signIn(r.Context(), "alice", builder, caller{})
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.startSession(w, r, shown.by([]string{"pwd"}, acrPassword))
				return err
			})
			if trouble.meddle != nil || page.status == http.StatusOK || other.session() != nil || other.cookies["__Host-session"] != "" {
				t.Errorf("%d %s: signed in as %v", page.status, page.body, other.session())
			}
			u, err := s.userRecord(t.Context(), "alice-1")
			if err != nil {
				t.Fatal(err)
			}
			u.user.epoch = epoch{}
			sessions, err := s.sessionsOfUser(t.Context(), u.user)
			if err != nil || len(sessions) > 1 || len(sessions) == 1 && sessions[0].ID != owner.sid() {
				t.Errorf("sessions %+v, %v", sessions, err)
			}
		})
	}
}

// The password that a sign-in waits with for the second factor is asked about again.
func TestHalfSignInMeanwhile(t *testing.T) {
	s, _ := trippingServer(t)
	if err := enrol(t, s, "alice-1"); err != nil {
		t.Fatal(err)
	}
	shown, err := s.signIn(t.Context(), "alice", builder, caller{})
	if err != nil {
		t.Fatal(err)
	}
	in := &interaction{Half: shown.half()}
	if _, err := s.halfUser(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	// The same password, hashed better, is the same.
	s.upgradePassword(t.Context(), shown, builder)
	strong, err := s.signIn(t.Context(), "alice", builder, caller{})
	if err != nil || strong.password != shown.password {
		t.Fatalf("%q is now %q, %v", shown.password, strong.password, err)
	}
	_, err = s.adminUserPassword(t.Context(), UserPassword{UserRef: UserRef{Subject: "alice-1"}, PasswordHash: testHash, KeepSessions: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.halfUser(t.Context(), in); asError(err).Code != errSignIn.Code {
		t.Errorf("with the password of before: %v", err)
	}
}

// A grant by password is not made when the password is changed meanwhile.
func TestPasswordGrantMeanwhile(t *testing.T) {
	s, _ := trippingServer(t)
	shown, err := s.signIn(t.Context(), "alice", builder, caller{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	grant := Grant{ClientID: "web", Subject: "alice-1", AuthTime: time.Now().Unix()}
	before, err := s.mayHold(t.Context(), grant)
	if err != nil {
		t.Fatal(err)
	}
	owner := newBrowser(t, s)
	owner.signIn("alice-1")
	if err := owner.changePassword(builder, "another password"); err != nil {
		t.Fatal(err)
	}
	id := NewGrantID("alice-1")
	_, err = s.createGrant(t.Context(), c, id, grant, "https://api.example.com", basis{standing: before, given: time.Now(), proof: &shown})
	if asError(err).Code != "invalid_grant" {
		t.Errorf("by the password of before: %v", err)
	}
	if _, _, err := s.grants.Get(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the grant: %v", err)
	}
}

// enrol gives a user an authenticator app.
func enrol(t *testing.T, s *Server, subject string) error {
	return s.updateCredentials(t.Context(), subject, func(c *credentials) error {
		c.TOTP = &totpEnrolment{Secret: s.totpBox.Seal(newTOTPSecret(), []byte(subject)), Since: time.Now().Unix()}
		return nil
	})
}

// sid is the id of the session that the browser's cookie names.
func (b *browser) sid() string {
	id, _, _ := strings.Cut(b.cookies["__Host-session"], ".")
	return id
}
