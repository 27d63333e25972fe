package main

import (
	"errors"
	"io/fs"
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

// ATTACKS LG-05: whatever the umask, what the server makes is its user's alone; a master
// key that others can read is refused.
func TestAttackLG05(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	before := syscall.Umask(0)
	p := start(t, directory, "http://localhost:"+port, on(port), "serve")
	syscall.Umask(before)
	made := make(map[string]bool)
	data := filepath.Join(directory, "data")
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if errors.Is(err, fs.ErrNotExist) { // what is written anew and then renamed, meanwhile
			return nil
		} else if err != nil {
			return err
		}
		made[entry.Name()] = true
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "store.db", "master.key", "admin.sock"} {
		if !made[name] {
			t.Errorf("there is no %s among %v", name, made)
		}
	}
	p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.text())
	}
	if err := os.Chmod(filepath.Join(data, "master.key"), 0o604); err != nil {
		t.Fatal(err)
	}
	fails(t, directory, on(port), "is open to every user of this machine (mode 0604)", "serve")
}
