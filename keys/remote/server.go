package remote

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"authserver/keys"
)

// Handler answers for a backend.
func Handler(b keys.Backend, log *slog.Logger) http.Handler {
	s := &server{backend: b, log: log, opened: make(map[string]crypto.Signer)}
	mux := http.NewServeMux()
	for path, method := range map[string]func(context.Context, request) (response, error){
		pathBackend: s.describe, pathGenerate: s.generate, pathOpen: s.open, pathSign: s.sign, pathDestroy: s.destroy,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, method) })
	}
	return mux
}

type server struct {
	backend keys.Backend
	log     *slog.Logger

	mu        sync.Mutex
	opened    map[string]crypto.Signer // by place and handle
	destroyed int                      // counts what may have ended the signers that are being opened
}

// maxOpened bounds the signers that are kept open: a server has some four keys.
const maxOpened = 64

func (s *server) answer(w http.ResponseWriter, r *http.Request, method func(context.Context, request) (response, error)) {
	var asked request
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		writeJSON(w, http.StatusBadRequest, response{Error: "the request is no JSON of this protocol: " + err.Error()})
		return
	}
	answer, err := method(r.Context(), asked)
	if err != nil {
		s.log.Error("a key could not be used", "path", r.URL.Path, "kid", asked.Place.KeyID, "error", err)
		writeJSON(w, http.StatusInternalServerError, response{Error: err.Error()})
		return
	}
	if r.URL.Path == pathGenerate || r.URL.Path == pathDestroy {
		s.log.Info("key "+r.URL.Path[len("/v1/"):], "issuer", asked.Place.Issuer, "ring", asked.Place.Ring, "kid", asked.Place.KeyID)
	}
	writeJSON(w, http.StatusOK, answer)
}

func writeJSON(w http.ResponseWriter, status int, answer response) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func (s *server) describe(context.Context, request) (response, error) {
	return response{Name: s.backend.Name(), Algorithms: s.backend.Algorithms()}, nil
}

func (s *server) generate(ctx context.Context, asked request) (response, error) {
	public, handle, err := s.backend.Generate(ctx, asked.Place)
	if err != nil {
		return response{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	return response{Public: der, Handle: handle}, err
}

func (s *server) open(ctx context.Context, asked request) (response, error) {
	signer, err := s.backend.Open(ctx, asked.Place, asked.Handle)
	if err != nil {
		return response{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	return response{Public: der}, err
}

func (s *server) sign(ctx context.Context, asked request) (response, error) {
	var hash crypto.Hash
	switch asked.Hash {
	case "":
	case crypto.SHA256.String():
		hash = crypto.SHA256
	default:
		return response{}, fmt.Errorf("hash %q is unknown", asked.Hash)
	}
	signer, name, err := s.signer(ctx, asked)
	if err != nil {
		return response{}, err
	}
	signature, err := signer.Sign(nil, asked.Input, hash)
	if err != nil {
		s.forget(name) // it is opened anew the next time
	}
	return response{Signature: signature}, err
}

func (s *server) signer(ctx context.Context, asked request) (crypto.Signer, string, error) {
	encoded, err := json.Marshal([]any{asked.Place, asked.Handle})
	if err != nil {
		return nil, "", err
	}
	name := string(encoded)
	s.mu.Lock()
	signer, destroyed := s.opened[name], s.destroyed
	s.mu.Unlock()
	if signer != nil {
		return signer, name, nil
	}
	if signer, err = s.backend.Open(ctx, asked.Place, asked.Handle); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed == destroyed {
		if len(s.opened) >= maxOpened {
			clear(s.opened)
		}
		s.opened[name] = signer
	}
	return signer, name, nil
}

func (s *server) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opened, name)
}

// destroy keeps no signer open that was opened before the key was gone.
func (s *server) destroy(ctx context.Context, asked request) (response, error) {
	s.forgetAll()
	defer s.forgetAll()
	return response{}, s.backend.Destroy(ctx, asked.Place, asked.Handle)
}

func (s *server) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.destroyed++
	clear(s.opened)
}

func newServer(b keys.Backend, log *slog.Logger) *http.Server {
	return &http.Server{Handler: Handler(b, log), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// Serve answers for a backend on a unix socket of mode 0600 until ctx ends. A
// socket that a process which was killed has left behind is replaced.
func Serve(ctx context.Context, socket string, b keys.Backend, log *slog.Logger) error {
	if err := removeStale(socket); err != nil {
		return err
	}
	old := syscall.Umask(0o177) // mode 0600 from its first instant
	listener, err := net.Listen("unix", socket)
	syscall.Umask(old)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := newServer(b, log)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Shutdown(finish)
	})
	err = server.Serve(listener)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	<-stopped
	return nil
}

func removeStale(socket string) error {
	info, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket", socket)
	}
	if connection, err := net.Dial("unix", socket); err == nil {
		connection.Close()
		return fmt.Errorf("another process serves %s", socket)
	}
	return os.Remove(socket)
}
