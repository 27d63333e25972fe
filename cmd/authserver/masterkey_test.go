package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"authserver/keys"
)

// The master keys come from a systemd credential, the environment or a file; with
// several, the first seals and all open.
func TestMasterKeySources(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	credentials := t.TempDir()
	text := func() string {
		master, err := keys.NewMasterKey()
		if err != nil {
			t.Fatal(err)
		}
		return string(master.Text())
	}
	older, newer := text(), text()
	serve := func(environment ...string) {
		t.Helper()
		p := start(t, directory, "http://localhost:"+port, append(on(port), environment...), "serve")
		p.Process.Signal(syscall.SIGTERM)
		if err := p.Wait(); err != nil {
			t.Errorf("%v\n%s", err, p.text())
		}
	}
	if err := os.WriteFile(filepath.Join(credentials, "master.key"), []byte(older), 0o400); err != nil {
		t.Fatal(err)
	}
	serve("CREDENTIALS_DIRECTORY=" + credentials)
	if _, err := os.Stat(filepath.Join(directory, "data", "master.key")); err == nil {
		t.Error("a master key was made beside the credential")
	}
	fails(t, directory, append(on(port), "AUTHSERVER_MASTER_KEY="+newer), "sealed with master key", "serve")
	fails(t, directory, append(on(port), "AUTHSERVER_MASTER_KEY="+newer+"short\n"), "line 2: the master key has", "config", "check")
	serve("AUTHSERVER_MASTER_KEY=" + newer + older)
	file := filepath.Join(directory, "keys")
	if err := os.WriteFile(file, []byte(newer+"\n"+older), 0o600); err != nil {
		t.Fatal(err)
	}
	serve("AUTHSERVER_MASTER_KEY_FILE=" + file)
	// Nothing was sealed anew: the older one is still needed, and it is said which.
	master, _ := keys.ParseMasterKey([]byte(older))
	fails(t, directory, append(on(port), "AUTHSERVER_MASTER_KEY="+strings.TrimSpace(newer)), master.ID(), "serve")
}
