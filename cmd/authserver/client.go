package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"authserver/authserver"

	"github.com/spf13/cobra"
)

func newClientCommand() *cobra.Command {
	return group("client", "List, add, change and remove clients of the running server",
		"  authserver client add shop --grant-type client_credentials --scope orders:read\n"+
			"  authserver client secret shop --overlap 24h",
		newClientListCommand(), newClientShowCommand(), newClientAddCommand(), newClientSecretCommand(),
		newClientEndCommand("disable", "Let a client do nothing until it is enabled, and end all its tokens"),
		newClientEnableCommand(),
		newClientEndCommand("remove", "Remove a client and end all its tokens"))
}

// optionalArgument takes one argument or none.
func optionalArgument(command *cobra.Command, args []string) error {
	if len(args) > 1 {
		return arguments(1)(command, args)
	}
	return nil
}

func newClientListCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "list", Short: "List the clients, configured and stored", Args: arguments(0),
		Example: "  authserver client list -o json",
	}
	o := operated(command)
	command.RunE = func(*cobra.Command, []string) error {
		all := authserver.ClientPage{Clients: []authserver.ClientInfo{}}
		for query := (authserver.ListQuery{Limit: 1000}); ; query.Cursor = all.Next {
			var page authserver.ClientPage
			if err := o.call("/client/list", query, &page); err != nil {
				return err
			}
			all.Clients, all.Next = append(all.Clients, page.Clients...), page.Next
			if page.Next == "" {
				break
			}
		}
		return o.print(all.Clients, func(w io.Writer) {
			rows := [][]string{{"CLIENT_ID", "NAME", "AUTHENTICATES BY", "GRANT TYPES", "SOURCE", "STATE"}}
			for _, c := range all.Clients {
				rows = append(rows, []string{c.ClientID, c.ClientName, authentication(c), strings.Join(c.AllowedGrantTypes(), " "), c.Source, state(c.Disabled)})
			}
			table(w, rows...)
		})
	}
	return command
}

func authentication(c authserver.ClientInfo) string {
	switch {
	case c.TokenEndpointAuthMethod != "":
		return c.TokenEndpointAuthMethod
	case c.JWKS != "":
		return "private_key_jwt"
	}
	return "client_secret"
}

func state(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

func newClientShowCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "show CLIENT_ID", Short: "Show a client", Args: arguments(1),
		Example: "  authserver client show shop",
	}
	o := operated(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		var c authserver.ClientInfo
		if err := o.call("/client/show", authserver.ClientRef{ClientID: args[0]}, &c); err != nil {
			return err
		}
		return o.print(c, func(w io.Writer) { showClient(w, c) })
	}
	return command
}

func showClient(w io.Writer, c authserver.ClientInfo) {
	rows := [][]string{
		{"client_id", c.ClientID}, {"client_name", c.ClientName}, {"source", c.Source}, {"state", state(c.Disabled)},
		{"authenticates by", authentication(c)}, {"grant_types", strings.Join(c.AllowedGrantTypes(), " ")}, {"scope", c.Scope},
	}
	for _, uri := range c.RedirectURIs {
		rows = append(rows, []string{"redirect_uri", uri})
	}
	if c.Resource != "" {
		rows = append(rows, []string{"resource", c.Resource})
	}
	if c.Created != 0 {
		rows = append(rows, []string{"created", when(c.Created)})
	}
	for _, secret := range c.Secrets {
		text := "of " + when(secret.Created)
		if secret.Expires != 0 {
			text += ", works until " + when(secret.Expires)
		}
		rows = append(rows, []string{"client_secret", text})
	}
	table(w, rows...)
}

func newClientAddCommand() *cobra.Command {
	var c authserver.Client
	var public bool
	var jwks, file string
	command := &cobra.Command{
		Use: "add [CLIENT_ID]", Args: optionalArgument,
		Short: "Add a client and print its secret, this once",
		Long: "Adds a client. A client with a secret gets one of 256 bits, which is printed once and kept as\n" +
			"a hash. Without a CLIENT_ID one is made. With --file the metadata (RFC 7591) come from a JSON\n" +
			"file instead of flags; - is standard input.",
		Example: "  authserver client add shop --grant-type authorization_code --grant-type refresh_token \\\n" +
			"    --redirect-uri https://shop.example.com/callback --scope 'openid orders:read'\n" +
			"  authserver client add spa --public --redirect-uri https://spa.example.com/callback",
	}
	o := operated(command)
	flags := command.Flags()
	flags.StringVar(&c.ClientName, "name", "", "what people are shown")
	flags.StringArrayVar(&c.GrantTypes, "grant-type", nil, "a grant that it may use, for example client_credentials; may be repeated")
	flags.StringArrayVar(&c.RedirectURIs, "redirect-uri", nil, "where people may be sent back to; may be repeated")
	flags.StringVar(&c.Scope, "scope", "", "scopes that it may ask for, separated by spaces")
	flags.StringVar(&c.TokenEndpointAuthMethod, "auth-method", "", "client_secret_basic, client_secret_post, private_key_jwt or none")
	flags.BoolVar(&public, "public", false, "the client cannot keep a secret (an app, a page): --auth-method none")
	flags.StringVar(&jwks, "jwks", "", "file with the client's public keys, for private_key_jwt")
	flags.StringVar(&c.RefreshTokenRotation, "refresh-token-rotation", "", "always or never")
	flags.StringVar(&c.Resource, "resource", "", "identifier of the resource server that the client is")
	flags.StringVar(&file, "file", "", "JSON file with the client's metadata")
	command.RunE = func(command *cobra.Command, args []string) error {
		described, err := c, error(nil)
		if file != "" {
			described, err = readClient(file, command)
		} else if jwks != "" {
			var content []byte
			content, _, err = readFile(jwks, maxSecretFile)
			described.JWKS = string(content)
		}
		if err != nil {
			return err
		}
		if public {
			described.TokenEndpointAuthMethod = "none"
		}
		if len(args) == 1 {
			described.ClientID = args[0]
		}
		var answer authserver.ClientSecretAnswer
		if err := o.call("/client/add", authserver.ClientAdd{Client: described}, &answer); err != nil {
			return err
		}
		return o.printSecret(answer)
	}
	return command
}

