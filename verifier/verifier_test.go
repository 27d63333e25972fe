package verifier_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/verifier"

	"github.com/go-jose/go-jose/v4"
)

const audience = "https://api.example.com"

// issuer is an issuer whose every answer the test decides.
type issuer struct {
	url     string
	private *ecdsa.PrivateKey
	fetches atomic.Int64
	keys    atomic.Value // func(http.ResponseWriter)
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{private: private}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.keys.Load().(func(http.ResponseWriter))(w)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	i.keys.Store(func(w http.ResponseWriter) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	return i
}

func (i *issuer) verifier(t *testing.T) *verifier.Verifier {
	t.Helper()
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: i.url, Audience: audience, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sign signs the claims of a good token with some changed; nil takes one away.
func (i *issuer) sign(t testing.TB, typ, kid string, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": i.url, "aud": audience, "sub": "alice", "client_id": "web", "jti": "1", "scope": "orders:read",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "roles": []string{"clerk"},
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", kid)
	if typ != "" {
		options = options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.private}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := signed.CompactSerialize()
	return compact
}

// RFC 9068 §4 (ATTACKS JW-08, JW-10 to JW-14, JW-30).
func TestVerify(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(t)
	now := time.Now()
	claims, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", nil))
	if err != nil {
		t.Fatal(err)
	}
	if claims.Subject != "alice" || claims.ClientID != "web" || !claims.HasScope("orders:read") || claims.HasScope("orders") || !claims.HasRole("clerk") {
		t.Errorf("%+v", claims)
	}
	for _, typ := range []string{"application/at+jwt", "AT+JWT"} {
		if _, err := v.Verify(t.Context(), i.sign(t, typ, "1", nil)); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
	for _, typ := range []string{"", "JWT", "rt+jwt", "dpop+jwt", "logout+jwt"} {
		if _, err := v.Verify(t.Context(), i.sign(t, typ, "1", nil)); err == nil {
			t.Errorf("typ %q was accepted", typ)
		}
	}
	for name, test := range map[string]struct {
		changes map[string]any
		ok      bool
	}{
		"several audiences":       {map[string]any{"aud": []string{"https://other.example.com", audience}}, true},
		"expired a moment ago":    {map[string]any{"exp": now.Add(-5 * time.Second).Unix()}, true},
		"issued in a moment":      {map[string]any{"iat": now.Add(5 * time.Second).Unix()}, true},
		"expired":                 {map[string]any{"exp": now.Add(-61 * time.Second).Unix()}, false},
		"exp of another type":     {map[string]any{"exp": "tomorrow"}, false},
		"exp negative":            {map[string]any{"exp": -1}, false},
		"nbf ahead":               {map[string]any{"nbf": now.Add(61 * time.Second).Unix()}, false},
		"iat ahead":               {map[string]any{"iat": now.Add(time.Hour).Unix()}, false},
		"iat beyond any time":     {map[string]any{"iat": int64(math.MaxInt64)}, false},
		"nbf beyond any time":     {map[string]any{"nbf": int64(math.MaxInt64)}, false},
		"no exp":                  {map[string]any{"exp": nil}, false},
		"no iat":                  {map[string]any{"iat": nil}, false},
		"no sub":                  {map[string]any{"sub": nil}, false},
		"no client_id":            {map[string]any{"client_id": nil}, false},
		"no jti":                  {map[string]any{"jti": nil}, false},
		"no iss":                  {map[string]any{"iss": nil}, false},
		"iss with a slash":        {map[string]any{"iss": i.url + "/"}, false},
		"no aud":                  {map[string]any{"aud": nil}, false},
		"another aud":             {map[string]any{"aud": "https://other.example.com"}, false},
		"aud of another type":     {map[string]any{"aud": map[string]any{}}, false},
		"scope as an array":       {map[string]any{"scope": []string{"orders:read"}}, false},
		"bound to a key":          {map[string]any{"cnf": map[string]string{"jkt": "x"}}, false},
		"exp in other letters":    {map[string]any{"exp": nil, "EXP": now.Add(time.Hour).Unix()}, false},
		"issuer in other letters": {map[string]any{"iss": strings.ToUpper(i.url)}, false},
	} {
		_, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", test.changes))
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		var refusal *verifier.Error
		if err != nil && (!errors.As(err, &refusal) || refusal.Code != "invalid_token") {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}

// ATTACKS JW-04, JW-05: made-up kids do not become requests to the issuer.
func TestUnknownKeysAreNotAmplified(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(t)
	if _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", nil)); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "made up "+string(rune('a'+n%26)), nil)); err == nil {
			t.Fatal("a token of an unknown key was accepted")
		}
	}
	if n := i.fetches.Load(); n > 2 {
		t.Errorf("%d fetches for made-up kids", n)
	}
}

// An issuer that is down when the API starts is waited for, and then a distinct error.
func TestIssuerDown(t *testing.T) {
	i := newIssuer(t)
	for name, answer := range map[string]func(http.ResponseWriter){
		"an error":   func(w http.ResponseWriter) { w.WriteHeader(500) },
		"HTML":       func(w http.ResponseWriter) { w.Write([]byte("<html>")) },
		"no keys":    func(w http.ResponseWriter) { w.Write([]byte(`{"keys":[]}`)) },
		"cut short":  func(w http.ResponseWriter) { w.Write([]byte(`{"keys":[{"kty":`)) },
		"too large":  func(w http.ResponseWriter) { w.Write([]byte(`{"keys":[],"x":"` + strings.Repeat("x", 70_000) + `"}`)) },
		"a redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) },
		"only private keys": func(w http.ResponseWriter) {
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.private, KeyID: "1", Algorithm: "ES256"}}})
		},
	} {
		i.keys.Store(answer)
		v := i.verifier(t)
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+i.sign(t, "at+jwt", "1", nil))
		short, cancel := contextWithTimeout(t, 200*time.Millisecond)
		v.Require()(http.NotFoundHandler()).ServeHTTP(w, r.WithContext(short))
		cancel()
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// RFC 6750 §3 (ATTACKS JW-28).
func TestMiddleware(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(t)
	good := i.sign(t, "at+jwt", "1", nil)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(verifier.FromContext(r.Context()).Subject))
	})
	for _, test := range []struct {
		name    string
		guard   func(http.Handler) http.Handler
		url     string
		headers []string
		status  int
		answer  string
	}{
		{"good", v.Require("orders:read"), "/", []string{"Bearer " + good}, 200, ""},
		{"role", v.RequireRole("admin", "clerk"), "/", []string{"bearer " + good}, 200, ""},
		{"none", v.Require(), "/", nil, 401, "Bearer"},
		{"none, and what to ask for", v.Require("orders:read"), "/", nil, 401, `Bearer scope="orders:read"`},
		{"nothing behind Bearer", v.Require(), "/", []string{"Bearer"}, 400, `Bearer error="invalid_request"`},
		{"spaces behind Bearer", v.Require(), "/", []string{"Bearer   "}, 400, `Bearer error="invalid_request"`},
		{"two tokens", v.Require(), "/", []string{"Bearer " + good + " " + good}, 400, `Bearer error="invalid_request"`},
		{"two tokens and a comma", v.Require(), "/", []string{"Bearer " + good + ", Bearer " + good}, 400, `Bearer error="invalid_request"`},
		{"two schemes", v.Require(), "/", []string{"Bearer,DPoP " + good}, 400, `Bearer error="invalid_request"`},
		{"another scheme with a token", v.Require(), "/", []string{"DPoP " + good}, 401, "Bearer"},
		{"junk", v.Require(), "/", []string{"Bearer junk"}, 401, `Bearer error="invalid_token"`},
		{"other scheme", v.Require(), "/", []string{"Basic eDp5"}, 401, "Bearer"},
		{"two headers", v.Require(), "/", []string{"Bearer " + good, "Bearer " + good}, 400, `Bearer error="invalid_request"`},
		{"two spaces", v.Require(), "/", []string{"Bearer  " + good}, 200, ""}, // 1*SP
		{"query", v.Require(), "/?access_token=" + good, []string{"Bearer " + good}, 400, `Bearer error="invalid_request"`},
		{"scope", v.Require("orders:read", "orders:write"), "/", []string{"Bearer " + good}, 403, `scope="orders:read orders:write"`},
		{"no role", v.RequireRole("admin"), "/", []string{"Bearer " + good}, 403, `Bearer error="insufficient_scope"`},
	} {
		r := httptest.NewRequest("GET", test.url, nil)
		for _, header := range test.headers {
			r.Header.Add("Authorization", header)
		}
		w := httptest.NewRecorder()
		test.guard(handler).ServeHTTP(w, r)
		challenge := w.Header().Get("WWW-Authenticate")
		if w.Code != test.status || !strings.Contains(challenge, test.answer) || test.answer == "Bearer" && challenge != "Bearer" {
			t.Errorf("%s: %d %q %s", test.name, w.Code, challenge, w.Body)
		}
	}
}

func TestConfig(t *testing.T) {
	for want, config := range map[string]verifier.Config{
		"Audience is empty":         {Issuer: "https://auth.example.com"},
		`Issuer "" is not`:          {Audience: audience},
		"must be https":             {Issuer: "http://auth.example.com", Audience: audience},
		"allowed are up to 1m0s":    {Issuer: "https://auth.example.com", Audience: audience, Leeway: time.Hour},
		`JWKSURI "ftp://x" must be`: {Issuer: "https://auth.example.com", Audience: audience, JWKSURI: "ftp://x"},
	} {
		if _, err := verifier.New(t.Context(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
