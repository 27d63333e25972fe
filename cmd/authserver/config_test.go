package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
	if err == nil {
		t.Fatal("no mistake was found")
	}
	for _, want := range []string{
		`:1: issuer: "http://auth.example.com/" must be https`,
		`:2: listn: unknown key, did you mean listen?; allowed here are issuer, listen`,
		`:3: metrics_listen: "9090" is not an address`,
		`:4: tokens.access: "10" is not a duration`,
		`:4: tokens.id: is 2h0m0s; allowed are 10s to 1h0m0s`,
		`publish_before is 1m0s`,
		`algorithms has "HS256"; allowed are ES256, RS256, EdDSA`,
		`:9: resources[0].identifier: "orders" is not an absolute URI`,
		`:9: resources[0].scopes[1]: "read" belongs to orders already`,
		`:12: clients[0].grant_types[0]: "pasword" is unknown; allowed are`,
		`:13: clients[0].redirect_uris[0]: "http://web.example.com/cb" must be https`,
		`:15: clients[0].scope: "unknown" belongs to no configured resource`,
		`:16: clients[1].client_id: "web" is configured twice`,
		`has neither client_secret nor jwks`,
		`:17: trusted_proxies[0]: "10.0.0.0" is not a network`,
		`:19: users[0].roles: found a single value, expected a list`,
		`:19: users[0].password_hash: not a PHC string`,
		`:21: listen: is given twice`,
		`:22: log.level: "loud" is unknown; allowed are debug, info, warn, error`,
		`environment: AUTHSERVER_TOKENS_ACESS: unknown variable, did you mean AUTHSERVER_TOKENS_ACCESS?`,
		`environment variable AUTHSERVER_TOKENS_CODE: tokens.code: "soon" is not a duration`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "0123456789abcdef") {
		t.Error("a secret is in the message")
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestConfigFormMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"issuer: [":                         "not valid YAML",
		"issuer: https://a\n---\n{}":        "a second document begins",
		"- issuer":                          "found a list, expected a mapping",
		"tokens: 10m":                       "tokens: found a single value, expected a mapping",
		"issuer: &a https://a":              "anchors and aliases are not supported",
		"tokens: {access: 0s}":              "tokens.access: is zero",
		"tokens: {access: -5m}":             "is negative",
		"tls: {cert_file: a}":               "tls: needs both cert_file and key_file",
		"master_key: a\nmaster_key_file: b": "is given beside master_key",
		"store_password_file: /nowhere":     "store_password_file: cannot be read",
	} {
		if _, _, err := loadConfig(writeConfig(t, text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, _, err := loadConfig(filepath.Join(t.TempDir(), "missing.yaml"), nil); err == nil || hintOf(err) == "" {
		t.Errorf("a named file that is missing: %v", err)
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

// The example is valid and shows every key there is.
func TestConfigExample(t *testing.T) {
	c, warnings, err := loadConfig(writeConfig(t, exampleConfig), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	var out strings.Builder
	if err := c.explain(&out); err != nil || !strings.Contains(out.String(), "https://auth.example.com") {
		t.Errorf("%s %v", out.String(), err)
	}
	for _, name := range keyNames(reflect.TypeFor[config]()) {
		if !strings.Contains(exampleConfig, name) {
			t.Errorf("the example does not show %s", name)
		}
	}
}

func keyNames(t reflect.Type) []string {
	names := slices.Clone(fieldsOf(t).names)
	for _, i := range fieldsOf(t).index {
		field := t.Field(i).Type
		for field.Kind() == reflect.Slice || field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct {
			names = append(names, keyNames(field)...)
		}
	}
	return names
}

func FuzzConfig(f *testing.F) {
	f.Add(exampleConfig)
	f.Add("a: &a [*a]")
	f.Add("tokens: {access: 1e9h}\nclients: [[], {}]")
	f.Fuzz(func(t *testing.T, text string) {
		d := newDecoder("fuzz")
		var c config
		d.file([]byte(text), &c)
		if len(d.mistakes) == 0 {
			var document yaml.Node
			if err := yaml.Unmarshal([]byte(text), &document); err != nil {
				t.Fatalf("accepted what is not YAML: %v", err)
			}
		}
	})
}
