package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"

	"go.yaml.in/yaml/v4"
)

func writeConfig(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authserver.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every mistake is reported, each with its place, what was found and what is allowed.
func TestConfigMistakes(t *testing.T) {
	path := writeConfig(t, `issuer: http://auth.example.com/
listn: :8080
metrics_listen: 9090
tokens: {access: 10, refresh_idle: 2h, id: 2h}
keys:
  publish_before: 1m
  algorithms: [ES256, HS256]
resources:
  - {identifier: orders, scopes: [read, read]}
clients:
  - client_id: web
    grant_types: [pasword]
    redirect_uris: ["http://web.example.com/cb"]
    client_secret: 0123456789abcdef0123456789abcdef
    scope: unknown
  - client_id: web
trusted_proxies: [10.0.0.0]
users:
  - {username: alice, password_hash: hunter2, roles: admin}
listen: :1
listen: :2
log: {level: loud}
`)
	_, _, err := loadConfig(path, []string{"AUTHSERVER_TOKENS_ACESS=1m", "AUTHSERVER_TOKENS_CODE=soon"})
	var found mistakes
	if !errors.As(err, &found) {
		t.Fatalf("not a list of mistakes: %v", err)
	}
	wanted := []string{
		`:1: issuer: "http://auth.example.com/" must be https`,
		`:2: listn: unknown key, did you mean listen?; allowed here are issuer, listen`,
		`:3: metrics_listen: "9090" is not an address`,
		`:4: tokens.access: "10" is not a duration`,
		`:4: tokens.id: is 2h0m0s; allowed are 10s to 1h0m0s`,
		`:6: keys.publish_before: is 1m0s`,
		`:7: keys.algorithms: has "HS256"; allowed are ES256, RS256, EdDSA`,
		`:9: resources[0].identifier: "orders" is not an absolute URI`,
		`:9: resources[0].scopes[1]: "read" belongs to orders already`,
		`:12: clients[0].grant_types[0]: "pasword" is unknown; allowed are`,
		`:13: clients[0].redirect_uris[0]: "http://web.example.com/cb" must be https`,
		`:15: clients[0].scope: "unknown" belongs to no configured resource`,
		`:16: clients[1].client_id: "web" is configured twice`,
		`:16: clients[1]: has neither client_secret nor jwks`,
		`:17: trusted_proxies[0]: "10.0.0.0" is not a network`,
		`:19: users[0].roles: found a single value, expected a list`,
		`:19: users[0].password_hash: not a PHC string`,
		`:21: listen: is given twice`,
		`:22: log.level: "loud" is unknown; allowed are debug, info, warn, error`,
		`environment variable AUTHSERVER_TOKENS_ACESS: unknown, did you mean AUTHSERVER_TOKENS_ACCESS?`,
		`environment variable AUTHSERVER_TOKENS_CODE: tokens.code: "soon" is not a duration`,
	}
	for _, want := range wanted {
		if !slices.ContainsFunc(found, func(line string) bool { return strings.HasPrefix(strings.TrimPrefix(line, path), want) }) {
			t.Errorf("missing: %s", want)
		}
	}
	if len(found) != len(wanted) {
		t.Errorf("%d mistakes, want %d", len(found), len(wanted))
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "0123456789abcdef") {
		t.Error("a secret is in the message")
	}
	if t.Failed() {
		t.Log(err)
	}
}

// One mistake, and the whole message about it.
func TestConfigMessages(t *testing.T) {
	const minimal = "issuer: https://a.example\n"
	for _, c := range []struct{ text, want string }{
		{"issuer: [", `2: not valid YAML: did not find expected node content`},
		{"issuer: https://a.example\nclient_secret: *hunter2", `2: not valid YAML: unknown anchor; a text that begins with * needs quotes`},
		{minimal + "---\n{}", `2: a second document begins; the configuration is one`},
		{"- issuer", `1: found a list, expected a mapping of keys to values`},
		{"", ` issuer: is missing; it is the https URL that clients know this server by, for example https://auth.example.com`},
		{"issuer: []", `1: issuer: found a list, expected text`},
		{"issuer: &a https://a.example", `1: issuer: anchors and aliases are not supported; write the value out`},
		{minimal + "tokens: 10m", `2: tokens: found a single value, expected a mapping of keys to values`},
		{minimal + "tokens:\n  access: 0s", `3: tokens.access: is zero; leave the key out for the default`},
		{minimal + "tokens: {access: 2h}", `2: tokens.access: is 2h0m0s; allowed are 10s to 1h0m0s`},
		{minimal + "tokens: {retry_window: 61s}", `2: tokens.retry_window: is 1m1s; allowed are 0s to 1m0s`},
		{minimal + "tokens: {code: 11m}", `2: tokens.code: is 11m0s; allowed are 1s to 10m0s`},
		{minimal + "tokens: {access: -5m}", `2: tokens.access: "-5m" is negative`},
		{minimal + "tokens: {access: [1m]}", `2: tokens.access: found a list, expected a duration such as 10m`},
		{minimal + "tokens: {acces: 1m}", `2: tokens.acces: unknown key, did you mean access?; allowed here are access, id, refresh_idle, refresh_max, retry_window, code`},
		{minimal + "listen: off", `2: listen: "off" is not an address; write host:port or :port`},
		{minimal + "listen: :65536", `2: listen: ":65536" has no port between 0 and 65535`},
		{minimal + "log: {level: loud}", `2: log.level: "loud" is unknown; allowed are debug, info, warn, error`},
		{minimal + "store: postgres://x", `2: store: the store URL must begin with redis://, redis+sentinel:// or redis+cluster://, or rediss for TLS; without one the embedded store is used`},
		{minimal + "store: redis://:hunter2@r:6379/abc", `2: store: the store URL does not end in the number of a database, such as /0; without one the embedded store is used`},
		{minimal + "store: 'redis://r:6379 '", `2: store: the store URL has a host without a port or name; write host:port, and a password before an @; without one the embedded store is used`},
		{minimal + "tls: {cert_file: a}", `2: tls: needs both cert_file and key_file, or neither where a proxy in front does TLS`},
		{minimal + "master_key: a\nmaster_key_file: b", `3: master_key_file: is given beside master_key; give one of them`},
		{minimal + "store_password_file: /nowhere", `2: store_password_file: cannot be read: open /nowhere: no such file or directory`},
		{minimal + "clients: [{client_id: a, client_secret_file: /}]", `2: clients[0].client_secret_file: cannot be read: read /: is a directory`},
		{minimal + "clients: [{client_id: a, client_secret: [x]}]", `2: clients[0].client_secret: found a list, expected text`},
		{minimal + "clients: [{client_id: a, client_secret_file: /dev/zero}]",
			`2: clients[0].client_secret_file: cannot be read: /dev/zero is larger than 65536 bytes`},
		{minimal + "receivers: [{name: a, url: https://a.example, audience: b, secret: c}]",
			`2: receivers[0].secret: unknown key; allowed here are name, url, audience, events, authorization, authorization_file`},
		{minimal + "receivers: [{name: a, url: 'http://127.0.0.1:1', audience: b}]",
			`2: receivers[0].url: "http://127.0.0.1:1" will not be dialled: the address is not on the public internet and not in outbound_networks: 127.0.0.1:1`},
		{minimal + "receivers: [{name: a, url: https://a.example, audience: b, authorization_file: /nowhere}]",
			`2: receivers[0].authorization_file: cannot be read: open /nowhere: no such file or directory`},
		{minimal + "tokens: {hunter2$x: 1}", `2: tokens.?: not the name of a key; a value with a comma, a colon or a # needs quotes`},
		{minimal + "keys: {algorithms: [ES256, ES256]}", `2: keys.algorithms: has ES256 twice`},
		{minimal + "keys: {algorithms: [ES256]}\nresources: [{identifier: https://b.example, algorithm: RS256}]",
			`3: resources[0].algorithm: "RS256" is not one of keys.algorithms (ES256)`},
		{minimal + "clients: [{client_id: a, default_max_age: often}]", `2: clients[0].default_max_age: "often" is not a whole number`},
		{minimal + "clients: [{client_id: a, token_endpoint_auth_method: none, default_max_age: -1}]", `2: clients[0].default_max_age: -1 is not a number of seconds from 0 to 2147483647`},
		{minimal + "users: [{username: a, disabled: perhaps, password_hash: '" + demoAlice + "'}]", `2: users[0].disabled: "perhaps" is not true or false`},
		{minimal + "users:\n- username: a\n  password_hash: " + demoAlice + "\n  claims:\n    a: 1\n    a: 2", `7: users[0].claims: has a key twice, or one that is not a text`},
		{minimal + "users:\n- username: a\n  password_hash: " + demoAlice + "\n  claims:\n    a: &x [1]\n    b: *x",
			`6: users[0].claims: anchors and aliases are not supported; write the value out`},
		{minimal + "users:\n- username: a\n  password_hash: " + demoAlice + "\n  claims:\n    a: .inf", `6: users[0].claims: has a value that JSON cannot express`},
	} {
		path := writeConfig(t, c.text)
		_, _, err := loadConfig(path, nil)
		var found mistakes
		if !errors.As(err, &found) || len(found) != 1 || found[0] != path+":"+c.want {
			t.Errorf("%q:\n%v\nwant %s", c.text, err, c.want)
		}
	}
	if _, _, err := loadConfig(filepath.Join(t.TempDir(), "missing.yaml"), nil); err == nil || hintOf(err) == "" {
		t.Errorf("a named file that is missing: %v", err)
	}
	if _, _, err := loadConfig(writeConfig(t, minimal+strings.Repeat("# \n", maxConfigFile/3)), nil); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestConfigVariableMessages(t *testing.T) {
	path := writeConfig(t, "issuer: https://a.example\nclients:\n- {client_id: a, token_endpoint_auth_method: none, scope: x}\n")
	for _, c := range []struct{ variable, want string }{
		{"AUTHSERVER_ISSUR=x", "AUTHSERVER_ISSUR: unknown, did you mean AUTHSERVER_ISSUER?"},
		{"AUTHSERVER_SECRET_OF_MINE=hunter2", "AUTHSERVER_SECRET_OF_MINE: unknown; a variable is a key in capitals, for example " +
			"AUTHSERVER_TOKENS_ACCESS for tokens.access, and `authserver config example` shows every key"},
		{"AUTHSERVER_TOKENS_ACCESS=", `AUTHSERVER_TOKENS_ACCESS: tokens.access: "" is not a duration; write for example 90s, 10m or 720h`},
		{"AUTHSERVER_CLIENTS=[hunter2", "AUTHSERVER_CLIENTS: clients: is not one YAML or JSON list such as [a, b]"},
		{"AUTHSERVER_CLIENTS=hunter2", "AUTHSERVER_CLIENTS: clients: found a single value, expected a list such as [a, b]"},
		{"AUTHSERVER_USERS=[{username: [hunter2]}]", "AUTHSERVER_USERS: users[0].username: found a list, expected text"},
		// What the file says about the key's parts is not named as its place.
		{"AUTHSERVER_CLIENTS=[{client_id: a}]", "AUTHSERVER_CLIENTS: clients[0]: has neither client_secret nor jwks; a public client says token_endpoint_auth_method: none"},
		{"AUTHSERVER_LISTEN=nowhere", `AUTHSERVER_LISTEN: listen: "nowhere" is not an address; write host:port or :port`},
	} {
		_, _, err := loadConfig(path, []string{c.variable})
		if err == nil || !strings.Contains(err.Error(), "environment variable "+c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s:\n%v\nwant %s", c.variable, err, c.want)
		}
	}
	// Without a file, too.
	t.Chdir(t.TempDir())
	if _, _, err := loadConfig("", []string{"AUTHSERVER_LISTEN=nowhere"}); err == nil || !strings.Contains(err.Error(), "AUTHSERVER_LISTEN") {
		t.Errorf("a bad address without a file: %v", err)
	}
}

// The environment wins over the file; secrets come from files beside it.
func TestConfigSources(t *testing.T) {
	path := writeConfig(t, "issuer: https://file.example.com\nclients: [{client_id: a, client_secret_file: secret, scope: x}]\n")
	secret := strings.Repeat("s", 32)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := loadConfig(path, []string{
		"AUTHSERVER_ISSUER=https://env.example.com", "AUTHSERVER_TOKENS_ACCESS=5m", "AUTHSERVER_KEYS_ALGORITHMS=[EdDSA]", "HOME=/",
		`AUTHSERVER_RESOURCES=[{"identifier":"https://api.example.com","scopes":["x"]}]`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Issuer != "https://env.example.com" || c.Tokens.Access != 5*time.Minute || c.Keys.Algorithms[0] != "EdDSA" ||
		c.Resources[0].Scopes[0] != "x" || c.Clients[0].ClientSecret != secret {
		t.Errorf("%+v", c)
	}
}

// Paths in the file are relative to it, those in the environment to the working
// directory.
func TestConfigPaths(t *testing.T) {
	path := writeConfig(t, "issuer: https://a.example\ndata: ./state\nmaster_key_file: ../keys/master\n")
	directory := filepath.Dir(path)
	c, _, err := loadConfig(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != filepath.Join(directory, "state") || c.MasterKeyFile != filepath.Join(filepath.Dir(directory), "keys", "master") {
		t.Errorf("data %s, master key %s", c.Data, c.MasterKeyFile)
	}
	if c, _, err = loadConfig(path, []string{"AUTHSERVER_DATA=here", "AUTHSERVER_MASTER_KEY_FILE=/run/key"}); err != nil || c.Data != "here" || c.MasterKeyFile != "/run/key" {
		t.Errorf("%+v %v", c, err)
	}
	if c, _, err = loadConfig(writeConfig(t, "issuer: https://a.example"), nil); err != nil || c.Data != "data" || c.MasterKeyFile != "data/master.key" {
		t.Errorf("%+v %v", c, err)
	}
}

// A secret in a file that everybody may read works, with a warning.
func TestConfigOpenSecretFile(t *testing.T) {
	path := writeConfig(t, "issuer: https://a.example\nstore: redis://localhost:1\nstore_password_file: password\n")
	secret := filepath.Join(filepath.Dir(path), "password")
	for mode, open := range map[os.FileMode]bool{0o400: false, 0o640: false, 0o444: true} {
		if err := os.WriteFile(secret, []byte("hunter2\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
		c, warnings, err := loadConfig(path, nil)
		if err != nil || c.StorePassword != "hunter2" {
			t.Fatalf("%04o: %v", mode, err)
		}
		warned := slices.ContainsFunc(warnings, func(w string) bool {
			return strings.HasPrefix(w, path+":3: store_password_file: "+secret+" is open to every user")
		})
		if warned != open {
			t.Errorf("%04o: warnings %q", mode, warnings)
		}
		os.Remove(secret)
	}
	if err := os.WriteFile(secret, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadConfig(path, nil); err == nil || !strings.Contains(err.Error(), "password is empty") {
		t.Errorf("an empty secret: %v", err)
	}
}

// The example is valid.
func TestConfigExample(t *testing.T) {
	c, warnings, err := loadConfig(writeConfig(t, exampleConfig), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	var out strings.Builder
	if err := c.explain(&out); err != nil || !strings.Contains(out.String(), "https://auth.example.com/.well-known/openid-configuration") {
		t.Errorf("%s %v", out.String(), err)
	}
}

// The example shows every key at its place, counting those it leaves out.
func TestConfigExampleIsComplete(t *testing.T) {
	text := regexp.MustCompile(`(?m)^( *)#([a-z])`).ReplaceAllString(exampleConfig, "$1$2")
	d := newDecoder("example.yaml")
	if d.file([]byte(text), new(config)); len(d.mistakes) > 0 {
		t.Fatalf("%v in:\n%s", d.mistakes, text)
	}
	shown := make(map[string]bool)
	for key := range d.origin {
		shown[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(key, "")] = true
	}
	for _, key := range keyPaths(reflect.TypeFor[config](), "") {
		if !shown[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func keyPaths(t reflect.Type, under string) []string {
	var paths []string
	fields := fieldsOf(t)
	for i, name := range fields.names {
		path, field := join(under, name, "."), t.Field(fields.index[i]).Type
		paths = append(paths, path)
		if field.Kind() == reflect.Slice {
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct {
			paths = append(paths, keyPaths(field, path)...)
		}
	}
	return paths
}

// Whatever the text: no panic, each mistake names the file, and what is taken
// without one is a mapping of known keys.
func FuzzConfig(f *testing.F) {
	// Each setting of the example by itself, without its prose: the whole of it is so long
	// that nearly all that is changed in it is said of the same few keys, slowly.
	var setting strings.Builder
	for line := range strings.Lines(exampleConfig + "end:\n") {
		line = strings.TrimPrefix(line, "#") // of keys that it leaves out
		if len(line) > 0 && line[0] >= 'a' && line[0] <= 'z' && strings.Contains(line, ":") {
			f.Add(setting.String())
			setting.Reset()
			setting.WriteString("issuer: https://auth.example.com\n")
		}
		setting.WriteString(line)
	}
	for _, seed := range []string{"a: &a [*a]", "tokens: {access: 1e9h}\nclients: [[], {}]", "users: [{claims: {a: {b: [1, ~]}}}]", "<<: {issuer: a}", "? [a]\n: b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip("longer ones are slow and show no more")
		}
		d := newDecoder("fuzz.yaml")
		var c config
		if readable := d.file([]byte(text), &c); !readable && len(d.mistakes) == 0 && strings.Trim(text, "~ \n") != "" {
			var document yaml.Node
			if yaml.Unmarshal([]byte(text), &document) != nil {
				t.Fatal("what is not YAML passed without a mistake")
			}
		}
		d.resolvePaths(&c)
		c.setDefaults()
		c.check(d)
		for _, mistake := range d.mistakes {
			if !strings.HasPrefix(mistake, "fuzz.yaml:") {
				t.Fatalf("a mistake without a place: %s", mistake)
			}
		}
		if len(d.mistakes) == 0 && (c.Issuer == "" || c.summary().Issuer != c.Issuer) {
			t.Fatalf("accepted without an issuer: %q", text)
		}
	})
}

func TestConfigCheckSaysWhatSigningCosts(t *testing.T) {
	for content, want := range map[string]string{
		"keys: {algorithms: [ES256]}": "tens of microseconds",
		"keys: {algorithms: [ES256, RS256]}\nclients:\n" +
			"- {client_id: a, redirect_uris: [https://a.example/cb], token_endpoint_auth_method: none, id_token_signed_response_alg: ES256}\n" +
			"- {client_id: b, redirect_uris: [https://b.example/cb], token_endpoint_auth_method: none}": "as 1 of 2 have",
		"keys: {algorithms: [ES256, RS256]}": "no access tokens are by RS256",
		"keys: {algorithms: [RS256, ES256]}\nclients:\n" +
			"- {client_id: a, redirect_uris: [https://a.example/cb], token_endpoint_auth_method: none, id_token_signed_response_alg: RS256}": "as 0 of 1 have",
		"keys: {algorithms: [RS256]}": "access tokens for whoever is not configured otherwise",
		"keys: {algorithms: [ES256, RS256]}\nresources: [{identifier: https://old.example, algorithm: RS256}, {identifier: https://new.example}]": "access tokens for https://old.example.",
	} {
		c, _, err := loadConfig(writeConfig(t, "issuer: https://auth.example.com\n"+content), nil)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := c.explain(&out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

// What is promised is what was asked for, or the server says what is lacking.
func TestDurability(t *testing.T) {
	for text, want := range map[string]string{
		"durability: always":     `2: durability: is "always"; it can be fsync, replicated or async`,
		"durability: replicated": "2: durability: replicated is for Redis with replicas",
	} {
		_, _, err := loadConfig(writeConfig(t, "issuer: https://a.example\n"+text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for durability, want := range map[string]string{"replicated": "more than half", "fsync": "does not start", "": "configured for", "async": "configured for"} {
		c, _, err := loadConfig(writeConfig(t, "issuer: https://a.example\nstore: redis://localhost:1\ndurability: "+durability), nil)
		if err != nil || !strings.Contains(c.summary().Durability, want) {
			t.Errorf("%s: %v", durability, err)
		}
	}
	directory, redis := t.TempDir(), redistest.Start(t, "--appendonly", "yes")
	for durability, want := range map[string]string{"fsync": "set appendfsync always", "replicated": "add replicas"} {
		os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte("listen: localhost:0\nissuer: http://localhost:1\nmetrics_listen: \"off\"\nstore: "+redis.URL()+"\ndurability: "+durability+"\n"), 0o600)
		fails(t, directory, nil, "asked for durability "+durability+" and promises less", "serve")
		fails(t, directory, nil, want, "serve")
	}
}

// A configuration as it comes from elsewhere: of an editor that marks UTF-8 and ends lines
// as Windows does, with secrets from files and variables that end in a line break.
func TestConfigFromElsewhere(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	directory := t.TempDir()
	t.Chdir(directory)
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := byteOrderMark + "issuer: http://localhost:8080\r\nclients:\r\n- client_id: web\r\n  client_secret_file: secret\r\n  grant_types: [client_credentials]\r\n"
	write("authserver.yaml", text)
	write("secret", byteOrderMark+secret+"\r\n")
	c, warnings, err := loadConfig("", []string{"AUTHSERVER_STORE=redis://localhost:6379\n", "AUTHSERVER_STORE_PASSWORD=redis\r\n"})
	if err != nil || len(warnings) != 0 || c.Clients[0].ClientSecret != secret || c.Store != "redis://localhost:6379" || c.StorePassword != "redis" {
		t.Fatalf("%+v %v %v", c, warnings, err)
	}
	for _, test := range []struct{ config, secret, mistake, warning string }{
		{text, secret + "\nsecond", "more than one line", ""},
		{"issuer: http://localhost:8080 # \xfc", secret, ":1: not valid YAML: the text is not in UTF-8", ""},
		{"i\x00s\x00", secret, "the text is not in UTF-8", ""},
		{"issuer: http://localhost:8080\ntokens:\n\taccess: 5m", secret, ":3: not valid YAML: a line begins with a tab", ""},
		{"issuer: http://localhost:8080\nlisten: :8080\nmetrics_listen: :8080", secret, `:3: metrics_listen: ":8080" is the address of listen`, ""},
		{"issuer: http://localhost:8080\nclients: [{client_id: a, token_endpoint_auth_method: none, redirect_uris: ['https://*.example.com/']}]", secret, "has a *; register each URI", ""},
		{"issuer: HTTPS://Auth.Example.com:443/a", secret, "", `"https://auth.example.com/a" by clients`},
		{"issuer: https://auth.example.com:8443", secret, "", ""},
		{"issuer: http://localhost:8080\nclients: [{client_id: a, token_endpoint_auth_method: none}]", secret, "", "clients[0].redirect_uris: are missing"},
		{"issuer: http://localhost:8080\nresources: [{identifier: 'https://a.example'}]\nclients: [{client_id: a, client_secret: " + secret + ", resource: 'https://a.example'}]", secret, "", ""},
	} {
		write("authserver.yaml", test.config)
		write("secret", test.secret)
		_, warnings, err := loadConfig("", nil)
		said := strings.Join(warnings, "\n")
		if (err == nil) != (test.mistake == "") || err != nil && !strings.Contains(err.Error(), test.mistake) ||
			(said == "") != (test.warning == "") || !strings.Contains(said, test.warning) {
			t.Errorf("%q: %v, warnings %q", test.config, err, said)
		}
	}
}

// Command lines of somebody in a hurry: what to type instead is said.
func TestHastyCommandLines(t *testing.T) {
	c := terminal{t: t, directory: t.TempDir()}
	c.fails(2, "hint: authserver serve --config prod.yaml", "serve", "prod.yaml")
	c.fails(2, "hint: authserver config check --config prod.yml", "config", "check", "prod.yml")
	c.fails(1, "hint: name a file that `authserver backup` made", "restore", "nope.db", "--yes")
	if stdout, stderr, status := c.run("--version"); status != 0 || !strings.HasPrefix(stdout, "authserver version ") {
		t.Errorf("--version: %d %q %q", status, stdout, stderr)
	}
}
