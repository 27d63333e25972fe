package authserver

import (
	"context"
	"log/slog"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// insideIssuer is the issuer of the servers that tests look into.
const insideIssuer = "http://localhost:8080"

const insideSecret = "0123456789abcdef0123456789abcdef" // of their clients

// insideServer returns a server on a store (an embedded one when nil), with keys
// that have signed longer tokens than it is configured for.
func insideServer(t testing.TB, opened store.Store, master keys.MasterKey) *Server {
	t.Helper()
	if opened == nil {
		embedded, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { embedded.Close() })
		opened = embedded
	}
	if master.IsZero() {
		made, err := keys.NewMasterKey()
		if err != nil {
			t.Fatal(err)
		}
		master = made
	}
	logger := slog.New(slog.DiscardHandler)
	manager, err := keys.Open(t.Context(), keys.Config{
		Store: KeyStore(opened), MasterKey: master, Issuer: insideIssuer, Algorithms: []string{"ES256"},
		RotateEvery: 2160 * time.Hour, PublishBefore: 24 * time.Hour, CacheFor: 10 * time.Minute,
		TokenLifetime: 20 * time.Minute, RefreshLifetime: 8760 * time.Hour, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	runUntilCleanup(t, func(ctx context.Context) { manager.Run(ctx) })
	s, err := New(Config{Issuer: insideIssuer, Store: opened, Keys: manager, Logger: logger,
		Resources: []Resource{{Identifier: "https://api.example.com"}},
		Clients: []Client{{ClientID: "web", ClientSecret: insideSecret, Scope: "roles"},
			{ClientID: "service", ClientSecret: insideSecret, GrantTypes: []string{"client_credentials"}, Scope: "roles"},
			{ClientID: "api", ClientSecret: insideSecret, Resource: "https://api.example.com"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// runUntilCleanup runs something that ends with its context, and waits for its end.
func runUntilCleanup(t testing.TB, run func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); run(ctx) }()
	stop = func() { cancel(); <-stopped }
	t.Cleanup(stop)
	return stop
}

var traceMember = regexp.MustCompile(`,"trace_id":"[0-9a-f]{32}"`)

// untraced is an answer without the one thing in which two refusals differ.
func untraced(body string) string { return traceMember.ReplaceAllString(body, "") }
