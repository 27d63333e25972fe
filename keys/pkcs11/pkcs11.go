// Package pkcs11 keeps the private halves of signing keys in a PKCS #11 token: a
// hardware security module, or SoftHSM. They are generated there, are never
// extractable, and sign there.
//
// It is a module of its own: it needs cgo, and a vendor's library that runs in the
// process that loads it. The command authserver-pkcs11 is that process; authserver
// reaches it over a socket (keys/remote) and stays what it is.
package pkcs11

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"authserver/keys"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

// Config says where the token is.
type Config struct {
	Module string // path of the vendor's library
	Token  string // label of the token
	PIN    string // of its user
	// Sessions bounds how many signatures are made at once; 16.
	Sessions int
}

// Backend implements keys.Backend. Close releases the token.
type Backend struct {
	token *crypto11.Context
	// change lets one key be made or destroyed at a time: SoftHSM answers
	// CKR_GENERAL_ERROR otherwise (softhsm/SoftHSMv2#573).
	change sync.Mutex
}

const (
	es256 = "ES256"
	rs256 = "RS256"

	rsaBits = 2048
	// sessionWait bounds how long a signature waits for a free session.
	sessionWait = 5 * time.Second
)

// Open loads the library and logs in to the token.
func Open(c Config) (*Backend, error) {
	if c.Module == "" || c.Token == "" || c.PIN == "" {
		return nil, errors.New("a token is named by its library, its label and the user's PIN")
	}
	if c.Sessions == 0 {
		c.Sessions = 16
	}
	token, err := crypto11.Configure(&crypto11.Config{
		Path: c.Module, TokenLabel: c.Token, Pin: c.PIN, MaxSessions: c.Sessions, PoolWaitTimeout: sessionWait,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the token %q with %s: %w", c.Token, c.Module, err)
	}
	return &Backend{token: token}, nil
}

// Close logs out and unloads the library.
func (b *Backend) Close() error { return b.token.Close() }

// Name implements keys.Backend.
func (b *Backend) Name() string { return "pkcs11" }

// Algorithms implements keys.Backend. Few tokens have Ed25519, and the library does
// not speak it.
func (b *Backend) Algorithms() []string { return []string{es256, rs256} }

// handle finds a key: by the random CKA_ID of its two halves. The label that they
// have says to people what they are for.
type handle struct {
	ID []byte `json:"id"`
}

const idBytes = 16

// Generate implements keys.Backend.
func (b *Backend) Generate(ctx context.Context, p keys.Place) (crypto.PublicKey, []byte, error) {
	if !slices.Contains(b.Algorithms(), p.Algorithm) {
		return nil, nil, fmt.Errorf("a token has no keys for %q", p.Algorithm)
	}
	id := make([]byte, idBytes)
	rand.Read(id)
	signer, err := within(ctx, func() (crypto.Signer, error) { return b.generate(id, p) })
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key in the token: %w", err)
	}
	encoded, err := json.Marshal(handle{id})
	return signer.Public(), encoded, err
}

func (b *Backend) generate(id []byte, p keys.Place) (crypto.Signer, error) {
	b.change.Lock()
	defer b.change.Unlock()
	public, err := crypto11.NewAttributeSetWithIDAndLabel(id, label(p))
	if err != nil {
		return nil, err
	}
	private := public.Copy()
	for attribute, value := range map[crypto11.AttributeType]bool{
		pkcs11.CKA_TOKEN: true, pkcs11.CKA_PRIVATE: true, pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false,
		pkcs11.CKA_SIGN: true, pkcs11.CKA_DECRYPT: false, pkcs11.CKA_UNWRAP: false,
	} {
		if err := private.Set(attribute, value); err != nil {
			return nil, err
		}
	}
	if p.Algorithm == es256 {
		private.Unset(pkcs11.CKA_DECRYPT)
		private.Unset(pkcs11.CKA_UNWRAP)
		return b.token.GenerateECDSAKeyPairWithAttributes(public, private, elliptic.P256())
	}
	return b.token.GenerateRSAKeyPairWithAttributes(public, private, rsaBits)
}

// label binds a key to what it is for: a hash, since labels are short, with the
// algorithm in front for people.
func label(p keys.Place) []byte {
	encoded, err := json.Marshal([]string{p.Issuer, p.Ring, p.Algorithm})
	if err != nil {
		panic(err) // strings always encode
	}
	sum := sha256.Sum256(encoded)
	return fmt.Appendf(nil, "authserver %s %x", p.Algorithm, sum[:12])
}

// Open implements keys.Backend.
func (b *Backend) Open(ctx context.Context, p keys.Place, encoded []byte) (crypto.Signer, error) {
	signer, err := within(ctx, func() (crypto.Signer, error) { return b.find(p, encoded) })
	if err != nil {
		return nil, err
	}
	if signer == nil {
		return nil, fmt.Errorf("the token has no key %s for this place", p.KeyID)
	}
	kid, err := keys.Thumbprint(signer.Public())
	if err != nil || kid != p.KeyID {
		return nil, fmt.Errorf("the token has another key for %s", p.KeyID)
	}
	return signer, nil
}

// find returns nil when there is no such key.
func (b *Backend) find(p keys.Place, encoded []byte) (crypto.Signer, error) {
	var h handle
	if err := json.Unmarshal(encoded, &h); err != nil || len(h.ID) != idBytes {
		return nil, errors.New("the handle of the key is not what was written")
	}
	found, err := b.token.FindKeyPairs(h.ID, label(p))
	if err != nil {
		return nil, fmt.Errorf("looking for a key in the token: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

// Destroy implements keys.Backend.
func (b *Backend) Destroy(ctx context.Context, p keys.Place, encoded []byte) error {
	_, err := within(ctx, func() (crypto.Signer, error) {
		b.change.Lock()
		defer b.change.Unlock()
		signer, err := b.find(p, encoded)
		if err != nil || signer == nil {
			return nil, err
		}
		if err := signer.(crypto11.Signer).Delete(); err != nil {
			return nil, fmt.Errorf("destroying a key in the token: %w", err)
		}
		return nil, nil
	})
	return err
}

// within returns when ctx ends, whatever the token does: a call into the library
// cannot be interrupted.
func within(ctx context.Context, call func() (crypto.Signer, error)) (crypto.Signer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		signer crypto.Signer
		err    error
	}
	done := make(chan result, 1)
	go func() {
		signer, err := call()
		done <- result{signer, err}
	}()
	select {
	case r := <-done:
		return r.signer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
