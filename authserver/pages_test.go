package authserver_test

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/timetest"
	"authserver/store"
)

// answered fails unless a page sent the browser to the client with a code, or with
// an error.
func answered(t *testing.T, page shown, want string) {
	t.Helper()
	u, err := url.Parse(page.to)
	if err != nil || page.status != http.StatusSeeOther || !strings.HasPrefix(page.to, webCallback) {
		t.Fatalf("%d to %q: %s", page.status, page.to, page.text())
	}
	if got := u.Query().Get("error"); got != want || (want == "") != u.Query().Has("code") {
		t.Fatalf("to %s, want the error %q", page.to, want)
	}
}

// ATTACKS BR-01, BR-02, BR-03: forms are taken from our own pages, in the browser
// that they were made for.
func TestFormsFromElsewhere(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	page := v.get(authorizeURL(s, "shop"))
	for name, header := range map[string]http.Header{
		"cross-site":         {"Sec-Fetch-Site": {"cross-site"}},
		"same-site":          {"Sec-Fetch-Site": {"same-site"}, "Origin": {"https://evil.127.0.0.1"}},
		"foreign origin":     {"Origin": {"https://evil.example"}},
		"null origin":        {"Origin": {"null"}},
		"no origin, no site": {},
	} {
		v.header = header
		if got := v.signIn(page, authservertest.Username, authservertest.Password); got.status != http.StatusForbidden || len(got.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
	v.header = http.Header{"Origin": {s.Issuer}} // a browser of 2019
	consent := v.signIn(page, authservertest.Username, authservertest.Password).expect(t, 200, "Corner Shop asks for access")

	// His own browser, sent by another site.
	action, values := consent.form(t, "allow", "decision", "allow")
	v.header = http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}}
	v.post(action, values).expect(t, 403, "That form was not ours")
	v.header = http.Header{"Origin": {s.Issuer}}
	// The same forms in another browser.
	other := newVisitor(t)
	other.post(action, values).expect(t, 403, "Your browser sent no cookie")
	other.get(authorizeURL(s, "own"))
	other.post(action, values).expect(t, 403, "Your browser sent no cookie")
	// A link gives no consent.
	v.get(action+"?"+values.Encode()).expect(t, 200, "Corner Shop asks for access")
	answered(t, v.get(authorizeURL(s, "shop", "prompt", "none")), "consent_required")

	// The forms of the account page belong to a session.
	account := v.get(s.Issuer+"/account").expect(t, 200, "Hello, alice")
	action, values = account.form(t, "change_password", "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough")
	values.Set("form_token", "x")
	v.post(action, values).expect(t, 403, "That form was not ours")
	values.Del("form_token")
	v.post(action, values).expect(t, 403, "That form was not ours")
	mallory := newVisitor(t)
	theirs := mallory.signIn(mallory.get(s.Issuer+"/account"), "bob", authservertest.Password)
	_, values = theirs.form(t, "change_password", "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough")
	v.post(action, values).expect(t, 403, "That form was not ours")
}

// ATTACKS BR-09: whatever a link to the sign-in page or its form says of where to go on,
// it goes on where the request led.
func TestNowhereElse(t *testing.T) {
	s := pagesServer(t, nil)
	for _, evil := range []string{"//evil.example", `/\evil.example`, "https:evil.example", "https://evil.example", "%2f%2fevil.example", "/account"} {
		more := make(url.Values)
		for _, name := range []string{"next", "return_to", "redirect", "redirect_uri", "redirect_to", "continue_to", "target", "url", "state"} {
			more.Set(name, evil)
		}
		v := newVisitor(t)
		page := v.get(authorizeURL(s, "shop", "prompt", "consent"))
		again := v.get(page.url.String()+"&"+more.Encode()).expect(t, 200, "Sign in")
		action, values := again.form(t, `name="password"`, "username", "alice", "password", authservertest.Password)
		for name := range more {
			values.Set(name, evil)
		}
		consent := v.post(action+"?"+more.Encode(), values).expect(t, 200, "Corner Shop asks for access")
		action, values = consent.form(t, "allow", "decision", "allow")
		for name := range more {
			values.Set(name, evil)
		}
		done := v.post(action+"?"+more.Encode(), values)
		if answered(t, done, ""); strings.Contains(done.to, "evil") || !strings.Contains(done.to, "state=xyz") {
			t.Errorf("%s: sent to %s", evil, done.to)
		}
		account := newVisitor(t)
		page = account.get(s.Issuer + "/account?" + more.Encode())
		page = account.get(page.url.String() + "&" + more.Encode())
		account.signIn(page, "alice", authservertest.Password).expect(t, 200, "Hello, alice")
	}
}

