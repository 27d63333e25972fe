package micro

import (
	"bytes"
	"context"
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
	name string
	call func() error
}

// all returns every operation that is measured: the server's on both stores, and
// those of its parts.
func all(t testing.TB) []measured {
	embedded, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	redis, err := redisstore.Open(t.Context(), redisstore.Options{
		URL: redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always").URL(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { redis.Close() })
	return slices.Concat(endpoints(t, "embedded", embedded), endpoints(t, "Redis", redis),
		methods(t, "embedded", embedded), methods(t, "Redis", redis), parts(t))
}

// endpoints are the server's operations on one store.
func endpoints(t testing.TB, name string, s store.Store) []measured {
	var config authserver.Config
	authservertest.New(t, authservertest.Options{Store: s, Configure: func(c *authserver.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(io.Discard, nil)) // as in production
		for i := range c.Clients {
			if c.Clients[i].ClientID == authservertest.WebID {
				c.Clients[i].GrantTypes = append(c.Clients[i].GrantTypes, "client_credentials")
			}
		}
		config = *c
	}})
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{handler: server.Handler(), header: make(http.Header)}
	first, err := e.tokens(url.Values{"grant_type": {"password"}, "username": {authservertest.Username}, "password": {authservertest.Password}})
	if err != nil {
		t.Fatal(err)
	}
	own, asked := e.post("/token", url.Values{"grant_type": {"client_credentials"}}), e.post("/introspect", url.Values{"token": {first.Access}})
	current, keySet, metadata := first.Refresh, e.get("/.well-known/jwks.json"), e.get("/.well-known/openid-configuration")
	return []measured{
		{name + ": token, client_credentials", func() error { return e.serve(own, `"access_token":"`) }},
		{name + ": token, refresh_token", func() error {
			err := e.serve(e.post("/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {current}}), `"refresh_token":"`)
			_, current, _ = strings.Cut(e.body.String(), `"refresh_token":"`)
			current, _, _ = strings.Cut(current, `"`)
			return err
		}},
		{name + ": introspect", func() error { return e.serve(asked, `"active":true`) }},
		{name + ": jwks", func() error { return e.serve(keySet, `"keys"`) }},
		{name + ": metadata", func() error { return e.serve(metadata, `"issuer"`) }},
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
		{"sign ES256", func() error {
			_, err := running.Keys.Sign("ES256", "at+jwt", []byte(`{"iss":"https://auth.example.com","sub":"alice"}`))
			return err
		}},
		{"sign refresh token", func() error {
			_, err := running.Keys.Sign(keys.RefreshRing, "rt+jwt", []byte(`{"iss":"https://auth.example.com","sub":"alice"}`))
			return err
		}},
		{"parse a token", func() error {
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
		list = append(list, measured{kind.name, func() error {
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
		{name + " store: Get", func() error { _, err := s.Get(ctx, "present"); return err }},
		{name + " store: Create", func() error { return s.Create(ctx, next(), value, later) }},
		{name + " store: Swap", func() error {
			record, err := s.Swap(ctx, "present", version, nil, later)
			version = record.Version
			return err
		}},
		{name + " store: Delete", func() error { return s.Delete(ctx, next()) }},
		{name + " store: Add", func() error { _, err := s.Add(ctx, "counter", 1, time.Hour); return err }},
		{name + " store: Link", func() error { return s.Link(ctx, "index", next(), later) }},
		{name + " store: Append", func() error { _, err := s.Append(ctx, "log", value, store.KeepAll); return err }},
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

// serve wants 200 and a part of the body.
func (e *endpoint) serve(p prepared, part string) error {
	request := *p.request
	if p.body != "" {
		request.Body = io.NopCloser(strings.NewReader(p.body))
	}
	clear(e.header)
	e.body.Reset()
	e.code = http.StatusOK
	e.handler.ServeHTTP(e, &request)
	if e.code != http.StatusOK || !bytes.Contains(e.body.Bytes(), []byte(part)) {
		return fmt.Errorf("%d %s", e.code, &e.body)
	}
	return nil
}
