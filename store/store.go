// Package store says what authserver needs of a database: small records that
// expire by themselves, compare-and-swap, expiring indexes, counters and an
// append-only log. It imports the standard library only; each implementation
// lives in a package of its own (boltstore, redisstore) and is held to the
// contract below by the raced suite in storetest.
//
// What the methods promise together:
//
//   - Each method is one atomic operation and, over a network, one round trip.
//     There are no transactions and no locks that outlive a call. Do makes one
//     round trip of several where the database can.
//   - When a method returns nil, its effect is as durable as the store can be:
//     fsynced (boltstore), or what the database's own configuration gives.
//   - An error that is none of this package's sentinels means that the outcome
//     is unknown: the effect may or may not have happened. Callers answer "try
//     again later" and never draw a conclusion about the data from it.
//   - A driver may send an operation twice when the first answer was lost. An
//     implementation never takes its own first attempt for somebody else's:
//     Create and Swap carry an identity of the call for that.
//   - Keys, index names, members and log names are 1 to 512 bytes; values and
//     events are at most 64 KiB. Anything else is ErrInvalid and nothing is sent.
//   - A record may be a member of a family, which is found by the family's name: see
//     MemberKey. It is a record like any other. All of a family are in one place, so
//     it is for what belongs together, such as the grants of a user.
//   - Values are opaque bytes. Callers store hashes or sealed bytes of secrets,
//     never the secrets.
package store

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"
)

// Limits of what a store takes; see ErrInvalid.
const (
	MaxKey   = 512      // bytes of a key, index, member or log name
	MaxValue = 64 << 10 // bytes of a value or event
	MaxTail  = 1000     // events that one Tail returns at most
)

// Forever is the expiry of a record that stays until it is deleted. The zero
// time is refused as ErrInvalid, so that nothing lives forever by forgetfulness.
var Forever = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// KeepAll as the keep of Append never drops an event.
const KeepAll = time.Duration(1<<63 - 1)

// The answers that are decisions and not trouble.
var (
	ErrNotFound = errors.New("store: no such record")
	ErrExists   = errors.New("store: the record exists already")
	ErrConflict = errors.New("store: the record has another version")
	ErrInvalid  = errors.New("store: invalid argument")
)

// UnavailableError is an error, with an outcome that is unknown as with any other, that may
// pass by itself: the database is not there yet, is busy or slow. Implementations make one
// of what they can tell from a mistake in how they are configured.
type UnavailableError struct {
	Why string // the same words for the same trouble
	Err error  // or nil
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.Why
	}
	return e.Why + ": " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Record is the state of one key at one instant.
type Record struct {
	// Version is 1 after Create and grows by one with each Swap. It is 0 in the
	// zero Record, which stands for a key that does not exist or has expired.
	Version uint64
	// Value is the caller's to keep.
	Value []byte
	// Changed is when this version was written, by the store's clock, in
	// milliseconds resolution. Every reader of one version sees the same instant.
	Changed time.Time
	// Expires is when the record ceases to exist, in milliseconds resolution.
	Expires time.Time
	// Now is the store's clock when Swap answered, never before Changed: their
	// difference is the age of this version, whatever clock the caller has. Other
	// methods leave it zero.
	Now time.Time
}

// Exists reports whether r is a live record.
func (r Record) Exists() bool { return r.Version != 0 }

// Clock is implemented by stores that have a clock of their own.
type Clock interface {
	// Clock returns the store's clock.
	Clock(ctx context.Context) (time.Time, error)
}

// Member is part of an index until it expires, in milliseconds resolution.
type Member struct {
	Name    string
	Expires time.Time
}

// Position is a place in a log. Positions grow with each event and are never
// reused; zero is before the first event. Nothing else may be read from one.
type Position uint64

// Event is one entry of a log.
type Event struct {
	Position Position
	Value    []byte
}