// ATTACKS BR-06, BR-07, BR-17: on every page, also when it is an error.
func TestPageHeaders(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	signIn := v.get(authorizeURL(s, "shop"))
	pages := map[string]shown{"sign in": signIn, "wrong": v.signIn(signIn, "alice", "wrong"), "consent": v.signIn(signIn, "alice", authservertest.Password)}
	pages["account"], pages["logout"] = v.get(s.Issuer+"/account"), v.get(s.Issuer+"/logout")
	pages["error"], pages["no interaction"] = v.get(s.Issuer+"/authorize"), v.get(s.Issuer+"/consent")
	pages["foreign"] = newVisitor(t).post(s.Issuer+"/login", url.Values{})
	pages["form post"] = v.get(authorizeURL(s, "own", "response_mode", "form_post"))
	pages["signed out"] = v.submit(pages["logout"], "sign_out", "decision", "sign_out").expect(t, 200, "You are signed out")
	for name, page := range pages {
		policy := page.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") ||
			!strings.Contains(policy, "form-action 'self'") || strings.Contains(policy, "*") ||
			page.header.Get("X-Frame-Options") != "DENY" || page.header.Get("Cache-Control") != "no-store" ||
			page.header.Get("X-Content-Type-Options") != "nosniff" || page.header.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", name, page.header)
		}
		if !strings.Contains(page.header.Get("Content-Type"), "text/html") || strings.Contains(page.body, "ZgotmplZ") {
			t.Errorf("%s: %v %s", name, page.header, page.body)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodHead} {
		for _, path := range []string{"/login", "/consent", "/account", "/logout"} {
			request, _ := http.NewRequest(method, s.Issuer+path, nil)
			if got := v.do(request); got.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got.status)
			}
		}
	}
}

var sealedValue = regexp.MustCompile(`(value="|interaction=)[A-Za-z0-9_-]{100,}`)

// ATTACKS JK-06: whatever a request says of where it was sent, pages and redirects are
// those of the configured issuer.
func TestAttackJK06(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ask := func(method, target string, form url.Values) shown {
		t.Helper()
		request, err := http.NewRequest(method, target, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fromEvil); i += 2 {
			request.Header.Set(fromEvil[i], fromEvil[i+1])
		}
		request.Host = "evil.example"
		request.Header.Set("Sec-Fetch-Site", "same-origin")
		if form != nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		page := v.do(request)
		for name, values := range page.header {
			if strings.Contains(strings.Join(values, " "), "evil") || name == "Set-Cookie" && strings.Contains(strings.ToLower(strings.Join(values, " ")), "domain=") {
				t.Errorf("%s %s: %s is %v", method, target, name, values)
			}
		}
		if strings.Contains(page.body, "evil") || page.to != "" && !strings.HasPrefix(page.to, s.Issuer+"/") && !strings.HasPrefix(page.to, webCallback) {
			t.Errorf("%s %s: to %s: %s", method, target, page.to, page.body)
		}
		return page
	}
	page := ask("GET", authorizeURL(s, "shop"), nil)
	if !strings.HasPrefix(page.to, s.Issuer+"/login?") {
		t.Fatalf("%d to %q", page.status, page.to)
	}
	page = ask("GET", page.to, nil).expect(t, 200, "Sign in")
	action, values := page.form(t, `name="password"`, "username", "alice", "password", authservertest.Password)
	page = ask("POST", action, values)
	if !strings.HasPrefix(page.to, s.Issuer+"/consent?") {
		t.Fatalf("%d to %q: %s", page.status, page.to, page.text())
	}
	page = ask("GET", page.to, nil).expect(t, 200, "Corner Shop asks for access")
	action, values = page.form(t, "allow", "decision", "allow")
	answered(t, ask("POST", action, values), "")
	for _, path := range []string{"/account", "/logout", "/authorize", "/login", "/consent", "/nowhere"} {
		ask("GET", s.Issuer+path, nil)
	}
}

