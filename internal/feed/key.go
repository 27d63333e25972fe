package feed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"authserver/internal/accesstoken"
)

// Level is what a revocation ends: the claim or header member that all tokens
// which it ends have in common.
type Level string

// The levels. Subject, Client and Issuer end what was issued up to an instant, the
// others end everything.
const (
	Token   Level = "jti"
	Grant   Level = "grant_id"
	Session Level = "sid"
	Subject Level = "sub"
	Client  Level = "client_id"
	KeyID   Level = "kid"
	Issuer  Level = "iss" // all tokens of the issuer
	// One epoch of a client or a subject; see EpochOf.
	ClientEpoch  Level = "client_epoch"
	SubjectEpoch Level = "sub_epoch"
)

// EpochOf is the value at the levels ClientEpoch and SubjectEpoch: whose epoch it is,
// and its number. Each time that all of a client or a subject is ended, the next epoch
// begins, and a token names the one that it belongs to. So it does not matter by whose
// clock it was issued.
func EpochOf(id string, number uint64) string {
	if id == "" {
		return ""
	}
	return id + "\x00" + strconv.FormatUint(number, 10)
}

// Key stands for one revoked thing: the first eight bytes, big-endian, of the
// SHA-256 of the level's name, a zero byte and the value. Two things share a key
// by chance once in 2^64 tries, and then a token too many is refused, never one
// too few. Zero is no key.
type Key uint64

// KeyOf returns the key of a value at a level, and zero for an empty value.
func KeyOf(level Level, value string) Key {
	if value == "" {
		return 0
	}
	var space [320]byte
	text := append(space[:0], level...)
	text = append(text, 0)
	text = append(text, value...)
	sum := sha256.Sum256(text)
	return max(Key(binary.BigEndian.Uint64(sum[:8])), 1)
}

// Subjects are what a revocation could end an access token by: its keys at every
// level, and when it was issued.
type Subjects struct {
	keys     [len(levels)]Key
	issuedAt uint32
}

// MarshalText implements encoding.TextMarshaler: base64url of the keys and the iat.
func (s Subjects) MarshalText() ([]byte, error) {
	var encoded []byte
	for _, key := range s.keys {
		encoded = binary.BigEndian.AppendUint64(encoded, uint64(key))
	}
	return base64.RawURLEncoding.AppendEncode(nil, binary.BigEndian.AppendUint32(encoded, s.issuedAt)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. Levels that were added since
// have no key.
func (s *Subjects) UnmarshalText(text []byte) error {
	encoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil || len(encoded) < 4 || len(encoded)%8 != 4 || len(encoded) > 8*len(levels)+4 {
		return errors.New("a token's keys are not as they are written")
	}
	*s = Subjects{issuedAt: binary.BigEndian.Uint32(encoded[len(encoded)-4:])}
	for i := range len(encoded) / 8 {
		s.keys[i] = Key(binary.BigEndian.Uint64(encoded[8*i:]))
	}
	return nil
}

var levels = [...]Level{Token, Grant, Session, Subject, Client, KeyID, Issuer, ClientEpoch, SubjectEpoch}

// SubjectsOf returns the keys of an access token that kid signed.
func SubjectsOf(kid string, claims *accesstoken.Claims) Subjects {
	values := [len(levels)]string{claims.ID, claims.GrantID, claims.SessionID, claims.Subject, claims.ClientID, kid, claims.Issuer,
		EpochOf(claims.ClientID, claims.ClientEpoch), EpochOf(claims.Subject, claims.SubjectEpoch)}
	s := Subjects{issuedAt: seconds(claims.IssuedAt)}
	for i, level := range levels {
		s.keys[i] = KeyOf(level, values[i])
	}
	return s
}

// EndedBy reports whether an entry ends the token, and at which level.
func (s Subjects) EndedBy(e Entry) (Level, bool) {
	for i, key := range s.keys {
		if key != 0 && key == e.Key && s.issuedAt <= e.Before {
			return levels[i], true
		}
	}
	return "", false
}

// seconds fits a time in seconds since 1970 into 32 bits.
func seconds(t int64) uint32 { return uint32(min(max(t, 0), always)) }

// NewEntry returns the entry of a revocation that matters for ttl and, at the levels
// Subject, Client and Issuer, ends what was issued until before, in seconds since 1970.
func NewEntry(level Level, value string, ttl time.Duration, before int64) Entry {
	e := Entry{Key: KeyOf(level, value), TTL: seconds(int64((ttl + time.Second - 1) / time.Second)), Before: always}
	switch level {
	case Subject, Client, Issuer:
		e.Before = seconds(before)
	}
	return e
}
