package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

func fetch(t *testing.T, handler http.Handler, method, path string, header ...string) answer {
	t.Helper()
	request := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
		if header[i] == "Host" { // where the standard library keeps it
			request.Host = header[i+1]
		}
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	a := answer{status: recorder.Code, header: recorder.Header(), raw: recorder.Body.String()}
	json.Unmarshal(recorder.Body.Bytes(), &a.body)
	return a
}

func withIssuer(t *testing.T, issuer string) *authserver.Server {
	t.Helper()
	s := authservertest.New(t, authservertest.Options{})
	config := authservertest.Config(issuer)
	config.Store, config.Keys = s.Store, s.Keys
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// fromEvil are the headers by which a request says that it was sent elsewhere.
var fromEvil = []string{"Host", "evil.example", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "http", "X-Forwarded-Port", "6666",
	"X-Forwarded-Server", "evil.example", "X-Forwarded-Prefix", "/evil", "Forwarded", "for=6.6.6.6;host=evil.example;proto=http",
	"X-Original-URL", "/evil", "X-Rewrite-URL", "/evil", "X-Original-Host", "evil.example", "X-Host", "evil.example"}

// RFC 8414 §3: both names, the issuer's path inserted and appended (ATTACKS JK-07).
func TestMetadata(t *testing.T) {
	const issuer = "https://auth.example.com/tenant"
	server := withIssuer(t, issuer)
	for _, path := range []string{
		"/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/oauth-authorization-server",
		"/.well-known/openid-configuration/tenant", "/tenant/.well-known/openid-configuration",
	} {
		// ATTACKS JK-06: whatever the request says of hosts, the issuer is the configured one.
		a := fetch(t, server, "GET", path, fromEvil...)
		if a.status != 200 || a.text("issuer") != issuer || a.text("token_endpoint") != issuer+"/token" ||
			a.text("jwks_uri") != issuer+"/.well-known/jwks.json" || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
		if strings.Contains(a.raw, "evil") {
			t.Errorf("%s repeats a host of the request", path)
		}
	}
	for _, path := range []string{"/token", "/authorize", "/introspect", "/nowhere", "/tenant/token", "/tenant/authorize", "/tenant/nowhere"} {
		a := fetch(t, server, "GET", path, fromEvil...)
		for name, values := range a.header {
			if strings.Contains(strings.Join(values, " "), "evil") {
				t.Errorf("%s: %s is %v", path, name, values)
			}
		}
		if strings.Contains(a.raw, "evil") || a.status/100 == 2 {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
	for _, path := range []string{"/tenant/.well-known/jwks.json", "/healthz", "/readyz"} {
		if a := fetch(t, server, "GET", path); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, path := range []string{"/token", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"} {
		if a := fetch(t, server, "POST", path); a.status != 404 {
			t.Errorf("%s outside the issuer's path: %d", path, a.status)
		}
	}
}

// ATTACKS JK-01, JK-03, JK-04.
func TestJWKS(t *testing.T) {
	server := withIssuer(t, "https://auth.example.com")
	const path = "/.well-known/jwks.json"
	a := fetch(t, server, "GET", path)
	if a.status != 200 || a.header.Get("Content-Type") != "application/jwk-set+json" || a.header.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.HasPrefix(a.header.Get("Cache-Control"), "public, max-age=") || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	keys := a.body["keys"].([]any)
	if len(keys) != 2 {
		t.Errorf("%d keys, want one that signs and one that will", len(keys))
	}
	kids := make(map[any]bool)
	for _, key := range keys {
		key := key.(map[string]any)
		for member := range key {
			if !slices.Contains([]string{"kty", "crv", "x", "y", "kid", "use", "alg"}, member) {
				t.Errorf("member %s in a published key", member)
			}
		}
		if kid, _ := key["kid"].(string); kid == "" || kids[kid] || key["use"] != "sig" || key["alg"] != "ES256" || key["kty"] != "EC" || key["crv"] != "P-256" || key["x"] == nil || key["y"] == nil {
			t.Errorf("a published key: %v", key)
		}
		kids[key["kid"]] = true
	}
	etag := a.header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		if a := fetch(t, server, "GET", path, "If-None-Match", match); a.status != 304 || a.raw != "" {
			t.Errorf("If-None-Match %s: %d", match, a.status)
		}
	}
	if a := fetch(t, server, "GET", path, "If-None-Match", `"other"`); a.status != 200 {
		t.Errorf("another ETag: %d", a.status)
	}
	if a := fetch(t, server, "HEAD", path); a.status != 200 || a.raw != "" || a.header.Get("ETag") != etag {
		t.Errorf("HEAD: %d %q", a.status, a.raw)
	}
	// What is not offered is not done: all of it comes, as it is.
	for name, value := range map[string]string{
		"Range": "bytes=0-9", "Accept-Encoding": "gzip, br, deflate, zstd;q=1.0, identity;q=0, *;q=0", "If-Range": etag, "TE": "gzip",
		"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT", "Accept": "text/html", "If-Match": `"other"`,
	} {
		if got := fetch(t, server, "GET", path, name, value); got.status != 200 || got.raw != a.raw || got.header.Get("Content-Encoding") != "" || got.header.Get("Content-Range") != "" {
			t.Errorf("%s: %d %v %s", name, got.status, got.header, got.raw)
		}
	}
	many := strings.TrimSuffix(strings.Repeat("bytes=0-,", 1000), ",")
	if got := fetch(t, server, "GET", path, "Range", many); got.status != 200 || got.raw != a.raw {
		t.Errorf("a thousand ranges: %d", got.status)
	}
}

// ATTACKS CO-02 to CO-05.
func TestCORS(t *testing.T) {
	server := withIssuer(t, "https://auth.example.com")
	const registered = "https://web.example.com"
	for origin, want := range map[string]string{
		registered: registered, "https://web.example.com.evil.com": "", "https://evil.example": "", "http://web.example.com": "", "null": "",
		"https://web.example.com:444": "", "https://web.example.com/": "", "*": "",
	} {
		for _, method := range []string{"OPTIONS", "POST"} {
			a := fetch(t, server, method, "/token", "Origin", origin, "Access-Control-Request-Method", "POST")
			if got := a.header.Get("Access-Control-Allow-Origin"); got != want || a.header.Get("Vary") != "Origin" || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s from %s: allowed %q, Vary %q", method, origin, got, a.header.Get("Vary"))
			}
		}
	}
	if a := fetch(t, server, "POST", "/introspect", "Origin", registered); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("introspection is open to pages")
	}
	// CO-03: what is public is so for every page, with no cookies.
	for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		for _, method := range []string{"OPTIONS", "GET"} {
			a := fetch(t, server, method, path, "Origin", "https://evil.example", "Access-Control-Request-Method", "GET")
			if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %v", method, path, a.header)
			}
		}
	}
	for _, path := range []string{"/token", "/revoke", "/userinfo"} {
		// CO-04: a page may send what the endpoints ask for, and read what they say besides.
		a := fetch(t, server, "OPTIONS", path, "Origin", registered, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization, content-type")
		if allowed := a.header.Get("Access-Control-Allow-Headers"); a.status != 204 || !strings.Contains(allowed, "Authorization") || !strings.Contains(allowed, "Content-Type") ||
			!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("preflight of %s: %d %v", path, a.status, a.header)
		}
		if a = fetch(t, server, "POST", path, "Origin", registered); !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
			t.Errorf("%s exposes %q", path, a.header.Get("Access-Control-Expose-Headers"))
		}
		// CO-05: no cache takes the answer to one origin for that to another, or to none.
		for _, origin := range []string{registered, "https://evil.example", ""} {
			for _, method := range []string{"OPTIONS", "POST", "PUT"} {
				if a := fetch(t, server, method, path, "Origin", origin); a.header.Get("Vary") != "Origin" {
					t.Errorf("%s %s from %q: Vary %q", method, path, origin, a.header.Get("Vary"))
				}
			}
		}
	}
}

