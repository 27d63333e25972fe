package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

func TestUsage(t *testing.T) {
	directory := t.TempDir()
	pin := filepath.Join(directory, "pin")
	if err := os.WriteFile(pin, []byte("1234\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"--module is missing": {"--token", "t", "--pin-file", pin, "--socket", "s"},
		"sessions of 2":       {"--module", "m", "--token", "t", "--pin-file", pin, "--socket", "s", "--sessions", "1"},
		"not defined":         {"--what"},
		"no such file":        {"--module", "m", "--token", "t", "--pin-file", pin + "x", "--socket", "s"},
		"is open to every":    {"--module", "m", "--token", "t", "--pin-file", pin, "--socket", "s"},
	} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// process is a command that a test started.
type process struct {
	*exec.Cmd
	output bytes.Buffer
}

func start(t *testing.T, environment []string, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...)}
	p.Env = append(os.Environ(), environment...)
	p.Stdout, p.Stderr = &p.output, &p.output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), p.output.String())
		}
	})
	return p
}

// FT-46. Authserver signs with keys in the token; without the process that keeps
// them it answers 503 and serves its key set, and goes on when the process is back.
func TestServerWithToken(t *testing.T) {
	directory := t.TempDir()
	build := func(name, at string) string {
		binary := filepath.Join(directory, name)
		command := exec.Command("go", "build", "-o", binary, ".")
		command.Dir = at
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, output)
		}
		return binary
	}
	keeper, server := build("authserver-pkcs11", "."), build("authserver", "../../../../cmd/authserver")
	write := func(name, text string) string {
		path := filepath.Join(directory, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(directory, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	softhsm := []string{"SOFTHSM2_CONF=" + write("softhsm2.conf", "directories.tokendir = "+filepath.Join(directory, "tokens")+"\n")}
	initialize := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "house", "--so-pin", "4321", "--pin", "1234")
	initialize.Env = append(os.Environ(), softhsm...)
	if output, err := initialize.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	module := "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := os.Stat(module); err != nil {
		module = "/usr/lib64/pkcs11/libsofthsm2.so"
	}
	socket := filepath.Join(directory, "keys.sock")
	keep := func() *process {
		return start(t, softhsm, keeper, "--module", module, "--token", "house", "--pin-file", write("pin", "1234\n"), "--socket", socket)
	}
	_, port, _ := net.SplitHostPort(redistest.FreeAddress(t))
	base := "http://localhost:" + port
	configuration := write("authserver.yaml", fmt.Sprintf(`
issuer: %s
listen: localhost:%s
metrics_listen: "off"
data: data
keys: {algorithms: [ES256], backend: keys.sock}
resources: [{identifier: https://api.example, scopes: [read]}]
clients: [{client_id: job, client_secret: 0123456789012345678901234567890123456789, grant_types: [client_credentials], scope: read}]
`, base, port))

	output, err := exec.Command(server, "serve", "--config", configuration).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "hint: start the process that keeps the keys") {
		t.Errorf("without the process: %v\n%s", err, output)
	}
	kept := keep()
	timetest.AwaitNil(t, func() error { // until the token is served
		connection, err := net.Dial("unix", socket)
		if err == nil {
			connection.Close()
		}
		return err
	})
	start(t, nil, server, "serve", "--config", configuration)
	token := func() (int, string) {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("job", "0123456789012345678901234567890123456789")
		return answer(r)
	}
	timetest.Await(t, "the first key signs", func() bool { status, _ := token(); return status == http.StatusOK })
	jwks := func() (int, string) {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/.well-known/jwks.json", nil)
		return answer(r)
	}
	timetest.Await(t, "the standby is published", func() bool { _, body := jwks(); return strings.Count(body, `"kid"`) == 2 })

	kept.Process.Signal(syscall.SIGKILL)
	kept.Wait()
	if status, body := token(); status != http.StatusServiceUnavailable {
		t.Errorf("without its keys: %d %s", status, body)
	}
	if status, _ := jwks(); status != http.StatusOK {
		t.Errorf("the key set without the keys: %d", status)
	}
	kept = keep()
	timetest.Await(t, "it signs again", func() bool { status, _ := token(); return status == http.StatusOK })
	kept.Process.Signal(syscall.SIGTERM)
	if err := kept.Wait(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, kept.output.String())
	}
}

func answer(r *http.Request) (int, string) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	var any json.RawMessage
	if json.Unmarshal(body, &any) != nil {
		return 0, string(body)
	}
	return response.StatusCode, string(body)
}
