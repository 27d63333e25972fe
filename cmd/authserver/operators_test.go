package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/internal/redistest"
)

// terminal runs operators' commands in the directory of a server.
type terminal struct {
	t         *testing.T
	directory string
	stdin     string
}

// run returns what a command prints, its complaint and its exit status.
func (c terminal) run(args ...string) (stdout, stderr string, status int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), commandTime)
	defer cancel()
	command := exec.CommandContext(ctx, binary, args...)
	command.Dir, command.Stdin = c.directory, strings.NewReader(c.stdin)
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), complaint.String(), command.ProcessState.ExitCode()
}

// json runs a command that must succeed and decodes what it prints.
func (c terminal) json(into any, args ...string) {
	c.t.Helper()
	at := slices.Index(args, "--")
	if at < 0 {
		at = len(args)
	}
	stdout, stderr, status := c.run(slices.Insert(args, at, "-o", "json")...)
	if status != 0 {
		c.t.Fatalf("%v: exit status %d: %s", args, status, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), into); err != nil {
		c.t.Fatalf("%v: %v in %s", args, err, stdout)
	}
}

// fails runs a command that must fail with a status and say something.
func (c terminal) fails(status int, want string, args ...string) {
	c.t.Helper()
	stdout, stderr, got := c.run(args...)
	if got != status || !strings.Contains(stderr, want) || stdout != "" {
		c.t.Errorf("%v: exit status %d, want %d; it says %q, want %q; it prints %q", args, got, status, stderr, want, stdout)
	}
}

// operatedServer starts a server on a store ("" for the embedded one) with a
// configured client and user.
func operatedServer(t *testing.T, store string) (terminal, string) {
	t.Helper()
	directory, err := os.MkdirTemp("", "operators") // t.TempDir can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	port := freePort(t)
	text := "issuer: http://localhost:" + port + "\nlisten: localhost:" + port + "\nmetrics_listen: off\n" +
		"resources: [{identifier: https://api.example.com, scopes: [orders:read]}]\n" +
		"clients: [{client_id: fixed, client_secret: 0123456789abcdef0123456789abcdef, grant_types: [password, refresh_token], scope: orders:read}]\n" +
		"users: [{username: alice, password_hash: '" + demoAlice + "'}]\n"
	if store != "" {
		text += "store: " + store + "\n"
	}
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, directory, "http://localhost:"+port, nil, "serve")
	return terminal{t: t, directory: directory}, "http://localhost:" + port
}

// The operators' commands against the running binary, on both stores.
func TestOperatorsCommands(t *testing.T) {
	t.Run("bolt", func(t *testing.T) { t.Parallel(); operatorsCommands(t, "") })
	t.Run("redis", func(t *testing.T) { t.Parallel(); operatorsCommands(t, redistest.Start(t).URL()) })
}

