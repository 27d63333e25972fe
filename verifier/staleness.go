package verifier

import (
	"context"
	"fmt"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
)

// WhenStale is what a route does while the verifier does not know what was revoked
// up to the last second: the issuer does not answer, or somebody has cut the
// connection to its feed. It decides how long after its revocation a token may still
// be accepted:
//
//	Reject             1 second; while the feed is away, nothing is accepted
//	Introspect         1 second; while the feed is away, each token costs a call to the issuer
//	AcceptUntilExpiry  1 second, while the feed is away until the token expires
//
// A verifier that has nothing but routes with the first two holds a lease, by which
// the issuer knows when a revocation is enforced here. It counts on it: the first
// request that is to be accepted until expiry has the lease given up, and before that
// has happened it is not accepted. Protect and Config give it up in time.
//
// While the feed is there, a revocation takes less than the second: about the time
// to the issuer and back, and 40 ms.
type WhenStale int

// The policies.
const (
	AsConfigured WhenStale = iota // Config.WhenStale, and there Reject
	Reject
	Introspect
	AcceptUntilExpiry
)

// current returns nil if the token was not revoked, as far as the policy asks.
func (v *Verifier) current(ctx context.Context, token string, e *entry, policy WhenStale) error {
	f := v.follower.Load()
	if f == nil {
		return nil // the issuer has no feed: the token's life is the bound
	}
	fresh := f.fresh(ctx) // before the look at what is revoked, or a wait would outdate it
	if generation := f.feed.Set.Generation() + 1; e.seen.Load() != generation {
		if level, revoked := f.feed.Set.Revoked(e.revocable()); revoked {
			return revokedError(level)
		}
		e.seen.Store(generation)
	}
	if policy == AsConfigured {
		policy = v.config.WhenStale
	}
	if policy == AcceptUntilExpiry {
		v.noLease.Store(true)
	}
	switch {
	case fresh:
		return nil
	case policy == AcceptUntilExpiry && !f.held.Load():
		return nil
	case policy == Introspect:
		return v.introspect(ctx, token, e)
	}
	return &Error{Code: "temporarily_unavailable", Reason: RevocationsUnavailable,
		Description: "what was revoked in the last second is not known here; try again"}
}

// revocable returns what the token could be revoked by.
func (e *entry) revocable() feed.Subjects {
	if made := e.subjects.Load(); made != nil {
		return *made
	}
	c := &e.claims
	made := feed.SubjectsOf(e.key.ID, &accesstoken.Claims{ID: c.ID, GrantID: c.GrantID, SessionID: c.SessionID, Subject: c.Subject,
		ClientID: c.ClientID, Issuer: c.Issuer, IssuedAt: c.IssuedAt.Unix(), ClientEpoch: e.epochs[0], SubjectEpoch: e.epochs[1]})
	e.subjects.Store(&made)
	return made
}

// what a person may read instead of the claim's name.
var revokedWhat = map[feed.Level]string{
	feed.Token: "the token", feed.Grant: "the token's grant", feed.Session: "the user's session", feed.Subject: "all that the user had",
	feed.SubjectEpoch: "all that the user had", feed.ClientEpoch: "all that the client had",
	feed.Client: "all that the client had", feed.KeyID: "the key that signed the token", feed.Issuer: "all that the issuer had signed",
}

func revokedError(level feed.Level) error {
	return invalidToken(Revoked, "%s was revoked", revokedWhat[level])
}

// introspect asks the issuer about the token (RFC 7662), and takes its yes for as
// long as a lease on the feed would last.
func (v *Verifier) introspect(ctx context.Context, token string, e *entry) error {
	asked := time.Now()
	if age := asked.UnixNano() - e.introspected.Load(); age >= 0 && age < int64(feed.Lease) {
		return nil
	}
	active, err := v.source.introspect(ctx, token)
	if err != nil {
		v.config.Logger.Warn("introspection failed", "issuer", v.config.Issuer, "error", err)
		return &Error{Code: "temporarily_unavailable", Reason: RevocationsUnavailable,
			Description: fmt.Sprintf("what was revoked in the last second is not known here, and %s does not answer", v.config.Issuer)}
	}
	if !active {
		return invalidToken(Revoked, "the issuer says that the token is not active")
	}
	e.introspected.Store(asked.UnixNano())
	return nil
}
