package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/browsertest"
	"authserver/verifier"
)

// appsSite serves the sample applications beside a real authorization server.
func appsSite(t *testing.T) (origin string, s *authservertest.Server) {
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	origin = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	s = authservertest.New(t, authservertest.Options{Localhost: true, Configure: func(c *authserver.Config) {
		const scope = "openid profile orders:read orders:write"
		code := []string{"authorization_code", "refresh_token"}
		c.Clients = append(c.Clients,
			authserver.Client{ClientID: "demo-web", ClientSecret: authservertest.Secret, GrantTypes: code, Scope: scope,
				RedirectURIs: []string{origin + "/callback"}, PostLogoutRedirectURIs: []string{origin + "/web"}},
			authserver.Client{ClientID: "demo-spa", TokenEndpointAuthMethod: "none", GrantTypes: code, Scope: scope,
				RedirectURIs: []string{origin + "/spa"}, PostLogoutRedirectURIs: []string{origin + "/spa"}})
	}})
	// A feed that comes late for a moment, on a busy machine, is not the matter here.
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: s.Issuer, Audience: authservertest.Audience, WhenStale: verifier.AcceptUntilExpiry})
	if err != nil {
		t.Fatal(err)
	}
	handler = withApps(newAPI(v, s.Issuer), apps{s.Issuer, origin, "demo-web", authservertest.Secret, "demo-spa"})
	return origin, s
}

// Both applications sign in, call the API and sign out, in a real browser.
func TestApps(t *testing.T) {
	origin, s := appsSite(t)
	b := browsertest.New(t)
	expect := func(text string) {
		t.Helper()
		if page := b.Text(); !strings.Contains(page, text) {
			t.Fatalf("%q is not on the page at %s: %s", text, b.URL(), page)
		}
	}
	b.Open(origin)
	b.Click("[href='/web']", "#login")
	b.Click("#login", "#username")
	b.Type("#username", authservertest.Username)
	b.Type("#password", authservertest.Password)
	b.Click("#sign-in button", "[value=allow]")
	b.Click("[value=allow]", "#orders li")
	expect("biscuits")
	if cookies := browsertest.Evaluate[string](b, "document.cookie"); cookies != "" {
		t.Errorf("scripts can read %q", cookies)
	}

	// The other one: nobody is asked for a password, but for consent, since anybody on
	// this machine could pass for it.
	b.Open(origin + "/spa")
	b.Click("#login", "[value=allow]")
	b.Click("[value=allow]", "#orders li")
	expect("biscuits")
	b.Type("#item", "jam")
	b.Click("#add button", "#orders li:nth-child(3)")
	expect("jam")
	stored := browsertest.Evaluate[string](b, "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.search])")
	if strings.Contains(stored, "eyJ") || strings.Contains(stored, "code") {
		t.Errorf("something is left: %s", stored)
	}
	b.Open(s.Issuer + "/account") // signed in there as well
	expect("Hello, alice")

	b.Open(origin + "/web")
	b.Click("#logout", "#login")
	expect("Sign in")
	b.Open(s.Issuer + "/account")
	expect("to manage your account")
	b.Quiet(t)
}

// An answer that this browser did not ask for is refused.
func TestForeignAnswer(t *testing.T) {
	origin, _ := appsSite(t)
	for _, query := range []string{"", "?code=x&state=y", "?error=access_denied&state="} {
		response, err := http.Get(origin + "/callback" + query)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", query, response.Status)
		}
	}
	response, err := http.Post(origin+"/web/logout", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

// Each application is short enough to be read at once.
func TestAppsAreShort(t *testing.T) {
	for app, files := range map[string][]string{"server-side": {"web.go", "web.html"}, "browser-only": {"spa.go", "spa.html", "spa.css", "spa.js"}} {
		lines := 0
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			lines += strings.Count(string(text), "\n")
		}
		if lines >= 150 {
			t.Errorf("the %s application has %d lines in %v", app, lines, files)
		}
	}
}

// What protects an API in another language is shorter than what it takes to say why.
func TestOtherLanguagesAreShort(t *testing.T) {
	for _, name := range []string{"flask/protect.py", "node/protect.js"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines >= 100 {
			t.Errorf("%s has %d lines; it is to be under 100", name, lines)
		}
	}
}

// Whoever has seen the cookie of before has nothing: each step of the server-side
// application gives the browser another, and the old one opens nothing.
func TestOldVisitIsGone(t *testing.T) {
	a := newWebApp("https://auth.example.com", "demo-web", "secret", "https://app.example.com")
	step := func(handle http.HandlerFunc, cookie *http.Cookie) *http.Cookie {
		r := httptest.NewRequest("GET", "/", nil)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		handle(w, r)
		set := w.Result().Cookies()
		if len(set) != 1 || set[0].Name != "__Host-visit" || !set[0].Secure || !set[0].HttpOnly || set[0].SameSite != http.SameSiteLaxMode {
			t.Fatal(set)
		}
		return set[0]
	}
	known := func(cookie *http.Cookie) bool {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(cookie)
		return *a.visitOf(r) != (visit{})
	}
	planted := step(a.login, nil)
	signedIn := step(a.login, planted)
	if known(planted) || !known(signedIn) {
		t.Error("the cookie of before the sign-in lives")
	}
	if step(a.logout, signedIn); known(signedIn) {
		t.Error("the cookie outlives the sign-out")
	}
}