func operatorsCommands(t *testing.T, store string) {
	c, issuer := operatedServer(t, store)
	token := func(id, secret string, form url.Values) (int, map[string]any) {
		t.Helper()
		status, body, err := postForm(t, issuer+"/token", id, secret, form)
		if err != nil {
			t.Fatal(err)
		}
		return status, body
	}
	var added struct {
		Client struct {
			ClientID string `json:"client_id"`
			Source   string `json:"source"`
		} `json:"client"`
		Secret string `json:"client_secret"`
	}
	c.json(&added, "client", "add", "shop", "--grant-type", "client_credentials", "--grant-type", "password",
		"--grant-type", "refresh_token", "--scope", "orders:read", "--redirect-uri", "https://shop.example.com/callback")
	if added.Client.ClientID != "shop" || added.Client.Source != "store" || len(added.Secret) != 43 {
		t.Fatalf("added: %+v", added)
	}
	if status, body := token("shop", added.Secret, tokenForm("client_credentials")); status != 200 {
		t.Fatalf("the new client gets %d %v", status, body)
	}
	c.fails(1, `there is a client "shop" already`, "client", "add", "shop", "--grant-type", "client_credentials")
	c.fails(1, "belongs to the configuration", "client", "remove", "fixed", "--yes")
	c.fails(1, "hint: edit clients in authserver.yaml and restart the server", "client", "secret", "fixed")
	c.fails(1, `there is no client "nobody"`, "client", "show", "nobody")
	c.fails(1, "hint: --yes answers the question", "client", "remove", "shop")
	c.fails(1, "redirect_uris[0]", "client", "add", "bad", "--redirect-uri", "javascript:alert(1)")
	c.fails(1, "redirect_uris are missing", "client", "add", "bad", "--grant-type", "authorization_code")
	c.fails(1, "or 6 or more of its first characters", "key", "show", "abc")
	c.fails(2, "hint: authserver client show CLIENT_ID", "client", "show")
	c.fails(2, "did you mean remove?", "client", "remov", "shop")
	c.fails(2, "the file holds all metadata", "client", "add", "--file", "-", "--scope", "orders:read")
	if stdout, _, status := c.run("client", "list"); status != 0 || !strings.Contains(stdout, "fixed") || !strings.Contains(stdout, "configuration") || !strings.Contains(stdout, "shop") {
		t.Errorf("client list: %d %s", status, stdout)
	}
	// A resource server has no grant, and what is not known of a secret is not shown.
	if stdout, _, _ := c.run("client", "add", "api", "--resource", "https://api.example.com"); !regexp.MustCompile(`grant_types +-\n`).MatchString(stdout) {
		t.Errorf("client add --resource: %s", stdout)
	}
	if stdout, _, _ := c.run("client", "list", "-o", "json"); strings.Contains(stdout, "{}") || !strings.Contains(stdout, `"secrets"`) {
		t.Errorf("client list -o json: %s", stdout)
	}
	windows := c
	windows.stdin = byteOrderMark + "{\"client_id\":\"notepad\",\r\n\"grant_types\":[\"client_credentials\"]}\r\n"
	if _, stderr, status := windows.run("client", "add", "--file", "-"); status != 0 {
		t.Errorf("client add with a byte order mark: %s", stderr)
	}
	windows.stdin = `{"client_id":"typo","redirect_uri":["https://a.example/"]}`
	windows.fails(1, `"redirect_uri" is unknown, did you mean redirect_uris?`, "client", "add", "--file", "-")
	fromFile := c
	fromFile.stdin = `{"client_id":"job","client_name":"\u001b[31mred","grant_types":["client_credentials"],
		"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}}`
	if stdout, stderr, status := fromFile.run("client", "add", "--file", "-"); status != 0 || !strings.Contains(stdout, "private_key_jwt") || strings.Contains(stdout, "\x1b") {
		t.Errorf("client add --file: %d %q %s", status, stdout, stderr)
	}

	// Users: the password comes from a pipe, and the server gets its hash only.
	typed := c
	typed.stdin = "correct horse battery staple\n"
	var carol struct {
		Subject string         `json:"sub"`
		Claims  map[string]any `json:"claims"`
	}
	typed.json(&carol, "user", "add", "Carol", "--role", "admin", "--claim", "email=carol@example.com", "--claim", "email_verified=true")
	if carol.Subject == "" || carol.Claims["email_verified"] != true || carol.Claims["email"] != "carol@example.com" {
		t.Errorf("added: %+v", carol)
	}
	// Within the second after the end of what she gave to the client, nothing new is given.
	signIn := func() (status int, answer map[string]any) {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			status, answer = token("shop", added.Secret, tokenForm("password", "username", "carol", "password", "correct horse battery staple"))
			if answer["error_description"] != "the grant has ended" || time.Now().After(deadline) {
				return status, answer
			}
		}
	}
	status, first := signIn()
	if status != 200 {
		t.Fatalf("carol gets %d %v", status, first)
	}
	typed.fails(1, `there is a user "carol" already`, "user", "add", "carol")
	// RFC 9700 §4.15: nobody passes for a client, not even for one that is disabled.
	c.json(new(any), "client", "disable", "job", "--yes")
	typed.fails(1, `"job" is the client_id of a client`, "user", "add", "mallory", "--sub", "job")
	c.fails(1, "a password has 1 to 1024 bytes", "user", "add", "dave")
	c.fails(2, "name one user", "user", "show", "carol", "--sub", "x")
	c.fails(1, "belongs to the configuration", "user", "remove", "alice", "--yes")

	// Grants: listed, and ended at the level that is named.
	var grants []struct {
		GrantID string `json:"grant_id"`
	}
	c.json(&grants, "grant", "list", "--user", "carol")
	if len(grants) != 1 {
		t.Fatalf("carol has %d grants", len(grants))
	}
	c.fails(2, "of a user or of a session", "grant", "list")
	c.fails(2, "name a grant", "grant", "revoke", "--yes")
	c.fails(1, "there is no grant", "grant", "revoke", "unknown", "--yes")
	c.fails(2, "hint: authserver grant revoke --help; a KID or GRANT_ID that begins with - goes last, behind --", "grant", "revoke", "-unknown", "--yes")
	c.fails(1, "there is no grant", "grant", "revoke", "--yes", "--", "-unknown")
	c.fails(1, "nobody can be asked", "grant", "revoke", "--", grants[0].GrantID)
	var revoked struct {
		Level  string `json:"level"`
		Grants int    `json:"grants"`
	}
	c.json(&revoked, "grant", "revoke", "--yes", "--reason", "test", "--", grants[0].GrantID)
	if revoked.Level != "grant" || revoked.Grants != 1 {
		t.Errorf("%+v", revoked)
	}
	dead := func(what string, tokens map[string]any) {
		t.Helper()
		refresh, _ := tokens["refresh_token"].(string)
		if status, body := token("shop", added.Secret, tokenForm("refresh_token", "refresh_token", refresh)); status != 400 || body["error"] != "invalid_grant" {
			t.Errorf("%s: the refresh token gets %d %v", what, status, body)
		}
		access, _ := tokens["access_token"].(string)
		if _, body, err := postForm(t, issuer+"/introspect", "shop", added.Secret, url.Values{"token": {access}}); err != nil || body["active"] != false {
			t.Errorf("%s: introspection says %v %v", what, body, err)
		}
	}
	dead("after the end of the grant", first)
	for _, level := range []string{"subject", "grants", "client"} {
		_, tokens := signIn()
		args := map[string][]string{"subject": {"--user", "carol"}, "grants": {"--user", "carol", "--client", "shop"}, "client": {"--client", "shop"}}[level]
		c.json(&revoked, append([]string{"grant", "revoke", "--yes"}, args...)...)
		if revoked.Level != level {
			t.Errorf("%+v, want %s", revoked, level)
		}
		dead("after the end of the "+level, tokens)
	}
	if stdout, stderr, status := c.run("grant", "revoke", "--client", "shop", "--yes", "--wait"); status != 0 || !strings.Contains(stdout, "enforced at 0 of 0 verifiers in ") {
		t.Errorf("--wait: exit status %d, %s %s", status, stdout, stderr)
	}
	var waited struct {
		Answer   struct{ Level string }
		Enforced struct{ Receipt string }
	}
	c.json(&waited, "user", "disable", "carol", "--yes", "--wait")
	c.json(new(any), "user", "enable", "carol")
	if waited.Enforced.Receipt == "" {
		t.Errorf("--wait: %+v", waited)
	}
	c.json(&waited, "grant", "revoke", "--user", "carol", "--yes", "--wait")
	if waited.Answer.Level != "subject" || waited.Enforced.Receipt == "" {
		t.Errorf("--wait: %+v", waited)
	}
	_, tokens := signIn()
	c.json(new(any), "user", "disable", "carol", "--yes")
	dead("after disabling the user", tokens)
	if status, _ := signIn(); status != 400 {
		t.Errorf("a disabled user gets %d", status)
	}
	c.json(new(any), "user", "enable", "carol")
	if status, body := signIn(); status != 200 {
		t.Errorf("an enabled user gets %d %v", status, body)
	}
	_, tokens = signIn()
	c.json(new(any), "user", "reset", "carol", "--yes")
	dead("after a reset", tokens)
	c.json(new(any), "client", "remove", "shop", "--yes")
	if status, body := token("shop", added.Secret, tokenForm("client_credentials")); status != 401 {
		t.Errorf("a removed client gets %d %v", status, body)
	}
	c.json(new(any), "user", "remove", "--sub", carol.Subject, "--yes")
	c.fails(1, "there is no user", "user", "show", "carol")
}

