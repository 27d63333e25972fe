package authserver

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/internal/feed"
)

// lease is the promise of one verifier to accept nothing offline that the feed has
// not confirmed within feed.Lease. It lives as long as the verifier may still believe
// in the last frame that was written to it.
type lease struct {
	id    string
	name  string        // for people
	until atomic.Int64  // the end of that belief, on the stream's clock; 0 before its first frames, negative when they never came
	start atomic.Uint64 // the position that its first frames take it to; 0 before
	acked atomic.Uint64 // the position that the verifier said it has applied
}

// leases are the verifiers connected here.
type leases struct {
	mu       sync.Mutex
	held     map[string]*lease
	joined   uint64                   // counts those that were ever held
	unleased map[*http.Request]string // names of those that follow without a lease
	foreign  map[string]foreignAck    // acknowledgements for leases of other instances, by lease
}

// foreignAck came here because a balancer does not know who holds which lease.
type foreignAck struct {
	position uint64
	at       time.Time
}

const (
	maxForeign  = 20000
	foreignKept = 5 * time.Second
	maxVerifier = 128 // bytes of a verifier's name
)

func newLeases() *leases {
	return &leases{held: make(map[string]*lease), unleased: make(map[*http.Request]string), foreign: make(map[string]foreignAck)}
}

// join notes a connection. It returns a lease if the request asks for one, and what
// the verifier acknowledges with; leave ends it.
func (f *revocationFeed) join(r *http.Request) (l *lease, token string, err error) {
	name := f.nameOf(r)
	if r.URL.Query().Get("lease") == "" {
		f.leases.mu.Lock()
		f.leases.unleased[r] = name
		f.leases.mu.Unlock()
		return nil, "", nil
	}
	// Whoever waits for all verifiers has to know of this instance first.
	if err := f.register(r.Context()); err != nil {
		return nil, "", err
	}
	l = &lease{id: newID(), name: name}
	f.leases.mu.Lock()
	f.leases.hold(l)
	f.leases.mu.Unlock()
	return l, base64.RawURLEncoding.EncodeToString(f.box.Seal([]byte(l.id), nil)), nil
}

// hold adds a lease. The caller holds l.mu.
func (l *leases) hold(one *lease) {
	l.held[one.id] = one
	l.joined++
}

// any reports whether there is a lease that has not run out.
func (l *leases) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held) > 0
}

// leave forgets a connection; its lease when that has run out.
func (f *revocationFeed) leave(r *http.Request, l *lease) {
	f.leases.mu.Lock()
	defer f.leases.mu.Unlock()
	delete(f.leases.unleased, r)
	if l == nil {
		return
	}
	l.until.CompareAndSwap(0, -1) // it never began, and believes nothing
	left := time.Duration(l.until.Load()-f.clock(time.Now())) * time.Millisecond
	time.AfterFunc(max(left, 0), func() {
		f.leases.mu.Lock()
		defer f.leases.mu.Unlock()
		delete(f.leases.held, l.id)
	})
}

// nameOf says who follows, as well as it is known.
func (f *revocationFeed) nameOf(r *http.Request) string {
	name := r.URL.Query().Get("verifier")
	if len(name) > maxVerifier || strings.ContainsFunc(name, notVSCHAR) {
		name = ""
	}
	if name == "" {
		name = "a verifier"
	}
	return name + " at " + f.server.proxies.clientAddress(r).String()
}

// begin says where a verifier's first frames take it.
func (l *lease) begin(cursor feed.Cursor, asOf int64) {
	if l != nil {
		l.start.Store(cursor.Position())
		l.extend(asOf)
	}
}

// extend says that a verifier may be about to learn that all up to asOf is known.
func (l *lease) extend(asOf int64) {
	if l != nil {
		l.until.Store(max(l.until.Load(), asOf+feed.Lease.Milliseconds()))
	}
}

// handleAcknowledge is POST /revocations: a verifier says how far it is. The lease
// is its credential.
func (s *Server) handleAcknowledge(w http.ResponseWriter, r *http.Request) (any, error) {
	f, err := parseForm(w, r)
	if err != nil {
		return nil, err
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(f.get("lease"))
	if err != nil {
		return nil, invalidRequest("lease is not one that this server gave out")
	}
	id, err := s.feed.box.Open(sealed, nil)
	if err != nil {
		return nil, invalidRequest("lease is not one that this server gave out")
	}
	cursor := feed.Cursor(f.get("cursor"))
	if cursor == "" {
		return nil, invalidRequest("cursor is missing")
	}
	s.feed.leases.acknowledge(string(id), cursor.Position())
	return nil, nil
}

func (l *leases) acknowledge(id string, position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := l.held[id]; held != nil {
		held.acked.Store(max(held.acked.Load(), position))
		return
	}
	if len(l.foreign) >= maxForeign {
		l.forget()
	}
	if len(l.foreign) < maxForeign {
		l.foreign[id] = foreignAck{max(l.foreign[id].position, position), time.Now()}
	}
}

// forwarded takes acknowledgements that another instance got.
func (l *leases) forwarded(ids []string, position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if held := l.held[id]; held != nil {
			held.acked.Store(max(held.acked.Load(), position))
		}
	}
}

// forget drops acknowledgements that nobody has asked for.
func (l *leases) forget() {
	for id, ack := range l.foreign {
		if time.Since(ack.at) > foreignKept {
			delete(l.foreign, id)
		}
	}
}

// instances is the index of the running servers that have given out leases.
const instances = "feed/instances"

const (
	registeredFor   = 30 * time.Second
	registeredAgain = 10 * time.Second
)

// register makes this instance known to the others, while it gives out leases.
func (f *revocationFeed) register(ctx context.Context) error {
	f.registering.Lock()
	defer f.registering.Unlock()
	now := time.Now()
	if now.Sub(f.registered) < registeredAgain {
		return nil
	}
	if err := f.server.store.Link(ctx, instances, f.stream, now.Add(registeredFor)); err != nil {
		return unavailable(err)
	}
	f.registered = now
	return nil
}

// stayRegistered repeats that until ctx ends, and takes it back then: unless a verifier
// may still believe in what it was told here, and whoever waits for all verifiers has to
// wait for its lease to end.
func (f *revocationFeed) stayRegistered(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, registeredAgain)
		if f.leases.any() {
			if err := f.register(ctx); err != nil && !errors.Is(err, context.Canceled) {
				f.server.log.Warn("this instance could not be registered for the feed", "error", err)
			}
		}
	}
	if f.leases.any() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := f.server.store.Unlink(ctx, instances, f.stream); err != nil {
		f.server.log.Debug("this instance is still registered for the feed", "error", err)
	}
}
