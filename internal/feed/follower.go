package feed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"authserver/internal/intake"
)

// What Follower refuses. After any of them the connection is given up; a new one
// goes on from Cursor.
var (
	// ErrForged says that something was not signed by the issuer, or for this.
	ErrForged = errors.New("not signed by the issuer for this purpose")
	// ErrGap says that a frame does not continue what was applied: something was
	// lost, repeated, put in another order, or belongs to another connection.
	ErrGap = errors.New("the frame does not continue what was applied")
	// ErrSlow says that the connection took so long to begin that its frames look older
	// than they may be: how long they take cannot be told from how long the first one took.
	ErrSlow = errors.New("the connection began too slowly to tell how old its frames are")
)

// Verify checks the signature of a token by the issuer's keys.
type Verify func(*intake.Token) error

// Follower applies snapshots and frames to a Set and knows how fresh it is. One
// goroutine at a time calls its methods, but for Fresh and AsOf.
//
// Whoever stands between the server and the follower can cut it off and no more.
// What is dropped or reordered breaks the chain of cursors. What is replayed from
// another connection lacks the nonce or is of another stream. What is held back
// looks old: the first frame was signed after the request was sent, which gives an
// instant of the server's clock that was not earlier, and from there on the frames
// count that clock.
type Follower struct {
	Set    *Set
	issuer string
	cursor Cursor

	nonce  string        // awaited in the first frame
	sent   time.Time     // when the request left
	began  time.Duration // from then until the first frame came
	stream string        // of the connection; empty before its first frame
	origin time.Time     // not later than when the stream's clock stood at zero
	asOf   int64         // of the latest frame
	seen   time.Time     // when the request left or the latest frame came

	fresh atomic.Pointer[time.Time]
}

// NewFollower returns a follower that knows nothing yet.
func NewFollower(issuer string) *Follower {
	return &Follower{Set: NewSet(), issuer: issuer}
}

// Cursor returns where a connection goes on; it is empty before the first snapshot.
func (f *Follower) Cursor() Cursor { return f.cursor }

// Fresh reports whether the set holds everything that was revoked up to Lease ago.
func (f *Follower) Fresh(now time.Time) bool { return f.Age(now) <= Lease }

// Age returns how old the set's knowledge is. The monotonic clock stands still
// while a machine sleeps, and the wall clock can be set back: the longer time counts.
func (f *Follower) Age(now time.Time) time.Duration {
	fresh := f.fresh.Load()
	if fresh == nil {
		return 1<<63 - 1
	}
	return max(now.Sub(*fresh), now.Round(0).Sub(fresh.Round(0)))
}

// Load takes the answer of GET /revocations. The entries join those that are held:
// a snapshot that somebody replays cannot take any away.
func (f *Follower) Load(body []byte, verify Verify) error {
	var answer SnapshotBody
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("reading the snapshot: %w", err)
	}
	var snapshot Snapshot
	if err := f.open(answer.Snapshot, SnapshotType, verify, &snapshot); err != nil {
		return err
	}
	encoded, err := base64.RawURLEncoding.Strict().DecodeString(answer.Revoked)
	if err != nil {
		return fmt.Errorf("reading the snapshot: %w", err)
	}
	entries, err := DecodeEntries(encoded)
	switch {
	case err != nil:
		return fmt.Errorf("reading the snapshot: %w", err)
	case snapshot.Issuer != f.issuer || snapshot.Digest != Digest(encoded) || snapshot.Count != len(entries):
		return fmt.Errorf("the snapshot: %w", ErrForged)
	}
	f.Set.Add(entries)
	f.cursor, f.stream = snapshot.Cursor, ""
	return nil
}

// Connect begins a connection: nonce is what its request carries and sent when the
// request was sent, at the latest.
func (f *Follower) Connect(nonce string, sent time.Time) {
	f.nonce, f.sent, f.seen, f.stream = nonce, sent, sent, ""
}

// maxStep bounds how far the wall clock may get ahead of the monotonic one from frame
// to frame: that one stands still while a machine sleeps, and what came before looks
// new when it wakes.
const maxStep = 100 * time.Millisecond

// Apply takes one frame, as it came and when, and returns what it said; beside ErrSlow as
// well, since it counts.
func (f *Follower) Apply(raw string, received time.Time, verify Verify) (Frame, error) {
	var frame Frame
	if err := f.open(raw, FrameType, verify, &frame); err != nil {
		return Frame{}, err
	}
	first := f.stream == ""
	slept := received.Round(0).Sub(f.seen.Round(0)) - received.Sub(f.seen)
	f.seen = received
	switch {
	case slept > maxStep:
		return Frame{}, fmt.Errorf("%w: it may have waited while this machine slept, or had its clock set forward, for %s", ErrGap, slept)
	case frame.Issuer != f.issuer || frame.Stream == "":
		return Frame{}, fmt.Errorf("the frame: %w", ErrForged)
	case first && (f.nonce == "" || frame.Nonce != f.nonce):
		return Frame{}, fmt.Errorf("%w: it does not answer the request", ErrGap)
	case !first && (frame.Nonce != "" || frame.Stream != f.stream || frame.AsOf < f.asOf):
		return Frame{}, fmt.Errorf("%w: it is of another connection or out of order", ErrGap)
	case frame.After != f.cursor:
		return Frame{}, fmt.Errorf("%w: it continues %s, the last was %s", ErrGap, frame.After, f.cursor)
	}
	if first {
		f.stream, f.nonce, f.origin = frame.Stream, "", f.sent.Add(-milliseconds(frame.Clock))
		f.began = received.Sub(f.sent)
	}
	f.Set.Add(frame.Revoked)
	f.cursor, f.asOf = frame.Cursor, frame.AsOf
	if frame.AsOf < 0 {
		return frame, nil
	}
	f.confirm(received)
	// The first frame may itself have been long on its way; the next one tells.
	if age := received.Sub(f.origin.Add(milliseconds(f.asOf))); !first && age > Lease && age-f.began <= Lease {
		return frame, ErrSlow
	}
	return frame, nil
}

// confirm moves the freshness on, by the clock that is read now, so that a step of
// the clock on the wall matters until the next frame only.
func (f *Follower) confirm(received time.Time) {
	age := received.Sub(f.origin.Add(milliseconds(f.asOf)))
	if age < 0 { // this clock is slower than the server's, or has slept
		f.origin, age = f.origin.Add(age), 0
	}
	if fresh := received.Add(-age); f.fresh.Load() == nil || fresh.After(*f.fresh.Load()) {
		f.fresh.Store(&fresh)
	}
}

// open reads a JWS of the issuer. A key that was revoked signs nothing any more.
func (f *Follower) open(raw, typ string, verify Verify, into any) error {
	token, err := intake.Parse(raw)
	if err != nil {
		return err
	}
	if !token.HasType(typ) {
		return fmt.Errorf("typ is %q: %w", token.Type, ErrForged)
	}
	if _, revoked := f.Set.Revoked(Subjects{keys: [len(levels)]Key{KeyOf(KeyID, token.KeyID)}}); revoked {
		return fmt.Errorf("the key was revoked: %w", ErrForged)
	}
	if err := verify(token); err != nil {
		return fmt.Errorf("%w: %w", ErrForged, err)
	}
	return intake.Decode(token.Payload, into)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