// Pages read userinfo with a token; what goes by cookies they never read (RFC 9700
// §2.6, ATTACKS CO-01).
func TestCORSOfPages(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	const registered = "https://web.example.com"
	for _, path := range []string{"/userinfo", "/authorize", "/login", "/consent", "/account", "/logout"} {
		for _, method := range []string{"OPTIONS", "GET", "POST"} {
			request, err := http.NewRequest(method, s.Issuer+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Origin", registered)
			request.Header.Set("Access-Control-Request-Method", "GET")
			a, want := send(t, request), ""
			if path == "/userinfo" {
				want = registered
			}
			if got := a.header.Get("Access-Control-Allow-Origin"); got != want || a.status == http.StatusNotFound || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %d, open to %q", method, path, a.status, got)
			}
			for name := range a.header {
				if want == "" && strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s says %s", method, path, name)
				}
			}
		}
	}
}

// The rules for an issuer (RFC 8414 §2).
func TestIssuerRules(t *testing.T) {
	for issuer, ok := range map[string]bool{
		"https://auth.example.com": true, "https://auth.example.com/a/b": true, "http://localhost:8080": true, "http://127.0.0.1:1": true, "http://[::1]:1": true,
		"": false, "auth.example.com": false, "http://auth.example.com": false, "https://auth.example.com/": false, "https://a/?q": false,
		"https://a/#f": false, "https://u@a": false, "ftp://a": false, "https://": false, "https://a//b": false, "https://a/../b": false, "https://a/%61": false,
	} {
		config := authservertest.Config(issuer)
		problems := config.Check()
		if (len(problems) == 0) != ok {
			t.Errorf("%q: %v", issuer, problems)
		}
	}
}
