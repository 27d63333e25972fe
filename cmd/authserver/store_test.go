package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

// tokensOf signs alice in and returns her refresh token.
func tokensOf(t *testing.T, base string) string {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, body, err := postForm(t, base+"/token", "web", userSecret, tokenForm("password", "username", "alice", "password", "wonderland"))
		if err == nil && status == 200 {
			return body["refresh_token"].(string)
		}
		if err != nil || status != 503 || time.Now().After(deadline) { // 503: a store, or a machine, that is busy
			t.Fatal(status, body, err)
		}
	}
}

const userSecret = "0123456789abcdef0123456789abcdef"

// refreshed presents a refresh token and returns status, error code and the next one.
func refreshed(t *testing.T, base, token string) (int, any, string) {
	t.Helper()
	status, body, err := postForm(t, base+"/token", "web", userSecret, tokenForm("refresh_token", "refresh_token", token))
	if err != nil {
		t.Fatal(err)
	}
	next, _ := body["refresh_token"].(string)
	return status, body["error"], next
}

// accept runs `store accept` and then starts the server again.
func accept(t *testing.T, directory, base string) {
	t.Helper()
	fails(t, directory, nil, "store accept", "serve")
	fails(t, directory, nil, "hint: --yes", "store", "accept")
	command := exec.Command(binary, "store", "accept", "--yes", "--clocks", "0s")
	command.Dir = directory
	if output, err := command.CombinedOutput(); err != nil || !strings.Contains(string(output), "every grant, session and token until now ends") {
		t.Fatalf("%v\n%s", err, output)
	}
	start(t, directory, base, nil, "serve")
	fails(t, directory, nil, "", "store", "accept", "--yes")
}

// ATTACKS FT-04, FT-19: while the store is empty nobody is told that his tokens are no
// good, until an operator has accepted it.
func TestEmptiedRedis(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	directory, port := t.TempDir(), freePort(t)
	os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(fmt.Sprintf(userConfig, port, port)+"store: "+redis.URL()+"\n"), 0o600)
	base := "http://localhost:" + port
	p := start(t, directory, base, nil, "serve")
	awaitRemembered := remembered(t, directory)
	token := tokensOf(t, base)
	awaitRemembered()
	redis.Flush()
	for range 20 {
		if status, code, _ := refreshed(t, base, token); status != 503 {
			t.Fatalf("a refresh after FLUSHALL: %d %v", status, code)
		}
	}
	if !p.says("the store is empty") {
		t.Errorf("the log does not say what happened:\n%s", p.text())
	}
	p.Process.Kill()
	p.Wait()
	accept(t, directory, base)
	if status, code, _ := refreshed(t, base, token); status != 400 || code != "invalid_grant" {
		t.Errorf("after the operator accepted it: %d %v", status, code)
	}
	tokensOf(t, base)
}

// ATTACKS FT-05: what was revoked after a backup is not good again when the backup is
// restored, nor is anything else that was granted until then.
func TestRestoredBackup(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(fmt.Sprintf(userConfig, port, port)), 0o600)
	base, file := "http://localhost:"+port, filepath.Join(directory, "data", "store.db")
	p := start(t, directory, base, nil, "serve")
	revoked, used := tokensOf(t, base), tokensOf(t, base)
	p.Process.Kill()
	p.Wait()
	backup, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p = start(t, directory, base, nil, "serve")
	awaitRemembered := remembered(t, directory)
	if status, body, _ := postForm(t, base+"/revoke", "web", userSecret, map[string][]string{"token": {revoked}}); status != 200 { // an empty body
		t.Fatal(status, body)
	}
	status, _, next := refreshed(t, base, used)
	if status != 200 {
		t.Fatal(status)
	}
	awaitRemembered()
	p.Process.Kill()
	p.Wait()
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	accept(t, directory, base)
	for name, token := range map[string]string{"revoked": revoked, "used": used, "current": next} {
		if status, code, _ := refreshed(t, base, token); status != 400 || code != "invalid_grant" {
			t.Errorf("the %s token: %d %v", name, status, code)
		}
	}
	if status, code, _ := refreshed(t, base, tokensOf(t, base)); status != 200 {
		t.Errorf("a token of after: %d %v", status, code)
	}
}

// remembered returns a function that waits until the mark of what is written from now on is
// remembered in the file, which may be before it is called.
func remembered(t *testing.T, directory string) (await func()) {
	t.Helper()
	name := filepath.Join(directory, "data", "store.identity")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		timetest.Await(t, "what was written is remembered", func() bool {
			now, err := os.ReadFile(name)
			return err == nil && string(now) != string(before)
		})
	}
}