// readClient reads metadata from a file, and refuses flags beside it.
func readClient(file string, command *cobra.Command) (c authserver.Client, err error) {
	for _, name := range []string{"name", "grant-type", "redirect-uri", "scope", "auth-method", "jwks", "refresh-token-rotation", "resource"} {
		if command.Flags().Changed(name) {
			return c, usageError{fmt.Errorf("--%s and --file are both given; the file holds all metadata", name)}
		}
	}
	var content []byte
	if file == "-" {
		content, err = io.ReadAll(io.LimitReader(command.InOrStdin(), maxSecretFile))
	} else {
		content, _, err = readFile(file, maxSecretFile)
	}
	if err != nil {
		return c, fmt.Errorf("reading the client's metadata: %w", err)
	}
	content = bytes.TrimPrefix(content, []byte(byteOrderMark))
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return c, fmt.Errorf("reading the client's metadata: %w", err)
	}
	if set := members["jwks"]; len(set) > 0 && set[0] == '{' { // RFC 7591 §2 has an object
		text, err := json.Marshal(string(set))
		if err != nil {
			return c, fmt.Errorf("reading the client's metadata: %w", err)
		}
		members["jwks"] = text
	}
	normal, err := json.Marshal(members)
	if err != nil {
		return c, fmt.Errorf("reading the client's metadata: %w", err)
	}
	for name := range members {
		if !slices.Contains(clientMetadata, name) {
			return c, fmt.Errorf("reading the client's metadata: %q is unknown%s; allowed are %s", name, suggest(name, clientMetadata), strings.Join(clientMetadata, ", "))
		}
	}
	if err := json.Unmarshal(normal, &c); err != nil {
		return c, fmt.Errorf("reading the client's metadata: %w", err)
	}
	return c, nil
}

// clientMetadata are the names of what the file may hold.
var clientMetadata = func() (names []string) {
	t := reflect.TypeFor[authserver.Client]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "-" && name != "" {
			names = append(names, name)
		}
	}
	return names
}()

// printSecret prints a client and the secret that is shown this once.
func (o *operator) printSecret(answer authserver.ClientSecretAnswer) error {
	return o.print(answer, func(w io.Writer) {
		showClient(w, answer.Client)
		if answer.ClientSecret != "" {
			fmt.Fprintf(w, "\nThe secret, which is shown this once and kept as a hash:\n%s\n", answer.ClientSecret)
		}
	})
}

func newClientSecretCommand() *cobra.Command {
	var overlap time.Duration
	command := &cobra.Command{
		Use: "secret CLIENT_ID", Args: arguments(1),
		Short: "Give a client a new secret and print it, this once",
		Long: "Gives a client a new secret. The old ones work for --overlap more, so that the client can be\n" +
			"changed without a gap; with --overlap 0 they are dead at once.",
		Example: "  authserver client secret shop --overlap 24h",
	}
	o := operated(command).breaking()
	command.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old secrets work, up to 2160h; 0 for a secret that leaked")
	command.RunE = func(_ *cobra.Command, args []string) error {
		if overlap < 0 || overlap%time.Second != 0 {
			return usageError{errors.New("--overlap is a number of whole seconds, for example 24h, or 0")}
		}
		if overlap == 0 {
			if err := o.confirm("The client %s is locked out until it has the new secret. Replace its secret now?", printable(args[0])); err != nil {
				return err
			}
		}
		request := authserver.ClientSecretRequest{ClientRef: authserver.ClientRef{ClientID: args[0]}, Overlap: int64(overlap.Seconds())}
		var answer authserver.ClientSecretAnswer
		if err := o.call("/client/secret", request, &answer); err != nil {
			return err
		}
		return o.printSecret(answer)
	}
	return command
}

// newClientEndCommand is disable or remove.
func newClientEndCommand(verb, short string) *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use: verb + " CLIENT_ID", Short: short, Args: arguments(1),
		Example: "  authserver client " + verb + " shop --reason 'contract ended'",
	}
	o := operated(command).breaking()
	command.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	command.RunE = func(_ *cobra.Command, args []string) error {
		if err := o.confirm("All tokens of the client %s end, everybody who uses it is signed out of it. %s it?", printable(args[0]), strings.ToUpper(verb[:1])+verb[1:]); err != nil {
			return err
		}
		var c authserver.ClientInfo
		if err := o.call("/client/"+verb, authserver.ClientRef{ClientID: args[0], Reason: reason}, &c); err != nil {
			return err
		}
		return o.print(c, func(w io.Writer) {
			fmt.Fprintf(w, "client %s: %sd, and its tokens have ended\n", printable(c.ClientID), verb)
		})
	}
	return command
}

func newClientEnableCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "enable CLIENT_ID", Short: "Enable a client that was disabled", Args: arguments(1),
		Example: "  authserver client enable shop",
	}
	o := operated(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		var c authserver.ClientInfo
		if err := o.call("/client/enable", authserver.ClientRef{ClientID: args[0]}, &c); err != nil {
			return err
		}
		return o.print(c, func(w io.Writer) { fmt.Fprintf(w, "client %s: enabled\n", printable(c.ClientID)) })
	}
	return command
}
