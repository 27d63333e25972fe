package remote

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"authserver/keys"
)

// Backend is a keys.Backend whose keys another process keeps.
type Backend struct {
	socket     string
	client     *http.Client
	name       string
	algorithms []string
}

// signTimeout bounds a signature, for which there is no context.
const signTimeout = 5 * time.Second

// Dial asks the process behind a socket what it is. Later calls connect anew when
// it was restarted.
func Dial(ctx context.Context, socket string) (*Backend, error) {
	b := &Backend{socket: socket}
	b.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     5 * time.Second, // sooner than the process behind it closes one
	}}
	answer, err := b.ask(ctx, pathBackend, request{})
	if err != nil {
		return nil, err
	}
	if answer.Name == "" || len(answer.Algorithms) == 0 {
		return nil, fmt.Errorf("%s is no key backend: it has no name or no algorithms", socket)
	}
	b.name, b.algorithms = answer.Name, answer.Algorithms
	return b, nil
}

func (b *Backend) ask(ctx context.Context, path string, asked request) (response, error) {
	body, err := json.Marshal(asked)
	if err != nil {
		return response{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://backend"+path, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	answered, err := b.client.Do(r)
	if err != nil {
		return response{}, fmt.Errorf("asking the key backend at %s: %w", b.socket, err)
	}
	defer answered.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answered.Body, maxMessage))
	if err != nil {
		return response{}, fmt.Errorf("asking the key backend at %s: %w", b.socket, err)
	}
	var answer response
	if err := json.Unmarshal(text, &answer); err != nil {
		return response{}, fmt.Errorf("the key backend at %s answered %s and no JSON of this protocol", b.socket, answered.Status)
	}
	if answered.StatusCode != http.StatusOK || answer.Error != "" {
		return response{}, fmt.Errorf("the key backend at %s: %s", b.socket, answer.Error)
	}
	return answer, nil
}

// Name implements keys.Backend.
func (b *Backend) Name() string { return b.name }

// Algorithms implements keys.Backend.
func (b *Backend) Algorithms() []string { return b.algorithms }

// Generate implements keys.Backend.
func (b *Backend) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	answer, err := b.ask(ctx, pathGenerate, request{Place: p})
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.ParsePKIXPublicKey(answer.Public)
	if err != nil {
		return nil, nil, fmt.Errorf("the key backend at %s generated a key that cannot be read: %w", b.socket, err)
	}
	return public, answer.Handle, nil
}

// Open implements keys.Backend.
func (b *Backend) Open(ctx context.Context, p keys.Place, handle []byte) (crypto.Signer, error) {
	answer, err := b.ask(ctx, pathOpen, request{Place: p, Handle: handle})
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(answer.Public)
	if err != nil {
		return nil, fmt.Errorf("the key backend at %s has a key that cannot be read: %w", b.socket, err)
	}
	return &signer{b, p, handle, public}, nil
}

// Destroy implements keys.Backend.
func (b *Backend) Destroy(ctx context.Context, p keys.Place, handle []byte) error {
	_, err := b.ask(ctx, pathDestroy, request{Place: p, Handle: handle})
	return err
}

type signer struct {
	backend *Backend
	place   keys.Place
	handle  []byte
	public  crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.public }

func (s *signer) Sign(_ io.Reader, input []byte, options crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
	defer cancel()
	asked := request{Place: s.place, Handle: s.handle, Input: input}
	if hash := options.HashFunc(); hash != 0 {
		asked.Hash = hash.String()
	}
	answer, err := s.backend.ask(ctx, pathSign, asked)
	if err == nil && len(answer.Signature) == 0 {
		err = errors.New("the key backend answered no signature")
	}
	return answer.Signature, err
}
