package authserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/store/boltstore"

	"github.com/prometheus/client_golang/prometheus"
)

// Attack cases that no other test has, by their id. docs/attacks.md lists all.
func TestAttack(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	cc := form("grant_type", "client_credentials")
	request := func(t *testing.T, method, path string, header ...string) answer {
		t.Helper()
		r, err := http.NewRequest(method, s.Issuer+path, strings.NewReader(cc.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return send(t, r)
	}
	t.Run("CA-05", func(t *testing.T) {
		refused(t, "another client_id", post(t, s.Issuer+"/token", service, form("grant_type", "client_credentials", "client_id", "web")), 400, "invalid_request")
	})
	t.Run("CA-07", func(t *testing.T) {
		refused(t, "credentials in the query", request(t, "POST", "/token?client_id=service&client_secret="+authservertest.Secret), 401, "invalid_client")
	})
	t.Run("CO-06", func(t *testing.T) {
		for _, kind := range []string{"text/plain", "multipart/form-data; boundary=x", "application/json"} {
			if a := request(t, "POST", "/token", "Content-Type", kind, "Authorization", basic(service)); a.status != 400 {
				t.Errorf("%s: %d %s", kind, a.status, a.raw)
			}
		}
	})
	t.Run("HT-12", func(t *testing.T) {
		if a := request(t, "POST", "/token", "Authorization", basic(service), "Cookie", strings.Repeat("a=b; ", 10_000)); a.status != 200 && a.status != 431 {
			t.Errorf("10,000 cookies: %d %s", a.status, a.raw)
		}
		r, err := http.NewRequest("POST", s.Issuer+"/token", strings.NewReader(cc.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", "a="+strings.Repeat("b", 2<<20))
		response, err := http.DefaultClient.Do(r)
		if err != nil { // closed before all of it was sent
			return
		}
		response.Body.Close()
		if response.StatusCode != 431 {
			t.Errorf("a cookie of 2 MB: %s", response.Status)
		}
	})
	t.Run("HT-14", func(t *testing.T) {
		access := accessOf(t, s)
		secure := withIssuer(t, "https://auth.example.com")
		for _, path := range []string{"/token", "/introspect", "/revoke", "/userinfo"} {
			if a := fetch(t, secure, "POST", path); !strings.HasPrefix(a.header.Get("Strict-Transport-Security"), "max-age=31536000") {
				t.Errorf("%s: %v", path, a.header)
			}
			for _, credentials := range []string{basic(service), basic("service:wrong"), "Bearer " + access} {
				a := request(t, "POST", path, "Authorization", credentials)
				h := a.header
				if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Set-Cookie") != "" ||
					h.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %d %v", path, a.status, h)
				}
			}
		}
	})
	t.Run("HT-15", func(t *testing.T) {
		plain := regexp.MustCompile(`^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`)
		const canary = "CANARY<script>"
		for _, f := range []url.Values{
			form("grant_type", canary), form("grant_type", "client_credentials", "scope", canary), form("grant_type", "client_credentials", "resource", "https://x/"+canary),
			form("grant_type", "client_credentials", "scope", `"\`), form("grant_type", "client_credentials", canary, "1", canary, "2"), form(),
		} {
			a := post(t, s.Issuer+"/token", service, f)
			if !plain.MatchString(a.text("error_description")) || strings.Contains(a.raw, "CANARY") {
				t.Errorf("%v: %s", f, a.raw)
			}
		}
	})
	t.Run("IR-04", func(t *testing.T) {
		if a := request(t, "GET", "/introspect?token=x", "Authorization", basic(web)); a.status != 405 {
			t.Errorf("GET: %d", a.status)
		}
		refused(t, "token in the query", request(t, "POST", "/introspect?token=x", "Authorization", basic(web)), 400, "invalid_request")
	})
	t.Run("JK-08", func(t *testing.T) {
		for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/vars", "/admin", "/clients", "/users", "/v1/users", "/keys"} {
			if a := request(t, "GET", path); a.status != 404 {
				t.Errorf("%s: %d", path, a.status)
			}
		}
	})
	t.Run("JK-09", func(t *testing.T) {
		for _, a := range []answer{request(t, "GET", "/nowhere"), request(t, "PUT", "/token"), request(t, "POST", "/token")} {
			for _, telling := range []string{".go:", "goroutine", "/usr/", "store.db", "redis", "go1.", "authserver/"} {
				if strings.Contains(strings.ToLower(a.raw), telling) || a.header.Get("Server") != "" {
					t.Errorf("%d says %q: %s", a.status, telling, a.raw)
				}
			}
		}
	})
	t.Run("MX-06", func(t *testing.T) { // here: for no client that does not say so
		refused(t, "password", post(t, s.Issuer+"/token", service, form("grant_type", "password", "username", "alice", "password", authservertest.Password)), 400, "unauthorized_client")
	})
	t.Run("MX-10", func(t *testing.T) {
		a := post(t, s.Issuer+"/token", service, cc)
		claims := claimsOf(t, a.text("access_token"))
		if a.body["refresh_token"] != nil || a.body["id_token"] != nil || claims["sub"] != authservertest.ServiceID || claims["auth_time"] != nil {
			t.Errorf("%s %v", a.raw, claims)
		}
		refused(t, "openid", post(t, s.Issuer+"/token", service, form("grant_type", "client_credentials", "scope", "openid")), 400, "invalid_scope")
	})
	t.Run("RT-09", func(t *testing.T) {
		_, refreshToken := signIn(t, s, "orders:read")
		for name, f := range map[string]url.Values{
			"client_id alone":   form("client_id", authservertest.WebID),
			"an empty secret":   form("client_id", authservertest.WebID, "client_secret", ""),
			"nothing":           form(),
			"a wrong secret":    form("client_id", authservertest.WebID, "client_secret", "wrong"),
			"another's secrets": form("client_id", "nobody", "client_secret", authservertest.Secret),
		} {
			f.Set("grant_type", "refresh_token")
			f.Set("refresh_token", refreshToken)
			refused(t, name, post(t, s.Issuer+"/token", "", f), 401, "invalid_client")
		}
		if a := refresh(t, s, refreshToken); a.status != 200 {
			t.Errorf("the owner: %d %s", a.status, a.raw)
		}
	})
	t.Run("RT-17", func(t *testing.T) {
		access, refreshToken := signIn(t, s, "orders:read")
		if err := s.Store.Delete(t.Context(), authserver.Grants(s.Store).Key(claimsOf(t, access)["grant_id"].(string))); err != nil {
			t.Fatal(err)
		}
		refused(t, "a genuine token without a record", refresh(t, s, refreshToken), 400, "invalid_grant")
	})
	t.Run("RT-19", func(t *testing.T) {
		access, before := signIn(t, s, "orders:read")
		next := refresh(t, s, before)
		newest := next.text("refresh_token")
		if a := post(t, s.Issuer+"/revoke", web, form("token", newest)); a.status != 200 {
			t.Fatal(a.raw)
		}
		for _, token := range []string{newest, before, access, next.text("access_token")} {
			if a := introspect(t, s, web, token); a.raw != `{"active":false}` {
				t.Errorf("introspection: %s", a.raw)
			}
		}
		refused(t, "the revoked one", refresh(t, s, newest), 400, "invalid_grant")
		refused(t, "the one before, within its retry window", refresh(t, s, before), 400, "invalid_grant")
	})
	t.Run("RT-24", func(t *testing.T) {
		_, refreshToken := signIn(t, s, "orders:read")
		a := post(t, s.Issuer+"/token", web, form("grant_type", "refresh_token", "refresh_token", refreshToken,
			"client_session_host", "evil.example", "client_session_state", "x", "code", "y", "username", "bob", "password", "z"))
		if a.status != 200 || strings.Contains(a.raw, "evil") || claimsOf(t, a.text("access_token"))["sub"] != claimsOf(t, refreshToken)["sub"] {
			t.Errorf("%d %s", a.status, a.raw)
		}
	})
}

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ATTACKS LG-01 to LG-04: with everything that people and clients do, right and wrong,
// logged at the lowest level, no secret and no token is in the log, the metrics or the
// store; what strangers send does not break a line or make a label.
func TestNothingTellsASecret(t *testing.T) {
	var log lines
	registry := prometheus.NewRegistry()
	file := filepath.Join(t.TempDir(), "store.db")
	opened, err := boltstore.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s := authservertest.New(t, authservertest.Options{Store: opened, Configure: func(c *authserver.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Registry = registry
	}})
	secrets := map[string]string{"password": authservertest.Password, "client secret": authservertest.Secret}
	canary := func(name string) string {
		secrets[name] = "canary-" + strings.ReplaceAll(name, " ", "-") + "-5d2c61f7"
		return secrets[name]
	}
	access, refreshToken := signIn(t, s, "orders:read profile")
	next := refresh(t, s, refreshToken)
	last := refresh(t, s, next.text("refresh_token"))
	refresh(t, s, refreshToken) // theft
	for name, token := range map[string]string{"access token": access, "refresh token": refreshToken, "next": next.text("refresh_token"), "last": last.text("access_token")} {
		secrets[name], secrets[name+"'s signature"] = token, token[strings.LastIndexByte(token, '.')+1:]
		introspect(t, s, web, token)
		post(t, s.Issuer+"/revoke", web, form("token", token))
		refresh(t, s, token+"A")
		post(t, s.Issuer+"/token", web+"x", form("grant_type", "refresh_token", "refresh_token", token))
	}
	const hostile = "eve\"\n{\"level\":\"INFO\",\"event\":\"forged\"}\x1b[31m"
	for _, f := range []url.Values{
		form("grant_type", "password", "username", "alice", "password", canary("wrong password")),
		form("grant_type", "password", "username", hostile, "password", canary("unknown user's password")),
		form("grant_type", canary("grant type"), "code", canary("code"), "code_verifier", canary("verifier")),
		form("grant_type", "authorization_code", "code", canary("made-up code"), "code_verifier", canary("made-up verifier")),
		form("grant_type", "refresh_token", "refresh_token", canary("made-up token")),
		form("client_assertion_type", assertionType, "client_assertion", canary("assertion")),
		form("grant_type", "client_credentials", "scope", hostile, "resource", hostile),
	} {
		post(t, s.Issuer+"/token", web, f)
		post(t, s.Issuer+"/token", "", f)
		post(t, s.Issuer+"/token", "web:"+canary("wrong secret"), f)
		post(t, s.Issuer+"/token", hostile+":"+secrets["wrong secret"], f)
	}
	r, _ := http.NewRequest("POST", s.Issuer+"/token?client_secret="+canary("secret in the query"), nil)
	r.Header.Set("Cookie", "session="+canary("cookie"))
	r.Header.Set("Traceparent", hostile[:3]+canary("traceparent"))
	send(t, r)

	for _, path := range []string{"/authorize", "/login", "/consent", "/logout", "/account", "/userinfo", "/revocations", "/introspect", "/revoke", "/.well-known/jwks.json", "/readyz", "/nowhere"} {
		for i := range 5 { // whatever strangers choose: nothing of it becomes a label
			for _, method := range []string{"GET", "POST", fmt.Sprint("M", i)} {
				choice := url.QueryEscape(fmt.Sprint(hostile, path, i, method))
				if path == "/nowhere" {
					path = fmt.Sprint("/nowhere/", i, method)
				}
				r, err := http.NewRequest(method, s.Issuer+path+"?client_id="+choice+"&scope="+choice+"&error="+choice, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Origin", fmt.Sprintf("https://%d.example", i))
				r.Header.Set("User-Agent", `eve","event":"forged","x":"`)
				r.Header.Set("X-Request-Id", strings.Repeat(`eve","event":"forged","x":"`, 400))
				response, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
			}
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var metrics strings.Builder
	for _, family := range families {
		metrics.WriteString(family.String() + "\n")
		if n := len(family.GetMetric()); n > 100 {
			t.Errorf("%s has %d series", family.GetName(), n)
		}
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"log": log.String(), "metrics": metrics.String(), "store": string(stored)} {
		for name, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds the %s", place, name)
			}
		}
	}
	// Each record is one line of JSON, whatever is in it.
	events := make(map[string]bool)
	for line := range strings.Lines(log.String()) {
		var record struct{ Msg, Event string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Msg == "" {
			t.Errorf("not a record: %q", line)
		}
		events[record.Event] = true
	}
	if events["forged"] {
		t.Error("a record was forged")
	}
	// Every kind of decision made here has its record.
	for _, event := range []string{"token", "sign_in", "sign_in_refused", "refresh_theft", "revocation"} {
		if !events[event] {
			t.Errorf("no record of %s among %v", event, events)
		}
	}
}
