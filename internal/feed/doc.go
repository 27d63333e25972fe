// Package feed is the revocation feed's wire format, shared by the server that
// sends it and the verifier that follows it, and the set of live revocations that
// both hold.
//
// A revocation travels as 16 bytes, an Entry: a Key that stands for what was
// revoked, for how long it matters, and up to which iat. Entries come in two
// shapes, both signed by the issuer's keys:
//
//   - a Snapshot holds all live entries at one place in the log, the Cursor;
//   - a Frame holds the entries between two cursors: the one it continues After,
//     and its own. A frame without entries is a heartbeat.
//
// Whoever follows the feed loads a snapshot, connects with its cursor, and applies
// the frames; see Follower, which refuses gaps, replays and delays. Clocks on the
// wall play no part: the server counts milliseconds on its monotonic clock, and
// the first frame of a connection answers a nonce, which ties that clock to the
// follower's own.
package feed

import "time"

// Media types in the typ header of the feed's JWSs, so that nothing else that the
// issuer signs passes for one of them.
const (
	FrameType    = "revocations+jwt"
	SnapshotType = "revocation-snapshot+jwt"
	ReceiptType  = "revocation-receipt+jwt"
)

// The feed's times.
const (
	// Lease is how long a verifier may accept tokens offline after the instant up
	// to which it knows all revocations.
	Lease = time.Second
	// Heartbeat is the longest pause between two frames. A lease of a second needs
	// more than one frame a second to live on.
	Heartbeat = 250 * time.Millisecond
	// Gather is the shortest time between two frames: what is revoked in the
	// meantime travels together.
	Gather = 40 * time.Millisecond
)

// MaxFrame is how many entries a frame has at most, so that it stays below the
// longest token that is looked at.
const MaxFrame = 400

// MaxSnapshot is how many bytes of a snapshot are read at most: three million revocations.
const MaxSnapshot = 64 << 20
