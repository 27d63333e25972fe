package authserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/internal/accesstoken"
	"authserver/store"
)

// refreshTokenGrant exchanges a refresh token for its successor (OAuth 2.1 §4.3).
//
// The generation in the token is compared with the version of the grant's record
// by one Swap. If that succeeds, the successor is the next generation. If the
// record is one ahead and moved there within the retry window, this is a
// repetition: a lost answer or a parallel refresh. It gets the same successor,
// whose claims all come from the record. Anything older is theft and ends the grant.
type refreshTokenGrant struct{ server *Server }

func (g refreshTokenGrant) Authorize(ctx context.Context, request tokenRequest) (Authorization, error) {
	s, c := g.server, request.client
	raw := request.form.get("refresh_token")
	if raw == "" {
		return Authorization{}, invalidRequest("refresh_token is missing")
	}
	claims, err := s.parseRefreshToken(raw)
	if errors.Is(err, errExpired) { // ATTACKS I10, I11: who is told so throws it away
		if off := clocksAgree(ctx, s.store); off != nil {
			return Authorization{}, unavailable(off)
		}
	}
	if err != nil {
		return Authorization{}, invalidGrant("the refresh token is not valid: it is malformed, expired or not from here").because(err)
	}
	// Everything is checked before the record moves. A token in the wrong hands is
	// refused without harm to the grant, or it would be a way to sign people out.
	if claims.ClientID != c.id {
		return Authorization{}, invalidGrant("the refresh token was issued to another client")
	}
	if _, err := s.presumed(ctx, c.id, claims.Subject); err != nil {
		return Authorization{}, err
	}
	allowed := slices.DeleteFunc(strings.Fields(claims.Scope), func(one string) bool { return !slices.Contains(c.scopes, one) })
	resource, scope, err := s.resources.target(request.form, allowed, claims.Resources)
	if err != nil {
		return Authorization{}, err
	}
	// Nothing moves for tokens that there are no keys for: who repeats the request for
	// longer than the retry window would look like a thief.
	if err := s.ready(c, resource, scope); err != nil {
		return Authorization{}, err
	}
	// Who ended it may have been killed before its record was gone.
	if ended, err := s.endedByLog(ctx, accesstoken.Claims{GrantID: claims.GrantID}); err != nil {
		return Authorization{}, err
	} else if ended {
		return Authorization{}, errGrantEnded.because(errors.New("the log says that it has ended"))
	}
	grant, record, outcome, err := g.move(ctx, request, claims)
	if err != nil {
		return Authorization{}, err
	}
	u, err := g.confirm(ctx, claims.GrantID, grant)
	if err != nil { // it moved, and is dead all the same
		return Authorization{}, err
	}
	s.metrics.refreshes.WithLabelValues(outcome).Inc()
	authorization := Authorization{
		GrantID: claims.GrantID, Grant: grant, User: u, Scope: scope, Resource: resource,
		TokenID:  derivedID(claims.GrantID, record.Version, resource, scope),
		IssuedAt: record.Changed,
		Refresh:  &refresh{Generation: record.Version, Expires: record.Expires},
	}
	if outcome == "retried" {
		authorization.Age = record.Now.Sub(record.Changed)
	}
	// The token stays, only the access token is new; who repeats a request from before
	// the client stopped rotating has not got the token that stays.
	if !c.rotates && outcome != "retried" {
		authorization.TokenID, authorization.IssuedAt, authorization.Refresh = newID(), time.Now(), nil
		return authorization, nil
	}
	authorization.unsent = func(ctx context.Context) error {
		err := s.store.Create(ctx, unsentKey(claims.GrantID, record.Version), nil, record.Expires)
		if err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("noting that a successor was not sent: %w", err)
		}
		return nil
	}
	return authorization, nil
}

// unsentKey is the key of the mark that a generation of a grant came to be without a
// token for it, since signing failed. The client may repeat its request, beyond the
// retry window too, until it has moved the grant on.
func unsentKey(grantID string, generation uint64) string {
	return fmt.Sprintf("unsent/%s/%d", grantID, generation)
}

// wasUnsent reports whether there is such a mark.
func (g refreshTokenGrant) wasUnsent(ctx context.Context, grantID string, generation uint64) (bool, error) {
	ctx, cancel := withoutCaller(ctx, endWithin) // it may be a thief
	defer cancel()
	records, err := g.server.store.Get(ctx, unsentKey(grantID, generation))
	if err != nil {
		return false, unavailable(fmt.Errorf("looking whether a successor was sent: %w", err))
	}
	return records[0].Exists(), nil
}

