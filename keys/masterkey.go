package keys

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrMasterKey says that the master key is missing or not the one that sealed
// the private keys.
var ErrMasterKey = errors.New("the private keys cannot be opened")

// MasterKey seals private keys at rest. It never shows itself when formatted,
// logged or encoded.
type MasterKey struct {
	key *[chacha20poly1305.KeySize]byte
}

// NewMasterKey returns a random master key.
func NewMasterKey() (MasterKey, error) {
	m := MasterKey{new([chacha20poly1305.KeySize]byte)}
	if _, err := rand.Read(m.key[:]); err != nil {
		return MasterKey{}, fmt.Errorf("making a master key: %w", err)
	}
	return m, nil
}

// ParseMasterKey reads the text of a master key: 32 bytes in base64 or hex on one
// line.
func ParseMasterKey(text []byte) (MasterKey, error) {
	line := strings.TrimSpace(string(text))
	for _, decode := range []func(string) ([]byte, error){base64.StdEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString} {
		if decoded, err := decode(line); err == nil && len(decoded) == chacha20poly1305.KeySize {
			return MasterKey{(*[chacha20poly1305.KeySize]byte)(decoded)}, nil
		}
	}
	return MasterKey{}, fmt.Errorf("a master key is 32 bytes in base64 or hex on one line; this has %d characters (make one with `openssl rand -base64 32`)", len(line))
}

// Text is what ParseMasterKey reads, for writing it to a file. It is the secret.
func (m MasterKey) Text() []byte {
	return append(base64.StdEncoding.AppendEncode(nil, m.key[:]), '\n')
}

// IsZero reports whether m is no key.
func (m MasterKey) IsZero() bool { return m.key == nil }

// ID names the key without revealing it: 16 hex digits.
func (m MasterKey) ID() string {
	if m.IsZero() {
		return "none"
	}
	return hex.EncodeToString(m.derive("id", 8))
}

// derive returns n bytes that depend on the key and a purpose (RFC 5869).
func (m MasterKey) derive(purpose string, n int) []byte {
	derived, err := hkdf.Key(sha256.New, m.key[:], nil, "authserver master key: "+purpose, n)
	if err != nil { // n is far below HKDF's limit
		panic(err)
	}
	return derived
}

// Format implements fmt.Formatter.
func (m MasterKey) Format(f fmt.State, _ rune) { io.WriteString(f, "master key "+m.ID()) }

// LogValue implements slog.LogValuer.
func (m MasterKey) LogValue() slog.Value { return slog.StringValue("master key " + m.ID()) }

// sealed is a private key at rest: XChaCha20-Poly1305 with a random nonce in front.
type sealed struct {
	MasterKey  string `json:"master_key"` // id of the key that opens it
	Ciphertext []byte `json:"ciphertext"`
}

// seal encrypts a private key (PKCS#8 DER). binding ties the result to its place,
// so that records cannot be exchanged for one another.
func (m MasterKey) seal(private []byte, binding string) (*sealed, error) {
	aead, err := chacha20poly1305.NewX(m.derive("seal private keys", chacha20poly1305.KeySize))
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(private)+chacha20poly1305.Overhead)
	rand.Read(nonce)
	return &sealed{m.ID(), aead.Seal(nonce, nonce, private, []byte(binding))}, nil
}

func (m MasterKey) open(s *sealed, binding string) ([]byte, error) {
	if m.IsZero() || s.MasterKey != m.ID() {
		return nil, fmt.Errorf("%w: they were sealed with master key %s, the one given is %s", ErrMasterKey, s.MasterKey, m.ID())
	}
	aead, err := chacha20poly1305.NewX(m.derive("seal private keys", chacha20poly1305.KeySize))
	if err != nil {
		return nil, err
	}
	if len(s.Ciphertext) < chacha20poly1305.NonceSizeX {
		return nil, fmt.Errorf("%w: a sealed key is cut short", ErrMasterKey)
	}
	nonce, ciphertext := s.Ciphertext[:chacha20poly1305.NonceSizeX], s.Ciphertext[chacha20poly1305.NonceSizeX:]
	private, err := aead.Open(nil, nonce, ciphertext, []byte(binding))
	if err != nil {
		return nil, fmt.Errorf("%w: a sealed key was altered or belongs elsewhere", ErrMasterKey)
	}
	return private, nil
}