// What the commands say when there is nobody to talk to.
func TestOperatorsWithoutServer(t *testing.T) {
	c := terminal{t: t, directory: t.TempDir()}
	c.fails(1, "no server is running at data/admin.sock\nhint: start one with authserver serve", "user", "list")
	c.fails(1, "no server is running at elsewhere", "client", "list", "--socket", "elsewhere")
	os.WriteFile(filepath.Join(c.directory, "authserver.yaml"), []byte("data: /nowhere/data\nissuer: https://auth.example.com\n"), 0o600)
	c.fails(1, "no server is running at /nowhere/data/admin.sock", "grant", "list", "--user", "alice")
	os.WriteFile(filepath.Join(c.directory, "authserver.yaml"), []byte("dato: x\n"), 0o600)
	c.fails(1, "unknown key", "grant", "list", "--user", "alice")
	c.fails(1, "no server is running at x.sock", "grant", "list", "--user", "alice", "--socket", "x.sock")
}

// One data directory, one server; and a server that was killed leaves nothing that
// keeps the next from starting.
func TestAdminSocketOfServers(t *testing.T) {
	redis := redistest.Start(t).URL()
	directory, err := os.MkdirTemp("", "operators")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	port := freePort(t)
	environment := append(on(port), "AUTHSERVER_STORE="+redis)
	p := start(t, directory, "http://localhost:"+port, environment, "serve")
	fails(t, directory, append(on(freePort(t)), "AUTHSERVER_STORE="+redis, "AUTHSERVER_ISSUER=http://localhost:"+port), "hint: stop that server, or give this one a data directory of its own", "serve")
	p.Process.Signal(syscall.SIGKILL)
	p.Wait()
	c := terminal{t: t, directory: directory}
	c.fails(1, "no server is running", "user", "list")
	p = start(t, directory, "http://localhost:"+port, environment, "serve")
	if info, err := os.Stat(filepath.Join(directory, "data", "admin.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info, err)
	}
	c.json(new(any), "user", "list")
	p.Process.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(directory, "data", "admin.sock")); errors.Is(err, os.ErrNotExist) {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("a server that stopped left its socket")
		}
	}
}
