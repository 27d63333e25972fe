// Package authservertest runs an authorization server in a test: the real one, on
// a loopback port, with an embedded store in the test's temporary directory.
package authservertest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/login"
	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// Audience is the resource server that the test server issues tokens for, with
// the scopes orders:read and orders:write.
const Audience = "https://api.example.com"

// The clients and the user that every test server knows.
const (
	ServiceID = "service" // client_credentials
	WebID     = "web"     // password and refresh_token; first party
	SPAID     = "spa"     // public: password and refresh_token
	APIID     = "orders-api"
	Secret    = "0123456789abcdef0123456789abcdef" // of all confidential clients
	Username  = "alice"                            // role admin
	Password  = "wonderland"
)

// Server is a running authorization server.
type Server struct {
	Issuer string
	Store  store.Store
	Keys   *keys.Manager
	server *httptest.Server
}

// Options change what New starts.
type Options struct {
	Store     store.Store              // instead of an embedded one
	MasterKey keys.MasterKey           // instead of a new one
	Configure func(*authserver.Config) // changes the configuration before the start
	Localhost bool                     // the issuer is http://localhost:…, where browsers have passkeys
	// Algorithms are those of the keys, ES256 when empty. RS256 takes a while to begin.
	Algorithms []string
}

// New starts a server that lives as long as the test, which fails when the server logs a secret.
func New(t testing.TB, options Options) *Server {
	t.Helper()
	s := &Server{Store: options.Store}
	if s.Store == nil {
		opened, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		s.Store = opened
	}
	s.server = httptest.NewUnstartedServer(nil) // it has an address already, and so an issuer
	t.Cleanup(s.server.Close)
	s.Issuer = "http://" + s.server.Listener.Addr().String()
	if options.Localhost {
		s.Issuer = strings.Replace(s.Issuer, "127.0.0.1", "localhost", 1)
	}
	if options.MasterKey.IsZero() {
		made, err := keys.NewMasterKey()
		if err != nil {
			t.Fatal(err)
		}
		options.MasterKey = made
	}
	if len(options.Algorithms) == 0 {
		options.Algorithms = []string{"ES256"}
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	var logged later
	manager, err := keys.Open(t.Context(), keys.Config{
		Store: authserver.KeyStore(s.Store), MasterKey: options.MasterKey, Issuer: s.Issuer, Algorithms: options.Algorithms,
		RotateEvery: 2160 * time.Hour, PublishBefore: 24 * time.Hour, CacheFor: 10 * time.Minute,
		TokenLifetime: time.Hour, RefreshLifetime: 8760 * time.Hour, Logger: slog.New(&logged),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Keys = manager
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); manager.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-stopped })
	for _, algorithm := range options.Algorithms {
		for _, err := manager.Sign(algorithm, "JWT", nil); err != nil; _, err = manager.Sign(algorithm, "JWT", nil) {
			if !errors.Is(err, keys.ErrNoKey) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	config := Config(s.Issuer)
	config.Store, config.Keys, config.Logger = s.Store, manager, logger
	if config.Login, err = login.New(login.Branding{}); err != nil {
		t.Fatal(err)
	}
	if options.Configure != nil {
		options.Configure(&config)
	}
	watched := func(h http.Handler) http.Handler { return h }
	if _, is := t.(*testing.T); is { // what is measured is not watched
		watch := watchSecrets(t)
		watched, config.Logger = watch.handler, watch.logger(config.Logger.Handler())
	}
	logged.to.Store(config.Logger)
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.server.Config.Handler = watched(server.Handler())
	s.server.Start()
	ran := make(chan struct{})
	go func() { defer close(ran); server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	return s
}

// Config is the operator's part of the configuration of a test server.
func Config(issuer string) authserver.Config {
	hash, err := authserver.HashPassword(Password)
	if err != nil {
		panic(err)
	}
	scope := "orders:read orders:write profile roles"
	return authserver.Config{
		Issuer:    issuer,
		Resources: []authserver.Resource{{Identifier: Audience, Scopes: []string{"orders:read", "orders:write"}}},
		Clients: []authserver.Client{
			{ClientID: ServiceID, ClientSecret: Secret, GrantTypes: []string{"client_credentials"}, Scope: "orders:read orders:write"},
			{ClientID: WebID, ClientSecret: Secret, GrantTypes: []string{"password", "refresh_token"}, Scope: scope,
				RedirectURIs: []string{"https://web.example.com/callback"}},
			{ClientID: SPAID, TokenEndpointAuthMethod: "none", GrantTypes: []string{"password", "refresh_token"}, Scope: scope},
			{ClientID: APIID, ClientSecret: Secret, GrantTypes: []string{"client_credentials"}, Resource: Audience},
		},
		Users: []authserver.User{{Username: Username, PasswordHash: hash, Roles: []string{"admin"}}},
	}
}
