package main

import (
	"os"
	"path/filepath"
	"strings"

	"authserver/bench/internal/oauth"
	"authserver/bench/internal/process"
)

// peer is another authorization server, started on a port of loopback.
type peer struct {
	name  string
	needs string // what settings.tools must hold
	redis bool
	args  func(port, redisPort string) (program string, args []string) // relative to settings.tools
	// endpoints are those that it offers.
	endpoints oauth.Endpoints
	// password says that it has no authorization endpoint here.
	password bool
}

func goPeer(program string) func(port, redisPort string) (string, []string) {
	return func(port, redisPort string) (string, []string) {
		args := []string{"-listen", "127.0.0.1:" + port, "-secret", process.Secret, "-redirect", process.RedirectURI}
		if redisPort != "" {
			args = append(args, "-redis", "127.0.0.1:"+redisPort)
		}
		return program, args
	}
}

func nodePeer(port, redisPort string) (string, []string) {
	args := []string{"main.mjs", port, process.Secret, process.RedirectURI}
	if redisPort != "" {
		args = append(args, redisPort)
	}
	return "node", args
}

var nodeEndpoints = oauth.Endpoints{
	Token: "/token", Authorize: "/auth", JWKS: "/jwks", Keys: "/jwks", // it does not introspect JWTs
	Metadata: "/.well-known/openid-configuration", Scope: "openid offline_access orders:read", Consent: true,
}

// peers serve ES256 access tokens as JWTs and keep what they must in memory where
// nothing else is said. What they do not offer is left out.
var peers = []peer{
	{name: "ory/fosite, in memory", needs: "fosite", args: goPeer("fosite"), endpoints: oauth.Endpoints{
		Token: "/token", Introspect: "/introspect", Authorize: "/authorize", Keys: "/keys", Scope: "openid offline orders:read", Plain: "offline orders:read",
	}},
	{name: "zitadel/oidc example, in memory", needs: "zitadel", args: goPeer("zitadel"), endpoints: oauth.Endpoints{
		Token: "/oauth/token", Introspect: "/oauth/introspect", Authorize: "/auth", JWKS: "/keys", Keys: "/keys",
		Metadata: "/.well-known/openid-configuration", Scope: "openid offline_access",
	}},
	{name: "go-oauth2, in memory", needs: "gooauth2", args: goPeer("gooauth2"), password: true, endpoints: oauth.Endpoints{
		Token: "/token", Keys: "/keys",
	}},
	{name: "go-oauth2, Redis everysec", needs: "gooauth2", args: goPeer("gooauth2"), redis: true, password: true, endpoints: oauth.Endpoints{
		Token: "/token", Keys: "/keys",
	}},
	{name: "node-oidc-provider, in memory", needs: "node/node_modules", args: nodePeer, endpoints: nodeEndpoints},
	{name: "node-oidc-provider, Redis everysec", needs: "node/node_modules", args: nodePeer, redis: true, endpoints: nodeEndpoints},
}

func (p peer) start(s settings) (c *contender, err error) {
	c = &contender{name: p.name, password: p.password, server: &oauth.Server{
		Endpoints: p.endpoints, ClientID: process.ClientID, Secret: process.Secret, RedirectURI: process.RedirectURI,
	}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	redisPort := ""
	if p.redis {
		if c.redis, err = process.StartRedis(process.Everysec...); err != nil {
			return c, err
		}
		redisPort = c.redis.Port
	}
	port, err := process.FreePort()
	if err != nil {
		return c, err
	}
	tools, err := filepath.Abs(s.tools)
	if err != nil {
		return c, err
	}
	program, args := p.args(port, redisPort)
	directory := tools
	if program == "node" {
		directory = filepath.Join(tools, "node")
	} else {
		program = filepath.Join(tools, program)
	}
	log, err := os.Create(filepath.Join(tools, strings.ReplaceAll(p.name, "/", "-")+".log"))
	if err != nil {
		return c, err
	}
	defer log.Close()
	started, err := process.Start(directory, nil, log, program, args...)
	if err != nil {
		return c, err
	}
	c.run = append(c.run, started)
	host := "127.0.0.1"
	if p.needs == "zitadel" {
		host = "localhost" // is in its issuer
	}
	c.server.Hosts = []string{host + ":" + port}
	return c, process.AwaitPort(port)
}
