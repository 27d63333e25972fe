package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"
	"authserver/store/redisstore"
)

const (
	defaultConfigFile = "authserver.yaml"
	metricsOff        = "off" // as metrics_listen
)

// config is authserver.yaml. Every key can also be given in the environment:
// tokens.access as AUTHSERVER_TOKENS_ACCESS; lists as YAML or JSON text there.
// example.yaml says what each key means.
type config struct {
	Issuer            string                `yaml:"issuer"`
	Listen            string                `yaml:"listen"`
	MetricsListen     string                `yaml:"metrics_listen"`
	DrainDelay        *time.Duration        `yaml:"drain_delay"` // not nil once defaults are set
	Data              string                `yaml:"data"`
	Store             string                `yaml:"store"`
	StorePassword     string                `yaml:"store_password"`
	StorePasswordFile string                `yaml:"store_password_file"`
	StoreCAFile       string                `yaml:"store_ca_file"`
	StoreCertFile     string                `yaml:"store_cert_file"`
	StoreKeyFile      string                `yaml:"store_key_file"`
	InsecureStore     bool                  `yaml:"insecure_store"`
	Durability        string                `yaml:"durability"`
	MasterKey         string                `yaml:"master_key"`
	MasterKeyFile     string                `yaml:"master_key_file"`
	TLS               tlsConfig             `yaml:"tls"`
	TrustedProxies    []string              `yaml:"trusted_proxies"`
	Revocations       string                `yaml:"revocations"`
	Tokens            authserver.Tokens     `yaml:"tokens"`
	Sessions          authserver.Sessions   `yaml:"sessions"`
	Keys              keysConfig            `yaml:"keys"`
	Resources         []authserver.Resource `yaml:"resources"`
	Scopes            []authserver.Scope    `yaml:"scopes"`
	Clients           []authserver.Client   `yaml:"clients"`
	Users             []authserver.User     `yaml:"users"`
	OutboundNetworks  []string              `yaml:"outbound_networks"`
	Receivers         []authserver.Receiver `yaml:"receivers"`
	Branding          brandingConfig        `yaml:"branding"`
	Log               logConfig             `yaml:"log"`

	proxies  []netip.Prefix
	outbound []netip.Prefix
	file     string // where it was read from; empty without a file
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
	Backend       string        `yaml:"backend"` // socket of a process that keeps the keys
}

type brandingConfig struct {
	Name     string `yaml:"name"`
	LogoFile string `yaml:"logo_file"`
	Color    string `yaml:"color"`
}

type logConfig struct {
	Level          string `yaml:"level"`
	AuditFile      string `yaml:"audit_file"`
	AuditFileSize  int    `yaml:"audit_file_size"`  // MiB that it grows to
	AuditFilesKept int    `yaml:"audit_files_kept"` // old ones
}

// loadConfig reads the configuration from a file and the environment. Without a
// named file it takes authserver.yaml if that exists. Relative paths are relative
// to the file that gives them, else to the working directory. The warnings are for
// the operator; an error that is mistakes holds every mistake there is.
func loadConfig(file string, environ []string) (c *config, warnings []string, err error) {
	named := file != ""
	if !named {
		file = defaultConfigFile
	}
	source, _, err := readFile(file, maxConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		file, source = "", nil
	case err != nil:
		return nil, nil, withHint(fmt.Errorf("reading the configuration: %w", err), "authserver config example prints one to begin with")
	}
	c = &config{file: file}
	d := newDecoder(file)
	readable := d.file(source, c)
	d.resolvePaths(c)
	d.environment(environ, c)
	c.credential(environ)
	c.setDefaults()
	d.secretFiles(c)
	if readable {
		c.check(d)
		c.checkCertificate(d)
		c.checkBranding(d)
		c.checkStoreTLS(d)
		c.checkDurability(d)
	}
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
	if c.file == "" && c.Issuer == "" {
		set(&c.Listen, "localhost:8080")
		if _, port, err := net.SplitHostPort(c.Listen); err == nil && c.TLS == (tlsConfig{}) {
			c.Issuer = "http://localhost:" + port
		}
	}
	set(&c.Listen, ":8080")
	set(&c.MetricsListen, "127.0.0.1:9090")
	set(&c.Data, "data")
	set(&c.Log.Level, "info")
	if c.DrainDelay == nil {
		delay := defaultDrain
		c.DrainDelay = &delay
	}
	if c.Log.AuditFileSize == 0 {
		c.Log.AuditFileSize = 100
	}
	if c.Log.AuditFilesKept == 0 {
		c.Log.AuditFilesKept = 10
	}
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

// check adds what is wrong with the values to the decoder's mistakes. Whatever
// could not be read has its mistake already and is not called missing as well.
func (c *config) check(d *decoder) {
	failed := maps.Clone(d.failed)
	c.proxies = networks(d, "trusted_proxies", c.TrustedProxies)
	c.outbound = networks(d, "outbound_networks", c.OutboundNetworks)
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		d.mistake("log.level", "%q is unknown; allowed are debug, info, warn, error", c.Log.Level)
	}
	if c.Log.AuditFileSize > maxAuditFileSize {
		d.mistake("log.audit_file_size", "is %d MiB; allowed are 1 to %d", c.Log.AuditFileSize, maxAuditFileSize)
	}
	if c.Log.AuditFilesKept > maxAuditFilesKept {
		d.mistake("log.audit_files_kept", "is %d; allowed are 1 to %d", c.Log.AuditFilesKept, maxAuditFilesKept)
	}
	if err := checkAddress(c.Listen); err != nil {
		d.mistake("listen", "%q %v", c.Listen, err)
	}
	if err := checkAddress(c.MetricsListen); err != nil && c.MetricsListen != metricsOff {
		d.mistake("metrics_listen", "%q %v, or off", c.MetricsListen, err)
	}
	if c.MetricsListen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
		d.mistake("metrics_listen", "%q is the address of listen; metrics have one of their own, or are off", c.MetricsListen)
	}
	if *c.DrainDelay < 0 || *c.DrainDelay > maxDrain {
		d.mistake("drain_delay", "is %s; allowed are 0s to %s", *c.DrainDelay, maxDrain)
	}
	if err := redisstore.CheckURL(c.Store); c.Store != "" && err != nil {
		d.mistake("store", "%v; without one the embedded store is used", err)
	}
	if c.MasterKey != "" && c.MasterKeyFile == "" && !failed["master_key"] {
		if _, err := keys.ParseMasterKeys([]byte(c.MasterKey)); err != nil {
			d.mistake("master_key", "%v", err)
		}
	}
	c.checkKeys(d)
	for _, problem := range c.serverConfig().Check() {
		switch {
		case problem.Warning:
			d.warning(problem.Key, "%s", problem.Text)
		case !failed[problem.Key]:
			d.mistake(problem.Key, "%s", problem.Text)
		}
	}
}

