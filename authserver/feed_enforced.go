package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/feed"
	"authserver/store"
)

// enforcedWithin is the longest that enforced waits: after it no verifier anywhere
// accepts what ended before. Either it has applied the frame, or nothing has
// confirmed its knowledge since, and its lease is over. The rest is for clocks that
// do not run alike.
const enforcedWithin = feed.Lease + 100*time.Millisecond

const (
	fenceStep    = 5 * time.Millisecond  // between two looks at the acknowledgements
	reportStep   = 25 * time.Millisecond // between two reports to another instance
	reportsKept  = 10 * time.Second
	maxNamed     = 20   // verifiers that a report names
	maxForwarded = 1000 // leases in one message
	maxWaiting   = 16   // callers at once
)

// Enforcement says where everything that had ended before a call is enforced.
type Enforcement struct {
	Verifiers    int      `json:"verifiers"`    // that hold a lease, at all instances
	Acknowledged int      `json:"acknowledged"` // have applied it
	Lapsed       []string `json:"lapsed"`       // did not say so; their lease is over, so they accept nothing offline until they are back
	Unnamed      int      `json:"unnamed"`      // further ones like those
	NoLease      []string `json:"no_lease"`     // follow the feed without promising anything
	Silent       int      `json:"silent"`       // instances that did not answer, so that their verifiers do not count here; the leases that they gave are over
	Milliseconds int64    `json:"milliseconds"`
	Receipt      string   `json:"receipt"` // JWS of all this, of type revocation-receipt+jwt

	// Error says why nothing of this is known. Verifiers that hold a lease enforce it
	// all the same, when that is over at the latest.
	Error string `json:"error,omitempty"`
}

// String is for people.
func (e Enforcement) String() string {
	if e.Error != "" {
		return e.Error
	}
	verifiers := "verifiers"
	if e.Verifiers == 1 {
		verifiers = "verifier"
	}
	text := fmt.Sprintf("enforced at %d of %d %s in %d ms", e.Acknowledged, e.Verifiers, verifiers, e.Milliseconds)
	if lapsed := len(e.Lapsed) + e.Unnamed; lapsed > 0 {
		text += fmt.Sprintf("; %d did not answer and have lost their lease: %s", lapsed, strings.Join(e.Lapsed, ", "))
	}
	if e.Silent > 0 {
		text += fmt.Sprintf("; servers that did not answer, of which all leases are over: %d", e.Silent)
	}
	if len(e.NoLease) > 0 {
		text += "; without a lease: " + strings.Join(e.NoLease, ", ")
	}
	return text
}

// receipt is the payload of Enforcement.Receipt.
type receipt struct {
	Issuer   string `json:"iss"`
	ID       string `json:"jti"`
	IssuedAt int64  `json:"iat"`
	Enforcement
}

// fence is an event of the log that asks for acknowledgements, where it was read.
type fence struct {
	id       string
	from     string // the instance that asked
	position uint64
	noLease  []string

	joined       uint64              // of leases, at the last look at them
	known        map[*lease]struct{} // leases that were looked at
	pending      []*lease            // those that may go back to before the fence and have not acknowledged it
	acknowledged int
}

// report is what an instance says about a fence, in a log of the fence's own.
type report struct {
	Instance     string   `json:"instance"`
	Verifiers    int      `json:"verifiers"`
	Acknowledged int      `json:"acknowledged"`
	Pending      []string `json:"pending"` // names, maxNamed at most
	NoLease      []string `json:"no_lease"`
	Lapsed       int      `json:"lapsed"`
	Sent         bool     `json:"sent"`      // the fence: nobody begins before it any more
	Forwarded    []string `json:"forwarded"` // leases of other instances that acknowledged here
}

func (r report) done() bool { return r.Sent && r.Acknowledged+r.Lapsed == r.Verifiers }

func reportLog(fenceID string) string { return "enforced/" + fenceID }