// Store is the contract. Implementations are safe for concurrent use. Every
// method honours ctx: when ctx ends first, the error wraps ctx's and the outcome
// is unknown.
type Store interface {
	// Get returns one Record per key, in the order of keys; the zero Record for a
	// key that does not exist or has expired. Records of different keys need not
	// be of one instant, but each was current at some instant during the call.
	// All keys travel in one round trip.
	Get(ctx context.Context, keys ...string) ([]Record, error)

	// Create makes a record with version 1, or returns ErrExists. Of any number
	// of concurrent callers exactly one succeeds. An expired record does not exist.
	Create(ctx context.Context, key string, value []byte, expires time.Time) error

	// Swap replaces value and expiry of the record if its version is the given
	// one, and returns the record as it now is: version+1, Changed now. A nil
	// value keeps the present value. If the version differs, Swap returns the
	// current record beside ErrConflict and changes nothing; if there is no
	// record, ErrNotFound. An expires that has passed ends the record.
	Swap(ctx context.Context, key string, version uint64, value []byte, expires time.Time) (Record, error)

	// Delete removes the record if it exists. It is no error if it does not.
	Delete(ctx context.Context, key string) error

	// Members yields the live records of a family in no particular order: each that
	// was one all the while at least once, each at most a few times, as it was at some
	// instant during the call. It reads page by page, one round trip each, and ends
	// after yielding an error.
	Members(ctx context.Context, family string) iter.Seq2[FamilyMember, error]

	// Add adds n to a counter and returns its new value. A counter that does not
	// exist is zero and lives for window (at least a millisecond) from its first
	// Add; later calls do not prolong it. n may be negative or zero. If an answer is lost, n may be
	// counted twice: counters are for throttling, where that errs on the safe side.
	// Counters share no keys with records.
	Add(ctx context.Context, key string, n int64, window time.Duration) (int64, error)

	// Link makes member part of index until expires; if it is one already, until
	// the later of both instants. An index exists while it has members.
	Link(ctx context.Context, index, member string, expires time.Time) error

	// Unlink removes member from index, if it is there.
	Unlink(ctx context.Context, index, member string) error

	// Linked yields the unexpired members of index that come after one, all for the
	// zero Member. The order is the store's own, is the same for all who ask, and a
	// member that is linked anew only moves backwards in it: so one that was linked
	// all the while is yielded at least once, also to who goes on later, or
	// elsewhere, after the last that he has seen; each at most a few times. It
	// reads page by page, one round trip each, and ends after yielding an error.
	Linked(ctx context.Context, index string, after Member) iter.Seq2[Member, error]

	// Append adds an event to the end of log and returns its position. Events
	// older than keep are dropped; all callers of one log give the same keep. If
	// an answer is lost, the event may be in the log twice.
	Append(ctx context.Context, log string, event []byte, keep time.Duration) (Position, error)

	// Tail returns the events after a position, oldest first, MaxTail at most,
	// and never skips one that is still kept. If there are none it waits up to
	// wait for one, and then returns none and no error.
	Tail(ctx context.Context, log string, after Position, wait time.Duration) ([]Event, error)

	// Ping reports whether the store answers and takes writes.
	Ping(ctx context.Context) error

	// Close flushes and releases the store. Calls after Close fail.
	Close() error
}

// FamilyMember is one record of a family.
type FamilyMember struct {
	Name string
	Record
}

// MemberKey is the key of a record that is a member of a family. Neither part is
// empty, and the family's name has no NUL.
func MemberKey(family, member string) string { return family + "\x00" + member }

// CutMember returns the parts of a MemberKey; ok is false for any other key.
func CutMember(key string) (family, member string, ok bool) {
	family, member, _ = strings.Cut(key, "\x00")
	return family, member, family != "" && member != ""
}

// CheckFamily returns ErrInvalid, wrapped with what is wrong, unless name can be a
// family's.
func CheckFamily(name string) error {
	if err := CheckKey(name); err != nil {
		return err
	}
	if strings.Contains(name, "\x00") {
		return invalid("the name of a family has no NUL")
	}
	return nil
}

// CheckKey returns ErrInvalid, wrapped with what is wrong, unless name can be a
// key, index, member or log name.
func CheckKey(name string) error {
	if len(name) == 0 || len(name) > MaxKey {
		return invalid("a name has 1 to 512 bytes")
	}
	return nil
}

// CheckValue returns ErrInvalid, wrapped with what is wrong, unless value can be
// stored until expires.
func CheckValue(value []byte, expires time.Time) error {
	if len(value) > MaxValue {
		return invalid("a value has at most 64 KiB")
	}
	if expires.IsZero() {
		return invalid("an expiry is set; store.Forever says never")
	}
	return nil
}

type invalidError string

func invalid(why string) error { return invalidError(why) }

func (e invalidError) Error() string { return ErrInvalid.Error() + ": " + string(e) }
func (e invalidError) Unwrap() error { return ErrInvalid }
