package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The invariants that are seen while a history is recorded: each check sees its
// invariant broken by an answer, and no other broken with it.
func TestInvariantsOfAnswers(t *testing.T) {
	const (
		decision = `{"active":false}`
		keySet   = `{"keys":[{"kid":"1"}]}`
	)
	for name, c := range map[string]struct {
		status int
		header map[string]string
		body   string
		look   func(w *world, h *history, i *instance)
		broken int // 0 for none
	}{
		"a decision":                    {200, nil, decision, posts, 0},
		"a refusal":                     {400, nil, `{"error":"invalid_grant"}`, posts, 0},
		"trouble that says so":          {503, map[string]string{"Retry-After": "1"}, "", posts, 0},
		"trouble without Retry-After":   {503, nil, "", posts, 10},
		"too much without Retry-After":  {429, nil, "", posts, 10},
		"a failure":                     {500, nil, `{"error":"server_error"}`, posts, 10},
		"another refusal":               {400, nil, `{"error":"invalid_client"}`, posts, 10},
		"a private key in an answer":    {200, nil, `{"active":false,"d":"AA"}`, posts, 8},
		"a PEM in an answer":            {200, nil, `{"active":false,"x":"-----BEGIN PRIVATE KEY-----"}`, posts, 8},
		"a key set":                     {200, nil, keySet, fetches, 0},
		"a key set with a private key":  {200, nil, `{"keys":[{"kid":"1","d":"AA"}]}`, fetches, 8},
		"no key set":                    {503, map[string]string{"Retry-After": "1"}, "", fetches, 13},
		"an empty key set":              {200, nil, `{"keys":[]}`, fetches, 13},
		"no JSON for a key set":         {200, nil, "<html>", fetches, 13},
		"nothing at a wrong clock":      {503, map[string]string{"Retry-After": "1"}, "", probes11, 0},
		"an expired token that is good": {200, nil, `{"active":true}`, probes11, 11},
		"a live grant that is refused":  {400, nil, `{"error":"invalid_grant"}`, probes11, 11},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for member, value := range c.header {
					w.Header().Set(member, value)
				}
				w.WriteHeader(c.status)
				w.Write([]byte(c.body))
			}))
			defer server.Close()
			_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
			w := &world{client: server.Client(), timepiece: &timepiece{"expired", "refresh"}}
			w.storeTrouble.Add(1)
			h := newHistory(1, "answers", time.Minute)
			c.look(w, h, &instance{port: port})
			for n, one := range h.Watched {
				if (one.Broken > 0) != (n == c.broken && n > 0) {
					t.Errorf("I%d is broken %d times: %q", n, one.Broken, h.Seen)
				}
			}
		})
	}
}

func posts(w *world, h *history, i *instance) {
	(&person{world: w, history: h}).post(i, "/introspect", url.Values{"token": {"x"}})
}

func fetches(w *world, h *history, i *instance) { i.watchKeySet(w, h) }

func probes11(w *world, h *history, i *instance) { w.probe(h, i, time.Hour) }
