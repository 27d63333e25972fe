package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"authserver/internal/timetest"
)

// runs runs the binary, which must succeed, and returns what it printed.
func runs(t *testing.T, directory string, args ...string) string {
	t.Helper()
	command := exec.Command(binary, args...)
	command.Dir = directory
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, output)
	}
	return string(output)
}

// A backup is made while the server refreshes tokens, and holds what was acknowledged
// before. Restored, it is used only after an operator has accepted it, and nothing that
// was revoked since, or used, is good again.
func TestBackup(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	config := []byte(fmt.Sprintf(userConfig, port, port))
	os.WriteFile(filepath.Join(directory, "authserver.yaml"), config, 0o600)
	base := "http://localhost:" + port
	p := start(t, directory, base, nil, "serve")
	runs(t, directory, "client", "add", "shop", "--grant-type", "client_credentials")
	runs(t, directory, "client", "disable", "shop", "--yes", "--reason", "before the backup")
	revoked := tokensOf(t, base)
	var load sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		token := tokensOf(t, base)
		load.Go(func() {
			for !done.Load() {
				status, code, next := refreshed(t, base, token)
				if status != 200 {
					t.Errorf("during the backup: %d %v", status, code)
					return
				}
				token = next
			}
		})
	}
	backup := filepath.Join(directory, "backup")
	for i := range 5 {
		if said := runs(t, directory, "backup", fmt.Sprint(backup, i)); !strings.Contains(said, "The master key is not in it") {
			t.Error(said)
		}
	}
	done.Store(true)
	load.Wait()
	backup += "4"
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	content, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	master, _ := os.ReadFile(filepath.Join(directory, "data", "master.key"))
	if len(master) < 40 || bytes.Contains(content, bytes.TrimSpace(master)) {
		t.Error("the master key is in the backup")
	}
	fails(t, directory, nil, "exists already", "backup", backup)
	fails(t, directory, nil, "the server is running", "restore", backup, "--yes")
	if status, _, _ := postForm(t, base+"/revoke", "web", userSecret, map[string][]string{"token": {revoked}}); status != 200 {
		t.Fatal(status)
	}
	p.Process.Signal(syscall.SIGTERM)
	p.Wait()
	fails(t, directory, nil, "no server is running", "backup", backup+"-2")
	if leftovers, _ := filepath.Glob(filepath.Join(directory, ".*")); len(leftovers) > 0 {
		t.Errorf("left over: %v", leftovers)
	}

	// What is no whole backup is refused, and nothing is changed.
	before, _ := os.ReadFile(filepath.Join(directory, "data", "store.db"))
	damaged := bytes.Clone(content)
	damaged[len(damaged)/2] ^= 1
	for name, bad := range map[string][]byte{"another ending": content[:len(content)-1], "not a whole backup": nil, "damaged": damaged} {
		file := filepath.Join(t.TempDir(), "bad")
		os.WriteFile(file, bad, 0o600)
		fails(t, directory, nil, name, "restore", file, "--yes")
	}
	fails(t, directory, nil, "nobody can be asked", "restore", backup)
	if after, _ := os.ReadFile(filepath.Join(directory, "data", "store.db")); !bytes.Equal(before, after) {
		t.Error("a refused restore changed the store")
	}

	said := runs(t, directory, "restore", backup, "--yes")
	if !strings.Contains(said, "What happened since the backup was made is not in it") {
		t.Error(said)
	}
	aside, _ := filepath.Glob(filepath.Join(directory, "data", "store-replaced-*.db"))
	if len(aside) != 1 {
		t.Fatal(aside)
	}
	if kept, _ := os.ReadFile(aside[0]); !bytes.Equal(before, kept) {
		t.Error("the store that was replaced is not kept")
	}
	accept(t, directory, base)
	if status, code, _ := refreshed(t, base, revoked); status != 400 || code != "invalid_grant" {
		t.Errorf("the revoked token: %d %v", status, code)
	}
	if listed := runs(t, directory, "client", "show", "shop"); !strings.Contains(listed, "disabled") {
		t.Errorf("what was done before the backup is missing:\n%s", listed)
	}
	if status, code, _ := refreshed(t, base, tokensOf(t, base)); status != 200 {
		t.Errorf("a token of after: %d %v", status, code)
	}
}

// On a machine that knows no store, too, a restored one has to be accepted: nobody knows
// what happened since.
func TestRestoreElsewhere(t *testing.T) {
	here, port := t.TempDir(), freePort(t)
	config := []byte(fmt.Sprintf(userConfig, port, port) + "log: {audit_file: audit.log}\n")
	os.WriteFile(filepath.Join(here, "authserver.yaml"), config, 0o600)
	base, backup := "http://localhost:"+port, filepath.Join(here, "backup")
	p := start(t, here, base, nil, "serve")
	token := tokensOf(t, base)
	runs(t, here, "backup", backup)
	p.Process.Signal(syscall.SIGTERM)
	p.Wait()
	there := t.TempDir()
	os.WriteFile(filepath.Join(there, "authserver.yaml"), config, 0o600)
	os.MkdirAll(filepath.Join(there, "data"), 0o700)
	master, _ := os.ReadFile(filepath.Join(here, "data", "master.key"))
	os.WriteFile(filepath.Join(there, "data", "master.key"), master, 0o600)
	runs(t, there, "restore", backup, "--yes")
	accept(t, there, base)
	if status, code, _ := refreshed(t, base, token); status != 400 || code != "invalid_grant" {
		t.Errorf("a token of before: %d %v", status, code)
	}
	// What operators decide without a server, and what the server found and did.
	var audit []byte
	timetest.Await(t, "the last record is in the audit file", func() bool {
		audit, _ = os.ReadFile(filepath.Join(there, "audit.log"))
		return strings.Contains(string(audit), `"event":"server","state":"started"`)
	})
	for _, record := range []string{`"event":"admin","action":"restore","uid":%d,`, `"event":"store","error":"the store is as it was `,
		`"event":"admin","action":"store accept","uid":%d,`, `"event":"store","accepted":"`, `"event":"server","state":"started"`} {
		if want := strings.ReplaceAll(record, "%d", strconv.Itoa(os.Geteuid())); strings.Count(string(audit), want) != 1 {
			t.Errorf("%d records of %s:\n%s", strings.Count(string(audit), want), want, audit)
		}
	}
}
