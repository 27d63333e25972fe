package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"authserver/authserver"

	"github.com/spf13/cobra"
)

const demoAudience = "http://localhost:8081"

func newDevCommand() *cobra.Command {
	var address string
	command := &cobra.Command{
		Use:   "dev",
		Short: "Try the server: no files, demo clients and users, gone when it ends",
		Long: "Runs a server for development on this machine only, with a temporary store and demo\n" +
			"clients and users, and prints lines to paste.",
		Example: "  authserver dev --listen :9000",
		Args:    arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(command.Context())
			defer stop()
			return dev(ctx, address, command.OutOrStdout())
		},
	}
	command.Flags().StringVar(&address, "listen", ":8080", "port, or loopback address and port")
	return command
}

func dev(ctx context.Context, address string, out io.Writer) (err error) {
	if err := checkAddress(address); err != nil {
		return usageError{withHint(fmt.Errorf("--listen %q %w", address, err), "--listen :9000")}
	}
	host, port, _ := net.SplitHostPort(address)
	if host == "" {
		host = "localhost"
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return withHint(fmt.Errorf("--listen %s: the development server has public passwords and listens on this machine only", address),
			"authserver serve is the server for others")
	}
	listener, err := listen(net.JoinHostPort(host, port), "--listen")
	if err != nil {
		return err
	}
	defer listener.Close()
	_, port, _ = net.SplitHostPort(listener.Addr().String()) // another than 0
	data, err := os.MkdirTemp("", "authserver-dev-")
	if err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	program, err := os.Executable() // `go run` builds one that no PATH has
	if err != nil {
		program = "authserver"
	}
	config := demoConfig("http://localhost:"+port, data)
	log, err := openLog(config.Log, os.Stderr)
	if err != nil {
		return err
	}
	defer log.Close()
	return serve(ctx, config, listener, log, func(*openedStore) {
		fmt.Fprint(out, strings.NewReplacer("{issuer}", config.Issuer, "{audience}", demoAudience, "{spa}", url.QueryEscape(demoAudience+"/spa"),
			"{socket}", adminSocket(config.Data), "{program}", program).Replace(demoText))
	})
}

func demoConfig(issuer, data string) *config {
	const scope = "orders:read orders:write"
	const people = "openid profile email offline_access roles " + scope
	users := []string{"password", "refresh_token", "authorization_code"}
	config := &config{
		Issuer: issuer, Data: data, MetricsListen: "off",
		Resources: []authserver.Resource{{Identifier: demoAudience, Scopes: strings.Fields(scope)}},
		Clients: []authserver.Client{
			{ClientID: "demo-service", ClientSecret: "demo-secret", GrantTypes: []string{"client_credentials"}, Scope: scope},
			{ClientID: "demo-web", ClientName: "Orders, from a server", ClientSecret: "demo-secret", GrantTypes: users, Scope: people,
				RedirectURIs: []string{demoAudience + "/callback"}, PostLogoutRedirectURIs: []string{demoAudience + "/web"}},
			{ClientID: "demo-spa", ClientName: "Orders, in the browser", TokenEndpointAuthMethod: "none", IDTokenSignedResponseAlg: "ES256",
				GrantTypes: users[1:], Scope: people,
				RedirectURIs: []string{demoAudience + "/spa"}, PostLogoutRedirectURIs: []string{demoAudience + "/spa"}},
		},
		Scopes: []authserver.Scope{
			{Name: "orders:read", Description: authserver.Text{"en": "see your orders", "de": "deine Bestellungen sehen"}},
			{Name: "orders:write", Description: authserver.Text{"en": "place orders for you", "de": "Bestellungen für dich aufgeben"}},
		},
		Branding: brandingConfig{Name: "Demo"},
		// Hashes of the public passwords, so that the start need not compute them.
		Users: []authserver.User{
			{Username: "alice", Roles: []string{"admin"}, PasswordHash: demoAlice, Claims: map[string]any{"name": "Alice Liddell", "email": "alice@example.com"}},
			{Username: "bob", PasswordHash: demoBob, Claims: map[string]any{"name": "Bob Builder", "email": "bob@example.com"}},
		},
	}
	config.Log.Level = "warn"
	config.DrainDelay = new(time.Duration) // no balancer is in front
	config.Keys.CacheFor = time.Second     // an API that runs on learns of the keys of the next start
	config.setDefaults()
	return config
}

const demoText = `authserver for development: public passwords, nothing is kept. Not for production.

issuer    {issuer}
API       {audience} (go run ./resource-example serves it)
clients   demo-service / demo-secret   client_credentials
          demo-web     / demo-secret   authorization_code, password, refresh_token
          demo-spa     (public)        authorization_code, refresh_token
account   {issuer}/account
apps      {audience} (open it in a browser; the same command serves them)
users     alice / wonderland (role admin), bob / builder

Lines to paste:

# the keys that verify tokens
curl -s {issuer}/.well-known/jwks.json; echo

# a token for a machine, and a call of the API with it
TOKEN=$(curl -s -u demo-service:demo-secret -d grant_type=client_credentials -d scope=orders:read {issuer}/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s -H "Authorization: Bearer $TOKEN" {audience}/orders; echo

# a person signs in: open this address, allow it, and paste the address where you end up
echo '{issuer}/authorize?client_id=demo-spa&redirect_uri={spa}&response_type=code&scope=openid+profile+roles+orders:read&state=demo&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
read -r ADDRESS
CODE=$(echo "$ADDRESS" | sed 's/.*[?&]code=\([^&]*\).*/\1/')
curl -s -d grant_type=authorization_code -d client_id=demo-spa -d code=$CODE -d code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk {issuer}/token; echo

# tokens for a person without a browser, with name and roles
ANSWER=$(curl -s -u demo-web:demo-secret -d grant_type=password -d username=alice -d password=wonderland -d scope="profile roles orders:read orders:write" {issuer}/token); echo "$ANSWER"

# the next tokens, for the refresh token
REFRESH=$(echo "$ANSWER" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
ANSWER=$(curl -s -u demo-web:demo-secret -d grant_type=refresh_token -d refresh_token=$REFRESH {issuer}/token); echo "$ANSWER"

# is the new refresh token good? end it, and ask again
REFRESH=$(echo "$ANSWER" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
curl -s -u demo-web:demo-secret -d token=$REFRESH {issuer}/introspect; echo
curl -s -u demo-web:demo-secret -d token=$REFRESH {issuer}/revoke
curl -s -u demo-web:demo-secret -d token=$REFRESH {issuer}/introspect; echo

# as the operator: who is there, what bob granted to whom, and his end
{program} user list --socket {socket}
{program} grant list --user bob --socket {socket}
{program} user disable bob --yes --socket {socket}

Stop with Ctrl-C.
`

const (
	demoAlice = "$argon2id$v=19$m=19456,t=2,p=1$7O+/z9ljNW8tBNFXB8Eq1g$lfc8WapqX1KdE2OWI94Q0cJ6IruvA1aferxQz/13Elw"
	demoBob   = "$argon2id$v=19$m=19456,t=2,p=1$SMtIOc+xG6EDDGH0tSWeqw$4E5SJZ5Voc+p20ucSXNX9yAJWogOzIBhXUYvZqFk6Aw"
)
