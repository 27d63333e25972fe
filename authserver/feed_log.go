package authserver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"authserver/internal/feed"
	"authserver/keys"
	"authserver/store"
)

const (
	tailWait    = 100 * time.Millisecond // how long one read of the log waits for an event
	tailRetry   = 100 * time.Millisecond // pause after a read that failed
	expireEvery = time.Minute
	lookEvery   = time.Second // whether the latest event is still there
	maxHistory  = 16384       // entries that a follower can be behind without needing a snapshot
)

// revocationFeed follows the log, holds what is revoked, and hands it on. One
// goroutine reads the log, another makes frames of what it read; each connection
// has its own, which waits for the next frame.
type revocationFeed struct {
	server *Server
	set    *feed.Set
	stream string    // names this run
	began  time.Time // when the stream's clock stood at zero

	mu       sync.Mutex
	read     reading
	stated   int64 // the latest AsOf of any frame
	expected map[string]chan *fence
	unsent   []step      // read, and in no frame yet
	history  []step      // in frames, the oldest first
	before   feed.Cursor // of the event before history's first; events that the log had dropped already do not count
	retained int         // entries in history
	latest   *sentFrame

	finishing finisher
	wake      chan struct{} // something is unsent
	sent      atomic.Uint64 // the position of latest
	streams   atomic.Int64
	ended     chan struct{} // closed when Run has ended
	snapshot  snapshotCache

	box         keys.Box // seals leases
	leases      *leases
	waiting     chan struct{} // holds one for each caller of enforced
	registering sync.Mutex
	registered  time.Time // the last time, guarded by registering
}

// reading is how far the log was read.
type reading struct {
	position store.Position
	asOf     time.Time // what was appended before is in the set; zero before the first time
}

// step is one event of the log.
type step struct {
	cursor  feed.Cursor
	entries feed.Entries
	fence   bool
}

func newRevocationFeed(s *Server) (*revocationFeed, error) {
	box, err := s.keys.Box("feed lease")
	if err != nil {
		return nil, err
	}
	return &revocationFeed{
		box: box, leases: newLeases(), waiting: make(chan struct{}, maxWaiting), expected: make(map[string]chan *fence),
		server: s, set: feed.NewSet(), stream: newID(), began: time.Now(),
		before: feed.Origin, latest: &sentFrame{cursor: feed.Origin, ready: make(chan struct{})},
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}, nil
}

// logReader reads a log of the store, and after trouble from its beginning again: a
// store that failed over may have lost its latest events and put others where they
// were.
type logReader struct {
	store  store.Store
	name   string
	after  store.Position
	looked time.Time // when it was last seen that the latest event is still there
}

// next waits for further events, tailWait at most. All events up to asOf are then
// read; it is zero when there may be more of them.
func (l *logReader) next(ctx context.Context) (events []store.Event, asOf time.Time, err error) {
	if l.after > 0 && time.Since(l.looked) > lookEvery {
		l.looked = time.Now()
		if l.setBack(ctx) {
			l.after = 0
		}
	}
	began := time.Now()
	if events, err = l.store.Tail(ctx, l.name, l.after, tailWait); err != nil {
		l.after = 0
		return nil, time.Time{}, err
	}
	if len(events) > 0 {
		l.after = events[len(events)-1].Position
	}
	return events, completeAsOf(began, len(events)), nil
}

// setBack reports whether the latest event is gone: it was dropped for its age,
// and then nothing is left to read, or the store has lost it. A driver that connects
// again by itself, to a store that failed over, shows no other trouble.
func (l *logReader) setBack(ctx context.Context) bool {
	events, err := l.store.Tail(ctx, l.name, l.after-1, 0)
	return err != nil || len(events) == 0 || events[0].Position != l.after
}

// follow reads the log until ctx ends. What it knows grows only.
func (f *revocationFeed) follow(ctx context.Context) {
	log := logReader{store: f.server.store, name: revocationLog, looked: time.Now()}
	trouble, expired := false, time.Now()
	for ctx.Err() == nil {
		events, asOf, err := log.next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !trouble {
				f.server.log.Error("the log of revocations cannot be read; verifiers are told so", "error", err)
			}
			trouble = true
			pause(ctx, tailRetry)
			continue
		}
		if trouble {
			f.server.log.Info("the log of revocations is read again")
			trouble = false
		}
		f.take(events, asOf)
		if time.Since(expired) > expireEvery {
			expired = time.Now()
			f.server.metrics.revocations.Set(float64(f.set.Expire()))
		}
	}
}

// completeAsOf is the instant up to which a read that began at an instant has seen
// all: its beginning. If it waited in vain, the store looked for as long as it was
// told to. After a full answer there may be more.
func completeAsOf(began time.Time, events int) time.Time {
	switch {
	case events >= store.MaxTail:
		return time.Time{}
	case events == 0 && time.Since(began) >= tailWait:
		return began.Add(tailWait)
	}
	return began
}

// take puts events into the set, and on the way to the verifiers what is new.
func (f *revocationFeed) take(events []store.Event, asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.read.asOf.IsZero()
	for _, event := range events {
		r, entries, understood := f.server.entries(event.Value)
		if event.Position <= f.read.position && !slices.ContainsFunc(entries, func(e feed.Entry) bool { return !f.set.Holds(e) }) {
			continue // read before
		}
		if !understood {
			f.server.log.Error("an event in the log of revocations is of a later version or damaged: all tokens issued before it are refused",
				"event", "revocation", "reason", "unreadable", "before", r.At, "position", uint64(event.Position))
		}
		if r.Grant != "" {
			f.finishing.add([]string{f.server.grants.Key(r.Grant)})
		}
		if r.Session != "" {
			f.finishing.addSessions([]string{r.Session})
		}
		if first && r.Subject != "" { // who ended it may have been killed before it had deleted all
			f.finishing.addSubject(r.Subject, epoch{NotBefore: r.Before, number: r.Epoch})
		}
		// What another instance has ended is asked for anew, not believed for its second.
		if r.Subject != "" {
			f.server.users.changed(r.Subject)
		}
		if r.Client != "" {
			f.server.clients.changed(r.Client)
		}
		f.set.Add(entries)
		f.unsent = append(f.unsent, step{feed.CursorOf(uint64(event.Position), event.Value), entries, r.Fence != ""})
		f.read.position = max(f.read.position, event.Position)
		if r.Fence != "" {
			f.meet(r, uint64(event.Position))
		}
	}
	if asOf.After(f.read.asOf) {
		f.read.asOf = asOf
	}
	if first {
		f.passOver()
	}
	if len(f.unsent) > 0 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// passOver takes what was read as sent, while the log is read for the first time:
// until that is done nobody follows, so that nobody waits for frames of it. The
// caller holds f.mu.
func (f *revocationFeed) passOver() {
	if len(f.unsent) == 0 {
		return
	}
	f.remember(f.unsent)
	cursor := f.unsent[len(f.unsent)-1].cursor
	f.unsent = nil
	if !f.read.asOf.IsZero() {
		f.stated = f.clock(f.read.asOf)
	}
	f.latest = &sentFrame{cursor: cursor, asOf: f.stated, ready: make(chan struct{})}
	f.sent.Store(max(f.sent.Load(), cursor.Position()))
}

// known reports whether the log was read to its end once.
func (f *revocationFeed) known() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.read.asOf.IsZero()
}

// asOf is the instant up to which all revocations are known here.
func (f *revocationFeed) asOf() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read.asOf
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
