package authserver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/browsertest"
)

// party is a client's web server: it shows what comes back, and notes what it is
// told of logouts.
type party struct {
	*httptest.Server
	told chan url.Values // what came to /backchannel
	seen chan string     // what came to /frontchannel
}

func newParty(t *testing.T) *party {
	p := &party{told: make(chan url.Values, 10), seen: make(chan string, 10)}
	mux := http.NewServeMux()
	show := func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><p id="arrived">%s %s code=%t error=%s state=%s</p>`, r.Method, r.URL.Path,
			r.Form.Get("code") != "", r.Form.Get("error"), r.Form.Get("state"))
	}
	second := httptest.NewTLSServer(http.HandlerFunc(show))
	t.Cleanup(second.Close)
	mux.HandleFunc("/callback", show)
	mux.HandleFunc("/bye", show)
	mux.HandleFunc("/onward", func(w http.ResponseWriter, r *http.Request) {
		// As many applications do: the callback sends the browser to another host.
		http.Redirect(w, r, strings.Replace(second.URL, "127.0.0.1", "app.test", 1)+"/callback?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("POST /backchannel", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		p.told <- r.PostForm
	})
	mux.HandleFunc("/frontchannel", func(w http.ResponseWriter, r *http.Request) { p.seen <- r.URL.RawQuery })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636 appendix B

// site is a server with pages, a client's web server, and a browser.
type site struct {
	*authservertest.Server
	*browsertest.Browser
	party *party
}

func newSite(t *testing.T, configure func(*authserver.Config)) *site {
	t.Helper()
	p := newParty(t)
	s := authservertest.New(t, authservertest.Options{Localhost: true, Configure: func(c *authserver.Config) {
		const scope = "openid profile orders:read orders:write"
		c.Clients = append(c.Clients,
			authserver.Client{ClientID: "shop", ClientName: "Corner Shop", ClientSecret: authservertest.Secret, Scope: scope,
				RedirectURIs: []string{p.URL + "/callback", p.URL + "/onward"}, PostLogoutRedirectURIs: []string{p.URL + "/bye"},
				BackchannelLogoutURI: p.URL + "/backchannel"},
			authserver.Client{ClientID: "frame", ClientName: "Framed", ClientSecret: authservertest.Secret, Scope: scope, SkipConsent: true,
				RedirectURIs: []string{p.URL + "/callback"}, FrontchannelLogoutURI: p.URL + "/frontchannel"})
		c.Scopes = []authserver.Scope{{Name: "orders:read", Description: authserver.Text{"en": "see your orders", "de": "deine Bestellungen sehen"}}}
		if configure != nil {
			configure(c)
		}
	}})
	return &site{s, browsertest.New(t), p}
}

// authorize is the URL of an authorization request.
func (s *site) authorize(clientID string, more ...string) string {
	values := url.Values{"client_id": {clientID}, "redirect_uri": {s.party.URL + "/callback"}, "response_type": {"code"}, "scope": {"openid orders:read"},
		"state": {"xyz"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return s.Issuer + "/authorize?" + values.Encode()
}

// signIn types the password and presses the button.
func (s *site) signIn(password, then string) {
	s.Type("#username", authservertest.Username)
	s.Type("#password", password)
	s.Click("#sign-in button", then)
}

func (s *site) expect(t *testing.T, texts ...string) {
	t.Helper()
	page := s.Text()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Fatalf("%q is not on the page at %s: %s", text, s.URL(), page)
		}
	}
}

// The whole visit of one person, in Chromium.
func TestVisit(t *testing.T) {
	s := newSite(t, func(c *authserver.Config) { c.OutboundNetworks = loopbackOnly })
	s.Open(s.authorize("shop"))
	s.expect(t, "Sign in", "to continue to Corner Shop")
	s.signIn("wrong", "#notice")
	s.expect(t, "The username or the password is wrong")
	s.signIn(authservertest.Password, "[value=allow]")
	s.expect(t, "Corner Shop asks for access", "see your orders", "Then you go on at 127.0.0.1")
	s.Click("[value=deny]", "#arrived")
	s.expect(t, "GET /callback code=false error=access_denied state=xyz")
	s.Open(s.authorize("shop"))
	s.Click("[value=allow]", "#arrived")
	s.expect(t, "GET /callback code=true error= state=xyz")
	// Remembered: the next time nobody asks.
	s.Open(s.authorize("shop", "response_mode", "form_post"))
	s.Wait("#arrived")
	s.expect(t, "POST /callback code=true")

	// A callback that goes on to another host: Chromium applies form-action to that too.
	s.Open(s.authorize("shop", "redirect_uri", s.party.URL+"/onward", "prompt", "consent"))
	s.Click("[value=allow]", "#arrived")
	if !strings.Contains(s.URL(), "app.test") {
		t.Error(s.URL())
	}
	s.Quiet(t)

	s.Open(s.Issuer + "/account")
	s.expect(t, "Hello, alice", "this browser", "Corner Shop", "see your orders")
	s.Click("[aria-label='Remove access of Corner Shop']", "[role=status]")
	s.expect(t, "That app has no access any more", "No app has access")
	s.Open(s.authorize("shop"))
	s.expect(t, "Corner Shop asks for access")
	s.Quiet(t)

	// Another site sends the browser to the logout: the user is asked.
	s.Open(s.authorize("frame"))
	s.Wait("#arrived")
	s.Open(s.Issuer + "/logout")
	s.expect(t, "Do you want to sign out?")
	s.Click("[value=stay]", "#devices")
	s.Open(s.Issuer + "/logout?client_id=shop&state=s1&post_logout_redirect_uri=" + url.QueryEscape(s.party.URL+"/bye"))
	s.Click("[value=sign_out]", "#arrived") // the page with the iframe goes on by itself
	s.expect(t, "GET /bye", "state=s1")
	s.Quiet(t)
	select {
	case query := <-s.party.seen:
		if values, _ := url.ParseQuery(query); values.Get("iss") != s.Issuer || values.Get("sid") == "" {
			t.Error(query)
		}
	case <-time.After(time.Minute):
		t.Error("the iframe was not loaded")
	}
	select {
	case told := <-s.party.told:
		if claims := claimsOf(t, told.Get("logout_token")); claims["aud"] != "shop" || claims["sid"] == "" {
			t.Error(claims)
		}
	case <-time.After(time.Minute):
		t.Error("the back channel was not used")
	}
	s.Back("#arrived")
	s.Open(s.Issuer + "/account")
	s.expect(t, "Sign in", "to manage your account")
}
