package authserver

import (
	"context"
	"errors"
	"fmt"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/store"
)

// errEnded says that a token, or something that stands behind it, has ended. What
// it was is for the log.
var errEnded = errors.New("it has ended")

// standing is what the store says, at this instant and not a moment ago, of those
// whom a grant or a token speaks about. All of it takes one round trip.
type standing struct {
	user    user           // the zero user for a client's own token
	epoch   epoch          // of the client
	records []store.Record // of the further keys
}

// standingOf asks for the client, the user unless he is the client itself, the
// session if there is one, and further keys. It returns errNoClient, errNoUser or
// errEnded, wrapped, when one of the first three can no longer have tokens.
func (s *Server) standingOf(ctx context.Context, clientID, subject, sessionID string, keys ...string) (standing, error) {
	if !isClientID(clientID) || !isSubject(subject) {
		return standing{}, errNoClient
	}
	records, err := s.store.Get(ctx, append(s.standingKeys(clientID, subject, sessionID), keys...)...)
	if err != nil {
		return standing{}, unavailable(fmt.Errorf("looking up what stands behind a token: %w", err))
	}
	return s.readStanding(clientID, subject, sessionID, records)
}

// standingKeys are the keys of the records that readStanding begins with: two of the
// client, two of the user, and one of the session if there is one.
func (s *Server) standingKeys(clientID, subject, sessionID string) []string {
	keys := append(s.clients.keys(clientID), s.users.keys(subject)...)
	if sessionID != "" {
		keys = append(keys, endedSessionKey(sessionID))
	}
	return keys
}

func (s *Server) readStanding(clientID, subject, sessionID string, records []store.Record) (standing, error) {
	client, err := s.clients.read(clientID, records[0:2])
	if err != nil {
		return standing{}, err
	}
	if s.clients.configured[clientID] == nil {
		if _, err := client.active(); err != nil {
			return standing{}, err
		}
	}
	found := standing{epoch: client.epoch, records: records[4:]}
	if sessionID != "" {
		found.records = records[5:]
	}
	if subject == clientID {
		return found, nil
	}
	known, err := s.users.read(subject, records[2:4])
	if err != nil {
		return standing{}, err
	}
	if found.user, err = known.active(); err != nil {
		return standing{}, err
	}
	if sessionID != "" && records[4].Exists() {
		return standing{}, fmt.Errorf("%w: the session", errEnded)
	}
	return found, nil
}

// presumed is standingOf by what the store said of the client and the user within the
// last second, which costs no question where both are busy. It is for refusing early,
// before anything is spent or moved; the session is not asked for.
func (s *Server) presumed(ctx context.Context, clientID, subject string) (found standing, err error) {
	if found.user, err = s.users.bySubject(ctx, subject); errors.Is(err, errNoUser) {
		return standing{}, errUserGone.because(err)
	} else if err != nil {
		return standing{}, err
	}
	found.epoch, err = s.clients.epoch(ctx, clientID)
	return found, err
}

// gone reports whether an error of standingOf is a decision and not trouble.
func gone(err error) bool {
	return errors.Is(err, errNoClient) || errors.Is(err, errNoUser) || errors.Is(err, errEnded)
}

// holder is who stands behind a live access token: the zero holder behind a
// client's own.
type holder struct {
	user  user
	grant Grant
}

// accessTokenLive asks for everything that can end an access token before its exp,
// in one round trip to the store: the token itself, its grant, session, user and
// client. (A key that was revoked verifies nothing: readAccessToken has refused it.)
// Every endpoint that takes an access token asks it.
func (s *Server) accessTokenLive(ctx context.Context, claims accesstoken.Claims) (h holder, live bool, err error) {
	keys := []string{s.revoked.Key(claims.ID)}
	if !byClientItself(claims) {
		keys = append(keys, s.grants.Key(claims.GrantID))
	}
	found, err := s.standingOf(ctx, claims.ClientID, claims.Subject, claims.SessionID, keys...)
	switch {
	case gone(err):
		return holder{}, false, nil
	case err != nil:
		return holder{}, false, err
	case found.records[0].Exists():
		return holder{}, false, nil
	}
	if byClientItself(claims) { // no grant stands behind it
		live = claims.ClientEpoch >= found.epoch.number && claims.IssuedAt > s.notBefore()
	} else if h.grant, live, err = s.grantLive(ctx, claims.GrantID, found.records[1], found); err != nil {
		return holder{}, false, err
	}
	if live {
		var ended bool
		ended, err = s.endedByLog(ctx, claims)
		live = !ended && err == nil
	}
	h.user = found.user
	return h, live, err
}

// endedByLog reports whether the log of revocations, as far as this instance has read
// it, ends a token that lives by the store. That may know of what a later version ends;
// or whoever is ending the grant has logged that, and has not deleted its record yet.
// See overHere.
func (s *Server) endedByLog(ctx context.Context, claims accesstoken.Claims) (bool, error) {
	level, ended := s.feed.set.Revoked(feed.SubjectsOf("", &claims))
	if !ended || claims.GrantID == "" {
		return ended, nil
	}
	switch level {
	case feed.Grant, feed.Session, feed.SubjectEpoch, feed.ClientEpoch: // the others leave the grant
		return true, s.overHere(ctx, claims.GrantID)
	}
	return true, nil
}

// grantLive returns the grant in a record and whether it lives in the epochs of those
// who stand behind it. See overHere.
func (s *Server) grantLive(ctx context.Context, grantID string, record store.Record, behind standing) (Grant, bool, error) {
	if !record.Exists() {
		return Grant{}, false, nil
	}
	grant, err := s.grants.Decode(record)
	if err != nil {
		return grant, false, err
	}
	if s.grantEnded(grant, behind.epoch, behind.user) != nil {
		return grant, false, s.overHere(ctx, grantID)
	}
	return grant, true, nil
}

// overHere deletes the record of a grant that has ended, before anybody is told. Another
// instance may not have read the log as far, or believe for a second what it was told of
// the epochs: else the grant would be over here and be refreshed there.
func (s *Server) overHere(ctx context.Context, grantID string) error {
	if err := s.finish(ctx, []string{s.grants.Key(grantID)}); err != nil {
		return unavailable(fmt.Errorf("ending a grant: %w", err))
	}
	return nil
}

// grantEnded says what has ended a grant whose record is there: all of its client or
// of its user was ended, or the store has lost something since.
func (s *Server) grantEnded(grant Grant, client epoch, u user) error {
	switch {
	case grant.ClientEpoch < client.number:
		return errors.New("of an epoch of the client that has ended")
	case grant.SubjectEpoch < u.epoch.number && (grant.SubjectEpoch > 0 || grant.AuthTime != 0 && u.ended(grant.AuthTime)):
		return errors.New("of an epoch of the user that has ended")
	case grant.Created <= s.notBefore():
		return errors.New("the store has lost something since, and was accepted")
	}
	return nil
}
