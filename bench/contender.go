package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"authserver/bench/internal/load"
	"authserver/bench/internal/oauth"
	"authserver/bench/internal/process"
)

// contender is a server that is measured, running.
type contender struct {
	name    string
	server  *oauth.Server
	run     []*process.Process // its instances
	redis   *process.Redis     // nil when it has none
	cleanup func()

	installation *process.Installation // of ours
	// password says that a chain of refresh tokens begins with the password grant.
	password bool
	people   int // who sign in, so far
}

func (c *contender) stop() {
	for _, p := range c.run {
		p.Stop()
	}
	if c.redis != nil {
		c.redis.Stop()
	}
	if c.cleanup != nil {
		c.cleanup()
	}
}

// cpu is what the server's instances, and Redis, have used.
func (c *contender) cpu() (server, redis time.Duration) {
	for _, p := range c.run {
		server += p.CPU()
	}
	if c.redis != nil {
		redis = c.redis.CPU()
	}
	return server, redis
}

// tokens returns the first tokens of a user.
func (c *contender) tokens(client *oauth.Client) (oauth.Tokens, error) {
	scope := c.server.Plain
	if c.password {
		return client.RequestToken(url.Values{
			"grant_type": {"password"}, "username": {process.Username}, "password": {process.Password}, "scope": {scope},
		})
	}
	if scope == "" {
		scope = c.server.Scope
	}
	return client.AuthorizeFor(scope)
}

var ours = oauth.Endpoints{
	Token: "/token", Introspect: "/introspect", JWKS: "/.well-known/jwks.json", Keys: "/.well-known/jwks.json",
	Metadata: "/.well-known/openid-configuration", Authorize: "/authorize", Scope: "openid profile orders:read", Plain: "profile orders:read",
}

// startAuthserver starts instances of ours on one store.
func startAuthserver(name, binary string, instances int, redisArgs []string) (c *contender, err error) {
	c = &contender{name: name, password: true}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	options := process.Options{People: 1 + maxClients}
	if redisArgs != nil {
		if c.redis, err = process.StartRedis(redisArgs...); err != nil {
			return c, err
		}
		options.RedisPort = c.redis.Port
	}
	installation, err := process.Install(binary, options)
	if err != nil {
		return c, err
	}
	c.installation, c.cleanup = installation, installation.Remove
	c.server = &oauth.Server{
		Endpoints: ours, ClientID: process.ClientID, Secret: process.Secret, RedirectURI: process.RedirectURI,
		SignIn: oauth.FillIn(process.Username, process.Password),
	}
	for i := range instances {
		port := installation.Port
		if i > 0 {
			if port, err = process.FreePort(); err != nil {
				return c, err
			}
		}
		p, err := installation.StartOn(port)
		if err != nil {
			return c, err
		}
		c.run = append(c.run, p)
		c.server.Hosts = append(c.server.Hosts, "localhost:"+port)
		if i == 0 {
			time.Sleep(2 * time.Second) // RS256 keys are made in the background
		}
	}
	return c, nil
}

// startFloor starts the floor's server, which pretends to be an authorization server.
func startFloor(s settings) (*contender, error) {
	redis, err := process.StartRedis(process.Everysec...)
	if err != nil {
		return nil, err
	}
	c := &contender{name: "floor", redis: redis}
	port, err := process.FreePort()
	if err == nil {
		var p *process.Process
		if p, err = process.Start(".", nil, os.Stderr, filepath.Join(s.tools, "floor"), "-listen", "127.0.0.1:"+port, "-redis", "127.0.0.1:"+redis.Port); err == nil {
			c.run = append(c.run, p)
			err = process.AwaitPort(port)
		}
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	c.server = &oauth.Server{
		Endpoints: oauth.Endpoints{Token: "/token", Introspect: "/introspect", JWKS: "/keys", Metadata: "/metadata", Authorize: "/authorize", Scope: ours.Scope, Opaque: true},
		Hosts:     []string{"127.0.0.1:" + port}, ClientID: process.ClientID, Secret: process.Secret, RedirectURI: process.RedirectURI,
	}
	return c, nil
}

// operation is one kind of work, for one client of a contender. A nil Operation says
// that the contender cannot do it.
type operation struct {
	name string
	make func(*contender, *oauth.Client) (load.Operation, error)
}

var operations = []operation{
	{"client_credentials", func(_ *contender, client *oauth.Client) (load.Operation, error) {
		return client.ClientCredentials, nil
	}},
	{"refresh", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.name == "floor" {
			return client.Poster("/refresh"), nil
		}
		first, err := c.tokens(client)
		if err == nil && first.Refresh == "" {
			err = errors.New("no refresh token")
		}
		return client.Refresher(first), err
	}},
	{"introspect", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.server.Introspect == "" {
			return nil, nil
		}
		if c.name == "floor" {
			return client.Introspector("token"), nil
		}
		first, err := c.tokens(client)
		return client.Introspector(first.Access), err
	}},
	{"password sign-in", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.name == "floor" {
			return client.Poster("/signin"), nil
		}
		if c.installation == nil {
			return nil, nil // no other checks passwords by argon2id, if at all
		}
		c.people++
		person := c.people
		return func() error {
			_, err := signIn("http://"+c.server.Hosts[0], person)
			return err
		}, nil
	}},
	{"code flow", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.server.Authorize == "" {
			return nil, nil
		}
		_, err := client.CodeFlow() // signs in, so that there is a session
		return client.Flows(), err
	}},
	{"JWKS", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.server.JWKS == "" {
			return nil, nil
		}
		return client.Getter(c.server.JWKS), nil
	}},
	{"metadata", func(c *contender, client *oauth.Client) (load.Operation, error) {
		if c.server.Metadata == "" {
			return nil, nil
		}
		return client.Getter(c.server.Metadata), nil
	}},
}

// prepare makes an operation for each of n clients; nil when the contender cannot do it.
func (c *contender) prepare(o operation, n int) ([]load.Operation, error) {
	var made []load.Operation
	for range n {
		one, err := o.make(c, c.server.NewClient())
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.name, o.name, err)
		}
		if one == nil {
			return nil, nil
		}
		made = append(made, one)
	}
	return made, nil
}

// get is http.Get that wants 200.
func get(address string) error {
	response, err := http.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
