package authserver

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authserver/store"
)

func (b *browser) session() *session {
	b.t.Helper()
	current, err := b.server.sessionOf(b.request("GET", "/", nil))
	if err != nil {
		b.t.Fatal(err)
	}
	return current
}

// ATTACKS BR-04, BR-05: the cookie's flags; a new secret at each sign-in, and the
// old one is dead.
func TestSessionCookie(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	const planted = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	b.cookies["__Host-session"] = planted // an attacker's choice
	first := b.signIn("alice-1")
	if sid, secret, _ := strings.Cut(b.cookies["__Host-session"], "."); strings.Contains(planted, sid) || strings.Contains(planted, secret) || first.ID != sid {
		t.Fatal("the session took what was there")
	}
	old := newBrowser(t, s)
	old.cookies["__Host-session"] = b.cookies["__Host-session"]
	if got := old.session(); got == nil || got.ID != first.ID || got.Subject != "alice-1" {
		t.Fatalf("session %+v", got)
	}
	second := b.signIn("alice-1") // a step-up
	if second.ID != first.ID || old.session() != nil || b.session() == nil || b.cookies["__Host-session"] == old.cookies["__Host-session"] {
		t.Error("a step-up keeps the sid and changes the secret")
	}
	alices := newBrowser(t, s)
	alices.cookies["__Host-session"] = b.cookies["__Host-session"]
	third := b.signIn("bob-1")
	if third.ID == second.ID || b.session().Subject != "bob-1" || alices.session() != nil {
		t.Error("another user has a session of his own, and the one before has ended")
	}
	recorder := httptest.NewRecorder()
	if _, err := s.startSession(recorder, httptest.NewRequest("POST", "/", nil), proof{user: b.user("alice-1"), amr: []string{"pwd"}, acr: acrPassword}); err != nil {
		t.Fatal(err)
	}
	cookie := recorder.Result().Cookies()[0]
	if cookie.Name != "__Host-session" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("cookie %v", cookie)
	}
	// Whatever cookie a browser gets on its way: none can be read by a script, or set from elsewhere.
	visitor := newBrowser(t, s)
	begun := visitor.send("GET", authorizeURL(), nil)
	signedIn := visitor.passSignIn(begun, "alice-1")
	for _, page := range []shownPage{begun, signedIn, visitor.act(func(w http.ResponseWriter, r *http.Request) error { s.forgetCookie(w); return nil })} {
		set := page.header.Values("Set-Cookie")
		if len(set) == 0 {
			t.Error("a page sets no cookie: this shows nothing")
		}
		for _, text := range set {
			if !strings.HasPrefix(text, "__Host-") || !strings.Contains(text, "; Path=/;") || !strings.Contains(text, "; HttpOnly; Secure; SameSite=Lax") || strings.Contains(text, "Domain") {
				t.Errorf("cookie %s", text)
			}
		}
	}
	good := b.cookies["__Host-session"]
	for _, value := range []string{good[:len(good)-1], good + "A", strings.Replace(good, ".", "", 1), third.ID + ".", third.ID + "." + newSecret(), "." + good[33:], "../../keys", ""} {
		if b.cookies["__Host-session"] = value; b.session() != nil {
			t.Errorf("cookie %q has a session", value)
		}
	}
	b.cookies["__Host-session"] = good
	if b.session() == nil {
		t.Fatal("the good cookie has no session")
	}
	if err := s.logOut(t.Context(), third, "test"); err != nil {
		t.Fatal(err)
	}
	if b.session() != nil {
		t.Error("the cookie is good after the session has ended")
	}
	if fourth := b.signIn("bob-1"); fourth.ID == third.ID || b.cookies["__Host-session"] == good {
		t.Error("a sign-in after a logout goes on with the session that ended")
	}
}

// A session's record says who and when, but not how to be him.
func TestSessionRecord(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	started := b.signIn("alice-1")
	records, err := s.store.Get(t.Context(), "session/"+started.ID)
	_, secret, _ := strings.Cut(b.cookies["__Host-session"], ".")
	if err != nil || !records[0].Exists() || bytes.Contains(records[0].Value, []byte(secret)) {
		t.Fatalf("record %s, %v", records[0].Value, err)
	}
	if left := time.Until(records[0].Expires); left > 24*time.Hour || left < 23*time.Hour {
		t.Errorf("expires in %s", left)
	}
	var members []string
	for member, err := range s.store.Linked(t.Context(), sessionsOf("alice-1"), store.Member{}) {
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member.Name)
	}
	if len(members) != 1 || members[0] != started.ID {
		t.Errorf("indexed as %v", members)
	}
	// Seen after more than a minute: written, and living on, but not beyond its end.
	aged := *started
	aged.LastSeen, aged.Ends = past(2*time.Hour), time.Now().Add(time.Hour).Unix()
	if _, err := s.sessions.Swap(t.Context(), started.ID, 1, aged, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if b.session() == nil {
			t.Fatal("the session is gone")
		}
	}
	seen, record, err := s.sessions.Get(t.Context(), started.ID)
	if err != nil || record.Version != 3 || seen.LastSeen < past(time.Minute) || record.Expires.Unix() != aged.Ends {
		t.Errorf("seen %+v, %+v, %v", seen, record, err)
	}
	if err := s.endSession(t.Context(), "alice-1", started.ID, "test"); err != nil || b.session() != nil {
		t.Errorf("after the end: %v, %v", b.session(), err)
	}
	// A user of whom all was ended is signed in nowhere, and can sign in again at once.
	b.signIn("alice-1")
	if err := s.endSubject(t.Context(), "alice-1", "test"); err != nil || b.session() != nil {
		t.Errorf("after all of the user was ended: %v, %v", b.session(), err)
	}
	if b.signIn("alice-1"); b.session() == nil {
		t.Error("a sign-in right after the end does not count")
	}
}
