package authserver

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/intake"
	"authserver/keys"
	"authserver/store/boltstore"
)

const (
	testIssuer    = "https://auth.example.com"
	testSecret    = "0123456789abcdef0123456789abcdef"
	testCallback  = "https://web.example.com/callback"
	testChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636 appendix B
	testVerifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// plainPages draws pages as text, so that a test can see what it was shown.
type plainPages struct{ Login }

func (plainPages) Error(w http.ResponseWriter, _ *http.Request, page ErrorPage) {
	w.WriteHeader(page.Status)
	io.WriteString(w, "error "+string(page.Kind)+": "+page.Detail+" next="+page.Next)
}

func (plainPages) FormPost(w http.ResponseWriter, _ *http.Request, page FormPostPage) {
	values := url.Values{}
	for _, field := range page.Fields {
		values.Set(field.Name, field.Value)
	}
	w.WriteHeader(page.Status)
	io.WriteString(w, "form "+page.Action+"?"+values.Encode())
}

// browserServer returns a server to test the authorization endpoint with, below its
// pages.
func browserServer(t *testing.T, configure func(*Config)) *Server {
	t.Helper()
	return browserServerWithAlgorithms(t, configure, "ES256", "EdDSA")
}

func browserServerWithAlgorithms(t *testing.T, configure func(*Config), algorithms ...string) *Server {
	t.Helper()
	return browserServerWithKeys(t, configure, func(c *keys.Config) { c.Algorithms = algorithms })
}

func browserServerWithKeys(t *testing.T, configure func(*Config), configureKeys func(*keys.Config)) *Server {
	t.Helper()
	opened, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	keyConfig := keys.Config{Store: KeyStore(opened), MasterKey: master, Issuer: testIssuer, Logger: log}
	configureKeys(&keyConfig)
	manager, err := keys.Open(t.Context(), keyConfig)
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); manager.Run(following) }()
	t.Cleanup(func() { stop(); <-stopped })
	config := browserConfig()
	config.Store, config.Keys, config.Logger = opened, manager, log
	return serverOf(t, config, configure)
}

// browserServerWith returns another instance of s with a changed configuration.
func browserServerWith(t *testing.T, s *Server, configure func(*Config)) *Server {
	t.Helper()
	config := browserConfig()
	config.Store, config.Keys, config.Logger = s.store, s.keys, s.log
	return serverOf(t, config, configure)
}

func serverOf(t *testing.T, config Config, configure func(*Config)) *Server {
	t.Helper()
	if configure != nil {
		configure(&config)
	}
	server, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	server.outbound.client.Timeout = time.Minute // whom it asks is as slow as the machine; what it is else: TestAttackSS06
	return server
}

func browserConfig() Config {
	never := false
	const scope = "openid profile email phone offline_access roles orders:read orders:write"
	return Config{
		Issuer:    testIssuer,
		Resources: []Resource{{Identifier: "https://api.example.com", Scopes: []string{"orders:read", "orders:write"}}},
		Clients: []Client{
			{ClientID: "web", ClientSecret: testSecret, GrantTypes: []string{"authorization_code", "refresh_token"}, Scope: scope,
				RedirectURIs: []string{testCallback}},
			{ClientID: "first", ClientSecret: testSecret, Scope: scope, SkipConsent: true, RequirePKCE: &never,
				RedirectURIs: []string{testCallback, testCallback + "?kept=1"}},
			{ClientID: "native", TokenEndpointAuthMethod: "none", Scope: scope, RedirectURIs: []string{"http://127.0.0.1/cb"}, SkipConsent: true},
			{ClientID: "service", ClientSecret: testSecret, GrantTypes: []string{"client_credentials"}, RedirectURIs: []string{testCallback}},
		},
		Users: []User{{Username: "alice", Sub: "alice-1", PasswordHash: testHash, Roles: []string{"admin"}, Claims: aliceClaims}, {Username: "bob", Sub: "bob-1", PasswordHash: testHash}},
		Login: plainPages{},
	}
}

// aliceClaims has a claim of each scope, one that the operator made up, and some
// that are not hers to say.
var aliceClaims = map[string]any{
	"name": "Alice Liddell", "email": "alice@example.com", "email_verified": true, "phone_number": "+44 20 7946 0000",
	"address": map[string]any{"country": "GB"}, "department": "tea", "sub": "mallory", "iss": "https://evil.example", "nonce": "x", "at_hash": "x",
}

// exchange redeems a code of client "web", with the parameters changed by pairs.
func (b *browser) exchange(basic, code string, pairs ...string) tokenAnswer {
	b.t.Helper()
	values := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testCallback}, "code_verifier": {testVerifier}}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			values.Del(pairs[i])
		} else {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return b.token(basic, values)
}

// tokenAnswer is an answer of the token endpoint.
type tokenAnswer struct {
	status int
	body   map[string]any
}

func (a tokenAnswer) text(member string) string { s, _ := a.body[member].(string); return s }

func (b *browser) token(basic string, values url.Values) tokenAnswer {
	b.t.Helper()
	return b.ask("POST", "/token", basic, values)
}

// ask calls an endpoint for machines: authorization is a client, for Basic, or a
// header's value.
func (b *browser) ask(method, path, authorization string, values url.Values) tokenAnswer {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(values.Encode()))
	if values != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if strings.Contains(authorization, " ") {
		r.Header.Set("Authorization", authorization)
	} else if authorization != "" {
		r.SetBasicAuth(authorization, testSecret)
	}
	recorder := httptest.NewRecorder()
	b.server.ServeHTTP(recorder, r)
	a := tokenAnswer{status: recorder.Code}
	json.Unmarshal(recorder.Body.Bytes(), &a.body)
	return a
}

