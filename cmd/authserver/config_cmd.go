package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed example.yaml
var exampleConfig string

func newConfigCommand() *cobra.Command {
	var (
		file   string
		online bool
	)
	check := &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration, or explain what it means",
		Long: "Reads the configuration as serve would, reports every mistake at once, or explains what\nthe server would do. It starts nothing and changes nothing. With --online it also asks Redis, and the\n" +
			"issuer at its public address, as a client would, through every proxy: what it finds is listed, and\n" +
			"the exit status is 1 when a check fails.",
		Example: "  authserver config check --config authserver.yaml\n  authserver config check --online     # the server is running",
		Args:    arguments(0),
	}
	output := outputFlag(check)
	check.Flags().StringVar(&file, "config", "", "configuration file (authserver.yaml if it exists)")
	check.Flags().BoolVar(&online, "online", false, "also ask Redis, and the running server at its public address")
	check.RunE = func(command *cobra.Command, _ []string) error {
		config, warnings, err := loadConfig(file, os.Environ())
		var asked checklist
		if online && err == nil {
			asked = config.online(command.Context(), command.ErrOrStderr())
		}
		if *output == outputJSON {
			report := newReport(config, warnings, err)
			report.Online = asked
			return errors.Join(json.NewEncoder(command.OutOrStdout()).Encode(report), err, asked.failure())
		}
		for _, warning := range warnings {
			fmt.Fprintln(command.ErrOrStderr(), "warning:", warning)
		}
		if err != nil {
			return err
		}
		if err := config.explain(command.OutOrStdout()); err != nil || !online {
			return err
		}
		_, err = fmt.Fprintf(command.OutOrStdout(), "\n%s", asked)
		return errors.Join(err, asked.failure())
	}
	example := &cobra.Command{
		Use: "example", Short: "Print a complete commented configuration", Args: arguments(0),
		Example: "  authserver config example > authserver.yaml",
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := io.WriteString(command.OutOrStdout(), exampleConfig)
			return err
		},
	}
	return group("config", "Check or print a configuration", "  authserver config check", check, example)
}

