package verifier_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/timetest"
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

// known is a verifier that has the issuer's keys, however long a busy machine takes.
func (i *issuer) known(t *testing.T) *verifier.Verifier {
	t.Helper()
	v := i.verifier(t)
	timetest.AwaitNil(t, func() error { _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", nil)); return err })
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
	header := map[string]any{"kid": kid}
	if typ != "" {
		header["typ"] = typ
	}
	return signPayload(t, i.private, header, string(payload))
}

// signPayload signs whatever payload under whatever header.
func signPayload(t testing.TB, private *ecdsa.PrivateKey, header map[string]any, payload string) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range header {
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := signed.CompactSerialize()
	return compact
}

// RFC 9068 §4 (ATTACKS JW-08, JW-10 to JW-14, JW-30).
func TestVerify(t *testing.T) {
	i := newIssuer(t)
	v := i.known(t)
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
		"exp beyond any number":   {map[string]any{"exp": json.RawMessage("1e308")}, false},
		"exp with a fraction":     {map[string]any{"exp": json.RawMessage(fmt.Sprint(now.Add(time.Minute).Unix(), ".5"))}, false},
		"exp with an exponent":    {map[string]any{"exp": json.RawMessage("2e9")}, false},
		"exp null":                {map[string]any{"exp": json.RawMessage("null")}, false},
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
		"iss of another tenant":   {map[string]any{"iss": i.url + "/tenant"}, false},
		"another iss":             {map[string]any{"iss": "https://other.example.com"}, false},
		"iss as an array":         {map[string]any{"iss": []string{i.url}}, false},
		"no aud":                  {map[string]any{"aud": nil}, false},
		"another aud":             {map[string]any{"aud": "https://other.example.com"}, false},
		"a part of the aud":       {map[string]any{"aud": audience + "/v2"}, false},
		"several others":          {map[string]any{"aud": []string{"https://other.example.com", i.url}}, false},
		"aud an empty array":      {map[string]any{"aud": []string{}}, false},
		"aud a number":            {map[string]any{"aud": 1}, false},
		"aud with a hole":         {map[string]any{"aud": []any{nil, audience}}, false},
		"aud in an array of one":  {map[string]any{"aud": []any{[]string{audience}}}, false},
		"aud of another type":     {map[string]any{"aud": map[string]any{}}, false},
		"scope as an array":       {map[string]any{"scope": []string{"orders:read"}}, false},
		"bound to a key":          {map[string]any{"cnf": map[string]string{"jkt": "x"}}, false},
		"bound to a certificate":  {map[string]any{"cnf": map[string]string{"x5t#S256": "x"}}, false},
		"bound by other means":    {map[string]any{"cnf": map[string]string{"kid": "x"}}, false},
		"bound to nothing":        {map[string]any{"cnf": map[string]string{}}, false},
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

// ATTACKS JW-15, JW-19: what two readers could read differently is refused, though the
// issuer has signed it.
func TestAmbiguousClaims(t *testing.T) {
	i := newIssuer(t)
	v := i.known(t)
	header := map[string]any{"kid": "1", "typ": "at+jwt"}
	payload := func(exp time.Duration, more string) string {
		return fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"alice","client_id":"web","jti":"1","iat":%d,"exp":%d%s}`,
			i.url, audience, time.Now().Unix(), time.Now().Add(exp).Unix(), more)
	}
	if _, err := v.Verify(t.Context(), signPayload(t, i.private, header, payload(time.Minute, ""))); err != nil {
		t.Fatal(err)
	}
	later := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	for name, text := range map[string]string{
		"exp twice": payload(-time.Hour, `,"exp":`+later), "exp twice, escaped": payload(-time.Hour, `,"\u0065xp":`+later),
		"sub twice": payload(time.Minute, `,"sub":"admin"`), "aud twice": payload(time.Minute, `,"aud":"x"`), "iss twice": payload(time.Minute, `,"iss":"x"`),
		"an unknown claim twice": payload(time.Minute, `,"x":1,"x":2`), "twice further in": payload(time.Minute, `,"x":{"y":1,"y":2}`),
		"a byte order mark": "\ufeff" + payload(time.Minute, ""), "no UTF-8": payload(time.Minute, ",\"x\":\"\xff\""),
		"UTF-16": string(utf16Of(payload(time.Minute, ""))), "two objects": payload(time.Minute, "") + "{}", "an array": "[" + payload(time.Minute, "") + "]",
		"text": "alice", "nothing": "", "null": "null",
	} {
		if claims, err := v.Verify(t.Context(), signPayload(t, i.private, header, text)); err == nil {
			t.Errorf("%s: %+v", name, claims)
		}
	}
}

// utf16Of is ASCII in UTF-16, big endian.
func utf16Of(text string) (encoded []byte) {
	for _, letter := range []byte(text) {
		encoded = append(encoded, 0, letter)
	}
	return encoded
}

// ATTACKS JW-06: a key in the header, or the address of one, is neither taken nor fetched.
func TestAttackJW06(t *testing.T) {
	i := newIssuer(t)
	v := i.known(t)
	good := i.sign(t, "at+jwt", "1", nil)
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: &attacker.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}
	var asked atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk}})
	}))
	t.Cleanup(canary.Close)
	payload := strings.Split(good, ".")[1]
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	for member, value := range map[string]any{
		"jwk": jwk, "jku": canary.URL, "x5u": canary.URL, "x5c": []string{"AA=="}, "x5t": "AA", "x5t#S256": "AA", "kid": canary.URL,
	} {
		for _, kid := range []any{"1", "unknown", canary.URL, nil} {
			header := map[string]any{"typ": "at+jwt"}
			if kid != nil {
				header["kid"] = kid
			}
			header[member] = value
			if claims, err := v.Verify(t.Context(), signPayload(t, attacker, header, string(claims))); err == nil {
				t.Errorf("%s with kid %v: %+v", member, kid, claims)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the address in the header was asked %d times", n)
	}
	if n := i.fetches.Load(); n > 2 {
		t.Errorf("the issuer was asked for its keys %d times", n)
	}
}

// ATTACKS JW-25: a key that cannot be used is said so, and the others are used.
func TestRefusedKeyOfTheIssuer(t *testing.T) {
	i := newIssuer(t)
	i.keys.Store(func(w http.ResponseWriter) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "2", Algorithm: "HS256"}, {Key: &i.private.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"},
		}})
	})
	var log lockedBuffer
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: i.url, Audience: audience, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", nil)); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "a key of the issuer is not used") || strings.Contains(text, "0123456789abcdef") {
		t.Errorf("the log says %q", text)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// ATTACKS JW-04, JW-05: made-up kids do not become requests to the issuer.
func TestUnknownKeysAreNotAmplified(t *testing.T) {
	i := newIssuer(t)
	v := i.known(t)
	if _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "1", nil)); err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if _, err := v.Verify(t.Context(), i.sign(t, "at+jwt", "made up "+string(rune('a'+n%26)), nil)); err == nil {
			t.Fatal("a token of an unknown key was accepted")
		}
	}
	// Signed by the right key: its kid is not to be guessed from what else is there.
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(i.sign(t, "at+jwt", "1", nil), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, kid := range map[string]any{
		"none": nil, "empty": "", "a number": 1, "an array": []string{"1"}, "an object": map[string]string{"kid": "1"}, "1 MB": strings.Repeat("1", 1<<20),
		"a path": "../../../../dev/null", "SQL": "' OR 1=1--", "NUL": "1\x00", "a space": "1 ", "another case": "\uff11",
	} {
		header := map[string]any{"typ": "at+jwt"}
		if kid != nil {
			header["kid"] = kid
		}
		if _, err := v.Verify(t.Context(), signPayload(t, i.private, header, string(claims))); err == nil {
			t.Errorf("kid %s: accepted", name)
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
	v := i.known(t)
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
		{"query alone", v.Require(), "/?access_token=" + good, nil, 400, `Bearer error="invalid_request"`},
		{"too long", v.Require(), "/", []string{"Bearer " + good + strings.Repeat("A", 16<<10)}, 401, `Bearer error="invalid_token"`},
		{"1 MB", v.Require(), "/", []string{"Bearer " + strings.Repeat("A", 1<<20)}, 401, `Bearer error="invalid_token"`},
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
