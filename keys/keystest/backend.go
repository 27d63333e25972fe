package keystest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"authserver/keys"
)

func names(_ context.Context, h Harness) error {
	b, err := h.Open()
	if err != nil {
		return err
	}
	again, err := h.Open()
	if err != nil {
		return err
	}
	if b.Name() == "" || b.Name() != again.Name() {
		return fmt.Errorf("a backend is called the same always, not %q and then %q", b.Name(), again.Name())
	}
	if len(b.Algorithms()) == 0 {
		return errors.New("a backend has keys for some algorithm")
	}
	return nil
}

func generate(ctx context.Context, h Harness) error {
	seen := map[string]bool{}
	return each(ctx, h, func(b keys.Backend, key made) error {
		other, err := newKey(ctx, b, key.place.Algorithm)
		if err != nil {
			return err
		}
		defer b.Destroy(ctx, other.place, other.handle)
		for _, k := range []made{key, other} {
			if seen[k.place.KeyID] {
				return errors.New("each Generate makes a new key")
			}
			seen[k.place.KeyID] = true
			if !fits(k.public, k.place.Algorithm) {
				return fmt.Errorf("a key is of the algorithm that was asked for: %T is no key for %s", k.public, k.place.Algorithm)
			}
			if len(k.handle) == 0 || len(k.handle) > keys.MaxHandle {
				return fmt.Errorf("a handle has 1 to %d bytes, not %d", keys.MaxHandle, len(k.handle))
			}
		}
		if _, _, err := b.Generate(ctx, keys.Place{Issuer: issuer, Ring: "none", Algorithm: "none"}); err == nil {
			return errors.New("Generate refuses an algorithm that it has no keys for")
		}
		return nil
	})
}

func fits(public crypto.PublicKey, algorithm string) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return algorithm == "ES256" && key.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return algorithm == "RS256" && key.N.BitLen() >= 2048
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// signs checks that a signer signs for a public key, as it is asked for a JWS.
func signs(signer crypto.Signer, public crypto.PublicKey, message []byte) error {
	digest := sha256.Sum256(message)
	input, options := digest[:], crypto.SHA256
	if _, ok := public.(ed25519.PublicKey); ok {
		input, options = message, crypto.Hash(0)
	}
	signature, err := signer.Sign(nil, input, options)
	if err != nil {
		return fmt.Errorf("a signer signs: %w", err)
	}
	good := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(key, digest[:], signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(key, message, signature)
	}
	if !good {
		return errors.New("what a signer signs verifies with the public half that Generate returned")
	}
	return nil
}

func sign(ctx context.Context, h Harness) error {
	return each(ctx, h, func(b keys.Backend, key made) error {
		signer, err := b.Open(ctx, key.place, key.handle)
		if err != nil {
			return fmt.Errorf("a Backend opens what it generated: %w", err)
		}
		if id, err := keys.Thumbprint(signer.Public()); err != nil || id != key.place.KeyID {
			return fmt.Errorf("a signer has the public half that Generate returned: %v", err)
		}
		for _, message := range []string{"", "message", string(bytes.Repeat([]byte("x"), 10000))} {
			if err := signs(signer, key.public, []byte(message)); err != nil {
				return err
			}
		}
		return nil
	})
}

func signRacing(ctx context.Context, h Harness) error {
	return each(ctx, h, func(b keys.Backend, key made) error {
		signer, err := b.Open(ctx, key.place, key.handle)
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		failed := [8]error{}
		for i := range failed {
			all.Go(func() {
				for n := range 20 {
					if err := signs(signer, key.public, fmt.Append(nil, i, n)); err != nil {
						failed[i] = fmt.Errorf("a signer is safe for concurrent use: %w", err)
					}
				}
			})
		}
		all.Wait()
		return errors.Join(failed[:]...)
	})
}

func reopen(ctx context.Context, h Harness) error {
	return each(ctx, h, func(_ keys.Backend, key made) error {
		b, err := h.Open()
		if err != nil {
			return err
		}
		signer, err := b.Open(ctx, key.place, key.handle)
		if err != nil {
			return fmt.Errorf("a key outlives the process that made it: %w", err)
		}
		return signs(signer, key.public, []byte("message"))
	})
}

// places: a record that was renamed, or exchanged for another, does not open.
func places(ctx context.Context, h Harness) error {
	return each(ctx, h, func(b keys.Backend, key made) error {
		other, err := newKey(ctx, b, key.place.Algorithm)
		if err != nil {
			return err
		}
		defer b.Destroy(ctx, other.place, other.handle)
		for name, c := range map[string]made{
			"another kid":                {place: other.place, handle: key.handle},
			"the handle of another key":  {place: key.place, handle: other.handle},
			"the key of another issuer":  {place: func(p keys.Place) keys.Place { p.Issuer = "https://other.example"; return p }(key.place), handle: key.handle},
			"the key of another ring":    {place: func(p keys.Place) keys.Place { p.Ring = "other"; return p }(key.place), handle: key.handle},
			"a key of another algorithm": {place: func(p keys.Place) keys.Place { p.Algorithm = "PS512"; return p }(key.place), handle: key.handle},
		} {
			if _, err := b.Open(ctx, c.place, c.handle); err == nil {
				return fmt.Errorf("a Backend opens a key in its own place only, not %s", name)
			}
		}
		return nil
	})
}

func junkHandles(ctx context.Context, h Harness) error {
	return each(ctx, h, func(b keys.Backend, key made) error {
		for _, handle := range [][]byte{nil, {}, []byte("junk"), key.handle[:len(key.handle)-1], append(bytes.Clone(key.handle), 'x')} {
			if _, err := b.Open(ctx, key.place, handle); err == nil {
				return fmt.Errorf("a Backend refuses a handle that it did not make: %q", handle)
			}
		}
		return nil
	})
}

func destroy(ctx context.Context, h Harness) error {
	return each(ctx, h, func(b keys.Backend, key made) error {
		other, err := newKey(ctx, b, key.place.Algorithm)
		if err != nil {
			return err
		}
		defer b.Destroy(ctx, other.place, other.handle)
		for range 2 {
			if err := b.Destroy(ctx, key.place, key.handle); err != nil {
				return fmt.Errorf("Destroy destroys, and it is no error when there is nothing left: %w", err)
			}
		}
		if _, err := b.Open(ctx, key.place, key.handle); err == nil && !h.InHandle {
			return errors.New("a destroyed key does not open")
		}
		signer, err := b.Open(ctx, other.place, other.handle)
		if err != nil {
			return fmt.Errorf("Destroy destroys no other key: %w", err)
		}
		return signs(signer, other.public, []byte("message"))
	})
}

func contextEnds(ctx context.Context, h Harness) error {
	b, err := h.Open()
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	algorithm := b.Algorithms()[0]
	if _, _, err := b.Generate(ended, keys.Place{Issuer: issuer, Ring: algorithm, Algorithm: algorithm}); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Generate honours its context: %v", err)
	}
	return nil
}