// report is what `config check -o json` prints.
type report struct {
	Valid    bool     `json:"valid"`
	Mistakes []string `json:"mistakes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Server   *summary `json:"server,omitempty"` // of a valid configuration
	Online   []check  `json:"online,omitempty"` // with --online
}

func newReport(config *config, warnings []string, err error) report {
	if err == nil {
		server := config.summary()
		return report{Valid: true, Warnings: warnings, Server: &server}
	}
	var found mistakes
	if !errors.As(err, &found) {
		found = mistakes{err.Error()}
	}
	return report{Mistakes: found, Warnings: warnings}
}

// summary is what a configuration makes the server do.
type summary struct {
	File       string   `json:"file,omitempty"`
	Issuer     string   `json:"issuer"`
	Metadata   string   `json:"metadata"` // which lists the endpoints
	Listen     string   `json:"listen"`
	TLS        bool     `json:"tls"`
	Metrics    string   `json:"metrics_listen"`
	Drain      string   `json:"drain_delay"`
	Store      string   `json:"store"`
	Durability string   `json:"durability"`
	MasterKey  string   `json:"master_key"`
	Access     string   `json:"access_token_lifetime"`
	Idle       string   `json:"refresh_idle"`
	Max        string   `json:"refresh_max"`
	Algorithms []string `json:"algorithms"`
	Rotate     string   `json:"rotate_every"`
	Publish    string   `json:"publish_before"`
	Resources  []string `json:"resources,omitempty"`
	Clients    int      `json:"clients"`
	Users      int      `json:"users"`
	Receivers  []string `json:"receivers,omitempty"`
}

func (c *config) summary() summary {
	tokens := c.Tokens.WithDefaults()
	s := summary{
		File: c.file, Issuer: c.Issuer, Metadata: c.Issuer + "/.well-known/openid-configuration",
		Listen: c.Listen, TLS: c.TLS != (tlsConfig{}), Metrics: c.MetricsListen, Drain: c.DrainDelay.String(),
		Store: "embedded, in " + c.Data, Durability: c.describeDurability(), MasterKey: "the file " + c.MasterKeyFile,
		Access: tokens.Access.String(), Idle: tokens.RefreshIdle.String(), Max: tokens.RefreshMax.String(),
		Algorithms: c.Keys.Algorithms, Rotate: c.Keys.RotateEvery.String(), Publish: c.Keys.PublishBefore.String(),
		Clients: len(c.Clients), Users: len(c.Users),
	}
	if c.Store != "" {
		s.Store = c.describeRedis()
	}
	if c.MasterKey != "" {
		s.MasterKey = "the configuration, or its environment variable"
	}
	for _, resource := range c.Resources {
		s.Resources = append(s.Resources, resource.Identifier)
	}
	for _, receiver := range c.Receivers {
		s.Receivers = append(s.Receivers, receiver.Name)
	}
	return s
}

func (c *config) explain(out io.Writer) error {
	s := c.summary()
	where := "the configuration (no file; defaults and environment)"
	if s.File != "" {
		where = s.File
	}
	tls := "plain HTTP; TLS is up to a proxy in front"
	if s.TLS {
		tls = "TLS by " + c.TLS.CertFile
	}
	stops := fmt.Sprintf("%s after SIGTERM, and until then /readyz says 503; what was begun may take %s more", s.Drain, finishing)
	if *c.DrainDelay == 0 {
		stops = fmt.Sprintf("at once, before balancers notice; what was begun may take %s", finishing)
	}
	resources := "none: access tokens are meant for the issuer itself"
	if len(s.Resources) > 0 {
		resources = strings.Join(s.Resources, ", ")
	}
	_, err := fmt.Fprintf(out, `%s is valid.
issuer         %s
endpoints      are listed at %s
listens on     %s (%s)
metrics on     %s
stops          %s
store          %s
durability     %s
master key     from %s
access tokens  live %s, signed with %s unless a resource says otherwise
grants         end after %s without a refresh, and after %s in any case
signing keys   %s; each signs for %s, the next is published %s before
signing costs  %s
resources      %s
clients        %d
users          %d
receivers      %s
`, where, s.Issuer, s.Metadata, s.Listen, tls, s.Metrics, stops, s.Store, s.Durability, s.MasterKey, s.Access, s.Algorithms[0], s.Idle, s.Max,
		strings.Join(s.Algorithms, ", "), s.Rotate, s.Publish, c.signingCosts(), resources, s.Clients, s.Users, c.explainReceivers())
	return err
}

// explainReceivers says who is told of security events, and of which.
func (c *config) explainReceivers() string {
	if len(c.Receivers) == 0 {
		return "none: nobody is told of sessions that end and credentials that change"
	}
	var all []string
	for _, r := range c.Receivers {
		events, proof := "session-revoked and credential-change", "without an authorization header"
		if len(r.Events) > 0 {
			events = strings.Join(r.Events, " and ")
		}
		if r.Authorization != "" {
			proof = "with one"
		}
		to, _, _ := strings.Cut(r.URL, "?") // a query may hold a secret
		all = append(all, fmt.Sprintf("%s is told of %s at %s, %s", r.Name, events, to, proof))
	}
	return strings.Join(all, "\n               ")
}

// signingCosts says what the algorithms mean for the CPU (docs/figures.md).
func (c *config) signingCosts() string {
	if !slices.Contains(c.Keys.Algorithms, "RS256") {
		return "tens of microseconds of CPU a signature"
	}
	var slow []string
	if c.Keys.Algorithms[0] == "RS256" {
		slow = append(slow, "whoever is not configured otherwise")
	}
	for _, resource := range c.Resources {
		if resource.Algorithm == "RS256" {
			slow = append(slow, resource.Identifier)
		}
	}
	access := "no access tokens are by RS256"
	if len(slow) > 0 {
		access = "by RS256 are access tokens for " + strings.Join(slow, ", ")
	}
	others := 0
	for _, client := range c.Clients {
		if client.IDTokenSignedResponseAlg != "" && client.IDTokenSignedResponseAlg != "RS256" {
			others++
		}
	}
	return fmt.Sprintf("RS256 takes about 35 times the CPU of ES256 and EdDSA; %s. ID tokens are,\n"+
		"               but for clients with another id_token_signed_response_alg, as %d of %d have", access, others, len(c.Clients))
}
