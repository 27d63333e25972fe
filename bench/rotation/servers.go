package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"authserver/authserver"
	"authserver/bench/internal/process"
	"authserver/keys"
)

const (
	audience = "https://api.example.com"
	secret   = "0123456789012345678901234567890123456789"
	lifetime = time.Minute // of an access token
	password = "wonderland"
)

// instance is one of the servers, in a process of its own.
func instance(ctx context.Context) error {
	config, opened, err := hasty(ctx)
	if err != nil {
		return err
	}
	manager, err := keys.Open(ctx, config)
	if err != nil {
		return err
	}
	go manager.Run(ctx)
	server, err := authserver.New(authserver.Config{
		Issuer: config.Issuer, Store: opened, Keys: manager, Logger: config.Logger,
		Tokens:    authserver.Tokens{Access: lifetime, ID: lifetime, RefreshIdle: 2 * time.Minute, RefreshMax: 24 * time.Hour},
		Resources: []authserver.Resource{{Identifier: audience, Scopes: []string{"read"}}},
		Clients: []authserver.Client{
			{ClientID: "job", ClientSecret: secret, GrantTypes: []string{"client_credentials"}, Scope: "read"},
			{ClientID: "web", ClientSecret: secret, GrantTypes: []string{"password", "refresh_token"}, Scope: "read"},
		},
		Users: []authserver.User{{Username: "alice", PasswordHash: os.Getenv("ROTATION_PASSWORD_HASH")}},
	})
	if err != nil {
		return err
	}
	go server.Run(ctx)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("ROTATION_PORT"))
	if err != nil {
		return err
	}
	return http.Serve(listener, server.Handler())
}

// balancer is where the issuer is. It sends each request on to one server, and to
// another one when that is killed meanwhile, as balancers do.
type balancer struct {
	issuer   string
	listener net.Listener
	hosts    [members]atomic.Pointer[string] // nil while the server is dead
	running  [members]*process.Process
	next     atomic.Uint64
	again    atomic.Int64
	hash     string
}

func newBalancer() (*balancer, error) {
	hash, err := authserver.HashPassword(password)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{issuer: "http://" + listener.Addr().String(), listener: listener, hash: hash}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "one of them"})
			r.Out.Host = r.In.Host
		},
		Transport:     b,
		FlushInterval: -1, // the feed
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	go http.Serve(listener, proxy)
	return b, nil
}

// RoundTrip asks servers until one answers, for ten seconds at most.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	for began := time.Now(); time.Since(began) < 10*time.Second && r.Context().Err() == nil; {
		host := b.hosts[b.next.Add(1)%members].Load()
		if host == nil {
			continue
		}
		out := r.Clone(r.Context())
		out.URL.Host, out.Body = *host, io.NopCloser(bytes.NewReader(body))
		response, err := http.DefaultTransport.RoundTrip(out)
		if err == nil && !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
			var whole []byte
			whole, err = io.ReadAll(response.Body)
			response.Body.Close()
			response.Body = io.NopCloser(bytes.NewReader(whole))
		}
		if err == nil {
			return response, nil
		}
		b.again.Add(1)
	}
	return nil, errors.New("no server answers")
}

// start starts a server and waits until it is ready.
func (b *balancer) start(i int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	p, err := process.Start(os.TempDir(), []string{"ROTATION_PORT=" + port, "ROTATION_PASSWORD_HASH=" + b.hash}, os.Stderr, program, "instance")
	if err != nil {
		return err
	}
	b.running[i] = p
	host := "127.0.0.1:" + port
	err = process.Await(func() error {
		response, err := http.Get("http://" + host + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}, 20*time.Second)
	if err == nil {
		b.hosts[i].Store(&host)
	}
	return err
}

func (b *balancer) kill(i int) {
	b.running[i].Kill()
	b.hosts[i].Store(nil) // after its death: what is on its way there is what it is about
}

func (b *balancer) stop() {
	b.listener.Close()
	for _, p := range b.running {
		if p != nil {
			p.Kill()
		}
	}
}
