package verifier_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authserver/verifier"
	"authserver/verifier/verifiertest"
)

// bearer is a request with a token.
func bearer(token string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// ask sends a request through a guard to a handler that answers 204.
func ask(guard func(http.Handler) http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })).ServeHTTP(w, r)
	return w
}

// RFC 6750 §3.1 and RFC 9470 §3: what is missing, and what a client is to do about it.
func TestRequirements(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: verifier.AcceptUntilExpiry}) // how fresh the feed is on a busy machine is not the matter
	now := time.Now()
	claims := func(more verifiertest.Claims) string {
		more["aud"], more["scope"], more["roles"] = audience, "orders:read orders:write", []string{"clerk"}
		return issuer.Token(more)
	}
	recent := verifiertest.Claims{"auth_time": now.Add(-time.Minute).Unix(), "acr": "mfa"}
	old := verifiertest.Claims{"auth_time": now.Add(-time.Hour).Unix(), "acr": "pwd"}
	for _, test := range []struct {
		name        string
		claims      verifiertest.Claims
		requirement verifier.Requirement
		status      int
		challenge   string
	}{
		{"nothing", verifiertest.Claims{}, verifier.Requirement{}, 204, ""},
		{"scopes", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"orders:read", "orders:write"}}, 204, ""},
		{"a part of a scope", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"orders"}}, 403,
			`Bearer error="insufficient_scope", error_description="the token was not granted orders", scope="orders"`},
		{"the end of a scope", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"read"}}, 403, ""},
		{"more than a scope", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"orders:read2"}}, 403, ""},
		{"two scopes as one", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"orders:read orders:write"}}, 403, ""},
		{"another case", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{"Orders:read"}}, 403, ""},
		{"the empty scope", verifiertest.Claims{}, verifier.Requirement{Scopes: []string{""}}, 403, ""},
		{"one of the roles", verifiertest.Claims{}, verifier.Requirement{Roles: []string{"admin", "clerk"}}, 204, ""},
		{"none of the roles", verifiertest.Claims{}, verifier.Requirement{Roles: []string{"admin"}}, 403, `error="insufficient_scope"`},
		{"acr and age", recent, verifier.Requirement{ACR: []string{"other", "mfa"}, MaxAge: 5 * time.Minute}, 204, ""},
		{"another acr", old, verifier.Requirement{ACR: []string{"mfa", "phr"}}, 401,
			`Bearer error="insufficient_user_authentication", error_description="the user did not sign in in the way that this needs", acr_values="mfa phr"`},
		{"no acr", verifiertest.Claims{}, verifier.Requirement{ACR: []string{"mfa"}}, 401, `acr_values="mfa"`},
		{"too long ago", old, verifier.Requirement{MaxAge: 5 * time.Minute}, 401,
			`Bearer error="insufficient_user_authentication", error_description="the user signed in too long ago for this", max_age=300`},
		{"never", verifiertest.Claims{}, verifier.Requirement{MaxAge: 5 * time.Minute}, 401, "max_age=300"},
		{"both", old, verifier.Requirement{ACR: []string{"pwd"}, MaxAge: time.Minute}, 401, `acr_values="pwd", max_age=60`},
	} {
		w := ask(v.Protect(test.requirement), bearer(claims(test.claims)))
		if challenge := w.Header().Get("WWW-Authenticate"); w.Code != test.status || !strings.Contains(challenge, test.challenge) {
			t.Errorf("%s: %d %s", test.name, w.Code, challenge)
		}
	}
}

// RFC 6750 §2 (ATTACKS JW-28): a second token in a form is refused, and a form
// without one arrives whole.
func TestTokenInForm(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: verifier.AcceptUntilExpiry}) // how fresh the feed is on a busy machine is not the matter
	token := issuer.Token(verifiertest.Claims{"aud": audience})
	long := "text=" + strings.Repeat("x", 100_000)
	for body, want := range map[string]int{
		"access_token=" + token: 400, "a=b&access_token=": 400, "a=b": 200, "": 200, "%zz": 200, long: 200,
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
		w := httptest.NewRecorder()
		v.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if read, err := io.ReadAll(r.Body); err != nil || string(read) != body {
				t.Errorf("%.30q arrives as %.30q, %v", body, read, err)
			}
		})).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%.30q: %d %s", body, w.Code, w.Body)
		}
	}
	// Metrics hear of it.
	var observed verifier.Observation
	watched, err := verifier.New(t.Context(), verifier.Config{Issuer: issuer.URL, Audience: audience, Observe: func(o verifier.Observation) { observed = o }})
	if err != nil {
		t.Fatal(err)
	}
	twice := httptest.NewRequest("POST", "/", strings.NewReader("access_token="+token))
	twice.Header.Set("Authorization", "Bearer "+token)
	twice.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := ask(watched.Require(), twice); w.Code != 400 || observed.Reason != verifier.BadRequest {
		t.Errorf("%d, observed as %q", w.Code, observed.Reason)
	}
	// Alone, a token in the body is none.
	r := httptest.NewRequest("POST", "/", strings.NewReader("access_token="+token))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := ask(v.Require(), r); w.Code != 401 {
		t.Errorf("a token in the body: %d", w.Code)
	}
}

