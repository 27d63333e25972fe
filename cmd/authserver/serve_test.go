package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"authserver/authserver/authservertest"
	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

var binary string

// secrets are those of all servers that the tests start.
var secrets = authservertest.NewSecrets()

func TestMain(m *testing.M) {
	http.DefaultTransport = secrets.Watch(http.DefaultTransport)
	directory, err := os.MkdirTemp("", "authserver-test-")
	if err == nil {
		binary = filepath.Join(directory, "authserver")
		var output []byte
		if output, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, output)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "building the binary:", err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(directory)
	os.Exit(status)
}

func freePort(t testing.TB) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(redistest.FreeAddress(t))
	return port
}

// process is a running server.
type process struct {
	*exec.Cmd
	url    string
	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// says waits for a text in the output, which comes through a pipe.
func (p *process) says(want string) bool {
	return timetest.Until(func() bool { return strings.Contains(p.text(), want) })
}

// start runs the binary in a directory and waits until it serves.
func start(t testing.TB, directory, url string, environment []string, args ...string) *process {
	t.Helper()
	p := &process{url: url}
	launch(t, p, p, directory, environment, args...)
	return p
}

// secretsIn returns which secrets the output of a server holds, or, of dev, which prints
// those to be used, which tokens.
func secretsIn(p *process) (found []string) {
	if token := aToken.FindString(p.text()); token != "" {
		found = append(found, token)
	}
	if slices.Contains(p.Args, "dev") {
		return found
	}
	if master, err := os.ReadFile(filepath.Join(p.Dir, "data", "master.key")); err == nil {
		for line := range strings.Lines(string(master)) {
			secrets.Add("master key", strings.TrimSpace(line))
		}
	}
	if files, err := filepath.Glob(filepath.Join(p.Dir, "*.yaml")); err == nil {
		for _, file := range files {
			text, _ := os.ReadFile(file)
			for _, match := range aSecretSetting.FindAllStringSubmatch(string(text), -1) {
				secrets.Add(match[1], match[2])
			}
		}
	}
	return append(append(found, secrets.In(p.text())...), aPrivateKey.FindAllString(p.text(), -1)...)
}

var (
	aSecretSetting = regexp.MustCompile(`(client_secret|password_hash|password|master_key):\s*"?([^\s",}]+)`)
	aPrivateKey    = regexp.MustCompile(`PRIVATE KEY|"d":"[\w-]{20,}"`)
)

// pastTheLog is what the driver of Redis writes to standard error unless it is given a log.
var pastTheLog = regexp.MustCompile(`(?m)^redis: .*$`)

var aToken = regexp.MustCompile(`eyJ[\w-]+\.eyJ[\w-]+\.[\w-]{40,}`)

// launch starts the binary with a standard error of its own and waits until it serves.
func launch(t testing.TB, p *process, stderr io.Writer, directory string, environment []string, args ...string) {
	t.Helper()
	launchCommand(t, p, stderr, directory, environment, exec.Command(binary, args...))
}

// launchCommand is launch with the binary in a command.
func launchCommand(t testing.TB, p *process, stderr io.Writer, directory string, environment []string, command *exec.Cmd) {
	t.Helper()
	begin(t, p, stderr, directory, environment, command)
	if !timetest.Until(func() bool { status, _ := p.readiness(); return status == http.StatusOK }) {
		t.Fatalf("the server is not ready:\n%s", p.text())
	}
}

// readiness asks whether the server is ready; 0 where nobody answers.
func (p *process) readiness() (status int, text string) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, Timeout: 10 * time.Second} // it is asked again
	response, err := client.Get(p.url + "/readyz")
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// begin starts the binary in a command. It ends with the test.
func begin(t testing.TB, p *process, stderr io.Writer, directory string, environment []string, command *exec.Cmd) {
	t.Helper()
	p.Cmd = command
	p.Dir, p.Env, p.Stdout, p.Stderr = directory, append(append(os.Environ(), "AUTHSERVER_DRAIN_DELAY=0s"), environment...), p, stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if found := secretsIn(p); len(found) > 0 {
			t.Errorf("the output holds secrets: %q", found)
		}
		if past := pastTheLog.FindString(p.text()); past != "" {
			t.Errorf("the driver of Redis writes past the log: %s", past)
		}
	})
}

// commandTime is how long a command that ends by itself may take: one that serves
// where it should refuse must not hold up the tests.
const commandTime = 2 * time.Minute

// fails runs the binary, which must fail with a text.
func fails(t *testing.T, directory string, environment []string, want string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	command := exec.CommandContext(ctx, binary, args...)
	command.Dir, command.Env = directory, append(os.Environ(), environment...)
	output, err := command.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%v does not end, want %q in:\n%s", args, want, output)
	}
	if err == nil || !strings.Contains(string(output), want) {
		t.Errorf("%v: %v, want %q in:\n%s", args, err, want, output)
	}
}