// enforced waits until everything that was revoked before the call is enforced by
// every verifier of every instance, a little longer than a lease at most, and says
// how. An error means that nothing is known but what the lease promises.
func (s *Server) enforced(ctx context.Context) (Enforcement, error) {
	f := s.feed
	select {
	case f.waiting <- struct{}{}:
		defer func() { <-f.waiting }()
	case <-ctx.Done():
		return Enforcement{}, unavailable(ctx.Err())
	}
	began := time.Now()
	id := newID()
	seen := f.expect(id)
	defer f.unexpect(id)
	if err := s.publish(ctx, revocation{Fence: id, From: f.stream, Reason: "wait"}); err != nil {
		return Enforcement{}, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, enforcedWithin)
	defer cancel()
	others, err := f.others(ctx)
	if err != nil {
		return Enforcement{}, unavailable(err)
	}
	var all reports
	select {
	case own := <-seen:
		all = f.gather(ctx, own, others)
	case <-ctx.Done():
		return Enforcement{}, unavailable(errors.New("the log cannot be read here"))
	}
	e := all.sum(others)
	e.Milliseconds = time.Since(began).Milliseconds()
	payload, err := json.Marshal(receipt{Issuer: s.issuer, ID: id, IssuedAt: time.Now().Unix(), Enforcement: e})
	if err != nil {
		return Enforcement{}, fmt.Errorf("encoding a receipt: %w", err)
	}
	if e.Receipt, err = s.signForVerifiers(feed.ReceiptType, payload); err != nil {
		return Enforcement{}, signingTrouble(err)
	}
	s.log.Info("revocations enforced", "event", "enforced", "verifiers", e.Verifiers, "acknowledged", e.Acknowledged,
		"lapsed", len(e.Lapsed)+e.Unnamed, "milliseconds", e.Milliseconds)
	return e, nil
}

// others returns the further instances that may have given out leases.
func (f *revocationFeed) others(ctx context.Context) ([]string, error) {
	var found []string
	for member, err := range f.server.store.Linked(ctx, instances, store.Member{}) {
		if err != nil {
			return nil, fmt.Errorf("looking up the other instances: %w", err)
		}
		if instance := member.Name; instance != f.stream && !slices.Contains(found, instance) {
			found = append(found, instance)
		}
	}
	return found, nil
}

// expect returns where a fence of ours is sent when it comes along the log.
func (f *revocationFeed) expect(id string) <-chan *fence {
	seen := make(chan *fence, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected[id] = seen
	return seen
}

func (f *revocationFeed) unexpect(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.expected, id)
}

// meet takes a fence that the log brought, before its frame goes out. The caller
// holds f.mu.
func (f *revocationFeed) meet(r revocation, position uint64) {
	met := &fence{id: r.Fence, from: r.From, position: position, known: make(map[*lease]struct{})}
	f.leases.mu.Lock()
	for _, name := range f.leases.unleased {
		if len(met.noLease) < maxNamed {
			met.noLease = append(met.noLease, name)
		}
	}
	f.leases.mu.Unlock()
	if seen := f.expected[r.Fence]; seen != nil {
		select {
		case seen <- met:
		default: // the fence is in the log twice, and once is enough
		}
		return
	}
	if r.From != f.stream && !f.read.asOf.IsZero() && time.Since(time.Unix(r.At, 0)) < reportsKept {
		go f.answer(met)
	}
}

// tally says how many of a fence's leases have acknowledged it, and have ended.
func (f *revocationFeed) tally(met *fence) report {
	r := report{Instance: f.stream, NoLease: met.noLease, Sent: f.sent.Load() >= met.position} // first, see report.Sent
	f.leases.mu.Lock()
	if joined := f.leases.joined; joined != met.joined {
		met.joined = joined
		for _, l := range f.leases.held {
			if _, known := met.known[l]; !known {
				met.known[l] = struct{}{}
				met.pending = append(met.pending, l)
			}
		}
	}
	f.leases.mu.Unlock()
	now := f.clock(time.Now())
	met.pending = slices.DeleteFunc(met.pending, func(l *lease) bool {
		switch {
		case l.start.Load() >= met.position, l.until.Load() < 0: // it began with the fence behind it, or never
			return true
		case l.acked.Load() >= met.position:
			met.acknowledged++
			return true
		case l.until.Load() == 0: // about to begin, and perhaps before the fence
		case l.until.Load() < now:
			r.Lapsed++
		}
		if len(r.Pending) < maxNamed {
			r.Pending = append(r.Pending, l.name)
		}
		return false
	})
	r.Acknowledged, r.Verifiers = met.acknowledged, met.acknowledged+len(met.pending)
	return r
}
