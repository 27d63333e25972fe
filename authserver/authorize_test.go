package authserver

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ATTACKS AZ-01 to AZ-24: each mistake and where it is answered. "" as the error is
// the sign-in page; "page" is an error page without redirect.
func TestAuthorizeRefusals(t *testing.T) {
	s := browserServer(t, nil)
	twice := func(name, value string) string { return authorizeURL() + "&" + url.Values{name: {value}}.Encode() }
	raw := func(text string) string { return authorizeURL() + "&" + text }
	for _, test := range []struct{ name, target, want string }{
		{"as it should be", authorizeURL(), ""},
		{"AZ-01 no client_id", authorizeURL("client_id", "-"), "page"},
		{"AZ-02 unknown client", authorizeURL("client_id", "nobody"), "page"},
		{"AZ-02 unknown client and redirect", authorizeURL("client_id", "nobody", "redirect_uri", "https://evil.example/cb"), "page"},
		{"RU-01 unregistered redirect", authorizeURL("redirect_uri", "https://evil.example/cb"), "page"},
		{"RU-18 omitted, OpenID Connect", authorizeURL("redirect_uri", "-"), "page"},
		{"RU-18 omitted, one registered", authorizeURL("redirect_uri", "-", "scope", "orders:read"), ""},
		{"RU-18 omitted, two registered", authorizeURL("redirect_uri", "-", "scope", "orders:read", "client_id", "first"), "page"},
		{"AZ-03 no response_type", authorizeURL("response_type", "-"), "invalid_request"},
		{"AZ-04 token", authorizeURL("response_type", "token"), "unsupported_response_type"},
		{"AZ-05 code id_token", authorizeURL("response_type", "code id_token"), "unsupported_response_type"},
		{"AZ-05 code token", authorizeURL("response_type", "code token"), "unsupported_response_type"},
		{"AZ-05 id_token token", authorizeURL("response_type", "id_token token"), "unsupported_response_type"},
		{"AZ-05 code id_token token", authorizeURL("response_type", "code id_token token"), "unsupported_response_type"},
		{"AZ-05 id_token", authorizeURL("response_type", "id_token"), "unsupported_response_type"},
		{"AZ-05 none", authorizeURL("response_type", "none"), "unsupported_response_type"},
		{"AZ-05 code in capitals", authorizeURL("response_type", "CODE"), "unsupported_response_type"},
		{"AZ-05 code code", authorizeURL("response_type", "code code"), "unsupported_response_type"},
		{"AZ-06 fragment", authorizeURL("response_mode", "fragment"), "invalid_request"},
		{"unknown response_mode", authorizeURL("response_mode", "web_message"), "invalid_request"},
		{"AZ-07 client_id twice", twice("client_id", "web"), "page"},
		{"AZ-07 two client_ids", twice("client_id", "first"), "page"},
		{"AZ-07 redirect_uri twice", twice("redirect_uri", testCallback), "page"},
		{"AZ-07 two redirect_uris", twice("redirect_uri", "https://evil.example/cb"), "page"},
		{"AZ-07 response_type twice", twice("response_type", "code"), "invalid_request"},
		{"AZ-07 two response_types", twice("response_type", "token"), "invalid_request"},
		{"AZ-07 scope twice", twice("scope", "openid profile orders:read"), "invalid_request"},
		{"AZ-07 two scopes", twice("scope", "other"), "invalid_request"},
		{"AZ-07 code_challenge twice", twice("code_challenge", testChallenge), "invalid_request"},
		{"AZ-07 two code_challenges", twice("code_challenge", flip(testChallenge)), "invalid_request"},
		{"AZ-09 empty client_id", authorizeURL("client_id", ""), "page"},
		{"AZ-09 empty response_type", authorizeURL("response_type", ""), "invalid_request"},
		{"AZ-09 empty scope and prompt", authorizeURL("scope", "", "prompt", ""), ""},
		{"AZ-09 empty redirect_uri, one registered", authorizeURL("redirect_uri", "", "scope", "orders:read"), ""},
		{"AZ-09 empty redirect_uri, two registered", authorizeURL("redirect_uri", "", "scope", "orders:read", "client_id", "first"), "page"},
		{"AZ-09 empty redirect_uri, OpenID Connect", authorizeURL("redirect_uri", ""), "page"},
		{"AZ-09 all that may be, empty", authorizeURL("nonce", "", "max_age", "", "claims", "", "id_token_hint", "", "acr_values", "", "resource", "", "request", "", "request_uri", "", "response_mode", ""), ""},
		{"AZ-10 unknown parameter", authorizeURL("foo", "bar"), ""},
		{"display", authorizeURL("display", "popup"), ""},
		{"AZ-12 quote in scope", authorizeURL("scope", `openid "`), "invalid_scope"},
		{"AZ-12 backslash in scope", authorizeURL("scope", `openid \`), "invalid_scope"},
		{"AZ-12 letters outside ASCII in scope", authorizeURL("scope", "openid \u00e9"), "invalid_scope"},
		{"AZ-12 control character in scope", authorizeURL("scope", "openid\tx"), "invalid_request"},
		{"AZ-12 NUL in scope", authorizeURL("scope", "openid\x00"), "invalid_request"},
		{"AZ-12 large scope", authorizeURL("scope", strings.Repeat("abcdefg ", 1<<9)), "invalid_request"},
		{"AZ-12 scope of 64 KiB", authorizeURL("scope", strings.Repeat("abcdefg ", 1<<13)), "page"},
		{"AZ-12 10,000 scopes", authorizeURL("scope", tenThousand()), "page"},
		{"AZ-12 many scopes", authorizeURL("scope", strings.Repeat("a b c d e f g h ", 13)+manyScopes()), "invalid_scope"},
		{"AZ-13 scope of others", authorizeURL("scope", "openid address"), "invalid_scope"},
		{"unknown scope with openid", authorizeURL("scope", "openid groups"), ""},
		{"unknown scope without", authorizeURL("scope", "orders:read groups"), "invalid_scope"},
		{"AZ-14 prompt none", authorizeURL("prompt", "none"), "login_required"},
		{"AZ-16 none and login", authorizeURL("prompt", "none login"), "invalid_request"},
		{"unknown prompt", authorizeURL("prompt", "create"), "invalid_request"},
		{"AZ-17 negative max_age", authorizeURL("max_age", "-1"), "invalid_request"},
		{"AZ-17 max_age in words", authorizeURL("max_age", "abc"), "invalid_request"},
		{"AZ-17 max_age with exponent", authorizeURL("max_age", "1e99"), "invalid_request"},
		{"AZ-17 large max_age", authorizeURL("max_age", "99999999999"), "invalid_request"},
		{"AZ-18 hint that is none", authorizeURL("id_token_hint", "abc"), "invalid_request"},
		{"AZ-19 claims that are no JSON", authorizeURL("claims", "{"), "invalid_request"},
		{"AZ-19 claims of wrong shape", authorizeURL("claims", `{"userinfo":["email"]}`), "invalid_request"},
		{"AZ-19 deep claims", authorizeURL("claims", strings.Repeat("[", 5000)), "invalid_request"},
		{"AZ-19 deep claims within the limit", authorizeURL("claims", `{"id_token":`+strings.Repeat(`{"x":`, 300)+"1"+strings.Repeat("}", 301)), "invalid_request"},
		{"AZ-19 deep arrays within the limit", authorizeURL("claims", `{"id_token":{"acr":{"values":`+strings.Repeat("[", 900)+strings.Repeat("]", 900)+"}}}"), "invalid_request"},
		{"AZ-19 claims of 1 MB", authorizeURL("claims", `{"id_token":{"`+strings.Repeat("x", 1<<20)+`":null}}`), "page"},
		{"AZ-19 claims twice in one", authorizeURL("claims", `{"id_token":{"sub":{"value":"alice-1"},"sub":{"value":"bob-1"}}}`), "invalid_request"},
		{"claims", authorizeURL("claims", `{"userinfo":{"email":null},"id_token":{"auth_time":{"essential":true}}}`), ""},
		{"AZ-22 unknown resource", authorizeURL("resource", "https://other.example.com"), "invalid_target"},
		{"AZ-22 relative resource", authorizeURL("resource", "/orders"), "invalid_target"},
		{"AZ-22 resource with a fragment", authorizeURL("resource", "https://api.example.com#x"), "invalid_target"},
		{"AZ-22 resource with an empty fragment", authorizeURL("resource", "https://api.example.com#"), "invalid_target"},
		{"AZ-22 resource", authorizeURL("resource", "https://api.example.com"), ""},
		{"AZ-22 the same resource twice", authorizeURL("resource", "https://api.example.com") + "&resource=https%3A%2F%2Fapi.example.com", ""},
		{"AZ-22 a known resource and an unknown", authorizeURL("resource", "https://api.example.com") + "&resource=https%3A%2F%2Fother.example.com", "invalid_target"},
		{"AZ-23 authorization_details", authorizeURL("authorization_details", "[]"), "invalid_authorization_details"},
		{"request object", authorizeURL("request", "eyJhbGciOiJub25lIn0.e30."), "request_not_supported"},
		{"request_uri", authorizeURL("request_uri", "https://web.example.com/r"), "request_uri_not_supported"},
		{"registration", authorizeURL("registration", "{}"), "registration_not_supported"},
		{"client without the grant", authorizeURL("client_id", "service"), "unauthorized_client"},
		{"PK-01 no challenge, public", authorizeURL("client_id", "native", "redirect_uri", "http://127.0.0.1:99/cb", "code_challenge", "-"), "invalid_request"},
		{"PK-02 no challenge, confidential", authorizeURL("code_challenge", "-", "code_challenge_method", "-"), "invalid_request"},
		{"PK-02 no challenge, exempt", authorizeURL("client_id", "first", "code_challenge", "-", "code_challenge_method", "-"), ""},
		{"PK-02 exempt, but no OpenID Connect", authorizeURL("client_id", "first", "scope", "orders:read", "code_challenge", "-", "code_challenge_method", "-"), "invalid_request"},
		{"PK-02 exempt, half a challenge", authorizeURL("client_id", "first", "code_challenge", "-"), "invalid_request"},
		{"PK-03 plain", authorizeURL("code_challenge_method", "plain"), "invalid_request"},
		{"PK-03 no method", authorizeURL("code_challenge_method", "-"), "invalid_request"},
		{"PK-04 s256", authorizeURL("code_challenge_method", "s256"), "invalid_request"},
		{"PK-04 S256 with a space", authorizeURL("code_challenge_method", "S256 "), "invalid_request"},
		{"PK-04 S512", authorizeURL("code_challenge_method", "S512"), "invalid_request"},
		{"PK-05 42 characters", authorizeURL("code_challenge", testChallenge[1:]), "invalid_request"},
		{"PK-05 129 characters", authorizeURL("code_challenge", strings.Repeat("a", 129)), "invalid_request"},
		{"PK-05 padding", authorizeURL("code_challenge", testChallenge[1:]+"="), "invalid_request"},
		{"PK-05 standard alphabet", authorizeURL("code_challenge", testChallenge[2:]+"+/"), "invalid_request"},
		{"long nonce", authorizeURL("nonce", strings.Repeat("n", 600)), "invalid_request"},
		{"too much together", authorizeURL("state", strings.Repeat("s", 4094)+"st", "claims", `{"userinfo":{"`+strings.Repeat("c", 1950)+`":null}}`), "invalid_request"},
		{"bad escape", raw("x=%zz"), "page"},
		{"semicolon", raw("x=1;y=2"), "page"},
		{"too many parameters", raw(strings.Repeat("&x=", 100)), "page"},
		{"too long", authorizeURL("x", strings.Repeat("x", 25<<10)), "page"},
	} {
		t.Run(test.name, func(t *testing.T) {
			page := newBrowser(t, s).send("GET", test.target, nil)
			switch test.want {
			case "":
				if !page.on("/login") || page.query.Get("interaction") == "" {
					t.Errorf("%d %v %s, want the sign-in page", page.status, page.location, page.body)
				}
			case "page":
				if page.status != http.StatusBadRequest || page.location != nil || !strings.HasPrefix(page.body, "error request: ") {
					t.Errorf("%d %v %s, want an error page", page.status, page.location, page.body)
				}
				if strings.Contains(page.body, "evil") {
					t.Error("the page repeats the redirect_uri")
				}
				if len(page.body) > 4<<10 {
					t.Errorf("the page has %d bytes", len(page.body))
				}
			default:
				if page.status != http.StatusSeeOther || page.query.Get("error") != test.want || !strings.HasSuffix(page.query.Get("state"), "st") ||
					page.query.Get("iss") != testIssuer || page.query.Has("code") || page.location.Fragment != "" || strings.Contains(page.location.String(), "token=") ||
					!strings.HasPrefix(page.location.String(), testCallback+"?") && !strings.HasPrefix(page.location.String(), "http://127.0.0.1:99/cb?") {
					t.Errorf("%d %.300v %s, want %s", page.status, page.location, page.body, test.want)
				}
			}
			if page.header.Get("Cache-Control") != "no-store" || page.header.Get("X-Frame-Options") != "DENY" || !strings.Contains("no-referrer same-origin", page.header.Get("Referrer-Policy")) {
				t.Errorf("headers: %v", page.header)
			}
		})
	}
}

func manyScopes() string {
	var b strings.Builder
	for i := range 101 {
		b.WriteString(" x" + strings.Repeat("y", i%10) + string(rune('a'+i/10)))
	}
	return b.String()
}

func tenThousand() string {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "s%d ", i)
	}
	return b.String()
}

// ATTACKS AZ-12, AZ-19: what is too long for a URL is refused in a form, too.
func TestLongForms(t *testing.T) {
	b := newBrowser(t, browserServer(t, nil))
	for name, values := range map[string]url.Values{
		"a scope of 64 KiB": authorizeForm("scope", strings.Repeat("abcdefg ", 1<<13)), "10,000 scopes": authorizeForm("scope", tenThousand()),
		"claims of 1 MB": authorizeForm("claims", strings.Repeat("x", 1<<20)), "claims of 20 KiB": authorizeForm("claims", `{"id_token":{"`+strings.Repeat("x", 20<<10)+`":null}}`),
	} {
		page := b.send("POST", "/authorize", values)
		if page.status != 400 && page.status != 413 && page.query.Get("error") != "invalid_request" || len(page.body) > 4<<10 || page.query.Has("code") {
			t.Errorf("%s: %d %v, %d bytes", name, page.status, page.location, len(page.body))
		}
	}
}

// ATTACKS AZ-06: what a user changes in the forms of the pages, or in what leads back to
// them, changes nothing of the request.
func TestAttackAZ06(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	page := b.send("GET", authorizeURL("response_mode", "query"), nil)
	changes := url.Values{"response_type": {"token"}, "response_mode": {"fragment"}, "redirect_uri": {"https://evil.example/cb"}, "client_id": {"first"}, "scope": {"openid email orders:write"},
		"state": {"other"}, "nonce": {"other"}, "code_challenge": {flip(testChallenge)}, "prompt": {"none"}}
	with := func(step func(w http.ResponseWriter, r *http.Request) error) shownPage {
		return b.do(s.servePage("test", step).ServeHTTP, b.request("POST", "/test?"+changes.Encode(), changes))
	}
	page = with(func(w http.ResponseWriter, r *http.Request) error {
		in, err := s.openInteraction(r, page.query.Get("interaction"))
		if err != nil {
			return err
		}
		started, err := s.startSession(w, r, proof{user: b.user("alice-1"), amr: []string{"pwd"}, acr: acrPassword})
		if err != nil {
			return err
		}
		return s.resume(w, r, in, started, true)
	})
	if !page.on("/consent") {
		t.Fatalf("after the sign-in: %v", page.location)
	}
	page = with(func(w http.ResponseWriter, r *http.Request) error {
		in, err := s.openInteraction(r, page.query.Get("interaction"))
		if err != nil {
			return err
		}
		return s.allow(w, r, in)
	})
	if page.query.Get("code") == "" || !strings.HasPrefix(page.location.String(), testCallback+"?") || page.query.Get("state") != "st" ||
		page.location.Fragment != "" || strings.Contains(page.location.String(), "token") {
		t.Fatalf("the answer is %v", page.location)
	}
	a := b.exchange("web", page.query.Get("code"))
	if claims, _ := b.verified(a.text("id_token"), "ES256"); a.text("scope") != "openid profile orders:read" || claims["nonce"] != "no" {
		t.Errorf("%v %v", a.body, claims)
	}
}

// ATTACKS AZ-28: of answers to one question that come at once one is the answer.
func TestAttackAZ28(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	page := b.send("GET", authorizeURL(), nil)
	answers := make([]shownPage, 20)
	var wait sync.WaitGroup
	for i := range answers {
		tab := &browser{t, s, maps.Clone(b.cookies)}
		wait.Go(func() { answers[i] = tab.decideConsent(page, i%4 != 0) })
	}
	wait.Wait()
	answered := 0
	for _, a := range answers {
		switch {
		case a.query.Get("code") != "" || a.query.Get("error") == "access_denied":
			answered++
		case a.location != nil || !strings.HasPrefix(a.body, "error done"):
			t.Errorf("%d %v %s", a.status, a.location, a.body)
		}
	}
	if answered != 1 {
		t.Errorf("answered %d times", answered)
	}
}

// ATTACKS PR-15: what a request_uri names is not asked for.
func TestAttackPR15(t *testing.T) {
	s := browserServer(t, func(c *Config) { c.OutboundNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }) // nothing else would stop it
	var asked atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(canary.Close)
	for _, uri := range []string{canary.URL + "/r", "http://169.254.169.254/", "https://evil.example/r", "urn:ietf:params:oauth:request_uri:x"} {
		for _, pairs := range [][]string{{"request_uri", uri}, {"request_uri", uri, "response_type", "-"}, {"request_uri", uri, "scope", "orders:read"}} {
			for _, method := range []string{"GET", "POST"} {
				target, values := authorizeURL(pairs...), url.Values(nil)
				if method == "POST" {
					target, values = "/authorize", authorizeForm(pairs...)
				}
				if page := newBrowser(t, s).send(method, target, values); page.query.Get("error") != "request_uri_not_supported" {
					t.Errorf("%s %v: %d %v", method, pairs, page.status, page.location)
				}
			}
		}
		if page := newBrowser(t, s).send("GET", authorizeURL("request_uri", uri, "redirect_uri", "-"), nil); page.status != 400 || page.location != nil {
			t.Errorf("alone: %d %v", page.status, page.location)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// ATTACKS RU-17: characters that could end a header's line end up on a page.
func TestAttackRU17(t *testing.T) {
	s := browserServer(t, nil)
	for _, c := range []string{"\t", "\r", "\n", "\r\nSet-Cookie: x=1", "\x00", " ", "\x7f", "\u0085", "\u2028"} {
		for _, uri := range []string{testCallback + c, c + testCallback, "https://web.example.com/" + c + "callback"} {
			page := newBrowser(t, s).send("GET", authorizeURL("redirect_uri", uri), nil)
			if page.status != 400 || page.location != nil || page.header.Get("Set-Cookie") != "" || !strings.HasPrefix(page.body, "error request") {
				t.Errorf("%q: %d %v %v", uri, page.status, page.location, page.header)
			}
		}
	}
}

// ATTACKS AZ-11: state comes back byte for byte, or is refused.
func TestState(t *testing.T) {
	s := browserServer(t, nil)
	for _, state := range []string{strings.Repeat("s", 4096), `"><script>alert(1)</script>`, "ü%00&a=b+c #x", "{\"a\":1}"} {
		b := newBrowser(t, s)
		page := b.send("GET", authorizeURL("prompt", "none", "state", state), nil)
		if page.query.Get("state") != state || page.query.Get("error") != "login_required" {
			t.Errorf("state %.20q came back as %.20q", state, page.query.Get("state"))
		}
	}
	// AZ-09: an empty one is none.
	if page := newBrowser(t, s).send("GET", authorizeURL("prompt", "none", "state", ""), nil); page.query.Has("state") || page.query.Get("error") != "login_required" {
		t.Errorf("an empty state: %v", page.location)
	}
	for name, state := range map[string]string{"CR LF": "a\r\nSet-Cookie: x=1", "CR": "a\rb", "LF": "a\nb", "NUL": "a\x00", "not UTF-8": "a\xff", "too long": strings.Repeat("s", 4097)} {
		page := newBrowser(t, s).send("GET", authorizeURL("state", state), nil)
		if page.query.Get("error") != "invalid_request" || page.query.Has("state") || page.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", name, page.location)
		}
	}
	// HT-10: nor does anything else that is sent split a header, or make one.
	for _, name := range []string{"redirect_uri", "login_hint", "nonce", "ui_locales", "client_id", "scope", "acr_values"} {
		page := newBrowser(t, s).send("GET", authorizeURL(name, testCallback+"\r\nSet-Cookie: evil=1\r\n\r\n"), nil)
		for header, values := range page.header {
			if text := header + strings.Join(values, "\n"); strings.ContainsAny(strings.Join(values, ""), "\r\n") || strings.Contains(text, "evil=1") && header != "Location" {
				t.Errorf("%s: %q", name, text)
			}
		}
	}
	// AZ-07: which of two states would it be?
	for _, state := range []string{"other", "st", ""} {
		if page := newBrowser(t, s).send("GET", authorizeURL()+"&state="+state, nil); page.query.Get("error") != "invalid_request" || page.query.Has("state") {
			t.Errorf("two states: %v", page.location)
		}
	}
	// Nothing that is shown to the user has it.
	const shown = "<script>alert(1)</script>"
	b := newBrowser(t, s)
	for _, target := range []string{authorizeURL("state", shown), authorizeURL("state", shown, "client_id", "nobody"), authorizeURL("state", shown, "redirect_uri", "https://evil.example")} {
		if page := b.send("GET", target, nil); strings.Contains(page.body, "alert") {
			t.Errorf("a page shows it: %s", page.body)
		}
	}
}

// OpenID Connect Core §3.1.2.1, ATTACKS AZ-08: a POST's parameters are those of its
// body. It is led to a GET, which brings the cookies that SameSite=Lax keeps from it.
func TestAuthorizePost(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	other := newBrowser(t, s)
	page := other.send("POST", "/authorize?state=ignored&client_id=nobody", authorizeForm("client_id", "first"))
	if !page.on("/authorize") || page.query.Get("state") != "st" {
		t.Fatalf("%d %v", page.status, page.location)
	}
	if page = b.send("GET", page.location.RequestURI(), nil); page.query.Get("code") == "" {
		t.Errorf("after the redirect: %v", page.location)
	}
	if page = b.send("POST", "/authorize", authorizeForm("client_id", "first")); page.query.Get("code") == "" {
		t.Errorf("a POST with cookies: %v", page.location)
	}
	if page = other.send("POST", "/authorize?client_id=web", authorizeForm("client_id", "-")); page.status != 400 {
		t.Errorf("client_id in the query of a POST: %d", page.status)
	}
	if page = other.send("POST", "/authorize", authorizeForm("response_type", "token")); page.query.Get("error") != "unsupported_response_type" {
		t.Errorf("a wrong POST: %v", page.location)
	}
	// AZ-24.
	for _, method := range []string{"HEAD", "PUT", "DELETE", "TRACE", "OPTIONS"} {
		if page = b.send(method, authorizeURL("client_id", "first"), nil); page.status != 405 || page.header.Get("Allow") == "" || page.location != nil {
			t.Errorf("%s: %d", method, page.status)
		}
	}
}

// The whole way: sign in, consent, a code. Then single sign-on without a question.
func TestAuthorizeFlow(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	page := b.send("GET", authorizeURL(), nil)
	if page = b.passSignIn(page, "alice-1"); !page.on("/consent") {
		t.Fatalf("after signing in: %d %v %s", page.status, page.location, page.body)
	}
	consentPage := page
	page = b.decideConsent(page, true)
	if page.status != http.StatusSeeOther || page.query.Get("code") == "" || page.query.Get("state") != "st" || page.query.Get("iss") != testIssuer {
		t.Fatalf("after consenting: %d %v %s", page.status, page.location, page.body)
	}
	if !strings.HasPrefix(page.location.String(), testCallback+"?") {
		t.Errorf("redirected to %v", page.location)
	}
	// AZ-28: a second completion gets nothing.
	if again := b.decideConsent(consentPage, true); !strings.HasPrefix(again.body, "error done") || again.location != nil {
		t.Errorf("completed twice: %d %v %s", again.status, again.location, again.body)
	}
	if again := b.decideConsent(consentPage, false); !strings.HasPrefix(again.body, "error done") {
		t.Errorf("completed, then denied: %s", again.body)
	}
	if page = b.send("GET", authorizeURL("prompt", "none"), nil); page.query.Get("code") == "" {
		t.Errorf("single sign-on: %v", page.location)
	}
	// AZ-15: more than was allowed is asked again.
	if page = b.send("GET", authorizeURL("prompt", "none", "scope", "openid email"), nil); page.query.Get("error") != "consent_required" {
		t.Errorf("more scope: %v", page.location)
	}
	if page = b.send("GET", authorizeURL("prompt", "none", "claims", `{"id_token":{"email":null}}`), nil); page.query.Get("error") != "consent_required" {
		t.Errorf("another claim: %v", page.location)
	}
	if page = b.send("GET", authorizeURL("prompt", "consent"), nil); !page.on("/consent") {
		t.Errorf("prompt=consent: %v", page.location)
	}
	if err := s.forgetConsent(t.Context(), "alice-1", "web"); err != nil {
		t.Fatal(err)
	}
	if page = b.send("GET", authorizeURL(), nil); !page.on("/consent") {
		t.Errorf("after revoking the consent: %v", page.location)
	}
	page = b.decideConsent(page, false)
	if page.query.Get("error") != "access_denied" || page.query.Get("state") != "st" || page.query.Get("iss") != testIssuer {
		t.Errorf("denied: %v", page.location)
	}
}

// RFC 8252 §8.6, ATTACKS BR-11: anybody can pass for a native app.
func TestNativeAppsAskAgain(t *testing.T) {
	s := browserServer(t, func(c *Config) { c.Clients[2].RedirectURIs = append(c.Clients[2].RedirectURIs, "com.example.app:/cb") })
	b := newBrowser(t, s)
	b.signIn("alice-1")
	for _, uri := range []string{"http://127.0.0.1:51004/cb", "com.example.app:/cb"} {
		target := authorizeURL("client_id", "native", "redirect_uri", uri)
		for range 2 {
			page := b.send("GET", target, nil)
			if !page.on("/consent") {
				t.Fatalf("not asked: %v", page.location)
			}
			if page = b.decideConsent(page, true); page.query.Get("code") == "" || !strings.HasPrefix(page.location.String(), uri+"?") {
				t.Fatalf("after consenting: %v", page.location)
			}
		}
		if page := b.send("GET", target+"&prompt=none", nil); page.query.Get("error") != "consent_required" {
			t.Errorf("%s with prompt=none: %v", uri, page.location)
		}
	}
}

// OpenID Connect Core §3.1.2.1: when a session is not enough.
func TestReauthentication(t *testing.T) {
	s := browserServer(t, nil)
	for _, pairs := range [][]string{
		{"prompt", "login"}, {"prompt", "select_account"}, {"prompt", "login consent"}, {"max_age", "0"}, {"acr_values", "aal2"}, {"acr_values", "phr unknown"},
		{"claims", `{"id_token":{"acr":{"essential":true,"values":["phr"]}}}`}, {"claims", `{"id_token":{"sub":{"value":"bob-1"}}}`},
	} {
		b := newBrowser(t, s)
		b.signIn("alice-1")
		pairs = append(pairs, "client_id", "first")
		page := b.send("GET", authorizeURL(pairs...), nil)
		if !page.on("/login") {
			t.Errorf("%v: %v, want the sign-in page", pairs, page.location)
			continue
		}
		page = b.passSignIn(page, "alice-1")
		switch {
		case strings.Contains(pairs[1], "consent"):
			if !page.on("/consent") {
				t.Errorf("%v: %v, want consent", pairs, page.location)
			}
		case strings.Contains(pairs[1], "phr\"]"): // essential, and not met
			if page.query.Get("error") != "unmet_authentication_requirements" {
				t.Errorf("%v: %v", pairs, page.location)
			}
		case strings.Contains(pairs[1], "bob"): // AZ-19: never another subject
			if page.query.Get("error") != "login_required" {
				t.Errorf("%v: %v", pairs, page.location)
			}
		case page.query.Get("code") == "":
			t.Errorf("%v: %v, want a code after the sign-in", pairs, page.location)
		}
		if pairs[0] != "prompt" {
			if page := b.send("GET", authorizeURL(append(pairs, "prompt", "none")...), nil); page.query.Get("code") != "" {
				t.Errorf("%v with prompt=none got a code", pairs)
			}
		}
	}
	// AZ-17: two seconds after the sign-in a max_age of one asks again, and what comes of it is fresh.
	for _, age := range []string{"0", "1"} {
		b := newBrowser(t, s)
		current := b.signIn("alice-1")
		_, _, err := s.sessions.Update(t.Context(), current.ID, time.Now().Add(time.Hour), func(one *session) error {
			one.AuthTime -= 2
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		page := b.send("GET", authorizeURL("max_age", age, "client_id", "first"), nil)
		if !page.on("/login") {
			t.Fatalf("max_age %s after 2 s: %v", age, page.location)
		}
		begun := time.Now().Unix()
		page = b.passSignIn(page, "alice-1")
		claims, _ := b.verified(b.exchange("first", page.query.Get("code")).text("id_token"), "ES256")
		if at, _ := claims["auth_time"].(float64); int64(at) < begun {
			t.Errorf("max_age %s: auth_time is %v, the sign-in began at %d", age, claims["auth_time"], begun)
		}
	}
	b := newBrowser(t, s)
	b.signIn("alice-1")
	for _, pairs := range [][]string{{"max_age", "10000"}, {"acr_values", "aal1"}, {"acr_values", "1 2"}, {"claims", `{"id_token":{"sub":{"value":"alice-1"}}}`}} {
		if page := b.send("GET", authorizeURL(append(pairs, "client_id", "first", "prompt", "none")...), nil); page.query.Get("code") == "" {
			t.Errorf("%v: %v, want a code", pairs, page.location)
		}
	}
}

// ATTACKS AZ-29: another browser cannot go on with a request; neither can this one
// without its cookie, or with an altered one.
func TestInteractionIsBound(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	page := b.send("GET", authorizeURL(), nil)
	thief := newBrowser(t, s)
	thief.send("GET", authorizeURL(), nil)
	for name, other := range map[string]*browser{"another browser": thief, "no cookies": newBrowser(t, s)} {
		if got := other.passSignIn(page, "bob-1"); !strings.HasPrefix(got.body, "error cookies") || got.location != nil {
			t.Errorf("%s: %d %v %s", name, got.status, got.location, got.body)
		}
	}
	sealed := page.query.Get("interaction")
	for name, value := range map[string]string{"cut": sealed[:len(sealed)-1], "altered": sealed[:5] + "AAAAAAAA" + sealed[13:], "empty": "", "a code": "x"} {
		page.query.Set("interaction", value)
		if got := b.passSignIn(page, "bob-1"); !strings.HasPrefix(got.body, "error request") {
			t.Errorf("%s: %s", name, got.body)
		}
	}
	// Too old: the page leads to the same request anew, whoever it is about.
	in, err := s.unsealInteraction(sealed)
	if err != nil {
		t.Fatal(err)
	}
	in.Expires, in.SignedIn, in.Request.Subject = past(1), true, "alice-1"
	if sealed, err = s.sealInteraction(in); err != nil {
		t.Fatal(err)
	}
	page.query.Set("interaction", sealed)
	got := b.passSignIn(page, "alice-1")
	_, next, _ := strings.Cut(got.body, "next="+testIssuer)
	if !strings.HasPrefix(got.body, "error expired") || next == "" {
		t.Fatalf("expired: %s", got.body)
	}
	at, err := url.Parse(next)
	if err != nil || at.Path != "/login" {
		t.Fatalf("the way on leads to %s %v", next, err)
	}
	anew, err := s.unsealInteraction(at.Query().Get("interaction"))
	if err != nil || anew.ID == in.ID || anew.SignedIn || !reflect.DeepEqual(anew.Request, in.Request) {
		t.Errorf("the way on is %+v, %v", anew, err)
	}
}

// ATTACKS BR-16: the answer to a question is that of whom it was shown to.
func TestAnotherUserInAnotherTab(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	asked := b.send("GET", authorizeURL(), nil)
	b.signIn("bob-1")
	page := b.decideConsent(asked, true)
	if !page.on("/consent") {
		t.Fatalf("alice's question, bob's answer: %d %v", page.status, page.location)
	}
	if scope, err := s.consented(t.Context(), "bob-1", s.clients.configured["web"]); err != nil || len(scope) > 0 {
		t.Errorf("bob has consented to %v, %v", scope, err)
	}
	page = b.decideConsent(page, true)
	minted, err := s.openCode(page.query.Get("code"))
	if err != nil || minted.Subject != "bob-1" {
		t.Errorf("the code is for %q, %v", minted.Subject, err)
	}
	// Signed out meanwhile: he signs in again.
	asked = b.send("GET", authorizeURL("prompt", "consent"), nil)
	delete(b.cookies, "__Host-session")
	if page := b.decideConsent(asked, true); !page.on("/login") {
		t.Errorf("signed out meanwhile: %v", page.location)
	}
	// A sign-in of alice for a request is no sign-in of bob for it.
	page = b.send("GET", authorizeURL("prompt", "login consent"), nil)
	page = b.passSignIn(page, "alice-1")
	b.signIn("bob-1")
	if page = b.decideConsent(page, true); !page.on("/login") {
		t.Errorf("alice signed in for the request, then bob elsewhere: %v", page.location)
	}
	// Nor is it one for max_age, when he has waited too long.
	page = b.send("GET", authorizeURL("prompt", "consent", "max_age", "0"), nil)
	page = b.passSignIn(page, "alice-1")
	bob := b.signIn("bob-1")
	in, err := s.unsealInteraction(page.query.Get("interaction"))
	if err != nil {
		t.Fatal(err)
	}
	longer := int64(100)
	in.Request.MaxAge = &longer
	sealed, err := s.sealInteraction(in)
	if err != nil {
		t.Fatal(err)
	}
	page.query.Set("interaction", sealed)
	if page = b.decideConsent(page, true); !page.on("/consent") {
		t.Fatalf("bob is asked: %v", page.location)
	}
	_, _, err = s.sessions.Update(t.Context(), bob.ID, time.Now().Add(time.Hour), func(one *session) error {
		one.AuthTime -= 200
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if page = b.decideConsent(page, true); !page.on("/login") {
		t.Errorf("bob's sign-in is too old: %v", page.location)
	}
}

// ATTACKS AZ-30, AZ-31: a user or client that is gone meanwhile.
func TestGoneMeanwhile(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	asked := b.send("GET", authorizeURL(), nil)
	changed := browserServerWith(t, s, func(c *Config) { c.Users = c.Users[1:] })
	b.server = changed
	if page := b.decideConsent(asked, true); !page.on("/login") {
		t.Errorf("the user is gone: %v", page.location)
	}
	b.server = browserServerWith(t, s, func(c *Config) { c.Clients = c.Clients[1:] })
	if page := b.decideConsent(asked, true); !strings.HasPrefix(page.body, "error disabled") {
		t.Errorf("the client is gone: %s", page.body)
	}
	b.server = browserServerWith(t, s, func(c *Config) { c.Clients[0].RedirectURIs = []string{"https://web.example.com/new"} })
	if page := b.decideConsent(asked, true); !strings.HasPrefix(page.body, "error disabled") {
		t.Errorf("the redirect URI is gone: %s", page.body)
	}
}

// ATTACKS AZ-25, AZ-26.
func TestFormPost(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	page := b.send("GET", authorizeURL("client_id", "first", "response_mode", "form_post", "state", `"><script>`), nil)
	_, query, _ := strings.Cut(page.body, "form "+testCallback+"?")
	values, err := url.ParseQuery(query)
	if err != nil || page.status != 200 || values.Get("code") == "" || values.Get("iss") != testIssuer || values.Get("state") != `"><script>` {
		t.Errorf("%d %s", page.status, page.body)
	}
	page = b.send("GET", authorizeURL("response_mode", "form_post", "scope", `"`), nil)
	_, query, _ = strings.Cut(page.body, "form "+testCallback+"?")
	if values, err := url.ParseQuery(query); err != nil || values.Get("error") != "invalid_scope" || values.Get("iss") != testIssuer || values.Get("state") != "st" {
		t.Errorf("an error: %d %s", page.status, page.body)
	}
	if page.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", page.header)
	}
	// The issuer of the metadata, byte for byte.
	if document := b.ask("GET", "/.well-known/openid-configuration", "", nil).body; document["issuer"] != values.Get("iss") {
		t.Errorf("the metadata has the issuer %v", document["issuer"])
	}
}

// RFC 6749 §3.1.2, ATTACKS RU-06: a registered query is kept.
func TestRedirectQueryIsKept(t *testing.T) {
	s := browserServer(t, nil)
	b := newBrowser(t, s)
	b.signIn("alice-1")
	page := b.send("GET", authorizeURL("client_id", "first", "redirect_uri", testCallback+"?kept=1"), nil)
	if page.query.Get("kept") != "1" || page.query.Get("code") == "" || !strings.HasPrefix(page.location.String(), testCallback+"?kept=1&") {
		t.Errorf("redirected to %v", page.location)
	}
}
