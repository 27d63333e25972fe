package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

// FIELD 30: config check --online finds what stands between clients and the server: each of
// these proxies breaks something that the server alone could not notice.
func TestConfigCheckOnline(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	server, err := url.Parse("http://localhost:" + port)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(server)
	forward.FlushInterval = -1
	var meddle atomic.Pointer[http.HandlerFunc]
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*meddle.Load())(w, r) }))
	t.Cleanup(proxy.CloseClientConnections)
	t.Cleanup(proxy.Close)
	directory := t.TempDir()
	text := "issuer: " + proxy.URL + "\nlisten: localhost:" + port + "\nmetrics_listen: off\n"
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, directory, server.String(), nil, "serve")
	c := terminal{t: t, directory: directory}
	at := func(path string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, path) {
				h(w, r)
				return
			}
			forward.ServeHTTP(w, r)
		}
	}
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	for _, test := range []struct {
		name   string
		meddle http.HandlerFunc
		want   string // "" for nothing failed
	}{
		{"as it should be", forward.ServeHTTP, ""},
		{"another issuer", at("/.well-known/oauth-authorization-server", says(200, `{"issuer":"https://auth.example.com"}`)), `is of issuer "https://auth.example.com", and this configuration's is`},
		{"one name is not forwarded", at("/.well-known/openid-configuration", says(404, "")), "/.well-known/openid-configuration answered 404"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://www.example.com/", http.StatusMovedPermanently)
		}, `leads to "https://www.example.com/"; clients follow no redirect`},
		{"somebody else", at("/.well-known/", says(200, "<html>")), "something that is not JSON"},
		{"keys cached for too long", func(w http.ResponseWriter, r *http.Request) {
			changed := *forward
			changed.ModifyResponse = func(response *http.Response) error {
				if r.URL.Path == "/.well-known/jwks.json" {
					response.Header.Set("Cache-Control", "public, max-age=86400")
				}
				return nil
			}
			changed.ServeHTTP(w, r)
		}, "Cache-Control allows 24h0m0s, and the server allows cache_for (10m0s)"},
		{"POST is not forwarded", at("/token", says(405, "<html>")), "/token answered 405"},
		{"no feed", at("/revocations", says(404, "")), "/revocations answered 404"},
	} {
		meddle.Store(&test.meddle)
		if test.want == "" { // once it has read the log of revocations
			timetest.Await(t, test.name, func() bool {
				stdout, _, status := c.run("config", "check", "--online")
				return status == 0 && !strings.Contains(stdout, "failed ") && strings.Contains(stdout, "passed       feed")
			})
			continue
		}
		stdout, stderr, status := c.run("config", "check", "--online")
		if status != 1 || !strings.Contains(stdout, test.want) || !strings.Contains(stderr, "checks failed; the first: ") {
			t.Errorf("%s: exit status %d, want %q in\n%s%s", test.name, status, test.want, stdout, stderr)
		}
	}
	buffering := at("/revocations", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	meddle.Store(&buffering)
	var list checklist
	new(config).checkFeed(t.Context(), &list, proxy.URL+"/revocations", 100*time.Millisecond)
	if first := list.first("failed"); first == nil || !strings.Contains(first.Detail, "must not buffer it") {
		t.Errorf("a proxy that buffers: %v", list)
	}
}

// The store is asked as at the start, and the driver's own words are not in the way.
func TestConfigCheckAsksRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	check := func(durability string) (checklist, string) {
		c, _, err := loadConfig(writeConfig(t, "issuer: https://127.0.0.1:1\nstore: "+redis.URL()+"\ndurability: "+durability), nil)
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		var list checklist
		c.checkStore(context.Background(), &list, &said)
		return list, said.String()
	}
	if list, said := check("async"); list.first("passed") == nil || !strings.Contains(said, "appendonly") {
		t.Errorf("%v %s", list, said)
	}
	if list, _ := check("fsync"); list.first("failed") == nil || !strings.Contains(list[0].Detail, "appendonly") {
		t.Errorf("more than it is configured for: %v", list)
	}
	redis.Kill()
	if list, said := check("async"); list.first("failed") == nil || !strings.Contains(list[0].Detail, "refused") || said != "" {
		t.Errorf("no Redis: %v %s", list, said)
	}
}
