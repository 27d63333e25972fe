package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// ErrMasterKey says that the master key is missing or not the one that sealed the
// stored keys.
var ErrMasterKey = errors.New("wrong or missing master key")

const masterKeyBytes = 32

// MasterKey seals private keys at rest, and other keys are derived from it. It
// does not show itself when it is formatted, logged or encoded. The zero MasterKey
// is none.
type MasterKey struct {
	// bytes is a closure because reflection does not look into one. fmt asks no
	// method of an unexported field, and follows its pointers for %s.
	bytes func() []byte
}

func masterKeyOf(key []byte) MasterKey { return MasterKey{func() []byte { return key }} }

// NewMasterKey returns a random master key.
func NewMasterKey() (MasterKey, error) {
	key := make([]byte, masterKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return MasterKey{}, fmt.Errorf("making a master key: %w", err)
	}
	return masterKeyOf(key), nil
}

// ParseMasterKey reads the text of a master key: one line of 64 hexadecimal digits,
// or of base64 (standard or URL alphabet, padded or not), that is 32 bytes.
func ParseMasterKey(text []byte) (MasterKey, error) {
	line := bytes.TrimSpace(text)
	const hint = "it is 32 bytes in base64 or hex on one line (make one with `openssl rand -base64 32`)"
	switch {
	case len(line) == 0:
		return MasterKey{}, errors.New("the master key is empty; " + hint)
	case bytes.ContainsAny(line, "\r\n"):
		return MasterKey{}, errors.New("the master key has more than one line; " + hint)
	}
	decoded, err := decodeMasterKey(line)
	if err != nil {
		return MasterKey{}, fmt.Errorf("the master key has %d characters and is neither hex nor base64; %s", len(line), hint)
	}
	if len(decoded) != masterKeyBytes {
		return MasterKey{}, fmt.Errorf("the master key has %d bytes; %s", len(decoded), hint)
	}
	return masterKeyOf(decoded), nil
}

func decodeMasterKey(line []byte) ([]byte, error) {
	if len(line) == 2*masterKeyBytes { // base64 of 64 characters would be 48 bytes
		return hex.AppendDecode(nil, line)
	}
	line = bytes.TrimRight(line, "=")
	encoding := base64.RawStdEncoding
	if bytes.ContainsAny(line, "-_") {
		encoding = base64.RawURLEncoding
	}
	return encoding.Strict().AppendDecode(nil, line)
}

// Text returns the key itself as the line that ParseMasterKey reads, to be written
// to a file of mode 0600. Nothing else gives the key away.
func (m MasterKey) Text() []byte {
	return append(base64.StdEncoding.AppendEncode(nil, m.bytes()), '\n')
}

// IsZero reports whether m is no key.
func (m MasterKey) IsZero() bool { return m.bytes == nil }

// ID names the key without giving it away: 16 hexadecimal digits, or "none".
func (m MasterKey) ID() string {
	if m.IsZero() {
		return "none"
	}
	return hex.EncodeToString(m.Derive("id")[:8])
}

// Derive returns 32 bytes for a purpose, from which neither the master key nor
// those of another purpose can be told (HKDF, RFC 5869). It panics when m is zero.
func (m MasterKey) Derive(purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, m.bytes(), nil, "authserver master key: "+purpose, 32)
	if err != nil {
		panic(err) // asked for more than 8160 bytes
	}
	return derived
}

// masterKeys are all that were given. The first one seals, all of them open.
type masterKeys []MasterKey

func (m masterKeys) first() MasterKey { return m[0] }

// named returns the one with an id, or an error that wraps ErrMasterKey.
func (m masterKeys) named(id string) (MasterKey, error) {
	var given []string
	for _, master := range m {
		if master.IsZero() {
			continue
		}
		if master.ID() == id {
			return master, nil
		}
		given = append(given, master.ID())
	}
	if given == nil {
		return MasterKey{}, fmt.Errorf("%w: the stored keys were sealed with master key %s, and none was given", ErrMasterKey, id)
	}
	return MasterKey{}, fmt.Errorf("%w: the stored keys were sealed with master key %s, and %s was given", ErrMasterKey, id, strings.Join(given, ", "))
}

// ParseMasterKeys reads a file of master keys, one on each line: the first one
// seals, all of them open. Empty lines are skipped.
func ParseMasterKeys(text []byte) ([]MasterKey, error) {
	var masters []MasterKey
	for number, line := range bytes.Split(text, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		master, err := ParseMasterKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		if slices.ContainsFunc(masters, func(m MasterKey) bool { return m.ID() == master.ID() }) {
			return nil, fmt.Errorf("line %d: the same master key is on two lines", number+1)
		}
		if masters = append(masters, master); len(masters) > maxMasterKeys {
			return nil, fmt.Errorf("there are more than %d master keys", maxMasterKeys)
		}
	}
	if len(masters) == 0 {
		_, err := ParseMasterKey(nil)
		return nil, err
	}
	return masters, nil
}

// maxMasterKeys bounds what a value in a box is tried with.
const maxMasterKeys = 8

// String returns the key's name, not the key; the other formatting methods do too.
func (m MasterKey) String() string { return "master key " + m.ID() }

// Format implements fmt.Formatter for all verbs.
func (m MasterKey) Format(f fmt.State, _ rune) { io.WriteString(f, m.String()) }

// LogValue implements slog.LogValuer.
func (m MasterKey) LogValue() slog.Value { return slog.StringValue(m.String()) }

// MarshalText implements encoding.TextMarshaler, and with it JSON.
func (m MasterKey) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
