package keystest_test

import (
	"context"
	"crypto"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/keys"
	"authserver/keys/keystest"
)

func sealed(t *testing.T) keystest.Harness {
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return keystest.Harness{InHandle: true, Open: func() (keys.Backend, error) { return keys.NewSealedBackend(master), nil }}
}

func TestSealedBackend(t *testing.T) { keystest.Run(t, sealed(t)) }

// A sealed backend that the manager takes for a distant one, as a KMS is.
type distant struct{ keys.Backend }

func (distant) Name() string         { return "distant" }
func (distant) Algorithms() []string { return []string{"ES256", "EdDSA"} }

func TestDistantBackend(t *testing.T) {
	h, gone := sealed(t), new(sync.Map)
	keystest.Run(t, keystest.Harness{Open: func() (keys.Backend, error) {
		b, err := h.Open()
		return forgetful{distant{b}, gone}, err
	}})
}

// forgetful destroys, which a sealed backend does not.
type forgetful struct {
	keys.Backend
	gone *sync.Map
}

func (f forgetful) Open(ctx context.Context, p keys.Place, handle []byte) (crypto.Signer, error) {
	if _, gone := f.gone.Load(string(handle)); gone {
		return nil, errors.New("there is no such key")
	}
	return f.Backend.Open(ctx, p, handle)
}

func (f forgetful) Destroy(_ context.Context, _ keys.Place, handle []byte) error {
	f.gone.Store(string(handle), true)
	return nil
}

// Each fault is a backend that breaks one promise. The suite has to notice, and to
// name the rule.
func TestSuiteBites(t *testing.T) {
	for _, fault := range []struct {
		name, check, rule string
		inHandle          bool
		wrap              func(keys.Backend) keys.Backend
	}{
		{"a name that changes", "names", "called the same", true, func(b keys.Backend) keys.Backend { return renamed{b, time.Now().String()} }},
		{"one key for all", "generate", "makes a new key", true, func(b keys.Backend) keys.Backend { return &same{Backend: b} }},
		{"another algorithm", "generate", "of the algorithm", true, func(b keys.Backend) keys.Backend { return only{b} }},
		{"a signature of something else", "sign", "verifies", true, func(b keys.Backend) keys.Backend { return forger{b} }},
		{"a key opens anywhere", "places", "in its own place", true, func(b keys.Backend) keys.Backend { return careless{b} }},
		{"a handle is not looked at", "junk handles", "that it did not make", true, func(b keys.Backend) keys.Backend { return lax{b} }},
		{"nothing is destroyed", "destroy", "does not open", false, func(b keys.Backend) keys.Backend { return b }},
		{"an end is not noticed", "context", "honours its context", true, func(b keys.Backend) keys.Backend { return deaf{b} }},
		{"a key that stays behind", "rotation", "is destroyed when nothing signs", false, func(b keys.Backend) keys.Backend { return hoarder{distant{b}} }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			sound := sealed(t)
			faulty := keystest.Harness{InHandle: fault.inHandle, Open: func() (keys.Backend, error) {
				b, err := sound.Open()
				return fault.wrap(b), err
			}}
			for _, check := range keystest.Checks {
				if check.Name != fault.check {
					continue
				}
				for within := 8 * time.Second; ; within *= 2 { // until a slow machine comes to it
					ctx, cancel := context.WithTimeout(t.Context(), within)
					err := check.Run(ctx, faulty)
					late := ctx.Err() != nil && within < time.Minute
					cancel()
					if err != nil && strings.Contains(err.Error(), fault.rule) {
						return
					}
					if !late {
						t.Fatalf("the suite says %v, want a breach of %q", err, fault.rule)
					}
				}
			}
			t.Errorf("there is no check %q", fault.check)
		})
	}
}

type renamed struct {
	keys.Backend
	name string
}

func (f renamed) Name() string { return f.name }

type same struct {
	keys.Backend
	public crypto.PublicKey
	handle []byte
}

func (f *same) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	var err error
	if f.public == nil {
		f.public, f.handle, err = f.Backend.Generate(ctx, p)
	}
	return f.public, f.handle, err
}

type only struct{ keys.Backend }

func (f only) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	p.Algorithm = "EdDSA"
	return f.Backend.Generate(ctx, p)
}

type forger struct{ keys.Backend }

type forging struct{ crypto.Signer }

func (f forging) Sign(_ io.Reader, input []byte, options crypto.SignerOpts) ([]byte, error) {
	other := append([]byte{}, input...)
	other = append(other[1:], 'x')
	return f.Signer.Sign(nil, other, options)
}

func (f forger) Open(ctx context.Context, p keys.Place, handle []byte) (crypto.Signer, error) {
	signer, err := f.Backend.Open(ctx, p, handle)
	return forging{signer}, err
}

type careless struct{ keys.Backend }

func (f careless) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	p.Issuer = "any"
	return f.Backend.Generate(ctx, p)
}

func (f careless) Open(ctx context.Context, p keys.Place, handle []byte) (crypto.Signer, error) {
	p.Issuer = "any"
	return f.Backend.Open(ctx, p, handle)
}

func (f careless) Destroy(context.Context, keys.Place, []byte) error { return nil }

type lax struct{ keys.Backend }

type nobody struct{ crypto.Signer }

func (f lax) Open(ctx context.Context, p keys.Place, handle []byte) (crypto.Signer, error) {
	if signer, err := f.Backend.Open(ctx, p, handle); err == nil {
		return signer, nil
	}
	return nobody{}, nil
}

type deaf struct{ keys.Backend }

func (f deaf) Generate(_ context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	return f.Backend.Generate(context.Background(), p)
}

type hoarder struct{ keys.Backend }

func (f hoarder) Destroy(context.Context, keys.Place, []byte) error { return errors.New("not today") }
