package authserver_test

import (
	"fmt"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/browsertest"
)

// tab is another tab of the same browser.
func (s *site) tab() *site { return &site{s.Server, s.Browser.Tab(), s.party} }

// leave lets a form be as old as if its page had been left open for so long.
func (s *site) leave(t *testing.T, form string, open time.Duration) {
	t.Helper()
	input := fmt.Sprintf("document.querySelector(%q)", form+" [name=interaction]")
	aged, err := authserver.AgeInteraction(s.Issuer, s.Keys, browsertest.Evaluate[string](s.Browser, input+".value"), open)
	if err != nil {
		t.Fatal(err)
	}
	browsertest.Evaluate[string](s.Browser, fmt.Sprintf("%s.value = %q", input, aged))
}

// A form that was open for too long is refused, and nothing is lost: one click leads
// to the same request from its beginning.
func TestExpiredForm(t *testing.T) {
	s := newSite(t, nil)
	s.Open(s.authorize("shop"))
	s.leave(t, "#sign-in", 59*time.Minute)
	s.signIn("wrong", "#notice")
	s.leave(t, "#sign-in", 61*time.Minute)
	s.signIn(authservertest.Password, "a.button")
	s.expect(t, "This took too long", "Nothing is lost")
	s.Click("a.button", "#username")
	s.expect(t, "to continue to Corner Shop")
	s.signIn(authservertest.Password, "[value=allow]")
	s.leave(t, "main > form", 61*time.Minute)
	s.Click("[value=allow]", "a.button")
	s.expect(t, "This took too long")
	s.Click("a.button", ".chooser")
	s.Click(".chooser", "[value=allow]")
	s.Click("[value=allow]", "#arrived")
	s.expect(t, "code=true error= state=xyz")

	s.Forget()
	s.Open(s.Issuer + "/account")
	s.leave(t, "#sign-in", 61*time.Minute)
	s.signIn(authservertest.Password, "a.button")
	s.Click("a.button", "#username")
	s.signIn(authservertest.Password, "#devices")
	s.Quiet(t)
}

// The back button leads to pages that go on from how things are now, and to nothing
// that is over (ATTACKS BR-17).
func TestBackButton(t *testing.T) {
	s := newSite(t, nil)
	s.Open(s.authorize("shop"))
	s.signIn(authservertest.Password, "[value=allow]")
	s.Back(".chooser") // signed in, and not asked for the password again
	s.Press(".chooser", "[value=allow]")
	s.Click("[value=allow]", "#arrived")
	s.expect(t, "code=true")

	s.Back("[value=allow]")
	s.Press("[value=allow]", "a.button") // it was answered before
	s.expect(t, "You have done this already")
	s.Click("a.button", ".chooser")
	s.Click(".chooser", "#arrived") // what was allowed is remembered
	s.expect(t, "code=true error= state=xyz")

	s.Open(s.Issuer + "/account")
	s.Click(".top button", "a.button")
	s.expect(t, "You are signed out")
	s.Back("#username")
	s.expect(t, "Sign in", "to manage your account")
	s.Quiet(t)
}

// One user in two tabs at once: each goes its own way, with its own answer.
func TestTwoTabs(t *testing.T) {
	s := newSite(t, nil)
	other := s.tab()
	s.Open(s.authorize("shop", "state", "one"))
	other.Open(other.authorize("shop", "state", "two"))
	s.signIn(authservertest.Password, "[value=allow]")
	other.signIn(authservertest.Password, "[value=allow]")
	s.Click("[value=allow]", "#arrived")
	s.expect(t, "code=true error= state=one")
	other.Click("[value=allow]", "#arrived")
	other.expect(t, "code=true error= state=two")

	// A sign-in makes the session's secret another one, and with it the forms of other
	// tabs old: they change nothing and say where to go on.
	s.Open(s.Issuer + "/account")
	s.expect(t, "Hello, alice", "Corner Shop")
	other.Open(other.authorize("frame", "prompt", "login"))
	other.signIn(authservertest.Password, "#arrived")
	s.Click("[aria-label='Remove access of Corner Shop']", "a.button")
	s.expect(t, "That form was not ours", "Nothing was changed")
	s.Click("a.button", "#devices")
	s.Click("[aria-label='Remove access of Corner Shop']", "[role=status]")
	s.expect(t, "No app has access")
	s.Quiet(t)
	other.Quiet(t)
}

// While alice is asked, bob signs in in another tab: what she would allow is not his
// to decide, and he is told before he is asked (ATTACKS BR-16).
func TestAnotherUserInAnotherTabOfTheBrowser(t *testing.T) {
	s := newSite(t, func(c *authserver.Config) {
		bob := c.Users[0]
		bob.Username = "bob"
		c.Users = append(c.Users, bob)
	})
	s.Open(s.authorize("shop"))
	s.signIn(authservertest.Password, "[value=allow]")
	other := s.tab()
	other.Open(other.authorize("frame", "prompt", "login"))
	other.Type("#username", "bob")
	other.Type("#password", authservertest.Password)
	other.Click("#sign-in button", "#arrived")
	s.Click("[value=allow]", "#notice")
	s.expect(t, "another account was signed in here", "bob")
	s.Click("[value=deny]", "#arrived")
	s.expect(t, "code=false error=access_denied state=xyz")
	s.Open(s.Issuer + "/account")
	s.expect(t, "Hello, bob", "No app has access")
	s.Quiet(t)
}

// Whose browser keeps no cookies is told so by the first page: nothing loops, and no
// password is typed in vain.
func TestCookiesBlockedInTheBrowser(t *testing.T) {
	s := newSite(t, nil)
	s.Browser = browsertest.NewWithoutCookies(t)
	for _, page := range []string{s.authorize("shop"), s.Issuer + "/account"} {
		s.Open(page)
		s.expect(t, "Your browser sent no cookie", "allow cookies for this site")
	}
	s.Quiet(t)
}