// ATTACKS BF-01, BF-02, BF-06: guessing is slowed down, and nobody learns who has an
// account; BF-03: whoever has signed in before in this browser is not kept out.
func TestGuessingOnThePage(t *testing.T) {
	s := pagesServer(t, nil)
	home := newVisitor(t)
	answered(t, home.signIn(home.get(authorizeURL(s, "own")), "alice", authservertest.Password), "")

	same := func(page shown, username string) string {
		return strings.ReplaceAll(sealedValue.ReplaceAllString(page.body, "$1"), username, "NAME")
	}
	for i := range 8 {
		if i == 5 { // many more, so that the next wait is longer than this test
			for _, name := range []string{"alice", "nobody"} {
				if _, err := s.Store.Add(t.Context(), authserver.FailuresKey(name), 20, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
		}
		known, unknown := newVisitor(t), newVisitor(t)
		spelled := []string{"alice", "Alice", " alice ", "ALICE"}[i%4] // one counter for one account
		a := known.signIn(known.get(authorizeURL(s, "own")), spelled, "wrong")
		b := unknown.signIn(unknown.get(authorizeURL(s, "own")), "nobody", "wrong")
		want := http.StatusBadRequest
		if i > 5 { // the sixth is let through and starts the wait
			want = http.StatusTooManyRequests
			a.expect(t, want, "That was tried too often. Wait")
		}
		if a.status != want || b.status != want || same(a, spelled) != same(b, "nobody") || (a.header.Get("Retry-After") == "") != (b.header.Get("Retry-After") == "") {
			t.Errorf("attempt %d: %d %s\n%d %s", i, a.status, a.text(), b.status, b.text())
		}
	}
	stranger := newVisitor(t)
	stranger.signIn(stranger.get(authorizeURL(s, "own")), "alice", authservertest.Password).expect(t, 429)
	home.get(s.Issuer + "/logout")
	answered(t, home.signIn(home.get(authorizeURL(s, "own", "prompt", "login")), "alice", authservertest.Password), "")
}

// ATTACKS AZ-28: a consent is given once, however often it is sent.
func TestConsentTwice(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	consent := v.signIn(v.get(authorizeURL(s, "shop")), "alice", authservertest.Password)
	answered(t, v.submit(consent, "allow", "decision", "allow"), "")
	v.submit(consent, "allow", "decision", "allow").expect(t, 400, "You have done this already")
	v.submit(consent, "allow", "decision", "deny").expect(t, 400, "You have done this already")
	v.submit(consent, "allow").expect(t, 400, "the form has no decision")
}

// ATTACKS BR-16: another account is signed in, in another tab, while this one asks.
func TestOtherAccountInAnotherTab(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	consent := v.signIn(v.get(authorizeURL(s, "shop")), "alice", authservertest.Password)
	v.signIn(v.get(authorizeURL(s, "own", "prompt", "login")), "bob", authservertest.Password)
	again := v.submit(consent, "allow", "decision", "allow").expect(t, 200, "another account was signed in", "bob")
	answered(t, v.submit(again, "allow", "decision", "allow"), "")
	if page := v.get(s.Issuer + "/account"); !strings.Contains(page.text(), "Hello, bob") || !strings.Contains(page.text(), "Corner Shop") {
		t.Error(page.text())
	}
}

// A browser that sends no cookies is told so, and nothing loops.
func TestCookiesBlocked(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	v.client.Jar = nil
	v.get(authorizeURL(s, "shop")).expect(t, 403, "Your browser sent no cookie", "allow cookies")
	v.get(s.Issuer+"/account").expect(t, 403, "Your browser sent no cookie")
}

// ATTACKS AZ-31: who is disabled in the middle is not signed in, and finds out on a page.
func TestDisabledInTheMiddle(t *testing.T) {
	s := pagesServer(t, nil)
	hash, err := authserver.HashPassword("builder")
	if err != nil {
		t.Fatal(err)
	}
	if err := authserver.PutUser(t.Context(), s.Store, "sub-carol", "carol", hash, false); err != nil {
		t.Fatal(err)
	}
	v := newVisitor(t)
	consent := v.signIn(v.get(authorizeURL(s, "shop")), "carol", "builder").expect(t, 200, "Corner Shop asks for access")
	disabled := store.Table[map[string]any]{Store: s.Store, Name: "user"}
	_, _, err = disabled.Update(t.Context(), "sub-carol", store.Forever, func(user *map[string]any) error { (*user)["disabled"] = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	timetest.AwaitNil(t, func() error {
		if page := v.submit(consent, "allow", "decision", "allow"); page.status != 200 || !strings.Contains(page.text(), "Sign in") {
			return errors.New(page.text())
		}
		return nil
	})
	v.signIn(v.get(authorizeURL(s, "shop")), "carol", "builder").expect(t, 400, "or this account cannot sign in")
}

// Cancel goes back to the client, which learns that the user would not.
func TestCancel(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	answered(t, v.submit(v.get(authorizeURL(s, "shop")), `name="password"`, "cancel", "1"), "access_denied")
	v.submit(v.get(s.Issuer+"/account"), `name="password"`, "cancel", "1").expect(t, 200, "Sign in")
}

// prompt=select_account lets the user go on as who he is, or as another.
func TestSelectAccount(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	v.signIn(v.get(authorizeURL(s, "own")), "alice", authservertest.Password)
	page := v.get(authorizeURL(s, "own", "prompt", "select_account")).expect(t, 200, "Continue as alice", "Use another account")
	answered(t, v.submit(page, "Continue as"), "")
	page = v.get(authorizeURL(s, "own", "prompt", "login", "login_hint", "someone")).expect(t, 200, "confirm that it is you")
	if strings.Contains(page.text(), "Continue as") || !strings.Contains(page.body, `value="someone"`) {
		t.Error(page.text())
	}
	v.get(authorizeURL(s, "own", "prompt", "login", "ui_locales", "fr de")).expect(t, 200, "Anmelden")
}

// The account page: sessions, apps and the password.
func TestAccount(t *testing.T) {
	s := pagesServer(t, nil)
	v, elsewhere := newVisitor(t), newVisitor(t)
	v.signIn(v.get(s.Issuer+"/account"), "alice", authservertest.Password)
	elsewhere.signIn(elsewhere.get(authorizeURL(s, "own")), "alice", authservertest.Password)
	page := v.get(s.Issuer + "/account")
	if n := strings.Count(page.body, `value="end_session"`); n != 1 {
		t.Fatalf("%d sessions to end: %s", n, page.text())
	}
	// Another's session is not his to end.
	bob := newVisitor(t)
	theirs := bob.signIn(bob.get(s.Issuer+"/account"), "bob", authservertest.Password)
	_, mine := page.form(t, "end_session")
	bob.submit(theirs, "change_password", "action", "end_session", "session", mine.Get("session"))
	elsewhere.get(s.Issuer+"/account").expect(t, 200, "Hello, alice")
	v.submit(page, "end_session").expect(t, 200, "That browser is signed out")
	elsewhere.get(s.Issuer+"/account").expect(t, 200, "Sign in")

	change := func(current, changed, repeated string) shown {
		return v.submit(v.get(s.Issuer+"/account"), "change_password", "current_password", current, "new_password", changed, "repeat_password", repeated)
	}
	change(authservertest.Password, "longenough", "longenougH").expect(t, 400, "differ")
	change(authservertest.Password, "short", "short").expect(t, 400, "8 to 1024")
	change("wrong", "longenough", "longenough").expect(t, 400, "The current password is wrong")
	elsewhere.signIn(elsewhere.get(authorizeURL(s, "own")), "alice", authservertest.Password)
	change(authservertest.Password, "longenough", "longenough").expect(t, 200, "Your password is changed")
	elsewhere.get(s.Issuer+"/account").expect(t, 200, "Sign in")
	elsewhere.signIn(elsewhere.get(s.Issuer+"/account"), "alice", authservertest.Password).expect(t, 400, "wrong")
	elsewhere.signIn(elsewhere.get(s.Issuer+"/account"), "alice", "longenough").expect(t, 200, "Hello, alice")
	v.submit(v.get(s.Issuer+"/account"), "change_password", "action", "nonsense").expect(t, 400, "no known action")
	// A reload after a change does nothing again, and a notice is one of ours.
	v.get(s.Issuer+"/account?notice=password_set").expect(t, 200, "Your password is changed")
	if strings.Contains(v.get(s.Issuer+"/account?notice=credentials").text(), "wrong") {
		t.Error("the account page says whatever its URL wants")
	}
}

// Other pages do, as long as they implement Login.
func TestReplacedPages(t *testing.T) {
	s := pagesServer(t, func(c *authserver.Config) { c.Login = tersePages{} })
	v := newVisitor(t)
	page := v.submit(v.get(authorizeURL(s, "shop")), "username", "username", "alice", "password", "wrong").expect(t, 400, "Who is there? credentials")
	page = v.submit(page, "username", "username", "alice", "password", authservertest.Password).expect(t, 200, "May Corner Shop?")
	answered(t, v.submit(page, "allow", "decision", "allow"), "")
	page = v.get(s.Issuer+"/account").expect(t, 200, "You are alice")
	page = v.submit(page, "begin_totp").expect(t, 200, "into your app")
	secret := strings.Fields(page.text())[1]
	v.submit(page, "code", "code", codeAt(t, secret, time.Now())).expect(t, 200, "Keep [")
	v.submit(v.get(s.Issuer+"/logout").expect(t, 200, "Leave?"), "sign_out", "decision", "sign_out").expect(t, 200, "Bye")
	page = v.submit(v.get(authorizeURL(s, "shop", "response_mode", "form_post")), "username", "username", "alice", "password", authservertest.Password).expect(t, 200, "And?")
	page = v.submit(page, "code", "code", codeAt(t, secret, time.Now().Add(30*time.Second))).expect(t, 200, "On to Corner Shop")
	if action, values := page.form(t, "state"); action != webCallback || values.Get("code") == "" {
		t.Error(action, values)
	}
	v.get(s.Issuer+"/authorize").expect(t, 400, "No: request")
}

// The end of a session ends its grants, but for those with offline_access where the
// operator says so.
func TestLogoutEndsGrants(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := pagesServer(t, func(c *authserver.Config) { c.Sessions.KeepOfflineAccess = keep })
		v := newVisitor(t)
		refresh := func(scope string) string {
			page := v.get(authorizeURL(s, "own", "scope", scope))
			if page.status == 200 {
				page = v.signIn(page, "alice", authservertest.Password)
			}
			answered(t, page, "")
			u, _ := url.Parse(page.to)
			a := post(t, s.Issuer+"/token", "own:"+authservertest.Secret, form("grant_type", "authorization_code", "code", u.Query().Get("code"),
				"redirect_uri", webCallback, "code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
			if a.status != http.StatusOK {
				t.Fatal(a.raw)
			}
			return a.text("refresh_token")
		}
		plain, offline := refresh("openid orders:read"), refresh("openid offline_access orders:read")
		v.submit(v.get(s.Issuer+"/logout"), "sign_out", "decision", "sign_out").expect(t, 200, "You are signed out")
		for name, test := range map[string]struct {
			token string
			lives bool
		}{"plain": {plain, false}, "offline": {offline, keep}} {
			a := post(t, s.Issuer+"/token", "own:"+authservertest.Secret, form("grant_type", "refresh_token", "refresh_token", test.token))
			if (a.status == http.StatusOK) != test.lives {
				t.Errorf("keep %t: the %s grant: %d %s", keep, name, a.status, a.raw)
			}
		}
	}
}
