package authserver

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

// conformance does what a module of the OpenID Foundation's suite does, as the
// suite's client: confidential, with redirect URIs of the suite, and without PKCE
// but where a module is about it (docs/conformance.md).
type conformance struct {
	*testing.T
	*browser
	mode string // response_mode of every request
}

const suiteCallback = "https://localhost.emobix.co.uk:8443/test/a/authserver/callback"

func withSuite(c *Config) {
	never := false
	for _, id := range []string{"suite", "suite-2"} {
		c.Clients = append(c.Clients, Client{ClientID: id, ClientSecret: testSecret, GrantTypes: []string{"authorization_code", "refresh_token"},
			Scope: "openid profile email address phone offline_access", RedirectURIs: []string{suiteCallback}, RequirePKCE: &never})
	}
}

// authorize sends a request, with all pages passed as alice, and returns the answer
// and whether she had to sign in.
func (c conformance) authorize(pairs ...string) (answer url.Values, signedIn bool) {
	c.Helper()
	values := url.Values{"client_id": {"suite"}, "redirect_uri": {suiteCallback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"}, "nonce": {"n"}}
	if c.mode != "" {
		values.Set("response_mode", c.mode)
	}
	for i := 0; i < len(pairs); i += 2 {
		if values.Del(pairs[i]); pairs[i+1] != "-" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	page := c.send("GET", "/authorize?"+values.Encode(), nil)
	if page.on("/login") {
		signedIn = true
		page = c.passSignIn(page, "alice-1")
	}
	if page.on("/consent") {
		page = c.decideConsent(page, true)
	}
	return c.answerOf(page), signedIn
}

// answerOf returns the response that a page is: in a query, or in a form.
func (c conformance) answerOf(page shownPage) url.Values {
	c.Helper()
	answer := page.query
	if c.mode == modeFormPost {
		_, encoded, _ := strings.Cut(page.body, "form "+suiteCallback+"?")
		answer, _ = url.ParseQuery(encoded)
	}
	if answer.Get("state") != "s" || answer.Get("iss") != testIssuer {
		c.Fatalf("no response: %d %v %s", page.status, page.location, page.body)
	}
	return answer
}

func (c conformance) redeem(code string, pairs ...string) tokenAnswer {
	return c.exchange("suite", code, append([]string{"redirect_uri", suiteCallback, "code_verifier", "-"}, pairs...)...)
}

// flow is the whole way, and what its ID token says.
func (c conformance) flow(pairs ...string) (tokens tokenAnswer, claims map[string]any, signedIn bool) {
	c.Helper()
	answer, signedIn := c.authorize(pairs...)
	tokens = c.redeem(answer.Get("code"))
	if tokens.status != 200 {
		c.Fatalf("%v: %v", answer, tokens.body)
	}
	claims, _ = c.verified(tokens.text("id_token"), "ES256")
	if claims["iss"] != testIssuer || claims["aud"] != "suite" || claims["sub"] != "alice-1" {
		c.Errorf("ID token %v", claims)
	}
	return tokens, claims, signedIn
}

func (c conformance) fails(code string, pairs ...string) {
	c.Helper()
	if answer, _ := c.authorize(pairs...); answer.Get("error") != code || answer.Has("code") {
		c.Errorf("%v, want %s", answer, code)
	}
}

func (c conformance) userinfo(tokens tokenAnswer, names ...string) {
	c.Helper()
	got := c.ask("GET", "/userinfo", "Bearer "+tokens.text("access_token"), nil)
	for _, name := range append(names, "sub") {
		if got.status != 200 || got.body[name] == nil {
			c.Errorf("userinfo has no %s: %d %v", name, got.status, got.body)
		}
	}
}

// age makes the sign-in of the browser older.
func (c conformance) age(by time.Duration) {
	c.Helper()
	current := c.session()
	_, _, err := c.server.sessions.Update(c.Context(), current.ID, time.Now().Add(time.Hour), func(one *session) error {
		one.AuthTime -= int64(by.Seconds())
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
}

// replayed redeems a code twice, the second time when it is as old as age.
func (c conformance) replayed(age time.Duration) {
	answer, _ := c.authorize()
	tokens := c.redeem(answer.Get("code"))
	opened, err := c.server.openCode(answer.Get("code"))
	if err != nil || tokens.status != 200 {
		c.Fatal(err, tokens.body)
	}
	opened.Expires -= age.Milliseconds()
	later, err := c.server.sealCode(opened)
	if err != nil {
		c.Fatal(err)
	}
	again := c.redeem(later)
	if again.text("error") != "invalid_grant" {
		c.Errorf("the second use: %v", again.body)
	}
	if got := c.ask("GET", "/userinfo", "Bearer "+tokens.text("access_token"), nil); got.status != 401 {
		c.Errorf("the access token lives: %d", got.status)
	}
}

// The modules of oidcc-basic-certification-test-plan (suite 5.2.4), by name. The
// form-post plan is the same with response_mode=form_post.
func conformanceModules() map[string]func(conformance) {
	scopeModule := func(scope string, claims ...string) func(conformance) {
		return func(c conformance) {
			tokens, _, _ := c.flow("scope", "openid "+scope)
			c.userinfo(tokens, claims...)
		}
	}
	accepts := func(pairs ...string) func(conformance) { return func(c conformance) { c.flow(pairs...) } }
	happy := accepts()
	return map[string]func(conformance){
		"oidcc-server":                happy,
		"oidcc-response-type-missing": func(c conformance) { c.fails("invalid_request", "response_type", "-") },
		"oidcc-idtoken-signature":     happy,
		"oidcc-idtoken-unsigned": func(c conformance) { // not supported, so nobody can be registered for it
			config := browserConfig()
			config.Clients[0].IDTokenSignedResponseAlg = "none"
			if len(config.CheckAlgorithms(c.server.keys.Algorithms())) == 0 {
				c.Error("a client can have unsigned ID tokens")
			}
		},
		"oidcc-userinfo-get": func(c conformance) { tokens, _, _ := c.flow(); c.userinfo(tokens) },
		"oidcc-userinfo-post-header": func(c conformance) {
			tokens, claims, _ := c.flow()
			if got := c.ask("POST", "/userinfo", "Bearer "+tokens.text("access_token"), nil); got.body["sub"] != claims["sub"] {
				c.Error(got.body)
			}
		},
		"oidcc-userinfo-post-body": func(c conformance) {
			tokens, claims, _ := c.flow()
			if got := c.ask("POST", "/userinfo", "", url.Values{"access_token": {tokens.text("access_token")}}); got.body["sub"] != claims["sub"] {
				c.Error(got.body)
			}
		},
		"oidcc-ensure-request-without-nonce-succeeds-for-code-flow": func(c conformance) {
			if _, claims, _ := c.flow("nonce", "-"); claims["nonce"] != nil {
				c.Error(claims)
			}
		},
		"oidcc-scope-profile": scopeModule("profile", "name", "preferred_username"),
		"oidcc-scope-email":   scopeModule("email", "email", "email_verified"),
		"oidcc-scope-address": scopeModule("address", "address"),
		"oidcc-scope-phone":   scopeModule("phone", "phone_number"),
		"oidcc-scope-all":     scopeModule("profile email address phone", "name", "email", "address", "phone_number"),
		"oidcc-alternate-happy-flow": func(c conformance) { // a second client in the same browser
			c.flow()
			answer, signedIn := c.authorize("client_id", "suite-2")
			if tokens := c.exchange("suite-2", answer.Get("code"), "redirect_uri", suiteCallback, "code_verifier", "-"); tokens.status != 200 || signedIn {
				c.Error(tokens.body, signedIn)
			}
		},
		"oidcc-display-page":  accepts("display", "page"),
		"oidcc-display-popup": accepts("display", "popup"),
		"oidcc-prompt-login": func(c conformance) {
			_, before, _ := c.flow()
			c.age(time.Minute)
			if _, after, signedIn := c.flow("prompt", "login"); !signedIn || after["auth_time"].(float64) < before["auth_time"].(float64) {
				c.Errorf("signed in: %t, %v", signedIn, after)
			}
		},
		"oidcc-prompt-none-not-logged-in": func(c conformance) { c.fails("login_required", "prompt", "none") },
		"oidcc-prompt-none-logged-in": func(c conformance) {
			_, before, _ := c.flow()
			if _, after, signedIn := c.flow("prompt", "none"); signedIn || after["sub"] != before["sub"] || after["auth_time"] != before["auth_time"] {
				c.Error(before, after)
			}
		},
		"oidcc-max-age-1": func(c conformance) {
			c.flow()
			c.age(2 * time.Second)
			if _, after, signedIn := c.flow("max_age", "1"); !signedIn || time.Since(time.Unix(int64(after["auth_time"].(float64)), 0)) > time.Minute {
				c.Errorf("signed in: %t, %v", signedIn, after)
			}
		},
		"oidcc-max-age-10000": func(c conformance) {
			_, before, _ := c.flow()
			if _, after, signedIn := c.flow("max_age", "10000"); signedIn || after["auth_time"] != before["auth_time"] {
				c.Errorf("signed in: %t, %v", signedIn, after)
			}
		},
		"oidcc-ensure-request-with-unknown-parameter-succeeds": accepts("extra", "foobar"),
		"oidcc-id-token-hint": func(c conformance) {
			tokens, before, _ := c.flow()
			if _, after, _ := c.flow("prompt", "none", "id_token_hint", tokens.text("id_token")); after["sub"] != before["sub"] {
				c.Error(before, after)
			}
		},
		"oidcc-login-hint":     accepts("login_hint", "alice"),
		"oidcc-ui-locales":     accepts("ui_locales", "se"),
		"oidcc-claims-locales": accepts("claims_locales", "se"),
		"oidcc-ensure-request-with-acr-values-succeeds": func(c conformance) {
			if _, claims, _ := c.flow("acr_values", "1 2"); claims["acr"] == nil {
				c.Error(claims)
			}
		},
		"oidcc-codereuse":           func(c conformance) { c.replayed(0) },
		"oidcc-codereuse-30seconds": func(c conformance) { c.replayed(30 * time.Second) },
		"oidcc-ensure-registered-redirect-uri": func(c conformance) {
			page := c.send("GET", authorizeURL("client_id", "suite", "redirect_uri", suiteCallback+"x"), nil)
			if page.status != 400 || page.location != nil || !strings.HasPrefix(page.body, "error request") {
				c.Error(page.status, page.location, page.body)
			}
		},
		"oidcc-ensure-post-request-succeeds": func(c conformance) {
			c.flow()
			values := authorizeForm("client_id", "suite", "redirect_uri", suiteCallback, "scope", "openid", "state", "s", "response_mode", c.mode)
			if answer := c.answerOf(c.send("POST", "/authorize", values)); answer.Get("code") == "" {
				c.Error(answer)
			}
		},
		"oidcc-server-client-secret-post": func(c conformance) {
			answer, _ := c.authorize()
			tokens := c.exchange("", answer.Get("code"), "client_id", "suite", "client_secret", testSecret, "redirect_uri", suiteCallback, "code_verifier", "-")
			if tokens.status != 200 || tokens.text("id_token") == "" {
				c.Error(tokens.body)
			}
		},
		"oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported": func(c conformance) {
			c.fails("request_uri_not_supported", "request_uri", "https://localhost.emobix.co.uk:8443/request")
		},
		"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported": func(c conformance) {
			c.fails("request_not_supported", "request", "eyJhbGciOiJub25lIn0.eyJzY29wZSI6Im9wZW5pZCJ9.")
		},
		"oidcc-claims-essential": func(c conformance) {
			tokens, _, _ := c.flow("claims", `{"userinfo":{"name":{"essential":true}}}`)
			c.userinfo(tokens, "name")
		},
		"oidcc-ensure-request-object-with-redirect-uri": func(c conformance) {
			c.fails("request_not_supported", "request", "eyJhbGciOiJub25lIn0.e30.")
		},
		"oidcc-refresh-token": func(c conformance) {
			tokens, before, _ := c.flow("scope", "openid offline_access", "prompt", "consent")
			next := c.token("suite", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens.text("refresh_token")}})
			after, _ := c.verified(next.text("id_token"), "ES256")
			for _, claim := range []string{"iss", "sub", "aud", "auth_time", "azp"} {
				if !reflect.DeepEqual(before[claim], after[claim]) {
					c.Errorf("%s was %v and is %v", claim, before[claim], after[claim])
				}
			}
			if a := c.token("suite-2", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {next.text("refresh_token")}}); a.text("error") != "invalid_grant" {
				c.Errorf("by another client: %v", a.body)
			}
			c.userinfo(next)
		},
		"oidcc-ensure-request-with-valid-pkce-succeeds": func(c conformance) {
			answer, _ := c.authorize("code_challenge", testChallenge, "code_challenge_method", "S256")
			if a := c.redeem(answer.Get("code"), "code_verifier", testVerifier); a.status != 200 {
				c.Error(a.body)
			}
		},
	}
}

func TestConformanceBasic(t *testing.T) { testConformance(t, "") }

func TestConformanceFormPost(t *testing.T) { testConformance(t, modeFormPost) }

func testConformance(t *testing.T, mode string) {
	s := browserServer(t, withSuite)
	modules := conformanceModules()
	if len(modules) != 38 {
		t.Errorf("%d modules, the plan has 38", len(modules))
	}
	for name, run := range modules {
		t.Run(name, func(t *testing.T) { run(conformance{t, newBrowser(t, s), mode}) })
	}
}
