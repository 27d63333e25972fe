package authservertest

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// Secrets are those that clients sent to servers, and got from them, over a transport: for
// tests that start servers as processes of their own, and look through what those print.
type Secrets struct{ watch *secretWatch }

// NewSecrets returns an empty collection.
func NewSecrets() *Secrets { return &Secrets{newSecretWatch()} }

// Add notes a secret, and where it is from.
func (s *Secrets) Add(where, secret string) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.add(where, secret)
}

// In returns which secrets a log holds.
func (s *Secrets) In(log string) []string {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.watch.foundIn([]byte(log))
}

// Watch returns a transport that notes what goes through another one.
func (s *Secrets) Watch(next http.RoundTripper) http.RoundTripper { return watchedTransport{s, next} }

type watchedTransport struct {
	secrets *Secrets
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			sent, _ = io.ReadAll(body)
			body.Close()
		}
	}
	w.secrets.watch.see(r, sent, make(http.Header), nil) // also when no answer comes
	response, err := w.next.RoundTrip(r)
	if err == nil {
		response.Body = &watchedBody{ReadCloser: response.Body, ended: func(text []byte) { w.secrets.watch.see(r, nil, response.Header, text) }}
	}
	return response, err
}

// watchedBody tells what was read from it when it is closed.
type watchedBody struct {
	io.ReadCloser
	text  kept
	once  sync.Once
	ended func(text []byte)
}

// Read implements io.Reader.
func (b *watchedBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	b.text.Write(bytes.Clone(into[:n]))
	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.once.Do(func() { b.ended(b.text.Bytes()) })
	return b.ReadCloser.Close()
}
