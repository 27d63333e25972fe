package feed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Cursor names one event of the log: its position, a dot, and a digest of it. All
// servers of one store give one event one cursor, so a follower can go on at any
// of them; a store that was set back gives another digest, so nobody goes on where
// the past is not the same. Origin comes before the first event.
type Cursor string

// Origin is the cursor of a log without events.
const Origin Cursor = "0"

// CursorOf returns the cursor of an event.
func CursorOf(position uint64, event []byte) Cursor {
	digest := sha256.Sum256(event)
	return Cursor(strconv.FormatUint(position, 10) + "." + base64.RawURLEncoding.EncodeToString(digest[:12]))
}

// Position returns the position in the cursor.
func (c Cursor) Position() uint64 {
	digits, _, _ := strings.Cut(string(c), ".")
	position, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return position
}

// Frame says what was revoked between two cursors. It is the payload of a JWS of
// type FrameType. Times are milliseconds on the monotonic clock of the stream.
type Frame struct {
	Issuer string `json:"iss"`
	Stream string `json:"stream"` // the run of the server that signed it
	After  Cursor `json:"after"`  // what it continues; equal to Cursor in a heartbeat
	Cursor Cursor `json:"cursor"`
	// AsOf is an instant: every revocation that was acknowledged before it is in the
	// frames up to this one. It stands still while the server cannot read its store.
	// Below zero it is no instant: more frames follow at once, and one of them has it.
	AsOf    int64   `json:"as_of"`
	Revoked Entries `json:"revoked,omitempty"`
	// Ack asks followers that hold a lease to acknowledge the cursor at once.
	Ack bool `json:"ack,omitempty"`

	// The first frame of a connection has these.
	Nonce string `json:"nonce,omitempty"` // the request's
	Clock int64  `json:"clock,omitempty"` // when it was signed
	Lease string `json:"lease,omitempty"` // what the follower acknowledges with, if it has a lease
}

// Snapshot describes all live entries at one cursor. It is the payload of a JWS of
// type SnapshotType.
type Snapshot struct {
	Issuer string `json:"iss"`
	Cursor Cursor `json:"cursor"`
	Count  int    `json:"count"`
	Digest string `json:"sha256"` // of the encoded entries, in base64url
}

// SnapshotBody is what GET /revocations answers.
type SnapshotBody struct {
	Snapshot string `json:"snapshot"` // JWS
	Revoked  string `json:"revoked"`  // the entries as in Entries, in base64url
}

// Digest returns the digest of encoded entries as a Snapshot has it.
func Digest(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Entries are entries on the wire: base64url of 16 bytes for each, big-endian: first
// the keys of all, eight bytes each, then four of every TTL, then four of every Before
// (all ones: whatever the iat). In columns they compress best.
type Entries []Entry

const entrySize = 16

// Encode returns the bytes of the entries, before base64url.
func (e Entries) Encode() []byte {
	encoded := make([]byte, 0, entrySize*len(e))
	for _, entry := range e {
		encoded = binary.BigEndian.AppendUint64(encoded, uint64(entry.Key))
	}
	for _, entry := range e {
		encoded = binary.BigEndian.AppendUint32(encoded, entry.TTL)
	}
	for _, entry := range e {
		encoded = binary.BigEndian.AppendUint32(encoded, entry.Before)
	}
	return encoded
}

// DecodeEntries is the opposite of Encode.
func DecodeEntries(encoded []byte) (Entries, error) {
	if len(encoded)%entrySize != 0 {
		return nil, fmt.Errorf("the entries have %d bytes, which is no multiple of %d", len(encoded), entrySize)
	}
	entries := make(Entries, len(encoded)/entrySize)
	keys, rest := encoded[:8*len(entries)], encoded[8*len(entries):]
	ttls, befores := rest[:4*len(entries)], rest[4*len(entries):]
	for i := range entries {
		entries[i] = Entry{
			Key:    Key(binary.BigEndian.Uint64(keys[8*i:])),
			TTL:    binary.BigEndian.Uint32(ttls[4*i:]),
			Before: binary.BigEndian.Uint32(befores[4*i:]),
		}
		if entries[i].Key == 0 {
			return nil, errors.New("an entry has no key")
		}
	}
	return entries, nil
}

// MarshalText implements encoding.TextMarshaler.
func (e Entries) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, e.Encode()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Entries) UnmarshalText(text []byte) error {
	encoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("the entries are not in base64url: %w", err)
	}
	*e, err = DecodeEntries(encoded)
	return err
}
