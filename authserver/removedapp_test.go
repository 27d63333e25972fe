package authserver

import (
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// Who takes all access from a client takes it from the code that is out as well; what
// he allows afterwards counts.
func TestRemovedAppWithACodeOut(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	for name, remove := range map[string]func() error{
		"by the user": func() error {
			values := url.Values{"client_id": {"web"}}
			_, err := s.endOwnApp(accountVisit{httptest.NewRecorder(), b.request("POST", "/account", values), form{values}, b.user("alice-1"), b.session()})
			return err
		},
		"by an operator": func() error {
			_, err := s.adminGrantRevoke(t.Context(), GrantRevoke{UserRef: UserRef{Subject: "alice-1"}, ClientID: "web"})
			return err
		},
	} {
		held, others := b.code(), b.code("client_id", "first")
		for range 2 { // it can be repeated
			if err := remove(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if a := b.exchange("web", held); a.status != 400 || a.text("error") != "invalid_grant" {
			t.Errorf("%s: the code was exchanged: %d %v", name, a.status, a.body)
		}
		if a := b.exchange("first", others); a.status != 200 {
			t.Errorf("%s: another client's code: %d %v", name, a.status, a.body)
		}
		for id, err := range s.grantIDs(t.Context(), "alice-1") {
			if grant, _, getErr := s.grants.Get(t.Context(), id); err != nil || getErr == nil && grant.ClientID == "web" {
				t.Errorf("%s: a grant was left: %+v %v", name, grant, err)
			}
		}
		// A moment later.
		_, _, err := s.removedApps().Update(t.Context(), removedApp("alice-1", "web"), time.Now().Add(time.Minute), func(void *int64) error {
			*void = time.Now().Add(-time.Millisecond).UnixMilli()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if a := b.exchange("web", b.code()); a.status != 200 {
			t.Errorf("%s: allowed again: %d %v", name, a.status, a.body)
		}
	}
}
