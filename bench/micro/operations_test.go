package micro

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/intake"
	"authserver/internal/redistest"
	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/redisstore"
	"authserver/verifier"
)

// measured is one operation that is called again and again.
type measured struct {
	name   string
	call   func() error
	before func() error // what each call needs, and is not measured, if there is any
}

// whole is a call and what it needs.
func (m measured) whole() error {
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	return m.call()
}

// all returns every operation that is measured: the server's on both stores, and
// those of its parts.
func all(t testing.TB) []measured {
	embedded, redis := stores(t)
	return slices.Concat(endpoints(t, "embedded", embedded), []measured{byEdDSA(t)}, endpoints(t, "Redis", redis),
		methods(t, "embedded", embedded), methods(t, "Redis", redis), parts(t))
}

func stores(t testing.TB) (embedded, redis store.Store) {
	embedded, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	redis, err = redisstore.Open(t.Context(), redisstore.Options{
		URL: redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always").URL(), Logger: slog.New(slog.DiscardHandler),
		Timeout: time.Minute, // counting takes its time
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { redis.Close() })
	return embedded, redis
}

// serverOn starts a server, and returns it and its endpoints without a network.
func serverOn(t testing.TB, s store.Store, algorithms ...string) (*authservertest.Server, *endpoint) {
	var config authserver.Config
	running := authservertest.New(t, authservertest.Options{Store: s, Algorithms: algorithms, Configure: func(c *authserver.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil)) // as in production
		for i := range c.Clients {
			if c.Clients[i].ClientID == authservertest.WebID {
				c.Clients[i].GrantTypes = append(c.Clients[i].GrantTypes, "client_credentials", "authorization_code")
				c.Clients[i].Scope += " openid"
			}
		}
		config = *c
	}})
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return running, &endpoint{handler: server.Handler(), header: make(http.Header)}
}

// byEdDSA is a token whose signature allocates next to nothing, so that what the server
// itself allocates is seen.
func byEdDSA(t testing.TB) measured {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, e := serverOn(t, s, "EdDSA")
	own := e.post("/token", url.Values{"grant_type": {"client_credentials"}})
	return measured{name: "embedded: token, client_credentials by EdDSA", call: func() error { return e.serve(own, `"access_token":"`) }}
}

