package authserver_test

import (
	"encoding/base32"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// codeAt is what an authenticator app with the secret on a page shows.
func codeAt(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	decoded, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return authserver.TOTPCode(decoded, at)
}

var (
	secretOnPage = regexp.MustCompile(`(?s)<p class="secret"><code>(.*?)</code>`)
	codesOnPage  = regexp.MustCompile(`<li><code>([a-z2-7-]{14})</code></li>`)
)

// enrolTOTP sets up an authenticator app on the account page of a visitor who has
// just signed in.
func enrolTOTP(t *testing.T, v *visitor, issuer string) (used, next string, recovery []string) {
	t.Helper()
	page := v.submit(v.get(issuer+"/account"), "begin_totp").expect(t, 200, "Set up your authenticator app")
	match := secretOnPage.FindStringSubmatch(page.body)
	if match == nil || !strings.Contains(page.body, `<svg class="qr"`) {
		t.Fatal(page.body)
	}
	secret := regexp.MustCompile(`<[^>]*>| `).ReplaceAllString(match[1], "")
	page = v.submit(page, "confirm_totp", "code", "000000").expect(t, 400, "That code is wrong")
	now := time.Now()
	used, next = codeAt(t, secret, now), codeAt(t, secret, now.Add(30*time.Second))
	page = v.submit(page, "confirm_totp", "code", used).expect(t, 200, "Your recovery codes")
	for _, match := range codesOnPage.FindAllStringSubmatch(page.body, -1) {
		recovery = append(recovery, match[1])
	}
	if len(recovery) != 10 {
		t.Fatal(page.body)
	}
	return used, next, recovery
}

// The authenticator app: no code without the second step (ATTACKS AZ-32), each code
// once over all instances (BF-05), guessing is slowed down (BF-04), step-up by
// acr_values, and removal.
func TestAuthenticatorApp(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	v.signIn(v.get(s.Issuer+"/account"), "alice", authservertest.Password)
	answered(t, v.get(authorizeURL(s, "own", "claims", `{"id_token":{"acr":{"essential":true,"values":["aal1"]}}}`)), "")
	// OpenID Connect Core §5.5.1.1: what nobody knows here cannot be met.
	answered(t, v.get(authorizeURL(s, "own", "prompt", "none", "claims", `{"id_token":{"acr":{"essential":true,"values":["https://refeds.org/profile/mfa"]}}}`)), "unmet_authentication_requirements")
	subject := claimsOf(t, accessOf(t, s))["sub"].(string)
	elsewhere := newVisitor(t)
	elsewhere.signIn(elsewhere.get(s.Issuer+"/account"), "alice", authservertest.Password).expect(t, 200, "Hello, alice")
	used, next, recovery := enrolTOTP(t, v, s.Issuer)            // and it has used a code
	elsewhere.get(s.Issuer+"/account").expect(t, 200, "Sign in") // the password alone is not enough any more
	v.get(s.Issuer+"/account").expect(t, 200, "Hello, alice")
	a := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", "alice", "password", authservertest.Password))
	refused(t, "the password grant asks for no second factor", a, 400, "invalid_grant")

	first := newVisitor(t)
	half := first.signIn(first.get(authorizeURL(s, "own")), "alice", authservertest.Password).expect(t, 200, "One more step")
	first.get(authorizeURL(s, "own")).expect(t, 200, "Sign in") // the password alone is no session
	first.get(s.Issuer+"/account").expect(t, 200, "Sign in")
	first.submit(half, `name="code"`, "code", used).expect(t, 400, "was used before")
	// Browsers at once with one code: the store lets one through.
	var racing sync.WaitGroup
	var won atomic.Int64
	for range 3 {
		racer := newVisitor(t)
		half := racer.signIn(racer.get(authorizeURL(s, "own")), "alice", authservertest.Password)
		action, values := half.form(t, `name="code"`, "code", next)
		racing.Go(func() {
			if page := racer.post(action, values); strings.HasPrefix(page.to, webCallback) {
				won.Add(1)
			}
		})
	}
	racing.Wait()
	if won.Load() != 1 {
		t.Fatalf("one code was accepted %d times", won.Load())
	}
	first.submit(half, `name="code"`, "code", next[:3]+" "+next[3:]).expect(t, 400, "was used before")
	answered(t, first.submit(half, `name="code"`, "code", recovery[9]), "")
	answered(t, first.get(authorizeURL(s, "own", "prompt", "none", "acr_values", "aal2")), "")
	answered(t, first.get(authorizeURL(s, "own", "prompt", "none", "claims", `{"id_token":{"acr":{"essential":true,"values":["phr"]}}}`)), "unmet_authentication_requirements")

	second := newVisitor(t)
	half = second.signIn(second.get(authorizeURL(s, "own")), "alice", authservertest.Password)
	second.submit(half, `name="code"`, "code", next).expect(t, 400, "was used before")
	second.submit(half, `name="code"`, "code", "12345a").expect(t, 400, "That code is wrong")
	answered(t, second.submit(half, `name="code"`, "code", strings.ToUpper(recovery[0])), "")
	third := newVisitor(t)
	half = third.signIn(third.get(authorizeURL(s, "own")), "alice", authservertest.Password)
	third.submit(half, `name="code"`, "code", recovery[0]).expect(t, 400, "That code is wrong")
	// Many more, so that the next wait is longer than this test.
	if _, err := s.Store.Add(t.Context(), authserver.CodeFailuresKey(subject), 20, time.Hour); err != nil {
		t.Fatal(err)
	}
	third.submit(half, `name="code"`, "code", recovery[0]) // the sixth starts the wait
	third.submit(half, `name="code"`, "code", recovery[1]).expect(t, 429, "That was tried too often")

	// A session of before has one factor; a client that wants two gets a sign-in.
	v.get(authorizeURL(s, "own", "acr_values", "aal2")).expect(t, 200, "confirm that it is you")
	// Nor are its factors and its password changed with one.
	account := v.get(s.Issuer+"/account").expect(t, 200, "8 codes are left")
	for _, action := range []string{"renew_codes", "remove_totp", "change_password", "add_passkey"} {
		page := v.submit(account, "renew_codes", "action", action, "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough")
		if page.expect(t, 200, "confirm that it is you"); strings.Contains(page.text(), "Continue as") {
			t.Errorf("%s: %s", action, page.text())
		}
	}
	page := first.submit(first.get(s.Issuer+"/account"), "renew_codes").expect(t, 200, "Your recovery codes")
	if strings.Contains(page.body, recovery[1]) {
		t.Error("the new codes are the old ones")
	}
	first.submit(first.get(s.Issuer+"/account"), "change_password", "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough").expect(t, 200, "Your password is changed")
	first.submit(first.get(s.Issuer+"/account"), "remove_totp").expect(t, 200, "It is removed")
	last := newVisitor(t)
	answered(t, last.signIn(last.get(authorizeURL(s, "own")), "alice", "longenough"), "")
}

// ATTACKS BF-04: while guesses at an account have to wait, so does whoever asks for its
// password anywhere else, though he has it.
func TestEveryDoorIsLocked(t *testing.T) {
	s := pagesServer(t, nil)
	v := newVisitor(t)
	v.signIn(v.get(s.Issuer+"/account"), "alice", authservertest.Password).expect(t, 200, "Hello, alice")
	at, err := url.Parse(s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	v.client.Jar.SetCookies(at, []*http.Cookie{{Name: "authserver-known", MaxAge: -1, Path: "/"}}) // which has counters of its own
	wait := strings.Replace(authserver.FailuresKey("alice"), "failures/", "wait/", 1)
	if err := s.Store.Create(t.Context(), wait, nil, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	stranger := newVisitor(t)
	for name, page := range map[string]shown{
		"the sign-in":   stranger.signIn(stranger.get(authorizeURL(s, "own")), "alice", authservertest.Password),
		"a step-up":     v.signIn(v.get(authorizeURL(s, "own", "prompt", "login")), "alice", authservertest.Password),
		"the account":   v.submit(v.get(s.Issuer+"/account"), "change_password", "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough"),
		"a guess there": v.submit(v.get(s.Issuer+"/account"), "change_password", "current_password", "wrong", "new_password", "longenough", "repeat_password", "longenough"),
	} {
		if page.status != http.StatusTooManyRequests || page.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, page.status, page.text())
		}
	}
	if a := guess(t, s, "alice", authservertest.Password); a.status != http.StatusTooManyRequests {
		t.Errorf("the password grant: %d %s", a.status, a.raw)
	}
	if err := s.Store.Delete(t.Context(), wait); err != nil {
		t.Fatal(err)
	}
	if a := guess(t, s, "alice", authservertest.Password); a.status != 200 {
		t.Errorf("when the wait is over: %d %s", a.status, a.raw)
	}
}
