package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

var trace = regexp.MustCompile(`,"trace_id":"[0-9a-f]{32}"`)

// untraced is an answer without the one thing in which two refusals differ.
func (a answer) untraced() string { return trace.ReplaceAllString(a.raw, "") }

// FIELD 30: a refusal says by what its record, which has the cause, is found: in the
// answer, in what the client is sent by redirect, and on the page.
func TestRefusalsAreTraced(t *testing.T) {
	o := operate(t, func(c *authserver.Config) {
		withRetryWindow(0)(c)
		c.Clients = append(c.Clients, authserver.Client{ClientID: "shop", ClientSecret: authservertest.Secret, Scope: "orders:read",
			GrantTypes: []string{"authorization_code"}, RedirectURIs: []string{webCallback}})
	})
	s, token := o.Server, o.Issuer+"/token"
	seen := make(map[string]bool)
	traced := func(what, id, event, cause string) {
		t.Helper()
		if len(id) != 32 || seen[id] {
			t.Fatalf("%s: the trace_id is %q", what, id)
		}
		seen[id] = true
		found := 0
		for line := range strings.Lines(o.log.String()) {
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) != nil || record["trace_id"] != id {
				continue
			}
			if found++; record["event"] != event || !strings.Contains(line, cause) {
				t.Errorf("%s: the record is %s", what, line)
			}
		}
		if found != 1 {
			t.Errorf("%s: %d records", what, found)
		}
	}
	traced("a wrong secret", post(t, token, "service:wrong", form("grant_type", "client_credentials")).text("trace_id"), "refused", "wrong secret")
	traced("a wrong password", post(t, token, web, form("grant_type", "password", "username", "alice", "password", "wrong")).text("trace_id"), "sign_in_refused", "")
	first := post(t, token, web, form("grant_type", "password", "username", "alice", "password", authservertest.Password))
	renew := form("grant_type", "refresh_token", "refresh_token", first.text("refresh_token"))
	if a := post(t, token, web, renew); a.status != http.StatusOK || a.text("trace_id") != "" {
		t.Errorf("a refresh: %s", a.raw)
	}
	traced("a stolen token", post(t, token, web, renew).text("trace_id"), "refresh_theft", `"client_id":"web"`)

	v := newVisitor(t)
	page := v.get(authorizeURL(s, "shop", "redirect_uri", "https://evil.example/"))
	traced("a page", regexp.MustCompile(`[0-9a-f]{32}`).FindString(page.body), "refused", "redirect_uri")
	page = v.get(authorizeURL(s, "shop", "scope", "orders:write"))
	sent, err := url.Parse(page.to)
	if err != nil {
		t.Fatal(err)
	}
	traced("a redirect", sent.Query().Get("trace_id"), "refused", "invalid_scope")
	if text := sent.Query().Get("error_description"); !strings.HasSuffix(text, "; allowed are: orders:read") {
		t.Errorf("a redirect says %q", text)
	}
}

// Where nothing is, the answer says what was probably meant and where the endpoints are
// listed, and can be read by pages of any origin; it repeats nothing of the request.
func TestNothingIsThere(t *testing.T) {
	const issuer = "https://auth.example.com/tenant"
	server := withIssuer(t, issuer)
	for path, meant := range map[string]string{
		"/": "", "/nowhere": "", "/tenant/toekn": "", "/tenant/tokens?token=CANARY": "", "/CANARY": "",
		"/token": "/token", "/tenant/token/": "/token", "/tenant//token": "/token", "/tenant/TOKEN": "/token", "/tenant/oauth2/token": "/token",
		"/jwks.json": "/.well-known/jwks.json", "/tenant/.well-known/openid-configuration/": "/.well-known/openid-configuration",
	} {
		a := fetch(t, server, "GET", path, "Origin", "https://elsewhere.example")
		text := a.text("error_description")
		if a.status != http.StatusNotFound || !strings.HasSuffix(text, "the endpoints are listed at "+issuer+"/.well-known/openid-configuration") ||
			strings.Contains(a.raw, "CANARY") || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v %s", path, a.status, a.header, a.raw)
		}
		if said := strings.Contains(text, "did you mean "+issuer+meant+" ?"); said != (meant != "") || !said && strings.Contains(text, "mean") {
			t.Errorf("%s, which is %q: %s", path, meant, text)
		}
		if stripped := path == "/token" || path == "/jwks.json"; strings.Contains(text, "a proxy in front takes /tenant away") != stripped {
			t.Errorf("%s: %s", path, text)
		}
	}
	a := fetch(t, server, "OPTIONS", "/tenant/nowhere", "Origin", "https://elsewhere.example", "Access-Control-Request-Method", "GET")
	if a.status != http.StatusNoContent || !strings.HasPrefix(a.header.Get("Access-Control-Allow-Headers"), "*") {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
	pages := authservertest.New(t, authservertest.Options{})
	if a := post(t, pages.Issuer+"/nowhere", "", form()); a.status != http.StatusNotFound || a.text("error") != "invalid_request" {
		t.Errorf("a form: %d %s", a.status, a.raw)
	}
	request, err := http.NewRequest(http.MethodGet, pages.Issuer+"/CANARY", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/html,*/*")
	if page := send(t, request); page.status != http.StatusNotFound || page.header.Get("Content-Security-Policy") == "" ||
		!strings.Contains(page.raw, pages.Issuer+"/.well-known/openid-configuration") || strings.Contains(page.raw, "CANARY") {
		t.Errorf("in a browser: %d %v %s", page.status, page.header, page.raw)
	}
}
