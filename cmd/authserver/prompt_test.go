package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"authserver/authserver"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store/boltstore"

	"github.com/creack/pty"
)

// conversation is a command at a real terminal, of which the test is the person.
type conversation struct {
	t       *testing.T
	command *exec.Cmd
	screen  *os.File // the person's side of the terminal
	line    *os.File // the command's side, held open to look at it afterwards
	ended   chan struct{}

	mu    sync.Mutex
	shown bytes.Buffer
}

// at runs a command of the directory at a terminal.
func (c terminal) at(args ...string) *conversation {
	c.t.Helper()
	screen, line, err := pty.Open()
	if err != nil {
		c.t.Fatalf("opening a terminal: %v", err)
	}
	talk := &conversation{t: c.t, command: exec.Command(binary, args...), screen: screen, line: line, ended: make(chan struct{})}
	talk.command.Dir, talk.command.Stdin, talk.command.Stdout, talk.command.Stderr = c.directory, line, line, line
	talk.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := talk.command.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		io.Copy(talk, screen) // until the terminal is closed
	}()
	go func() {
		talk.command.Wait()
		close(talk.ended)
	}()
	c.t.Cleanup(func() {
		talk.command.Process.Kill()
		<-talk.ended
		line.Close()
		screen.Close()
	})
	return talk
}

func (v *conversation) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown.Write(b)
}

func (v *conversation) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown.String()
}

// sees waits until a text is on the screen.
func (v *conversation) sees(want string) *conversation {
	v.t.Helper()
	if !timetest.Until(func() bool { return strings.Contains(v.text(), want) }) {
		v.t.Fatalf("%v: %q is not on the screen: %q", v.command.Args[1:], want, v.text())
	}
	return v
}

func (v *conversation) types(keys string) *conversation {
	v.t.Helper()
	if _, err := v.screen.WriteString(keys); err != nil {
		v.t.Fatal(err)
	}
	return v
}

// ends waits for the end, which must have an exit status (-1 after a signal), and for
// what the command says last.
func (v *conversation) ends(status int, want string) {
	v.t.Helper()
	select {
	case <-v.ended:
	case <-time.After(2 * time.Minute):
		v.t.Fatalf("%v does not end: %q", v.command.Args[1:], v.text())
	}
	v.sees(want)
	if got := v.command.ProcessState.ExitCode(); got != status {
		v.t.Errorf("%v: exit status %d, want %d: %q", v.command.Args[1:], got, status, v.text())
	}
}

// hides checks that something typed was never shown.
func (v *conversation) hides(secret string) {
	v.t.Helper()
	if strings.Contains(v.text(), secret) {
		v.t.Errorf("%v shows %q: %q", v.command.Args[1:], secret, v.text())
	}
}