func on(port string) []string {
	return []string{"AUTHSERVER_LISTEN=localhost:" + port, "AUTHSERVER_METRICS_LISTEN=off"}
}

// serve without a file works in an empty directory and says what it made.
func TestServeWithoutConfiguration(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	p := start(t, directory, "http://localhost:"+port, on(port), "serve")
	for _, want := range []string{"created the data directory", "created the embedded store", "created the master key", `"durability":"fsync"`, "http://localhost:" + port} {
		if !p.says(want) {
			t.Errorf("the log does not say %q:\n%s", want, p.text())
		}
	}
	for name, mode := range map[string]os.FileMode{"data": 0o700, "data/master.key": 0o600, "data/store.db": 0o600} {
		if info, err := os.Stat(filepath.Join(directory, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	fails(t, directory, on(freePort(t)), "in use by another authserver process", "serve")
	fails(t, t.TempDir(), on(port), "is in use by another process", "serve")
	p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, p.text())
	}
	// The keys are sealed: without their master key the server does not start, and makes no other.
	key := filepath.Join(directory, "data", "master.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(key)
	fails(t, directory, on(port), "sealed with master key", "serve")
	if _, err := os.Stat(key); err == nil {
		t.Error("a new master key was made over sealed keys")
	}
	os.WriteFile(key, []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), 0o600)
	fails(t, directory, on(port), "sealed with master key", "serve")
	os.WriteFile(key, []byte("short\n"), 0o600)
	fails(t, directory, on(port), "32 bytes in base64 or hex", "serve")
	os.WriteFile(key, text, 0o600)
	os.Chmod(key, 0o644)
	fails(t, directory, on(port), "chmod 600", "serve")
	os.Chmod(key, 0o600)
	start(t, directory, "http://localhost:"+port, on(port), "serve")
}

func TestServeRefusesData(t *testing.T) {
	directory := t.TempDir()
	os.WriteFile(filepath.Join(directory, "data"), nil, 0o600)
	fails(t, directory, on(freePort(t)), "is a file, not a directory", "serve")
	fails(t, directory, nil, "no such file", "serve", "--config", "missing.yaml")
}

func postForm(t testing.TB, endpoint, client, secret string, form url.Values) (int, map[string]any, error) {
	t.Helper()
	request, err := http.NewRequest("POST", endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(client, secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	var body map[string]any
	err = json.NewDecoder(response.Body).Decode(&body)
	return response.StatusCode, body, err
}

// The lines that dev prints work when pasted.
func TestDevLines(t *testing.T) {
	port := freePort(t)
	p := start(t, t.TempDir(), "http://localhost:"+port, nil, "dev", "--listen", ":"+port)
	p.says("Stop with")
	_, lines, found := strings.Cut(p.text(), "Lines to paste:")
	lines, _, _ = strings.Cut(lines, "Stop with")
	if !found || !strings.Contains(p.text(), "Not for production") {
		t.Fatal(p.text())
	}
	// The sample API is not running here; its line is tested in resource-example.
	lines = strings.ReplaceAll(lines, "curl -s -H", "true -H")
	_, address, _ := strings.Cut(lines, "echo '")
	address, _, _ = strings.Cut(address, "'")
	visitor := authservertest.NewVisitor(t)
	visitor.Until = demoAudience + "/spa"
	_, end := visitor.Visit(t, address)
	shell := exec.Command("bash", "-c", lines+"\necho; echo token: $TOKEN")
	shell.Stdin = strings.NewReader(end.String() + "\n")
	output, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, want := range []string{"token: eyJ", `"refresh_token":"eyJ`, `"id_token":"eyJ`, `"active":`, "user bob: disabled"} {
		if !strings.Contains(string(output), want) {
			t.Errorf("missing %s in:\n%s", want, output)
		}
	}
	fails(t, t.TempDir(), nil, "this machine only", "dev", "--listen", "0.0.0.0:1")
	fails(t, t.TempDir(), nil, "is in use", "dev", "--listen", ":"+port)
}

const userConfig = `
issuer: http://localhost:%s
listen: localhost:%s
metrics_listen: "off"
clients: [{client_id: web, client_secret: 0123456789abcdef0123456789abcdef, grant_types: [password, refresh_token, client_credentials], scope: profile}]
users: [{username: alice, password_hash: "` + demoAlice + `"}]
`

func tokenForm(grantType string, pairs ...string) url.Values {
	form := url.Values{"grant_type": {grantType}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

// kill -9 in the middle of refreshes: afterwards every client whose answer was
// lost goes on, and no token that was left behind works (I3, I4, I12).
func TestKillDuringRefreshes(t *testing.T) {
	for name, store := range map[string]string{
		"embedded": "",
		"Redis":    redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always").URL(),
	} {
		t.Run(name, func(t *testing.T) { killDuringRefreshes(t, store) })
	}
}

func killDuringRefreshes(t *testing.T, store string) {
	directory, port := t.TempDir(), freePort(t)
	text := fmt.Sprintf(userConfig, port, port)
	if store != "" {
		text += "store: " + store + "\n"
	}
	os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600)
	base := "http://localhost:" + port
	const secret, clients, refreshes = "0123456789abcdef0123456789abcdef", 8, 125
	p := start(t, directory, base, nil, "serve")
	type chain struct{ current, before string }
	chains := make([]chain, clients)
	for i := range chains {
		for chains[i].current == "" { // a busy machine may ask to come back
			status, body, err := postForm(t, base+"/token", "web", secret, tokenForm("password", "username", "alice", "password", "wonderland"))
			if err != nil || status != 200 && status != 503 {
				t.Fatal(status, body, err)
			}
			chains[i].current, _ = body["refresh_token"].(string)
		}
	}
	var progress sync.WaitGroup
	restarted := make(chan struct{})
	halfway := make(chan struct{}, clients)
	for i := range chains {
		progress.Go(func() {
			for n := range refreshes {
				if n == refreshes/2 {
					halfway <- struct{}{}
				}
				for { // repeated with the same token until it is answered
					status, body, err := postForm(t, base+"/token", "web", secret, tokenForm("refresh_token", "refresh_token", chains[i].current))
					if err == nil && status == 200 {
						chains[i] = chain{body["refresh_token"].(string), chains[i].current}
						break
					}
					if err == nil && status != 503 {
						t.Errorf("client %d was signed out: %d %v", i, status, body)
						return
					}
					if err != nil {
						<-restarted
					}
					time.Sleep(5 * time.Millisecond) // who is busy is asked again, before the kill too: nobody kills before half is done
				}
			}
		})
	}
	<-halfway // while the others are anywhere
	p.Process.Kill()
	p.Wait()
	start(t, directory, base, nil, "serve")
	close(restarted)
	progress.Wait()
	refresh := func(token string) (status int, body map[string]any, err error) {
		timetest.Await(t, "the server is busy no more", func() bool {
			status, body, err = postForm(t, base+"/token", "web", secret, tokenForm("refresh_token", "refresh_token", token))
			return err != nil || status != 503
		})
		return status, body, err
	}
	for i, c := range chains {
		if c.before == "" || t.Failed() {
			t.Fatalf("client %d made no progress", i)
		}
		status, next, err := refresh(c.current)
		if err != nil || status != 200 {
			t.Errorf("client %d: the last token: %d %v %v", i, status, next, err)
			continue
		}
		if status, body, err := refresh(c.before); err != nil || status != 400 || body["error"] != "invalid_grant" {
			t.Errorf("client %d: a token that was used twice ago: %d %v %v", i, status, body, err)
		}
		// ATTACKS RT-06: that was theft.
		if status, body, err := refresh(next["refresh_token"].(string)); err != nil || status != 400 || body["error"] != "invalid_grant" {
			t.Errorf("client %d: the grant outlives the theft: %d %v %v", i, status, body, err)
		}
	}
}

// While Redis is away: 503 with Retry-After for what needs it, and everything else goes on.
func TestRedisDown(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	directory, port := t.TempDir(), freePort(t)
	os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(fmt.Sprintf(userConfig, port, port)+"store: "+redis.URL()+"\n"), 0o600)
	base := "http://localhost:" + port
	start(t, directory, base, nil, "serve")
	const secret = "0123456789abcdef0123456789abcdef"
	token := tokensOf(t, base)
	refresh := tokenForm("refresh_token", "refresh_token", token)
	redis.Kill()
	for _, path := range []string{"/token", "/introspect", "/revoke"} {
		form := url.Values{"token": {token}}
		if path == "/token" {
			form = refresh
		}
		request, _ := http.NewRequest("POST", base+path, strings.NewReader(form.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth("web", secret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || strings.Contains(string(answer), "invalid_grant") {
			t.Errorf("%s: %s %s", path, response.Status, answer)
		}
	}
	for path, want := range map[string]int{"/.well-known/jwks.json": 200, "/.well-known/openid-configuration": 200, "/healthz": 200, "/readyz": 503} {
		response, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, response.Status, want)
		}
	}
	redis.Restart()
	for deadline := time.Now().Add(60 * time.Second); ; {
		status, body, err := postForm(t, base+"/token", "web", secret, refresh)
		if err == nil && status == 200 {
			return
		}
		if err != nil || status != 503 || time.Now().After(deadline) {
			t.Fatalf("after Redis came back: %d %v %v", status, body, err)
		}
	}
}
