package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"
)

const defaultConfigFile = "authserver.yaml"

// config is authserver.yaml. Every key can also be given in the environment:
// tokens.access as AUTHSERVER_TOKENS_ACCESS; lists as YAML or JSON text there.
type config struct {
	Issuer            string                `yaml:"issuer"`
	Listen            string                `yaml:"listen"`
	MetricsListen     string                `yaml:"metrics_listen"`
	Data              string                `yaml:"data"`
	Store             string                `yaml:"store"`
	StorePassword     string                `yaml:"store_password"`
	StorePasswordFile string                `yaml:"store_password_file"`
	MasterKey         string                `yaml:"master_key"`
	MasterKeyFile     string                `yaml:"master_key_file"`
	TLS               tlsConfig             `yaml:"tls"`
	TrustedProxies    []string              `yaml:"trusted_proxies"`
	Tokens            authserver.Tokens     `yaml:"tokens"`
	Keys              keysConfig            `yaml:"keys"`
	Resources         []authserver.Resource `yaml:"resources"`
	Clients           []authserver.Client   `yaml:"clients"`
	Users             []authserver.User     `yaml:"users"`
	Log               logConfig             `yaml:"log"`

	proxies []netip.Prefix
	file    string // where it was read from; empty without a file
}

type tlsConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

type keysConfig struct {
	Algorithms    []string      `yaml:"algorithms"`
	RotateEvery   time.Duration `yaml:"rotate_every"`
	PublishBefore time.Duration `yaml:"publish_before"`
	CacheFor      time.Duration `yaml:"cache_for"`
}

type logConfig struct {
	Level string `yaml:"level"`
}

// mistakes are all that is wrong with a configuration, one line each.
type mistakes []string

func (m mistakes) Error() string { return strings.Join(m, "\n") }

// loadConfig reads the configuration from a file and the environment. Without a
// named file it takes authserver.yaml if that exists. The warnings are for the
// operator; an error holds every mistake there is.
func loadConfig(file string, environ []string) (c *config, warnings []string, err error) {
	named := file != ""
	if !named {
		file = defaultConfigFile
	}
	source, err := readBounded(file, maxConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		file, source = "", nil
	case err != nil:
		return nil, nil, withHint(fmt.Errorf("reading the configuration: %w", err), "authserver config example > %s", file)
	}
	c = &config{file: file}
	d := newDecoder(file)
	d.file(source, c)
	d.environment(environ, c)
	c.setDefaults()
	d.secretFiles(c)
	c.check(d)
	if len(d.mistakes) > 0 {
		return nil, d.warnings, mistakes(d.mistakes)
	}
	return c, d.warnings, nil
}

func (c *config) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	if c.file == "" && c.Issuer == "" && c.Listen == "" {
		c.Listen = "localhost:8080"
	}
	set(&c.Listen, ":8080")
	if c.file == "" && c.TLS == (tlsConfig{}) {
		_, port, _ := strings.Cut(c.Listen[strings.LastIndex(c.Listen, ":"):], ":")
		set(&c.Issuer, "http://localhost:"+port)
	}
	set(&c.MetricsListen, "127.0.0.1:9090")
	set(&c.Data, "data")
	set(&c.Log.Level, "info")
	if c.MasterKey == "" {
		set(&c.MasterKeyFile, filepath.Join(c.Data, "master.key"))
	}
	if len(c.Keys.Algorithms) == 0 {
		c.Keys.Algorithms = []string{"ES256", "RS256"}
	}
	setDuration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	setDuration(&c.Keys.RotateEvery, 2160*time.Hour)
	setDuration(&c.Keys.PublishBefore, 24*time.Hour)
	setDuration(&c.Keys.CacheFor, 10*time.Minute)
}

// check adds what is wrong with the values to the decoder's mistakes.
func (c *config) check(d *decoder) {
	for i, network := range c.TrustedProxies {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			d.mistake(fmt.Sprintf("trusted_proxies[%d]", i), "%q is not a network; for example 10.0.0.0/8 or 192.0.2.7/32", network)
			continue
		}
		c.proxies = append(c.proxies, prefix)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		d.mistake("log.level", "%q is unknown; allowed are debug, info, warn, error", c.Log.Level)
	}
	for _, address := range []struct{ key, value string }{{"listen", c.Listen}, {"metrics_listen", c.MetricsListen}} {
		if err := checkAddress(address.value); err != nil && address.value != "off" {
			d.mistake(address.key, "%q %v", address.value, err)
		}
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		d.mistake("tls", "needs both cert_file and key_file, or neither where a proxy in front does TLS")
	}
	if c.MasterKey != "" && c.MasterKeyFile != "" {
		d.mistake("master_key_file", "is given beside master_key; give one of them")
	}
	for _, err := range c.keysConfig(keys.MasterKey{}).Check() {
		d.mistake("keys", "%v", err)
	}
	server := c.serverConfig()
	for _, problem := range server.Check() {
		if problem.Warning {
			d.warning(problem.Key, "%s", problem.Text)
		} else {
			d.mistake(problem.Key, "%s", problem.Text)
		}
	}
	for i, resource := range c.Resources {
		if resource.Algorithm != "" && !slices.Contains(c.Keys.Algorithms, resource.Algorithm) {
			d.mistake(fmt.Sprintf("resources[%d].algorithm", i), "%q is not one of keys.algorithms (%s)",
				resource.Algorithm, strings.Join(c.Keys.Algorithms, ", "))
		}
	}
}

// serverConfig is the operator's part of the server's configuration.
func (c *config) serverConfig() authserver.Config {
	return authserver.Config{
		Issuer: c.Issuer, Tokens: c.Tokens, Resources: c.Resources, Clients: c.Clients, Users: c.Users, TrustedProxies: c.proxies,
	}
}

// keysConfig is the operator's part of the keys' configuration.
func (c *config) keysConfig(master keys.MasterKey) keys.Config {
	tokens := c.Tokens.WithDefaults()
	return keys.Config{
		MasterKey:       master,
		Issuer:          c.Issuer,
		Algorithms:      c.Keys.Algorithms,
		RotateEvery:     c.Keys.RotateEvery,
		PublishBefore:   c.Keys.PublishBefore,
		CacheFor:        c.Keys.CacheFor,
		TokenLifetime:   max(tokens.Access, tokens.ID),
		RefreshLifetime: tokens.RefreshMax,
	}
}

const maxConfigFile = 1 << 20 // bytes

// readBounded reads a file of at most limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory, not a file", name)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", name, info.Size(), limit)
	}
	return os.ReadFile(name)
}
