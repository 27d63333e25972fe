package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Backend keeps private keys: sealed in the store (SealedBackend, what is used when
// none is given), in a token (keys/pkcs11), in a key management service. A private
// key of another backend never comes into this process. Implementations are safe
// for concurrent use, honour ctx, and are held to this contract by the suite in
// keystest.
//
// Only the keys of published rings are made by a Config.Backend. Those of
// RefreshRing are sealed: nobody elsewhere verifies them, they are needed for every
// refresh, and signing the same twice has to give the same.
type Backend interface {
	// Name is stored with each key and never changes: letters, digits and -.
	Name() string
	// Algorithms are those that it has keys for.
	Algorithms() []string
	// Generate makes a new key and returns its public half, and what Open and
	// Destroy need to find the private one: at most MaxHandle bytes, no secret.
	// After an error there may be a key that nobody knows.
	Generate(ctx context.Context, place Place) (public crypto.PublicKey, handle []byte, err error)
	// Open returns the signer of a key that was generated for the same place, or an
	// error when there is none, or it is another. The signer outlives ctx. Its Sign
	// is called without a source of randomness and with crypto.SHA256 and a digest,
	// or for EdDSA with crypto.Hash(0) and the message; RSA is PKCS #1 v1.5.
	Open(ctx context.Context, place Place, handle []byte) (crypto.Signer, error)
	// Destroy destroys a private key. It is no error when there is none any more.
	Destroy(ctx context.Context, place Place, handle []byte) error
}

// Importer is a Backend that takes in keys that were made elsewhere.
type Importer interface {
	Backend
	// Import is Generate for a key that there is already.
	Import(ctx context.Context, place Place, private crypto.Signer) (handle []byte, err error)
}

// Place is what a key is for. A backend binds keys to it as well as it can, so that
// records can neither be renamed nor exchanged.
type Place struct {
	Issuer    string `json:"issuer"`
	Ring      string `json:"ring"`
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid,omitempty"` // RFC 7638 thumbprint; empty before there is a key
}

// MaxHandle bounds the handle of a key: a sealed RSA key of 4096 bits has the half.
const MaxHandle = 8 << 10

// ErrBackend says that a backend did not answer, or could not sign. It passes when
// the backend is there again.
var ErrBackend = errors.New("the key backend does not sign")

// Passes reports whether an error of Sign passes by itself, so that who asked may
// ask again: ErrNoKey, ErrLease, ErrBackend.
func Passes(err error) bool {
	return errors.Is(err, ErrNoKey) || errors.Is(err, ErrLease) || errors.Is(err, ErrBackend)
}

// private is where a private half is.
type private struct {
	Backend string `json:"backend"`
	Handle  []byte `json:"handle"`
}

// backendOf returns the backend that makes the keys of a ring.
func (m *Manager) backendOf(ring string) Backend {
	if ring == RefreshRing || m.config.Backend == nil {
		return m.sealed
	}
	return m.config.Backend
}

// backendNamed returns the backend that keeps a key.
func (m *Manager) backendNamed(name string) (Backend, error) {
	for _, b := range []Backend{m.sealed, m.config.Backend} {
		if b != nil && b.Name() == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("it is kept by the backend %q, which is not configured here", name)
}

// generate makes a key for a place.
func (m *Manager) generate(ctx context.Context, p Place) (material, error) {
	b := m.backendOf(p.Ring)
	public, handle, err := b.Generate(ctx, p)
	if err != nil {
		return material{}, fmt.Errorf("generating an %s key: %w", p.Algorithm, err)
	}
	made, err := newMaterial(public, private{b.Name(), handle}, p.Algorithm)
	if err != nil {
		return material{}, fmt.Errorf("the key that the backend %q made for %s: %w", b.Name(), p.Algorithm, err)
	}
	p.KeyID = made.id
	m.strays.add(p, made.private)
	return made, nil
}

// material is a new key that is in no ring yet.
type material struct {
	id      string
	public  []byte // PKIX, DER
	private private
}

func newMaterial(public crypto.PublicKey, where private, name string) (material, error) {
	a, err := algorithmOf(name)
	if err != nil {
		return material{}, err
	}
	if !a.fits(public) {
		return material{}, fmt.Errorf("it is no key for %s", name)
	}
	if len(where.Handle) > MaxHandle {
		return material{}, fmt.Errorf("its handle has %d bytes; at most %d are stored", len(where.Handle), MaxHandle)
	}
	id, err := Thumbprint(public)
	if err != nil {
		return material{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return material{}, fmt.Errorf("encoding public key %s: %w", id, err)
	}
	return material{id, der, where}, nil
}

// openPrivate returns the signer of a key. A sealed one that does not open was
// altered, and nothing is done with such a set. Another backend may be away just
// now: its keys are opened when they are needed.
func (m *Manager) openPrivate(p Place, public crypto.PublicKey, where private) (crypto.Signer, error) {
	b, err := m.backendNamed(where.Backend)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", p.KeyID, err)
	}
	if b == Backend(m.sealed) {
		return b.Open(context.Background(), p, where.Handle)
	}
	return &distantSigner{backend: b, place: p, handle: where.Handle, public: public, timeout: m.config.callTimeout()}, nil
}

// distantSigner signs with a key of a backend that comes and goes.
type distantSigner struct {
	backend Backend
	place   Place
	handle  []byte
	public  crypto.PublicKey
	timeout time.Duration

	mu     sync.Mutex
	opened crypto.Signer
}

func (s *distantSigner) Public() crypto.PublicKey { return s.public }

func (s *distantSigner) Sign(_ io.Reader, input []byte, options crypto.SignerOpts) ([]byte, error) {
	opened, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBackend, err)
	}
	signature, err := opened.Sign(nil, input, options)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opened == opened { // a session that was lost; the next call begins anew
			s.opened = nil
		}
		return nil, fmt.Errorf("%w: %w", ErrBackend, err)
	}
	return signature, nil
}

func (s *distantSigner) open() (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	opened, err := s.backend.Open(ctx, s.place, s.handle)
	if err != nil {
		return nil, err
	}
	if id, err := Thumbprint(opened.Public()); err != nil || id != s.place.KeyID {
		return nil, fmt.Errorf("the backend %q has another key for %s", s.backend.Name(), s.place.KeyID)
	}
	s.opened = opened
	return opened, nil
}

// checkBackend returns what is wrong with the configured backend.
func (c Config) checkBackend() []error {
	if c.Backend == nil {
		return nil
	}
	var problems []error
	for _, name := range c.Algorithms {
		if has := c.Backend.Algorithms(); !slices.Contains(has, name) {
			problems = append(problems, fmt.Errorf("algorithms has %s, and the backend %q has keys for %s only",
				name, c.Backend.Name(), strings.Join(has, ", ")))
		}
	}
	if name := c.Backend.Name(); name == "" || name == sealedName || len(name) > 64 {
		problems = append(problems, fmt.Errorf("a backend cannot be called %q", name))
	}
	return problems
}
