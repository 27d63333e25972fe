package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed example.yaml
var exampleConfig string

func newConfigCommand() *cobra.Command {
	var file, output string
	check := &cobra.Command{
		Use:     "check",
		Short:   "Report every mistake in the configuration, or explain what it means",
		Example: "  authserver config check --config authserver.yaml",
		Args:    arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			config, warnings, err := loadConfig(file, os.Environ())
			for _, warning := range warnings {
				fmt.Fprintln(os.Stderr, "warning:", warning)
			}
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(command.OutOrStdout()).Encode(config.summary())
			}
			return config.explain(command.OutOrStdout())
		},
	}
	check.Flags().StringVar(&file, "config", "", "configuration file (authserver.yaml if it exists)")
	outputFlag(check, &output)
	example := &cobra.Command{
		Use: "example", Short: "Print a complete commented configuration", Args: arguments(0),
		Example: "  authserver config example > authserver.yaml",
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := io.WriteString(command.OutOrStdout(), exampleConfig)
			return err
		},
	}
	return group("config", "Check or print a configuration", check, example)
}

// summary is what a configuration makes the server do.
type summary struct {
	File       string   `json:"file,omitempty"`
	Issuer     string   `json:"issuer"`
	Listen     string   `json:"listen"`
	TLS        bool     `json:"tls"`
	Metrics    string   `json:"metrics_listen"`
	Store      string   `json:"store"`
	MasterKey  string   `json:"master_key"`
	Access     string   `json:"access_token_lifetime"`
	Idle       string   `json:"refresh_idle"`
	Max        string   `json:"refresh_max"`
	Algorithms []string `json:"algorithms"`
	Rotate     string   `json:"rotate_every"`
	Resources  []string `json:"resources"`
	Clients    int      `json:"clients"`
	Users      int      `json:"users"`
}

func (c *config) summary() summary {
	tokens := c.Tokens.WithDefaults()
	s := summary{
		File: c.file, Issuer: c.Issuer, Listen: c.Listen, TLS: c.TLS != (tlsConfig{}), Metrics: c.MetricsListen,
		Store: "embedded, in " + c.Data, MasterKey: "the file " + c.MasterKeyFile,
		Access: tokens.Access.String(), Idle: tokens.RefreshIdle.String(), Max: tokens.RefreshMax.String(),
		Algorithms: c.Keys.Algorithms, Rotate: c.Keys.RotateEvery.String(), Clients: len(c.Clients), Users: len(c.Users),
	}
	if c.Store != "" {
		s.Store = "Redis"
	}
	if c.MasterKey != "" {
		s.MasterKey = "the configuration"
	}
	for _, resource := range c.Resources {
		s.Resources = append(s.Resources, resource.Identifier)
	}
	return s
}

func (c *config) explain(out io.Writer) error {
	s := c.summary()
	where := "no configuration file; defaults and environment"
	if s.File != "" {
		where = s.File
	}
	tls := "plain HTTP; TLS is up to a proxy in front"
	if s.TLS {
		tls = "TLS by " + c.TLS.CertFile
	}
	resources := "none: access tokens are meant for the issuer itself"
	if len(s.Resources) > 0 {
		resources = strings.Join(s.Resources, ", ")
	}
	_, err := fmt.Fprintf(out, `%s is valid.
issuer         %s
listens on     %s (%s)
metrics on     %s
store          %s
master key     from %s
access tokens  live %s, signed with %s unless a resource says otherwise
grants         end after %s without a refresh, and after %s in any case
signing keys   %s; each signs for %s, the next is published %s before
resources      %s
clients        %d
users          %d
`, where, s.Issuer, s.Listen, tls, s.Metrics, s.Store, s.MasterKey, s.Access, s.Algorithms[0], s.Idle, s.Max,
		strings.Join(s.Algorithms, ", "), s.Rotate, c.Keys.PublishBefore, resources, s.Clients, s.Users)
	return err
}