// confirm refuses a grant that has ended by what the store says now: it has just
// answered, so that what it said before a partition is not good enough any more. Who
// was asked for within a second is not asked for again.
func (g refreshTokenGrant) confirm(ctx context.Context, grantID string, grant Grant) (user, error) {
	u, err := g.server.users.confirmed(ctx, grant.Subject)
	if errors.Is(err, errNoUser) {
		return user{}, errUserGone.because(err)
	} else if err != nil {
		return user{}, err
	}
	epoch, err := g.server.clients.confirmedEpoch(ctx, grant.ClientID)
	if err != nil {
		return user{}, err
	}
	if why := g.server.grantEnded(grant, epoch, u); why != nil {
		if err := g.server.overHere(ctx, grantID); err != nil {
			return user{}, err
		}
		return user{}, errGrantEnded.because(why)
	}
	return u, nil
}

// move takes the grant from the token's generation to the next and returns its
// record there.
func (g refreshTokenGrant) move(ctx context.Context, request tokenRequest, claims refreshClaims) (Grant, store.Record, string, error) {
	s := g.server
	var grant Grant
	var record store.Record
	var err error
	if !request.client.rotates {
		grant, record, err = s.grants.Get(ctx, claims.GrantID)
	}
	if request.client.rotates || err == nil && record.Version != claims.Generation { // or its tokens rotated once: Touch tells how long ago
		expires := earlier(time.Now().Add(s.tokens.RefreshIdle), time.Unix(claims.GrantExpires, 0))
		grant, record, err = s.grants.Touch(ctx, claims.GrantID, claims.Generation, expires)
	}
	switch {
	case err == nil:
		return grant, record, "rotated", nil
	case errors.Is(err, store.ErrNotFound):
		return Grant{}, store.Record{}, "", errGrantEnded.because(errNoGrant)
	case !errors.Is(err, store.ErrConflict):
		return Grant{}, store.Record{}, "", unavailable(fmt.Errorf("moving a grant: %w", err))
	case record.Version == claims.Generation+1 && s.mayRetry(record):
		return grant, record, "retried", nil
	case record.Version < claims.Generation:
		// A genuine token newer than the record: the store has lost what it
		// acknowledged. Nobody is to blame, but the tokens before it, which were used, are
		// good again by this record: it ends (ATTACKS FT-03).
		s.log.Error("a grant is older than its refresh token: the store was rolled back, and the grant ends", "grant_id", claims.GrantID)
		if err := s.endGrant(ctx, claims.GrantID, reasonStoreLost); err != nil {
			return Grant{}, store.Record{}, "", unavailable(err)
		}
		return Grant{}, store.Record{}, "", errGrantEnded.because(errors.New("the store is older than the token"))
	case record.Version == claims.Generation+1:
		if unsent, err := g.wasUnsent(ctx, claims.GrantID, record.Version); err != nil || unsent {
			return grant, record, "retried", err
		}
	}
	return Grant{}, store.Record{}, "", g.theft(ctx, request, claims, record)
}

// mayRetry reports whether a record moved within the retry window, by the clock that
// says both when it did and what time it is: the store's.
func (s *Server) mayRetry(record store.Record) bool {
	age := record.Now.Sub(record.Changed)
	return age >= 0 && age < *s.tokens.RetryWindow
}

// theft ends a grant of which an outdated refresh token was presented (RFC 9700
// §4.14.2). The grant has ended before the refusal is sent.
func (g refreshTokenGrant) theft(ctx context.Context, request tokenRequest, claims refreshClaims, record store.Record) error {
	s := g.server
	s.metrics.refreshes.WithLabelValues("theft").Inc()
	refused := invalidGrant("the refresh token was used before; the grant has ended for safety, the user signs in again")
	refused.cause, refused.trace = recorded{errors.New("reuse")}, newTrace()
	s.log.Warn("refresh token reused: the grant ends", "event", "refresh_theft", "trace_id", refused.trace, "grant_id", claims.GrantID,
		"client_id", claims.ClientID, "sub", claims.Subject, "generation", claims.Generation, "current", record.Version,
		"address", request.address.String())
	if err := s.endGrant(ctx, claims.GrantID, reasonTheft); err != nil {
		return unavailable(err)
	}
	return refused
}
