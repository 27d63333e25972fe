package authserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// Whoever is signed out by an operator is signed out at his clients too, and is not
// signed in here any more.
func TestOperatorsEndsTellClients(t *testing.T) {
	l := newListener(t)
	s := backchannelServer(t, l)
	for name, end := range map[string]func(one *session) error{
		"session": func(one *session) error {
			_, err := s.adminGrantRevoke(t.Context(), GrantRevoke{SessionID: one.ID})
			return err
		},
		"user": func(one *session) error {
			_, err := s.adminGrantRevoke(t.Context(), GrantRevoke{UserRef: UserRef{Subject: one.Subject}})
			return err
		},
		"reset": func(one *session) error {
			_, err := s.adminUserReset(t.Context(), UserRef{Subject: one.Subject})
			return err
		},
		"disable": func(one *session) error {
			_, err := s.adminUserDisable(t.Context(), UserRef{Subject: one.Subject})
			if err == nil {
				_, err = s.adminUserEnable(t.Context(), UserRef{Subject: one.Subject})
			}
			return err
		},
	} {
		b := newBrowser(t, s)
		one := b.signIn("alice-1")
		if err := s.noteClient(t.Context(), one, s.clients.configured["web"]); err != nil {
			t.Fatal(err)
		}
		if err := end(one); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if waiting := due(t, s); waiting != 1 {
			t.Errorf("%s: %d clients are to be told, want one", name, waiting)
		}
		s.backchannel.sendDue(t.Context())
		s.backchannel.idle()
		l.got(t, 1)
		var current *session
		b.act(func(w http.ResponseWriter, r *http.Request) (err error) { current, err = s.sessionOf(r); return err })
		if current != nil {
			t.Errorf("%s: the browser is still signed in", name)
		}
	}
}

// A reset takes what was lost and leaves the password.
func TestAdminUserReset(t *testing.T) {
	s := browserServer(t, nil)
	err := s.updateCredentials(t.Context(), "alice-1", func(c *credentials) error {
		*c = credentials{Password: &storedPassword{Hash: s.passwords.nobody.String()}, TOTP: &totpEnrolment{Since: 1}, RecoveryCodes: []string{"a", "b"}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := s.adminUserShow(t.Context(), UserRef{Subject: "alice-1"}); err != nil || !info.TOTP || info.RecoveryCodes != 2 {
		t.Errorf("%+v %v", info, err)
	}
	if info, err := s.adminUserReset(t.Context(), UserRef{Subject: "alice-1"}); err != nil || info.TOTP || info.RecoveryCodes != 0 {
		t.Errorf("%+v %v", info, err)
	}
	if left, err := s.credentialsOf(t.Context(), "alice-1"); err != nil || left.hasSecondFactor() || left.Password == nil {
		t.Errorf("%+v %v", left, err)
	}
}

// What a user allowed a client that is gone, he has not allowed another with its id.
func TestConsentOfAnEarlierClient(t *testing.T) {
	s := browserServer(t, nil)
	if err := s.rememberConsent(t.Context(), "alice-1", &client{id: "shop"}, []string{"openid"}); err != nil {
		t.Fatal(err)
	}
	for created, want := range map[int64]int{time.Now().Unix() - 10: 1, time.Now().Unix() + 10: 0} {
		if scope, err := s.consented(t.Context(), "alice-1", &client{id: "shop", created: created}); err != nil || len(scope) != want {
			t.Errorf("of a client created at %d: %v %v", created, scope, err)
		}
	}
	later := &client{id: "shop", created: time.Now().Unix() + 10}
	if err := s.rememberConsent(t.Context(), "alice-1", later, []string{"email"}); err != nil {
		t.Fatal(err)
	}
	later.created = 0
	if scope, err := s.consented(t.Context(), "alice-1", later); err != nil || len(scope) != 1 || scope[0] != "email" {
		t.Errorf("what the earlier client was allowed came back: %v %v", scope, err)
	}
}

// A call that panics is no call that went well.
func TestAdminPanic(t *testing.T) {
	s := browserServer(t, nil)
	calls := map[string]adminCall{"/client/list": func(context.Context, []byte, *adminRecord) (any, error) { panic("a bug") }}
	r := httptest.NewRequest(http.MethodPost, "/client/list", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	named := context.WithValue(t.Context(), peerKey{}, namedPeer{adminPeer: adminPeer{UID: os.Geteuid()}})
	if answer, err := s.serveAdmin(httptest.NewRecorder(), r.WithContext(named), calls); answer != nil || asAdminError(err).Code != "internal" {
		t.Errorf("%v %v", answer, err)
	}
}