// Whatever error a handler passes on, the request is refused.
func TestWriteErrorOfOthers(t *testing.T) {
	issuer := verifiertest.New(t)
	v := issuer.Verifier(t, audience)
	for _, err := range []error{io.EOF, &verifier.Error{Code: "of_their_own", Description: "x"}, fmt.Errorf("wrapped: %w", &verifier.Error{Code: "of_their_own"})} {
		w := httptest.NewRecorder()
		v.WriteError(w, err)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%v: %d", err, w.Code)
		}
	}
}

// RFC 9728 §3, §5.1.
func TestProtectedResourceMetadata(t *testing.T) {
	issuer := verifiertest.New(t)
	for resource, want := range map[string]string{
		"https://api.example.com":           "https://api.example.com/.well-known/oauth-protected-resource",
		"https://api.example.com/":          "https://api.example.com/.well-known/oauth-protected-resource",
		"https://api.example.com:8443/v1/a": "https://api.example.com:8443/.well-known/oauth-protected-resource/v1/a",
		"urn:example:api":                   "",
	} {
		v := issuer.Verifier(t, resource)
		mux := http.NewServeMux()
		v.ServeMetadata(mux, verifier.Metadata{Scopes: []string{"orders:read"}, Name: "Orders"})
		challenge := ask(v.Require(), httptest.NewRequest("GET", "/", nil)).Header().Get("WWW-Authenticate")
		if want == "" {
			if challenge != "Bearer" {
				t.Errorf("%s: %s", resource, challenge)
			}
			continue
		}
		if challenge != `Bearer resource_metadata="`+want+`"` {
			t.Errorf("%s: %s", resource, challenge)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", want, nil))
		wanted := `{"resource":"` + resource + `","authorization_servers":["` + issuer.URL + `"],"scopes_supported":["orders:read"],` +
			`"bearer_methods_supported":["header"],"resource_name":"Orders"}`
		if w.Code != 200 || w.Body.String() != wanted || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", resource, w.Code, w.Body)
		}
	}
}

// Every wrong token has a reason of its own, and metrics hear of it.
func TestReasons(t *testing.T) {
	issuer := verifiertest.New(t)
	seen := make(map[verifier.Reason]int)
	v := issuer.Configured(t, verifier.Config{Audience: audience, WhenStale: verifier.AcceptUntilExpiry, Observe: func(o verifier.Observation) { seen[o.Reason]++ }})
	good := issuer.Token(verifiertest.Claims{"aud": audience})
	for range 2 {
		if reason := reasonOf(t, v, good); reason != "" {
			t.Fatal(reason)
		}
	}
	wrong := 0
	for name, token := range issuer.WrongTokens(audience) {
		if reason := reasonOf(t, v, token); reason == "" {
			t.Errorf("%s: accepted", name)
		}
		wrong++
	}
	for _, reason := range []verifier.Reason{"", verifier.Malformed, verifier.WrongType, verifier.UnknownKey, verifier.BadSignature, verifier.WrongIssuer,
		verifier.WrongAudience, verifier.MissingClaim, verifier.Expired, verifier.NotYetValid, verifier.BoundToKey} {
		if seen[reason] == 0 {
			t.Errorf("nothing was observed for %q", reason)
		}
		wrong -= seen[reason]
	}
	if wrong != -2 {
		t.Errorf("observed %v", seen)
	}
	ask(v.Require(), httptest.NewRequest("GET", "/", nil))
	ask(v.Require("orders:read"), bearer(good))
	ask(v.RequireRole("admin"), bearer(good))
	ask(v.Protect(verifier.Requirement{MaxAge: time.Minute}), bearer(good))
	ask(v.Require(), httptest.NewRequest("GET", "/?access_token=x", nil))
	for _, reason := range []verifier.Reason{verifier.NoToken, verifier.MissingScope, verifier.MissingRole, verifier.WeakAuthentication, verifier.BadRequest} {
		if seen[reason] != 1 {
			t.Errorf("%s was observed %d times", reason, seen[reason])
		}
	}
}