// networks parses the networks in a list.
func networks(d *decoder, key string, list []string) (prefixes []netip.Prefix) {
	for i, network := range list {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			d.mistake(fmt.Sprintf("%s[%d]", key, i), "%q is not a network; for example 10.0.0.0/8 or 192.0.2.7/32", network)
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes
}

func (c *config) checkKeys(d *decoder) {
	for _, err := range c.keysConfig().Check() {
		// The text begins with the key that it is about, where it is about one.
		name, text, _ := strings.Cut(err.Error(), " ")
		if slices.Contains(fieldsOf(reflect.TypeFor[keysConfig]()).names, name) {
			d.mistake("keys."+name, "%s", text)
		} else {
			d.mistake("keys", "%v", err)
		}
	}
	for i, resource := range c.Resources {
		if resource.Algorithm != "" && !slices.Contains(c.Keys.Algorithms, resource.Algorithm) {
			d.mistake(fmt.Sprintf("resources[%d].algorithm", i), "%q is not one of keys.algorithms (%s)",
				resource.Algorithm, strings.Join(c.Keys.Algorithms, ", "))
		}
	}
	for _, problem := range c.serverConfig().CheckAlgorithms(c.Keys.Algorithms) {
		d.mistake(problem.Key, "%s", problem.Text)
	}
}

func (c *config) checkCertificate(d *decoder) {
	if c.TLS == (tlsConfig{}) {
		return
	}
	if c.TLS.CertFile == "" || c.TLS.KeyFile == "" {
		d.mistake("tls", "needs both cert_file and key_file, or neither where a proxy in front does TLS")
	} else if _, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile); err != nil {
		d.mistake("tls", "%v; cert_file holds the certificate and its chain, key_file its private key, both in PEM", err)
	}
}

// serverConfig is the operator's part of the server's configuration.
func (c *config) serverConfig() authserver.Config {
	return authserver.Config{
		Issuer: c.Issuer, Tokens: c.Tokens, Sessions: c.Sessions, Resources: c.Resources, Scopes: c.Scopes, Clients: c.Clients, Users: c.Users,
		Source: c.file, TrustedProxies: c.proxies, OutboundNetworks: c.outbound, Revocations: c.Revocations, Receivers: c.Receivers,
	}
}

// keysConfig is the operator's part of the keys' configuration. The first of the
// master keys seals.
func (c *config) keysConfig(masters ...keys.MasterKey) keys.Config {
	tokens := c.Tokens.WithDefaults()
	into := keys.Config{
		Issuer:          c.Issuer,
		Algorithms:      c.Keys.Algorithms,
		RotateEvery:     c.Keys.RotateEvery,
		PublishBefore:   c.Keys.PublishBefore,
		CacheFor:        c.Keys.CacheFor,
		TokenLifetime:   max(tokens.Access, tokens.ID),
		RefreshLifetime: tokens.RefreshMax,
	}
	if len(masters) > 0 {
		into.MasterKey, into.OldMasterKeys = masters[0], masters[1:]
	}
	return into
}

const (
	maxConfigFile     = 1 << 20 // bytes
	maxAuditFileSize  = 1 << 20 // MiB
	maxAuditFilesKept = 10_000
)