// endpoints are the server's operations on one store.
func endpoints(t testing.TB, name string, s store.Store) []measured {
	const callback = "https://web.example.com/callback"
	running, e := serverOn(t, s)
	first, err := e.tokens(url.Values{"grant_type": {"password"}, "username": {authservertest.Username}, "password": {authservertest.Password},
		"scope": {"orders:read orders:write profile roles"}}) // without an ID token, which only a sign-in has
	if err != nil {
		t.Fatal(err)
	}
	token := func(grant string) prepared { return e.post("/token", url.Values{"grant_type": {grant}}) }
	own, refresh, redeem := token("client_credentials"), token("refresh_token"), token("authorization_code")
	asked, keySet, metadata := e.post("/introspect", url.Values{"token": {first.Access}}), e.get("/.well-known/jwks.json"), e.get("/.well-known/openid-configuration")

	secret := strings.Repeat("verifier", 6)
	challenge := sha256.Sum256([]byte(secret))
	authorize := e.get("/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {authservertest.WebID}, "redirect_uri": {callback}, "scope": {"openid orders:read"}, "state": {"state"}, "nonce": {"nonce"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	visitor := authservertest.NewVisitor(t)
	visitor.Until = callback
	visitor.Visit(t, running.Issuer+authorize.request.URL.String())
	for _, cookie := range visitor.Cookies(t, running.Issuer) {
		authorize.request.AddCookie(cookie)
	}
	var code string
	toCode := func() error {
		if err := e.serve(authorize, ""); err != nil {
			return err
		}
		_, code, _ = strings.Cut(e.header.Get("Location"), "?code=")
		code, _, _ = strings.Cut(code, "&")
		if code == "" {
			return fmt.Errorf("no code in %q", e.header.Get("Location"))
		}
		return nil
	}
	ofCode := "&redirect_uri=" + url.QueryEscape(callback) + "&code_verifier=" + secret + "&code="
	current := first.Refresh
	return []measured{
		{name: name + ": token, client_credentials", call: func() error { return e.serve(own, `"access_token":"`) }},
		{name: name + ": token, refresh_token", call: func() error {
			if err := e.serve(refresh.with("&refresh_token="+current), `"refresh_token":"`); err != nil {
				return err // and asks again with the same
			}
			_, current, _ = strings.Cut(e.body.String(), `"refresh_token":"`)
			current, _, _ = strings.Cut(current, `"`)
			return nil
		}},
		{name: name + ": authorize, signed in", call: toCode},
		{name: name + ": token, authorization_code", before: toCode, call: func() error { return e.serve(redeem.with(ofCode+code), `"id_token":"`) }},
		{name: name + ": introspect", call: func() error { return e.serve(asked, `"active":true`) }},
		{name: name + ": jwks", call: func() error { return e.serve(keySet, `"keys"`) }},
		{name: name + ": metadata", call: func() error { return e.serve(metadata, `"issuer"`) }},
	}
}

// parts are what the server and resource servers are made of.
func parts(t testing.TB) []measured {
	running := authservertest.New(t, authservertest.Options{})
	token, err := running.Keys.Sign("ES256", "at+jwt", fmt.Appendf(nil, `{"iss":%q,"sub":"alice","aud":%q,"client_id":"web","scope":"orders:read",`+
		`"jti":"0123456789abcdef0123456789abcdef","iat":%d,"exp":%d,"grant_id":"0123456789abcdef0123456789abcdef"}`,
		running.Issuer, authservertest.Audience, time.Now().Unix(), time.Now().Add(time.Hour).Unix()))
	if err != nil {
		t.Fatal(err)
	}
	return append([]measured{
		{name: "sign ES256", call: func() error {
			_, err := running.Keys.Sign("ES256", "at+jwt", []byte(`{"iss":"https://auth.example.com","sub":"alice"}`))
			return err
		}},
		{name: "sign refresh token", call: func() error {
			_, err := running.Keys.Sign(keys.RefreshRing, "rt+jwt", []byte(`{"iss":"https://auth.example.com","sub":"alice"}`))
			return err
		}},
		{name: "parse a token", call: func() error {
			_, err := intake.Parse(token)
			return err
		}},
	}, verifications(t, running.Issuer, token)...)
}

func verifications(t testing.TB, issuer, token string) []measured {
	var list []measured
	for _, kind := range []struct {
		name  string
		cache int
	}{{"verify, first look", -1}, {"verify, second look", 1 << 20}} {
		v, err := verifier.New(t.Context(), verifier.Config{
			Issuer: issuer, Audience: authservertest.Audience, CacheBytes: kind.cache, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, measured{name: kind.name, call: func() error {
			_, err := v.Verify(t.Context(), token)
			return err
		}})
	}
	return list
}

// methods are those of a store.
func methods(t testing.TB, name string, s store.Store) []measured {
	ctx, value, later := context.Background(), make([]byte, 300), time.Now().Add(time.Hour)
	if err := s.Create(ctx, "present", value, later); err != nil {
		t.Fatal(err)
	}
	version, n := uint64(1), 0 // of present, and of keys made
	next := func() string { n++; return fmt.Sprintf("key/%d", n) }
	return []measured{
		{name: name + " store: Get", call: func() error { _, err := s.Get(ctx, "present"); return err }},
		{name: name + " store: Create", call: func() error { return s.Create(ctx, next(), value, later) }},
		{name: name + " store: Swap", call: func() error {
			record, err := s.Swap(ctx, "present", version, nil, later)
			version = record.Version
			return err
		}},
		{name: name + " store: Delete", call: func() error { return s.Delete(ctx, next()) }},
		{name: name + " store: Add", call: func() error { _, err := s.Add(ctx, "counter", 1, time.Hour); return err }},
		{name: name + " store: Link", call: func() error { return s.Link(ctx, "index", next(), later) }},
		{name: name + " store: Append", call: func() error { _, err := s.Append(ctx, "log", value, store.KeepAll); return err }},
	}
}

// endpoint calls a handler without a network, and takes the answer without making
// anything, so that all that is made is the handler's.
type endpoint struct {
	handler http.Handler
	code    int
	header  http.Header
	body    bytes.Buffer
}

func (e *endpoint) Header() http.Header         { return e.header }
func (e *endpoint) WriteHeader(code int)        { e.code = code }
func (e *endpoint) Write(b []byte) (int, error) { return e.body.Write(b) }

// prepared is a request that is made again and again.
type prepared struct {
	request *http.Request
	body    string
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (e *endpoint) tokens(form url.Values) (answer tokens, err error) {
	if err = e.serve(e.post("/token", form), `"access_token"`); err == nil {
		err = json.Unmarshal(e.body.Bytes(), &answer)
	}
	return answer, err
}

func (e *endpoint) post(path string, form url.Values) prepared {
	body := form.Encode()
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(authservertest.WebID, authservertest.Secret)
	return prepared{request, body}
}

func (e *endpoint) get(path string) prepared {
	return prepared{httptest.NewRequest(http.MethodGet, path, nil), ""}
}

// with is the request with more in its body, which needs no encoding.
func (p prepared) with(more string) prepared {
	p.body += more
	return p
}

// serve wants 200 and a part of the body, or, without one, a redirect.
func (e *endpoint) serve(p prepared, part string) error {
	request := *p.request
	if p.body != "" {
		request.Body, request.ContentLength = io.NopCloser(strings.NewReader(p.body)), int64(len(p.body))
	}
	clear(e.header)
	e.body.Reset()
	e.code = http.StatusOK
	e.handler.ServeHTTP(e, &request)
	want := http.StatusOK
	if part == "" {
		want = http.StatusSeeOther
	}
	if e.code != want || !bytes.Contains(e.body.Bytes(), []byte(part)) {
		return fmt.Errorf("%d %s", e.code, &e.body)
	}
	return nil
}
