package authserver

import (
	"net/http/httptest"
	"net/url"
	"testing"

	"authserver/internal/timetest"
)

// ATTACKS I1: a code that is out when its session ends becomes nothing, also where what it
// asks for would outlive the session: whoever signs all others out leaves nothing behind.
func TestCodeOfAnEndedSession(t *testing.T) {
	s := browserServer(t, func(c *Config) { c.Sessions.KeepOfflineAccess = true })
	owner, other := signedIn(t, s), signedIn(t, s)
	visit := func(values url.Values) accountVisit {
		return accountVisit{httptest.NewRecorder(), owner.request("POST", "/account", values), form{values}, owner.user("alice-1"), owner.session()}
	}
	for name, end := range map[string]func() error{
		"one session": func() error {
			_, err := s.endOwnSession(visit(url.Values{"session": {other.session().ID}}))
			return err
		},
		"all others":  func() error { return s.endOthers(visit(nil), reasonPassword) },
		"signing out": func() error { return s.logOut(t.Context(), other.session(), reasonSignedOut) },
	} {
		other.signIn("alice-1")
		kept := other.exchange("web", other.code("scope", "openid offline_access orders:read"))
		if kept.status != 200 {
			t.Fatal(kept.body)
		}
		for _, scope := range []string{"openid offline_access orders:read", "openid orders:read"} {
			code := other.code("scope", scope)
			if err := end(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if a := other.exchange("web", code); a.status != 400 || a.text("error") != "invalid_grant" {
				t.Errorf("%s: a code for %s was exchanged: %d %s", name, scope, a.status, a.text("error"))
			}
			other.signIn("alice-1")
		}
		if a := other.refresh(kept); name != "all others" && a.status != 200 {
			t.Errorf("%s: what had outlived the session before: %d %s", name, a.status, a.text("error"))
		}
	}
}

// ATTACKS I1: a code that is out when all of its client is ended becomes nothing; one of
// afterwards does.
func TestCodeOfAnEndedClient(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	held, others := b.code(), b.code("client_id", "first")
	for range 2 { // it can be repeated
		if _, err := s.adminGrantRevoke(t.Context(), GrantRevoke{ClientID: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	if a := b.exchange("web", held); a.status != 400 || a.text("error") != "invalid_grant" {
		t.Errorf("the code was exchanged: %d %s", a.status, a.text("error"))
	}
	if a := b.exchange("first", others); a.status != 200 {
		t.Errorf("another client's code: %d %s", a.status, a.text("error"))
	}
	if a := b.exchange("web", b.code()); a.status != 200 {
		t.Errorf("a code of afterwards: %d %s", a.status, a.text("error"))
	}
}

// A code of a release that did not note the epoch is judged by when it was issued.
func TestCodeWithoutAnEpoch(t *testing.T) {
	s := browserServer(t, nil)
	b := signedIn(t, s)
	earlier := func() string {
		minted, err := s.openCode(b.code())
		if err != nil {
			t.Fatal(err)
		}
		minted.ClientEpoch = nil
		sealed, err := s.sealCode(minted)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	before := earlier()
	if _, err := s.adminGrantRevoke(t.Context(), GrantRevoke{ClientID: "web"}); err != nil {
		t.Fatal(err)
	}
	if a := b.exchange("web", before); a.status != 400 || a.text("error") != "invalid_grant" {
		t.Errorf("one of before the end: %d %s", a.status, a.text("error"))
	}
	timetest.Await(t, "the second to be over in which all ended", func() bool { return b.exchange("web", earlier()).status == 200 })
}
