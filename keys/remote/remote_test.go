package remote_test

import (
	"context"
	"crypto"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"authserver/keys"
	"authserver/keys/keystest"
	"authserver/keys/remote"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func sealed(t *testing.T) keys.Backend {
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return keys.NewSealedBackend(master)
}

// serve serves a backend until the test ends, or the returned function is called.
func serve(t *testing.T, socket string, b keys.Backend) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- remote.Serve(ctx, socket, b, quiet) }()
	for {
		if _, err := remote.Dial(t.Context(), socket); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-t.Context().Done():
			t.Fatal("it does not answer")
		default:
		}
	}
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestContract(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "keys.sock")
	serve(t, socket, sealed(t))
	h := keystest.Harness{InHandle: true, Open: func() (keys.Backend, error) { return remote.Dial(context.Background(), socket) }}
	for _, check := range keystest.Checks {
		if check.Name == "rotation" || check.Name == "revocation" || check.Name == "racing instances" {
			continue // a sealed backend is never asked for by a manager; see keys/pkcs11
		}
		t.Run(check.Name, func(t *testing.T) {
			if err := check.Run(t.Context(), h); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSocket(t *testing.T) {
	directory := t.TempDir()
	socket := filepath.Join(directory, "keys.sock")
	b := sealed(t)
	stop := serve(t, socket, b)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if err := remote.Serve(t.Context(), socket, b, quiet); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("served twice: %v", err)
	}
	client, err := remote.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	place := keys.Place{Issuer: "https://a.example", Ring: "ES256", Algorithm: "ES256"}
	public, handle, err := client.Generate(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	if place.KeyID, err = keys.Thumbprint(public); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := client.Open(t.Context(), place, handle); err == nil {
		t.Error("opened a key without its process")
	}
	if _, err := remote.Dial(t.Context(), socket); err == nil || !strings.Contains(err.Error(), socket) {
		t.Errorf("dialled nobody: %v", err)
	}
	serve(t, socket, b)
	if _, err := client.Open(t.Context(), place, handle); err != nil {
		t.Errorf("the process is there again: %v", err)
	}
	file := filepath.Join(directory, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := remote.Serve(t.Context(), file, b, quiet); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("served on a file: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	handler := remote.Handler(sealed(t), quiet)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/backend", "", 405},
		{"POST", "/v1/backend", "{", 400},
		{"POST", "/v1/sign", `{"what":1}`, 400},
		{"POST", "/v1/sign", `{"hash":"MD5"}`, 500},
		{"POST", "/v1/sign", `{"handle":"` + strings.Repeat("A", 2<<20) + `"}`, 400},
		{"POST", "/v1/other", "{}", 404},
		{"POST", "/v1/backend", "{}", 200},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, w.Code, w.Body, c.status)
		}
		if c.status == 200 && w.Header().Get("Content-Type") != "application/json" {
			t.Error(http.StatusText(w.Code), w.Header())
		}
	}
}

// late opens keys when it is let.
type late struct {
	keys.Backend
	opens   atomic.Int32
	opening chan struct{}
	let     chan struct{}
}

func (l *late) Open(ctx context.Context, place keys.Place, handle []byte) (crypto.Signer, error) {
	signer, err := l.Backend.Open(ctx, place, handle)
	if l.opens.Add(1) == 2 { // the first time is the client's own
		close(l.opening)
		<-l.let
	}
	return signer, err
}

func (*late) Destroy(context.Context, keys.Place, []byte) error { return nil }

// A signer that was being opened while its key was destroyed is not kept.
func TestDestroyMeetsSign(t *testing.T) {
	b := &late{Backend: sealed(t), opening: make(chan struct{}), let: make(chan struct{})}
	socket := filepath.Join(t.TempDir(), "keys.sock")
	serve(t, socket, b)
	client, err := remote.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	place := keys.Place{Issuer: "https://auth.example.com", Ring: "EdDSA", Algorithm: "EdDSA"}
	public, handle, err := client.Generate(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	if place.KeyID, err = keys.Thumbprint(public); err != nil {
		t.Fatal(err)
	}
	signer, err := client.Open(t.Context(), place, handle)
	if err != nil {
		t.Fatal(err)
	}
	signed := make(chan error)
	sign := func() error { _, err := signer.Sign(nil, []byte("message"), crypto.Hash(0)); return err }
	go func() { signed <- sign() }()
	<-b.opening
	if err := client.Destroy(t.Context(), place, handle); err != nil {
		t.Fatal(err)
	}
	close(b.let)
	if err := <-signed; err != nil {
		t.Fatal(err)
	}
	if err := sign(); err != nil {
		t.Fatal(err)
	}
	if opens := b.opens.Load(); opens != 3 {
		t.Errorf("opened %d times, want 3: what was opened before the key was destroyed is not kept", opens)
	}
}

// A connection that says nothing is closed, at its beginning and after an answer: whoever
// opens many and forgets them takes no file of the key process for good.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := remote.NewServer(sealed(t), quiet)
		for name, said := range map[string]string{
			"silent": "", "half a request": "POST /v1/backend HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
			"idle": "POST /v1/backend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		} {
			near, far := net.Pipe()
			listener := &once{connection: far}
			go server.Serve(listener)
			go io.WriteString(near, said)
			if _, err := io.Copy(io.Discard, near); err != nil { // until it is closed
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// once is a listener of one connection.
type once struct{ connection net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if o.connection == nil {
		return nil, net.ErrClosed
	}
	defer func() { o.connection = nil }()
	return o.connection, nil
}

func (*once) Close() error   { return nil }
func (*once) Addr() net.Addr { return &net.UnixAddr{} }
