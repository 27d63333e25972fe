package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/keys/keystest"
	"authserver/keys/remote"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

const pin = "1234"

// softHSM is one token for the whole test process: the library reads the place of
// its tokens once.
var softHSM = sync.OnceValues(func() (string, error) {
	directory, err := os.MkdirTemp("", "softhsm-")
	if err != nil {
		return "", err
	}
	tokens, config := filepath.Join(directory, "tokens"), filepath.Join(directory, "softhsm2.conf")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(config, []byte("directories.tokendir = "+tokens+"\nlog.level = ERROR\n"), 0o600); err != nil {
		return "", err
	}
	os.Setenv("SOFTHSM2_CONF", config)
	return directory, exec.Command("softhsm2-util", "--init-token", "--free", "--label", "test", "--so-pin", "4321", "--pin", pin).Run()
})

// daemonSocket names to a test process that it is the daemon of a test, and its socket.
const daemonSocket = "PKCS11_TEST_DAEMON_SOCKET"

// daemon serves the token until it is killed.
func daemon(socket string) {
	b, err := Open(Config{Module: libraryOf(), Token: "test", PIN: pin})
	if err == nil {
		err = remote.Serve(context.Background(), socket, b, slog.New(slog.DiscardHandler))
	}
	println("the daemon has ended:", err.Error())
	os.Exit(1)
}

func TestMain(m *testing.M) {
	if socket := os.Getenv(daemonSocket); socket != "" {
		daemon(socket)
	}
	directory, err := softHSM()
	if err != nil {
		println("SoftHSM is missing; .ci/setup installs it:", err.Error())
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(directory)
	os.Exit(code)
}

func library(t *testing.T) string {
	t.Helper()
	name := libraryOf()
	if name == "" {
		t.Fatal("the library of SoftHSM is in none of the usual places")
	}
	return name
}

func libraryOf() string {
	for _, name := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return ""
}

func open(t *testing.T) *Backend {
	t.Helper()
	b, err := Open(Config{Module: library(t), Token: "test", PIN: pin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestContract(t *testing.T) {
	keystest.Run(t, keystest.Harness{Open: func() (keys.Backend, error) { return open(t), nil }})
}

// The parts of the suite that matter over the socket, as authserver uses it.
func TestContractOverSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "keys.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b := open(t)
	go func() { done <- remote.Serve(ctx, socket, b, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	timetest.AwaitNil(t, func() error { _, err := remote.Dial(t.Context(), socket); return err })
	h := keystest.Harness{Open: func() (keys.Backend, error) { return remote.Dial(context.Background(), socket) }}
	for _, check := range keystest.Checks {
		if slices.Contains([]string{"sign", "reopen", "destroy", "rotation"}, check.Name) {
			t.Run(check.Name, func(t *testing.T) { // in turn: SoftHSM may fail to make a key while it signs with another
				if err := check.Run(t.Context(), h); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// ATTACKS FT-46: the daemon that has the keys is killed. What is asked to sign meanwhile
// fails as something that passes, the key set is served on, and when the daemon is back
// it signs with the same key, with no restart.
func TestDaemonIsKilled(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "keys.sock")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin := func() *exec.Cmd {
		command := exec.Command(binary)
		command.Env = append(os.Environ(), daemonSocket+"="+socket)
		command.Stderr = os.Stderr
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { command.Process.Kill(); command.Wait() })
		return command
	}
	first := begin()
	var backend keys.Backend
	timetest.Await(t, "the daemon answers", func() bool {
		var err error
		backend, err = remote.Dial(t.Context(), socket)
		return err == nil
	})
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := keys.Open(t.Context(), keys.Config{
		Store: new(keystest.Store), Backend: backend, MasterKey: master, Issuer: "https://a.example", Algorithms: []string{es256},
		CacheFor: time.Minute, PublishBefore: 24 * time.Hour, RotateEvery: 2160 * time.Hour, TokenLifetime: time.Hour, RefreshLifetime: time.Hour,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); m.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ran })
	kid := func() (string, error) {
		token, err := m.Sign(es256, "at+jwt", []byte(`{}`))
		header, _, _ := strings.Cut(token, ".")
		return header, err
	}
	var before string
	timetest.Await(t, "something is signed", func() (signed bool) { before, err = kid(); return err == nil })
	timetest.Await(t, "the next key is published", func() bool { return bytes.Count(m.JWKS().Body, []byte(`"kid"`)) == 2 })
	set := string(m.JWKS().Body)

	first.Process.Kill()
	first.Wait()
	if _, err := kid(); err == nil || !keys.Passes(err) {
		t.Errorf("without the daemon: %v", err)
	}
	if got := string(m.JWKS().Body); got != set {
		t.Errorf("the key set was\n%s\nand is\n%s", set, got)
	}
	begin()
	var after string
	timetest.Await(t, "something is signed when the daemon is back", func() bool { after, err = kid(); return err == nil })
	if after != before {
		t.Errorf("signed by %s, before by %s", after, before)
	}
}

// Keys are made in the token, and nobody gets them out.
func TestKeysStayInTheToken(t *testing.T) {
	b := open(t)
	for _, algorithm := range b.Algorithms() {
		place := keys.Place{Issuer: "https://a.example", Ring: algorithm, Algorithm: algorithm}
		public, handle, err := b.Generate(t.Context(), place)
		if err != nil {
			t.Fatal(err)
		}
		if place.KeyID, err = keys.Thumbprint(public); err != nil {
			t.Fatal(err)
		}
		signer, err := b.Open(t.Context(), place, handle)
		if err != nil {
			t.Fatal(err)
		}
		for attribute, want := range map[crypto11.AttributeType]byte{
			pkcs11.CKA_EXTRACTABLE: 0, pkcs11.CKA_SENSITIVE: 1, pkcs11.CKA_PRIVATE: 1, pkcs11.CKA_TOKEN: 1,
			pkcs11.CKA_LOCAL: 1, pkcs11.CKA_NEVER_EXTRACTABLE: 1, pkcs11.CKA_ALWAYS_SENSITIVE: 1,
		} {
			got, err := b.token.GetAttribute(signer, attribute)
			if err != nil || len(got.Value) != 1 || got.Value[0] != want {
				t.Errorf("%s: attribute %x is %v, %v; want %d", algorithm, attribute, got, err, want)
			}
		}
		secret := crypto11.AttributeType(pkcs11.CKA_VALUE)
		if algorithm == rs256 {
			secret = pkcs11.CKA_PRIVATE_EXPONENT
		}
		if got, err := b.token.GetAttribute(signer, secret); err == nil && got != nil && len(got.Value) > 0 {
			t.Errorf("%s: the token gives the private half away", algorithm)
		}
		if _, ok := signer.(crypto.Decrypter); ok && algorithm == es256 {
			t.Error("a key that signs decrypts")
		}
		if err := b.Destroy(t.Context(), place, handle); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]Config{
		"no such library": {Module: "/nowhere.so", Token: "test", PIN: pin},
		"no such token":   {Module: library(t), Token: "other", PIN: pin},
		"wrong PIN":       {Module: library(t), Token: "test", PIN: "9999"},
		"nothing":         {},
	} {
		if b, err := Open(c); err == nil {
			b.Close()
			t.Errorf("%s: opened", name)
		} else if c.PIN != "" && strings.Contains(err.Error(), c.PIN) {
			t.Errorf("%s: the error has the PIN: %v", name, err)
		}
	}
}