// What ends or breaks something asks, and only yes is yes.
func TestConfirmAtTerminal(t *testing.T) {
	c := agedServer(t)
	var before authserver.KeyList
	c.json(&before, "key", "list")
	for name, keys := range map[string]string{"n": "n\n", "N": "N\n", "empty": "\n", "another word": "yesterday\n", "end of file": "\x04"} {
		t.Run(name, func(t *testing.T) {
			asked := c
			asked.t = t
			talk := asked.at("key", "rotate", "ES256", "--now").sees("Rotate now? [y/N] ").types(keys)
			talk.ends(1, "\r\nauthserver: not done\r\n")
		})
	}
	c.at("key", "rotate", "ES256", "--now").sees("[y/N] ").types("\x03").ends(-1, "^C")
	var after authserver.KeyList
	c.json(&after, "key", "list")
	if signs(before, "ES256") == "" || signs(after, "ES256") != signs(before, "ES256") {
		t.Errorf("a rotation that was not agreed to changed the keys from %+v to %+v", before.Rings, after.Rings)
	}
	talk := c.at("key", "rotate", "ES256", "--now").sees("ES256 may break verifiers")
	talk.sees("[y/N] ").types("y\n").ends(0, "takes over from "+short(signs(before, "ES256")))
	if strings.Contains(strings.Join(strings.Fields(talk.text()), " "), " retiring pending ") {
		t.Errorf("what the server answered is mixed with what it said before: %s", talk.text())
	}
	c.json(&after, "key", "list")
	if signs(after, "ES256") == signs(before, "ES256") {
		t.Errorf("y did not rotate: %+v", after.Rings)
	}
	if strings.Contains(talk.text(), " refresh ") {
		t.Errorf("a rotation of ES256 tells of other rings: %s", talk.text())
	}
	// The next key of a leaked one is too young: the answer is there, and list says so.
	stdout, stderr, status := c.run("key", "revoke", "--reason", "leaked", "--yes", "--wait", "--", signs(after, "ES256"))
	if status != 1 || !strings.Contains(stdout, "NOTHING SIGNS for ES256 until") || !strings.Contains(stderr, "could not be asked") {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
	if stdout, _, _ := c.run("key", "list"); !strings.Contains(stdout, "\nNOTHING SIGNS for ES256 until 20") {
		t.Errorf("key list does not say that nothing signs: %s", stdout)
	}
	c.at("client", "add", "shop", "--grant-type", "client_credentials", "--scope", "orders:read").ends(0, "The secret")
	c.at("client", "remove", "shop").sees("Remove it? [y/N] ").types("n\n").ends(1, "not done")
	c.at("client", "remove", "shop").sees("Remove it? [y/N] ").types("YES\n").ends(0, "client shop: removed")
}

// signs returns the kid of the key that signs in a ring.
func signs(list authserver.KeyList, ring string) string {
	for _, r := range list.Rings {
		for _, k := range r.Keys {
			if r.Name == ring && k.State == "active" {
				return k.KeyID
			}
		}
	}
	return ""
}

// Passwords and passphrases are asked for without showing them.
func TestSecretsAtTerminal(t *testing.T) {
	c, issuer := operatedServer(t, "")
	const password = "correct horse"
	t.Run("user hash", func(t *testing.T) {
		c := c
		c.t = t
		talk := c.at("user", "hash").sees("Password: ").types(password + "\r").sees("Again: ").types(password + "\r")
		talk.ends(0, "$argon2id$")
		talk.hides(password)
		talk = c.at("user", "hash").sees("Password: ").types(password + "\r" + password + "\r") // pasted at once
		talk.ends(0, "$argon2id$")
		talk.hides(password)
		talk = c.at("user", "hash").sees("Password: ").types(password + "\r").sees("Again: ").types("another\r")
		talk.ends(1, "the two passwords differ")
		talk.hides("another")
		c.at("user", "hash").sees("Password: ").types("\r").sees("Again: ").types("\r").ends(1, "a password has 1 to 1024 bytes")
		c.at("user", "hash").sees("Password: ").types("\x04").ends(1, "not done")
		talk = c.at("user", "hash").sees("Password: ").types("half a pass\x03")
		talk.ends(1, "not done")
		talk.hides("half")
		// The terminal shows again what is typed.
		talk.types("who is there").sees("who is there")
	})
	t.Run("user password", func(t *testing.T) {
		c := c
		c.t = t
		c.at("user", "password", "alice").sees("Set the password? [y/N] ").types("n\n").ends(1, "not done")
		talk := c.at("user", "password", "alice").sees("is signed out everywhere").types("y\n").sees("Password: ").types(password + "\r")
		talk.sees("Again: ").types(password+"\r").ends(0, "user alice: the password is set")
		talk.hides(password)
		form := tokenForm("password", "username", "alice", "password", password)
		if status, body, err := postForm(t, issuer+"/token", "fixed", "0123456789abcdef0123456789abcdef", form); err != nil || status != 200 {
			t.Errorf("with the new password: %d %v %v", status, body, err)
		}
	})
	t.Run("key import", func(t *testing.T) {
		c := c
		c.t = t
		encryptedKey(t, filepath.Join(c.directory, "key.pem"), password)
		talk := c.at("key", "import", "key.pem").sees("Passphrase: ").types("wrong\r")
		talk.ends(1, "the encrypted key does not open: wrong passphrase")
		talk.hides("wrong\r")
		c.at("key", "import", "key.pem").sees("Passphrase: ").types("\x03").ends(1, "not done")
		talk = c.at("key", "import", "key.pem").sees("Passphrase: ").types(password + "\r")
		talk.ends(0, "is published in ES256")
		talk.hides(password)
		c.fails(1, "there is no terminal to ask for the passphrase at", "key", "import", "key.pem")
	})
}

// encryptedKey writes a private key to a file as openssl encrypts it.
func encryptedKey(t *testing.T, file, passphrase string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("openssl", "pkcs8", "-topk8", "-passout", "pass:"+passphrase, "-out", file)
	command.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v %s", err, output)
	}
}

// agedServer starts a server whose keys are ten minutes old, so that its instances
// know the next ones and some verifier may not.
func agedServer(t *testing.T) terminal {
	t.Helper()
	directory, err := os.MkdirTemp("", "operators")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	port := freePort(t)
	issuer, data := "http://localhost:"+port, filepath.Join(directory, "data")
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("issuer: %s\nlisten: localhost:%s\nmetrics_listen: off\nmaster_key: %s\nkeys: {algorithms: [ES256]}\n"+
		"resources: [{identifier: https://api.example.com, scopes: [orders:read]}]\n", issuer, port, master.Text())
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-10 * time.Minute)
	synctest.Test(t, func(t *testing.T) { // in which it is ten minutes ago
		time.Sleep(time.Until(then))
		opened, err := boltstore.Open(filepath.Join(data, "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		manager, err := keys.Open(t.Context(), keys.Config{Store: authserver.KeyStore(opened), MasterKey: master, Issuer: issuer, Algorithms: []string{"ES256"}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // for the next keys
		defer cancel()
		if err := manager.Run(ctx); err != nil {
			t.Fatal(err)
		}
	})
	start(t, directory, issuer, nil, "serve")
	return terminal{t: t, directory: directory}
}