// code returns a code for a request of a user who is signed in and asked for no consent.
func (b *browser) code(pairs ...string) string {
	b.t.Helper()
	page := b.send("GET", authorizeURL(pairs...), nil)
	if page.on("/consent") {
		page = b.decideConsent(page, true)
	}
	if page.query.Get("code") == "" {
		b.t.Fatalf("no code: %d %v %s", page.status, page.location, page.body)
	}
	return page.query.Get("code")
}

// verified returns the claims of a token that one of the server's published keys
// has signed with an algorithm, and its typ.
func (b *browser) verified(raw, algorithm string) (claims map[string]any, typ string) {
	b.t.Helper()
	token, err := intake.Parse(raw)
	if err != nil {
		b.t.Fatal(err)
	}
	found, key, ok := b.server.keys.AccessKey(token.KeyID)
	if !ok || found != algorithm {
		b.t.Fatalf("signed with %s of key %q, want %s", found, token.KeyID, algorithm)
	}
	if err := token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key}); err != nil {
		b.t.Fatal(err)
	}
	if err := json.Unmarshal(token.Payload, &claims); err != nil {
		b.t.Fatal(err)
	}
	return claims, token.Type
}

const testHash = "$argon2id$v=19$m=19456,t=2,p=1$7O+/z9ljNW8tBNFXB8Eq1g$lfc8WapqX1KdE2OWI94Q0cJ6IruvA1aferxQz/13Elw"

// browser keeps cookies, and can be signed in without a page.
type browser struct {
	t       *testing.T
	server  *Server
	cookies map[string]string
}

func newBrowser(t *testing.T, s *Server) *browser {
	return &browser{t, s, make(map[string]string)}
}

// page is what a browser was answered.
type shownPage struct {
	status   int
	header   http.Header
	body     string
	location *url.URL // nil without a redirect
	query    url.Values
}

func (b *browser) request(method, target string, form url.Values) *http.Request {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, target, body)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

func (b *browser) send(method, target string, form url.Values) shownPage {
	b.t.Helper()
	return b.do(b.server.ServeHTTP, b.request(method, target, form))
}

// do lets a handler answer and keeps its cookies.
func (b *browser) do(handle http.HandlerFunc, r *http.Request) shownPage {
	b.t.Helper()
	recorder := httptest.NewRecorder()
	handle(recorder, r)
	for _, cookie := range recorder.Result().Cookies() {
		if cookie.MaxAge < 0 {
			delete(b.cookies, cookie.Name)
		} else {
			b.cookies[cookie.Name] = cookie.Value
		}
	}
	page := shownPage{status: recorder.Code, header: recorder.Header(), body: recorder.Body.String()}
	if text := page.header.Get("Location"); text != "" {
		location, err := url.Parse(text)
		if err != nil {
			b.t.Fatalf("redirected to %q: %v", text, err)
		}
		page.location, page.query = location, location.Query()
	}
	return page
}

// act runs one step of a page, as its handler would after its own checks.
func (b *browser) act(step func(w http.ResponseWriter, r *http.Request) error) shownPage {
	b.t.Helper()
	return b.do(b.server.servePage("test", step).ServeHTTP, b.request("POST", "/test", url.Values{}))
}

func (b *browser) user(subject string) user {
	b.t.Helper()
	u, err := b.server.users.bySubject(b.t.Context(), subject)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// signIn signs a user in and returns the session.
func (b *browser) signIn(subject string) *session {
	b.t.Helper()
	var started *session
	b.act(func(w http.ResponseWriter, r *http.Request) (err error) {
		started, err = b.server.startSession(w, r, proof{user: b.user(subject), amr: []string{"pwd"}, acr: acrPassword})
		return err
	})
	if started == nil {
		b.t.Fatal("no session started")
	}
	return started
}

// passSignIn goes through the sign-in page that a request has led to.
func (b *browser) passSignIn(page shownPage, subject string) shownPage {
	b.t.Helper()
	return b.act(func(w http.ResponseWriter, r *http.Request) error {
		in, err := b.server.openInteraction(r, page.query.Get("interaction"))
		if err != nil {
			return err
		}
		started, err := b.server.startSession(w, r, proof{user: b.user(subject), amr: []string{"pwd"}, acr: acrPassword})
		if err != nil {
			return err
		}
		return b.server.resume(w, r, in, started, true)
	})
}

// decideConsent answers the consent page that a request has led to.
func (b *browser) decideConsent(page shownPage, allow bool) shownPage {
	b.t.Helper()
	return b.act(func(w http.ResponseWriter, r *http.Request) error {
		in, err := b.server.openInteraction(r, page.query.Get("interaction"))
		if err != nil {
			return err
		}
		if !allow {
			return b.server.deny(w, r, in)
		}
		return b.server.allow(w, r, in)
	})
}

// on reports whether a page is the redirect to a page of ours.
func (p shownPage) on(path string) bool {
	return p.status == http.StatusSeeOther && p.location != nil && p.location.Path == path && p.location.Host == "auth.example.com"
}

// authorizeURL is a good request of client "web", changed by pairs; a value of "-"
// leaves the parameter out.
func authorizeURL(pairs ...string) string { return "/authorize?" + authorizeForm(pairs...).Encode() }

func authorizeForm(pairs ...string) url.Values {
	values := url.Values{
		"client_id": {"web"}, "redirect_uri": {testCallback}, "response_type": {"code"}, "scope": {"openid profile orders:read"},
		"state": {"st"}, "nonce": {"no"}, "code_challenge": {testChallenge}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			values.Del(pairs[i])
		} else {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return values
}

func past(t time.Duration) int64 { return time.Now().Add(-t).Unix() }
